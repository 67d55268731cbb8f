"""Is there anything about the coordinates? Moments along them, and what is left of these in a basis turned at random.

kurtosis of a vector        d Σ x_k⁴/(Σ x_k²)² − 3             about 0, over its coordinates
in a basis turned at random −6/(d + 2) on average              whatever the vector: x/‖x‖ is uniform on the sphere
of sparse Gaussians         3/p − 3                            each coordinate 0 with probability 1 − p, else normal
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def kurtosis(x: Float[Tensor, "*rows dimensions"]) -> Float[Tensor, " *rows"]:
    """Of every vector over its coordinates, about 0 and less a Gaussian's 3: large where few coordinates carry it."""
    squares = x.double().square()
    mean: Tensor = squares.mean(-1)
    fourth: Tensor = squares.square().mean(-1)
    return fourth / mean.square().clamp(min=1e-300) - 3


def over_rows(x: Float[Tensor, "rows dimensions"]) -> Float[Tensor, " dimensions"]:
    """Of every coordinate over the rows, about its mean and less 3; a coordinate that never changes has −3."""
    return kurtosis((x.double() - x.double().mean(0)).mT)


def turned_kurtosis(dimensions: int) -> float:
    """The mean of `kurtosis` over all turns of one and the same vector."""
    return -6 / (dimensions + 2)


def turned_spread(dimensions: int) -> float:
    """The standard deviation of one vector's kurtosis over all its turns: the sphere's moments of orders 4 and 8."""
    d = dimensions
    return d * math.sqrt((9 * d + 96) / ((d + 2) * (d + 4) * (d + 6)) - 9 / (d + 2) ** 2)


def as_sparse_as(excess: float) -> float:
    """The p at which sparse Gaussians have this kurtosis."""
    return 3 / max(3 + excess, 1e-12)


def turn(dimensions: int, generator: torch.Generator) -> Float[Tensor, "dimensions dimensions"]:
    """A rotation or reflection drawn uniformly: Q of a Gaussian's QR, its signs made those of R."""
    drawn = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(drawn)
    turned: Tensor = Q * R.diagonal().sign()
    return turned


def sparse_gaussians(density: float, count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Numbers that are 0 with probability 1 − density, else normal."""
    there = torch.rand(count, generator=generator, dtype=torch.float64) < density
    return there * torch.randn(count, generator=generator, dtype=torch.float64)
