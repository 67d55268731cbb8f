"""The stream turned in a plane: a rotation, and the sinusoid that a linear reader makes of it."""

import math

import pytest
import torch

from vaultlab.models.draws import draws
from vaultlab.models.turning import angles, as_much, plane, turned, wave


@pytest.fixture
def drawn():
    generator = draws("turning")
    x = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    one, other = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    return x, plane(one, other), one, other


def test_a_turn_is_the_matrix_that_mathematics_writes(drawn):
    x, basis, *_ = drawn
    angle = 0.9
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    whole = torch.eye(12, dtype=torch.float64) + basis.T @ (rotation - torch.eye(2)) @ basis
    torch.testing.assert_close(turned(x, basis, angle), x @ whole.T)
    torch.testing.assert_close(turned(basis[0], basis, math.pi / 2), basis[1])


def test_lengths_and_what_is_outside_stay_and_angles_add(drawn):
    x, basis, *_ = drawn
    once = turned(x, basis, 2.0)
    torch.testing.assert_close(once.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(once - once @ basis.T @ basis, x - x @ basis.T @ basis)
    torch.testing.assert_close(turned(once, basis, -2.0), x)
    torch.testing.assert_close(turned(x, basis, math.pi), x - 2 * x @ basis.T @ basis)


def test_directions_that_are_not_made_orthogonal_would_change_lengths(drawn):
    x, basis, one, other = drawn
    skewed = torch.stack([torch.nn.functional.normalize(one, dim=0), torch.nn.functional.normalize(other, dim=0)])
    assert ((turned(x, skewed, 1.0).norm(dim=-1) - x.norm(dim=-1)).abs() / x.norm(dim=-1)).max() > 1e-3
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(basis[0] @ one, one.norm())


@pytest.mark.parametrize("by", [1.0, -3.0])
def test_one_direction_twice_makes_no_plane(drawn, by):
    _, _, one, _ = drawn
    with pytest.raises(ValueError, match="no plane"):
        plane(one, by * one)


def test_a_random_plane_has_as_much_of_the_mean_in_it(drawn):
    x, basis, *_ = drawn
    mean = x.mean(0)
    for number in range(5):
        random = as_much(basis, mean, draws("plane", number))
        torch.testing.assert_close(random @ random.T, torch.eye(2, dtype=torch.float64))
        torch.testing.assert_close((random @ mean).norm(), (basis @ mean).norm())


def test_a_linear_reader_sees_a_sinusoid_and_a_square_is_none(drawn):
    x, basis, one, _ = drawn
    scores = torch.stack([turned(x, basis, angle) @ one for angle in angles(16).tolist()])
    found = wave(scores)
    torch.testing.assert_close(found.share, torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(found.amplitude, (x @ basis.T).norm(dim=-1) * one.norm())
    torch.testing.assert_close(found.mean + found.amplitude * torch.cos(found.peak), x @ one)
    assert (wave(scores**2).share < 1 - 1e-3).any()


def test_the_nearest_sinusoid_is_that_of_least_squares():
    values = torch.randn(12, generator=draws("wave"), dtype=torch.float64)
    at = angles(12)
    design = torch.stack([torch.ones(12, dtype=torch.float64), at.cos(), at.sin()], 1)
    mean, by_cosine, by_sine = torch.linalg.lstsq(design, values[:, None]).solution.flatten()
    found = wave(values)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.amplitude * torch.cos(found.peak), by_cosine)
    torch.testing.assert_close(found.amplitude * torch.sin(found.peak), by_sine)
    left = values - design @ torch.stack([mean, by_cosine, by_sine])
    torch.testing.assert_close(found.share, 1 - left.square().sum() / (values - values.mean()).square().sum())
