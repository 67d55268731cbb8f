"""The toy autoencoder against second implementations: autograd, torch's own optimiser, quadrature, plain loops."""

import itertools
import math

import pytest
import torch

from tests.models.toy_case import draws, loss_by_loops, random_theta, sparse_vectors
from vaultlab.models import autoencoder
from vaultlab.models.autoencoder import Adam, Course, Gradient, Toy, train, training
from vaultlab.models.exam import linear_part

CPU = torch.device("cpu")


def silent(done, total, phase):
    pass


def on(x):
    """Fills in the same vectors for every point."""
    return lambda into, points: into.copy_(x.T)


@pytest.mark.parametrize("relu", [True, False])
def test_the_gradient_is_the_slope_of_the_loss_by_loops(relu):
    toy = Toy(3, 2, 0.6, relu)
    theta, x = random_theta(toy, seeds=1), sparse_vectors(toy, 16)
    by_hand, h = Gradient(toy, theta[None], len(x))(on(x))[0, 0], 1e-6
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
    assert torch.allclose(Gradient(toy, theta[None], len(x))(on(x))[0], right, rtol=1e-10)
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
        hidden = toy.squeezed(x @ theta[..., :-1])
        out = toy.output(hidden @ theta[..., :-1].mT + theta[..., None, :, -1])
        ((out - x).square() @ toy.importances()).mean(1).sum().backward()
        optimizer.step()
        schedule.step()
    return theta.detach()


@pytest.mark.parametrize(
    "toy",
    [
        Toy(5, 2, 0.9, True),
        Toy(4, 3, 0.7, False),
        Toy(2, 1, 1.0, True),
        Toy(40, 3, 0.9, True),
        Toy(5, 3, 0.9, True, hidden_relu=True),
        Toy(40, 3, 0.9, False, hidden_relu=True),
    ],
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


@pytest.mark.parametrize("cached", [1, 500, 10**9])
@pytest.mark.parametrize(("features", "hidden"), [(5, 2), (36, 3)])
def test_the_gradient_is_the_same_however_many_models_go_at_once(monkeypatch, features, hidden, cached):
    """One seed at a time, some points at a time, everything at once; every point has its own vectors."""
    monkeypatch.setattr(autoencoder, "CACHED", cached)
    toy = Toy(features, hidden, 0.9, True)
    theta = torch.stack([random_theta(toy, seeds=3, seed=point) for point in range(7)])
    xs = torch.stack([sparse_vectors(toy, count=20, seed=point) for point in range(7)])
    found = Gradient(toy, theta, 20)(lambda into, points: into.copy_(xs[points].mT))
    for point in range(7):
        x = xs[point]
        right = by_autograd(toy, theta[point], x, lambda t, x=x: linear_part(t, x).relu())
        assert torch.allclose(found[point], right, rtol=1e-10, atol=1e-14)


def test_the_loss_is_looked_at_on_the_way_without_changing_it():
    toy, course = Toy(5, 2, 0.9, True), Course(100, 64, 0.01, 2, 2)
    seldom, often = (
        [(moment.step, moment.theta.clone()) for moment in training(toy, each, [0.5], CPU, draws, silent)]
        for each in (course._replace(looks=4), course._replace(looks=50))
    )
    assert [step for step, _ in seldom] == [0, 25, 50, 75, 100]
    assert [step for step, _ in often] == list(range(0, 101, 2))
    for step in (0, 50, 100):
        assert torch.equal(dict(seldom)[step], dict(often)[step])
    assert not torch.equal(seldom[0][1], seldom[1][1])
