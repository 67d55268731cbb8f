"""Figures of a memory with a softmax beside the MLP: who writes how much, along a sentence, and over a whole text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vaultlab.plots.memories import fitted
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, log_axis, token_axis, visible

SOFTMAX, OWN = PALETTE[0], PALETTE[1]

NAMED = 6
"""Memories that are named: so many of those that write most in either."""

Numbers = NDArray[np.floating]


def draw_coefficients(
    line: tuple[str, str, str], place: str, softmax: Numbers, own: Numbers, random: Numbers
) -> Drawing:
    """One token: the shares of the memories that write most by either, and of the first r together; `random` [draw,
    key] are norms with random keys."""
    before, token, after = line
    softmax, own = softmax / softmax.sum(), own / own.sum()
    first = {
        *np.argsort(-softmax, kind="stable")[:NAMED].tolist(),
        *np.argsort(-own, kind="stable")[:NAMED].tolist(),
    }
    keys = sorted(first, key=lambda key: (-softmax[key], key))
    rows = np.arange(len(keys))
    with canvas(2, height=4.0 + 0.34 * len(keys), height_ratios=[0.34 * len(keys) + 0.8, 2.6]) as (figure, axes):
        ax, low = axes[:, 0]
        ax.barh(rows - 0.2, 100 * softmax[keys], height=0.36, color=SOFTMAX, label="softmax memory")
        ax.barh(rows + 0.2, 100 * own[keys], height=0.36, color=OWN, label="the MLP itself")
        ax.set_yticks(rows, [f"key {key}" for key in keys])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlabel("share of what is written (%)")
        ranks = np.arange(1, len(own) + 1)
        chance = (random / random.sum(1, keepdims=True)).mean(0).cumsum()
        low.plot(ranks, 100 * np.sort(softmax)[::-1].cumsum(), color=SOFTMAX)
        low.plot(ranks, 100 * np.sort(own)[::-1].cumsum(), color=OWN)
        low.plot(ranks, 100 * chance, color=GREY, linestyle="--", linewidth=1.4, label="softmax, random keys")
        log_axis(low, "x")
        low.set(xlabel="memories, those that write most first", ylabel="together (%)", ylim=(0, 103))
        figure.legend(loc="outside upper center", ncols=2)
        ax.set_title(f"{place}: {fitted(before, 170, end=True)} {fitted(token, 90)} → {fitted(after, 80)}")
    best, most = int(softmax.argmax()), int(own.argmax())
    return Drawing(
        figure,
        f"In {place} at {visible(token)} the softmax memory writes {softmax[best]:.1%} of the whole by key {best}, of "
        f"which the MLP itself writes {own[best]:.1%}; the MLP's strongest is key {most} with {own[most]:.1%}. The "
        f"strongest ten write {np.sort(softmax)[-10:].sum():.0%} in the softmax memory, {np.sort(own)[-10:].sum():.0%} "
        f"in the MLP, {chance[min(9, len(chance) - 1)]:.0%} with random keys.",
    )


class Passage(NamedTuple):
    """A sentence's tokens, the one `shown`; NaN where one was left out. Those with random keys are [draw, token]."""

    tokens: Sequence[str]
    shown: int
    cosine: Numbers
    random_cosine: Numbers
    memories: Numbers
    random_memories: Numbers
    own_memories: Numbers


def draw_tokens(passage: Passage) -> Drawing:
    """Token by token: how near the writes are, and how many memories write in effect."""
    place = np.arange(len(passage.tokens))
    with canvas(2, height=5.6, sharex=True) as (figure, axes):
        ax, low = axes[:, 0]
        _reach(ax, place, passage.random_cosine)
        ax.plot(place, passage.cosine, "o-", color=SOFTMAX, markersize=5, label="softmax memory")
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set(ylabel="cosine to the MLP", ylim=(min(-0.5, np.nanmin(passage.random_cosine) - 0.05), 1.03))
        _reach(low, place, passage.random_memories)
        low.plot(place, passage.memories, "o-", color=SOFTMAX, markersize=5)
        low.plot(place, passage.own_memories, "s-", color=OWN, markersize=5, label="the MLP itself")
        log_axis(low, "y")
        low.set(ylabel="memories that write", xlabel="token (dotted: the one shown)")
        token_axis(low, "x", passage.tokens)
        for each in (ax, low):
            each.axvline(passage.shown, color=GREY, linewidth=1.2, linestyle=":")
        handles = [*ax.get_legend_handles_labels()[0], low.get_legend_handles_labels()[0][-1]]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    worst, best = int(np.nanargmin(passage.cosine)), int(np.nanargmax(passage.cosine))
    return Drawing(
        figure,
        f"Token by token the cosine of softmax memory and MLP is {passage.cosine[worst]:.2f} (at "
        f"{visible(passage.tokens[worst])}) to {passage.cosine[best]:.2f} (at {visible(passage.tokens[best])}), with "
        f"random keys {np.nanmean(passage.random_cosine):.2f} on average. In effect {np.nanmean(passage.memories):.0f} "
        f"memories write in the softmax memory, {np.nanmean(passage.own_memories):.0f} in the MLP, "
        f"{np.nanmean(passage.random_memories):.0f} with random keys.",
    )


def _reach(ax: Axes, place: NDArray[np.integer], random: Numbers) -> None:
    ax.fill_between(
        place, random.min(0), random.max(0), color=GREY, alpha=0.35, linewidth=0, label="random keys, all draws"
    )


def draw_spread(cosine: Numbers, random: Numbers, reach: Numbers) -> Drawing:
    """Over all tokens: cosines beside those with random keys, and how far a softmax memory would reach."""
    with canvas(1, 2, height=3.4) as (figure, axes):
        left, right = axes[0]
        bins = np.linspace(min(-0.5, random.min(), cosine.min()), 1, 41)
        for values, colour, label in ((random.ravel(), GREY, "random keys"), (cosine, SOFTMAX, "softmax memory")):
            weight = np.full(values.size, 100 / values.size)
            left.hist(values, bins=bins, weights=weight, histtype="stepfilled", color=colour, alpha=0.75, label=label)
        left.set(xlabel="cosine to the MLP", ylabel="tokens (%)")
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        edge = max(1.05, 1.05 * float(reach.max()))
        right.hist(
            reach,
            bins=np.linspace(min(0.0, float(reach.min())), edge, 51),
            weights=np.full(reach.size, 100 / reach.size),
            color=SOFTMAX,
        )
        right.axvline(1, color=OWN, linewidth=1.6, label="the MLP's write")
        right.set(xlabel="reach of any weighted mean", ylabel="tokens (%)")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return Drawing(
        figure,
        f"Over {cosine.size} tokens the cosine of softmax memory and MLP is {np.median(cosine):.2f} (median), with "
        f"random keys {np.median(random):.2f}. In the direction of what the MLP writes, any weighted mean of the "
        f"values reaches {np.median(reach):.1%} of it (median), at most {reach.max():.1%}; {np.mean(reach < 1):.1%} "
        "of the tokens are outside the hull.",
    )
