"""Figures of a changed memory: the answer before and after, how it depends on the strength, what changes elsewhere."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaultlab.plots.memories import fitted
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, log_axis, visible

BEFORE, AFTER = PALETTE[0], PALETTE[1]

LEAST = 1e-7
"""Nats: what diverges less is drawn there."""

Numbers = NDArray[np.floating]


def draw_answer(
    tokens: Sequence[str], target: int, before: Numbers, after: Numbers, text: Sequence[str], name: str
) -> Drawing:
    """Probabilities of the tokens that are likeliest before or after."""
    rows = np.arange(len(tokens))
    with canvas(height=1.5 + 0.4 * len(tokens)) as (figure, axes):
        ax = axes[0, 0]
        ax.barh(rows - 0.2, 100 * before, height=0.36, color=BEFORE, label="as it is")
        ax.barh(rows + 0.2, 100 * after, height=0.36, color=AFTER, label="with the change")
        labels = ax.set_yticks(rows, [fitted(token, 110) for token in tokens]), ax.get_yticklabels()
        labels[1][target].set_fontweight("bold")
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set(xlabel="probability (%)", title=f"after {fitted(''.join(text), 330, end=True)}")
        figure.legend(loc="outside upper center", ncols=2)
    first, then = tokens[int(before.argmax())], tokens[int(after.argmax())]
    return Drawing(
        figure,
        f"After {visible(''.join(text)[-60:])} the model's first guess is {visible(first)} ({before.max():.1%}); with "
        f"{name} pushing {visible(tokens[target])} it is {visible(then)} ({after.max():.1%}), and "
        f"{visible(tokens[target])} goes from {before[target]:.2%} to {after[target]:.2%}.",
    )


class Dose(NamedTuple):
    """At each strength how far the logit rises: the closed form, with the norm live, with everything live, and with
    random directions [draw, dose]; and the token's probability."""

    strength: Numbers
    direct: Numbers
    normed: Numbers
    live: Numbers
    random: Numbers
    chance: Numbers


def draw_dose(dose: Dose, target: str, name: str) -> Drawing:
    """The rise and the probability against the strength."""
    with canvas(2, height=5.8, sharex=True, height_ratios=[3, 2]) as (figure, axes):
        ax, low = axes[:, 0]
        ax.fill_between(
            dose.strength,
            dose.random.min(0),
            dose.random.max(0),
            color=GREY,
            alpha=0.45,
            linewidth=0,
            label="random directions",
        )
        ax.plot(dose.strength, dose.direct, color=GREY, label="closed form")
        ax.plot(dose.strength, dose.normed, "--", color=BEFORE, label="the norm live")
        ax.plot(dose.strength, dose.live, "o", color=AFTER, markersize=5, label="everything live")
        ax.set_ylabel(f"rise of {fitted(target, 90)} (nats)")
        low.plot(dose.strength, 100 * dose.chance, "o-", color=AFTER, markersize=5)
        low.set(xlabel=f"strength α, {name}", ylabel="probability (%)", ylim=(-3, 103))
        for each in (ax, low):
            each.axvline(0, color=GREY, linewidth=0.8)
        ax.axhline(0, color=GREY, linewidth=0.8)
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"From strength {dose.strength[0]:.3g} to {dose.strength[-1]:.3g} the logit of {visible(target)} moves by "
        f"{dose.live[0]:+.3g} to {dose.live[-1]:+.3g} nats; in closed form {dose.direct[0]:+.3g} to "
        f"{dose.direct[-1]:+.3g}, with the norm live {dose.normed[0]:+.3g} to {dose.normed[-1]:+.3g}; random "
        f"directions move it by {np.abs(dose.random).max():.2g} at most. Its probability goes from "
        f"{dose.chance[0]:.2%} to {dose.chance[-1]:.2%}.".replace("-", "−"),
    )


class Elsewhere(NamedTuple):
    """Tokens of another text: how strongly the memory answers, by its answer at home; the divergence, and that by
    random directions; whether the first guess changed. `places`: token, guess before and after, where most changes,
    with their divergence `most`."""

    answers: Numbers
    divergence: Numbers
    random: Numbers
    changed: NDArray[np.bool_]
    places: Sequence[tuple[str, str, str]]
    most: Numbers


def draw_elsewhere(seen: Elsewhere, name: str) -> Drawing:
    """Divergence against how much the memory answers, and the tokens at which most changes."""
    rows = len(seen.places)
    ratios = [3.0, 0.4 + 0.3 * rows] if rows else [3.0]
    with canvas(len(ratios), height=1.4 + sum(ratios), height_ratios=ratios) as (figure, axes):
        ax = axes[0, 0]
        x = np.maximum(seen.answers, 1e-5)
        for values, some, colour, size, label in (
            (seen.random, np.ones_like(seen.changed), GREY, 8, "random directions"),
            (seen.divergence, ~seen.changed, BEFORE, 12, "the change"),
            (seen.divergence, seen.changed, AFTER, 26, "another first guess"),
        ):
            ax.scatter(x[some], np.maximum(values, LEAST)[some], s=size, color=colour, linewidths=0, label=label)
        log_axis(ax, "x")
        log_axis(ax, "y")
        ax.set(xlabel=f"answer of {name} (1: as in the text)", ylabel="divergence (nats)")
        if rows:
            low = axes[1, 0]
            low.barh(np.arange(rows), seen.most, height=0.65, color=AFTER)
            names = [f"{fitted(t, 80)}: {fitted(was, 75)} → {fitted(now, 75)}" for t, was, now in seen.places]
            low.set_yticks(np.arange(rows), names)
            low.tick_params(axis="y", length=0)
            low.invert_yaxis()
            low.set_xlabel("divergence (nats)")
        figure.legend(loc="outside upper center", ncols=3)
    said = "; ".join(f"{visible(t)}, from {visible(was)} to {visible(now)}" for t, was, now in seen.places[:4])
    return Drawing(
        figure,
        f"Of {len(seen.answers)} tokens elsewhere {seen.changed.mean():.2%} get another first guess"
        + (f", most of all {said}" if said else "")
        + f". The divergence is {seen.divergence.mean():.2g} nats on average, {seen.random.mean():.2g} by random "
        f"directions; the memory answers like at home (half as much at least) at {np.mean(seen.answers >= 0.5):.2%}.",
    )
