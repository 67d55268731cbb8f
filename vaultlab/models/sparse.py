"""Sparse features: how often each is there, alone or in pairs, and vectors of them to train and to measure on.

x_i is 0 with probability S (the sparsity), else uniform in [0, 1]; p = 1 − S. Features 2k and 2k + 1 may be a pair:
both of it are there or neither, or never both; how strong each is stays its own.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Pairs = Literal["independent", "together", "exclusive"]


class Vectors(NamedTuple):
    """Vectors to measure a loss on. The mean of `weight` times a quantity is that quantity's expectation."""

    x: Float[Tensor, "vectors features"]
    weight: Float[Tensor, " vectors"]

    def to(self, like: Tensor) -> "Vectors":
        return Vectors(self.x.to(like), self.weight.to(like))


class Law(NamedTuple):
    """How many features there are and how they come: an exclusive pair's need S ≥ ½, for p is each one's own."""

    features: int
    pairs: Pairs = "independent"

    def fill(self, x: Float[Tensor, "points features batch"], uniform: Tensor, S: Float[Tensor, "points 1 1"]) -> None:
        """From uniform draws [features, batch] the vectors at every sparsity: the same draws, the same features."""
        p = 1 - S
        if self.pairs == "independent":
            torch.sub(uniform, S, out=x).clamp_(min=0).div_(p)
            return
        first, second = uniform[0::2], uniform[1::2]
        torch.sub(first, S, out=x[:, 0::2]).clamp_(min=0).div_(p)
        there = first > S if self.pairs == "together" else first < p
        torch.mul(second, there, out=x[:, 1::2])

    def covariance(self, sparsity: float) -> Float[Tensor, "features features"]:
        """Of the features: p/3 − p²/4 each, and within a pair p/4 − p²/4 or −p²/4."""
        p = 1 - sparsity
        within = {"independent": 0.0, "together": p / 4 - p**2 / 4, "exclusive": -(p**2) / 4}[self.pairs]
        each = torch.arange(self.features)
        paired = (each[:, None] // 2 == each // 2) & (each[:, None] != each)
        return (p / 3 - p**2 / 4) * torch.eye(self.features, dtype=torch.float64) + within * paired


def fresh(law: Law, sparsity: float, generator: torch.Generator, count: int) -> Vectors:
    """Vectors in float64 that no model has trained on, drawn with about two features each and weighted back.

    At high sparsity nearly all vectors are empty and the loss comes from the few with two features or more: drawn as
    they come, 65 000 vectors would hold none of these.
    """
    n, p = law.features, 1 - sparsity
    x, chance = torch.rand(2, count, n, generator=generator, dtype=torch.float64)
    if law.pairs == "independent":
        drawn, weight = _oftener(p, chance)
        return Vectors(x * drawn, weight)
    first, second = chance[:, 0::2], chance[:, 1::2]
    if law.pairs == "together":
        drawn, weight = _oftener(p, first)
        return Vectors(x * drawn.repeat_interleave(2, 1), weight)
    drawn, weight = _oftener(2 * p, first)
    which = torch.stack([second < 0.5, second >= 0.5], -1).flatten(1)
    return Vectors(x * drawn.repeat_interleave(2, 1) * which, weight)


def _oftener(p: float, chance: Float[Tensor, "vectors units"]) -> tuple[Tensor, Tensor]:
    """Which units, that are there with probability p, are drawn; and by how much that vector is to count."""
    units = chance.shape[1]
    q = max(p, min(0.5, 2 / units))
    drawn = (chance < q).double()
    present = drawn.sum(1)
    if q == p:
        return drawn, torch.ones_like(present)
    return drawn, (p / q) ** present * ((1 - p) / (1 - q)) ** (units - present)


def present(uniform: Float[Tensor, "input draws"], density: float) -> Float[Tensor, "input features"]:
    """Sparse vectors that are not empty: by their law, each feature there with probability `density`, in [0, 1].

    From 1 + n + n uniform draws: for which feature is the first that is there, whether each is, and how strong.
    """
    n = uniform.shape[1] // 2
    each = torch.arange(n, dtype=uniform.dtype)
    none_before = (1 - density) ** each
    first = (uniform[:, :1] * (1 - (1 - density) ** n) >= 1 - none_before).sum(1) - 1
    there = (each > first[:, None]) & (uniform[:, 1 : n + 1] < density) | (each == first[:, None])
    return there * uniform[:, n + 1 :]
