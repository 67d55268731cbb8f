"""Learning dynamics: checks on any spec and on what is wrong, rests and falls of courses made by hand, figures."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from vaultlab.experiment import Bench
from vaultlab.experiments import superposition_learning
from vaultlab.experiments.superposition_learning import EXPERIMENT, Out, Spec, compute, data, draw, measure, verify
from vaultlab.models import exam
from vaultlab.models.rests import rest, rest_loss

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"steps": 60, "seeds": 2, "batch": 64}


def run(**fields):
    spec = Spec(**{**QUICK, **fields})
    return spec, compute(spec, BENCH)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def metrics(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


@pytest.fixture(autouse=True)
def few_fresh_vectors(monkeypatch):
    """Enough for the checks; with all of them the exam would take most of the time."""
    for module in (exam, superposition_learning):
        monkeypatch.setattr(module, "FRESH", 2**13)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1, "seeds": 1},
        {"hidden": 2, "sparsity": 0.0},
        {"hidden": 7, "sparsity": 0.99},
    ],
)
def test_the_checks_hold_and_figures_are_whole_for_every_spec(fields):
    spec, out = run(**fields)
    assert failed(spec, out) == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        assert np.all((quantity.range[0] <= np.ravel(metric.value)) & np.isfinite(np.ravel(metric.value)))
        assert len(metric.seeds) == spec.seeds
    figures = draw(spec, out)
    assert list(figures)[:3] == ["learning", "seeds", "pairs"]
    for drawing in figures.values():
        assert_whole(drawing)
    assert bool(data(spec, out)) == (spec.hidden <= 3)


def by_hand(*courses):
    """Courses of one seed each [looks, features, hidden], with losses."""
    W = torch.stack([torch.stack(course) for course, _ in courses], 1).float()
    curve = torch.tensor([losses for _, losses in courses], dtype=torch.float64).T
    zero = torch.tensor(0.0)
    at = torch.arange(len(curve), dtype=torch.float64)
    return Spec(seeds=len(courses)), Out(W, torch.zeros(W.shape[1:3]), curve, at, curve[-1], 0 * curve[-1], *[zero] * 4)


def test_each_jump_is_what_lies_between_two_rests():
    apart, merged = rest(3, 3), rest(3, 0)
    course = [merged, merged, merged, (apart + merged) / 2, apart, apart, apart]
    losses = [0.026, 0.025, 0.025, 0.02, 0.01, 0.01, 0.01]
    found = metrics(*by_hand((course, losses)))
    assert found["jumps"].value == 1
    assert found["fall"].value == pytest.approx((1 - 0.01 / 0.025,))
    assert 0 <= found["fall"].null <= 1 - 0.025 / 0.026
    assert found["loss_by_rest"].value == pytest.approx((0.025 / rest_loss(0.1, 3, 0), 0.01 / rest_loss(0.1, 3, 3)))
    assert found["dimensionality"].value == pytest.approx((0.5,) * 6)
    assert found["merged"].value == found["told_apart"].value == 3


def test_the_run_with_most_rests_is_shown_though_another_has_less_loss():
    two = [rest(3, 0), rest(3, 1), rest(3, 1)]
    found = metrics(*by_hand(([rest(3, 1)] * 3, [0.02, 0.02, 0.02]), (two, [0.026, 0.03, 0.03])))
    assert found["jumps"].value == 1
    assert found["jumps"].seeds == (0, 1)
    assert found["loss"].value == 0.03
    assert found["fall"].value[0] < 0  # the loss may rise, and then the claim that it falls is refuted


def test_pairs_that_are_none_are_merged_by_chance_only():
    """Of a model that merges all features that are no pair, chance explains every merged pair."""
    all_alike = torch.ones(1, 6, 1).double()
    assert superposition_learning._merged_by_chance(all_alike) == 3
    assert superposition_learning._merged_by_chance(rest(3, 0)[None]) == 0


def test_a_single_look_has_no_jump_and_claims_on_falls_stay_open():
    spec, out = run(steps=1)
    assert "fall" not in metrics(spec, out)
    assert metrics(spec, out)["jumps"].value == 0


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    spec, out = run()
    assert failed(spec, out) == []
    right = superposition_learning.rest_loss
    forgotten = {  # what one would write down first
        "the smaller of both is lost once, not by both": lambda p, pairs, apart: (
            right(p, pairs, apart) - apart * p**2 / 6
        ),
        "a merged pair beside one told apart like two single ones": lambda p, pairs, apart: (
            (pairs - apart) * p / 12 + apart / 3 * p**2
        ),
        "a merged pair costs one feature's variance": lambda p, pairs, apart: (
            right(p, pairs, apart) + (pairs - apart) * (p / 3 - p**2 / 4 - p / 12)
        ),
    }
    for name, wrong in forgotten.items():
        monkeypatch.setattr(superposition_learning, "rest_loss", wrong)
        assert failed(*run(sparsity=0.6)) == ["weights of the rests cost their closed form"], name
    monkeypatch.setattr(superposition_learning, "rest_loss", right)
    monkeypatch.setattr(exam, "linear_part", lambda theta, x: x @ theta[..., :-1] @ theta[..., :-1].mT)
    assert "loss while training = loss by definition" in failed(*run(learning_rate=0.05))  # b forgotten


def test_small_weights_take_pairs_for_single_features_and_large_ones_need_not():
    """What the experiment starts from: at first every pair is merged; nothing like it with the usual weights."""
    small, usual = (run(start=start, steps=200, seeds=3, batch=128, learning_rate=0.01) for start in (0.001, 1.0))
    count = lambda pair: sum(metrics(*pair)["merged"].seeds)  # noqa: E731
    assert count(small) > 1.5 * count(usual)


def test_the_rate_stays_the_same_and_the_start_is_small():
    spec, out = run(start=0.001)
    assert float(out.W[0].norm(dim=-1).max()) < 0.01
    late = [float((out.W[look + 1] - out.W[look]).abs().max()) for look in (-3, -2)]
    assert min(late) > spec.learning_rate / 10  # along a cosine it would have come to rest


def test_more_seeds_keep_the_first_and_sparsities_train_as_one():
    spec, out = run(seeds=3)
    _, fewer = run(seeds=2)
    assert torch.allclose(out.W[:, :2], fewer.W, atol=1e-4)
    points = [spec, spec.model_copy(update={"sparsity": 0.8})]
    for point, found in zip(points, superposition_learning.together(points, BENCH), strict=True):
        assert torch.allclose(found.W, compute(point, BENCH).W, atol=1e-4)


def test_the_words_under_the_figures_say_where_it_rests():
    rested = [rest(3, 0), rest(3, 0), rest(3, 1)]
    figures = draw(*by_hand((rested, [0.026, 0.0251, 0.02])))
    assert "from step 0 to 1 none apart, loss 0.0251; from step 2 to 2 1 apart" in figures["learning"].alt
    assert "none apart: lengths 0.71 to 0.71; 1 apart: lengths 0.71 to 1.00" in figures["rests"].alt


def test_fields_are_closed_strict_and_ranged():
    for wrong in ({"hidden": 1}, {"start": 0.0}, {"features": 6}, {"sparsity": 1.0}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
