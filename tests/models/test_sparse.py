"""Sparse features have the moments of their law, drawn as they come and drawn oftener and weighted back."""

import math

import numpy as np
import pytest
import torch

from tests.models.toy_case import draws
from vaultlab.models.autoencoder import Toy
from vaultlab.models.exam import linear_part
from vaultlab.models.sparse import Law, fresh, present


@pytest.mark.parametrize("features", [2, 5, 40])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.95, 0.999])
def test_fresh_vectors_have_the_moments_of_their_law(features, sparsity):
    p = 1 - sparsity
    x, weight = fresh(Law(features), sparsity, draws(features, sparsity), 2**16)
    expected = [
        (weight, 1),
        (weight * x[:, 0], p / 2),
        (weight * x[:, 1] ** 2, p / 3),
        (weight * x[:, 0] * x[:, 1], p**2 / 4),
        (weight * (x[:, :2] > 0).all(1), p**2),
    ]
    for values, moment in expected:
        error = float(values.std()) / math.sqrt(len(values))
        assert abs(float(values.mean()) - moment) <= 5 * error + 1e-12


def test_vectors_drawn_as_they_come_would_miss_the_pairs():
    """Why they are weighted: at S = 0.999 the loss of a digon is made of pairs, one in a million vectors."""
    toy = Toy(2, 1, 1.0, True)
    x, weight = fresh(toy.law, 0.999, draws("pairs"), 2**14)
    assert (x > 0).all(1).float().mean() > 0.2
    digon = torch.tensor([[[1.0, 0], [-1.0, 0]]], dtype=torch.float64)
    each = (toy.output(linear_part(digon, x)) - x).square().sum(-1)[0] * weight
    assert float(each.mean()) == pytest.approx(0.001**2 / 3, rel=0.05)


MOMENTS = {
    "independent": lambda p: {"both": p**2, "product": p**2 / 4},
    "together": lambda p: {"both": p, "product": p / 4},
    "exclusive": lambda p: {"both": 0.0, "product": 0.0},
}


def pair_moments(x, weight):
    """Of features 1 and 2, a pair, and of 1 and 3, which are none: how often both are there, and the mean product."""
    return {
        "both": weight * (x[:, :2] > 0).all(1),
        "product": weight * x[:, 0] * x[:, 1],
        "across": weight * x[:, 0] * x[:, 2],
        "each": weight * x[:, 1],
        "square": weight * x[:, 1] ** 2,
        "fourth": weight * x[:, 3],
    }


def near(values, moment):
    """Within five standard errors; of what was never seen, those that it would have."""
    error = max(float(values.std()), math.sqrt(moment)) / math.sqrt(len(values))
    return abs(float(values.mean()) - moment) <= 5 * error + 1e-12


@pytest.mark.parametrize("pairs", MOMENTS)
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.999])
def test_pairs_have_the_moments_of_their_law(pairs, sparsity):
    """Vectors to train on, made of uniform draws, and vectors to measure on, weighted."""
    p, count = 1 - sparsity, 2**17
    x = torch.empty(1, 6, count, dtype=torch.float64)
    uniform = torch.rand(6, count, generator=draws(pairs, sparsity), dtype=torch.float64)
    Law(6, pairs).fill(x, uniform, torch.tensor([[[sparsity]]], dtype=torch.float64))
    expected = {"across": p**2 / 4, "each": p / 2, "square": p / 3, "fourth": p / 2, **MOMENTS[pairs](p)}
    for vectors, weight in ((x[0].T, torch.ones(count)), fresh(Law(6, pairs), sparsity, draws(pairs), count)):
        assert (vectors >= 0).all()
        assert (vectors <= 1).all()
        for name, values in pair_moments(vectors, weight.double()).items():
            assert near(values, expected[name]), name
        for other in set(MOMENTS) - {pairs}:
            assert not near(pair_moments(vectors, weight)["both"], MOMENTS[other](p)["both"]) or sparsity == 0.999


@pytest.mark.parametrize("pairs", MOMENTS)
def test_the_covariance_is_that_of_vectors_drawn(pairs):
    x, weight = fresh(Law(4, pairs), 0.6, draws("covariance", pairs), 2**17)
    mean = (x * weight[:, None]).mean(0)
    drawn = (x * weight[:, None]).T @ x / len(x) - mean[:, None] * mean
    assert torch.allclose(Law(4, pairs).covariance(0.6), drawn, atol=2e-3)


def test_points_are_filled_from_the_same_draws():
    """What is there at a high sparsity is there at every lower one, and stronger."""
    x = torch.empty(2, 4, 1000, dtype=torch.float64)
    uniform = torch.rand(4, 1000, generator=draws("points"), dtype=torch.float64)
    S = torch.tensor([0.5, 0.9], dtype=torch.float64)[:, None, None]
    Law(4).fill(x, uniform, S)
    assert (x[0] >= x[1]).all()
    alone = torch.empty(1, 4, 1000, dtype=torch.float64)
    Law(4).fill(alone, uniform, S[1:])
    assert torch.equal(alone[0], x[1])


@pytest.mark.parametrize("density", [1.0, 0.4, 0.01])
def test_inputs_follow_their_law_and_are_never_empty(density):
    n = 4
    uniform = torch.rand(100_000, 2 * n + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = present(uniform, density)
    there = x > 0
    assert bool(there.any(1).all())
    some = 1 - (1 - density) ** n
    assert there.double().mean(0).numpy() == pytest.approx([density / some] * n, abs=0.007)
    counts = np.bincount(there.sum(1), minlength=n + 1) / len(x)
    law = [math.comb(n, k) * density**k * (1 - density) ** (n - k) / some if k else 0 for k in range(n + 1)]
    assert counts == pytest.approx(law, abs=0.007)
    assert float(x[there].mean()) == pytest.approx(0.5, abs=0.005)
