"""A text cut into sentences, and their batches: nothing lost, nothing moved, no part running into the next."""

import torch

from tests.tiny import TEXT, tiny_model
from vaultlab.models.sentences import LONGEST, TYPICAL, batches, cut


def test_sentences_end_where_they_should_and_never_go_over_parts():
    model = tiny_model("llama")
    part = 'He said "so." Then it was, e.g. this.\n\nA second\n  line: here!  And a third'
    sentences = cut(model, [part, "", "One cat.", part, "Two."], 1000)
    read = [
        "".join(model.token_strings(sentences.ids[a:b].tolist()))
        for a, b in zip(sentences.start, sentences.stop, strict=True)
    ]
    assert read == [
        'He·said·"so."·',
        "Then·it·was,·e.g.·this.↵↵",
        "A·second↵··line:·here!··",
        "And·a·third",
        "One·cat.",
        "Two.",
    ]
    last = [int(sentences.next[stop - 1]) for stop in sentences.stop]
    first = [int(sentences.ids[start]) for start in sentences.start]
    assert last == [*first[1:4], -1, -1, -1]


def test_a_long_sentence_is_read_in_pieces_and_no_more_than_asked():
    model = tiny_model("llama", max_position_embeddings=512)
    sentences = cut(model, ["cat " * 60 + "sat " * 300], 300)
    assert len(sentences.ids) == 300
    assert (sentences.stop - sentences.start).tolist()[:2] == [LONGEST, LONGEST]
    assert cut(model, ["cat " * 400], 300, bos=True).stop[0] == LONGEST - 1


def test_a_batch_is_aligned_with_the_text():
    model = tiny_model("gpt2")
    sentences = cut(model, TEXT.split(". "), 1000, bos=True)
    seen = []
    for batch in batches(sentences, 3):
        own = batch.at >= 0
        assert torch.equal(sentences.ids[batch.at[own]], batch.ids[own])
        assert torch.equal(sentences.next[batch.at[own]], batch.following[own])
        assert (batch.ids[:, 0] == model.tokenizer.bos_token_id).all()
        seen.append(batch.at[own])
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(sentences.ids)))


def test_a_batch_has_no_more_than_was_asked_for():
    model = tiny_model("llama", max_position_embeddings=512)
    sentences = cut(model, ["cat " * 100, *(f"cat {i}." for i in range(40)), "sat " * 100], 1000)
    shapes = [batch.ids.shape for batch in batches(sentences, 8)]
    assert sum(rows for rows, _ in shapes) == len(sentences)
    assert max(rows for rows, _ in shapes) == 8
    assert all(rows * pos <= TYPICAL * 8 for rows, pos in shapes)
    assert sum(1 for _ in batches(sentences, 1)) == len(sentences)


def test_a_sentence_that_comes_again_is_read_once():
    model = tiny_model("gpt2")
    once = cut(model, ["One cat sat.", "Two, three."], 1000)
    again = cut(model, ["One cat sat.", "Two, three.", "One cat sat."], 1000)
    assert torch.equal(once.ids, again.ids)
