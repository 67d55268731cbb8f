"""The geometry of superposition: layers built from solids, what training makes, and what a wrong version would say."""

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from pydantic import ValidationError

from vaultlab import claims, verdicts
from vaultlab.experiment import Bench
from vaultlab.experiments import superposition_geometry
from vaultlab.experiments.superposition_geometry import (
    EXPERIMENT,
    Out,
    Spec,
    compute,
    draw,
    look,
    measure,
    sparsities_of,
    together,
    verify,
)
from vaultlab.models import exam
from vaultlab.models.geometry import Geometry
from vaultlab.models.solids import ABSENT, DIGON, OTHER, SOLIDS
from vaultlab.plots.solids import KINDS
from vaultlab.plots.style import render
from vaultlab.result import Result

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"features": 12, "hidden": 3, "steps": 40, "batch": 32, "points": 3}
EXAMPLES = {example.id: example for example in EXPERIMENT.examples}


@pytest.fixture(scope="module")
def trained():
    spec = Spec(**EXAMPLES["digons-then-more"].fields)
    return spec, compute(spec, BENCH)


@pytest.fixture(scope="module")
def quick():
    spec = Spec(**QUICK)
    return spec, compute(spec, BENCH)


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def built(*layers, noise=0.0):
    """What would be measured of these layers, one a sparsity."""
    W = torch.stack([torch.as_tensor(layer, dtype=torch.float32) for layer in layers])[:, None]
    spec = Spec(features=W.shape[2], hidden=W.shape[3], points=len(W), seeds=1)
    none = torch.zeros(())
    return spec, Out(sparsities_of(spec), W, torch.ones(len(W), 1), torch.zeros(len(W), OTHER), none, none, none)


def opposites(pairs, hidden):
    """So many pairs of opposites, a dimension each; the other features are nothing."""
    W = np.zeros((2 * hidden, hidden))
    for pair in range(pairs):
        W[2 * pair, pair], W[2 * pair + 1, pair] = 1, -1
    return W


def test_sparsities_go_up_by_equal_ratios_of_what_is_left():
    spec = Spec(sparsity_from=0.5, sparsity=0.96, points=4)
    left = 1 - np.array(sparsities_of(spec))
    assert left == pytest.approx([0.5, 0.5 * 0.08 ** (1 / 3), 0.5 * 0.08 ** (2 / 3), 0.04])
    assert sparsities_of(Spec(sparsity=0.6, points=1)) == (0.6,)
    assert 1 / (1 - np.array(sparsities_of(Spec())))[[4, 6]] == pytest.approx([2.51, 3.98], abs=0.01)


def test_built_layers_have_the_numbers_that_they_must_have():
    alone = np.vstack([np.eye(4), np.zeros((4, 4))])
    spec, out = built(0 * alone, alone, opposites(4, 4), opposites(2, 4))
    found = values(spec, out)
    assert found["at_half"].value == found["in_digons"].value == 1
    assert found["sticky"].value == 1
    assert found["on_lines"].value == (0, 1, 1, 1)
    assert found["represented"].value == (0, 4, 8, 4)
    assert found["filled"].value == pytest.approx((0, 1, 1, 0.5))
    assert found["alone"].value == (0, 1, 0, 0)
    assert found["digons"].value == (0, 0, 1, 1)
    assert found["dimensions_per_feature"].value[1:] == pytest.approx((1, 0.5, 1))
    assert found["dimensionality"].value == pytest.approx((1,) * 4 + (0.5,) * 12)


def test_what_is_not_represented_counts_in_no_share():
    weak = opposites(4, 4)
    weak[4:] *= 0.3
    found = values(*built(weak))
    assert found["represented"].value == (4,)
    assert found["digons"].value == (1,)


def test_half_a_dimension_without_an_opposite_is_no_digon():
    """Eight features at ½ in a layer of four dimensions: a tight frame, two squares turned against each other."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0][:, :4]
    for _ in range(2000):  # alternate projections: equal norms, equal singular values
        turn = turn / np.linalg.norm(turn, axis=1, keepdims=True) / np.sqrt(2)
        u, _, v = np.linalg.svd(turn, full_matrices=False)
        turn = u @ v
    found = values(*built(np.sqrt(2) * turn))
    assert found["at_half"].value == 1
    assert found["in_digons"].value == 0


def test_training_finds_digons_and_then_larger_solids(trained):
    spec, out = trained
    found = values(spec, out)
    for sentence in EXAMPLES["digons-then-more"].expect:
        judged = verdicts.judge(
            claims.parse(sentence),
            Result("x", "key", False, tuple(found.values()), (), {}),
            {q.name: q.forced for q in EXPERIMENT.metrics},
        )
        assert judged.verdict == "supported", judged
    assert found["digons"].value[0] == 1
    assert max(np.add(found["pentagons"].value, found["antiprisms"].value)) > 0.5
    assert min(found["filled"].value) > 0.99
    assert found["sticky"].null < 0.6
    assert list(found["represented"].value) == sorted(found["represented"].value)


def test_the_numbers_are_those_of_the_best_seed_and_of_each(trained):
    spec, out = trained
    found, seen = values(spec, out), look(spec, out)
    for name, metric in found.items():
        assert len(metric.seeds) == metric.n == spec.seeds, name
        assert metric.value == metric.seeds[seen.best], name
    for seed in range(spec.seeds):
        one = spec.model_copy(update={"seeds": 1})
        alone = values(one, out._replace(W=out.W[:, [seed]], loss=out.loss[:, [seed]]))
        for name, metric in found.items():
            assert alone[name].value == pytest.approx(metric.seeds[seed]), name


def test_points_together_are_those_alone(quick):
    spec, out = quick
    other = spec.model_copy(update={"sparsity": 0.8, "threshold": 0.4})
    first, second = together([spec, other], BENCH)
    assert torch.allclose(first.W, out.W, atol=1e-4)
    assert torch.allclose(second.W, compute(other, BENCH).W, atol=1e-4)
    assert second.sparsities == sparsities_of(other)


def test_without_directions_of_their_own_there_are_few_digons(quick):
    """The null of the solids: in one dimension chance has no choice, in many it finds none."""
    line = Spec(**{**QUICK, "hidden": 1, "features": 4})
    assert compute(line, BENCH).chance.sum(-1).max() <= 1
    spec, out = quick
    wide = spec.model_copy(update={"features": 40, "hidden": 20})
    W = torch.nn.functional.normalize(torch.randn(1, 40, 20, generator=BENCH.generator("wide")), dim=-1).double()
    chance = superposition_geometry._chance(wide, W, BENCH.generator("chance"))
    assert float(chance[0, DIGON]) < 0.02
    assert out.chance.shape == (3, OTHER)


@pytest.mark.parametrize(
    "fields",
    [
        {"points": 1},
        {"steps": 1, "seeds": 1},
        {"hidden": 12, "features": 6},
        {"hidden": 1, "sparsity": 0.999},
        {"sparsity_from": 0.9, "sparsity": 0.9, "points": 2},
        {"learning_rate": 1.0, "batch": 16, "threshold": 1.0, "tolerance": 0.05, "features": 4, "points": 2},
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
        assert ((there >= quantity.range[0]) & (there <= quantity.range[1] + 1e-9)).all(), metric
    assert set(draw(spec, out)) <= set(EXPERIMENT.figures)


def test_the_checks_fail_where_something_is_wrong(monkeypatch, trained, quick):
    spec, out = trained

    def failed(spec=spec, out=out):
        return {check.name.split()[0] for check in verify(spec, out) if not check.ok}

    assert failed() == set()
    right = superposition_geometry.groups

    def neighbours_only(near):
        """Groups by the first neighbour, without going on from there: a pentagon stays whole, an antiprism does not."""
        first = torch.where(near, torch.arange(near.shape[-1]), near.shape[-1]).amin(-1)
        return torch.where(near.any(-1), torch.arange(near.shape[-1]) if near.sum(-1).max() < 2 else first, ABSENT)

    chain = torch.zeros(4, 3)
    chain[0, 0], chain[3, 2] = 1, 1
    chain[1], chain[2] = torch.tensor([0.6, 0.8, 0.0]), torch.tensor([0.0, 0.6, 0.8])
    alike = built(chain[[0, 3, 1, 2]])
    assert "groups" not in failed(*alike)
    monkeypatch.setattr(superposition_geometry, "groups", neighbours_only)
    assert "groups" in failed(*alike)
    monkeypatch.setattr(superposition_geometry, "groups", right)

    monkeypatch.setattr(superposition_geometry, "dimensionality", lambda W: W.square().sum(-1) / 2)
    assert failed() == {"D_i"}
    monkeypatch.undo()
    geometry = exam.geometry

    def own_part_forgotten(W):
        norm, interference, _ = geometry(W)
        return Geometry(norm, interference, norm**2 / interference.clamp(min=1e-9))

    monkeypatch.setattr(exam, "geometry", own_part_forgotten)
    assert failed() == {"Σ"}
    monkeypatch.undo()
    monkeypatch.setattr(exam, "linear_part", lambda theta, x: x @ theta[..., :-1] @ theta[..., :-1].mT)
    assert failed(quick[0], compute(quick[0], BENCH)) == {"loss", "fresh", "gradient"}  # b forgotten


def test_figures_are_whole_labelled_and_said_in_words(trained):
    figures = draw(*trained)
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
    assert "8 in digons at 2.5" in figures["solids"].alt


def test_every_solid_has_its_look():
    assert tuple(KINDS) == superposition_geometry.NAMES
    said = [kind.several.removeprefix("in ") for kind in KINDS.values()]
    assert said[:-1] == [solid.plural for solid in SOLIDS]


def test_fields_are_closed_and_in_order():
    assert Spec(sparsity="90%") == Spec()
    wrong = (
        {"sparsity_from": 0.9, "sparsity": 0.8},
        {"sparsity": 1.0},
        {"tolerance": 0.2},
        {"features": 512, "hidden": 64, "points": 32, "seeds": 32},
        {"importance": 0.9},
    )
    for fields in wrong:
        with pytest.raises(ValidationError):
            Spec(**fields)
    assert Spec(sparsity_from=0.95, sparsity=0.9, points=1).points == 1
