"""Almost orthogonal: its examples, its checks on any spec and on wrong arrangements, what its figures say."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from vaultlab.experiment import Bench
from vaultlab.experiments import almost_orthogonal
from vaultlab.experiments.almost_orthogonal import (
    EXPERIMENT,
    Spec,
    compute,
    draw,
    measure,
    needs,
    promise_at,
    promise_says,
    sizes_of,
    verify,
)

BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: pytest.fail("no model is wanted"))
QUICK = {"draws": 30, "steps": 40, "seeds": 2}


def run(**fields):
    spec = Spec(**{**QUICK, **fields})
    return spec, compute(spec, BENCH)


def numbers(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


@pytest.mark.parametrize(
    "fields",
    [
        {"vectors": 2, "dimensions": 2, "steps": 1},
        {"vectors": 3, "dimensions": 2, "draws": 20},
        {"vectors": 5, "dimensions": 300},
        {"vectors": 90, "dimensions": 3, "seeds": 1},
        {"vectors": 40, "dimensions": 12, "seed": 5},
    ],
)
def test_the_checks_hold_for_every_spec(fields):
    spec, out = run(**fields)
    assert [check for check in verify(spec, out) if not check.ok] == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        assert np.all((quantity.range[0] <= np.ravel(metric.value)) & (np.ravel(metric.value) <= quantity.range[1]))
    figures = draw(spec, out)
    assert list(figures) == list(EXPERIMENT.figures)
    for drawing in figures.values():
        assert_whole(drawing)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    spec, out = run(vectors=40, dimensions=20, draws=400)
    assert failed(spec, out) == []
    assert failed(spec, out._replace(packed_most=0.3 * out.packed_most)) == ["no arrangement beats Welch's bound"]
    assert failed(spec, out._replace(random_most=out.random_most**2)) == [
        "the largest of random pairs is where it must be"
    ]
    right = almost_orthogonal.tail
    monkeypatch.setattr(almost_orthogonal, "tail", lambda cosine, d: right(cosine, d // 4))
    assert failed(spec, out) == ["P(|cos| > ε) ≤ 2 e^{−dε²/2}"]


@pytest.mark.parametrize("wrong", ["uniform cube", "never normalised", "one dimension too few"])
def test_vectors_that_are_not_uniform_on_the_sphere_are_seen(monkeypatch, wrong):
    def drawn(spec, bench, *name):
        generator = bench.generator(*name, spec.seed)
        size = (spec.vectors, spec.dimensions)
        if wrong == "uniform cube":
            return torch.nn.functional.normalize(torch.rand(size, generator=generator), dim=-1)
        if wrong == "never normalised":
            return torch.randn(size, generator=generator) / math.sqrt(spec.dimensions)
        flat = torch.randn(size, generator=generator)
        flat[:, 0] = 0
        return torch.nn.functional.normalize(flat, dim=-1)

    monkeypatch.setattr(almost_orthogonal, "_vectors", drawn)
    assert "random pairs follow the beta law" in failed(*run(vectors=40, dimensions=8, draws=100))


def test_the_largest_among_the_first_so_many_by_loops():
    spec, out = run(vectors=9, dimensions=4, draws=20)
    assert out.sizes == sizes_of(spec) == (2, 4, 9)
    for one in (0, 7):
        U = almost_orthogonal._vectors(spec, BENCH, "random", one).double()
        for rung, size in enumerate(out.sizes):
            expected = max(abs(float(U[i] @ U[j])) for i in range(size) for j in range(i))
            assert float(out.random_most[one, rung]) == pytest.approx(expected, abs=1e-6)
    assert float(out.counts.sum()) == 20 * 9 * 8 / 2


def test_numbers_are_those_of_the_best_packing():
    spec, out = run(vectors=12, dimensions=5, seeds=3)
    found = numbers(spec, out)
    best = int(np.argmin(found["max_cosine"].seeds))
    U = out.packed.double()
    cosines = [[abs(float(U[i] @ U[j])) for j in range(12) if j != i] for i in range(12)]
    assert found["nearest"].value == pytest.approx([max(row) for row in cosines], abs=1e-6)
    assert found["max_cosine"].value == found["max_cosine"].seeds[best] == max(found["nearest"].value)
    assert found["mean_square_cosine"].value == pytest.approx(np.mean(np.square(cosines)), abs=1e-6)
    assert found["promised"].value == pytest.approx(math.exp(5 * found["max_cosine"].value ** 2 / 4))
    low, high = found["random_max_cosine"].interval
    assert low <= found["random_max_cosine"].value <= high


def test_more_vectors_keep_the_first_and_another_seed_draws_others():
    _, out = run(vectors=10, dimensions=4)
    assert torch.equal(out.random[:6], run(vectors=10, dimensions=4, seeds=1)[1].random[:6])
    assert not torch.allclose(out.random, run(vectors=10, dimensions=4, seed=1)[1].random)


def test_the_promise_and_where_it_is_vacuous():
    for d in (2, 5, 8):
        assert promise_says(d) == f"N < e^(dε²/4) is vacuous in {d} dimensions"
        assert promise_at(d + 1, d) >= 1  # one vector more than the dimensions, and already nothing is said
    assert promise_says(32) == "N < e^(dε²/4) is vacuous unless 32 < N < 2981"
    assert promise_at(100, 32) < 1
    assert promise_at(2982, 32) > 1
    spec, out = run(vectors=16, dimensions=8)
    drawing = draw(spec, out)["bounds"]
    assert "vacuous in 8 dimensions" in drawing.alt
    assert "vacuous in 8 dimensions" in drawing.figure.axes[0].get_title()
    assert "promised" not in [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    spec, out = run(vectors=40, dimensions=32)
    assert "promised" in [text.get_text() for text in draw(spec, out)["bounds"].figure.legends[0].get_texts()]


def test_an_estimate_grows_with_what_is_asked():
    small, large = needs(Spec(**QUICK), None), needs(Spec(**{**QUICK, "vectors": 512}), None)
    assert small.bytes < large.bytes
    assert small.seconds < large.seconds


def test_fields_are_closed_strict_and_ranged():
    for wrong in ({"vectors": 1}, {"dimensions": 1}, {"vectors": 5.0}, {"vector": 5}, {"draws": 3}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
