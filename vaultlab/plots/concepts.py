"""Figures of a concept's direction: layer by layer, word by word, over a text."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, heat, token_axis, visible

NAMED = 40
"""Words that are shown at most."""

SHOWN = 28
"""Tokens of a scan: more cannot be read."""

REACH = 2.0
"""The scale of a scan: twice as far out as the kinds lie on average."""


class Judged(NamedTuple):
    """AUROC of every layer, where it was judged and where it was chosen, and what shuffled labels reach."""

    judged: NDArray[Any]
    chose: NDArray[Any]
    chosen: int
    interval: tuple[float, ...]
    null: NDArray[Any]
    null_best: float


def draw_layers(seen: Judged, site: str, counts: tuple[int, int, int, int]) -> Drawing:
    layers = np.arange(len(seen.judged))
    value = float(seen.judged[seen.chosen])
    with canvas(height=4.4) as (figure, axes):
        ax = axes[0, 0]
        ax.fill_between(layers, *seen.null, color=GREY, alpha=0.25, linewidth=0, label="shuffled labels, 9 in 10")
        best = "a shuffle's best layer, as it seems"
        ax.axhline(seen.null_best, color=GREY, linestyle="--", linewidth=1.2, label=best)
        ax.plot(layers, seen.chose, color=PALETTE[1], linewidth=1.2, linestyle=":", label="where the layer is chosen")
        ax.plot(layers, seen.judged, "o-", color=PALETTE[0], markersize=4, label="judged: other words and templates")
        low, high = seen.interval
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        ax.errorbar([seen.chosen], [value], yerr=error, fmt="D", color=PALETTE[3], capsize=4, label="chosen layer")
        ax.set(xlabel=f"layer ({site})", ylabel="AUROC", ylim=(min(0.3, float(seen.null.min()) - 0.02), 1.03))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left", ncols=1)
    few = f" With {min(counts[:2])} words a side this decides nothing." if min(counts[:2]) < 40 else ""
    return Drawing(
        figure,
        f"AUROC by layer over {counts[0]} and {counts[1]} words in {counts[2]} templates, judged on those that neither "
        f"learnt nor chose. Layer 0: {seen.judged[0]:.2g}; chosen layer {seen.chosen}: {value:.3g} "
        f"({low:.3g} to {high:.3g}). Shuffled labels there: {seen.null[0, seen.chosen]:.2g} to "
        f"{seen.null[1, seen.chosen]:.2g}; their own best layer seems to reach {seen.null_best:.2g}.{few}",
    )


def draw_words(words: Sequence[str], side: NDArray[Any], scores: NDArray[Any], threshold: float) -> Drawing:
    """`scores` [word, template]: every judged word where it lies along the direction; of many, the outermost and those
    next to the middle."""
    at = scores - threshold
    mean = at.mean(1)
    order = np.argsort(mean, kind="stable")
    if len(order) > NAMED:
        part, middle = NAMED // 4, int((mean < 0).sum())
        start = min(max(middle - part, part), len(order) - 3 * part)
        order = np.concatenate([order[:part], order[start : start + 2 * part], order[-part:]])
    with canvas(height=1.5 + 0.21 * len(order)) as (figure, axes):
        ax = axes[0, 0]
        for kind, colour, mark, name in (
            (True, PALETTE[1], "o", "first kind"),
            (False, PALETTE[0], "s", "second kind"),
        ):
            rows = np.flatnonzero(side[order] == kind)
            each = at[order[rows]]
            if each.shape[1] > 1:
                bars = "in one template" if kind else None
                ax.plot(each.ravel(), rows.repeat(each.shape[1]), "|", color=colour, markersize=8, label=bars)
            ax.plot(each.mean(1), rows, mark, color=colour, markersize=6, label=name)
        ax.axvline(0, color=GREY, linestyle="--", linewidth=1.2)
        ax.set_yticks(range(len(order)), [_short(words[one]) for one in order])
        ax.set(xlabel="along the direction, from the learnt middle")
        ax.set_ylim(-0.8, len(order) - 0.2)
        ax.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=3)
    wrong = [visible(word) for word, place, kind in zip(words, mean, side, strict=True) if (place > 0) != kind]
    said = f"on the wrong side of the learnt middle: {', '.join(wrong[:8])}" if wrong else "all on their own side"
    return Drawing(figure, f"{len(words)} judged words along the direction of the chosen layer; {said}.")


def _short(word: str, most: int = 24) -> str:
    shown = visible(word).replace("·", " ")
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def draw_cosines(cosines: NDArray[Any], site: str) -> Drawing:
    with canvas(height=5.2) as (figure, axes):
        ax = axes[0, 0]
        heat(ax, cosines, "cosine of two layers' directions", limits=(-1, 1))
        ax.set(xlabel=f"layer ({site})", ylabel="layer")
        ax.set_aspect("equal")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[:].set_visible(False)
    near = np.diagonal(cosines, 1)
    said = f"Neighbours: {near.mean():.2f} on average" if len(near) else "One layer"
    return Drawing(
        figure, f"Cosine of every layer's direction with every other's. {said}; first with last {cosines[0, -1]:.2f}."
    )


def draw_scan(scan: NDArray[Any], massive: NDArray[Any], tokens: Sequence[str], chosen: int) -> Drawing:
    """[layer, pos], the last layer on top; what is a sink at any layer is left open."""
    sink: NDArray[Any] = np.any(massive, axis=0)
    shown = np.where(sink, np.nan, scan)[:, :SHOWN]
    deep, wide = shown.shape
    with canvas(height=2.6 + 0.13 * deep) as (figure, axes):
        ax = axes[0, 0]
        heat(
            ax,
            shown[::-1].clip(-REACH, REACH),
            "second kind ← the text's mean → first kind",
            limits=(-REACH, REACH),
            bar="top",
        )
        ax.axhline(deep - 1 - chosen, color="black", linewidth=1, linestyle=":")
        token_axis(ax, "x", tokens[:wide])
        layers = range(0, deep, -(-deep // 8))
        ax.set_yticks([deep - 1 - layer for layer in layers], [str(layer) for layer in layers])
        ax.set(ylabel="layer (dots: the chosen one)")
        ax.spines[:].set_visible(False)
    row = shown[chosen]
    if np.isfinite(row).any():
        ends = [visible(tokens[pick]) for pick in (int(np.nanargmax(row)), int(np.nanargmin(row)))]
        said = f"furthest to the first kind at {ends[0]}, to the second at {ends[1]}"
    else:
        said = "every token has a massive norm"
    return Drawing(
        figure,
        f"Each layer's direction over {wide} tokens. At the chosen layer, {chosen}: {said}. Left open: "
        f"{int(sink[:wide].sum())} of massive norm.",
    )
