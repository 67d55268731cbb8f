"""Figures of the solids that features make together, over sparsities."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vaultlab.plots.clusters import Cluster, clusters
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.plots.vectors import solid_lines

SHOWN = 3
"""Sparsities at most whose groups are drawn."""


class Kind(NamedTuple):
    """What is said of several features that are in a solid, and how they are drawn."""

    several: str
    colour: str
    mark: str
    hatch: str = ""


ALONE, NONE = "alone", "in no solid"
KINDS = {
    ALONE: Kind("alone", PALETTE[4], "o"),
    "tetrahedron": Kind("in tetrahedra", PALETTE[3], "v", "//"),
    "triangle": Kind("in triangles", PALETTE[3], "^"),
    "digon": Kind("in digons", PALETTE[0], "D"),
    "pentagon": Kind("in pentagons", PALETTE[1], "p"),
    "square antiprism": Kind("in antiprisms", PALETTE[2], "8"),
    NONE: Kind("in no solid", GREY, "."),
}
"""By the solid's name, in the order of legends; `graphs` draws the solids themselves."""


class Sparsities(NamedTuple):
    """What is seen at each sparsity; `rarity` is 1/(1 − S): one in how many inputs has a feature.

    D_i and solid of the features represented there, D*, Σ D_i/m; the shares of features on a line and in a solid, and
    what chance gives of both.
    """

    rarity: Float[NDArray[np.float64], " point"]
    dimensionality: Sequence[Float[NDArray[np.float64], " feature"]]
    solid: Sequence[NDArray[np.str_]]
    D_star: Float[NDArray[np.float64], " point"]
    filled: Float[NDArray[np.float64], " point"]
    on_line: Float[NDArray[np.float64], " point"]
    in_solid: Float[NDArray[np.float64], " point"]
    on_line_by_chance: Float[NDArray[np.float64], " point"]
    in_solid_by_chance: Float[NDArray[np.float64], " point"]


def draw_dimensionality(seen: Sparsities, features: int, hidden: int) -> Drawing:
    """Every represented feature's D_i by its solid, with D*; `features` in `hidden` dimensions there are in all."""
    rarity = seen.rarity
    with canvas(height=4.6) as (figure, axes):
        ax = axes[0, 0]
        solid_lines(ax)
        for x, heights, solid in zip(rarity, seen.dimensionality, seen.solid, strict=True):
            at = x * _slots(rarity) ** _swarm(heights)
            for name, kind in KINDS.items():
                if (ours := solid == name).any():
                    ax.plot(at[ours], heights[ours], kind.mark, color=kind.colour, markersize=4.5, alpha=0.8)
        ax.plot(rarity, seen.D_star, color=GREY, linewidth=1.4)
        ax.set(ylim=(0, 1.08), ylabel="dimensionality Dᵢ")
        _rarity_axis(ax, rarity)
        handles = [
            Line2D([], [], color=kind.colour, marker=kind.mark, linestyle="", markersize=7, label=name)
            for name, kind in KINDS.items()
            if any(name in solid for solid in seen.solid)
        ]
        handles.append(Line2D([], [], color=GREY, linewidth=1.4, label="D* = m/‖W‖²"))
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return Drawing(
        figure,
        f"The dimensionality of the represented ones of {features} features in {hidden} dimensions at {len(rarity)} "
        f"sparsities, 1/(1 − S) from {rarity[0]:.3g} to {rarity[-1]:.3g}: "
        f"{', '.join(f'{one:.0%}' for one in seen.on_line)} of them lie on the lines at 1, ¾, ⅔, ½, ⅖ and ⅜; D* is "
        f"{', '.join(f'{one:.2f}' for one in seen.D_star)}.",
    )


def _swarm(heights: Float[NDArray[np.float64], " feature"]) -> Float[NDArray[np.float64], " feature"]:
    """From −1 to 1: marks of nearly the same height beside each other."""
    bins = np.round(heights / 0.02)
    places = np.zeros(len(heights))
    for one in np.unique(bins):
        ours = np.flatnonzero(bins == one)
        places[ours] = np.arange(len(ours)) - (len(ours) - 1) / 2
    spread: NDArray[np.float64] = places / max(1.0, np.abs(places).max(initial=0))
    return spread


def _slots(rarity: Float[NDArray[np.float64], " point"]) -> float:
    """By which factor a point's marks may spread over the axis."""
    ratio = float((rarity[-1] / rarity[0]) ** (1 / max(1, len(rarity) - 1)))
    return ratio**0.42 if ratio > 1 else 1.2


def _rarity_axis(ax: Axes, rarity: Float[NDArray[np.float64], " point"]) -> None:
    """Logarithmic, with its numbers where there are marks: decades would be too few."""
    reach, step = _slots(rarity) ** 1.6, max(1, -(-len(rarity) // 11))
    ax.set_xlim(rarity[0] / reach, rarity[-1] * reach)  # first, else a single place is scaled to
    ax.set(xscale="log", xlabel="1/(1 − S), log scale")
    ax.set_xticks(rarity[::step], [f"{x:.3g}" for x in rarity[::step]])
    ax.set_xticks([], minor=True)


def draw_solids(seen: Sparsities) -> Drawing:
    """How many features are in which solid."""
    rarity, counts = seen.rarity, _counts(seen)
    place, below = np.arange(len(rarity)), np.zeros(len(rarity))
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        for name, count in counts.items():
            ax.bar(place, count, 0.8, below, color=KINDS[name].colour, hatch=KINDS[name].hatch, label=name)
            below = below + count
        step = max(1, -(-len(rarity) // 11))
        ax.set_xticks(place[::step], [f"{x:.3g}" for x in rarity[::step]])
        ax.set(xlabel="1/(1 − S)", ylabel="features represented", ylim=(0, 1.05 * max(1.0, below.max())))
        if counts:
            figure.legend(loc="outside upper center", ncols=3)
    most = [f"{count.max()} {KINDS[name].several} at {rarity[count.argmax()]:.3g}" for name, count in counts.items()]
    said = ", ".join(most) or "none is represented"
    return Drawing(figure, f"How many features are in which solid, by 1/(1 − S); at most {said}.")


def _counts(seen: Sparsities) -> dict[str, Int[NDArray[np.int_], " point"]]:
    """Of the solids that occur, how many features are in them at each sparsity."""
    counts = {name: np.array([(solid == name).sum() for solid in seen.solid]) for name in KINDS}
    return {name: count for name, count in counts.items() if count.any()}


def telling(seen: Sparsities) -> list[int]:
    """The sparsities where most features are in some one solid; without any, where most are represented."""
    solids = [count for name, count in _counts(seen).items() if name not in (ALONE, NONE)]
    solids.sort(key=lambda count: -int(count.max()))
    return sorted({int(count.argmax()) for count in solids[:SHOWN]}) or [int(np.argmax([*map(len, seen.solid)]))]


def draw_graphs(panels: Sequence[tuple[float, Sequence[Cluster]]]) -> Drawing:
    """The features at some sparsities, each with its rarity, in groups that overlap; a group's kind is its solid."""
    found = {one.kind for _, groups in panels for one in groups}
    used = {name: kind.colour for name, kind in KINDS.items() if name in found}
    figure = clusters([(f"1/(1 − S) = {rarity:.3g}", groups) for rarity, groups in panels], used)
    said = []
    for rarity, groups in panels:
        counts = {name: sum(len(one.points) for one in groups if one.kind == name) for name in used}
        said.append(f"at {rarity:.3g} " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))
    return Drawing(
        figure,
        "The represented features as dots, joined where they overlap, each group seen along its two longest axes; "
        f"features by what they are in: {'; '.join(said)}.",
    )


def draw_lines(seen: Sparsities) -> Drawing:
    """The share of features on a line and in a solid, with what chance gives, and how full the layer is."""
    rarity, filled = seen.rarity, 100 * seen.filled
    gap = np.where([len(solid) > 0 for solid in seen.solid], 0.0, np.nan)
    with canvas(2, 1, height=5.4, sharex=True, gridspec_kw={"height_ratios": [3, 2]}) as (figure, axes):
        ax, below = axes[:, 0]
        ax.plot(rarity, seen.on_line + gap, "o-", color=PALETTE[0], label="on a line")
        ax.plot(rarity, seen.in_solid + gap, "s--", color=PALETTE[1], markersize=5, label="in a solid")
        ax.plot(rarity, seen.on_line_by_chance + gap, "_--", color=GREY, linewidth=1.2, label="on a line by chance")
        ax.plot(rarity, seen.in_solid_by_chance + gap, "_:", color=GREY, linewidth=1.6, label="in a solid by chance")
        ax.set(ylim=(-0.04, 1.08), ylabel="share of features")
        below.plot(rarity, filled, "o-", color=PALETTE[0])
        low = float(filled.min())
        below.set(ylabel="Σ Dᵢ/m (%)", ylim=(min(98.9, low - 0.1 * (101 - low)), 100.2))
        below.axhline(100, color=GREY, linestyle="--", linewidth=1)
        _rarity_axis(below, rarity)
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"By 1/(1 − S) from {rarity[0]:.3g} to {rarity[-1]:.3g}: "
        f"{', '.join(f'{one:.0%}' for one in seen.on_line)} of the represented features are on a line, "
        f"{', '.join(f'{one:.0%}' for one in seen.in_solid)} in a solid, and Σ D_i is "
        f"{', '.join(f'{one:.1%}' for one in seen.filled)} of m.",
    )
