"""A direction that is removed and added: what becomes of the behaviour, layer by layer, and of the answers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, visible

Shown = tuple[str, str, str]
"""A prompt, its answer as the model is, and after."""

LONGEST = 44
"""Characters of a prompt that are shown: its last ones."""


class Effect(NamedTuple):
    """Rates by prompt: of positive ones as the model is and with the direction removed, of negative ones as it is and
    with it added; `random_…` the same with each random direction."""

    rate: Float[Tensor, " positive"]
    ablated: Float[Tensor, " positive"]
    random_ablated: Float[Tensor, "draw positive"]
    neutral: Float[Tensor, " negative"]
    added: Float[Tensor, " negative"]
    random_added: Float[Tensor, "draw negative"]


def draw_effect(effect: Effect, words: str, layer: int) -> Drawing:
    """Two rows: positive prompts with the direction removed, negative ones with it added, each against the null."""
    rows = (
        ("positive prompts,\nremoved", effect.rate, effect.ablated, effect.random_ablated),
        ("negative prompts,\nadded", effect.neutral, effect.added, effect.random_added),
    )
    told = []
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for place, (name, before, after, random) in enumerate(reversed(rows)):
            start, end = float(before.double().mean()), float(after.double().mean())
            each = random.double().mean(1).numpy()
            spread = place + 0.22 * np.linspace(-1, 1, len(each))
            ax.annotate(
                "", (end, place), (start, place), arrowprops={"arrowstyle": "->", "color": PALETTE[1], "linewidth": 1.5}
            )
            ax.scatter(each, spread, s=20, color=GREY, linewidths=0, label=None if place else "a random direction")
            ax.scatter(start, place, s=70, color=PALETTE[0], linewidths=0, label=None if place else "as the model is")
            ax.scatter(
                end,
                place,
                s=80,
                marker="D",
                color=PALETTE[1],
                linewidths=0,
                label=None if place else "with the direction removed or added",
            )
            ax.text(end, place + 0.27, f"{end:.2g}", ha="center", va="bottom")
            said = name.replace("\n", " ")
            told.append(f"{said}: {start:.3g} to {end:.3g} (random ones {each.min():.3g} to {each.max():.3g})")
        ax.set_yticks([1, 0], [name for name, *_ in rows])
        ax.set(xlabel=f"share answered with “{visible(words).replace('·', ' ')}”", xlim=(-0.05, 1.05), ylim=(-0.5, 1.6))
        ax.set_title(f"the direction after layer {layer}")
        figure.legend(loc="outside upper center", ncols=1)
    return Drawing(figure, f"The direction after layer {layer}. {'; '.join(reversed(told))}.")


def draw_layers(tried: Float[Tensor, "kind layer"], layers: Sequence[int], chosen: int) -> Drawing:
    """What was tried on the choosing prompts: rate when removed and when added, and the harm, layer by layer."""
    gone, come, harm = tried.numpy()
    at = list(layers).index(chosen)
    with canvas(2, 1, height=4.6, sharex=True, height_ratios=(2, 1)) as (figure, axes):
        top, below = axes[:, 0]
        top.plot(layers, gone, color=PALETTE[0], marker="o", label="positive prompts, removed")
        top.plot(layers, come, color=PALETTE[1], marker="o", label="negative prompts, added")
        below.plot(layers, harm, color=PALETTE[2], marker="o", label="negative prompts, removed: harm")
        top.set(ylabel="share", ylim=(-0.05, 1.05))
        below.set(
            ylabel="nats", xlabel="layer after which the direction was found", ylim=(0, 1.15 * float(harm.max()) or 1)
        )
        below.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        for ax in (top, below):
            ax.axvline(chosen, color=GREY, linestyle=":", linewidth=1.4)
        top.text(chosen, 1.06, "chosen", ha="center", va="bottom")
        figure.legend(loc="outside upper center", ncols=1)
    return Drawing(
        figure,
        f"Layer {chosen} was chosen of {len(layers)} tried: there the behaviour is {gone[at]:.3g} when its direction "
        f"is removed, {come[at]:.3g} when it is added, and the harm {harm[at]:.3g} nats.",
    )


def draw_answers(positive: Sequence[Shown], negative: Sequence[Shown], what: str) -> Drawing:
    """Rows of prompts with `what` answers them before and after, positive ones with the direction removed first."""
    blocks = (("removed", positive), ("added", negative))
    rows = sum(len(shown) + 1 for _, shown in blocks)
    with canvas(height=0.7 + 0.27 * (rows + 1)) as (figure, axes):
        ax = axes[0, 0]
        ax.set(xlim=(0, 1), ylim=(rows + 0.5, -0.5), title=what)
        ax.axis("off")
        row = 0.0
        for name, shown in blocks:
            for x, said in ((0.0, "prompt"), (0.64, "as it is"), (0.83, name)):
                ax.text(x, row, said, va="center", fontweight="bold")
            for at, (prompt, before, after) in enumerate(shown):
                _cell(ax, 0.0, row + 1 + at, _tail(prompt), GREY)
                _cell(ax, 0.64, row + 1 + at, _word(before), PALETTE[0])
                _cell(ax, 0.83, row + 1 + at, _word(after), PALETTE[1])
            row += len(shown) + 1.5
    told = [
        f"{name}: " + "; ".join(f"{prompt} → {before}, {name} {after}" for prompt, before, after in shown[:3])
        for name, shown in blocks
    ]
    return Drawing(figure, f"{what[0].upper()}{what[1:]}, before and after. {'. '.join(told)}.")


def _cell(ax: Axes, x: float, y: float, said: str, colour: str) -> None:
    ax.text(x, y, said, va="center", color=colour, fontsize=11)


def _tail(prompt: str) -> str:
    shown = visible(" ".join(prompt.split())).replace("·", " ")
    return shown if len(shown) <= LONGEST else f"…{shown[1 - LONGEST :]}"


def _word(token: str) -> str:
    shown = visible(token)
    return shown if len(shown) <= 12 else f"{shown[:11]}…"
