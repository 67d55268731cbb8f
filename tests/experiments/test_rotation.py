"""Rotation: a linear model answers a turn with a sinusoid, and what is turned is what was asked for."""

import math

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Directions
from vaultlab.experiments.rotation import EXPERIMENT, Spec, compute, draw, measure, verify
from vaultlab.models import toys
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.intervene import Edit, intervene
from vaultlab.models.load import assemble
from vaultlab.models.trace import Site, trace
from vaultlab.models.turning import angles, plane, turned
from vaultlab.plots.style import render
from vaultlab.result import Text

POSITIVE = tuple(f"The cat {verb} on the {thing}" for verb in ("sat", "was", "saw") for thing in ("mat", "dog", "cat"))
NEGATIVE = tuple(
    f"Paris is the {thing} of {place};" for place in ("France", "Italy", "Rome") for thing in ("cat", "mat", "city")
)
WORDS = {"words": ("the", "and"), "foils": ("cat", "it")}


def bench(model, given=None, batch=32, **texts):
    lists = {"positive": POSITIVE, "negative": NEGATIVE, **texts}
    read = {name: Text(name, "", tuple(("", one) for one in each)) for name, each in lists.items()}
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, texts=read, given=given or {}, batch=batch)


def run(model, given=None, texts=None, **fields):
    spec = Spec(model="tiny", **{**WORDS, "angles": 8, "draws": 8, **fields})
    return spec, compute(spec, bench(model, given, **(texts or {})))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name).value


def linear_model():
    """No norm and no MLP: behind the last layer's attention all is linear."""
    net = toys.fresh(AttnOnlyConfig(layers=2, context=48), draws("rotation"))
    return assemble("linear", "", net, toys.tokenizer())


def directions(vector, layers=3, chosen=1, site="resid_post", model="tiny"):
    return Directions(model, site, tuple(range(layers)), vector.repeat(layers, 1), chosen)


@pytest.fixture(scope="module")
def ran():
    return run(tiny_model("llama"))


def test_a_linear_model_answers_with_a_sinusoid_exactly():
    spec, out = run(linear_model(), layer=1, words=("t", "h"), foils=("a", "c"))
    assert value(spec, out, "sinusoid") == pytest.approx(1, abs=1e-6)
    assert [check for check in verify(spec, out) if not check.ok] == []


def test_a_model_that_squares_does_not():
    spec, out = run(tiny_model("gpt2"), layer=0)
    assert value(spec, out, "sinusoid") < 0.999


@pytest.mark.parametrize(("family", "dtype"), [("gpt2", torch.float32), ("llama", torch.bfloat16)])
def test_checks_hold_whatever_the_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype), layer=2)
    assert [check for check in verify(spec, out) if not check.ok] == []


def test_metrics_checks_and_figures(ran):
    spec, out = ran
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]
    drawn = draw(spec, out)
    assert drawn.keys() == EXPERIMENT.figures.keys()
    assert all(len(render(one).content) > 1000 for one in drawn.values())


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken):
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_scores_are_those_of_a_whole_pass_in_which_the_stream_is_turned():
    """One prompt after another, all layers run, the stream changed by an edit at its site."""
    model = tiny_model("llama")
    one, other = torch.randn(2, 48, generator=draws("planes"))
    given = {"direction": directions(one), "towards": directions(other)}
    _, out = run(model, given, direction="[[vaultlab/a]]", towards="[[vaultlab/b]]")
    basis, site = plane(one, other), Site("resid_post", 1)
    words, foils = ([int(model.token_id(word)) for word in WORDS[kind]] for kind in ("words", "foils"))
    order = torch.randperm(len(POSITIVE), generator=bench(model).generator("folds", 0, "positive")).tolist()
    for at, prompt in enumerate(order):
        ids = model.tokens(POSITIVE[prompt]).ids[None]
        for row, angle in enumerate(angles(8).tolist()):
            edit = Edit(site, lambda x, angle=angle: turned(x, basis, angle))
            logits = intervene(model, ids, [edit], [Site("logits")])[Site("logits")][0, -1]
            score = logits[words].mean() - logits[foils].mean()
            assert float(out.positive[row, at]) == pytest.approx(float(score), abs=2e-4)


def test_tokens_with_massive_activations_are_left_as_they_are(monkeypatch):
    model = tiny_model("llama")
    _, plain = run(model, layer=1)
    first = torch.zeros(64, dtype=torch.bool)
    first[0] = True
    monkeypatch.setattr("vaultlab.experiments.rotation.sinks", lambda x, real: first[: x.shape[1]].expand(x.shape[:2]))
    _, out = run(model, layer=1)
    assert out.massive == plain.massive + len(POSITIVE[4:]) + len(NEGATIVE[4:])
    assert not torch.allclose(out.positive[2], plain.positive[2], atol=1e-4)
    torch.testing.assert_close(out.positive[0], plain.positive[0], atol=1e-5, rtol=1e-5)


def test_the_direction_is_found_on_prompts_that_do_not_judge(ran):
    _, out = ran
    model, means = tiny_model("llama"), []
    for field, texts in (("positive", POSITIVE), ("negative", NEGATIVE)):
        order = torch.randperm(9, generator=bench(model).generator("folds", 0, field))[:4].tolist()
        site = Site("resid_post", out.layer)
        rows = [trace(model, model.tokens(texts[at]).ids[None], [site])[site][0, -1] for at in order]
        means.append(torch.stack(rows).mean(0))
    given = {"direction": directions(means[0] - means[1])}
    _, same = run(
        model, given, {"positive": POSITIVE, "negative": NEGATIVE}, direction="[[vaultlab/a]]", layer=out.layer
    )
    assert out.positive.shape[1] == 5
    assert same.positive.shape[1] == 9, "a given direction was found elsewhere: all judge"
    order = torch.randperm(9, generator=bench(model).generator("folds", 0, "positive")).tolist()
    assert sorted(order) == list(range(9))
    torch.testing.assert_close(same.positive[:, 4:], out.positive, atol=2e-4, rtol=1e-4)


def test_what_enters_a_layer_is_what_stands_behind_the_one_below():
    vectors, model = torch.randn(3, 48, generator=draws("layers")), tiny_model("llama")
    entering = Directions("tiny", "resid_pre", (0, 1, 2), vectors, 2)
    behind = Directions("tiny", "resid_post", (1,), vectors[2:], 1)
    outs = [run(model, {"direction": one}, direction="[[vaultlab/a]]")[1] for one in (entering, behind)]
    assert [out.layer for out in outs] == [1, 1]
    assert torch.equal(outs[0].positive, outs[1].positive)
    with pytest.raises(NoteError, match="has no layer -1"):
        run(model, {"direction": entering._replace(chosen=0)}, direction="[[vaultlab/a]]")


def test_the_batch_changes_no_score():
    spec, model = Spec(model="tiny", angles=8, draws=8, **WORDS), tiny_model("gpt2")
    outs = [compute(spec, bench(model, batch=batch)) for batch in (2, 32)]
    torch.testing.assert_close(outs[0].positive, outs[1].positive, atol=1e-4, rtol=1e-4)


def test_without_a_layer_it_is_the_directions_own():
    vector = torch.randn(48, generator=draws("own"))
    _, out = run(tiny_model("llama"), {"direction": directions(vector, chosen=2)}, direction="[[vaultlab/a]]")
    assert out.layer == 2


@pytest.mark.parametrize(
    ("fields", "given", "says"),
    [
        ({"layer": 3}, {}, "has no layer 3"),
        ({"direction": "[[a]]"}, {"direction": directions(torch.ones(48), model="other")}, "is one of other"),
        ({"direction": "[[a]]"}, {"direction": directions(torch.ones(48), site="mlp")}, "found at `mlp`"),
        (
            {"direction": "[[a]]", "layer": 2},
            {"direction": directions(torch.ones(48), 2)},
            "none of the stream after layer 2",
        ),
        (
            {"direction": "[[a]]", "towards": "[[b]]"},
            {"direction": directions(torch.ones(48)), "towards": directions(-torch.ones(48))},
            "on one line",
        ),
        ({"words": ("unheard-of",)}, {}, "unheard-of"),
    ],
)
def test_what_cannot_be_turned_is_told(fields, given, says):
    with pytest.raises(NoteError, match=says):
        run(tiny_model("llama"), given, **fields)


def test_too_few_prompts_are_told_on_their_field():
    with pytest.raises(NoteError, match="has 2 prompts") as told:
        run(tiny_model("llama"), texts={"negative": ("a", "b")})
    assert told.value.field == "negative"
