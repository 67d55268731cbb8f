"""Rests and jumps of training, against second implementations: sampling by loops, quadrature, courses made by hand."""

import math

import numpy as np
import pytest
import torch

from vaultlab.models.geometry import geometry
from vaultlab.models.rests import Rest, cosines, rest, rest_loss, rests


def loss_by_quadrature(W, p):
    """The expected loss of at most three pairs, every set of pairs that are there on its own, by Gauss–Legendre cut
    fine enough for the kinks; in numpy."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    at, weight = (nodes + 1) / 2, weights / 2
    pairs, total = len(W) // 2, 0.0
    for there in range(1, 2**pairs):
        features = [2 * k + which for k in range(pairs) if there >> k & 1 for which in (0, 1)]
        if len(features) > 4:
            continue  # three pairs at once: p³ of the vectors, left out on both sides
        grids = np.meshgrid(*[at] * len(features), indexing="ij")
        x = np.zeros((grids[0].size, len(W)))
        x[:, features] = np.stack([grid.ravel() for grid in grids], 1)
        measure = np.ones(1)
        for _ in features:
            measure = np.outer(measure, weight).ravel()
        error = np.maximum(x @ W @ W.T, 0) - x
        count = len(features) // 2
        total += p**count * (1 - p) ** (pairs - count) * float((error**2).sum(1) @ measure)
    return total


@pytest.mark.parametrize("apart", [0, 1, 2])
def test_the_weights_of_a_rest_cost_its_closed_form_of_two_pairs(apart):
    for p in (0.05, 0.3):
        assert loss_by_quadrature(rest(2, apart).numpy(), p) == pytest.approx(rest_loss(p, 2, apart), rel=5e-3)


def test_no_other_way_to_tell_one_pair_apart_costs_less():
    """Its two features beside merged pairs, or two merged pairs beside each other."""
    p, half = 0.1, 1 / math.sqrt(2)
    other = [
        [[1, 0, 0], [0, 1, 0], [0, 0, half], [0, 0, half], [0, 0, -half], [0, 0, -half]],
        [[1, 0, 0], [0, 1, 0], [-half, 0, 0], [-half, 0, 0], [0, -half, 0], [0, -half, 0]],
    ]
    best = loss_by_quadrature(rest(3, 1).numpy(), p)
    assert all(loss_by_quadrature(np.array(W), p) > 1.03 * best for W in other)


def test_a_pair_that_shares_with_its_own_other_costs_more():
    """Both of a pair are always there together: as opposites they lose the smaller one each time."""
    assert loss_by_quadrature(np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]), 0.1) > 5 * rest_loss(0.1, 2, 2)


@pytest.mark.parametrize(("pairs", "apart"), [(2, 0), (3, 1), (3, 3), (5, 2), (8, 8)])
def test_rests_use_all_dimensions_and_lie_on_the_levels(pairs, apart):
    W = rest(pairs, apart)
    norm, _, share = geometry(W)
    assert torch.linalg.matrix_rank(W) == pairs
    assert float(share.sum()) == pytest.approx(pairs)
    levels = {0: {0.5}, 1: {1.0, 0.5, 0.25}}.get(apart, {0.5})
    assert {round(float(one), 9) for one in share} == levels
    assert (cosines(W) <= 1e-9).sum() == apart
    assert (cosines(W) > 0.999).sum() == pairs - apart
    assert norm.square().sum() == pytest.approx(pairs + apart)


def test_it_pays_to_tell_all_apart_below_a_quarter_only():
    for pairs in (2, 5):
        assert rest_loss(0.249, pairs, pairs) < rest_loss(0.249, pairs, 0)
        assert rest_loss(0.251, pairs, pairs) > rest_loss(0.251, pairs, 0)


def test_a_feature_that_is_not_represented_has_no_angle():
    W = torch.tensor([[1.0, 0], [1, 0], [0, 0.4], [0, 1]])
    found = cosines(W)
    assert float(found[0]) == 1
    assert math.isnan(float(found[1]))


def course(*looks):
    return torch.tensor(looks, dtype=torch.float64)


def test_rests_of_a_course_made_by_hand():
    nan = math.nan
    made = course([nan, nan], [1, nan], [1, 1], [1, 0.95], [1, 0.6], [1, 0.2], [0.99, 0.1], [0.5, 0], [0.1, 0])
    assert rests(made) == [Rest(2, 3, 0), Rest(5, 6, 1), Rest(8, 8, 2)]
    assert rests(made[:2]) == []


def test_a_pair_that_comes_back_ends_no_rest():
    assert rests(course([1.0], [0.8], [0.95], [0.5], [0.2])) == [Rest(0, 2, 0), Rest(4, 4, 1)]


def test_two_pairs_that_change_places_do_not_look_like_a_jump():
    """One comes together while another parts: as many are told apart as before, and the loss is the same."""
    assert rests(course([1.0, 0], [0.6, 0.6], [0, 1.0])) == [Rest(0, 2, 1)]
