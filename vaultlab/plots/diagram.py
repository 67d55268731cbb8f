"""Phase diagrams: what is best at every place of a plane whose two axes are logarithmic."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, canvas, colour_bar, heat

COLOURS = (GREY, PALETTE[0], PALETTE[1])
"""Of the phases, in order: nothing, something, what is looked for."""


class Plane(NamedTuple):
    """Where the cells lie: values along x and y in equal ratios, and the axes' names."""

    x: NDArray[Any]
    y: NDArray[Any]
    across: str
    up: str


Line = tuple[NDArray[Any], NDArray[Any]]
"""A boundary as its x and its y, in the plane's own units."""


def phases(
    panels: dict[str, NDArray[np.integer]], names: Sequence[str], plane: Plane, lines: Sequence[Line], label: str
) -> Canvas:
    """Side by side, one panel a title: phases [y, x] as places in `names`, the boundaries on top of each."""
    with canvas(1, len(panels), height=4.0, sharey=True) as (figure, axes):
        for ax, (title, cells) in zip(axes[0], panels.items(), strict=True):
            _place(ax.imshow(_coarse(cells), cmap=ListedColormap(COLOURS), vmin=-0.5, vmax=2.5, aspect="auto"), plane)
            _frame(ax, plane)
            _draw_lines(ax, lines)
            ax.set_title(title)
        axes[0, 0].set_ylabel(plane.up)
        handles: list[Any] = [Patch(facecolor=colour, label=name) for colour, name in zip(COLOURS, names, strict=True)]
        if lines:
            handles += [axes[0, 0].plot([], [], color=GREY, linestyle="--", label=label)[0]]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def amounts(cells: NDArray[np.floating], label: str, plane: Plane, lines: Sequence[Line], name: str) -> Canvas:
    """One number a cell [y, x], with the boundaries on top."""
    with canvas(height=4.0) as (figure, axes):
        ax = axes[0, 0]
        image = heat(ax, cells, label, bar=None)
        _place(image, plane)
        _frame(ax, plane)
        _draw_lines(ax, lines)
        ax.set_ylabel(plane.up)
        colour_bar(ax, image, label)
        if lines:
            ax.plot([], [], color=GREY, linestyle="--", label=name)
            figure.legend(loc="outside lower center")
    return figure


def _coarse(cells: NDArray[Any]) -> NDArray[Any]:
    """Cells of many pixels each, as `heat` has them; of two such images an SVG is still small enough."""
    times = max(1, -(-400 // max(cells.shape)))
    return cells.repeat(times, 0).repeat(times, 1)


def _place(image: AxesImage, plane: Plane) -> None:
    """In powers of ten, half a cell beyond the outermost values; the lowest y at the bottom."""
    (left, right), (bottom, top) = (_reach(values) for values in (plane.x, plane.y))
    image.set_extent((left, right, top, bottom))  # row 0 of the cells is the lowest y
    image.axes.set(xlim=(left, right), ylim=(bottom, top))


def _reach(values: NDArray[Any]) -> tuple[float, float]:
    low, high = math.log10(values[0]), math.log10(values[-1])
    half = (high - low) / (len(values) - 1) / 2
    return low - half, high + half


def _frame(ax: Axes, plane: Plane) -> None:
    for ticks, values in ((ax.set_xticks, plane.x), (ax.set_yticks, plane.y)):
        low, high = _reach(values)
        decades = range(math.ceil(low), math.floor(high) + 1)
        ticks(list(decades), [f"{10.0**decade:g}" for decade in decades])
        minor = [
            math.log10(k * 10.0**decade) for decade in range(math.floor(low), math.ceil(high)) for k in range(2, 10)
        ]
        ticks([place for place in minor if low <= place <= high], minor=True)
    ax.set_xlabel(plane.across)
    ax.spines[:].set_visible(False)


def _draw_lines(ax: Axes, lines: Sequence[Line]) -> None:
    for x, y in lines:
        (line,) = ax.plot(np.log10(x), np.log10(y), color="white", linestyle="--", linewidth=1.8)
        line.set_path_effects([withStroke(linewidth=3.6, foreground="black")])
