"""The expected loss without draws against second implementations: plain quadrature, loops, vectors drawn, autograd."""

import itertools
import math
import zlib

import numpy as np
import pytest
import torch

from vaultlab.models import expectation
from vaultlab.models.autoencoder import Toy
from vaultlab.models.exam import linear_part, mean_loss
from vaultlab.models.expectation import by_quadrature, descend, expected, second_moments
from vaultlab.models.sparse import fresh


def draws(*names):
    return torch.Generator().manual_seed(zlib.crc32(repr(names).encode()))


def random_models(n, count=6, seed=0):
    """Weights, densities and importances, none of them zero; one fewer dimension than features."""
    theta = torch.randn(count, n, n, generator=draws("theta", n, seed), dtype=torch.float64)
    p, weighed = torch.rand(2, count, n, generator=draws("law", n, seed), dtype=torch.float64) * 0.9 + 0.05
    return theta, p[:, 0], weighed


def by_numpy(theta, p, weighed, nodes=80):
    """One model's expected loss by Gauss–Legendre over the whole cube, blind to where the ReLU has its kinks."""
    W, b, n = theta[:, :-1].numpy(), theta[:, -1].numpy(), len(theta)
    at, each = np.polynomial.legendre.leggauss(nodes)
    at, each = (at + 1) / 2, each / 2
    total = 0.0
    for present in itertools.product([False, True], repeat=n):
        chance = math.prod(p if here else 1 - p for here in present)
        grids = np.meshgrid(*(at if here else np.zeros(1) for here in present), indexing="ij")
        weights = np.meshgrid(*(each if here else np.ones(1) for here in present), indexing="ij")
        x = np.stack([grid.ravel() for grid in grids], -1)
        error = x - np.maximum(x @ W @ W.T + b, 0)
        total += chance * np.prod([weight.ravel() for weight in weights], axis=0) @ (error**2 @ weighed.numpy())
    return float(total)


@pytest.mark.parametrize("n", [2, 3])
def test_the_expected_loss_is_what_blind_quadrature_comes_near(n):
    theta, p, weighed = random_models(n)
    exact = expected(theta, p, weighed).loss
    for one in range(len(p)):
        assert float(exact[one]) == pytest.approx(by_numpy(theta[one], float(p[one]), weighed[one]), rel=2e-4)


@pytest.mark.parametrize(("n", "nodes"), [(2, 20), (3, 8), (4, 4)])
def test_the_expected_loss_and_its_gradient_are_those_of_the_definition(n, nodes):
    theta, p, weighed = random_models(n, count=3)
    leaf = theta.clone().requires_grad_()
    loss = by_quadrature(leaf, p, weighed, nodes)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    exact = expected(theta, p, weighed)
    assert torch.allclose(exact.loss, loss, rtol=1e-12)
    assert torch.allclose(exact.gradient, gradient.flatten(1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3])
def test_moments_and_loss_are_those_of_vectors_drawn(n):
    theta, p, weighed = random_models(n, count=2, seed=3)
    for one in range(2):
        x, weight = fresh(Toy(n, n - 1, 1.0, True).law, 1 - float(p[one]), draws("x", one), 2**17)
        output = linear_part(theta[one : one + 1], x)[0]
        phi = torch.cat([x, torch.ones_like(x[:, :1])], -1) * weight[:, None].sqrt()
        rows = torch.cat([theta[one, :, :-1] @ theta[one, :, :-1].T, theta[one, :, -1:]], -1)
        moments = second_moments(rows[None], p[one : one + 1])[0]
        for i in range(n):
            drawn = phi * (output[:, i : i + 1] > 0)
            assert torch.allclose(moments[i], drawn.T @ drawn / len(x), atol=0.01)
        each = (output.relu() - x).square() @ weighed[one] * weight
        exact = float(expected(theta[one : one + 1], p[one : one + 1], weighed[one : one + 1]).loss)
        assert abs(float(each.mean()) - exact) < 5 * float(each.std()) / math.sqrt(len(x))


def test_the_curvature_is_gauss_and_newtons():
    """Σ I_i E[∇x′_i ∇x′_iᵀ], twice: by differences, vector by vector."""
    theta, p, weighed = random_models(2, count=1, seed=5)
    x, weight = fresh(Toy(2, 1, 1.0, True).law, 1 - float(p[0]), draws("curvature"), 2**14)

    def output(flat):
        return linear_part(flat.view(1, 2, 2), x)[0]

    steps = 1e-6 * torch.eye(4, dtype=torch.float64)
    slopes = [(output(theta.flatten() + step) - output(theta.flatten() - step)) / 2e-6 for step in steps]
    slopes = torch.stack(slopes, -1) * (output(theta) > 0)[..., None]
    drawn = 2 * torch.einsum("v i, v i a, v i b -> a b", weighed[0] * weight[:, None], slopes, slopes) / len(x)
    assert torch.allclose(expected(theta, p, weighed).curvature[0], drawn, atol=0.03 * float(drawn.abs().max()))


EDGES = {
    "nothing": [[0.0, 0.0], [0.0, 0.0]],
    "always the mean": [[0.0, 0.2], [0.0, 0.2]],
    "one kept": [[1.0, 0.0], [0.0, 0.2]],
    "antipodal": [[1.0, 0.0], [-1.0, 0.0]],
    "a feature that hardly is": [[1.0, 0.0], [1e-9, -1e-12]],
    "a bias that silences": [[1.0, -2.0], [0.5, -0.7]],
    "a kink at the corner": [[1.0, -1.0], [1.0, 0.0]],
}


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("density", [1e-4, 0.4, 1.0])
def test_where_something_is_zero_nothing_breaks(name, density):
    theta, p = torch.tensor([EDGES[name]], dtype=torch.float64), torch.tensor([density], dtype=torch.float64)
    found = expected(theta, p, torch.ones(1, 2, dtype=torch.float64))
    assert all(bool(part.isfinite().all()) for part in found)
    assert float(found.loss) == pytest.approx(float(by_quadrature(theta, p, torch.ones(1, 2))), rel=1e-12, abs=1e-15)


def test_a_model_without_weights_loses_the_variance():
    p = torch.tensor([0.3], dtype=torch.float64)
    theta = torch.tensor([[[0.0, 0.15], [0.0, 0.15]]], dtype=torch.float64)
    weighed = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    assert float(expected(theta, p, weighed).loss) == pytest.approx(mean_loss(Toy(2, 1, 0.5, True), 0.7), rel=1e-14)


def wrong(monkeypatch, name):
    pieces = expectation._pieces
    if name == "no cuts":
        monkeypatch.setattr(expectation, "_pieces", lambda cuts, nodes: pieces(cuts[..., :0], nodes))
    elif name == "a node too few":
        monkeypatch.setattr(expectation, "_pieces", lambda cuts, nodes: pieces(cuts, nodes - 1))
    else:
        monkeypatch.setattr(expectation, "_pieces", lambda cuts, nodes: pieces(cuts[..., :1], nodes))


@pytest.mark.parametrize("name", ["no cuts", "a node too few", "one cut forgotten"])
@pytest.mark.parametrize("n", [2, 3])
def test_wrong_integrals_are_told_from_the_right_one(monkeypatch, n, name):
    theta, p, weighed = random_models(n, count=4, seed=8)
    right = by_quadrature(theta, p, weighed, 8)
    wrong(monkeypatch, name)
    off = (expected(theta, p, weighed).loss - right).abs() / right
    assert float(off.max()) > 1e-6, name


def test_a_descent_never_rises_and_ends_where_the_gradient_does():
    theta, p, weighed = random_models(2, count=200)
    down = descend(theta, p, weighed, 300, lambda done, total: None)
    assert (down.loss <= down.first_loss).all()
    assert torch.equal(down.first_loss, expected(theta, p, weighed).loss)
    there = expected(down.theta, p, weighed)
    assert torch.allclose(there.loss, down.loss, rtol=1e-13)
    small = there.gradient.abs().amax(1) / p
    assert float(small.median()) < 1e-6
    assert float(small.max()) < 1e-3


def test_a_model_comes_out_of_a_batch_as_it_would_alone(monkeypatch):
    theta, p, weighed = random_models(2, count=30, seed=2)
    together = descend(theta, p, weighed, 40, lambda done, total: None)
    said = []
    monkeypatch.setattr(expectation, "NUMBERS", 150)
    apart = descend(theta, p, weighed, 40, lambda done, total: said.append((done, total)))
    assert torch.allclose(together.loss, apart.loss, rtol=1e-9)
    assert said == [(done, 30) for done in range(0, 30, 10)]
