"""Causal inner product: planted concepts that only look alike, and what cannot be asked."""

import math

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.causal_inner_product import EXPERIMENT, Spec, compute, draw, measure, verify
from vaultlab.models.draws import draws
from vaultlab.plots.style import render
from vaultlab.result import Text

FIELDS = ("positive", "negative", "other_positive", "other_negative")


def run(model, words, **fields):
    texts = {name: Text(name, "", tuple(("", one) for one in each)) for name, each in zip(FIELDS, words, strict=True)}
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, texts=texts)
    spec = Spec(model="tiny", **{"draws": 20, **fields})
    return spec, compute(spec, bench)


def values(spec, out):
    return {metric.name: metric.value for metric in measure(spec, out)}


def words(model, count=36):
    """Words that are one token each, four lists of nine."""
    found = []
    for id in range(len(model.tokenizer)):
        text = model.tokenizer.decode([id]).strip()
        try:
            known = text.isalpha() and model.token_id(text) == id
        except NoteError:
            known = False
        if known and text not in found:
            found.append(text)
    assert len(found) >= count
    return [found[at:count:4] for at in range(4)]


def planted(common=20.0):
    """A model in which each concept is one direction, and all words differ along a third that has no part in either."""
    model = tiny_model("llama", tie_word_embeddings=False)
    lists = words(model)
    generator = draws("planted")
    weight = model.net.get_output_embeddings().weight
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator))
        weight[:, 0] *= common
        for side, axis, by in ((0, 1, 3.0), (1, 1, -3.0), (2, 2, 3.0), (3, 2, -3.0)):
            for word in lists[side]:
                weight[model.token_id(word), axis] = by
                weight[model.token_id(word), 0] = common * (1.0 if by > 0 else -1.0)
    return model, lists


@pytest.fixture(scope="module")
def ran():
    return run(*planted())


def test_planted_concepts_seem_to_lie_together_and_are_at_right_angles(ran):
    spec, out = ran
    found = values(spec, out)
    assert found["plain_between"] > 0.9
    assert found["between"] < 0.3
    assert found["shrink"] > 3
    assert found["excess"] > 1.5


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


def test_one_concept_twice_is_one_direction():
    model, lists = planted()
    found = values(*run(model, [*lists[:2], *lists[:2]]))
    assert found["between"] == pytest.approx(1)
    assert found["shrink"] == pytest.approx(1)


def test_sides_exchanged_turn_the_direction_and_change_no_number_shown():
    model, lists = planted()
    one, other = run(model, lists), run(model, [lists[1], lists[0], lists[2], lists[3]])
    torch.testing.assert_close(one[1].between, -other[1].between)
    assert values(*one)["own"] == pytest.approx(values(*other)["own"])


def test_the_models_basis_changes_plain_cosines_alone():
    model, lists = planted()
    before = run(model, lists)
    through = torch.randn(48, 48, generator=draws("map"))
    with torch.no_grad():
        weight = model.net.get_output_embeddings().weight
        weight.copy_(weight @ through)
    after = run(model, lists)
    torch.testing.assert_close(before[1].own[1], after[1].own[1], atol=1e-4, rtol=1e-4)
    assert (before[1].own[0] - after[1].own[0]).abs().max() > 0.01


def test_words_of_several_tokens_are_left_out_with_their_partner():
    model, lists = planted()
    longer = [[*lists[0], "xylophone"], [*lists[1], lists[1][0]], *lists[2:]]
    _, out = run(model, longer)
    assert len(out.pairs) == 9
    assert out.left_out == (f"xylophone/{lists[1][0]}",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lists: [lists[0][:-1], *lists[1:]], "go together in pairs"),
        (lambda lists: [lists[0][:3], lists[1][:3], *lists[2:]], "3 pairs of single tokens"),
        (lambda lists: [["xylophone"] * 9, *lists[1:]], "Not one token each to tiny-llama: xylophone"),
    ],
)
def test_lists_that_cannot_be_compared_are_told_on_their_field(change, says):
    model, lists = planted()
    with pytest.raises(NoteError, match=says) as told:
        run(model, change(lists))
    assert told.value.field == "positive"
