"""The whole-model search: each layer's triggers as plain loops find them; what is kept, taken up again, and shared."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import FAMILIES, tiny_model
from vaultlab.experiment import Bench
from vaultlab.models import parts
from vaultlab.models.memories import Strongest
from vaultlab.models.search import KEPT, Corpus, Search, Stream, askable, searched
from vaultlab.models.sentences import batches, cut
from vaultlab.models.trace import Site, trace
from vaultlab.result import Text

TEXT = (
    "The cat sat on the mat. A dog saw the cat there? Paris is the capital of France! Rome is not the capital. "
    "She said that he said it, and it was so. Two, three, and a second line. It was the first, so she said. "
    "That old cat sat still. And the capital of Italy is Rome. He saw a cat on a dog."
)


def bench(model, text=TEXT, size=3, **more):
    there = Text("", "0", tuple(("", part) for part in text.split("|")))
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": there}, batch=size, **more)


def search(model, text=TEXT, size=3, bos=None, **more):
    desk = bench(model, text, size, **more)
    return searched(desk, Corpus(model, desk.text("text"), 1000, bos))


def same(one: Search, other: Search) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


# -- found


def by_loops(model, layer, bos=None):
    """Sentence by sentence alone: |m| at every token, the largest of each sentence, and the sum."""
    text = cut(model, [TEXT], 1000, bos)
    special = set(model.tokenizer.all_special_ids)
    every = torch.zeros(len(text.ids), 80, dtype=torch.float64)
    largest = []
    for start, stop in zip(text.start.tolist(), text.stop.tolist(), strict=True):
        ids = torch.cat([text.lead, text.ids[start:stop]])
        m = trace(model, ids[None], [Site("m", layer)])[Site("m", layer)][0, len(text.lead) :]
        may = [
            at
            for at in range(stop - start)
            if (at or len(text.lead))
            and int(text.next[start + at]) not in {-1, *special}
            and int(text.ids[start + at]) not in special
        ]
        every[[start + at for at in may]] = m[may].abs()
        largest.append(every[start:stop].amax(0))
    return every, torch.stack(largest).sort(dim=0, descending=True).values.T, every.sum(0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.inference_mode()
def test_plain_loops_find_the_same_triggers_in_every_layer(family):
    model = tiny_model(family, dtype=torch.float64)
    bos = True if family in ("gpt2", "llama") else None
    found = search(model, bos=bos)
    for layer in range(3):
        every, largest, total = by_loops(model, layer, bos)
        ours = found.triggers(model, layer, slice(None), 10)
        # where tokens are as strong as each other, which of them it is does not matter
        torch.testing.assert_close(ours.coefficient.abs(), largest[:, :10])
        torch.testing.assert_close(every.T.gather(1, ours.at), largest[:, :10])
        assert all(len(set(row.tolist())) == 10 for row in found.sentences.holding(ours.at))
        torch.testing.assert_close(ours.total, total)
        assert torch.equal(ours.next, found.next[ours.at])
        assert found.residual[layer] < 1e-6
    assert (found.at >= 0).sum(-1).max() == len(found.start) < KEPT


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@torch.inference_mode()
def test_the_final_scale_is_that_of_every_token(family):
    model = tiny_model(family)
    found, norm = search(model), parts.final_norm(model)
    for start, stop in zip(found.start.tolist(), found.stop.tolist(), strict=True):
        final = trace(model, found.ids[None, start:stop], [Site("final")])[Site("final")][0]
        torch.testing.assert_close(found.scale[start:stop], norm.scale(final)[:, 0])


def test_streaming_keeps_the_strongest_of_each_sentence():
    generator = torch.Generator().manual_seed(0)
    m = torch.randn(23, 9, 6, generator=generator)
    wanted = torch.rand(23, 9, generator=generator) < 0.6
    wanted[4] = False
    m[..., 5] = 0
    label = torch.arange(23 * 9).view(23, 9)
    for size in (1, 4, 23):
        strongest = Strongest(torch.zeros(6, 5), torch.full((6, 5), -1, dtype=torch.int32), torch.zeros(6))
        for start in range(0, 23, size):
            part = slice(start, start + size)
            strongest.add(m[part], wanted[part], label[part])
        for key in range(5):
            each = []
            for sentence in range(23):
                may = [(abs(float(m[sentence, p, key])), sentence * 9 + p) for p in range(9) if wanted[sentence, p]]
                each += [max(may)] if may else []
            best = sorted(each, reverse=True)[:5]
            assert set(strongest.at[key].tolist()) == {at for _, at in best}
            kept = sorted(strongest.coefficient[key].abs().tolist(), reverse=True)
            assert kept == pytest.approx([strength for strength, _ in best])
            total = sum(abs(float(m[s, p, key])) for s in range(23) for p in range(9) if wanted[s, p])
            assert float(strongest.total[key]) == pytest.approx(total)
        assert strongest.at[5].tolist() == [-1] * 5
        assert strongest.coefficient[5].tolist() == [0.0] * 5


def test_sinks_are_left_out_where_they_are_massive():
    model = tiny_model("gpt2")
    saw = model.token_id("saw")
    with torch.no_grad():
        model.net.get_input_embeddings().weight[saw] *= 100
    found = search(model)
    there = (found.ids == saw).nonzero()[:, 0].tolist()
    for layer in range(3):
        assert found.sinks[found.sinks[:, 0] == layer, 1].sort().values.tolist() == there
        ours = found.triggers(model, layer, slice(None), 10)
        assert not set(ours.at.flatten().tolist()) & set(there)
        assert ours.looked_at == int(askable(model, found.sentences).sum()) - len(there)
        assert int(ours.sinks[saw]) == len(there) == int(ours.sinks.sum())


# -- the checks see what is wrong


@torch.inference_mode()
def test_the_batch_that_is_read_again_sees_a_trigger_that_was_missed(monkeypatch):
    model = tiny_model("llama")
    whole = Strongest.add

    def half(self, m, wanted, at):
        whole(self, m[: max(1, len(m) // 2)], wanted[: max(1, len(m) // 2)], at[: max(1, len(m) // 2)])

    monkeypatch.setattr(Strongest, "add", half)
    assert (search(model).residual > 0.1).all()


@torch.inference_mode()
def test_signed_coefficients_would_miss_what_a_gauge_turns_round(monkeypatch):
    model = tiny_model("llama")
    whole = Strongest.add
    monkeypatch.setattr(Strongest, "add", lambda self, m, wanted, at: whole(self, m.relu(), wanted, at))
    assert (search(model).residual > 0.1).all()


# -- kept, and taken up again


class Kept:
    """A `Shared` that keeps every piece."""

    def __init__(self, begun=None):
        self.begun = begun
        self.pieces = []

    def __call__(self, what, kind, work):
        return work(self.begun, lambda found: self.pieces.append(found()))


def test_a_search_goes_on_from_any_piece_to_the_same_bits():
    model = tiny_model("llama")
    first = Kept()
    whole = search(model, shared=first)
    assert [piece.read for piece in first.pieces] == [3, 6, 9, 10]
    assert all(piece.residual.isnan().all() for piece in first.pieces)
    for piece in first.pieces:
        again = Kept(piece)
        assert same(search(model, shared=again), whole)
        assert len(again.pieces) == len(first.pieces) - first.pieces.index(piece) - 1


def test_a_search_goes_on_with_smaller_batches():
    model = tiny_model("llama", dtype=torch.float64)
    first = Kept()
    whole = search(model, shared=first)
    other = search(model, size=1, shared=Kept(first.pieces[1]))
    for layer in range(3):
        one, two = (found.triggers(model, layer, slice(None), 10) for found in (whole, other))
        assert torch.equal(one.at, two.at)
        torch.testing.assert_close(one.total, two.total)


def test_what_is_kept_does_not_grow_with_the_text():
    model = tiny_model("llama")
    text = "|".join(f"The cat {word} sat on the {word} mat {at}." for at, word in enumerate(["so", "old"] * 60))
    little, much = Kept(), Kept()
    search(model, text[:1000], size=32, shared=little)
    search(model, text, size=32, shared=much)
    sizes = [
        sum(v.nbytes for n, v in kept.pieces[-1]._asdict().items() if n in ("coefficient", "at", "total"))
        for kept in (little, much)
    ]
    assert sizes[0] == sizes[1]
    per_token = sum(v.nbytes for v in much.pieces[-1] if isinstance(v, torch.Tensor)) - sizes[1]
    assert per_token < 64 * len(much.pieces[-1].ids)


def test_what_is_shared_is_known_by_content():
    model = tiny_model("llama")
    text = Text("a", "0", (("", TEXT),))
    one = Corpus(model, text, 1000).what("triggers")
    assert Corpus(model, replace(text, name="b"), 1000).what("triggers") == one
    others = [
        Corpus(tiny_model("llama", seed=1), text, 1000),
        Corpus(model, replace(text, sha256="1"), 1000),
        Corpus(model, text, 999),
        Corpus(model, text, 1000, True),
    ]
    assert all(other.what("triggers") != one for other in others)


def test_a_piece_is_a_picture_that_going_on_does_not_change():
    model = tiny_model("llama")
    first = Kept()
    search(model, shared=first)
    piece = first.pieces[0]
    stream = Stream(model, piece)
    taken = stream.found()
    before = [(one.coefficient.clone(), one.at.clone(), one.total.clone(), one.scale.clone()) for one in (piece, taken)]
    for batch in batches(piece.sentences, 3, piece.read):
        stream.add(batch)
    for one, was in zip((piece, taken), before, strict=True):
        now = (one.coefficient, one.at, one.total, one.scale)
        assert all(torch.equal(a, b) for a, b in zip(now, was, strict=True))
