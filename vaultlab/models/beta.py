"""The regularised incomplete beta function I_x(a, b): how often a number drawn from Beta(a, b) is below x."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

LONGEST = 100
"""Steps of the continued fraction at most: where it is used it converges in fewer, up to thousands of dimensions."""


def below(x: Float[Tensor, "*any"], a: float, b: float) -> Float[Tensor, "*any"]:
    """I_x(a, b) for x from 0 to 1, in float64."""
    x = x.double()
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = (scale + a * x.log() + b * torch.log1p(-x)).exp()
    left, right = front * fraction(a, b, x) / a, 1 - front * fraction(b, a, 1 - x) / b
    return torch.where(x < (a + 1) / (a + b + 2), left, right)  # each where it converges fast


def fraction(a: float, b: float, x: Tensor) -> Tensor:
    """Of I_x(a, b) the continued fraction, by Lentz's method (DLMF 8.17.22)."""
    d = 1 / _not_0(1 - (a + b) * x / (a + 1))
    c, value = torch.ones_like(x), d
    for m in itertools.count(1):
        before = value
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _not_0(1 + term * d), _not_0(1 + term / c)
            value = value * c * d
        if m == LONGEST or torch.allclose(value, before, rtol=1e-14, atol=0):
            break
    return value


def _not_0(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 1e-300, 1e-300, x)
