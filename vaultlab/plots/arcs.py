"""What one token gives to a later one, as arcs over the text."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Arc
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, canvas, token_axis

NAMED = 40
"""So many tokens at most: of a longer text the last ones."""

FAINTEST = 0.05
"""The thinnest arc that is drawn, as a share of the thickest; what lies below is summed up."""

_HEIGHT = 0.62
_THICKEST = 5.0


def arcs(tokens: Sequence[str], given: Float[NDArray[np.float32], "query key"], title: str) -> tuple[Canvas, float]:
    """From each key to the queries behind it, as thick as what is given; and the share of it all that is drawn.

    What a token gives itself is a dot below its name's tick. NaN is left out, and counts for nothing.
    """
    first = max(0, len(tokens) - NAMED)
    values = np.nan_to_num(given)
    window = values[first:, first:]
    most = float(window.max()) or 1.0
    drawn = np.where(window >= FAINTEST * most, window, 0.0)
    spans = [query - key for query, key in np.argwhere(drawn) if query != key]
    high = _HEIGHT * math.sqrt(max(spans, default=1))
    with canvas(height=min(6.0, 2.4 + 0.45 * high)) as (figure, axes):
        ax = axes[0, 0]
        for query, key in sorted(np.argwhere(drawn).tolist(), key=lambda cell: float(drawn[cell[0], cell[1]])):
            share = float(drawn[query, key]) / most
            if query == key:
                ax.scatter([key], [0], s=60 * share, color=PALETTE[1], zorder=3, linewidths=0)
                continue
            middle, width = (query + key) / 2, query - key
            arc = Arc(
                (middle, 0), width, 2 * _HEIGHT * math.sqrt(width), theta1=0, theta2=180, color=PALETTE[0],
                linewidth=0.6 + (_THICKEST - 0.6) * share, alpha=0.35 + 0.6 * share,
            )  # fmt: skip
            ax.add_patch(arc)
        token_axis(ax, "x", tokens[first:], NAMED)
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set(xlim=(-0.7, len(window) - 0.3), ylim=(-0.07 * high, 1.08 * high), yticks=[])
        ax.tick_params(length=0)
        ax.set_xlabel("from left to right; a dot: to itself" if np.diag(drawn).any() else "from left to right")
        ax.spines[:].set_visible(False)
        figure.suptitle(title)
    whole = float(values.sum())
    return figure, float(drawn.sum()) / whole if whole else 0.0
