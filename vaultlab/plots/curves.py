"""Lines with their spread: one panel, or small multiples that share their scales."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vaultlab.plots.style import GREY, PALETTE, SHADES, canvas, colour_bar, log_axis, visible

LEGEND = 12
MARKED = 40
"""A line of more spots has no markers."""


class Spot(NamedTuple):
    """A metric in one place: its number, how far it reaches, and what chance alone gives."""

    value: float
    low: float
    high: float
    null: float | None = None


Lines = dict[Any, list[tuple[Any, Spot]]]
"""What a line's colour tells (None for a single line) → its spots along x."""


class Curves(NamedTuple):
    """The words of the figure: its axes, what the colours tell, what the bands are."""

    x: str
    y: str
    over: str
    spread: str


def curves(panels: Mapping[str, Lines], words: Curves) -> Canvas:
    """A panel for each entry, named by it. Where x is a number lines, else points."""
    across = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // across)
    overs = list(dict.fromkeys(over for lines in panels.values() for over in lines))
    colours = dict(zip(overs, _colours(overs), strict=True))
    height = 3.8 if len(panels) == 1 else 1.2 + 1.9 * rows
    with canvas(rows, across, height=height, sharex=True, sharey=True) as (figure, axes):
        flat = list(axes.flat)
        for ax, (name, lines) in zip(flat, panels.items(), strict=False):
            for over, line in lines.items():
                _draw(ax, line, colours[over])
            _draw_nulls(ax, lines, colours)
            ax.set_title(visible(name).replace("·", " "))
        for place, ax in enumerate(flat):
            ax.set_visible(place < len(panels))
            ax.tick_params(labelbottom=place + across >= len(panels))
        _scales(flat[0], [spot for lines in panels.values() for line in lines.values() for spot in line], len(panels))
        figure.supxlabel(words.x, fontsize=12)
        figure.supylabel(words.y, fontsize=12)
        _legend(figure, flat, panels, colours, words)
    return figure


def _colours(overs: Sequence[Any]) -> Sequence[Any]:
    if len(overs) <= len(PALETTE):
        return PALETTE[: len(overs)]
    scale = Normalize(min(overs), max(overs)) if _numeric(overs) else Normalize(0, len(overs) - 1)
    return [SHADES(scale(over if _numeric(overs) else at)) for at, over in enumerate(overs)]


def _numeric(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _draw(ax: Axes, line: Sequence[tuple[Any, Spot]], colour: Any) -> None:
    xs = [x for x, _ in line]
    value, low, high = (np.array([getattr(spot, part) for _, spot in line]) for part in ("value", "low", "high"))
    if not _numeric(xs):
        reach = np.abs(np.stack([value - low, high - value]))
        ax.errorbar([visible(str(x)) for x in xs], value, yerr=reach, fmt="o", color=colour, capsize=3)
        ax.margins(x=0.5 / len(xs))
        return
    ax.plot(xs, value, marker="o" if len(xs) <= MARKED else None, markersize=4, color=colour)
    if np.any(low < high):
        ax.fill_between(xs, low, high, color=colour, alpha=0.25, linewidth=0)


def _draw_nulls(ax: Axes, lines: Lines, colours: Mapping[Any, Any]) -> None:
    """What chance alone gives: one grey line where it is the same for all, else one in each colour."""
    nulls = {over: [(x, spot.null) for x, spot in line if spot.null is not None] for over, line in lines.items()}
    known = {over: line for over, line in nulls.items() if line}
    same = len({tuple(line) for line in known.values()}) == 1
    for over, line in list(known.items())[: 1 if same else len(PALETTE)]:
        xs = [x if _numeric([x]) else visible(str(x)) for x, _ in line]
        ax.plot(xs, [null for _, null in line], linestyle="--", linewidth=1.2, color=GREY if same else colours[over])


def _scales(ax: Axes, spots: Sequence[tuple[Any, Spot]], panels: int) -> None:
    """Whole numbers have no half steps between them; what spans decades is drawn so."""
    xs = sorted({x for x, _ in spots}) if _numeric(x for x, _ in spots) else []
    ys = [y for _, spot in spots for y in (spot.value, spot.low, spot.high) if math.isfinite(y)]
    steps = 4 if panels > 1 else 8
    if xs and _by_decades(xs):
        log_axis(ax, "x")
    elif xs:
        ax.xaxis.set_major_locator(_ticks(steps, xs))
    if ys and min(ys) > 0 and max(ys) / min(ys) >= 1000:
        log_axis(ax, "y")
    else:
        ax.yaxis.set_major_locator(_ticks(6, ys))


def _ticks(most: int, values: Sequence[float]) -> MaxNLocator:
    whole = all(value == round(value) for value in values)
    return MaxNLocator(most, integer=whole, min_n_ticks=1 if whole else 2, steps=[1, 2, 2.5, 5, 10])


def _by_decades(xs: Sequence[float]) -> bool:
    """Whether values lie evenly only on a logarithmic axis: 1, 10, 100, and not 0 to 100."""
    if len(xs) < 3 or xs[0] <= 0 or xs[-1] / xs[0] < 30:
        return False
    widest = max(b - a for a, b in pairwise(xs)) / (xs[-1] - xs[0])
    widest_log = max(math.log(b / a) for a, b in pairwise(xs)) / math.log(xs[-1] / xs[0])
    return widest > 0.5 and widest_log < widest


def _legend(
    figure: Canvas, axes: Sequence[Axes], panels: Mapping[str, Lines], colours: Mapping[Any, Any], words: Curves
) -> None:
    handles: list[Any] = []
    many = len(colours) > len(PALETTE)
    if many and _numeric(colours):
        colour_bar(axes, ScalarMappable(Normalize(min(colours), max(colours)), SHADES), words.over)
    elif words.over:
        step = -(-len(colours) // LEGEND)
        named = list(colours.items())[::step]
        handles = [Line2D([], [], color=colour, label=f"{words.over} {visible(str(over))}") for over, colour in named]
    spots = [spot for lines in panels.values() for line in lines.values() for _, spot in line]
    if any(spot.low < spot.high for spot in spots):
        handles.append(Patch(color=GREY if len(colours) > 1 else PALETTE[0], alpha=0.4, label=words.spread))
    if any(spot.null is not None for spot in spots):
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="chance alone"))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
