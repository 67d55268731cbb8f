"""Correlated features: built layers, what training makes of pairs, and what a wrong version would say."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from pydantic import ValidationError

from vaultlab import claims, verdicts
from vaultlab.experiment import Bench
from vaultlab.experiments import superposition_correlated
from vaultlab.experiments.superposition_correlated import (
    EXPERIMENT,
    LOSSLESS,
    OPPOSITE,
    Out,
    Spec,
    compute,
    data,
    draw,
    look,
    measure,
    together,
    verify,
)
from vaultlab.models.pairing import arrangement_losses, arrangement_weights
from vaultlab.plots.style import render
from vaultlab.result import Result

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
EXAMPLES = {example.id: example for example in EXPERIMENT.examples}
QUICK = {"steps": 60, "seeds": 3, "batch": 32}


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


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def built(W, **fields):
    W = torch.as_tensor(W, dtype=torch.float32)[None]
    spec = Spec(features=W.shape[1], hidden=W.shape[2], seeds=1, **fields)
    none = torch.zeros(())
    return spec, Out(W, torch.zeros(W.shape[:2]), torch.ones(1), torch.zeros(1), none, none, none, none)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_their_known_answers(trained, name):
    found = Result("x", "key", False, tuple(measure(*trained(name))), tuple(verify(*trained(name))), {})
    assert all(check.ok for check in found.checks)
    for sentence in EXAMPLES[name].expect:
        judged = verdicts.judge(claims.parse(sentence), found, {q.name: q.forced for q in EXPERIMENT.metrics})
        assert judged.verdict == "supported", judged


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0, {"orthogonal": 1, "opposite": 0, "merged": 0, "opposites_across": 1, "cosine": (0, 0, 0)}),
        (1, {"orthogonal": 0, "opposite": 1, "merged": 0, "opposites_across": 0, "cosine": (-1, -1, -1)}),
        (2, {"orthogonal": 0, "opposite": 0, "merged": 1, "opposites_across": 0, "cosine": (1, 1, 1)}),
    ],
)
def test_built_layers_have_the_numbers_that_they_must_have(place, expected):
    found = values(*built(arrangement_weights(3)[place]))
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-6), name
    assert found["opposite"].null == (0.25 if place == 0 else 0)  # 3 of the 12 that are no pair
    assert found["orthogonal"].null == pytest.approx(0.75 if place == 0 else 1)
    assert found["represented"].value == 6


def test_pairs_are_the_neighbours_and_no_others():
    """The features in another order are other pairs: a wrong pairing takes one arrangement for another."""
    within = arrangement_weights(3)[1]
    shifted = values(*built(within.roll(1, 0)))
    assert shifted["opposite"].value == 0
    assert shifted["opposites_across"].value == 1


def test_what_is_not_represented_is_in_no_arrangement():
    W = arrangement_weights(2)[1].clone()
    W[1] *= 0.1
    found = values(*built(W))
    assert found["opposite"].value == 0.5
    assert len(found["cosine"].value) == 1
    assert "cosine" not in values(*built(0 * W))
    assert values(*built(0 * W))["opposites_across"].value == 0


def test_nothing_is_lost_if_and_only_if_pairs_are_opposites(trained):
    """Of every seed but one: it has found the opposites, and was not done when training ended."""
    spec, out = trained("never-both")
    opposite = (look(spec, out).within <= OPPOSITE).all(1)
    assert bool((out.loss[out.loss < LOSSLESS] < 1e-12).all())
    assert bool(opposite[out.loss < LOSSLESS].all())
    assert bool((out.loss[~opposite] > 0.01).all())
    assert int((out.loss < LOSSLESS).sum()) >= int(opposite.sum()) - 2
    across = arrangement_losses("exclusive", 0.4, 2)["across pairs"]
    assert float(out.loss[~opposite].min()) == pytest.approx(across, rel=0.1)


def test_rare_features_find_it_less_often(trained):
    share = {}
    for sparsity in (0.5, 0.95):
        spec = Spec(pairs="exclusive", sparsity=sparsity, steps=1000)
        share[sparsity] = float((look(spec, compute(spec, BENCH)).within <= OPPOSITE).all(1).double().mean())
    assert share[0.5] > share[0.95] + 0.2


def test_the_control_has_no_preference(trained):
    """The nonsense: without pairs a claim on orthogonal pairs holds in no nine of ten seeds."""
    spec = Spec(pairs="independent", steps=1000)
    found = values(spec, compute(spec, BENCH))
    assert np.mean(found["orthogonal"].seeds) < 0.9
    assert np.mean(found["opposite"].seeds) > 0.05


def test_the_numbers_are_those_of_the_best_seed(trained):
    for name in EXAMPLES:
        spec, out = trained(name)
        best = int(out.loss.argmin())
        for metric in measure(spec, out):
            assert metric.value == metric.seeds[best], metric.name
            assert len(metric.seeds) == metric.n == spec.seeds
    assert data(*trained("fire-together"))["chosen"] == int(trained("fire-together")[1].loss.argmin())


def test_points_together_are_those_alone():
    first = Spec(**QUICK)
    second = first.model_copy(update={"sparsity": 0.7, "threshold": 0.3})
    for spec, out in zip((first, second), together([first, second], BENCH), strict=True):
        alone = compute(spec, BENCH)
        assert torch.allclose(out.W, alone.W, atol=1e-4)
        assert torch.allclose(out.loss, alone.loss, rtol=1e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1, "seeds": 1},
        {"features": 2, "hidden": 1, "pairs": "exclusive", "sparsity": 0.5},
        {"features": 2, "hidden": 4},
        {"features": 12, "hidden": 4, "pairs": "together", "sparsity": 0.999},
        {"pairs": "independent", "sparsity": 0, "learning_rate": 1.0},
    ],
)
def test_the_checks_hold_for_every_spec(fields):
    spec = Spec(**{**QUICK, **fields})
    out = compute(spec, BENCH)
    for check in verify(spec, out):
        assert check.ok, check
    for metric in measure(spec, out):
        quantity = next(quantity for quantity in EXPERIMENT.metrics if quantity.name == metric.name)
        there = np.ravel(metric.value)
        assert np.isfinite(there).all(), metric
        assert ((there >= quantity.range[0] - 1e-9) & (there <= quantity.range[1] + 1e-9)).all(), metric
    assert set(draw(spec, out)) <= set(EXPERIMENT.figures)


def test_the_checks_fail_where_something_is_wrong(monkeypatch, trained):
    def failed(spec, out):
        return {check.name.split()[0] for check in verify(spec, out) if not check.ok}

    spec, out = trained("never-both")
    assert failed(spec, out) == set()
    assert failed(spec, out._replace(loss=torch.zeros_like(out.loss))) == {"no"}  # as if all seeds had lost nothing
    right = superposition_correlated.arrangement_losses
    quick = Spec(**QUICK)

    def as_if_independent(pairs, p, hidden):
        return right("independent", p, hidden)

    monkeypatch.setattr(superposition_correlated, "arrangement_losses", as_if_independent)
    assert failed(quick, compute(quick, BENCH)) == {"arrangements"}


def test_vectors_of_another_law_are_found_out(monkeypatch):
    """A law that measures features as if they were independent: trained on pairs, judged on none."""
    spec = Spec(pairs="exclusive", sparsity=0.5, **QUICK)
    fresh = superposition_correlated.examine.__globals__["fresh"]
    monkeypatch.setitem(
        superposition_correlated.examine.__globals__,
        "fresh",
        lambda law, *rest: fresh(law._replace(pairs="together"), *rest),
    )
    assert "fresh" in {check.name.split()[0] for check in verify(spec, compute(spec, BENCH)) if not check.ok}


@pytest.mark.parametrize("name", ["fire-together", "few-find-it"])
def test_figures_are_whole_labelled_and_said_in_words(trained, name):
    figures = draw(*trained(name))
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert render(drawing).kind == "svg"
        box, (width, height) = drawing.figure.get_tightbbox(), drawing.figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01
        assert not any("$" in text.get_text() for text in drawing.figure.findobj(Text))
        assert any(character.isdigit() for character in drawing.alt)
        for ax in drawing.figure.axes:
            assert not ax.axison or ax.get_ylabel() or ax.get_xlabel()
    assert "of 2 pairs 2 orthogonal" in draw(*trained("fire-together"))["weights"].alt


def test_fields_are_closed_and_fit_each_other():
    assert Spec(sparsity="90%") == Spec()
    for wrong in (
        {"pairs": "exclusive", "sparsity": 0.4},
        {"features": 5},
        {"pairs": "anticorrelated"},
        {"importance": 1.0},
        {"sparsity": 1.0},
    ):
        with pytest.raises(ValidationError):
            Spec(**wrong)
    assert Spec(pairs="exclusive", sparsity=0.5).known
    assert not Spec(features=6, hidden=2).known
