"""The toy autoencoder against second implementations: autograd, torch's own optimiser, quadrature, plain loops."""

import itertools
import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlab.models.autoencoder import (
    Adam,
    Course,
    Gradient,
    Toy,
    fresh,
    gradient_residual,
    linear_loss,
    linear_part,
    mean_loss,
    train,
)

CPU = torch.device("cpu")


def draws(*names):
    return torch.Generator().manual_seed(zlib.crc32(repr(names).encode()))


def silent(done, total, phase):
    pass


def random_theta(toy, seeds=3, seed=0):
    """Weights and biases, none of them zero."""
    return torch.randn(seeds, toy.features, toy.hidden + 1, generator=draws(seed), dtype=torch.float64)


def sparse_vectors(toy, count=64, density=0.4, seed=1):
    mask, values = torch.rand(2, count, toy.features, generator=draws(seed), dtype=torch.float64)
    return (mask < density) * values


def loss_by_loops(toy, theta, x):
    """The definition, one number at a time."""
    W, b = theta[:, :-1].tolist(), theta[:, -1].tolist()
    n, m = toy.features, toy.hidden
    total = 0.0
    for vector in x.tolist():
        hidden = [sum(W[i][k] * vector[i] for i in range(n)) for k in range(m)]
        for i in range(n):
            out = sum(W[i][k] * hidden[k] for k in range(m)) + b[i]
            out = max(out, 0.0) if toy.relu else out
            total += toy.importance**i * (vector[i] - out) ** 2
    return total / len(x)


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


@pytest.mark.parametrize("relu", [True, False])
def test_the_gradient_is_the_slope_of_the_loss_by_loops(relu):
    toy = Toy(3, 2, 0.6, relu)
    theta, x = random_theta(toy, seeds=1), sparse_vectors(toy, 16)
    gradient = Gradient(toy, theta[None], len(x))
    gradient.x1[:, :-1] = x.T
    by_hand, h = gradient(theta[None])[0, 0], 1e-6
    for i, k in itertools.product(range(3), range(3)):
        step = torch.zeros_like(theta[0])
        step[i, k] = h
        slope = (loss_by_loops(toy, theta[0] + step, x) - loss_by_loops(toy, theta[0] - step, x)) / (2 * h)
        assert by_hand[i, k].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


def by_autograd(toy, theta, x, out):
    leaf = theta.clone().requires_grad_()
    loss = ((out(leaf) - x).square() @ toy.importances()).mean(1).sum()
    return torch.autograd.grad(loss, leaf)[0]


def test_wrong_models_have_another_gradient():
    toy = Toy(5, 2, 0.8, True)
    theta, x = random_theta(toy), sparse_vectors(toy)
    right = by_autograd(toy, theta, x, lambda t: linear_part(t, x).relu())
    gradient = Gradient(toy, theta[None], len(x))
    gradient.x1[:, :-1] = x.T
    assert torch.allclose(gradient(theta[None])[0], right, rtol=1e-10)
    wrong = {
        "no ReLU": by_autograd(toy, theta, x, lambda t: linear_part(t, x)),
        "no bias": by_autograd(toy, theta, x, lambda t: (linear_part(t, x) - t[..., None, :, -1]).relu()),
        "one side of W Wᵀ": by_autograd(
            toy, theta, x, lambda t: linear_part(torch.cat([t[..., :-1].detach(), t[..., -1:]], -1), x).relu()
        ),
        "equal importance": by_autograd(toy._replace(importance=1.0), theta, x, lambda t: linear_part(t, x).relu()),
    }
    for name, grad in wrong.items():
        assert (grad - right).abs().max() / right.abs().max() > 0.01, name


def test_adam_is_torchs():
    ours = torch.randn(4, 3, generator=draws("adam"), dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    adam, adamw = Adam(ours), torch.optim.AdamW([theirs], lr=0.02, weight_decay=0)
    for step in range(60):
        grad = torch.randn(4, 3, generator=draws("grad", step), dtype=torch.float64)
        adam(grad, 0.02)
        theirs.grad = grad
        adamw.step()
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def plain_training(toy, course, sparsity):
    """The same course in float64: autograd, AdamW, the definition."""
    size, names = (toy.features, toy.hidden), [("toy", course.seed, "weights", k) for k in range(course.seeds)]
    W = torch.stack([torch.randn(size, generator=draws(*name)) for name in names])
    start = torch.cat([W * math.sqrt(2 / sum(size)), torch.zeros_like(W[..., :1])], -1)
    theta = start.double().requires_grad_()
    optimizer = torch.optim.AdamW([theta], lr=course.learning_rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + math.cos(math.pi * t / course.steps)) / 2)
    generator = draws("toy", course.seed, "batches")
    for _ in range(course.steps):
        uniform = torch.rand(toy.features, course.batch, generator=generator).double().T
        x = torch.relu(uniform - sparsity) / (1 - sparsity)
        optimizer.zero_grad()
        ((toy.output(linear_part(theta, x)) - x).square() @ toy.importances()).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
    return theta.detach()


@pytest.mark.parametrize(
    "toy", [Toy(5, 2, 0.9, True), Toy(4, 3, 0.7, False), Toy(2, 1, 1.0, True), Toy(40, 3, 0.9, True)]
)
def test_training_goes_the_way_of_the_plain_loop(toy):
    course = Course(steps=150, batch=64, learning_rate=0.01, seeds=3, seed=5)
    trained = train(toy, course, [0.6], CPU, draws, silent)
    assert torch.allclose(trained.theta[0].double(), plain_training(toy, course, 0.6), atol=2e-4)
    assert trained.curve.shape == (len(trained.curve_at), 1, 3)
    assert trained.curve_at[-1] == 150


def test_a_point_and_a_seed_come_out_as_they_would_alone():
    toy, course = Toy(5, 2, 0.9, True), Course(steps=100, batch=64, learning_rate=0.01, seeds=4, seed=2)
    together = train(toy, course, [0.0, 0.5, 0.9], CPU, draws, silent).theta
    for point, sparsity in enumerate([0.0, 0.5, 0.9]):
        alone = train(toy, course, [sparsity], CPU, draws, silent).theta[0]
        assert torch.allclose(together[point], alone, atol=1e-4)
    fewer = train(toy, course._replace(seeds=2), [0.5], CPU, draws, silent).theta[0]
    assert torch.allclose(together[1, :2], fewer, atol=1e-4)
    assert not torch.allclose(together[1, 0], together[1, 1], atol=1e-2)


def test_progress_is_told_and_can_stop_the_run():
    said = []

    def stop(done, total, phase):
        said.append((done, total, phase))
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Toy(5, 2, 1.0, True), Course(10_000, 16, 0.01, 1, 0), [0.5], CPU, draws, stop)
    assert said == [(0, 10_000, "training"), (16, 10_000, "training"), (32, 10_000, "training")]


@pytest.mark.parametrize("features", [2, 5, 40])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.95, 0.999])
def test_fresh_vectors_have_the_moments_of_their_law(features, sparsity):
    p = 1 - sparsity
    x, weight = fresh(Toy(features, 1, 1.0, True), sparsity, draws(features, sparsity), 2**16)
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
    x, weight = fresh(toy, 0.999, draws("pairs"), 2**14)
    assert (x > 0).all(1).float().mean() > 0.2
    digon = torch.tensor([[[1.0, 0], [-1.0, 0]]], dtype=torch.float64)
    each = (toy.output(linear_part(digon, x)) - x).square().sum(-1)[0] * weight
    assert float(each.mean()) == pytest.approx(0.001**2 / 3, rel=0.05)


@pytest.mark.parametrize("r", [1.0, 0.5])
@pytest.mark.parametrize("sparsity", [0.0, 0.7, 0.99])
def test_losses_of_two_features_in_one_dimension_in_closed_form(r, sparsity):
    """Antipodal p²(1+r)/6; dedicated to the first, the second by its best bias, r(p/3 − p²/4)."""
    p, toy = 1 - sparsity, Toy(2, 1, r, True)
    x, weight = fresh(toy, sparsity, draws("closed", sparsity), 2**16)
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


@pytest.mark.parametrize("relu", [True, False])
def test_the_definition_by_loops(relu):
    toy = Toy(4, 2, 0.5, relu)
    theta, x = random_theta(toy), sparse_vectors(toy, 20)
    losses = ((toy.output(linear_part(theta, x)) - x).square() @ toy.importances()).mean(1)
    for seed in range(3):
        assert losses[seed].item() == pytest.approx(loss_by_loops(toy, theta[seed], x))
