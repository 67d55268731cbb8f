"""The toy that computes |x|: its gradient, its training against a plain loop, and what is known without training."""

import math

import numpy as np
import pytest
import torch

from vaultlab.models.absolute import Net, gradient_residual, losses, signed, train, unshared, unshared_loss
from vaultlab.models.autoencoder import Course, Toy
from vaultlab.models.draws import draws

CPU = torch.device("cpu")
TOY = Toy(4, 3, 0.7, True)


def trained(toy=TOY, sparsities=(0.5,), **course):
    fields = {"steps": 30, "batch": 64, "learning_rate": 0.01, "seeds": 3, "seed": 0}
    return train(toy, Course(**{**fields, **course}), sparsities, CPU, draws, lambda *done: None)


def random_net(n, m, seeds=2):
    generator = torch.Generator().manual_seed(1)
    size = {"generator": generator, "dtype": torch.float64}
    return Net(torch.randn(seeds, n, m, **size), torch.randn(seeds, m, n, **size), 0.3 * torch.randn(seeds, n, **size))


@pytest.mark.parametrize(("n", "m"), [(2, 1), (5, 3), (3, 8)])
def test_the_gradient_is_autograds(n, m):
    toy = Toy(n, m, 0.8, True)
    x = signed(toy, 0.3, draws("x"), 50).x
    assert float(gradient_residual(toy, random_net(n, m), x)) < 1e-13


def test_training_is_that_of_a_plain_loop():
    """The same draws through autograd and torch's own Adam."""
    done, S = trained(), 0.5
    start = Net(*(part[0].clone().requires_grad_() for part in done.first))
    optimizer = torch.optim.Adam(list(start), lr=0.01)
    batches = torch.rand(30, 4, 64, generator=draws("absolute", 0, "batches")) * 2 - 1
    for step, drawn in enumerate(batches):
        x = torch.where(drawn.abs() > S, drawn.sign() * (drawn.abs() - S) / (1 - S), 0).T
        y = ((x @ start.W_in).relu() @ start.W_out + start.b[:, None]).relu()
        loss = (((y - x.abs()) ** 2) @ TOY.importances().float()).mean(1).sum()
        optimizer.param_groups[0]["lr"] = 0.01 * (1 + math.cos(math.pi * step / 30)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, plain in zip(done.net, start, strict=True):
        assert torch.allclose(ours[0], plain, atol=1e-4)


def test_points_and_seeds_come_out_as_they_would_alone():
    both, alone = trained(sparsities=(0.2, 0.9), seeds=4), trained(sparsities=(0.9,), seeds=2)
    for one, other in zip(both.net, alone.net, strict=True):
        assert torch.allclose(one[1, :2], other[0], atol=1e-5)
    assert torch.allclose(both.curve[:, 1, :2], alone.curve[:, 0], rtol=1e-4)
    assert not torch.allclose(alone.net.W_in, trained(sparsities=(0.9,), seeds=2, seed=1).net.W_in, atol=0.05)


def test_signed_vectors_follow_their_law():
    x, weight = signed(TOY, 0.9, draws("law"), 2**17)
    mean = lambda values: (values * weight[:, None]).mean(0).numpy()  # noqa: E731
    assert mean(x) == pytest.approx([0] * 4, abs=0.002)
    assert mean(x.abs()) == pytest.approx([0.05] * 4, abs=0.002)
    assert mean(x**2) == pytest.approx([0.1 / 3] * 4, abs=0.002)
    assert mean((x != 0).double()) == pytest.approx([0.1] * 4, abs=0.002)


@pytest.mark.parametrize(("n", "m"), [(5, 4), (5, 3), (2, 1), (3, 6), (3, 9)])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_the_unshared_net_has_its_closed_form(n, m, sparsity):
    toy = Toy(n, m, 0.7, True)
    vectors = signed(toy, sparsity, draws("unshared"), 2**16)
    net = unshared(toy, sparsity)
    each = losses(toy, net, vectors)
    assert abs(float(each.mean()) - unshared_loss(toy, sparsity)) <= 5 * float(each.std()) / 2**8 + 1e-15
    assert int((net.strengths() > 0).sum(-1).max()) == 1
    if m >= 2 * n:
        assert unshared_loss(toy, sparsity) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_no_other_slope_or_bias_does_better_with_half_a_feature(sparsity):
    """By quadrature on the one feature: |x| = t with probability p, half the time on the side that is seen."""
    p, t = 1 - sparsity, (np.arange(2000) + 0.5) / 2000
    best = unshared_loss(Toy(2, 1, 1e-9, True), sparsity)
    for slope in np.linspace(0, 1.5, 61):
        for bias in np.linspace(0, 0.7, 61):
            seen, unseen = ((slope * t + bias - t) ** 2).mean(), ((bias - t) ** 2).mean()
            assert p / 2 * seen + p / 2 * unseen + sparsity * bias**2 >= best - 1e-7


def test_a_whole_feature_is_worth_more_than_two_halves():
    for p in np.linspace(0.001, 1, 50):
        whole, half = p / 3 - p**2 / 4, (p / 6 - p**2 / 8) ** 2 / (p / 6 - p**2 / 16)
        assert whole >= 2 * half - 1e-12
