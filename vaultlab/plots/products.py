"""Cosines under two products, each with what random pairs give."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas


class Seen(NamedTuple):
    """What a product says: of the two concepts, of random directions, of each left-out pair, of random ones."""

    product: str
    between: float
    random: NDArray[Any]
    pairs: NDArray[Any]
    random_pairs: NDArray[Any]


def draw_between(products: Sequence[Seen]) -> Drawing:
    """How far the two concepts' directions point the same way."""
    with canvas(height=2.8) as (figure, axes):
        ax = axes[0, 0]
        for row, seen in enumerate(products):
            spread = row + np.linspace(-0.18, 0.18, len(seen.random))
            named = {"label": "directions of random pairs"} if row == 0 else {}
            ax.plot(seen.random, spread, linestyle="", marker="o", markersize=4, color=GREY, alpha=0.5, **named)
            named = {"label": "the two concepts"} if row == 0 else {}
            ax.plot([seen.between], [row], linestyle="", marker="D", markersize=9, color=PALETTE[1], **named)
        _rows(ax, [seen.product for seen in products])
        most = max(max(seen.between, float(seen.random.max())) for seen in products)
        ax.set(xlabel="|cosine| between two directions", xlim=(0, 1.1 * most))
        figure.legend(loc="outside upper center", ncols=2)
    said = "; ".join(
        f"by the {seen.product} product {seen.between:.3f}, those of random pairs {seen.random.mean():.3f} on average"
        for seen in products
    )
    return Drawing(figure, f"How much two concepts' directions point the same way: {said}.")


def draw_pairs(products: Sequence[Seen], names: Sequence[str]) -> Drawing:
    """How each pair of words lies to the direction of all others."""
    with canvas(height=3.2) as (figure, axes):
        ax = axes[0, 0]
        for row, seen in enumerate(products):
            for values, colour, name, side in (
                (seen.random_pairs, GREY, "random pairs", -0.12),
                (seen.pairs, PALETTE[0], "pairs of the concept", 0.12),
            ):
                spread = row + side + np.linspace(-0.1, 0.1, len(values))
                named = {"label": name} if row == 0 else {}
                ax.plot(values, spread, linestyle="", marker="o", markersize=4, color=colour, alpha=0.6, **named)
            ax.plot([seen.pairs.mean()] * 2, [row - 0.05, row + 0.32], color=PALETTE[1], **_mean(row))
        ax.axvline(0, color=GREY, linewidth=0.8)
        _rows(ax, [seen.product for seen in products])
        ax.set(xlabel="cosine of a pair's difference with that of all other pairs")
        figure.legend(loc="outside upper center", ncols=3)
    first = products[0]
    low, high = int(first.pairs.argmin()), int(first.pairs.argmax())
    said = "; ".join(
        f"{seen.product}: {seen.pairs.mean():.2f} on average, random pairs {seen.random_pairs.mean():.2f}"
        for seen in products
    )
    return Drawing(
        figure,
        f"Cosine of each pair's difference with the direction of the other pairs. {said}. By the {first.product} "
        f"product {names[high]} goes along best, {names[low]} least.",
    )


def _mean(row: int) -> dict[str, Any]:
    return {"label": "their mean"} if row == 0 else {}


def _rows(ax: Any, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
