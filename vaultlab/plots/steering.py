"""Dose and response of a push along a direction: what it brings, what it costs, and what random pushes do."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, log_axis, visible


def draw_dose(
    strengths: Sequence[float],
    share: Float[Tensor, "direction strength"],
    perplexity: Float[Tensor, "direction strength"],
    words: str,
    layer: int,
) -> Drawing:
    """Two panels over the strengths, the found direction before the band of all random ones."""
    shares, costs = share.numpy(), perplexity.numpy()
    zero = list(strengths).index(0.0)
    with canvas(2, 1, height=5.4, sharex=True, height_ratios=(3, 2)) as (figure, axes):
        top, below = axes[:, 0]
        _line(top, strengths, shares, PALETTE[0])
        _line(below, strengths, costs, PALETTE[1])
        top.set(ylabel=f"answered with\n“{visible(words).replace('·', ' ')}”", ylim=(-0.03, 1.03))
        below.set(ylabel="perplexity of\nneutral texts", xlabel="strength (multiples of the direction)")
        if costs.max() > 20 * costs.min():
            log_axis(below, "y")
        for ax in (top, below):
            ax.axvline(0, color=GREY, linestyle=":", linewidth=1.2)
        top.plot([], [], color=PALETTE[1], marker="o", markersize=5, label="perplexity")
        top.set_title(f"pushed after layer {layer}")
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return Drawing(
        figure,
        f"From strength {strengths[0]:g} to {strengths[-1]:g} after layer {layer} the share answered with "
        f"{visible(words).replace('·', ' ')} goes from {shares[0, 0]:.3g} over {shares[0, zero]:.3g} without a push to "
        f"{shares[0, -1]:.3g} (random ones at the end {shares[1:, -1].min():.3g} to {shares[1:, -1].max():.3g}); the "
        f"perplexity of neutral texts from {costs[0, 0]:.3g} over {costs[0, zero]:.3g} to {costs[0, -1]:.3g}.",
    )


def _line(ax: Axes, strengths: Sequence[float], values: NDArray[np.float64], colour: str) -> None:
    low, high = values[1:].min(0), values[1:].max(0)
    ax.fill_between(strengths, low, high, color=GREY, alpha=0.35, linewidth=0, label="all random directions")
    ax.plot(strengths, values[0], color=colour, marker="o", markersize=5, label="the direction")


def draw_effects(effect: Float[Tensor, " direction"], nats: Float[Tensor, "direction strength"]) -> Drawing:
    """What every direction brings, against how far it raises the neutral texts' surprise at its worst strength."""
    brought, cost = effect.numpy(), (nats.amax(1) - nats.amin(1)).numpy()
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
        ax.scatter(brought[1:], cost[1:], s=24, color=GREY, linewidths=0, label="a random direction")
        ax.scatter(brought[0], cost[0], s=80, marker="D", color=PALETTE[0], linewidths=0, label="the direction")
        ax.set(
            xlabel="effect: log odds, highest less lowest strength (nats)",
            ylabel="surprise at neutral\ntexts: range (nats)",
        )
        ax.margins(0.1)
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"The direction’s effect is {brought[0]:.3g} nats and moves the surprise at neutral texts by {cost[0]:.3g}; "
        f"{len(brought) - 1} random ones have {brought[1:].min():.3g} to {brought[1:].max():.3g} and up to "
        f"{cost[1:].max():.3g}.",
    )
