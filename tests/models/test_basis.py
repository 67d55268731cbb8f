"""Moments along coordinates: known values, plain loops, the closed forms of turning and of sparse Gaussians."""

import math

import pytest
import torch

from vaultlab.models.basis import (
    as_sparse_as,
    kurtosis,
    over_rows,
    sparse_gaussians,
    turn,
    turned_kurtosis,
    turned_spread,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_vectors_with_known_kurtosis():
    rows = torch.tensor([[0.0, 0, 5, 0], [1, -1, 1, -1], [2, 2, 0, 0]])
    assert kurtosis(rows).tolist() == pytest.approx([4 - 3, 1 - 3, 2 - 3])


def test_moments_by_loops():
    x = torch.randn(30, 7, generator=generator(), dtype=torch.float64)
    for row, found in zip(x.tolist(), kurtosis(x).tolist(), strict=True):
        assert found == pytest.approx(7 * sum(v**4 for v in row) / sum(v**2 for v in row) ** 2 - 3)
    for column, found in zip((x + 100).T.tolist(), over_rows(x + 100).tolist(), strict=True):
        mean = sum(column) / 30
        second, fourth = (sum((v - mean) ** power for v in column) / 30 for power in (2, 4))
        assert found == pytest.approx(fourth / second**2 - 3)


@pytest.mark.parametrize("dimensions", [2, 5, 40])
def test_turned_vectors_have_the_closed_forms_mean_and_spread(dimensions):
    one = torch.zeros(dimensions, dtype=torch.float64)
    one[0] = 3.0
    found = torch.stack([kurtosis(one @ turn(dimensions, generator(k))) for k in range(3000)])
    spread = turned_spread(dimensions)
    assert abs(float(found.mean()) - turned_kurtosis(dimensions)) < 5 * spread / math.sqrt(3000)
    assert float(found.std()) == pytest.approx(spread, rel=0.15)


def test_a_turn_is_orthogonal_and_has_no_favourite():
    drawn = torch.stack([turn(3, generator(k)) for k in range(2000)])
    assert torch.allclose(drawn @ drawn.mT, torch.eye(3, dtype=torch.float64).expand(2000, 3, 3), atol=1e-12)
    assert drawn.mean(0).abs().max() < 0.08
    raw = torch.stack(
        [torch.linalg.qr(torch.randn(3, 3, generator=generator(k), dtype=torch.float64)).Q for k in range(2000)]
    )
    assert raw.mean(0).abs().max() > 0.3  # without the signs of R it would have


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_sparse_gaussians_have_three_by_p_less_three(density):
    found = float(kurtosis(sparse_gaussians(density, 2**21, generator())))
    assert found == pytest.approx(3 / density - 3, abs=0.04 * 3 / density)
    assert as_sparse_as(3 / density - 3) == pytest.approx(density)
