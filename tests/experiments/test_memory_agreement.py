"""Memory agreement: shares by plain loops, the null by real shuffles, a planted memory, what no gauge may change."""

import pytest
import torch

from tests.planted import gauged, planted
from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import memory_agreement
from vaultlab.experiments.memory_agreement import (
    EXPERIMENT,
    Spec,
    compute,
    draw,
    measure,
    quotes,
    thirds,
    verify,
)
from vaultlab.models import parts
from vaultlab.models.memories import readout
from vaultlab.models.search import Corpus, searched
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCES = (
    "One cat sat on the mat.",
    "The dog saw the cat sat there?",
    "Paris is the capital of France!",
    "Rome is not the capital of France.",
    "She said that he said it, and it was so.",
    "Two, three, and a second line.",
    "He saw a cat sat on a dog.",
    "It was the first, so she said.",
    "That old cat sat still.",
    "And the capital of Italy is Rome.",
)


def bench(model, texts=SENTENCES):
    text = Text("", "0", tuple(("", one) for one in texts))
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": text}, batch=4)


def run(model, **fields):
    spec = Spec(model="tiny", **fields)
    return spec, compute(spec, bench(model))


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def by_loops(model):
    """Of every memory whether the token pushed most at its strongest trigger came next; and both tokens."""
    found = searched(bench(model), Corpus(model, bench(model).text("text"), 20_000))
    W_U = model.net.get_output_embeddings().weight.double()
    agree, pairs = [], []
    for layer in range(3):
        W_out = parts.mlp(model, layer, torch.float64).W_out
        rows = []
        for key in range(80):
            first = found.triggers(model, layer, slice(key, key + 1), 1)
            m, at = float(first.coefficient), int(first.at)
            push = W_U @ readout(model, m * W_out[key])
            rows.append((int(push.argmax()), int(found.next[at]), int((push > push[int(found.next[at])]).sum())))
        pairs.append(rows)
        agree.append([top == came for top, came, _ in rows])
    return agree, pairs


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_plain_loops_say_the_same(family):
    model = tiny_model(family, dtype=torch.float64)
    spec, out = run(model)
    agree, pairs = by_loops(model)
    found = values(spec, out)
    assert out.agree.tolist() == pytest.approx([sum(layer) / 80 for layer in agree])
    assert out.near.tolist() == pytest.approx([sum(rank < 10 for *_, rank in rows) / 80 for rows in pairs])
    assert found["lower_third"].value == pytest.approx(sum(agree[0]) / 80)
    assert found["upper_third"].value == pytest.approx(sum(agree[2]) / 80)
    assert found["rise"].value == pytest.approx((sum(agree[2]) - sum(agree[0])) / 80)
    assert found["silent"].value == 0
    every = [sum(top == came for top, _, _ in rows for _, came, _ in rows) / 80**2 for rows in pairs]
    assert out.chance_agree.tolist() == pytest.approx(every)
    assert [check for check in verify(spec, out) if not check.ok] == []


def test_thirds_are_the_first_and_the_last_layers():
    assert thirds(30) == (slice(0, 10), slice(20, 30))
    assert thirds(2) == (slice(0, 1), slice(1, 2))
    assert thirds(1) == (slice(0, 1), slice(0, 1))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_planted_memory_agrees_and_is_shown(family):
    model = planted(family, "cat", "sat")
    spec, out = run(model)
    assert out.agree[0] >= 1 / 80
    other = run(planted(family, "cat", "dog"))[1]
    assert int(out.agree[0] * 80) - int(other.agree[0] * 80) == 1, "the planted one, and no other, agrees"
    assert quotes(spec, out) == [] or all(quote.part < len(SENTENCES) for quote in quotes(spec, out))


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_no_number_depends_on_how_a_memory_is_written_down(family):
    out = run(tiny_model(family, dtype=torch.float64))[1]
    _, other = run(gauged(tiny_model(family, dtype=torch.float64), range(3)))
    for name in ("woken", "agree", "near", "chance_agree", "chance_near", "intervals", "thirds"):
        torch.testing.assert_close(getattr(other, name), getattr(out, name))
    assert (other.lines, other.pushed) == (out.lines, out.pushed)
    bare = [
        readout(model, parts.mlp(model, 1).W_out) @ parts.unembedding(model).W_U
        for model in (tiny_model(family), gauged(tiny_model(family), range(3)))
    ]
    same = (bare[0].argmax(1) == bare[1].argmax(1)).float().mean()
    assert 0.3 < same < 0.7, "a bare value's top token does depend on it"


def test_the_top_token_check_sees_a_bare_value(monkeypatch):
    spec, out = run(tiny_model("llama"))
    assert out.top_residual < 1e-5
    whole = memory_agreement.tops

    def bare_values(bench, model):
        found = whole(bench, model)
        return found._replace(last=found.first)

    monkeypatch.setattr(memory_agreement, "tops", bare_values)
    spec, bare = run(tiny_model("llama"))
    assert bare.top_residual > 0.1
    assert [check.name for check in verify(spec, bare) if not check.ok] == ["the top token is pushed most"]


def test_the_figures_are_those_declared():
    spec, out = run(tiny_model("llama"))
    drawn = draw(spec, out)
    assert set(drawn) <= set(EXPERIMENT.figures)
    assert "agreement" in drawn
    assert all(render(one).content for one in drawn.values())
    assert draw(spec, out._replace(shown=out.shown[:0])).keys() == {"agreement"}


def test_a_model_without_mlps_is_refused():
    model = tiny_model("llama")
    object.__setattr__(model, "shape", model.shape.__class__(**{**vars(model.shape), "d_mlp": 0}))
    with pytest.raises(NoteError, match="no MLP"):
        run(model)
