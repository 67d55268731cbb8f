"""Numbers from the least to the largest, so that sets of any size lie over each other."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

FEW = 32
"""Up to so many numbers, each is a point."""


def ordered(ax: Axes, values: ArrayLike, colour: str, label: str | None) -> None:
    """A line over per cent: how many of the numbers are no larger."""
    line = np.sort(np.asarray(values))
    at = np.linspace(0, 100, len(line)) if len(line) > 1 else np.full(len(line), 50.0)
    ax.plot(at, line, "o-" if len(line) <= FEW else "-", color=colour, markersize=5, label=label)
