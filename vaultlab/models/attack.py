"""The worst small change of an input: how far it moves what a toy autoencoder x′ = ReLU(W Wᵀ x + b) answers.

For an attack δ of size ε the damage is Σ I_i (x′_i(x + δ) − x′_i(x))², and by ε² it is a gain. With D the importances
of the outputs that are above 0 and W = P Σ Qᵀ,

    gain of a small attack    λ_max(Σ² Pᵀ D P Σ²)        attack along P η, η its eigenvector
    of any attack at most     λ_max(Σ² Pᵀ I P Σ²)        as ReLU never makes two numbers more different
    of feature i alone        I_i ‖W_i‖⁴/D_i             D_i: its dimensionality; only its own output is above 0
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

ASCENT = 20
"""Steps of an attack; each goes where the damage would be worst if it were linear, and few of them suffice."""


class Target(NamedTuple):
    """Models to attack, side by side, and what each of their outputs counts."""

    W: Float[Tensor, "*models features hidden"]
    b: Float[Tensor, "*models features"]
    importances: Float[Tensor, " features"]

    def before(self, x: Float[Tensor, "*models input features"]) -> Float[Tensor, "*models input features"]:
        """What the ReLU takes."""
        return (x @ self.W) @ self.W.mT + self.b[..., None, :]

    def damage(self, before: Tensor, attack: Float[Tensor, "*models input features"]) -> Float[Tensor, "*models input"]:
        moved = (before + (attack @ self.W) @ self.W.mT).relu() - before.relu()
        return moved.square() @ self.importances

    def ceiling(self) -> Float[Tensor, " *models"]:
        """The gain that no attack on any input passes."""
        weighted = self.importances.sqrt()[:, None] * (self.W @ self.W.mT)
        top: Tensor = torch.linalg.matrix_norm(weighted, 2)
        return top.square()


class Gain(NamedTuple):
    """The gain of the worst small attack, and its direction."""

    gain: Float[Tensor, "*models input"]
    direction: Float[Tensor, "*models input features"]


def small(target: Target, before: Float[Tensor, "*models input features"]) -> Gain:
    """By eigenvalues, in as many dimensions as the hidden layer has."""
    P, sigma, _ = torch.linalg.svd(target.W, full_matrices=False)
    above = (before > 0) * target.importances
    arms = P * sigma[..., None, :].square()
    quadratic = torch.einsum("...ni,...xn,...nj->...xij", arms, above, arms)
    values, vectors = torch.linalg.eigh(quadratic)
    return Gain(values[..., -1].clamp(min=0), torch.einsum("...ni,...xi->...xn", P, vectors[..., -1]))


def rows(target: Target) -> Iterator[Float[Tensor, "*models 1 features"]]:
    """Towards and away from every feature: the changes that move its output most, and may open it or shut it."""
    towards = torch.nn.functional.normalize(target.W @ target.W.mT, dim=-1, eps=1e-30)
    for row in towards.unbind(-2):
        yield row[..., None, :]
        yield -row[..., None, :]


def worst_of(target: Target, before: Tensor, directions: Iterable[Tensor], size: float) -> Tensor:
    """Of these directions, for every input the one along which an attack of this size does most."""
    best, most = torch.zeros_like(before), torch.full(before.shape[:-1], -1.0, dtype=before.dtype)
    for direction in directions:
        damage = target.damage(before, size * direction)
        better = damage > most
        best, most = torch.where(better[..., None], direction, best), torch.where(better, damage, most)
    return best


def worst(target: Target, before: Tensor, starts: Iterable[Tensor], size: float) -> Tensor:
    """The worst attack of a size that was found from these directions, by ascent on the damage.

    Where the damage is convex a step never makes it less; where a ReLU shuts it may, so the best on the way is kept.
    """
    tried = (step for start in starts for step in _ascent(target, before, start, size))
    return size * worst_of(target, before, tried, size)


def _ascent(target: Target, before: Tensor, direction: Tensor, size: float) -> Iterator[Tensor]:
    yield direction
    for _ in range(ASCENT):
        after = before + size * (direction @ target.W) @ target.W.mT
        moved = (after.relu() - before.relu()) * target.importances * (after > 0)
        slope = (moved @ target.W) @ target.W.mT
        length = slope.norm(dim=-1, keepdim=True)
        direction = torch.where(length > 1e-30, slope / length.clamp(min=1e-30), direction)
        yield direction
