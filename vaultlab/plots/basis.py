"""Figures of a layer's basis: what lies on its coordinates, what a layer learns for them, what turning it changes."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vaultlab.plots.ordered import ordered
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, log_axis, visible

OWN, TURNED = PALETTE[0], PALETTE[1]


class Aligned(NamedTuple):
    """How near to one coordinate each feature or token lies, max_k |v_k|/‖v‖: those shown, of a toy also those of the
    other seeds and of a layer without ReLU, and as many random directions."""

    of: Literal["features", "tokens"]
    shown: Float[Tensor, " shown"]
    chance: Float[Tensor, " shown"]
    others: Sequence[Float[Tensor, " other"]] = ()
    linear: Float[Tensor, " linear"] | None = None


def draw_alignment(aligned: Aligned, where: str, dimensions: int, sinks: Sequence[str]) -> Drawing:
    """Those shown in order, beside the others; `sinks` are the tokens left out."""
    least = 1 / math.sqrt(dimensions)
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        for row in aligned.others:
            ax.plot(torch.linspace(0, 100, len(row)), row.sort().values, color=PALETTE[0], linewidth=0.8, alpha=0.6)
        ordered(ax, aligned.chance, PALETTE[2], "random directions")
        if aligned.linear is not None:
            ordered(ax, aligned.linear, PALETTE[1], "without ReLU")
        ordered(ax, aligned.shown, PALETTE[0], where)
        ax.axhline(least, color=GREY, linewidth=1, linestyle="--", label="1/√d: on all alike")
        ax.set(xlim=(-3, 103), ylim=(0, 1.03), xlabel=f"{aligned.of} in order (%)", ylabel="alignment maxₖ|vₖ|/‖v‖")
        figure.legend(loc="outside upper center", ncols=2)
    without = "" if aligned.linear is None else f"; without the ReLU {_mean(aligned.linear):.3g}"
    left_out = f" Left out: {', '.join(map(visible, sinks))}." if sinks else ""
    return Drawing(
        figure,
        f"How much of each of {len(aligned.shown)} {aligned.of} lies on one of {dimensions} coordinates, {where}: "
        f"{_mean(aligned.shown):.3g} on average{without}; random directions {_mean(aligned.chance):.3g}, and "
        f"{least:.3g} is the least there can be.{left_out}",
    )


def _mean(values: Tensor) -> float:
    return float(values.mean().nan_to_num())  # of no features at all: 0


def draw_weights(W: Float[Tensor, "2 features hidden"], alignment: Float[Tensor, "2 features"]) -> Drawing:
    """What is learnt with a ReLU on the hidden layer and without: a row for a feature, a column for a coordinate."""
    most = float(W.abs().max()) or 1.0
    n, m = W.shape[1:]
    with canvas(1, 2, height=2.4 + min(3.0, 0.2 * n), sharey=True) as (figure, axes):
        for ax, weights, name in zip(axes[0], W, ("with ReLU", "without"), strict=True):
            image = heat(ax, weights.numpy(), "", limits=(-most, most), bar=None)
            ax.set(title=name, xlabel="hidden coordinate")
            for ticks, count in ((ax.set_xticks, m), (ax.set_yticks, n)):
                step = max(1, -(-count // 8))
                ticks(range(0, count, step), [str(i + 1) for i in range(0, count, step)])
            ax.spines[:].set_visible(False)
        axes[0, 0].set_ylabel("feature")
        colour_bar(list(axes[0]), image, "weight")
    with_relu, without = (100 * float(one.max()) for one in alignment)
    return Drawing(
        figure,
        f"The weights of {n} features on {m} hidden coordinates, learnt with a ReLU on them and without: the largest "
        f"entries of a row have {with_relu:.0f}% and {without:.0f}% of its length at most.",
    )


def draw_turning(factors: Float[Tensor, "2 turns"]) -> Drawing:
    """The loss of a turned layer by the loss, with a ReLU on it and without."""
    turns = factors.shape[1]
    place = np.linspace(-0.25, 0.25, turns)
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        ax.axhline(1, color=GREY, linestyle="--", linewidth=1.2, label="nothing changed")
        for at, (layer, colour) in enumerate(zip(factors, PALETTE, strict=False)):
            ax.plot(at + place, layer, "o", color=colour, markersize=6)
        log_axis(ax, "y")
        ax.set_xticks([0, 1], ["with ReLU", "without ReLU"])
        ax.set(xlim=(-0.5, 1.5), ylabel="loss when turned, × the loss")
        figure.legend(loc="outside upper center")
    with_relu, without = factors
    return Drawing(
        figure,
        f"The loss after turning the hidden layer, {turns} times at random: with the ReLU {float(with_relu.min()):.3g} "
        f"to {float(with_relu.max()):.3g} times as large; without it {float(without.min()):.9g} to "
        f"{float(without.max()):.9g}.",
    )


def draw_layers(own: Float[Tensor, "2 layers"], turned: Float[Tensor, "2 layers"], shown: int) -> Drawing:
    """Excess kurtosis at every layer, above over coordinates and below over tokens."""
    layers = np.arange(own.shape[1])
    with canvas(2, 1, height=5.2, sharex=True) as (figure, axes):
        panels = zip(axes[:, 0], own, turned, ("over coordinates", "over tokens"), strict=True)
        for ax, found, null, label in panels:
            ax.axhline(0, color=GREY, linewidth=0.8)
            ax.plot(layers, found, "o-", color=OWN, markersize=4, label="own coordinates")
            ax.plot(layers, null, "s-", color=TURNED, markersize=4, label="turned at random")
            ax.axvline(shown, color=GREY, linewidth=0.8, linestyle=":")
            ax.set_ylabel(label)
            ax.yaxis.set_major_locator(MaxNLocator(4))
        axes[1, 0].set_xlabel("layer")
        axes[0, 0].set_title("excess kurtosis (0: Gaussian)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    low, high = own.amin(1).tolist(), own.amax(1).tolist()
    turned_low, turned_high = turned.amin(1).tolist(), turned.amax(1).tolist()
    return Drawing(
        figure,
        f"Excess kurtosis at {len(layers)} layers, own coordinates against turned ones: over coordinates "
        f"{low[0]:.3g} to {high[0]:.3g} against {turned_low[0]:.2g} to {turned_high[0]:.2g}; over tokens "
        f"{low[1]:.2g} to {high[1]:.2g} against {turned_low[1]:.2g} to {turned_high[1]:.2g}. At layer {shown} "
        f"{float(own[0, shown]):.3g}.",
    )


def draw_coordinates(spread: Float[Tensor, "2 dimensions"], where: str) -> Drawing:
    """Root mean squares from the least to the largest, of own coordinates and of turned ones."""
    own, turned = spread
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        ordered(ax, turned, TURNED, "turned at random")
        ordered(ax, own, OWN, f"own, {where}")
        if float(spread.min()) > 0:
            log_axis(ax, "y")
        ax.set(xlim=(-3, 103), xlabel="coordinates in order (%)", ylabel="root mean square")
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"How large each of {len(own)} coordinates is, in order, {where}: the largest is "
        f"{float(own[-1] / own.median().clamp(min=1e-12)):.3g} times the median; turned at random "
        f"{float(turned[-1] / turned.median().clamp(min=1e-12)):.3g} times.",
    )


def draw_reference(
    densities: Sequence[float], drawn: Float[Tensor, " densities"], where: str, kurtosis: float, density: float
) -> Drawing:
    """The kurtosis of sparse Gaussians, drawn and in closed form, and where on it this run's `kurtosis` lies."""
    p = np.geomspace(0.5 * min(*densities, density), 1, 100)
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        ax.plot(p, 3 / p, color=GREY, linewidth=1.5, label="3/p, closed form")
        ax.plot(densities, drawn + 3, "o", color=PALETTE[2], label="sparse Gaussians, drawn")
        ax.axhline(kurtosis + 3, color=PALETTE[0], linewidth=1.5, label=where)
        if density <= 1:
            ax.plot(density, kurtosis + 3, "D", color=PALETTE[0], markersize=8)
        for axis in ("x", "y"):
            log_axis(ax, axis)
        ax.set(xlabel="density p", ylabel="kurtosis + 3 (Gaussian: 3)")
        figure.legend(loc="outside upper center", ncols=2)
    said = f"as sparse Gaussians of density {density:.2g}" if density <= 1 else "less than Gaussians have"
    return Drawing(
        figure,
        f"Kurtosis against density: sparse Gaussians lie on 3/p − 3 at {len(densities)} densities; {where} has "
        f"{kurtosis:.3g}, {said}.",
    )
