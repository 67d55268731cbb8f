"""All heads of a model at their places: a row a layer, a column a head; as a graph of who reads whom, or as maps."""

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, canvas, colour_bar, heat

Place = tuple[int, int]
"""Layer and head, both counted from 0."""

WIDEST = 5.0
"""Points: the line of the strongest edge."""

CHARACTER = 0.085
"""Inches that a character of a head's name takes along a row."""


class Edge(NamedTuple):
    """One head reads another: `kind` is its legend, `strength` from 0 to 1 its line's width."""

    writer: Place
    reader: Place
    kind: str
    strength: float


def head_graph(edges: Sequence[Edge], kinds: Sequence[str], layers: int, heads: int, title: str) -> Canvas:
    """Layers from the bottom up, so that every edge leads upwards; names at as many of its ends as have room."""
    height = min(9.0, max(3.4, 1.7 + 0.21 * layers))
    with canvas(height=height) as (figure, axes):
        ax = axes[0, 0]
        grid = np.mgrid[0:layers, 0:heads].reshape(2, -1)
        ax.scatter(grid[1], grid[0], s=5, color=GREY, alpha=0.6, linewidths=0)
        colours = dict(zip(kinds, PALETTE, strict=False))
        for edge in sorted(edges, key=lambda edge: edge.strength):
            (low, left), (high, right) = edge.writer, edge.reader
            bend = 0.18 if right >= left else -0.18
            ax.add_patch(
                FancyArrowPatch(
                    (left, low),
                    (right, high),
                    arrowstyle="-",
                    connectionstyle=f"arc3,rad={bend}",
                    color=colours[edge.kind],
                    linewidth=0.8 + (WIDEST - 0.8) * edge.strength,
                    alpha=0.85,
                    shrinkA=2,
                    shrinkB=2,
                )
            )
        ends = list(dict.fromkeys(end for edge in edges for end in (edge.writer, edge.reader)))
        if ends:
            ax.scatter([head for _, head in ends], [layer for layer, _ in ends], s=26, color=GREY, zorder=3)
        _names(ax, ends, {edge.reader for edge in edges}, (5.4 / heads, (height - 1.7) / layers))
        ax.set(xlabel="head", ylabel="layer", xlim=(-0.6, heads - 0.4), ylim=(-0.8, layers - 0.2))
        _whole(ax, "x", heads)
        _whole(ax, "y", layers)
        lines = [Line2D([], [], color=colours[kind], linewidth=3, label=kind) for kind in kinds]
        figure.legend(handles=lines, loc="outside lower center", ncols=len(kinds))
        figure.suptitle(title)
    return figure


def _names(ax: Axes, ends: Sequence[Place], readers: Container[Place], inches: tuple[float, float]) -> None:
    """The first ends first; below those that only write, for all their lines lead upwards. A name that would lie on
    another one is left out: its place says which head it is. `inches` from head to head and from layer to layer."""
    across, up = inches
    taken: list[tuple[float, float, float]] = []
    for layer, head in ends:
        name, above = f"L{layer}H{head}", (layer, head) in readers
        x, y, wide = head * across, layer * up + (0.14 if above else -0.14), CHARACTER * len(name)
        if all(abs(x - other) > (wide + width) / 2 or abs(y - level) > 0.21 for other, level, width in taken):
            taken.append((x, y, wide))
            gap, end = (5, "bottom") if above else (-5, "top")
            ax.annotate(name, (head, layer), (0, gap), textcoords="offset points", ha="center", va=end, fontsize=10)


def head_maps(
    panels: Mapping[str, NDArray[np.floating]], label: str, boxes: Mapping[str, Place], axes_named: tuple[str, str]
) -> Canvas:
    """Side by side, one map [row, column] a title, on one colour scale; the first row at the bottom; a place boxed."""
    most = max(float(np.nanmax(np.abs(values), initial=0.0)) for values in panels.values()) or 1.0
    below = min(float(np.nanmin(values, initial=0.0)) for values in panels.values())
    rows, columns = next(iter(panels.values())).shape
    with canvas(1, len(panels), height=min(8.0, max(3.0, 1.9 + 0.17 * rows)), sharey=True) as (figure, axes):
        for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
            image = heat(ax, values, label, limits=(-most if below < 0 else 0.0, most), bar=None)
            ax.invert_yaxis()
            if title in boxes:
                box(ax, boxes[title])
            ax.set(xlabel=axes_named[1], title=title)
            ax.tick_params(axis="y", length=0)
            _whole(ax, "x", columns, 5)
            ax.spines[:].set_visible(False)
        axes[0, 0].set_ylabel(axes_named[0])
        _whole(axes[0, 0], "y", rows)
        colour_bar(list(axes[0]), image, label, "top")
    return figure


def box(ax: Axes, place: Place) -> None:
    """A frame around a map's cell, its place given as row and column."""
    row, column = place
    for edge, width in (("black", 4), ("white", 2)):  # seen on bright cells and on dark ones
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=edge, linewidth=width))


def _whole(ax: Axes, axis: str, count: int, most: int = 12) -> None:
    """Numbers from 0, every second or fifth of them where there are many."""
    step = -(-count // most)
    (ax.set_xticks if axis == "x" else ax.set_yticks)(range(0, count, step))
