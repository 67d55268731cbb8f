"""Feature properties: the four known cases under all three rules, told apart by loops, traps, checks and figures."""

import itertools
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import feature_properties
from vaultlab.experiments.feature_properties import (
    AT_ONCE,
    CASES,
    EXPERIMENT,
    Spec,
    compute,
    draw,
    measure,
    needs,
    polygon,
    readings,
    rules_of,
    told_apart,
    verify,
)
from vaultlab.models import parts
from vaultlab.models.geometry import alignment, dimensionality, geometry, rank, spectrum

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"steps": 60, "seeds": 3}
TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)


def random(n, m, seed=0):
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def of_matrix(W, **fields):
    spec = Spec(matrix=tuple(tuple(row) for row in torch.as_tensor(W).tolist()), **fields)
    return spec, compute(spec, BENCH)


def values(spec, out):
    return {metric.name: metric.value for metric in measure(spec, out)}


# -- superposition: the rules


@pytest.mark.parametrize(
    ("name", "represented", "on", "superposed"),
    [("pentagon", 5, 2, True), ("opposites", 2, 1, True), ("dropped", 1, 1, False), ("one-hot", 4, 4, False)],
)
def test_the_four_cases(name, represented, on, superposed):
    rules = rules_of(CASES[name], 0.01)
    assert (rules.represented, rules.rank, rules.superposed) == (represented, on, superposed)
    found = values(*of_matrix(CASES[name]))
    assert (found["represented"], found["rank"], found["superposed"]) == (represented, on, superposed)
    assert found["large_gram_singular"] == rules.large_singular
    assert found["small_gram_singular"] == rules.small_singular


def test_the_literal_rule_fails_both_ways():
    right = {name: rules_of(W, 0.01).superposed for name, W in CASES.items()}
    large = {name: rules_of(W, 0.01).large_singular for name, W in CASES.items()}
    small = {name: rules_of(W, 0.01).small_singular for name, W in CASES.items()}
    assert [name for name in CASES if large[name] != right[name]] == ["dropped"]
    assert [name for name in CASES if small[name] != right[name]] == ["pentagon", "opposites"]
    said = draw(*of_matrix(CASES["dropped"]))["rules"].alt
    assert "W Wᵀ singular is wrong about this W, dropped" in said
    assert "WᵀW singular is wrong about pentagon, opposites" in said


def test_the_rank_is_that_of_the_represented_rows():
    """Two opposite features, and a third that is too weak to count but spans the other dimension."""
    found = values(*of_matrix([[1.0, 0], [-1, 0], [0, 0.1]]))
    assert (found["represented"], found["rank"], found["superposed"]) == (2, 1, 1)
    assert values(*of_matrix([[1.0, 0], [-1, 0], [0, 0.9]]))["superposed"] == 1
    assert values(*of_matrix([[1.0, 0], [-1, 1e-4]]))["rank"] == 1  # training stops near 0, not at it
    assert values(*of_matrix([[1.0, 0], [-1, 1e-4]], tolerance=1e-6))["rank"] == 2


def test_a_matrix_counts_the_same_at_any_scale():
    for scale in (1e-3, 1.0, 250.0):
        found = values(*of_matrix(scale * polygon(5)))
        assert found["represented"] == 5
        assert found["linearity"] == pytest.approx([0.4] * 5)


def test_ranks_by_three_ways():
    for n, m, r in ((6, 4, 2), (3, 5, 3), (7, 7, 7)):
        W = random(n, r, 1) @ random(r, m, 2)
        assert int(rank(spectrum(W), 1e-6)) == r == int(torch.linalg.matrix_rank(W))
        assert spectrum(W)[: min(n, m)].numpy() == pytest.approx(torch.linalg.svdvals(W).numpy(), abs=1e-6)


# -- decomposability


@pytest.mark.parametrize(
    ("W", "shares", "sure"),
    [
        (torch.eye(3), [1, 1, 1], 3),
        (CASES["opposites"], [1, 0], 1),
        (polygon(3), [1, 0, 0], 1),  # two at once read exactly ½
        (polygon(5), [1, 1 / 2, 0, 0, 0], 1),
        (TETRAHEDRON, [1, 1, 0, 0], 2),
        (torch.tensor([[1.0, 0], [1, 0]]), [0, 1], 0),
    ],
)
def test_known_arrangements_are_told_apart_as_they_must_be(W, shares, sure):
    found, guaranteed = told_apart(W.double(), generator())
    assert found[: len(W)].tolist() == pytest.approx(shares)
    assert found[len(W) :].tolist() == [1] * (AT_ONCE - len(W))  # no set of so many, and so none that fails
    assert guaranteed == sure


def test_told_apart_by_loops():
    W = random(7, 5)
    unit = W / W.norm(dim=1, keepdim=True)
    found, _ = told_apart(W, generator())
    for k in (1, 2, 3):
        right = 0
        for present in itertools.combinations(range(7), k):
            h = sum(unit[i] for i in present)
            right += all((float(unit[j] @ h) > 0.51) if j in present else (float(unit[j] @ h) < 0.49) for j in range(7))
        assert float(found[k - 1]) == pytest.approx(right / math.comb(7, k))


def test_of_many_features_sets_are_drawn():
    W = random(60, 30)
    shares, sure = told_apart(W, generator())
    again, _ = told_apart(W, generator(5))
    assert shares[:2].tolist() == again[:2].tolist()  # 1 and 2 of 60: all sets are tried
    assert 0 < abs(float(shares[3] - again[3])) < 0.05
    assert sure == 0


# -- linearity and alignment


def test_reading_along_a_direction_is_worth_its_dimensionality():
    for W in (polygon(5), random(6, 3), random(3, 6), torch.diag(torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64))):
        assert dimensionality(W).numpy() == pytest.approx(geometry(W).dimensionality.numpy())
        assert readings(W, generator()).numpy() == pytest.approx(dimensionality(W).numpy(), abs=0.02)


def test_a_row_of_zeros_reads_nothing():
    W = torch.tensor([[1.0, 0], [0, 0]], dtype=torch.float64)
    assert dimensionality(W).tolist() == [1, 0]
    assert readings(W, generator()).tolist() == pytest.approx([1, 0])
    assert alignment(W).tolist() == [1, 0]


def test_alignment_of_one_hot_even_and_random_rows():
    assert alignment(torch.tensor([[0, -3.0, 0], [1, 1, 1]])).tolist() == pytest.approx([1, 1 / math.sqrt(3)])
    drawn = alignment(random(4000, 2))
    assert float(drawn.mean()) == pytest.approx(
        4 / math.pi * math.sin(math.pi / 4), abs=0.005
    )  # of an angle, in a plane


# -- whole runs


@pytest.mark.parametrize(
    "fields",
    [
        {"matrix": ((0.0,), (2.0,))},
        {"matrix": ((1.0, 2.0, 3.0),)},
        {"steps": 1, "seeds": 1, "sparsity": 0.999},
        {"features": 2, "hidden": 6},
        {"features": 12, "hidden": 4, "weights": "shuffled"},
        {"features": 9, "hidden": 3, "threshold": 1.0, "sparsity": 0},
    ],
)
def test_the_checks_hold_and_figures_are_whole_for_every_spec(fields):
    spec = Spec(**{**QUICK, **fields})
    out = compute(spec, BENCH)
    assert [check for check in verify(spec, out) if not check.ok] == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        assert np.all((quantity.range[0] <= np.ravel(metric.value)) & (np.ravel(metric.value) <= quantity.range[1]))
    figures = draw(spec, out)
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert_whole(drawing)


@pytest.mark.parametrize("part", ["W_out", "W_in", "W_E"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_weights_of_a_model(family, part):
    model = tiny_model(family)
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model)
    spec = Spec(model="tiny", part=part, layer=None if part == "W_E" else 1)
    out = compute(spec, bench)
    assert [check for check in verify(spec, out) if not check.ok] == []
    mlp, norm = parts.mlp(model, 1), parts.mlp_norm(model, 1)
    expected = {"W_out": mlp.W_out, "W_in": (norm.gain[:, None] * mlp.W_in).T, "W_E": parts.embedding(model).W_E}[part]
    assert torch.allclose(out.norm[0].float(), expected.norm(dim=-1), rtol=1e-5)
    assert torch.allclose(out.alignment[0].float(), alignment(expected), rtol=1e-5)
    if part == "W_in":  # the norm's gain is in what a neuron reads
        assert not torch.allclose(out.alignment[0].float(), alignment(mlp.W_in.T), rtol=1e-3)
    assert values(spec, out)["represented"] == int((out.norm[0] >= 0.5 * out.norm[0].square().mean().sqrt()).sum())
    assert needs(spec, model.shape).bytes > model.shape.bytes


def test_a_layer_that_is_not_there_is_said():
    model = tiny_model("llama")
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model)
    with pytest.raises(NoteError, match="no layer 3"):
        compute(Spec(model="tiny", layer=3), bench)


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    spec, out = of_matrix(polygon(5))

    def failed(out):
        return [check.name for check in verify(spec, out) if not check.ok]

    assert failed(out) == []
    assert failed(out._replace(guaranteed=torch.tensor([2]))) == ["what is certain is told apart"]
    assert failed(out._replace(linearity=2 * out.linearity)) == ["Σ D_i ≤ rank W"]
    monkeypatch.setattr(
        feature_properties, "geometry", lambda W: geometry(W)._replace(dimensionality=W.norm(dim=-1) ** 2)
    )
    assert failed(compute(spec, BENCH)) == ["R² of a reading = D_i"]
    monkeypatch.setattr(feature_properties, "alignment", lambda W: W.abs().amax(-1) / W.abs().sum(-1))
    assert "1/√m ≤ alignment ≤ 1" in failed(compute(spec, BENCH))
    monkeypatch.setattr(feature_properties, "spectrum", lambda W: spectrum(W - W.mean(0)))
    tilted = Spec(matrix=((1.0, 0.0), (1.0, 1.0)))
    assert "rank W = rank W Wᵀ = rank WᵀW" in [
        check.name for check in verify(tilted, compute(tilted, BENCH)) if not check.ok
    ]


def test_shuffling_keeps_the_numbers_and_loses_the_arrangement():
    spec = Spec(features=6, hidden=3, sparsity=0.9, steps=800, seeds=2)
    trained, shuffled = compute(spec, BENCH), compute(spec.model_copy(update={"weights": "shuffled"}), BENCH)
    assert float(trained.norm.square().sum()) == pytest.approx(float(shuffled.norm.square().sum()))
    assert min(values(spec, trained)["linearity"]) == pytest.approx(0.5, abs=0.05)
    assert values(spec, trained)["represented"] == 6 > values(spec, shuffled)["represented"]


def test_a_matrix_goes_before_a_model_and_a_model_before_a_toy():
    spec = Spec(matrix=((1.0,),), model="not-there")
    assert compute(spec, BENCH).what == "the matrix"


def test_fields_are_closed_strict_and_ranged():
    for wrong in (
        {"matrix": ()},
        {"matrix": ((1.0,), (1.0, 2.0))},
        {"matrix": ((0.0, 0.0),)},
        {"part": "W_Q"},
        {"hiden": 2},
    ):
        with pytest.raises(ValidationError):
            Spec(**wrong)
    assert Spec.model_validate_json('{"matrix": [[1, 0], [0.5, 2]]}').matrix == ((1.0, 0.0), (0.5, 2.0))
