"""Groups of points in cells of their own, the large ones in larger cells, joined by lines inside each."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, WIDTH, canvas

CROWD = 12
"""A group of more points gets a cell as large as its share of them asks for."""


class Cluster(NamedTuple):
    """Where a group's points lie about its middle, which of them are joined, of what kind it is."""

    points: NDArray[Any]
    pairs: NDArray[Any]
    kind: str


Layout = tuple[list[tuple[float, float, int]], int]
"""A square [x, y, span] for each group, and how wide the square is that they all lie in."""


def clusters(panels: Sequence[tuple[str, Sequence[Cluster]]], colours: Mapping[str, str]) -> Canvas:
    """Side by side, each panel with its title; `colours` has each kind's, in the order of the legend."""
    reach = 1.5 * max(float(np.abs(one.points).max()) for _, panel in panels for one in panel)
    laid = [_cells([len(one.points) for one in panel]) for _, panel in panels]
    tallest = max(max(y + span for _, y, span in cells) / side for cells, side in laid)
    with canvas(1, len(panels), height=1.2 + tallest * min(3.6, WIDTH / len(panels))) as (figure, axes):
        for ax, (title, panel), layout in zip(axes[0], panels, laid, strict=True):
            _draw(ax, panel, layout, max(reach, 0.5), colours)
            ax.set_title(title)
        handles = [
            Line2D([], [], color=colour, marker="o", linestyle="", markersize=7, label=kind)
            for kind, colour in colours.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _draw(ax: Axes, panel: Sequence[Cluster], laid: Layout, reach: float, colours: Mapping[str, str]) -> None:
    cells, side = laid
    size = 5.0 if side <= 8 else 3.5
    for one, (x, y, span) in zip(panel, cells, strict=True):
        middle = np.array([x + span / 2, y + span / 2])
        at = middle + one.points * span / (2 * reach)
        weight = min(1.0, 12 / max(1, len(one.pairs)))
        lines = LineCollection(at[one.pairs], colors=GREY, linewidths=0.4 + 0.8 * weight, alpha=0.25 + 0.6 * weight)
        ax.add_collection(lines)
        ax.plot(*at.T, "o", color=colours[one.kind], markersize=size)
    bottom = max(y + span for _, y, span in cells)
    ax.set(xlim=(-0.1, side + 0.1), ylim=(bottom + 0.1, -0.1), aspect="equal", anchor="N")
    ax.set_axis_off()


def _cells(sizes: Sequence[int]) -> Layout:
    """For groups of these sizes cells without overlap, the larger ones first."""
    spans = [1 if size <= CROWD else math.ceil(math.sqrt(size / 3)) for size in sizes]
    order = sorted(range(len(spans)), key=lambda each: -spans[each])
    side = max(max(spans, default=1), math.ceil(math.sqrt(sum(span**2 for span in spans))))
    while True:
        taken, cells = np.zeros((side, side), dtype=bool), {}
        for each in order:
            span = spans[each]
            free = (
                (x, y)
                for y in range(side - span + 1)
                for x in range(side - span + 1)
                if not taken[y : y + span, x : x + span].any()
            )
            place = next(free, None)
            if place is None:
                break
            x, y = place
            taken[y : y + span, x : x + span] = True
            cells[each] = (float(x), float(y), span)
        if len(cells) == len(spans):
            return [cells[each] for each in range(len(spans))], side
        side += 1
