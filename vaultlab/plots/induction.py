"""Heads that induce: where they are, what they save, what it costs to cut them."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat

Spans = tuple[Bool[Tensor, " before"], Bool[Tensor, " before"]]
"""Which tokens, of all but a text's first, count in the first stretch and which in the second."""

TITLES = ("previous token", "duplicate token", "induction")
STRETCHES = ("first stretch", "second stretch")


def named(score: Float[Tensor, "layer head"], most: int = 3) -> list[tuple[str, float]]:
    """The heads with the largest scores, by name."""
    order = score.flatten().argsort(descending=True, stable=True)[:most].tolist()
    return [(f"L{at // score.shape[1]}H{at % score.shape[1]}", float(score.flatten()[at])) for at in order]


def head_axes(ax: Axes, layers: int, heads: int) -> None:
    """Numbers of heads across, of layers down, few enough to be read in a narrow panel."""
    for count, ticks in ((heads, ax.set_xticks), (layers, ax.set_yticks)):
        step = -(-count // (6 if ticks == ax.set_xticks else 12))
        ticks(range(0, count, step), [str(number) for number in range(0, count, step)])
    ax.spines[:].set_visible(False)
    ax.set(xlabel="head")


def draw_heads(score: Float[Tensor, "kind layer head"], cut: Sequence[str]) -> Drawing:
    """Three maps, layer by head, on one scale; the heads that are cut are boxed."""
    layers, heads = score.shape[1:]
    tops = [named(each) for each in score]
    with canvas(1, 3, height=2.9 + 0.14 * layers, sharey=True) as (figure, axes):
        for ax, values, title, top in zip(axes[0], score.numpy(), TITLES, tops, strict=True):
            image = heat(ax, values, "", limits=(0, 1), bar=None)
            head_axes(ax, layers, heads)
            ax.set_title("\n".join([title, *(f"{name} {value:.2f}" for name, value in top)]))
        for name in cut:
            layer, head = (int(number) for number in name[1:].split("H"))
            for edge, width in (("black", 3.5), ("white", 1.8)):  # seen on bright cells and on dark ones
                axes[0, 2].add_patch(
                    Rectangle((head - 0.5, layer - 0.5), 1, 1, facecolor="none", edgecolor=edge, linewidth=width)
                )
        axes[0, 0].set_ylabel("layer")
        colour_bar(list(axes[0]), image, "score: share of a head’s attention" + " (boxed: cut)" * bool(cut), "top")
    told = "; ".join(
        f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in top)
        for title, top in zip(TITLES, tops, strict=True)
    )
    return Drawing(
        figure,
        f"Three maps, layer by head, of {layers * heads} heads. The strongest, {told}."
        + (f" Cut: {', '.join(cut)}." if cut else ""),
    )


def draw_loss(
    nats: Float[Tensor, "text before"], cut: Float[Tensor, "cut text before"], spans: Spans, start: int, d_vocab: int
) -> Drawing:
    """Loss token by token, mean over texts: with all heads, without the strongest, and the reach of random draws."""
    rows, (first, second) = torch.arange(start - 1, nats.shape[1]), spans
    place = (rows + 2 - start).numpy()
    mean, error = nats[:, rows].double().mean(0).numpy(), nats[:, rows].double().std(0).numpy() / math.sqrt(len(nats))
    without = cut[0][:, rows].double().mean(0).numpy()
    random = cut[1:, :, rows].double().mean(1).numpy()
    uniform, again = math.log(d_vocab), len(rows) // 2 + 1
    with canvas(height=4.4) as (figure, axes):
        ax = axes[0, 0]
        ax.fill_between(
            place,
            random.min(0),
            random.max(0),
            color=GREY,
            alpha=0.45,
            linewidth=0,
            label="without as many others, all draws",
        )
        ax.fill_between(place, mean - 1.96 * error, mean + 1.96 * error, color=PALETTE[0], alpha=0.25, linewidth=0)
        ax.plot(place, without, color=PALETTE[1], label="without the strongest induction heads")
        ax.plot(place, mean, color=PALETTE[0], label="with all heads")
        ax.axhline(uniform, color=GREY, linestyle="--", linewidth=1.2, label="a uniform guess")
        ax.axvline(again - 0.5, color=GREY, linestyle=":", linewidth=1.4)
        ax.text(again, 0.02, "again", transform=ax.get_xaxis_transform(), va="bottom", ha="left")
        top = max(uniform, float((mean + 1.96 * error).max()), float(without.max()), float(random.max()))
        ax.set(xlabel="token of the two stretches", ylabel="loss (nats)", ylim=(0, 1.05 * top), xlim=(1, place[-1]))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=1)
    others = cut[1:, :, second].double().mean((1, 2))
    return Drawing(
        figure,
        f"Loss token by token, mean over {len(nats)} texts: {nats[:, first].mean():.3g} nats in the first stretch, "
        f"{nats[:, second].mean():.3g} in the second, {cut[0][:, second].mean():.3g} there without the strongest "
        f"induction heads, {others.min():.3g} to {others.max():.3g} without others; a uniform guess has {uniform:.3g}.",
    )


def draw_ablation(cost: Float[Tensor, "cut text before"], spans: Spans, heads: Sequence[str], ablation: str) -> Drawing:
    """What it costs to cut the strongest heads, in both stretches, against every random draw."""
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        told = []
        for row, (name, which) in enumerate(zip(STRETCHES, spans, strict=True)):
            each = cost[:, :, which].double().mean((1, 2)).numpy()
            spread = row + 0.22 * np.linspace(-1, 1, len(each) - 1) if len(each) > 2 else np.array([float(row)])
            ax.fill_betweenx([row - 0.3, row + 0.3], each[1:].min(), each[1:].max(), color=GREY, alpha=0.3, linewidth=0)
            ax.scatter(each[1:], spread, s=22, color=GREY, linewidths=0, label="other heads, a draw" if row else None)
            ax.scatter(
                each[0], row, s=80, marker="D", color=PALETTE[1], linewidths=0, label="the strongest" if row else None
            )
            ax.text(each[0], row + 0.31, f"{each[0]:.2g}".replace("-", "−"), ha="center", va="bottom")
            told.append(f"{name} {each[0]:.3g} nats (others {each[1:].min():.2g} to {each[1:].max():.2g})")
        ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
        ax.set_yticks(range(len(spans)), [name.replace(" ", "\n") for name in STRETCHES])
        ax.set(xlabel="rise of the loss (nats)", ylim=(-0.6, len(spans) - 0.3))
        ax.margins(x=0.08)
        figure.legend(loc="outside upper center", ncols=2)
        names = ", ".join(heads)
        names = names if len(heads) <= 6 else f"{', '.join(heads[:6])} and {len(heads) - 6} more"
        ax.set_title(f"cut ({ablation}): {names}")
    return Drawing(
        figure,
        f"What it costs to cut {', '.join(heads)} ({ablation}), against {len(cost) - 1} draws: {'; '.join(told)}.",
    )
