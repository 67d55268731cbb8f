"""Figures of direct pushes: a waterfall of parts, heads as a map, the logit by layer, what was read from where."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, token_axis, visible

STEPS = 12
"""Parts that the waterfall names."""

NAMED = 24
"""Token names along an axis at most."""

UP, DOWN, TOTAL = PALETTE[0], PALETTE[1], GREY

Numbers = NDArray[np.floating]


class Question(NamedTuple):
    """What is pushed, the foil or nothing for the vocabulary's mean, and where in the text."""

    target: str
    foil: str
    where: str

    @property
    def name(self) -> str:
        """The logit that is taken apart."""
        return f"{visible(self.target)} − {visible(self.foil) if self.foil else 'mean'}"

    @property
    def said(self) -> str:
        """The same in a sentence."""
        against = f"that of {visible(self.foil)}" if self.foil else "the vocabulary's mean"
        return f"the logit of {visible(self.target)} less {against}, {self.where}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def waterfall(names: Sequence[str], pushes: Numbers, null: Numbers, question: Question) -> Drawing:
    """From the baseline to the logit, the strongest parts first; `null` [draw, part] are whiskers where bars begin."""
    order = np.argsort(-np.abs(pushes), kind="stable")[: np.count_nonzero(pushes)]
    order, rest = order[:STEPS], order[STEPS:]
    steps, typical = pushes[order], np.sqrt(np.square(null[:, order]).mean(0))
    labels = [names[place] for place in order]
    if rest.size:
        steps = np.append(steps, pushes[rest].sum())
        typical = np.append(typical, np.sqrt(np.square(null[:, rest].sum(1)).mean()))
        labels.append(f"{len(rest)} others")
    ends = steps.cumsum()
    starts, rows, total = ends - steps, len(steps), float(ends[-1])
    with canvas(height=1.3 + 0.3 * (rows + 1)) as (figure, axes):
        ax = axes[0, 0]
        places = np.arange(rows)
        ax.barh(places, steps, left=starts, height=0.62, color=[UP if step >= 0 else DOWN for step in steps])
        ax.errorbar(
            starts, places, xerr=typical, fmt="none", ecolor=GREY, elinewidth=1.5, capsize=3, label="random tokens"
        )
        ax.vlines(ends[:-1], places[:-1] + 0.31, places[1:] - 0.31, color=GREY, linewidth=1)
        ax.barh(rows, total, height=0.62, color=TOTAL)
        reach = [*starts, *ends, *(starts + typical), *(starts - typical), total, 0.0]
        low, high = min(reach), max(reach)
        room = 0.14 * (high - low)
        for row, (start, step) in enumerate([*zip(starts, steps, strict=True), (0.0, total)]):
            right = max(start, start + step, start + (typical[row] if row < rows else 0))
            ax.text(right + 0.01 * (high - low), row, _signed(step), va="center")
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_yticks([*places, rows], [*labels, "all parts"])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set(xlim=(low - 0.02 * (high - low), high + room), xlabel="push on the logit (nats)")
        figure.suptitle(f"{question.name}, {question.where}")
        figure.legend(loc="outside lower right")
    said = ", ".join(f"{label} {_signed(step)}" for label, step in list(zip(labels, steps, strict=True))[:4])
    others = f"; {len(rest)} others sum to {_signed(float(pushes[rest].sum()))}" if rest.size else ""
    return Drawing(
        figure,
        f"What adds up to {question.said}, {_signed(total)} nats: {said}{others}. A part's push on random tokens is "
        f"typically {typical[: len(order)].mean():.2g} nats.",
    )


def heads(pushes: Numbers, random: Numbers, boxed: str, question: Question) -> Drawing:
    """Layer × head, beside the same on a random token, in one scale; the strongest are named."""
    layers, count = pushes.shape
    order = np.argsort(-np.abs(pushes), axis=None, kind="stable")[:3]
    strongest = [f"L{place // count}H{place % count}" for place in order.tolist()]
    most = float(max(np.abs(pushes).max(), np.abs(random).max())) or 1.0
    with canvas(1, 2, height=2.2 + 0.15 * layers, sharey=True) as (figure, axes):
        for ax, values, title in ((axes[0, 0], pushes, question.name), (axes[0, 1], random, "a random token")):
            image = heat(ax, values, "", limits=(-most, most), bar=None)
            ax.set_title(title)
            ax.set_xlabel("head")
            _numbered(ax, "x", count)
            ax.spines[:].set_visible(False)
        row, column = map(int, boxed[1:].split("H"))
        axes[0, 0].add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="none", edgecolor="black", linewidth=2)
        )
        axes[0, 0].set_ylabel("layer")
        _numbered(axes[0, 0], "y", layers)
        colour_bar(list(axes[0]), image, "push on the logit (nats)", "top")
        figure.suptitle(f"push hardest: {', '.join(strongest)}; boxed: {boxed}")
    said = ", ".join(
        f"{name} {_signed(float(pushes.flat[place]))}" for name, place in zip(strongest, order, strict=True)
    )
    return Drawing(
        figure,
        f"A map, layer by head, of what {pushes.size} heads push {question.said}, beside the same on a random token. "
        f"Hardest: {said} nats; of the random token the hardest is {np.abs(random).max():.2g}.",
    )


def _numbered(ax: Axes, axis: str, count: int) -> None:
    places = range(0, count, -(-count // 12))
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, [str(place) for place in places])


def course(pushes: Numbers, null: Numbers, question: Question) -> Drawing:
    """[kind, place] attention's and MLPs' pushes layer by layer, what comes before first and after them last, added
    up; the band is where 95 % of `null` [draw, kind, place] get."""
    total = pushes.sum(0).cumsum()
    kinds = {name: row[1:-1] for name, row in zip(("attention", "the MLP"), pushes, strict=True) if row.any()}
    low, high = np.quantile(null.sum(1).cumsum(-1), (0.025, 0.975), axis=0)
    places, layers = np.arange(-1, len(total) - 1), np.arange(len(total) - 2)
    with canvas(2, 1, height=5.4, sharex=True) as (figure, axes):
        ax = axes[0, 0]
        ax.fill_between(places, low, high, color=GREY, alpha=0.3, linewidth=0, label="random tokens (95%)")
        ax.plot(places, total, marker="o", markersize=4, color=PALETTE[2], label=question.name)
        ax.set_ylabel("sum so far (nats)")
        ax.legend(loc="upper left")
        ax = axes[1, 0]
        for at, (name, values) in enumerate(kinds.items()):
            side = 0.4 * at - 0.2 * (len(kinds) - 1)
            ax.bar(layers + side, values, width=0.4, color=PALETTE[at], label=name)
        ax.axhline(0, color=GREY, linewidth=1)
        ax.set(ylabel="push (nats)", xlabel=f"layer (−1: the embedding, {len(layers)}: last biases)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(loc="upper left")
    best = [f"{name} in layer {values.argmax()} ({_signed(float(values.max()))})" for name, values in kinds.items()]
    return Drawing(
        figure,
        f"{question.said[0].upper()}{question.said[1:]} as layers add up: {_signed(float(total[0]))} nats from the "
        f"embedding, {_signed(float(total[len(total) // 2]))} in the middle, {_signed(float(total[-1]))} at the end. "
        f"Most is added by {' and '.join(best)}.",
    )


def sources(names: Sequence[str], tokens: Sequence[str], pushes: Numbers, question: Question) -> Drawing:
    """[head, token]: what each of the strongest heads pushes with what it took from each token, the last ones shown."""
    first = max(0, len(tokens) - NAMED)
    shown = pushes[:, first:]
    with canvas(height=2.3 + 0.32 * len(names)) as (figure, axes):
        ax = axes[0, 0]
        heat(ax, shown, "push on the logit (nats)", bar="top")
        token_axis(ax, "x", tokens[first:], NAMED)
        sums = [f"{name} {_signed(float(row.sum()))}" for name, row in zip(names, pushes, strict=True)]
        ax.set_yticks(range(len(names)), sums)
        ax.tick_params(axis="y", length=0)
        ax.spines[:].set_visible(False)
        before = f" ({first} before are not shown)" if first else ""
        ax.set_xlabel(f"taken from this token{before}")
    row, column = divmod(int(np.abs(pushes).argmax()), pushes.shape[1])
    return Drawing(
        figure,
        f"The pushes of the {len(names)} strongest heads on {question.said}, by the token that they were taken from. "
        f"Most: {names[row]} from {visible(tokens[column])}, {_signed(float(pushes[row, column]))} nats.",
    )


def along(pushes: Numbers, tokens: Sequence[str], left_out: Sequence[str], question: Question) -> Drawing:
    """[kind, layer, token]: what each layer's attention and MLP push at each token."""
    most = float(np.quantile(np.abs(pushes), 0.995)) or float(np.abs(pushes).max()) or 1.0
    with canvas(2, 1, height=3.4 + 0.14 * pushes.shape[1], sharex=True) as (figure, axes):
        for ax, values, name in zip(axes[:, 0], pushes, ("attention", "MLP"), strict=True):
            image = heat(ax, values[::-1], "", limits=(-most, most), bar=None)
            layers = range(0, len(values), -(-len(values) // 8))
            ax.set_yticks([len(values) - 1 - layer for layer in layers], [str(layer) for layer in layers])
            ax.set_ylabel(f"{name}, layer")
            ax.spines[:].set_visible(False)
        token_axis(axes[1, 0], "x", tokens, NAMED)
        step = -(-len(tokens) // NAMED)
        axes[1, 0].set_xlabel("after this token" + (f", one in {step} named" if step > 1 else ""))
        colour_bar(list(axes[:, 0]), image, "push on the logit (nats), the hardest 0.5% alike", "top")
    gone = f" Left out: {', '.join(map(visible, left_out))}." if left_out else ""
    kind, layer, place = map(int, np.unravel_index(np.abs(pushes).argmax(), pushes.shape))
    hardest = pushes[kind, layer, place]
    return Drawing(
        figure,
        f"What every layer pushes at {len(tokens)} tokens: hardest {'attention' if kind == 0 else 'the MLP'} of layer "
        f"{layer} after {visible(tokens[place])}, {_signed(float(hardest))} nats; "
        f"{math.fsum(pushes.mean(-1).flat):+.3g} in all on average.{gone}",
    )
