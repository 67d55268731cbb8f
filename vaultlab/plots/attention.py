"""Figures of attention: where one head looks and what moves along it, and all heads beside each other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from vaultlab.plots.arcs import arcs
from vaultlab.plots.heads import Place, box
from vaultlab.plots.style import GREY, SHADES, Drawing, canvas, colour_bar, heat, tiles, token_axis, visible

NAMED = 24
"""Token names along an axis at most: more cannot be read in a narrow column."""


class Pattern(NamedTuple):
    """One head's weighted pattern, NaN where it sees nothing and from sinks; of its attention, the shares on sinks and
    on the token before, and of what it moves that from sinks. `uniform_sink_mass`: what uniform attention would have.
    """

    head: str
    tokens: Sequence[str]
    weighted: Float[NDArray[np.float32], "query key"]
    sinks: Bool[Tensor, " pos"]
    sink_mass: float
    uniform_sink_mass: float
    weighted_sink_mass: float
    previous_token: float


class Heads(NamedTuple):
    """All heads of the `layers` shown, a row a layer. `chosen` is the row and column of the one drawn large."""

    layers: Sequence[int]
    chosen: Place
    entropy: Float[Tensor, "layer head"]
    uniform_entropy: float
    sink_mass: Float[Tensor, "layer head"]
    weighted_sink_mass: Float[Tensor, "layer head"]
    previous_token: Float[Tensor, "layer head"]
    write_norm: Float[Tensor, "layer head"]

    def name(self, place: Place) -> str:
        """What the head at a row and column is called: L17H8."""
        return f"L{self.layers[place[0]]}H{place[1]}"


def draw_pattern(pattern: Pattern, text: str) -> Drawing:
    """Token by token, sinks hatched; `text` says how much of it was read."""
    shown, sink, count = pattern.weighted, pattern.sinks, len(pattern.tokens)
    with canvas(height=7.0) as (figure, axes):
        ax = axes[0, 0]
        label, limits = "what moves from j to i: ‖A_ij x_j W_V W_O‖", None
        if count > NAMED:  # a few cells of a long text would leave all others dark
            label, limits = f"{label}, top 1% alike", (0.0, float(np.nanquantile(shown, 0.99)) or 1.0)
        heat(ax, shown, label, limits=limits, bar="top")
        ax.set_aspect("equal")
        for column in sink.nonzero().flatten().tolist():
            ax.add_patch(
                Rectangle((column - 0.5, column - 0.5), 1, count - column, hatch="////", facecolor="none", linewidth=0)
            )
        step = -(-count // NAMED)
        every = "" if step == 1 else f", one in {step} named"
        token_axis(ax, "x", pattern.tokens, NAMED)
        token_axis(ax, "y", pattern.tokens, NAMED)
        ax.set(xlabel=f"from token j{every}", ylabel=f"to token i{every}")
        sinks = "the sink (hatched) has" if sink.sum() == 1 else f"{int(sink.sum())} sinks (hatched) have"
        figure.suptitle(
            f"{pattern.head}: {sinks} {_percent(pattern.sink_mass)} of its attention\n"
            f"(uniform: {_percent(pattern.uniform_sink_mass)}), {_percent(pattern.weighted_sink_mass)} of what it moves"
        )
    moves = ""
    if most := _most(pattern):
        giver, getter, moved = most
        moves = f" Most moves from {giver} to {getter}, {moved:.3g}."
    return Drawing(
        figure,
        f"The weighted attention pattern of head {pattern.head} on {text}: {_percent(pattern.sink_mass)} of its "
        f"attention is on the sink, which gives {_percent(pattern.weighted_sink_mass)} of what it moves; "
        f"{_percent(pattern.previous_token)} is on the token before.{moves}",
    )


def draw_arcs(pattern: Pattern, text: str) -> Drawing:
    """The same as arcs over the text, sinks left out."""
    figure, share = arcs(pattern.tokens, pattern.weighted, f"{pattern.head}: what moves, sinks left out")
    moves = ""
    if most := _most(pattern):
        giver, getter, _ = most
        moves = f" The thickest leads from {giver} to {getter}."
    return Drawing(
        figure,
        f"Arcs over {text}, along which head {pattern.head} moves something: {_percent(share)} of all that it moves "
        f"from tokens that are no sinks.{moves}",
    )


def _most(pattern: Pattern) -> tuple[str, str, float] | None:
    """Between which tokens most moves, and how much; None where nothing is seen but sinks."""
    if not np.isfinite(pattern.weighted).any():
        return None
    query, key = divmod(int(np.nanargmax(pattern.weighted)), len(pattern.tokens))
    return visible(pattern.tokens[key]), visible(pattern.tokens[query]), float(pattern.weighted[query, key])


def draw_heads(heads: Heads, threshold: float, text: str) -> Drawing:
    """How much every head writes, and how much it looks at sinks; over `threshold` it parks."""
    panels = [
        (100 * heads.write_norm, "write norm (% of the stream)"),
        (100 * heads.sink_mass, "attention on sinks (%)"),
    ]
    with canvas(1, 2, height=2.2 + 0.15 * len(heads.layers), sharey=True) as (figure, axes):
        for ax, (values, label) in zip(axes[0], panels, strict=True):
            heat(ax, values.numpy(), label, bar="top", limits=(0, float(values.max())))
            box(ax, heads.chosen)
            ax.set(xlabel="head")
            _number_axis(ax, "x", range(values.shape[1]))
            ax.spines[:].set_visible(False)
        axes[0, 0].set_ylabel("layer")
        _number_axis(axes[0, 0], "y", heads.layers)
        names = ", ".join(map(heads.name, _top(heads.write_norm)))
        figure.suptitle(f"write most: {names}; boxed: {heads.name(heads.chosen)}")
    parked, weighted = ((mass > threshold).double().mean() for mass in (heads.sink_mass, heads.weighted_sink_mass))
    return Drawing(
        figure,
        f"Two maps, layer by head, of {heads.entropy.numel()} heads on {text}. Write norm: up to "
        f"{_percent(heads.write_norm.max())} of the stream, most by {names}. Attention on sinks: over "
        f"{_percent(threshold)} in {_percent(parked)} of the heads; of what they move, in {_percent(weighted)}.",
    )


def _number_axis(ax: Axes, axis: str, numbers: Sequence[int]) -> None:
    step = -(-len(numbers) // 12)
    places, labels = range(0, len(numbers), step), [str(number) for number in numbers[::step]]
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, labels)


def draw_entropy(heads: Heads, text: str) -> Drawing:
    """How widely every head looks against how much it writes, with uniform attention."""
    layer = torch.tensor(heads.layers)[:, None].expand_as(heads.entropy)
    bits = heads.uniform_entropy
    x, y = heads.entropy.flatten().numpy(), 100 * heads.write_norm.flatten().numpy()
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        if len(heads.layers) > 1:
            dots = ax.scatter(x, y, c=layer.flatten().numpy(), cmap=SHADES, s=22, linewidths=0, clip_on=False)
            colour_bar(ax, dots, "layer")
            dots.colorbar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            ax.scatter(x, y, s=30, linewidths=0, clip_on=False)
        ax.axvline(bits, color=GREY, linestyle="--", linewidth=1)
        ax.text(
            bits, 0.5, "uniform attention", transform=ax.get_xaxis_transform(), ha="right", va="center", rotation=90
        )
        _name_dots(ax, heads)
        ax.set(xlabel="entropy of attention (bits)", ylabel="write norm (% of the stream)")
        ax.set(xlim=(0, None), ylim=(0, 1.08 * y.max()))
    return Drawing(
        figure,
        f"Entropy against write norm of {heads.entropy.numel()} heads on {text}: entropies from "
        f"{heads.entropy.min():.2f} to {heads.entropy.max():.2f} bits, uniform attention would have {bits:.2f}. "
        f"{heads.name(heads.chosen)} has {heads.entropy[heads.chosen]:.2f} bits and writes "
        f"{_percent(heads.write_norm[heads.chosen])} of the stream.",
    )


def _name_dots(ax: Axes, heads: Heads) -> None:
    """The names of the chosen head and of those that write most: to the right of the dot, or to its left where another
    one that is named is close by on that side, or uniform attention."""
    named = dict.fromkeys([heads.chosen, *_top(heads.write_norm)])
    dots = {place: (float(heads.entropy[place]), 100 * float(heads.write_norm[place])) for place in named}
    close = 0.07 * max(y for _, y in dots.values())
    for place, (x, y) in dots.items():
        crowded = any(x < right and abs(y - beside) < close for right, beside in dots.values())
        end, gap = ("right", -5) if crowded or x > 0.9 * heads.uniform_entropy else ("left", 5)
        ax.annotate(heads.name(place), (x, y), (gap, 0), textcoords="offset points", ha=end, va="center")


def draw_patterns(heads: Heads, small: Float[Tensor, "layer head cell cell"], text: str) -> Drawing:
    """The weighted patterns of all heads, one tile each."""
    rows, cols = [f"L{layer}" for layer in heads.layers], [f"H{head}" for head in range(small.shape[1])]
    label = "weighted attention, 1: a mean move to a token"
    figure = tiles(small.float().numpy(), label, rows=rows, cols=cols, limits=(0, 0.5))
    [parked], [back] = _top(heads.weighted_sink_mass, 1), _top(heads.previous_token, 1)
    return Drawing(
        figure,
        f"The weighted attention patterns of {heads.entropy.numel()} heads on {text}, one tile each, a row of tiles a "
        f"layer: the token that gets runs down, the one that gives runs across. The sink gives most to "
        f"{heads.name(parked)}, {_percent(heads.weighted_sink_mass.max())} of what it moves; {heads.name(back)} looks "
        f"most at the token before, {_percent(heads.previous_token.max())} of its attention.",
    )


def _top(values: Float[Tensor, "layer head"], most: int = 3) -> list[Place]:
    """Where the largest values are."""
    order = values.flatten().argsort(descending=True)[:most].tolist()
    return [divmod(at, values.shape[1]) for at in order]


def _percent(share: Tensor | float) -> str:
    percent = 100 * float(share)
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:.2g}%"
