"""Memory composition: plain loops in float64, a toy whose cases are known token by token, what no gauge may change."""

import re

import pytest
import torch

from tests.planted import gauged
from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import memory_composition
from vaultlab.experiments.memory_composition import (
    EXPERIMENT,
    Spec,
    cases,
    compute,
    draw,
    measure,
    needs,
    reads,
    verify,
    who,
)
from vaultlab.models import active, parts
from vaultlab.models.memories import readout
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:40]
GATED = [family for family in FAMILIES if tiny_model(family).shape.gated]


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": Text("", "0", (("", text),))})
    return spec, compute(spec, bench)


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def values(spec, out):
    return {metric.name: metric for metric in measure(spec, out)}


def by_loops(model, top=10):
    ids, shape = model.tokens(SENTENCE).ids, model.shape
    names = [Site(name, layer) for layer in range(shape.layers) for name in ("resid_pre", "attn", "mlp_in", "mlp")]
    found = {site: one[0] for site, one in trace(model, ids[None], [*names, Site("final"), Site("logits")]).items()}
    norm, W_U = parts.final_norm(model), parts.unembedding(model).W_U
    guess, ffn, alone, counts, meets = [], [], [], [], []

    def first(x):
        centred = x - x.mean() if norm.kind == "layer" else x
        return int(((centred / (centred.square().mean() + norm.eps).sqrt() * norm.gain + norm.bias) @ W_U).argmax())

    def push(w):
        return int((readout(model, w[None])[0] @ W_U).argmax())

    for layer in range(shape.layers):
        pre, attn, read, y = (found[Site(name, layer)] for name in ("resid_pre", "attn", "mlp_in", "mlp"))
        mlp = parts.mlp(model, layer)
        if not layer:
            guess.append([first(x) for x in pre])
        guess += [[first(x) for x in pre + attn], [first(x) for x in pre + attn + y]]
        ffn.append([push(w) for w in y])
        rows = []
        for x in read:
            m = mlp.coefficients(x[None])[0]
            size = m.abs() * mlp.W_out.norm(dim=1)
            order = size.argsort(descending=True).tolist()
            up = mlp.W_in if mlp.W_gate is None else mlp.W_gate
            b_up = mlp.b_in if mlp.W_gate is None else mlp.b_gate
            half = next(n for n in range(len(order) + 1) if size[order[:n]].sum() >= size.sum() / 2)
            above = [key for key in range(len(order)) if float(x @ up[:, key] + b_up[key]) > 0]
            own = [push(m[key] * mlp.W_out[key]) for key in range(len(order))]
            named = [{own[key] for key in some} for some in (order, above, order[:half], order[:top])]
            rows.append((push(m @ mlp.W_out), named, [len(order), len(above), half, top]))
        alone.append([[top not in named[one] for top, named, _ in rows] for one in range(4)])
        counts.append([sum(count[one] for *_, count in rows) / len(rows) for one in range(4)])
        meets.append(
            [
                sum(rows[a][0] not in rows[b][1][one] for a in range(len(rows)) for b in range(len(rows)) if a != b)
                / (len(rows) * (len(rows) - 1))
                for one in range(4)
            ]
        )
    return guess, ffn, alone, counts, meets, found[Site("logits")].argmax(-1).tolist()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_plain_loops_say_the_same(family):
    spec, out = run(tiny_model(family, dtype=torch.float64))
    guess, ffn, alone, counts, meets, answer = by_loops(tiny_model(family, dtype=torch.float64))
    assert len(out.kept) == out.read, "these tokens are no sinks"
    assert out.guess.tolist() == guess
    assert out.guess[-1].tolist() == answer, "at the last layer residual = output"
    assert out.ffn.tolist() == ffn
    assert out.alone.transpose(0, 1).tolist() == alone
    torch.testing.assert_close(out.active.T, torch.tensor(counts, dtype=torch.float64))
    torch.testing.assert_close(out.null_alone.T, torch.tensor(meets, dtype=torch.float64))
    assert failed(spec, out) == []
    found = values(spec, out)
    assert list(found) == [quantity.name for quantity in EXPERIMENT.metrics]
    shares = zip(*(found[name].value for name in ("residual", "agreement", "ffn", "composition")), strict=True)
    assert [sum(layer) for layer in shares] == pytest.approx([1, 1, 1])
    for at in range(len(answer)):
        row = [step[at] for step in guess]
        since = max((step + 1 for step in range(7) if row[step] != row[-1]), default=0)
        assert int(memory_composition.settled(out.guess)[at]) == since


@torch.no_grad()
def test_gains_add_up_from_the_embedding_to_the_answer():
    spec, out = run(tiny_model("gpt2"))
    found = values(spec, out)
    total = sum(found["mlp_gain"].value) + sum(found["attention_gain"].value)
    assert total == pytest.approx(float(out.nats[0].mean() - out.nats[-1].mean()), abs=1e-5)
    logits = trace(tiny_model("gpt2"), tiny_model("gpt2").tokens(SENTENCE).ids[None], [Site("logits")])[Site("logits")]
    best = -logits[0].double().log_softmax(-1).amax(-1)
    torch.testing.assert_close(out.nats[-1].double(), best, atol=1e-4, rtol=0)


def planted_cases():
    """One layer without attention, in which each of four tokens has one memory, and what that one does is known."""
    model = tiny_model("llama", tie_word_embeddings=False, num_hidden_layers=1, hidden_act="relu")
    words = ["cat", "dog", "sat", "France"]
    inputs = [model.token_id(word) for word in words]
    kept, other, third = (model.token_id(word) for word in ("Paris", "Rome", "Italy"))
    axis = torch.eye(48)
    embeddings, W_U = model.net.get_input_embeddings().weight, parts.unembedding(model).W_U
    with torch.no_grad():
        block = model.family.block(model.net, 0)
        for part in (block.self_attn.o_proj, block.mlp.down_proj, block.mlp.gate_proj, block.mlp.up_proj):
            part.weight.zero_()
            part.bias.zero_()
        for norm in (block.post_attention_layernorm, model.net.model.norm):
            norm.weight.fill_(1)
        W_U.zero_()
        for place, token in enumerate((kept, other, third)):
            W_U[place, token] = 1
        mlp = model.family.mlp_parts(model.net, 0)
        writes = (0.3 * axis[1], 0.5 * axis[0], 3 * axis[1], axis[1] + 0.9 * axis[2])
        for key, (token, write) in enumerate(zip(inputs, writes, strict=True)):
            embeddings[token] = axis[0] + 0.9 * axis[2] + 2 * axis[10 + key]
            x = parts.mlp_norm(model, 0)(embeddings[token])
            # awake at its own token only, with 1: the norm of all four is the same
            mlp.W_gate[10 + key, key] = 2 / x[10 + key]
            mlp.b_gate[key] = -1
            mlp.b_in[key] = 1
            mlp.W_out[key] = write
    return model, " " + " ".join(words)


def test_the_case_of_every_token_is_known():
    model, text = planted_cases()
    spec, out = run(model, text)
    kept, other, third = (model.token_id(word) for word in ("Paris", "Rome", "Italy"))
    assert out.read == 4
    assert out.guess[1].tolist() == [kept] * 4
    assert out.guess[2].tolist() == [kept, kept, other, third]
    assert out.ffn.tolist() == [[other, kept, other, other]]
    assert who(out).tolist() == [[0, 1, 2, 3]]
    found = values(spec, out)
    assert [found[name].value for name in ("residual", "agreement", "ffn", "composition")] == [(0.25,)] * 4
    assert (found["overturned"].value, found["composed"].value) == (0.5, 0.5)
    assert found["foreseen"].value == (0.5,)
    assert (found["decided"].value, found["by_mlp"].value) == (0.5, 0.5)
    # one memory is active at each token: what they write together is what it writes
    assert out.active[:, 0].tolist() == [1, 1, 1, 1]
    assert not out.alone.any()
    # at another token the memory writes "Rome" at three of four: 6 of 12 pairs agree
    assert out.null_alone.flatten().tolist() == pytest.approx([0.5] * 4)
    assert failed(spec, out) == []
    drawn = draw(spec, out)["words"].alt
    assert "·Paris gives way to ·Italy in the MLP of layer 0" in drawn or "·Rome in the MLP of layer 0" in drawn


def test_the_four_cases():
    residual, ffn, output = (torch.tensor(one) for one in ([1, 1, 1, 1], [2, 1, 2, 2], [1, 1, 2, 3]))
    assert cases(residual, ffn, output).tolist() == [0, 1, 2, 3]


@torch.no_grad()
def test_the_stream_before_attention_is_the_wrong_residual(monkeypatch):
    model = tiny_model("llama")
    out = run(model)[1]
    assert not torch.equal(out.guess[1::2], out.guess[:-1:2]), "attention moves guesses"
    whole = memory_composition._read

    def without_attention(*more):
        reading, kept = whole(*more)
        gone = {site: one * (site.name != "attn") for site, one in reading.at.items()}
        return reading._replace(at=gone), kept

    monkeypatch.setattr(memory_composition, "_read", without_attention)
    assert failed(*run(model)) == ["residual + MLP = the stream after it"]


@pytest.mark.parametrize("family", GATED)
def test_no_number_depends_on_how_a_memory_is_written_down(family):
    out = run(tiny_model(family, dtype=torch.float64))[1]
    other = run(gauged(tiny_model(family, dtype=torch.float64), range(3)))[1]
    for name in ("guess", "ffn", "alone", "active", "null_alone", "null"):
        torch.testing.assert_close(getattr(other, name), getattr(out, name))
    assert out.gauge_changes == 0
    read = torch.randn(20, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    signs = [
        (parts.mlp(model, 1).coefficients(read) > 0).sum()
        for model in (
            tiny_model(family, dtype=torch.float64),
            gauged(tiny_model(family, dtype=torch.float64), range(3)),
        )
    ]
    assert signs[0] != signs[1], "how many mᵢ are above 0 does depend on it"


def test_the_gauge_check_sees_a_value_without_its_sign(monkeypatch):
    whole = active._meets
    monkeypatch.setattr(active, "_meets", lambda m, *more: whole(m.abs(), *more))
    assert failed(*run(tiny_model("llama"))) == ["(u, v) → (αu, v/α) changes nothing"]


def test_the_top_token_check_sees_tokens_of_other_memories(monkeypatch):
    whole = memory_composition.tops

    def turned(bench, model):
        found = whole(bench, model)
        return found._replace(first=found.last, last=found.first)

    monkeypatch.setattr(memory_composition, "tops", turned)
    assert "a memory's top token is pushed most" in failed(*run(tiny_model("gpt2")))


def test_a_random_write_of_no_length_keeps_every_guess():
    model = tiny_model("llama")
    with torch.no_grad():
        for layer in range(3):
            down = model.family.block(model.net, layer).mlp.down_proj
            down.weight.zero_()
            down.bias.zero_()
    spec, out = run(model)
    assert out.null[:, :2].sum(1).tolist() == pytest.approx([1, 1, 1])
    assert values(spec, out)["overturned"].value == 0
    assert "composed" not in values(spec, out)
    assert out.active[0].tolist() == [0, 0, 0], "a memory that writes nothing is not active"
    assert all(render(one).content for one in draw(spec, out).values())


def test_figures_say_what_they_show_whatever_the_text_holds():
    spec, out = run(tiny_model("qwen2"), "a $b$ <c>\n" + SENTENCE)
    drawn = draw(spec, out)
    assert drawn.keys() == EXPERIMENT.figures.keys()
    for drawing in drawn.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf\b", drawing.alt)


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(NoteError, match="as 1 token, 0 of them massive, and two"):
        run(tiny_model("gpt2"), "T")
    model = tiny_model("llama")
    object.__setattr__(model, "shape", model.shape.__class__(**{**vars(model.shape), "d_mlp": 0}))
    with pytest.raises(NoteError, match="no MLP"):
        run(model)
    assert reads(Spec(), model.shape) is None


def test_what_it_needs_grows_with_the_text():
    shape = tiny_model("llama").shape
    few, many = needs(Spec(tokens=8), shape), needs(Spec(tokens=128), shape)
    assert few.bytes < many.bytes
    assert few.seconds < many.seconds
