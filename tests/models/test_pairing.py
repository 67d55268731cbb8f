"""Pairs of features: the losses of arrangements by quadrature over who is there, and what no arrangement beats."""

import itertools
import math

import numpy as np
import pytest
import torch

from tests.models.toy_case import draws
from vaultlab.models.pairing import ARRANGEMENTS, all_cosines, arrangement_losses, arrangement_weights


def who_is_there(pairs, p):
    """(which of four features are there, how likely) of two pairs."""
    of_a_pair = {
        "together": {(0, 0): 1 - p, (1, 1): p},
        "exclusive": {(0, 0): 1 - 2 * p, (1, 0): p, (0, 1): p},
        "independent": {(a, b): (p if a else 1 - p) * (p if b else 1 - p) for a in (0, 1) for b in (0, 1)},
    }[pairs]
    for (first, one), (second, other) in itertools.product(of_a_pair.items(), repeat=2):
        yield np.array(first + second), one * other


def by_quadrature(W, pairs, p):
    """E Σ (x_i − ReLU(W Wᵀ x)_i)²: midpoints in every strength, for every set of features that may be there."""
    points = (np.arange(14) + 0.5) / 14
    grid = np.stack(np.meshgrid(*[points] * 4, indexing="ij"), -1).reshape(-1, 4)
    total = 0.0
    for there, chance in who_is_there(pairs, p):
        x = grid * there
        total += chance * float(((x - np.maximum(x @ W @ W.T, 0)) ** 2).sum(-1).mean())
    return total


@pytest.mark.parametrize("pairs", ["together", "exclusive", "independent"])
def test_what_arrangements_cost(pairs):
    for p in (0.1, 0.4):
        for name, W in zip(ARRANGEMENTS, arrangement_weights(2).numpy(), strict=True):
            closed = arrangement_losses(pairs, p, 2)[name]
            assert closed == pytest.approx(by_quadrature(W, pairs, p), rel=0.015, abs=1e-12), (name, p)


def test_the_wrong_pairs_cost_something_else():
    """Opposites within pairs are free for one kind of pair, and the dearest for the other."""
    W = arrangement_weights(2)[1].numpy()
    assert by_quadrature(W, "exclusive", 0.3) == 0
    assert by_quadrature(W, "together", 0.3) > 3 * by_quadrature(W, "independent", 0.3)


def test_pairs_that_fire_together_are_worth_telling_apart_below_a_quarter():
    for p in (0.2, 0.24, 0.26, 0.4):
        losses = arrangement_losses("together", p, 3)
        assert min(losses, key=losses.get) == ("across pairs" if p < 0.25 else "merged")


def test_arrangements_are_what_they_are_called():
    W = arrangement_weights(3)
    cosine = all_cosines(W)
    within = cosine[:, 0::2, 1::2].diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(within, torch.tensor([[0.0], [-1], [1]], dtype=W.dtype).expand(3, 3), atol=1e-12)
    assert torch.allclose(cosine[0].amin(-1), -torch.ones(6, dtype=W.dtype))
    assert W[2].norm(dim=-1) == pytest.approx(torch.full((6,), math.sqrt(0.5), dtype=W.dtype))


def test_cosines_by_hand_and_none_of_what_is_not_represented():
    W = torch.randn(2, 5, 3, generator=draws("cosines"), dtype=torch.float64)
    W[1, 2] *= 0.01
    cosine = all_cosines(W)
    a, b = W[0, 1], W[0, 3]
    assert cosine[0, 1, 3] == pytest.approx(float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    assert cosine[1, 2].isnan().all()
    assert cosine[1, :, 2].isnan().all()
    assert int(cosine.isnan().sum()) == 9
