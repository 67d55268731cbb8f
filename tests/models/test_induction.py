"""Texts that repeat, scores on planted patterns and by plain loops, and how unexpected tokens are."""

import math

import pytest
import torch
from torch import Tensor

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.models.draws import draws
from vaultlab.models.induction import KINDS, Repeated, by_content, halves, interval, repeated, scores, uniform
from vaultlab.models.model import Model
from vaultlab.models.surprise import CHUNK, surprise
from vaultlab.models.trace import Site, trace

PREVIOUS, DUPLICATE, INDUCTION = range(3)
P = 12


@pytest.fixture
def model() -> Model:
    return tiny_model("llama")


def test_texts_repeat_and_every_text_is_another(model: Model) -> None:
    text = repeated(model, 5, P, draws("one"))
    assert text.ids.shape == (5, 1 + 2 * P)
    assert torch.equal(text.ids[:, 1 : 1 + P], text.ids[:, 1 + P :])
    assert len({tuple(row) for row in text.ids.tolist()}) == 5
    assert torch.equal(text.ids, repeated(model, 5, P, draws("one")).ids)
    assert not torch.equal(text.ids, repeated(model, 5, P, draws("other")).ids)
    for row in text.ids.tolist():
        assert len(set(row[: 1 + P])) == 1 + P


def test_what_is_drawn_can_be_seen_and_is_not_special(model: Model) -> None:
    tokenizer = model.tokenizer
    drawn = set(repeated(model, 30, 20, draws("many")).ids.flatten().tolist())
    words = [tokenizer.decode([id]) for id in drawn]
    assert all(word.strip() and word.isprintable() and "\ufffd" not in word for word in words)
    assert drawn.isdisjoint(tokenizer.all_special_ids)
    unseen = {
        id for id in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([id]) or not tokenizer.decode([id]).strip()
    }
    assert len(unseen) > 50  # pieces of characters: drawn without a look they would be there
    assert len(drawn) > 60


def test_what_begins_texts_stands_before_and_is_not_repeated(model: Model) -> None:
    text = repeated(model, 3, P, draws("one"), bos=True)
    assert text.start == 1
    assert (text.ids == model.tokenizer.bos_token_id).nonzero()[:, 1].tolist() == [0, 0, 0]


def test_a_control_does_not_repeat(model: Model) -> None:
    text = repeated(model, 4, P, draws("one"), again=False)
    assert text.ids.shape == (4, 1 + 2 * P)
    assert all(len(set(row)) == 1 + 2 * P for row in text.ids.tolist())


def test_a_stretch_that_does_not_fit_is_refused(model: Model) -> None:
    with pytest.raises(NoteError, match=r"129, and tiny-llama reads at most 128") as error:
        repeated(model, 1, 64, draws("one"))
    assert error.value.field == "period"
    assert "period: 63" in error.value.hint
    with pytest.raises(NoteError, match="tokens that can be seen"):
        repeated(tiny_model("gpt2", n_positions=2000), 1, 600, draws("one"))


def looking(back: int, length: int) -> Tensor:
    """Every token looks so far back, or at the first."""
    A = torch.zeros(1, 1, length, length)
    for query in range(length):
        A[0, 0, query, max(0, query - back)] = 1
    return A


@pytest.mark.parametrize("start", [1, 2])
def test_planted_heads_score_one_and_nothing_else(start: int) -> None:
    length = start + 2 * P
    for back, kind in ((1, PREVIOUS), (P, DUPLICATE), (P - 1, INDUCTION)):
        score = scores(looking(back, length), start, P)[:, 0, 0].tolist()
        assert score == [float(kind == other) for other in range(3)]
    for wrong in (P - 2, P + 1, 2, 0):
        assert scores(looking(wrong, length), start, P).max() == 0


def test_position_0_is_neither_asked_nor_found() -> None:
    """A head that rests on the first token scores nothing, and what the first token looks at does not count."""
    length = 1 + 2 * P
    A = torch.zeros(1, 1, length, length)
    A[..., 0] = 1
    assert scores(A, 1, P).max() == 0
    A = looking(1, length)
    A[0, 0, 1, 0] = 0
    assert scores(A, 1, P)[PREVIOUS] == 1


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_plain_loops(family: str) -> None:
    model = tiny_model(family)
    text = repeated(model, 2, P, draws(family), bos=True)
    A = trace(model, text.ids, [Site("pattern", 1)])[Site("pattern", 1)]
    found = scores(A, text.start, text.period)
    length = text.ids.shape[1]
    for row, head in ((0, 0), (1, 3)):
        ids, a = text.ids[row].tolist(), A[row, head].tolist()
        again = range(1 + P, length)
        stood = {i: ids.index(ids[i], 1) for i in again}
        loops = [
            sum(a[i][i - 1] for i in range(2, length)) / (length - 2),
            sum(a[i][stood[i]] for i in again) / P,
            sum(a[i][stood[i] + 1] for i in again) / P,
        ]
        assert found[:, row, head].tolist() == pytest.approx(loops, rel=1e-5)
        content = by_content(A[row], text.ids[row], text.start, text.period)[:, head]
        torch.testing.assert_close(content, found[1:, row, head], atol=1e-6, rtol=1e-5)


def test_a_head_that_counts_back_scores_by_place_and_not_by_content(model: Model) -> None:
    text = repeated(model, 1, P, draws("control"), again=False)
    A = looking(P - 1, text.ids.shape[1])
    assert scores(A, text.start, P)[INDUCTION] == 1
    assert by_content(A[0], text.ids[0], text.start, P).max() == 0


def test_uniform_attention_scores_its_closed_form() -> None:
    length = 1 + 2 * P
    previous, duplicate, induction = uniform(length, 1, P).tolist()
    assert previous == pytest.approx(sum(1 / (i + 1) for i in range(2, length)) / (length - 2))
    assert duplicate == induction == pytest.approx(sum(1 / (i + 1) for i in range(1 + P, length)) / P)


def test_the_halves_leave_out_what_nothing_foretells() -> None:
    first, second = halves(Repeated(torch.zeros(1, 2 + 2 * P, dtype=torch.long), 2, P))
    assert (first.nonzero().flatten() + 1).tolist() == list(range(3, 2 + P))
    assert (second.nonzero().flatten() + 1).tolist() == list(range(2 + P + 1, 2 + 2 * P))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_surprise_is_that_of_the_models_own_logits(family: str) -> None:
    model = tiny_model(family)
    ids = torch.randint(model.shape.d_vocab, (4, 40), generator=torch.Generator().manual_seed(0))
    assert ids.numel() > 2 * CHUNK
    found = trace(model, ids, [Site("final"), Site("logits")])
    log = found[Site("logits")].double().log_softmax(-1)
    expected = [[-float(log[row, at, ids[row, at + 1]]) for at in range(39)] for row in range(4)]
    assert surprise(model, found[Site("final")], ids).tolist() == [pytest.approx(row, abs=1e-4) for row in expected]


def test_an_interval_holds_the_mean_of_its_law_as_often_as_it_says() -> None:
    held = 0
    for trial in range(200):
        low, high = interval(torch.randn(30, generator=draws("trial", trial)), draws("bootstrap", trial), 500)
        held += low <= 0 <= high
    assert 0.88 <= held / 200 <= 0.99
    assert len(KINDS) == 3
    assert math.isclose(*interval(torch.ones(4), draws("same")))
