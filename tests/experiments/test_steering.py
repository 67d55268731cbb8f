"""Steering: what is pushed is what a plain hook pushes, nothing is nothing, and guidance keeps the length."""

import math
import re

import pytest
import torch
from pydantic import ValidationError

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Directions
from vaultlab.experiments.steering import EXPERIMENT, Spec, compute, draw, effects, measure, said, verify
from vaultlab.models.draws import draws
from vaultlab.models.steered import continued, pushed
from vaultlab.plots.style import render
from vaultlab.result import Text

LISTS = {
    "positive": ("The cat sat on the mat", "The dog saw the cat"),
    "negative": ("Paris is the capital of France", "Rome is the capital of Italy"),
    "prompts": ("She said that", "One, two", "A second line was"),
    "neutral": ("and it was so.", "The first was shorter."),
}
WORDS = {"words": ("the", "and"), "foils": ("cat", "it")}


def bench(model, given=None, **texts):
    read = {name: Text(name, "", tuple(("", one) for one in each)) for name, each in {**LISTS, **texts}.items()}
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, texts=read, given=given or {})


def run(model, given=None, texts=None, **fields):
    spec = Spec(model="tiny", **{**WORDS, "strengths": (-1.0, 0.0, 2.0), **fields})
    return spec, compute(spec, bench(model, given, **(texts or {})))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


@pytest.fixture(scope="module")
def ran():
    return run(tiny_model("llama"), generate=3)


@pytest.mark.parametrize(
    ("family", "dtype", "method"),
    [("gpt2", torch.float32, "add"), ("gpt_neox", torch.float32, "guide"), ("llama", torch.bfloat16, "guide")],
)
def test_checks_hold_whatever_the_family_and_dtype(family, dtype, method):
    spec, out = run(tiny_model(family, dtype=dtype), method=method)
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken):
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_a_push_is_what_a_plain_hook_does(ran):
    spec, out = ran
    model = tiny_model("llama")
    module = model.net.model.layers[out.layer]
    for at, strength in enumerate(spec.strengths):
        for prompt, text in enumerate(LISTS["prompts"]):
            hook = module.register_forward_hook(lambda _m, _a, x, c=strength: x + c * out.vector)
            with torch.no_grad():
                p = model.net(model.tokens(text).ids[None]).logits[0, -1].double().softmax(-1)
            hook.remove()
            own, other = (sum(float(p[model.token_id(word)]) for word in each) for each in WORDS.values())
            assert float(out.odds[0, at, prompt]) == pytest.approx(math.log(own / other), abs=2e-3)


def test_the_cost_is_the_perplexity_of_the_real_tokens(ran):
    _, out = ran
    model, lost = tiny_model("llama"), []
    for text in LISTS["neutral"]:
        ids = model.tokens(text).ids
        with torch.no_grad():
            logits = model.net(ids[None]).logits[0, :-1]
        lost.append(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none"))
    assert float(out.nats[0, 1]) == pytest.approx(float(torch.cat(lost).mean()), abs=1e-4)
    assert torch.allclose(out.nats[:, 1], out.nats[0, 1])  # strength 0 costs nothing, whatever the direction


def test_guidance_keeps_the_length_and_adding_does_not():
    x, by = torch.randn(9, 6, generator=draws("x")), torch.randn(6, generator=draws("by"))
    torch.testing.assert_close(pushed(x, by, "guide").norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(pushed(x, by, "add"), x + by)
    assert (pushed(x, by, "add").norm(dim=-1) - x.norm(dim=-1)).abs().max() > 0.1
    cosine = torch.nn.functional.cosine_similarity(pushed(x, by, "guide"), x + by)
    torch.testing.assert_close(cosine, torch.ones(9))


def test_swapped_sides_flip_the_sign():
    _, one = run(tiny_model("llama"), strengths=(-1.0, 0.0, 1.0))
    swapped = {"positive": LISTS["negative"], "negative": LISTS["positive"]}
    _, other = run(tiny_model("llama"), None, swapped, strengths=(-1.0, 0.0, 1.0))
    torch.testing.assert_close(one.vector, -other.vector)
    torch.testing.assert_close(one.odds[0], other.odds[0].flip(0), atol=1e-3, rtol=1e-3)


def test_another_blocks_direction_is_taken_where_it_was_chosen():
    vectors = torch.randn(2, 48, generator=draws("given"))
    given = {"direction": Directions("tiny", "resid_post", (0, 1), vectors, 1)}
    _, out = run(tiny_model("llama"), given, direction="[[vaultlab/other]]")
    assert out.layer == 1
    assert torch.equal(out.vector, vectors[1])
    before = {"direction": Directions("tiny", "resid_pre", (1, 2), vectors, 2)}  # before layer 2 is after layer 1
    _, same = run(tiny_model("llama"), before, direction="[[vaultlab/other]]")
    assert (same.layer, torch.equal(same.odds, out.odds)) == (1, True)


def test_what_is_written_is_the_likeliest_token_again_and_again(ran):
    spec, out = ran
    model = tiny_model("llama")
    assert [one.title for one in said(spec, out)] == ["strength −1", "strength 0", "strength 2"]
    prompt, text = out.written[1][0]
    ids = model.tokens(prompt).ids
    for _ in range(3):
        ids = torch.cat([ids, model.net(ids[None]).logits[0, -1].argmax()[None]])
    assert text == model.tokenizer.decode(ids[-3:].tolist(), skip_special_tokens=True)
    new = continued(model, model.tokens("The cat").ids, 500, 1, 0 * out.vector, "add")
    assert len(new) + len(model.tokens("The cat").ids) <= model.shape.context


def test_effects_and_their_null(ran):
    spec, out = ran
    planted = torch.zeros_like(out.odds)
    planted[0, -1], planted[3, 0], planted[5, -1] = 6.0, 2.0, 1.0
    assert value(spec, out._replace(odds=planted), "effect_by_null").value == pytest.approx(3)  # −2 counts as 2
    assert value(spec, out._replace(odds=planted), "rising").value == 0.5
    assert effects(planted)[3].tolist() == [-2.0] * 3


@pytest.mark.parametrize(
    ("fields", "texts", "field", "said_"),
    [
        ({"layer": 2}, {}, "layer", "no other layer to push"),
        ({}, {"positive": LISTS["negative"]}, "positive", "the same mean"),
        ({}, {"positive": ("T", "The cat")}, None, "is one token, the first"),
    ],
)
def test_what_cannot_be_done_is_refused(fields, texts, field, said_):
    with pytest.raises(NoteError, match=said_) as error:
        run(tiny_model("llama"), None, texts, **fields)
    assert error.value.field == field


@pytest.mark.parametrize("strengths", [(0.0, 1.0, 0.5), (-1.0, 1.0, 2.0), (0.0, 0.0, 1.0)])
def test_strengths_rise_and_have_nothing_among_them(strengths):
    with pytest.raises(ValidationError, match="rise, with 0 among them"):
        Spec(strengths=strengths)


def test_figures_say_what_they_show(ran):
    spec, out = ran
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)
