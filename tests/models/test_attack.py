"""Attacks: closed forms against singular values, the search against a brute force."""

import math

import pytest
import torch

from vaultlab.models.attack import Target, rows, small, worst, worst_of


def random_target(n=6, m=3, models=2, importances=None):
    generator = torch.Generator().manual_seed(3)
    size = {"generator": generator, "dtype": torch.float64}
    weights = torch.ones(n, dtype=torch.float64) if importances is None else torch.tensor(importances).double()
    target = Target(torch.randn(models, n, m, **size), 0.5 * torch.randn(models, n, **size), weights)
    return target, target.before(torch.rand(models, 12, n, **size))


def polygon(n, bias):
    turn = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    W = torch.stack([turn.cos(), turn.sin()], -1)
    return Target(W, torch.full((n,), bias, dtype=torch.float64), torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize("importances", [None, [1, 0.5, 0.25, 0.1, 2, 3]])
def test_a_small_attack_is_the_top_singular_vector_of_what_is_open(importances):
    target, before = random_target(importances=importances)
    gain, direction = small(target, before)
    for model in range(2):
        A = target.W[model] @ target.W[model].T
        for one in range(12):
            J = ((before[model, one] > 0) * target.importances).sqrt()[:, None] * A
            _, values, vectors = torch.linalg.svd(J)
            assert float(gain[model, one]) == pytest.approx(float(values[0]) ** 2, abs=1e-9)
            if values[0] - values[1] > 1e-3:
                assert abs(float(vectors[0] @ direction[model, one])) == pytest.approx(1, abs=1e-6)
    tiny = target.damage(before, 1e-7 * direction) / 1e-14
    assert torch.allclose(tiny, gain, rtol=1e-5)


def test_more_dimensions_than_features():
    target, before = random_target(n=3, m=7)
    assert torch.allclose(
        target.damage(before, 1e-7 * small(target, before).direction) / 1e-14, small(target, before).gain, rtol=1e-5
    )


def test_known_gains():
    """A dimension each: 1. A feature of the pentagon alone: 1/D = 5/2. Opposites share one line: 2, or 1 while shut."""
    dedicated = Target(torch.eye(3).double(), torch.zeros(3).double(), torch.ones(3).double())
    assert small(dedicated, dedicated.before(torch.eye(3).double())).gain.tolist() == pytest.approx([1, 1, 1])
    alone = torch.eye(5, dtype=torch.float64)
    shut = polygon(5, -0.35)
    assert small(shut, shut.before(alone)).gain.tolist() == pytest.approx([5 / 2] * 5)
    assert float(shut.ceiling()) == pytest.approx((5 / 2) ** 2)
    opposites = Target(torch.tensor([[1.0], [-1]]).double(), torch.zeros(2).double(), torch.ones(2).double())
    assert small(opposites, opposites.before(torch.eye(2).double())).gain.tolist() == pytest.approx([2, 2])


def test_the_worst_attack_by_brute_force():
    """Every direction of the plane, in steps of a twentieth of a degree."""
    for bias in (-0.35, -0.1, 0.05):
        target, size = polygon(5, bias), 0.2
        x = torch.tensor([[0, 0.3, 0, 0, 0], [1, 0, 0, 0, 0], [0.4, 0, 0.5, 0, 0]], dtype=torch.float64)
        before = target.before(x)
        turn = torch.arange(7200, dtype=torch.float64) * 2 * math.pi / 7200
        plane, _ = torch.linalg.qr(target.W)
        circle = torch.stack([turn.cos(), turn.sin()], -1) @ plane.T
        brute = torch.stack([target.damage(before, size * direction) for direction in circle]).amax(0)
        direction = small(target, before).direction
        attack = worst(target, before, (direction, -direction, worst_of(target, before, rows(target), size)), size)
        assert attack.norm(dim=-1).numpy() == pytest.approx([size] * 3)
        assert target.damage(before, attack).numpy() == pytest.approx(brute.numpy(), rel=0.02)


def test_what_the_small_attack_alone_would_miss():
    """Both outputs are shut: nothing is gained at first, and still there is damage to be done."""
    target = polygon(2, -0.05)
    before = target.before(torch.zeros(1, 2, dtype=torch.float64))
    gain, direction = small(target, before)
    assert float(gain) == 0
    attack = worst(target, before, (direction, worst_of(target, before, rows(target), 0.2)), 0.2)
    assert float(target.damage(before, attack)) == pytest.approx((0.2 * math.sqrt(2) - 0.05) ** 2, rel=1e-6)
