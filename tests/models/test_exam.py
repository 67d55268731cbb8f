"""The exam of a toy autoencoder against second implementations: autograd, quadrature, closed forms, plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.toy_case import draws, loss_by_loops, random_theta, sparse_vectors
from vaultlab.models.autoencoder import Toy
from vaultlab.models.exam import (
    answers,
    examine,
    gradient_residual,
    linear_loss,
    linear_part,
    losses,
    mean_loss,
    training_checks,
)
from vaultlab.models.sparse import Vectors, fresh


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(1, 4), st.floats(0.3, 1), st.booleans(), st.integers(0, 99))
def test_the_gradient_by_hand_is_autograds(features, hidden, importance, relu, seed):
    toy = Toy(features, hidden, importance, relu)
    assert gradient_residual(toy, random_theta(toy, seed=seed), sparse_vectors(toy)) < 1e-12


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("hidden", [1, 8, 9, 30])
def test_the_gradient_is_the_same_by_either_way(hidden, relu):
    """36 features go through the hidden layer where it has less than a fourth of them, else through W Wᵀ."""
    toy = Toy(36, hidden, 0.95, relu)
    assert gradient_residual(toy, random_theta(toy), sparse_vectors(toy)) < 1e-12


@pytest.mark.parametrize("r", [1.0, 0.5])
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 0.99])
def test_losses_of_two_features_in_one_dimension_in_closed_form(r, sparsity):
    """Antipodal p²(1+r)/6; dedicated to the first, the second by its best bias, r(p/3 − p²/4)."""
    p, toy = 1 - sparsity, Toy(2, 1, r, True)
    x, weight = fresh(toy.law, sparsity, draws("closed", sparsity), 2**16)
    theta = torch.tensor([[[1.0, 0], [-1.0, 0]], [[1.0, 0], [0.0, p / 2]]], dtype=torch.float64)
    each = (toy.output(linear_part(theta, x)) - x).square() @ toy.importances() * weight
    error = each.std(dim=1) / math.sqrt(len(x))
    closed = torch.tensor([p**2 * (1 + r) / 6, r * (p / 3 - p**2 / 4)])
    assert ((each.mean(1) - closed).abs() <= 5 * error + 1e-12).all()


def test_the_linear_loss_is_what_quadrature_gives():
    """Gauss–Legendre over every set of features that can be present: exact for squares."""
    toy, sparsity = Toy(3, 2, 0.7, False), 0.4
    theta = random_theta(toy, seeds=2)
    nodes, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(4))
    nodes, weights = (nodes + 1) / 2, weights / 2
    total = torch.zeros(2, dtype=torch.float64)
    for present in itertools.product([False, True], repeat=3):
        chance = math.prod((1 - sparsity) if here else sparsity for here in present)
        for index in itertools.product(*[range(4) if here else [None] for here in present]):
            x = torch.tensor([0.0 if i is None else float(nodes[i]) for i in index], dtype=torch.float64)
            w = math.prod(1.0 if i is None else float(weights[i]) for i in index)
            total += chance * w * ((linear_part(theta, x[None]) - x).square() @ toy.importances())[:, 0]
    assert torch.allclose(linear_loss(toy, sparsity, theta), total, rtol=1e-12)


def test_always_the_mean_is_the_model_without_weights():
    toy, sparsity = Toy(6, 2, 0.8, True), 0.7
    theta = torch.zeros(1, 6, 3, dtype=torch.float64)
    theta[..., -1] = (1 - sparsity) / 2
    assert mean_loss(toy, sparsity) == pytest.approx(float(linear_loss(toy, sparsity, theta)))


@pytest.mark.parametrize("hidden_relu", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_the_definition_by_loops(relu, hidden_relu):
    toy = Toy(4, 2, 0.5, relu, hidden_relu=hidden_relu)
    theta, x = random_theta(toy), sparse_vectors(toy, 20)
    each, _ = losses(toy, theta, Vectors(x, torch.ones(20, dtype=torch.float64)))
    for seed in range(3):
        assert each.mean(1)[seed].item() == pytest.approx(loss_by_loops(toy, theta[seed], x))
        if not hidden_relu:
            plain = ((toy.output(linear_part(theta, x)) - x).square() @ toy.importances()).mean(1)
            assert plain[seed].item() == pytest.approx(loss_by_loops(toy, theta[seed], x))


@pytest.mark.parametrize("n", [5, 40])
def test_the_gradient_of_a_layer_with_a_relu(n):
    toy = Toy(n, 3, 0.9, True, hidden_relu=True)
    theta, x = random_theta(toy), sparse_vectors(toy, 20)
    assert float(gradient_residual(toy, theta, x)) < 1e-13
    assert not torch.allclose(answers(toy, theta, x), answers(toy._replace(hidden_relu=False), theta, x))


@pytest.mark.parametrize("pairs", ["together", "exclusive"])
def test_the_linear_loss_and_the_mean_are_those_of_vectors_drawn_in_pairs(pairs):
    toy, sparsity = Toy(6, 2, 0.8, False, pairs), 0.7
    x, weight = fresh(toy.law, sparsity, draws(pairs), 2**17)
    theta = random_theta(toy)
    each = losses(toy, theta, fresh(toy.law, sparsity, draws(pairs), 2**17))[1]
    assert torch.allclose(each.mean(1), linear_loss(toy, sparsity, theta), rtol=0.02)
    unpaired = linear_loss(toy._replace(pairs="independent"), sparsity, theta)
    assert ((each.mean(1) - unpaired).abs() / unpaired).max() > 0.05
    always = ((x - 0.15).square() @ toy.importances() * weight).mean()
    assert mean_loss(toy, sparsity) == pytest.approx(float(always), rel=0.02)


@pytest.mark.parametrize("pairs", ["independent", "together", "exclusive"])
def test_what_an_exam_finds_wrong(pairs):
    """A loss that training did not end with; vectors of another law; a gradient that is another function's."""
    toy, theta = Toy(6, 2, 0.8, True, pairs), random_theta(Toy(6, 2, 0.8, True))

    def failed(followed, sparsity=0.7):
        found = examine(toy, sparsity, theta, followed, lambda: draws("toy", 0, "fresh"))
        return [check.name.split()[0] for check in training_checks(found) if not check.ok]

    followed = losses(toy, theta, fresh(toy.law, 0.7, draws("toy", 0, "fresh"), 2**12))[0].mean(1)
    assert failed(followed) == []
    assert failed(followed * 1.001) == ["loss"]
    other = "together" if pairs != "together" else "exclusive"
    found = examine(toy._replace(pairs=other), 0.7, theta, followed, lambda: draws("toy", 0, "fresh"))
    assert [check.name.split()[0] for check in training_checks(found) if not check.ok] == ["loss"]
