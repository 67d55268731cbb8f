"""Unit vectors: how near two random ones come to each other, how near many must, and packing them far apart.

For u, v drawn at random on the sphere in d dimensions, cos² is Beta(½, (d − 1)/2), so

    P(|cos| > ε) = I_{1−ε²}((d − 1)/2, ½)        I: the regularised incomplete beta function
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.beta import fraction


def tail(cosine: Float[Tensor, "*any"], dimensions: int) -> Float[Tensor, "*any"]:
    """P(|cos| > `cosine`) for two random directions, in float64 and to relative precision, however small it is."""
    a, square = (dimensions - 1) / 2, cosine.double().square()
    scale = math.lgamma(a + 0.5) - math.lgamma(a) - math.lgamma(0.5)
    front = (scale + a * torch.log1p(-square) + 0.5 * square.log()).exp()
    above, below = front * fraction(a, 0.5, 1 - square) / a, front * fraction(0.5, a, square) / 0.5
    return torch.where(square > 1.5 / (a + 2.5), above, 1 - below)  # each where it converges fast


def cosine_at(share: Float[Tensor, "*any"], dimensions: int) -> Float[Tensor, "*any"]:
    """The inverse of `tail`: the |cos| that a share of all pairs of random directions exceeds."""
    low, high = torch.zeros_like(share, dtype=torch.float64), torch.ones_like(share, dtype=torch.float64)
    for _ in range(60):
        middle = (low + high) / 2
        above = tail(middle, dimensions) > share
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def median_of_largest(vectors: Float[Tensor, "*any"], dimensions: int) -> Float[Tensor, "*any"]:
    """The median of the largest |cos| among so many random directions, their pairs taken as independent."""
    pairs = vectors.double() * (vectors - 1) / 2
    return cosine_at(-torch.expm1(-math.log(2) / pairs), dimensions)


def welch(vectors: int, dimensions: int) -> float:
    """The largest |cos| of so many unit vectors is never below this: the best of Welch's bounds of all orders k,

    max |cos|^2k ≥ (N/K − 1)/(N − 1), K = C(d+k−1, k): the k-th powers of the cosines have a Gram of rank K at most.
    Source: Welch (1974), Lower Bounds on the Maximum Cross Correlation of Signals, https://doi.org/10.1109/TIT.1974.1055219
    """
    best, order = 0.0, 1
    while (rank := math.comb(dimensions + order - 1, order)) < vectors:
        best = max(best, ((vectors / rank - 1) / (vectors - 1)) ** (0.5 / order))
        order += 1
    return best


def largest(U: Float[Tensor, "*seeds vectors dimensions"]) -> Float[Tensor, "*seeds vectors"]:
    """Of every unit vector the largest |cos| with another one."""
    cosines = (U @ U.mT).abs()
    cosines.diagonal(dim1=-2, dim2=-1).zero_()
    return cosines.amax(-1)


def pack(
    start: Float[Tensor, "seeds vectors dimensions"], steps: int, progress: Callable[[int], None]
) -> Float[Tensor, "seeds vectors dimensions"]:
    """Unit vectors moved apart until their largest |cos| is small, the best that were met on the way.

    Each is pushed away from the others with weights exp(s cos²/max cos²): at first from all alike, which spreads them
    evenly over the dimensions, then more and more from its nearest alone.
    """
    U = torch.nn.functional.normalize(start, dim=-1)
    best, lowest = U, U.new_full((len(U), 1, 1), math.inf)
    speed = torch.zeros_like(U)
    for step in range(steps):
        progress(step)
        cosines = U @ U.mT
        cosines.diagonal(dim1=-2, dim2=-1).zero_()
        square = cosines.square()
        most = square.amax((-2, -1), keepdim=True).clamp(min=1e-30)
        best, lowest = torch.where(most < lowest, U, best), torch.minimum(most, lowest)
        sharpness = 0.5 * 8000 ** (step / steps)
        push = ((sharpness * (square / most - 1)).exp() * cosines) @ U
        push -= (push * U).sum(-1, keepdim=True) * U
        push /= push.norm(dim=-1).amax(-1)[:, None, None].clamp(min=1e-30)
        speed.lerp_(push, 0.1)
        U = torch.nn.functional.normalize(U - 0.05 * (1 + math.cos(math.pi * step / steps)) / 2 * speed, dim=-1)
    return best
