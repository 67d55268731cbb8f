"""How features lie to each other in a layer, from the weights alone: a feature is a row of W, one column a dimension.

Source: Elhage et al. (2022), "Toy Models of Superposition", sections "Demonstrating Superposition" and "The Geometry of
Superposition", https://transformer-circuits.pub/2022/toy_model/index.html
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

REPRESENTED = 0.5
"""The norm from which a feature counts as represented: trained norms lie near 1 or near 0."""


class Geometry(NamedTuple):
    """How the features of W lie to each other; a row of zeros has no direction, no interference and no share."""

    norm: Float[Tensor, "*seeds features"]
    interference: Float[Tensor, "*seeds features"]
    dimensionality: Float[Tensor, "*seeds features"]


def geometry(W: Float[Tensor, "*seeds features hidden"]) -> Geometry:
    """Norms, interference Σ_{j≠i} (Ŵ_i · W_j)² and dimensionality ‖W_i‖² / Σ_j (Ŵ_i · W_j)²."""
    norm = W.norm(dim=-1)
    along = (torch.nn.functional.normalize(W, dim=-1, eps=1e-30) @ W.mT).square()
    total = along.sum(-1)
    others = total - along.diagonal(dim1=-2, dim2=-1)
    return Geometry(norm, others, torch.where(total > 0, norm**2 / total, 0))


def dimensionality(W: Float[Tensor, "features hidden"]) -> Float[Tensor, " features"]:
    """As `geometry` has it, by way of the small Gram: a vocabulary has no large one that fits."""
    unit = torch.nn.functional.normalize(W, dim=-1, eps=1e-30)
    total = ((unit @ (W.mT @ W)) * unit).sum(-1)
    return torch.where(total > 0, W.square().sum(-1) / total, 0)


def spectrum(W: Float[Tensor, "features hidden"]) -> Float[Tensor, " hidden"]:
    """The singular values, largest first, zeros included where there are fewer features than dimensions."""
    squares: Tensor = torch.linalg.eigvalsh(W.mT @ W).clamp(min=0)
    return squares.sqrt().flip(-1)


def rank(singular: Float[Tensor, "*seeds hidden"], tolerance: float) -> Int[Tensor, "*seeds"]:
    """How many singular values are more than `tolerance` of the largest: training stops near 0, not at it."""
    count: Tensor = (singular > tolerance * singular.amax(-1, keepdim=True)).sum(-1)
    return count


def alignment(W: Float[Tensor, "*seeds features hidden"]) -> Float[Tensor, "*seeds features"]:
    """max_k |W_ik| / ‖W_i‖: 1 where a feature lies on one dimension, 1/√m where on all alike; 0 for a row of zeros."""
    norm: Tensor = W.norm(dim=-1)
    return W.abs().amax(-1) / norm.clamp(min=1e-30)
