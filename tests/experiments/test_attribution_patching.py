"""Estimates from a gradient: exact where it is linear, by hand where it is not, and what is wrong is seen."""

import math
import re

import pytest
import torch

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import attribution_patching as experiment
from vaultlab.experiments.attribution_patching import EXPERIMENT, Spec, compute, draw, measure, verify
from vaultlab.models import toys
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.gradients import gradients
from vaultlab.models.load import assemble
from vaultlab.models.shuffle import shuffled
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

CLEAN, CORRUPT = "The cat saw the mat", "The dog saw the mat"


def run(model, **fields):
    words = {"clean": CLEAN, "corrupt": CORRUPT, "answer": "cat", "foil": "dog"}
    spec = Spec(**{"model": "tiny", **words, **fields})
    texts = {name: Text("", "0", (("", getattr(spec, name)),)) for name in ("clean", "corrupt")}
    return spec, compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model, texts))


def value(spec, out, name):
    return next(metric.value for metric in measure(spec, out) if metric.name == name)


def attn_only(layers):
    net = toys.fresh(AttnOnlyConfig(layers=layers, d_model=48, heads=4), draws("linear"))
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(2)
    return assemble("attn-only", "", net, toys.tokenizer())


LETTERS = {"clean": "kQ7x kQ7", "corrupt": "kQ7y kQ8", "answer": "x", "foil": "y"}


def test_on_a_linear_model_it_is_patching() -> None:
    """One layer, no norm: logits are linear in what the layer and each head write."""
    spec, out = run(attn_only(1), site="attn", **LETTERS)
    torch.testing.assert_close(out.cells, out.true_cells, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.heads, out.true_heads, atol=1e-5, rtol=1e-5)
    assert out.true_heads.abs().max() > 1e-2
    assert value(spec, out, "correlation") == pytest.approx(1)


def test_where_a_pattern_comes_after_it_is_not() -> None:
    _, out = run(attn_only(2), site="attn", **LETTERS)
    torch.testing.assert_close(out.heads[1], out.true_heads[1], atol=1e-5, rtol=1e-4)  # nothing comes after it
    assert (out.heads[0] - out.true_heads[0]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("family", "dtype"), [*((family, torch.float32) for family in FAMILIES), ("llama", torch.bfloat16)]
)
def test_checks_hold_in_every_family(family, dtype) -> None:
    spec, out = run(tiny_model(family, seed=3, dtype=dtype))
    assert [check.name for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


SITES = ("resid_pre", "attn", "resid_mid", "mlp", "q", "k", "v", "z", "pattern", "resid_post")


@pytest.mark.parametrize(
    ("family", "name", "by", "near"),
    [*(("gpt2", name, 1e-5, 1e-5) for name in SITES), *(("llama", name, 1e-2, 2e-2) for name in ("k", "v", "pattern"))],
)
def test_gradients_are_what_a_small_change_does(family, name, by, near) -> None:
    """At every site: d(x + εw) − d(x − εw) over 2ε, for a random w; in float64, but for the norms of llama."""
    model = tiny_model(family, dtype=torch.float64)
    ids, site = model.tokens(CLEAN).ids, Site(name, 1)
    u = torch.randn(48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = gradients(model, ids, [site], lambda final: final @ u)
    w = torch.randn(found.values[site].shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = [
        trace(model, ids[None], [Site("final")], [(site, lambda x, step=step: x + step * w)])[Site("final")][0, -1] @ u
        for step in (by, -by)
    ]
    assert float((ends[0] - ends[1]) / (2 * by)) == pytest.approx(float((found.by[site] * w).sum()), rel=near, abs=near)


def test_a_model_made_within_inference_takes_gradients() -> None:
    with torch.inference_mode():
        model = shuffled(tiny_model("llama"), torch.Generator().manual_seed(0))
        site = Site("z", 0)
        assert gradients(model, model.tokens(CLEAN).ids, [site], lambda final: final.sum()).by[site].abs().max() > 0


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [5.0, math.nan])
def test_every_residual_can_fail_its_check(field, broken) -> None:
    spec, out = run(tiny_model("gpt2"))
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_the_gradient_at_the_donor_is_seen(monkeypatch) -> None:
    """The slope of the wrong run: the trap that a sign or an order of prompts sets."""
    real = experiment.gradients
    model = tiny_model("llama")
    donor = model.tokens(CLEAN).ids
    monkeypatch.setattr(experiment, "gradients", lambda model, _base, *more: real(model, donor, *more))
    spec, out = run(model)
    assert "the pass with gradients = the pass without" in [check.name for check in verify(spec, out) if not check.ok]


def test_what_is_measured_is_what_was_planted() -> None:
    spec, out = run(tiny_model("llama"))
    doubled = out._replace(true_cells=2 * out.cells, true_heads=-out.heads)
    assert value(spec, doubled, "slope") == pytest.approx(2)
    assert value(spec, doubled, "correlation") == pytest.approx(1)
    assert value(spec, doubled, "heads_correlation") == pytest.approx(-1)
    assert value(spec, doubled, "top_found") == 6
    assert value(spec, doubled, "worst") == pytest.approx(float(out.cells.abs().max()))


def test_several_pairs_are_refused() -> None:
    with pytest.raises(NoteError, match="2 pairs") as error:
        run(tiny_model("llama"), clean=f"{CLEAN}\n{CLEAN}", corrupt=f"{CORRUPT}\n{CORRUPT}")
    assert error.value.field == "clean"


def test_figures_say_what_they_show() -> None:
    spec, out = run(tiny_model("llama"))
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)
    assert re.search(r"in layer \d, estimated", drawings["maps"].alt)
