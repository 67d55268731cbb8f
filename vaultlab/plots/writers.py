"""Figures of the residual stream: who writes what along a text, norms by layer, and maps of writers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.style import (
    GREY,
    PALETTE,
    Drawing,
    canvas,
    colour_bar,
    heat,
    log_axis,
    token_axis,
    visible,
)

NAMED = 14
"""Token names along an axis at most, where two panels stand side by side."""

Numbers = NDArray[np.floating]


def along(kinds: dict[str, Numbers], tokens: Sequence[str], left_out: Sequence[str]) -> Drawing:
    """[layer, token] of each kind of writer: what it has of the stream that it leaves behind, at that token."""
    every = np.concatenate([values.ravel() for values in kinds.values()])
    most = float(np.quantile(np.abs(every), 0.97)) or 1.0
    deep = len(next(iter(kinds.values())))
    with canvas(1, len(kinds), height=2.4 + 0.155 * deep, sharey=True) as (figure, axes):
        for ax, (name, values) in zip(axes[0], kinds.items(), strict=True):
            image = heat(ax, 100 * values[::-1], "", limits=(-100 * most, 100 * most), bar=None)
            ax.set_title(name)
            token_axis(ax, "x", tokens, NAMED)
            ax.spines[:].set_visible(False)
        layers = range(0, deep, -(-deep // 10))
        axes[0, 0].set_yticks([deep - 1 - layer for layer in layers], [str(layer) for layer in layers])
        axes[0, 0].set_ylabel("layer")
        step = -(-len(tokens) // NAMED)
        figure.supxlabel("token" + (f", one in {step} named" if step > 1 else ""), fontsize=12)
        colour_bar(list(axes.flat), image, "share of the stream that it leaves (%), top 3% alike", "top")
    said = [
        f"{name} adds most in layer {values.mean(1).argmax()} ({values.mean(1).max():.0%} of the stream there) and "
        f"takes away in {np.mean(values < 0):.0%} of the cells"
        for name, values in kinds.items()
    ]
    return Drawing(
        figure,
        f"What every layer adds to the stream, layer by token, over {len(tokens)} tokens: {'; '.join(said)}."
        f"{_gone(left_out)}",
    )


def _gone(left_out: Sequence[str]) -> str:
    return f" Left out for their massive norm: {', '.join(map(visible, left_out))}." if left_out else ""


class Kind(NamedTuple):
    """One kind of writer, layer by layer: the norm of what it writes by the embedding's, its share of the last stream,
    and what that would be if all writes stood at right angles."""

    norms: Numbers
    shares: Numbers
    straight: Numbers


def norms(stream: Numbers, straight: Numbers, kinds: dict[str, Kind], left_out: Sequence[str]) -> Drawing:
    """The stream's norm before every layer and behind the last by the embedding's, and were all writes at right angles;
    below it who has how much of the last stream."""
    deep = len(stream) - 1
    with canvas(2, 1, height=6.2, sharex=True) as (figure, axes):
        ax, low = axes[:, 0]
        ax.plot(range(deep + 1), stream, marker="o", markersize=4, color=PALETTE[2], label="the stream")
        ax.plot(range(deep + 1), straight, color=GREY, linestyle="--", linewidth=1.4, label="writes at right angles")
        for at, (name, kind) in enumerate(kinds.items()):
            ax.plot(
                np.arange(deep) + 0.5,
                kind.norms,
                marker=".",
                color=PALETTE[at],
                linewidth=1.4,
                label=f"written: {name}",
            )
            places = np.arange(deep) + 0.5 + 0.4 * at - 0.2 * (len(kinds) - 1)
            low.bar(places, 100 * kind.shares, width=0.4, color=PALETTE[at])
            low.plot(places, 100 * kind.straight, "_", color=GREY, markersize=7, markeredgewidth=1.6)
        if min(kind.norms.min() for kind in kinds.values()) > 0:
            log_axis(ax, "y")
        low.axhline(0, color=GREY, linewidth=1)
        ax.set_ylabel("norm (× the embedding's)")
        low.set(xlabel="layer", ylabel="share of the last stream (%)")
        low.plot([], [], "_", color=GREY, markersize=9, markeredgewidth=1.6, label="the same at right angles")
        low.legend(loc="upper left")
        low.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    shares = [
        f"{name} {kind.shares.sum():.0%}, most of it layer {kind.shares.argmax()}" for name, kind in kinds.items()
    ]
    return Drawing(
        figure,
        f"The stream grows to {stream[-1]:.3g} × the embedding's norm over {deep} layers; were all writes at right "
        f"angles to each other it would be {straight[-1]:.3g} ×. Of the last stream: {'; '.join(shares)}."
        f"{_gone(left_out)}",
    )


def reach(values: Numbers, null: float, names: tuple[Sequence[str], Sequence[str]]) -> Drawing:
    """[reader, writer] virtual weights by what chance gives, NaN where a reader comes before the writer; each kind of
    reader in a panel, writers in two blocks."""
    readers, writers = names
    ratio = values / null
    figure = _map(100 * ratio - 100, readers, writers, "virtual weight, against turned writers (%)", ("from", "to"))
    row, column = map(int, np.unravel_index(np.nanargmax(ratio), ratio.shape))
    return Drawing(
        figure,
        f"Virtual weights from {len(writers)} writers to {len(readers)} readers, 1 being that of writers turned at "
        f"random: {np.nanmean(ratio):.2f} on average, most from {writers[column]} to {readers[row]}, "
        f"{ratio[row, column]:.3g}.",
    )


def shared(values: Numbers, null: float, writers: Sequence[str], k: int) -> Drawing:
    """[writer, writer] how much of one writer's subspace lies in another's, by what random ones share."""
    ratio = values / null
    np.fill_diagonal(ratio, np.nan)
    figure = _map(ratio, writers, writers, f"shared by {k} directions (× random ones)", ("writer", "writer"))
    row, column = map(int, np.unravel_index(np.nanargmax(ratio), ratio.shape))
    return Drawing(
        figure,
        f"How much of the {k} directions that a writer uses most another one uses too, 1 being random subspaces: "
        f"{np.nanmean(ratio):.3g} on average, most {writers[row]} and {writers[column]}, {ratio[row, column]:.3g}.",
    )


def _map(values: Numbers, rows: Sequence[str], columns: Sequence[str], label: str, axes_of: tuple[str, str]) -> Figure:
    """A square map, kind by kind, so that layers run on within a block; about 0 where numbers are below it."""
    order_rows, order_columns = _by_kind(rows), _by_kind(columns)
    shown = values[np.ix_(order_rows, order_columns)]
    high = float(np.nanquantile(np.abs(shown), 0.98)) or 1.0
    with canvas(height=6.6) as (figure, axes):
        ax = axes[0, 0]
        limits = (-high, high) if np.nanmin(shown) < 0 else (0.0, high)
        heat(ax, shown, f"{label}, top 2% alike", limits=limits, bar="top")
        ax.set_aspect("equal")
        _kinds(ax, "y", [rows[place] for place in order_rows])
        _kinds(ax, "x", [columns[place] for place in order_columns])
        ax.set(xlabel=axes_of[0], ylabel=axes_of[1])
        ax.spines[:].set_visible(False)
    return figure


def _by_kind(names: Sequence[str]) -> list[int]:
    kinds = list(dict.fromkeys(name.split()[0] for name in names))
    return sorted(range(len(names)), key=lambda place: kinds.index(names[place].split()[0]))


def _kinds(ax: Axes, axis: str, names: Sequence[str]) -> None:
    """A few layers of every kind named, and a line between the kinds."""
    kinds = [name.split()[0] for name in names]
    places, labels = [], []
    for kind in dict.fromkeys(kinds):
        own = [place for place, other in enumerate(kinds) if other == kind]
        step = -(-len(own) // 4)
        for place in own[step // 2 :: step]:
            places.append(place)
            labels.append(names[place])
        if own[0]:
            (ax.axvline if axis == "x" else ax.axhline)(own[0] - 0.5, color=GREY, linewidth=1.5)
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, labels)
    if axis == "x":
        ax.tick_params(axis="x", rotation=90)
