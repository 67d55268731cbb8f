"""The stream turned in a plane: by an angle θ in the plane of two directions, everything else in it as it was.

    x′ = x + (R_θ − 1) P x        P: onto the plane of e₁ and e₂, orthonormal        R_θ e₁ = cos θ e₁ + sin θ e₂

No length changes, nothing outside the plane does, and two turns are one by the sum of their angles.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Wave(NamedTuple):
    """The sinusoid that is nearest to values at even angles over a whole turn: mean + amplitude · cos(θ − peak).

    `share` is how much of the values' variance over the angles it is; NaN where they do not vary.
    """

    mean: Float[Tensor, "*of"]
    amplitude: Float[Tensor, "*of"]
    peak: Float[Tensor, "*of"]
    share: Float[Tensor, "*of"]


def plane(one: Float[Tensor, " d_model"], other: Float[Tensor, " d_model"]) -> Float[Tensor, "2 d_model"]:
    """The orthonormal basis of the plane of two directions: the first, then what the second has beside it.

    ValueError where they are the same direction, or opposite.
    """
    first = torch.nn.functional.normalize(one.double(), dim=-1)
    second = other.double() - (other.double() @ first) * first
    if not second.norm() > 1e-6 * other.double().norm():
        raise ValueError("two directions that lie on one line make no plane")
    return torch.stack([first, torch.nn.functional.normalize(second, dim=-1)])


def turned(
    x: Float[Tensor, "*of d_model"], basis: Float[Tensor, "2 d_model"], angle: float
) -> Float[Tensor, "*of d_model"]:
    """x turned by an angle, in radians, from the first direction towards the second."""
    basis = basis.to(x)
    within = x @ basis.T
    cosine, sine = math.cos(angle), math.sin(angle)
    moved = torch.stack(
        [cosine * within[..., 0] - sine * within[..., 1], sine * within[..., 0] + cosine * within[..., 1]], -1
    )
    return x + (moved - within) @ basis


def as_much(
    basis: Float[Tensor, "2 d_model"], mean: Float[Tensor, " d_model"], generator: torch.Generator
) -> Float[Tensor, "2 d_model"]:
    """A plane drawn at random in which lies as much of the mean stream as in this one: what a turn in it moves is as
    long."""
    along = torch.nn.functional.normalize(mean.double(), dim=-1)
    share = float((basis.double() @ along).norm().clamp(max=1))
    drawn = torch.randn(2, len(mean), generator=generator, dtype=torch.float64)
    drawn -= (drawn @ along)[:, None] * along
    beside = plane(drawn[0], drawn[1])
    return torch.stack([share * along + math.sqrt(1 - share**2) * beside[0], beside[1]])


def angles(count: int) -> Float[Tensor, " angle"]:
    """So many angles, even over a whole turn, from 0, in radians."""
    return torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)


def wave(values: Float[Tensor, "angle *of"]) -> Wave:
    """The nearest sinusoid to values at `angles`, by least squares."""
    at, values = angles(len(values)), values.double()
    by_cosine, by_sine = (2 / len(values) * torch.tensordot(part, values, 1) for part in (at.cos(), at.sin()))
    amplitude, mean = torch.hypot(by_cosine, by_sine), values.mean(0)
    around = ((values - mean) ** 2).mean(0)
    return Wave(mean, amplitude, torch.atan2(by_sine, by_cosine), amplitude**2 / 2 / around)
