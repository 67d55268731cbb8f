"""Pairs of prompts: laid token on token, or refused with both shown."""

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.errors import NoteError
from vaultlab.models.pairs import LONGEST, read_pairs, unrelated
from vaultlab.models.trace import Site, trace

CLEAN, CORRUPT = "The cat saw the mat", "The dog saw the mat"


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2")


def test_answer_and_foil_are_what_the_model_answers() -> None:
    model = tiny_model("llama")
    [pair] = read_pairs(model, ("The mat saw the cat", "The mat saw the dog"))
    logits = trace(model, torch.stack([pair.clean, pair.corrupt]), [Site("logits")])[Site("logits")][:, -1]
    assert [pair.answer, pair.foil] == logits.argmax(-1).tolist()
    assert model.token_strings(pair.clean[pair.changed].tolist()) == ("·cat",)


def test_lines_are_pairs_and_words_are_for_all_or_for_each(model) -> None:
    prompts = (f"{CLEAN}\n\n{CORRUPT}\n", f"{CORRUPT}\n{CLEAN}")
    one, other = read_pairs(model, prompts, (["cat"], ["dog", "mat"]))
    assert one.clean.tolist() == other.corrupt.tolist()
    assert (one.answer, other.answer) == (model.token_id("cat"),) * 2
    assert (one.foil, other.foil) == (model.token_id("dog"), model.token_id("mat"))


def test_what_does_not_lie_on_each_other_is_shown(model) -> None:
    with pytest.raises(NoteError) as error:
        read_pairs(model, ("The cat saw Paris", "The cat saw Rome, and it was so"))
    assert error.value.field == "corrupt"
    said = error.value.message
    clean, corrupt = said.split("Clean: ")[1].split(". Corrupt: ")
    assert clean.startswith("The ·cat")
    assert "·Paris]" in clean
    assert "Rome" in corrupt.split("[")[1]
    assert clean.split("[")[0] == corrupt.split("[")[0]
    lengths = [len(model.tokens(text).ids) for text in ("The cat saw Paris", "The cat saw Rome, and it was so")]
    assert f"have {lengths[0]} and {lengths[1]} tokens" in said


@pytest.mark.parametrize(
    ("prompts", "words", "field", "says"),
    [
        ((CLEAN, CLEAN), (None, None), "corrupt", "the same"),
        ((f"{CLEAN}\n{CLEAN}", CORRUPT), (None, None), "corrupt", "2 prompts, `corrupt` has one prompt"),
        ((f"{CLEAN}\nThe cat", f"{CORRUPT}\nThe dog"), (None, None), "clean", "differ in length"),
        ((" ", CORRUPT), (None, None), "corrupt", "0 prompts"),
        ((CLEAN, CORRUPT), (["cat"], ["cat"]), "foil", "the same token"),
        ((CLEAN, CORRUPT), (["cat", "dog"], None), "answer", "2 words for 1 pairs"),
        ((CLEAN, CORRUPT), (None, ["catastrophe"]), "foil", "several"),
        (("cat" + " cat" * LONGEST, "dog" + " cat" * LONGEST), (None, None), "clean", f"{LONGEST} are read at most"),
        (("\n".join([CLEAN] * 33), "\n".join([CORRUPT] * 33)), (None, None), "clean", "33 pairs"),
    ],
)
def test_what_cannot_be_is_refused(model, prompts, words, field, says) -> None:
    with pytest.raises(NoteError, match=says) as error:
        read_pairs(model, prompts, words)
    assert error.value.field == field
    assert error.value.hint


def test_unrelated_prompts_differ_where_the_pair_does_and_nowhere_else(model) -> None:
    [pair] = read_pairs(model, (CLEAN, CORRUPT), (["cat"], ["dog"]))
    rows = unrelated(model, pair, 5, torch.Generator().manual_seed(0))
    assert (rows[:, ~pair.changed] == pair.clean[~pair.changed]).all()
    drawn = rows[:, pair.changed].flatten().tolist()
    assert len(set(drawn)) == 5
