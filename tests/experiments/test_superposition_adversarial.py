"""Adversarial attacks: checks on any spec and on what is wrong, what is measured, figures."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from vaultlab.experiment import Bench
from vaultlab.experiments import superposition_adversarial
from vaultlab.experiments.superposition_adversarial import (
    EXPERIMENT,
    Spec,
    compute,
    draw,
    measure,
    sparsities_of,
    verify,
)
from vaultlab.models import attack
from vaultlab.models.attack import Target

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"features": 6, "hidden": 3, "points": 3, "steps": 60, "seeds": 2, "batch": 64, "inputs": 40}


def run(**fields):
    spec = Spec(**{**QUICK, **fields})
    return spec, compute(spec, BENCH)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1, "seeds": 1, "points": 2},
        {"features": 2, "hidden": 5, "sparsity": 0.999},
        {"size": 1.0, "importance": 0.5},
        {"features": 30, "hidden": 1, "size": 0.01},
    ],
)
def test_the_checks_hold_and_figures_are_whole_for_every_spec(fields):
    spec, out = run(**fields)
    assert failed(spec, out) == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        assert np.all((quantity.range[0] <= np.ravel(metric.value)) & np.isfinite(np.ravel(metric.value)))
    figures = draw(spec, out)
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert_whole(drawing)


def test_sparsities_make_features_rarer_by_the_same_factor():
    assert sparsities_of(Spec(sparsity=0.99, points=3)) == pytest.approx((0, 0.9, 0.99))


def test_numbers_are_of_one_seed_at_all_sparsities():
    spec, out = run(seeds=3)
    found = {metric.name: metric for metric in measure(spec, out)}
    best = int(out.loss[-1].argmin())
    along = out.damage[:, best].mean(-1).tolist()
    assert found["vulnerability"].value == pytest.approx(along)
    assert found["dense_vulnerability"].value == pytest.approx(along[0])
    assert found["sparse_vulnerability"].value == pytest.approx(along[-1])
    assert (
        found["vulnerability_ratio"].value
        == pytest.approx(along[-1] / along[0])
        == found["vulnerability_ratio"].seeds[best]
    )
    low, high = found["sparse_vulnerability"].interval
    assert low < along[-1] < high


def test_the_attack_that_is_shown_is_one_of_the_model():
    spec, out = run()
    x, change, before, after = out.shown
    assert float(change.norm()) == pytest.approx(spec.size)
    moved = float((after - before).square().sum()) / spec.size**2
    assert moved == pytest.approx(float(out.damage[-1, int(out.loss[-1].argmin())].max()))
    assert float(x.max()) > 0


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    assert failed(*run()) == []
    right = superposition_adversarial.worst
    monkeypatch.setattr(superposition_adversarial, "worst", lambda *found: 0.3 * right(*found))
    wrong = failed(*run())
    assert "attacks have length ε" in wrong
    assert "no random change does more than the attack" in wrong
    monkeypatch.setattr(superposition_adversarial, "worst", lambda *found: 2 * right(*found))
    assert "no attack passes the ceiling" in failed(*run(hidden=6))
    monkeypatch.setattr(superposition_adversarial, "worst", right)
    monkeypatch.setattr(attack.Target, "ceiling", lambda target: 0.5 * torch.linalg.matrix_norm(target.W, 2) ** 2)
    assert failed(*run()) == ["no attack passes the ceiling"]
    monkeypatch.undo()
    shut = superposition_adversarial.small
    monkeypatch.setattr(superposition_adversarial, "small", lambda target, before: shut(target, before.abs()))
    assert "a small attack does its closed form" in failed(*run())


def test_importances_count_in_the_damage():
    target = Target(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([1.0, 0.25]).double())
    before = target.before(torch.ones(1, 2).double())
    assert float(target.damage(before, torch.tensor([[0.0, 0.1]]).double())) == pytest.approx(0.25 * 0.01)


def test_fields_are_closed_strict_and_ranged():
    for wrong in ({"sparsity": 0.0}, {"points": 1}, {"size": 0.0}, {"epsilon": 0.1}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
