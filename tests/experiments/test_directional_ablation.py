"""Directional ablation: what is removed is gone, what chooses does not judge, and the null is of the same length."""

import math
import re

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Directions
from vaultlab.experiments.directional_ablation import (
    EXPERIMENT,
    Spec,
    candidates,
    compute,
    directions,
    draw,
    measure,
    verify,
)
from vaultlab.models.prompts import divergence, prompts, rate
from vaultlab.models.removal import unit
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

POSITIVE = tuple(
    f"The cat {verb} on the {thing}" for verb in ("sat", "was", "saw", "said") for thing in ("mat", "dog", "cat")
)
NEGATIVE = tuple(
    f"Paris is the {thing} of {place};"
    for place in ("France", "Italy", "Rome", "line")
    for thing in ("cat", "mat", "capital")
)
WORDS = {"words": ("the", "and"), "foils": ("cat", "it")}


def bench(model, given=None, **texts):
    lists = {"positive": POSITIVE, "negative": NEGATIVE, **texts}
    read = {name: Text(name, "", tuple(("", one) for one in each)) for name, each in lists.items()}
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, texts=read, given=given or {})


def run(model, given=None, texts=None, **fields):
    spec = Spec(model="tiny", **{**WORDS, **fields})
    return spec, compute(spec, bench(model, given, **(texts or {})))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


@pytest.fixture(scope="module")
def ran():
    return run(tiny_model("llama"))


@pytest.mark.parametrize(
    ("family", "dtype"), [("gpt2", torch.float32), ("gpt_neox", torch.float32), ("llama", torch.bfloat16)]
)
def test_checks_hold_whatever_the_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype), layer=1)
    assert [check for check in verify(spec, out) if not check.ok] == []


def test_metrics_and_checks_of_a_chosen_layer(ran):
    spec, out = ran
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken):
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_the_direction_is_the_difference_of_means_of_its_own_fold(ran):
    spec, out = ran
    model, means = tiny_model("llama"), []
    for field, texts in (("positive", POSITIVE), ("negative", NEGATIVE)):
        order = torch.randperm(12, generator=bench(model).generator("folds", 0, field))[:6].tolist()
        site = Site("resid_post", out.layer)
        means.append(
            torch.stack([trace(model, model.tokens(texts[at]).ids[None], [site])[site][0, -1] for at in order]).mean(0)
        )
    torch.testing.assert_close(out.vectors[out.layer], means[0] - means[1], atol=1e-4, rtol=1e-4)
    given = directions(spec, out)
    assert (given.model, given.site, given.chosen) == ("tiny", "resid_post", out.layer)
    assert torch.equal(given.vectors, out.vectors)


def test_no_prompt_judges_what_it_chose(ran):
    _, out = ran
    shown = [prompt for prompt, _, _ in out.shown_positive]
    order = torch.randperm(12, generator=bench(None).generator("folds", 0, "positive")).tolist()
    assert shown == [POSITIVE[at] for at in order[9:]]
    assert out.rate.shape == (3,)
    assert out.tried_ablated.shape == (len(candidates(3)), 3)


@pytest.mark.parametrize("foils", [WORDS["foils"], ()])
def test_answers_that_are_shown_are_of_words_and_foils_or_without_foils_of_all_tokens(foils):
    model = tiny_model("llama")
    spec, out = run(model, foils=foils, layer=1)
    tokens = [model.token_id(word) for word in (*spec.words, *foils)] if foils else range(model.shape.d_vocab)
    for prompt, before, _ in (*out.shown_positive, *out.shown_negative):
        with torch.no_grad():
            logits = model.net(model.tokens(prompt).ids[None]).logits[0, -1].tolist()
        assert before == model.token_strings([max(tokens, key=logits.__getitem__)])[0]
    assert any(before != after for _, before, after in (*out.shown_positive, *out.shown_negative))
    said = draw(spec, out)["answers"].alt
    assert said.startswith("The likeliest of words and foils, before" if foils else "First answers, before")


def test_another_blocks_direction_is_taken_as_it_is_and_judged_on_all():
    model = tiny_model("llama")
    vectors = torch.zeros(2, 48)
    vectors[1, 3] = 5.0
    given = {"direction": Directions("tiny", "resid_pre", (1, 2), vectors, 2)}
    spec, out = run(model, given, direction="[[vaultlab/other]]")
    assert (out.layer, out.site, out.rate.shape) == (2, "resid_pre", (12,))
    assert [check for check in verify(spec, out) if not check.ok] == []
    ids = model.tokens(NEGATIVE[0]).ids[None]
    with torch.no_grad():
        hook = model.net.model.layers[2].register_forward_pre_hook(lambda _m, args: (args[0] + vectors[1], *args[1:]))
        expected = model.net(ids).logits[0, -1].log_softmax(-1)
        hook.remove()
    words, foils = (torch.tensor([model.token_id(word) for word in each]) for each in WORDS.values())
    order = torch.randperm(12, generator=bench(model).generator("folds", 0, "negative")).tolist()
    torch.testing.assert_close(out.added[order.index(0)], rate(expected, words, foils), atol=1e-4, rtol=1e-4)


SAME = NEGATIVE[:1] * 12
OTHER, INNER = (
    Directions(model, site, (0,), torch.ones(1, 48), 0) for model, site in (("other", "resid_post"), ("tiny", "mlp"))
)


@pytest.mark.parametrize(
    ("fields", "given", "texts", "field", "said"),
    [
        ({"layer": 7}, None, {}, "layer", "no direction after layer 7"),
        ({}, None, {"positive": POSITIVE[:5]}, "positive", "5 prompts, and at least 12"),
        ({"layer": 1}, None, {"positive": SAME, "negative": SAME}, "positive", "the same mean"),
        ({"direction": "[[a]]"}, OTHER, {}, "direction", "other"),
        ({"direction": "[[a]]"}, INNER, {}, "direction", "not the stream"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(fields, given, texts, field, said):
    with pytest.raises(NoteError, match=said) as error:
        run(tiny_model("llama"), {"direction": given} if given else None, texts, **fields)
    assert error.value.field == field


def test_the_null_is_the_largest_change_of_any_draw(ran):
    spec, out = ran
    planted = out._replace(
        rate=torch.full((3,), 0.9),
        ablated=torch.full((3,), 0.1),
        random_ablated=torch.cat([torch.full((19, 3), 0.9), torch.full((1, 3), 0.98)]),  # a rise counts as a change too
    )
    assert value(spec, planted, "removal_by_null").value == pytest.approx(10, rel=1e-4)
    assert len(out.random_ablated) == len(out.random_added) == spec.draws == 20


def test_rates_and_divergences_by_hand():
    answer = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    words, foils = torch.tensor([1, 2]), torch.tensor([3])
    assert float(rate(answer, words, foils[:0])) == pytest.approx(0.375)
    assert float(rate(answer, words, foils)) == pytest.approx(0.75)
    other = torch.tensor([[0.25, 0.25, 0.25, 0.25]]).log()
    assert float(divergence(answer, other)) == pytest.approx(0.5 * math.log(2) - 0.25 * math.log(2), abs=1e-6)
    assert float(unit(torch.tensor([3.0, 4.0])).norm()) == pytest.approx(1)


def test_padding_changes_no_prompt():
    model = tiny_model("llama")
    together = prompts(model, ("The cat", POSITIVE[0]))
    assert together.last.tolist() == [len(model.tokens(text).ids) - 1 for text in together.texts]
    assert together.some(torch.tensor([0])).ids.shape[1] == int(together.last[0]) + 1


def test_figures_say_what_they_show(ran):
    spec, out = ran
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)
    assert f"layer {out.layer}" in drawings["effect"].alt
    assert set(draw(spec, run(tiny_model("llama"), layer=1)[1])) == {"effect", "answers"}
