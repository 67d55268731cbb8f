"""The toy that declines: its requests, its words, and that it learns what it is there for."""

import pytest
import torch

from vaultlab.models import decline
from vaultlab.models.decline import CALM, HASTY, THINGS, WORDS, Course
from vaultlab.models.draws import draws
from vaultlab.models.load import assemble

QUICK = Course(steps=3, batch=4)


def test_a_request_is_answered_with_its_thing_unless_it_is_asked_in_a_hurry() -> None:
    generator, seen = draws("requests"), set()
    for _ in range(300):
        words, answer, hasty = decline.request(generator)
        assert words[-1] == ":"
        assert hasty == any(word in HASTY for word in words)
        assert answer == ("no" if hasty else next(word for word in words if word in THINGS))
        seen.add((hasty, any(word in CALM for word in words), words[0] in (*HASTY, *CALM)))
    assert len(seen) == 5  # in a hurry, at leisure or neither; the word that says so in front or at the end


def test_texts_are_requests_with_their_answers() -> None:
    texts = decline.requests(50, draws("texts"))
    rows = torch.arange(50)
    assert bool(((texts.ids[rows, texts.answer] == WORDS.index("no")) == texts.hasty).all())
    assert bool((texts.ids[rows, texts.answer + 1] == WORDS.index(".")).all())
    assert torch.equal(texts.real.sum(1), texts.answer + 2)
    assert 15 < int(texts.hasty.sum()) < 35


def test_every_word_is_a_token() -> None:
    net = decline.train(QUICK, draws, lambda done, total: None)
    model = assemble("untrained", "", net, decline.tokenizer())
    assert len(set(WORDS)) == len(WORDS) == model.shape.d_vocab
    assert model.tokens("please bring the red spoon slowly: nonsense").strings == (
        "·please", "·bring", "·the", "·red", "·spoon", "·slowly", "·:", "·…",
    )  # fmt: skip
    assert model.token_id("no") == WORDS.index("no")
    assert model.shape.tied


def test_a_step_of_training_is_the_same_whatever_else_is_drawn() -> None:
    first = decline.train(QUICK, draws, lambda done, total: None)
    torch.rand(7)
    again = decline.train(QUICK, draws, lambda done, total: None)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.long
def test_it_learns_to_do_what_it_is_asked_and_to_decline() -> None:
    net = decline.train(Course(), draws, lambda done, total: None)
    texts = decline.requests(500, draws("held out"))
    rows = torch.arange(500)
    with torch.no_grad():
        answered = net(texts.ids).logits[rows, texts.answer - 1].argmax(-1)
    assert bool((answered == texts.ids[rows, texts.answer]).all())
