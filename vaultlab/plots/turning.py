"""Scores around a whole turn of the stream in a plane."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas


class Turned(NamedTuple):
    """The mean score of one side's prompts by angle, in the plane and in random ones; and the sinusoid nearest to it:
    mean + amplitude · cos(θ − peak), which is `share` of its variance."""

    name: str
    score: Float[Tensor, " angle"]
    random: Float[Tensor, "draw angle"]
    mean: float
    amplitude: float
    peak: float
    share: float


def draw_polar(sides: Sequence[Turned], score: str, layer: int) -> Drawing:
    """Around: the angle; outwards: the score."""
    circle = np.linspace(0, 2 * math.pi, 361)  # a straight line between two angles would cut the corner
    with canvas(height=6.6, subplot_kw={"projection": "polar"}) as (figure, axes):
        ax = axes[0, 0]
        for side, colour in zip(sides, PALETTE, strict=False):
            for values in side.random:
                ax.plot(circle, np.interp(circle, *_around(values)), color=colour, linewidth=0.6, alpha=0.5)
            own = np.interp(circle, *_around(side.score))
            ax.plot(circle, own, color=colour, label=f"{side.name} prompts, turned")
            ax.plot(circle, np.full(len(circle), float(side.score[0])), color=colour, linestyle="--", linewidth=1)
        ax.plot([], [], color=GREY, linestyle="--", linewidth=1, label="as the model is")
        ax.plot([], [], color=GREY, linewidth=0.6, label="random planes")
        every = torch.cat([values.flatten() for side in sides for values in (side.score, side.random)])
        low, high = float(every.min()), float(every.max())
        ax.set_rlim(low - 0.35 * (high - low), high + 0.05 * (high - low))
        ax.set_rlabel_position(67.5)
        ax.spines["polar"].set_visible(False)
        figure.suptitle(f"outwards: {score} (logits)\naround: the angle of the turn, behind layer {layer}")
        figure.legend(loc="outside lower center", ncols=2)
    said = " ".join(
        f"Of {side.name} prompts it goes from {float(side.score.min()):.2f} to {float(side.score.max()):.2f} logits, "
        f"highest near {math.degrees(side.peak) % 360:.0f}°."
        for side in sides
    )
    return Drawing(
        figure, f"The mean score around a whole turn as closed lines, with {len(sides[0].random)} random planes. {said}"
    )


def draw_turn(sides: Sequence[Turned]) -> Drawing:
    """The same laid flat, with the nearest sinusoids."""
    fine = np.linspace(0, 2 * math.pi, 181)
    with canvas(height=4.4) as (figure, axes):
        ax = axes[0, 0]
        for side, colour in zip(sides, PALETTE, strict=False):
            for values in side.random:
                ax.plot(*_degrees(values), color=colour, linewidth=0.6, alpha=0.5)
            sinusoid = side.mean + side.amplitude * np.cos(fine - side.peak)
            ax.plot(np.degrees(fine), sinusoid, color=colour, linewidth=1, linestyle="--")
            label = f"{side.name} prompts, turned"
            ax.plot(*_degrees(side.score), color=colour, linestyle="", marker="o", markersize=5, label=label)
        ax.plot([], [], color=GREY, linestyle="--", linewidth=1, label="nearest sinusoid")
        ax.plot([], [], color=GREY, linewidth=0.6, label="random planes")
        ax.axhline(0, color=GREY, linewidth=0.8)
        ax.set_xticks(range(0, 361, 45))
        ax.set(xlabel="angle of the turn (degrees)", ylabel="score (logits)")
        figure.legend(loc="outside upper center", ncols=2)
    shares = " and ".join(f"{100 * side.share:.0f} % of {side.name} prompts’" for side in sides)
    return Drawing(
        figure, f"The mean score against the angle; the nearest sinusoid is {shares} variance over the angles."
    )


def draw_planes(own: float, random: Float[Tensor, " draw"]) -> Drawing:
    """How far a turn moves the score: in the plane, and in random ones."""
    with canvas(height=2.2) as (figure, axes):
        ax = axes[0, 0]
        dots: dict[str, Any] = {"linestyle": "", "clip_on": False}
        ax.plot(random.numpy(), np.zeros(len(random)), marker="o", color=GREY, alpha=0.7, label="random planes", **dots)
        ax.plot([own], [0], marker="D", markersize=9, color=PALETTE[1], label="the plane of this block", **dots)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
        ax.set(xlabel="amplitude of the mean score (logits)", ylim=(-1, 1))
        ax.set_xlim(0, 1.1 * max(own, float(random.max())))
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"Amplitudes: {own:.2f} logits in the plane of this block, {float(random.min()):.2f} to "
        f"{float(random.max()):.2f} in {len(random)} planes drawn at random.",
    )


def _around(values: Float[Tensor, " angle"]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Angles and values with the first one again at the end: a line that closes."""
    return np.linspace(0, 2 * math.pi, len(values) + 1), torch.cat([values, values[:1]]).double().numpy()


def _degrees(values: Float[Tensor, " angle"]) -> tuple[NDArray[Any], NDArray[Any]]:
    at, closed = _around(values)
    return np.degrees(at), closed
