"""Figures of what a representation can be: its properties, rules for superposition, sets told apart, readings."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from vaultlab.plots.ordered import ordered
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas

SHOWN, OTHERS, CHANCE = PALETTE[:3]
RIGHT, WRONG = PALETTE[0], PALETTE[3]

BARS = (
    "two at once\ntold apart",
    "strength read\nalong a direction",
    "dimensions\nper feature",
    "aligned with\na dimension",
)
"""The four properties, from 0 to 1: holds fully."""

COLUMNS = ("features > rank", "W Wᵀ singular\n(n × n)", "WᵀW singular\n(m × m)")
"""The right rule for superposition, and the literal ones."""


class Compared(NamedTuple):
    """Numbers of the seed that is shown, of every other one, and of random directions."""

    shown: Tensor
    others: Sequence[Tensor]
    chance: Tensor


class Rules(NamedTuple):
    """What three rules say of one W: how many features are represented, on what rank, and which Grams are singular."""

    represented: int
    rank: int
    large_singular: bool
    small_singular: bool

    @property
    def superposed(self) -> bool:
        return self.represented > self.rank

    @property
    def verdicts(self) -> tuple[bool, bool, bool]:
        """Whether W is superposed, as each of `COLUMNS` has it; the first is right."""
        return self.superposed, self.large_singular, self.small_singular


def draw_properties(bars: Compared, rules: Rules, what: str) -> Drawing:
    """The four properties of `BARS`, beside those of other seeds and of random directions."""
    place = np.arange(len(BARS))
    said = "superposed" if rules.superposed else "not superposed"
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        ax.barh(place, bars.shown.numpy(), height=0.55, color=SHOWN, label=what)
        for number, row in enumerate(bars.others):
            ax.plot(row, place, "|", color=OTHERS, markersize=22, label=None if number else "other seeds")
        ax.plot(bars.chance, place, "d", color=CHANCE, markersize=8, label="random directions", clip_on=False)
        ax.set(xlim=(0, 1.02), xlabel="share, 1: holds fully")
        ax.set_yticks(place, BARS)
        ax.invert_yaxis()
        ax.set_title(f"{_count(rules.represented, 'feature')} on {_count(rules.rank, 'dimension')}: {said}")
        figure.legend(loc="outside upper center", ncols=3)
    values, chance = [[f"{float(one):.3g}" for one in row] for row in (bars.shown, bars.chance)]
    return Drawing(
        figure,
        f"The four properties of {what} as bars from 0 to 1, beside those of random directions: pairs told apart "
        f"{values[0]} ({chance[0]}), strength read along a direction {values[1]} ({chance[1]}), dimensions per feature "
        f"{values[2]} ({chance[2]}), alignment {values[3]} ({chance[3]}). {rules.represented} features are represented "
        f"on {_count(rules.rank, 'dimension')}: {said}.",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def draw_rules(here: Rules, cases: Mapping[str, Rules]) -> Drawing:
    """What each rule says of this W and of the four `cases` with known answers, and whether it is right."""
    rows = {"this W": here, **cases}
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for row, rules in enumerate(rows.values()):
            for column, says in enumerate(rules.verdicts):
                _draw_verdict(ax, row, column, says, says == rules.superposed)
        ax.set(xlim=(-0.5, 2.5), ylim=(len(rows) - 0.5, -0.5), ylabel="features on rank")
        ax.set_yticks(range(len(rows)), [f"{name}: {one.represented} on {one.rank}" for name, one in rows.items()])
        ax.set_xticks(range(3), COLUMNS)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    wrong = [
        f"{COLUMNS[rule].splitlines()[0]} is wrong about {', '.join(missed)}"
        for rule in (1, 2)
        if (missed := [name for name, one in rows.items() if one.verdicts[rule] != one.superposed])
    ]
    return Drawing(
        figure,
        f"Three rules for superposition on this W ({here.represented} features on rank {here.rank}: "
        f"{'superposed' if here.superposed else 'not superposed'}) and on four cases with known answers. Taken "
        f"literally, {'; '.join(wrong)}.",
    )


def _draw_verdict(ax: Axes, row: int, column: int, says: bool, right: bool) -> None:
    colour = RIGHT if right else WRONG
    ax.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, color=colour, alpha=0.15, linewidth=0))
    ax.text(column, row, f"{'✓' if right else '✗'} {'superposed' if says else 'not'}", ha="center", va="center")


def draw_apart(apart: Compared, sure: int, what: str) -> Drawing:
    """The share of sets of 1, 2 … features told apart; of up to `sure` features it is certain."""
    k = np.arange(1, len(apart.shown) + 1)
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        if sure:
            ax.axvspan(0.5, sure + 0.5, color=SHOWN, alpha=0.15, linewidth=0, label="certain")
        for number, row in enumerate(apart.others):
            ax.plot(k, 100 * row, color=OTHERS, linewidth=1, label=None if number else "other seeds")
        ax.plot(k, 100 * apart.chance, "d--", color=CHANCE, linewidth=1.2, label="random directions")
        ax.plot(k, 100 * apart.shown, "o-", color=SHOWN, label=what, clip_on=False)
        ax.set(
            xlim=(0.5, len(k) + 0.5), ylim=(-3, 103), xlabel="features present at once", ylabel="sets told apart (%)"
        )
        ax.set_xticks(k)
        figure.legend(loc="outside upper center", ncols=2)
    shares = ", ".join(f"{100 * float(share):.3g}%" for share in apart.shown)
    return Drawing(
        figure,
        f"How many sets of 1 to {len(k)} features of {what} are told apart from all other features: {shares}. "
        f"Certain up to {sure}.",
    )


def draw_reading(
    closed: Float[Tensor, " features"], read: Float[Tensor, " features"], chance: float, what: str
) -> Drawing:
    """R² of reading each feature's strength against what it must be; `chance` is the mean of random directions."""
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="R² = Dᵢ")
        ax.axvline(chance, color=CHANCE, linewidth=1.2, linestyle=":", label="mean of random directions")
        size = 7 if len(read) <= 64 else 3
        ax.plot(closed, read, "o", color=SHOWN, markersize=size, alpha=0.7, label="features", clip_on=False)
        ax.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="dimensionality Dᵢ, in closed form", ylabel="R² of the reading, measured"
        )
        figure.legend(loc="outside upper center", ncols=3)
    return Drawing(
        figure,
        f"R² of reading each of {len(read)} features of {what} along its direction against its dimensionality: "
        f"on the diagonal within {float((read - closed).abs().max()):.2g}, from {float(read.min()):.3g} to "
        f"{float(read.max()):.3g}; random directions have {chance:.3g}.",
    )


def draw_alignment(aligned: Compared, dimensions: int, what: str) -> Drawing:
    """How near each represented feature comes to lying on one dimension, in order."""
    least = 1 / math.sqrt(dimensions)
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for number, row in enumerate(aligned.others):
            ordered(ax, row, OTHERS, None if number else "other seeds")
        ordered(ax, aligned.chance, CHANCE, "random directions")
        ordered(ax, aligned.shown, SHOWN, what)
        ax.axhline(least, color=GREY, linewidth=1, linestyle="--", label="1/√m: on all alike")
        ax.set(
            xlim=(-3, 103),
            ylim=(0, 1.03),
            xlabel="represented features in order (%)",
            ylabel="alignment maxₖ|Wᵢₖ|/‖Wᵢ‖",
        )
        figure.legend(loc="outside upper center", ncols=2)
    values = aligned.shown
    span = f"{float(values.min()):.3g} to {float(values.max()):.3g}" if len(values) else "of none"
    return Drawing(
        figure,
        f"The alignment of {len(values)} represented features of {what} with the nearest dimension, {span}; random "
        f"directions have {float(aligned.chance.mean()):.3g} on average, and {least:.3g} is the least there can be.",
    )
