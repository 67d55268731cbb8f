"""Phases of superposition: the closed forms, where they cross, what training finds, and what a wrong version would."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from pydantic import ValidationError

from vaultlab import claims, verdicts
from vaultlab.experiment import Bench
from vaultlab.experiments import superposition_phases
from vaultlab.experiments.superposition_phases import (
    ARRANGEMENTS,
    DEDICATED,
    DROPPED,
    EXPERIMENT,
    SUPERPOSED,
    Spec,
    arms,
    boundary,
    compute,
    data,
    densities,
    draw,
    found,
    importances,
    measure,
    verify,
)
from vaultlab.plots.style import render
from vaultlab.result import Result

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"cells": 9, "seeds": 4}


@pytest.fixture(scope="module")
def trained():
    done = {}

    def run(features, **fields):
        key = (features, *fields.items())
        if key not in done:
            spec = Spec(**{**QUICK, "features": features, **fields})
            done[key] = (spec, compute(spec, BENCH))
        return done[key]

    return run


def values(spec, out):
    return {metric.name: metric.value for metric in measure(spec, out)}


@pytest.mark.parametrize("features", [2, 3])
def test_dropped_and_antipodal_cross_at_the_boundary(features):
    for r in (0.1, 0.5, 1.0):
        p = 4 * r / (2 + 5 * r)
        assert r * (p / 3 - p**2 / 4) == pytest.approx(p**2 * (1 + r) / 6)
    spec = Spec(features=features, cells=41)
    phase, p = arms(spec).argmin(0).view(41, 41), densities(spec)
    for row, (r, best) in enumerate(zip(importances(spec).tolist(), boundary(spec).tolist(), strict=True)):
        if r > 1.01 and features == 3:
            assert np.isnan(best)
            assert set(phase[row].tolist()) == {DEDICATED}
        elif not 0.99 < r < 1.01:
            assert phase[row].tolist() == [SUPERPOSED if at < best else DROPPED if r < 1 else DEDICATED for at in p]


def test_two_features_are_the_same_with_importances_exchanged(trained):
    """r at a loss of L is 1/r at L/r: nothing in the training knows which feature is the last."""
    spec, out = trained(2)
    closed = arms(spec).view(3, 9, 9)
    r = importances(spec)[:, None]
    assert torch.allclose(closed[SUPERPOSED], closed[SUPERPOSED].flip(0) * r)
    assert torch.allclose(closed[DROPPED], closed[DEDICATED].flip(0) * r)
    best = boundary(spec)
    assert torch.allclose(best, best.flip(0))
    phase = found(out.theta).view(9, 9)
    assert torch.equal(phase == SUPERPOSED, (phase == SUPERPOSED).flip(0))


@pytest.mark.parametrize("features", [2, 3])
def test_training_finds_the_phases_of_the_theory(trained, features):
    spec, out = trained(features)
    number = values(spec, out)
    assert number["sparse_agreement"] > 0.95
    assert number["agreement"] > (0.93 if features == 2 else 0.85)  # at r = 1 two arrangements are equally good
    assert number["excess"] < 0.02
    assert 0.05 < number["gain"] < 0.2
    assert all(0.8 < ratio < 1.5 for ratio in number["boundary"])  # a cell is a step of 1.8


@pytest.mark.parametrize("features", [2, 3])
def test_far_from_the_boundary_what_is_trained_is_what_was_drawn_up(trained, features):
    _, out = trained(features)
    phase, norm = found(out.theta).view(9, 9), out.theta[..., :-1].norm(dim=-1).view(9, 9, features)
    assert phase[0, 0] == phase[-2 if features == 2 else 3, 0] == SUPERPOSED
    assert phase[0, -1] == DROPPED
    assert phase[-1, -1] == DEDICATED
    assert norm[0, 0] == pytest.approx(torch.ones(features), abs=0.02)
    assert norm[0, -1, -1] < 1e-3
    assert norm[-1, -1, -1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("features", [2, 3])
def test_every_arrangement_is_in_the_phase_that_it_stands_for(features):
    for phase, rows in ARRANGEMENTS[features]:
        theta = torch.tensor(rows, dtype=torch.float64)
        assert found(torch.nn.functional.pad(theta, (0, 1))[None]).tolist() == [phase]


@pytest.mark.parametrize(
    "fields",
    [
        {"cells": 4, "seeds": 1, "steps": 1},
        {"cells": 5, "density_from": 0.5},
        {"cells": 4, "features": 3, "seeds": 2, "importance_to": 1.5},
        {"cells": 4, "density_from": 1e-4, "importance_to": 1000.0},
        {"cells": 7, "seed": 3},
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
        assert np.isfinite(there).all()
        assert ((there >= quantity.range[0]) & (there <= quantity.range[1])).all()
    for drawing in draw(spec, out).values():
        assert render(drawing).content


def test_the_checks_fail_where_something_is_wrong(monkeypatch, trained):
    spec, out = trained(2)

    def failed(out=out):
        return {check.name.split()[0] for check in verify(spec, out) if not check.ok}

    assert failed() == set()
    right = superposition_phases.arms

    def without_its_mean(spec):
        """What the last feature would cost if it were answered by 0: r p/3."""
        closed = right(spec)
        p, r = superposition_phases._cells(spec)
        closed[DROPPED] = r * p / 3
        return closed

    monkeypatch.setattr(superposition_phases, "arms", without_its_mean)
    assert failed() == {"arrangements"}
    monkeypatch.setattr(superposition_phases, "arms", right)
    assert failed(out._replace(loss=out.first_loss + 1e-6)) == {"no"}

    definition = superposition_phases.by_quadrature
    monkeypatch.setattr(superposition_phases, "by_quadrature", lambda theta, p, r: definition(theta, 1.01 * p, r))
    assert failed(compute(spec, BENCH)) == {"expected", "gradient"}


def test_a_wrong_boundary_would_be_seen(monkeypatch, trained):
    """Dropped without its best bias crosses antipodal at 2r/(1 + r): a claim on the boundary refutes it."""
    spec, out = trained(2, cells=24)
    assert all(0.9 < ratio < 1.3 for ratio in values(spec, out)["boundary"])
    less = torch.minimum(importances(spec), 1 / importances(spec))
    monkeypatch.setattr(superposition_phases, "boundary", lambda spec: 2 * less / (1 + less))
    assert min(values(spec, out)["boundary"]) < 0.8


def test_more_seeds_keep_the_first_and_never_end_higher(trained):
    spec, out = trained(2)
    more = compute(spec.model_copy(update={"seeds": 6}), BENCH)
    assert torch.equal(out.first_loss, more.first_loss[:, :4])
    assert (more.loss.min(1).values <= out.loss.min(1).values * (1 + 1e-9)).all()
    other = compute(spec.model_copy(update={"seed": 1}), BENCH)
    assert not torch.allclose(out.first_loss, other.first_loss)


def test_claims_can_be_made_on_it(trained):
    spec, out = trained(2)
    result = Result("x", "key", False, tuple(measure(spec, out)), tuple(verify(spec, out)), {})
    known = {quantity.name: quantity.forced for quantity in EXPERIMENT.metrics}
    for sentence in ("sparse_agreement > 0.9", "every boundary > 0.7", "excess < 0.1"):
        assert verdicts.judge(claims.parse(sentence), result, known).verdict == "supported"


@pytest.mark.parametrize("features", [2, 3])
def test_figures_are_whole_labelled_and_said_in_words(trained, features):
    spec, out = trained(features)
    figures = draw(spec, out)
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert render(drawing).kind == "svg"
        box, (width, height) = drawing.figure.get_tightbbox(), drawing.figure.get_size_inches()
        assert min(box.x0, box.y0) >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01
        assert not any("$" in text.get_text() for text in drawing.figure.findobj(Text))
        assert any(character.isdigit() for character in drawing.alt)
    left = figures["phases"].figure.axes[0]
    image = left.images[0]
    assert image.get_extent() == pytest.approx([-2.125, 0.125, 1.125, -1.125])
    assert left.get_ylim() == pytest.approx((-1.125, 1.125))  # the least important at the bottom
    assert image.get_array()[0, 0] == SUPERPOSED
    assert image.get_array()[0, -1] == DROPPED


def test_what_the_plugin_draws_from_is_the_middle_of_the_diagram(trained):
    spec, out = trained(3)
    drawn = data(spec, out)
    assert drawn["values"][-1] == 1
    assert np.shape(drawn["vectors"]) == (9, 3, 2)
    assert np.allclose(drawn["vectors"][2], out.theta.view(9, 9, 3, 3)[4, 2, :, :-1], atol=1e-4)
    assert all(note.split(",")[0] in ("dropped", "dedicated", "superposed") for note in drawn["notes"])


def test_fields_are_closed_strict_and_ranged():
    for wrong in ({"features": 4}, {"cells": 3}, {"density_from": 0.0}, {"importance_to": 1.0}, {"hidden": 1}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
