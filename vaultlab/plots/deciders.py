"""Figures of guesses on their way through the layers: who keeps them, who overturns them, where they are decided."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.memories import fitted
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, log_axis, visible

CASES = ("residual", "agreement", "ffn", "composition")
"""Who decides at an MLP: the first two keep the guess, the others overturn it."""

COLOURS = (PALETTE[4], PALETTE[0], PALETTE[1], PALETTE[2])
ATTENTION, MLP = PALETTE[3], PALETTE[0]


class TextLine(NamedTuple):
    """A token of a text, the last guess after it that was not the answer, and the answer."""

    token: str
    was: str
    answer: str


def draw_deciders(shares: NDArray[np.floating], null: NDArray[np.floating], since: NDArray[np.integer]) -> Drawing:
    """`shares` [case, layer] and `null` [layer, case] of who decides; `since` the step at which each was decided."""
    layers = np.arange(shares.shape[1])
    with canvas(2, height=6.0, sharex=True, height_ratios=[3, 2]) as (figure, axes):
        upper, lower = axes[:, 0]
        upper.stackplot(layers, 100 * shares, colors=COLOURS, labels=CASES, linewidth=0)
        kept = 100 * null[:, :2].sum(1)
        upper.plot(layers, kept, color="white", linewidth=2.4)
        upper.plot(layers, kept, "--", color="black", linewidth=1.4, label="kept by a random write")
        upper.set(ylabel="positions (%)", ylim=(0, 100), xlim=(-0.6, layers[-1] + 0.6))
        upper.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1, handlelength=1.4)
        _draw_decided(lower, since, len(layers))
        lower.set_xlabel("layer")
    steps = since[since > 0]
    return Drawing(
        figure,
        f"Who decides at each of {len(layers)} MLPs, mean over layers: residual {shares[0].mean():.0%}, agreement "
        f"{shares[1].mean():.0%}, ffn {shares[2].mean():.0%}, composition {shares[3].mean():.0%}; random writes of the "
        f"same length keep {null[:, :2].sum(1).mean():.0%} of the guesses. The MLPs overturn most in layer "
        f"{int(shares[2:].sum(0).argmax())}, {shares[2:].sum(0).max():.0%}. Of {len(since)} answers "
        f"{int((steps % 2 == 0).sum())} were decided by an MLP, {int((steps % 2 == 1).sum())} by an attention, after "
        f"{since.mean() / 2:.3g} layers on average.",
    )


def _draw_decided(ax: Axes, since: NDArray[np.integer], layers: int) -> None:
    """At which layer the answers were decided; what the embedding alone decides stands left of the first."""
    steps = since[since > 0]
    count = [np.bincount((steps[steps % 2 == part] - 1) // 2, minlength=layers) for part in (1, 0)]
    ax.bar(range(layers), count[0], width=0.8, color=ATTENTION, label="decided by attention")
    ax.bar(range(layers), count[1], width=0.8, bottom=count[0], color=MLP, label="by the MLP")
    if len(steps) < len(since):
        ax.bar(-1, len(since) - len(steps), width=0.8, color=GREY, label="by the embedding")
        ax.set_xlim(left=-1.6)
    ax.set(ylabel="answers")
    ax.legend(loc="upper left")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def draw_words(
    lines: Sequence[TextLine],
    decided: NDArray[np.integer],
    turned: NDArray[np.bool_],
    since: NDArray[np.integer],
) -> Drawing:
    """A line a token: `decided` [layer, pos] who decides at each MLP, `turned` where attention overturned the guess."""
    layers, rows = decided.shape
    with canvas(1, 2, height=1.5 + 0.26 * rows, width_ratios=[1.35, 1], sharey=True) as (figure, axes):
        left, right = axes[0]
        colours = ListedColormap(["#00000000", *COLOURS[1:]])
        left.pcolormesh(
            np.arange(layers + 1) - 0.5, np.arange(rows + 1) - 0.5, decided.T, cmap=colours,
            norm=BoundaryNorm(np.arange(5) - 0.5, 4), edgecolors="none",
        )  # fmt: skip
        layer, row = turned.nonzero()
        left.plot(layer - 0.5, row, "|", color=ATTENTION, markersize=9, markeredgewidth=1.4)
        for at, step in enumerate(since):
            left.plot([step / 2 - 1 + 0.25 * (step % 2 == 0), layers - 0.4], [at, at], color=GREY, linewidth=1)
            left.plot(step / 2 - 1, at, "o", color="white", markersize=6, markeredgecolor="black", markeredgewidth=1)
        left.set_yticks(range(rows), [fitted(line.token, 90) for line in lines])
        left.set(xlim=(-1.6, layers - 0.4), ylim=(rows - 0.5, -0.5), xlabel="layer")
        left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        left.tick_params(axis="y", length=0)
        right.set(xlim=(0, 1), xticks=[])
        right.tick_params(axis="y", length=0, labelleft=False)
        right.spines[:].set_visible(False)
        for at, line in enumerate(lines):
            words = f"{fitted(line.was, 68)} → " if since[at] else ""
            written = right.text(0, at, f"{words}{fitted(line.answer, 80)}", va="center")
            written.set_in_layout(False)
        handles = [
            *(Patch(color=colour, label=case) for colour, case in zip(COLOURS[1:], CASES[1:], strict=True)),
            Line2D([], [], color=ATTENTION, marker="|", linestyle="", markersize=9, label="attention overturns"),
            Line2D(
                [], [], color=GREY, linewidth=1, marker="o", markerfacecolor="white", markeredgecolor="black",
                label="decided, and stays",
            ),
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside upper center", ncols=3, columnspacing=1, handlelength=1.4)
    shown = max(range(rows), key=lambda at: int(since[at]))
    line, first = lines[shown], min(range(rows), key=lambda at: int(since[at]))
    return Drawing(
        figure,
        f"The last {rows} tokens of the text with their guesses through {layers} layers. Latest decided: after "
        f"{visible(line.token)} {visible(line.was)} gives way to {visible(line.answer)} {_place(int(since[shown]))}; "
        f"earliest: after {visible(lines[first].token)} {visible(lines[first].answer)} "
        f"{_place(int(since[first]))}. On average {np.isin(decided, (2, 3)).sum(0).mean():.3g} MLPs and "
        f"{turned.sum(0).mean():.3g} attentions overturn the guess after a token.",
    )


def _place(step: int) -> str:
    if not step:
        return "at the embedding"
    return f"in the {'MLP' if step % 2 == 0 else 'attention'} of layer {(step - 1) // 2}"


def draw_within(
    alone: NDArray[np.floating], null: NDArray[np.floating], active: NDArray[np.floating], names: Sequence[str]
) -> Drawing:
    """Zero agreement and its null, and how many memories are active, each [definition, layer]."""
    layers = np.arange(alone.shape[1])
    colours = (PALETTE[3], PALETTE[1], PALETTE[0], PALETTE[2])
    with canvas(2, height=6.0, sharex=True, height_ratios=[3, 2]) as (figure, axes):
        upper, lower = axes[:, 0]
        for share, chance, count, name, colour in zip(alone, null, active, names, colours, strict=True):
            upper.plot(layers, 100 * share, "o-", color=colour, markersize=4, label=name)
            upper.plot(layers, 100 * chance, "--", color=colour, linewidth=1.2)
            lower.plot(layers, count, "o-", color=colour, markersize=4)
        handles = [
            *upper.get_legend_handles_labels()[0],
            Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="active at another token"),
        ]
        upper.legend(
            handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1, title="active:"
        )
        upper.set(ylabel="zero agreement (%)", ylim=(0, 103))
        if active.max() > 0:
            log_axis(lower, "y")
        lower.set(xlabel="layer", ylabel="active memories")
        lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    said = "; ".join(
        f"{name}: {count.mean():.4g} active, {share.mean():.0%} (at another token {chance.mean():.0%})"
        for share, chance, count, name in zip(alone, null, active, names, strict=True)
    )
    return Drawing(
        figure,
        f"How often the top token of what a layer's memories write together is that of none of the active ones, mean "
        f"over {len(layers)} layers, by what counts as active. {said}.",
    )


def draw_gains(attention: NDArray[np.floating], mlp: NDArray[np.floating], random: NDArray[np.floating]) -> Drawing:
    """What each layer adds to the answer's log-probability, in nats, by part; and a random write in the MLP's place."""
    layers, most = np.arange(len(mlp)), max(np.abs(one[1:]).max(initial=0.0) for one in (attention, mlp, random))
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.plot(layers, attention, "o-", color=ATTENTION, markersize=4, label="attention")
        ax.plot(layers, mlp, "o-", color=MLP, markersize=4, label="MLP")
        ax.plot(layers, random, "--", color=GREY, linewidth=1.2, label="a random write as long as the MLP's")
        ax.set(xlabel="layer", ylabel="added to log p of the answer (nats)")
        first = f"layer 0: attention {attention[0]:+.3g}, MLP {mlp[0]:+.3g}, random {random[0]:+.3g}"
        if max(abs(attention[0]), abs(mlp[0]), abs(random[0])) > 3 * most > 0:
            ax.set_ylim(
                -1.2 * most, 1.5 * most
            )  # the first layer makes a guess out of none: it would flatten all others
            ax.text(0.1, 0.98, first.replace("-", "−"), transform=ax.transAxes, va="top")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Drawing(
        figure,
        f"What each layer adds to the log-probability of the answer, mean over positions, in nats. The MLPs: "
        f"{mlp.sum():.3g} together, most in layer {int(mlp.argmax())}, {mlp.max():.3g}, {np.median(mlp):.2g} in the "
        f"median layer. The attentions: {attention.sum():.3g}, most in layer {int(attention.argmax())}, "
        f"{attention.max():.3g}. A random write in the MLP's place: {np.median(random):.2g} in the median layer.",
    )
