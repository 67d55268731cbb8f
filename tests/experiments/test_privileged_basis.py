"""Privileged basis: both modes on any spec, planted bases and planted sinks, what turning must leave, figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.drawings import assert_whole
from tests.tiny import TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import privileged_basis
from vaultlab.experiments.privileged_basis import EXPERIMENT, Spec, compute, draw, measure, needs, reads, verify
from vaultlab.models.basis import kurtosis, over_rows, turn, turned_kurtosis
from vaultlab.models.load import load
from vaultlab.models.trace import Site, trace
from vaultlab.result import Text

QUICK = {"steps": 60, "seeds": 2, "features": 6, "hidden": 3}


def bench(model=None, text=TEXT):
    def the_model(name):
        return model or pytest.fail("no model is wanted")

    return Bench(torch.device("cpu"), torch.float32, the_model, {"text": Text("", "0", (("", text),))})


def run(model=None, **fields):
    spec = Spec(**{**QUICK, **({"model": "tiny", "text": TEXT} if model else {}), **fields})
    return spec, compute(spec, bench(model))


def numbers(spec, out):
    return {metric.name: metric.value for metric in measure(spec, out)}


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def looked_at(spec, out):
    assert failed(spec, out) == []
    for metric in measure(spec, out):
        quantity = next(q for q in EXPERIMENT.metrics if q.name == metric.name)
        assert np.all(
            (quantity.range[0] <= np.ravel(metric.value)) & (np.ravel(metric.value) <= quantity.range[1] + 1e-6)
        )
    figures = draw(spec, out)
    assert [name for name in EXPERIMENT.figures if name in figures] == list(figures)
    for drawing in figures.values():
        assert_whole(drawing)
    return set(figures)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 1, "seeds": 1},
        {"features": 2, "hidden": 4, "sparsity": 0.999},
        {"features": 30, "hidden": 2, "importance": 1.0, "threshold": 1.0},
        {"sparsity": 0},
    ],
)
def test_toys_of_every_spec(fields):
    assert looked_at(*run(**fields)) == {"alignment", "weights", "turning", "reference"}


@pytest.mark.parametrize("site", ["resid_pre", "resid_post", "attn", "mlp", "m"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_models_at_every_site(family, site):
    model = tiny_model(family)
    spec, out = run(model, site=site, layer=1)
    assert looked_at(spec, out) == {"alignment", "layers", "coordinates", "reference"}
    ids = model.tokens(TEXT).ids[:512]
    x = trace(model, ids[None], [Site(site, 1)])[Site(site, 1)][0].double()
    x = x[x.norm(dim=-1) <= 5 * x.norm(dim=-1).median()]
    found = numbers(spec, out)
    assert found["kurtosis"] == pytest.approx(float(kurtosis(x).mean()), rel=1e-5)
    assert found["coordinate_kurtosis"] == pytest.approx(float(over_rows(x).mean()), rel=1e-5)
    assert found["mean_alignment"] == pytest.approx(float((x.abs().amax(-1) / x.norm(dim=-1)).mean()), rel=1e-5)
    assert len(found["kurtosis_by_layer"]) == model.shape.layers
    assert reads(spec, model.shape).sites == tuple(Site(site, layer) for layer in range(3))
    assert needs(spec, model.shape).bytes > model.shape.bytes


def planted(rows):
    """A model whose every layer has these activations."""
    model, text = tiny_model("llama"), 4 * TEXT
    spec = Spec(model="tiny", text=text, layer=1, tokens=len(rows))
    return spec, compute(
        spec, replace(bench(model, text), trace=lambda model, ids, sites: dict.fromkeys(sites, rows[None]))
    )


def test_a_planted_basis_is_found_and_lost_when_turned():
    """Few of many neurons fire: 3/p − 3 for the pooled, near that for each; turned, nothing is left."""
    generator = torch.Generator().manual_seed(0)
    size, p = (128, 400), 0.1
    rows = torch.randn(size, generator=generator) * (torch.rand(size, generator=generator) < p)
    found = numbers(*planted(rows))
    assert found["kurtosis"] == pytest.approx(3 / p - 3, rel=0.12)
    assert found["density"] == pytest.approx(p, rel=0.12)
    assert found["turned_kurtosis"] == pytest.approx(turned_kurtosis(400), abs=0.1)
    found = numbers(*planted(rows @ turn(400, generator).float()))
    assert found["kurtosis"] == pytest.approx(0, abs=0.2)
    assert found["density"] == pytest.approx(1, abs=0.1)


def test_one_massive_token_left_in_turns_the_sign(monkeypatch):
    """Peaked coordinates over tokens, and a first token that is huge in every one of them once it is turned."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(128, 64, generator=generator) * (torch.rand(128, 64, generator=generator) < 0.3)
    rows[0] = 0
    rows[0, 5] = 3000.0
    spec, out = planted(rows)
    found = numbers(spec, out)
    assert found["coordinate_kurtosis"] > float(out.coordinate_turned[1]) + 1
    assert len(out.sinks) == 1
    assert out.sinks[0] in draw(spec, out)["alignment"].alt
    monkeypatch.setattr(privileged_basis, "sinks", lambda x: torch.zeros(len(x), dtype=torch.bool))
    spec, out = planted(rows)
    assert numbers(spec, out)["coordinate_kurtosis"] < float(out.coordinate_turned[1]) - 10


@pytest.mark.model
def test_on_a_language_model_too_the_sign_is_right_only_without_the_sink(monkeypatch):
    model = load("smollm2-135m")
    spec = Spec(model="smollm2-135m", layer=15)
    out = compute(spec, bench(model))
    assert float(out.coordinate[15]) > float(out.coordinate_turned[15])
    monkeypatch.setattr(privileged_basis, "sinks", lambda x: torch.zeros(len(x), dtype=torch.bool))
    out = compute(spec, bench(model))
    assert float(out.coordinate[15]) < float(out.coordinate_turned[15])


def test_shuffled_weights_lose_what_was_learnt():
    model = tiny_model("llama")
    spec, out = run(model, weights="shuffled", layer=1)
    assert failed(spec, out) == []
    assert numbers(spec, out)["kurtosis"] != pytest.approx(numbers(*run(model, layer=1))["kurtosis"])
    assert reads(spec, model.shape) is None


def test_numbers_are_those_of_the_seed_with_the_lowest_loss():
    spec, out = run(seeds=3, steps=200)
    found = {metric.name: metric for metric in measure(spec, out)}
    best = int(out.loss[0].argmin())
    for name in ("kurtosis", "mean_alignment", "alignment"):
        assert found[name].value == found[name].seeds[best]
    assert found["loss_turned"].value > 1


def test_the_checks_fail_where_something_is_wrong(monkeypatch):
    assert failed(*run()) == []
    right = privileged_basis.turn
    monkeypatch.setattr(
        privileged_basis, "turn", lambda d, generator: right(d, generator) * (1 + 0.01 * torch.arange(d))
    )
    wrong = failed(*run())
    assert "turning changes nothing without the ReLU" in wrong
    assert "turning keeps every length" in wrong
    monkeypatch.setattr(privileged_basis, "turn", lambda d, generator: torch.eye(d, dtype=torch.float64))
    rows = torch.randn(50, 40, generator=torch.Generator().manual_seed(0)) ** 3
    assert failed(*planted(rows)) == ["kurtosis when turned = −6/(d + 2)"]
    monkeypatch.undo()
    monkeypatch.setattr(privileged_basis, "toys_of", lambda spec: (lambda toys: (toys[1], toys[0]))(_toys(spec)))
    assert "turning changes nothing without the ReLU" in failed(*run(steps=300))
    monkeypatch.undo()
    gaussians = privileged_basis.sparse_gaussians
    monkeypatch.setattr(
        privileged_basis, "sparse_gaussians", lambda p, count, generator: gaussians(0.9 * p, count, generator)
    )
    assert failed(*run()) == ["sparse Gaussians have 3/p − 3"]


_toys = privileged_basis.toys_of


def test_what_cannot_be_read_is_said():
    model = tiny_model("llama")
    with pytest.raises(NoteError, match="no layer 3"):
        run(model, layer=3)
    with pytest.raises(NoteError, match="at least 16"):
        compute(Spec(model="tiny", text="short"), bench(model, "short"))
    assert compute(Spec(model="tiny"), bench(model)).dimensions == 48  # a passage of its own


def test_fields_are_closed_strict_and_ranged():
    for wrong in ({"hidden": 1}, {"site": "z"}, {"tokens": 3}, {"layr": 2}):
        with pytest.raises(ValidationError):
            Spec(**wrong)
