"""Superposition: constructed weights with known answers, a second implementation, every example, every figure."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from pydantic import ValidationError

from vaultlab import claims, verdicts
from vaultlab.experiment import Bench
from vaultlab.experiments.superposition import EXPERIMENT, Spec, compute, draw, measure, verify
from vaultlab.models import exam
from vaultlab.models.geometry import REPRESENTED, Geometry, geometry
from vaultlab.plots.style import render
from vaultlab.result import Result

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
EXAMPLES = {example.id: example for example in EXPERIMENT.examples}
QUICK = {"steps": 60, "seeds": 3, "batch": 64}


@pytest.fixture(scope="module")
def trained():
    """Every example, run once."""
    done = {}

    def run(name):
        if name not in done:
            spec = Spec(**EXAMPLES[name].fields)
            done[name] = (spec, compute(spec, BENCH))
        return done[name]

    return run


def result(spec, out):
    return Result("x", "key", False, tuple(measure(spec, out)), tuple(verify(spec, out)), {})


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_their_known_answers(trained, name):
    known = {quantity.name: quantity.forced for quantity in EXPERIMENT.metrics}
    found = result(*trained(name))
    for sentence in EXAMPLES[name].expect:
        judgement = verdicts.judge(claims.parse(sentence), found, known)
        assert judgement.verdict == "supported", judgement
        assert not judgement.note


@pytest.mark.parametrize("name", ["dense", "linear"])
def test_without_superposition_the_features_kept_are_the_most_important(trained, name):
    spec, out = trained(name)
    kept = out.W.norm(dim=-1) >= REPRESENTED
    assert kept[:, : spec.hidden].all()
    assert not kept[:, spec.hidden :].any()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.99])
def test_the_linear_model_keeps_the_first_at_every_sparsity(sparsity):
    spec = Spec(features=6, hidden=3, sparsity=sparsity, importance=0.7, activation="linear", steps=1500, seeds=4)
    kept = compute(spec, BENCH).W.norm(dim=-1) >= REPRESENTED
    assert kept.sum(0).tolist() == [4, 4, 4, 0, 0, 0]


def test_a_claim_on_the_mean_dimensionality_is_pointed_out_as_empty(trained):
    known = {quantity.name: quantity.forced for quantity in EXPERIMENT.metrics}
    judgement = verdicts.judge(claims.parse("mean dimensionality = 0.40"), result(*trained("pentagon")), known)
    assert judgement.verdict == "supported"
    assert "m/n" in judgement.note


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1},
        {"seeds": 1},
        {"features": 2, "hidden": 4},
        {"features": 2, "hidden": 1, "sparsity": 0.999},
        {"features": 12, "hidden": 5, "sparsity": 0, "importance": 0.5},
        {"activation": "linear", "sparsity": 0.5},
        {"learning_rate": 1.0, "batch": 16},
        {"features": 40, "hidden": 10, "sparsity": 0.98},
    ],
)
def test_the_checks_hold_for_every_spec(fields):
    spec = Spec(**{**QUICK, **fields})
    out = compute(spec, BENCH)
    for check in verify(spec, out):
        assert check.ok, check
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        values = np.ravel(metric.value)
        assert np.isfinite(values).all()
        assert (values >= quantity.range[0]).all()
        assert (values <= quantity.range[1] + 1e-9).all()
        assert len(metric.seeds) == metric.n == spec.seeds
    figures = draw(spec, out)
    assert set(figures) <= set(EXPERIMENT.figures)


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    spec = Spec(**QUICK)
    out = compute(spec, BENCH)
    right = exam.geometry

    def own_part_forgotten(W):
        norm, interference, _ = right(W)
        return Geometry(norm, interference, norm**2 / interference)

    def both_sides_unit(W):
        unit = W / W.norm(dim=-1, keepdim=True)
        return right(W)._replace(interference=right(unit).interference)

    def failed(out=out):
        return {check.name.split()[0] + check.name.split()[1] for check in verify(spec, out) if not check.ok}

    assert failed() == set()
    monkeypatch.setattr(exam, "geometry", own_part_forgotten)
    assert "ΣD_i" in failed()
    monkeypatch.setattr(exam, "geometry", both_sides_unit)
    assert "Σ‖W_i‖²" in failed()
    monkeypatch.setattr(exam, "geometry", right)

    monkeypatch.setattr(exam, "linear_part", lambda theta, x: x @ theta[..., :-1] @ theta[..., :-1].mT)
    assert failed(compute(spec, BENCH)) == {"gradientby", "losswhile", "freshvectors"}  # b forgotten


def test_metrics_are_those_of_the_seed_with_the_lowest_loss(trained):
    spec, out = trained("digon")
    metrics = {metric.name: metric for metric in measure(spec, out)}
    best = int(np.argmin(metrics["loss"].seeds))
    for metric in metrics.values():
        assert metric.value == metric.seeds[best]
    assert metrics["loss"].interval[0] < metrics["loss"].value < metrics["loss"].interval[1]
    assert metrics["loss"].value == pytest.approx(0.1**2 / 3, rel=0.05)  # antipodal: p²(1 + r)/6
    assert metrics["loss"].null == pytest.approx(2 * (0.1 / 3 - 0.1**2 / 4))
    assert metrics["dimensionality"].null == pytest.approx(0.5, abs=1e-6)  # in one dimension chance has no choice


def test_random_directions_are_what_the_null_says(trained):
    spec, out = trained("pentagon")
    metrics = {metric.name: metric for metric in measure(spec, out)}
    norm = np.array(metrics["norm"].value)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20_000, 5, 2))
    W = directions / np.linalg.norm(directions, axis=-1, keepdims=True) * norm[:, None]
    found = geometry(torch.tensor(W))
    assert metrics["interference"].null == pytest.approx(float(found.interference.mean()), rel=0.02)
    assert metrics["dimensionality"].null == pytest.approx(float(found.dimensionality.mean()), rel=0.05)


def test_the_same_spec_gives_the_same_numbers_and_bytes():
    spec = Spec(**QUICK)
    first, second = compute(spec, BENCH), compute(spec, BENCH)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert measure(spec, first) == measure(spec, second)
    for name, drawing in draw(spec, first).items():
        assert render(drawing) == render(draw(spec, second)[name])


def test_another_seed_is_another_run_and_more_seeds_keep_the_first():
    spec = Spec(**QUICK)
    W = compute(spec, BENCH).W
    assert not torch.allclose(W, compute(spec.model_copy(update={"seed": 1}), BENCH).W, atol=0.01)
    assert torch.allclose(W, compute(spec.model_copy(update={"seeds": 5}), BENCH).W[:3], atol=1e-4)


@pytest.mark.parametrize("name", EXAMPLES)
def test_figures_are_whole_labelled_and_said_in_words(trained, name):
    spec, out = trained(name)
    figures = draw(spec, out)
    assert next(iter(figures)) == "weights"
    for drawing in figures.values():
        assert render(drawing).kind == "svg"
        box = drawing.figure.get_tightbbox()
        width, height = drawing.figure.get_size_inches()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01
        assert not any("$" in text.get_text() for text in drawing.figure.findobj(Text))
        assert any(character.isdigit() for character in drawing.alt)
        for ax in drawing.figure.axes:
            assert not ax.axison or ax.get_ylabel() or ax.get_xlabel()


def test_in_many_dimensions_the_gram_comes_first():
    spec = Spec(features=30, hidden=5, **QUICK)
    figures = draw(spec, compute(spec, BENCH))
    assert next(iter(figures)) == "gram"
    assert all(render(drawing).content for drawing in figures.values())


def test_the_words_under_the_pentagon(trained):
    alt = draw(*trained("pentagon"))["weights"].alt
    assert "5 are represented, as in 16 of 16 seeds" in alt
    assert "72°, 72°, 72°, 72°, 72°" in alt


def test_fields_are_closed_strict_and_ranged():
    assert Spec(sparsity="95%") == Spec(sparsity=0.95) == Spec()
    for wrong in ({"sparsity": 1.0}, {"features": 5.0}, {"features": 1}, {"hiden": 2}, {"importance": 0.0}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
    with pytest.raises(ValidationError):
        Spec(activation="gelu")
