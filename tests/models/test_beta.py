"""The incomplete beta function: closed forms, quadrature, and what is symmetric in it."""

import math

import numpy as np
import pytest
import torch

from vaultlab.models.beta import below

GRID = torch.tensor([0, 1e-3, 0.1, 0.345, 0.5, 0.72, 0.97, 1], dtype=torch.float64)


@pytest.mark.parametrize(
    ("a", "b", "closed"),
    [
        (1, 1, lambda x: x),
        (3, 1, lambda x: x**3),
        (1, 4, lambda x: 1 - (1 - x) ** 4),
        (2, 2, lambda x: 3 * x**2 - 2 * x**3),
        (0.5, 0.5, lambda x: 2 / math.pi * np.arcsin(np.sqrt(x))),
    ],
)
def test_it_has_its_closed_forms(a, b, closed):
    assert below(GRID, a, b).numpy() == pytest.approx(closed(GRID.numpy()), rel=1e-10, abs=1e-15)


@pytest.mark.parametrize(("a", "b"), [(10, 10), (10.5, 89.5), (2, 60), (300, 300)])
def test_it_is_the_integral_of_its_density(a, b):
    x = np.linspace(0, 1, 400_001)[1:-1]
    log = (a - 1) * np.log(x) + (b - 1) * np.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    density = np.exp(log)
    within = (np.cumsum(density) - density / 2) * (x[1] - x[0])
    assert below(GRID[1:-1], a, b).numpy() == pytest.approx(np.interp(GRID[1:-1], x, within), abs=1e-6)
    assert torch.allclose(below(GRID, a, b), 1 - below(1 - GRID, b, a), atol=1e-12)
