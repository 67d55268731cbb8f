"""Key–value memories: a second implementation with plain loops, planted memories, the traps that must fail."""

import math
from dataclasses import replace

import pytest
import torch

from tests.planted import gauged, planted
from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.kv_memory import (
    EXPERIMENT,
    Spec,
    compute,
    draw,
    gaussian_peak,
    measure,
    needs,
    same_token,
    verify,
)
from vaultlab.models import parts
from vaultlab.models.bootstrap import interval
from vaultlab.models.memories import promoted, readout
from vaultlab.models.prefixes import Seen, gauge_residual, misaligned
from vaultlab.models.search import Corpus, searched
from vaultlab.models.trace import Site, trace
from vaultlab.plots.memories import Line, draw_page, fitted
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
LAYER = 1


def bench(model, texts=SENTENCES, size=4):
    text = Text("", "0", tuple(("", one) for one in texts))
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": text}, batch=size)


def run(model, texts=SENTENCES, size=4, **fields):
    spec = Spec(**{"model": "tiny", "layer": LAYER, "top": 4, **fields})
    return spec, compute(spec, bench(model, texts, size))


def search(model, texts=SENTENCES, size=4, tokens=20_000):
    here = bench(model, texts, size)
    return searched(here, Corpus(model, here.text("text"), tokens))


def values(spec, out):
    return {metric.name: metric.value for metric in measure(spec, out)}


# -- the same numbers, written down again with plain loops


def coefficient(mlp, x, i):
    up = sum(float(x[d]) * float(mlp.W_in[d, i]) for d in range(len(x))) + float(mlp.b_in[i])
    if mlp.W_gate is None:
        return float(mlp.act(torch.tensor(up, dtype=torch.float64)))
    gate = sum(float(x[d]) * float(mlp.W_gate[d, i]) for d in range(len(x))) + float(mlp.b_gate[i])
    return float(mlp.act(torch.tensor(gate, dtype=torch.float64))) * up


def final_scale(norm, stream):
    mean = sum(map(float, stream)) / len(stream) if norm.kind == "layer" else 0.0
    return 1 / math.sqrt(sum((float(s) - mean) ** 2 for s in stream) / len(stream) + norm.eps)


def prefixes(model):
    """Of each sentence every prefix, read alone: what the layer's MLP reads at its end, its last token, the one after
    it, and the final stream there."""
    sites = [Site("mlp_in", LAYER), Site("final")]
    for sentence in SENTENCES:
        ids = model.tokens(sentence).ids
        within = []
        for last in range(1, len(ids) - 1):
            found = trace(model, ids[None, : last + 1], sites)
            x, final = (found[site][0, -1] for site in sites)
            within.append((x, int(ids[last]), int(ids[last + 1]), final))
        yield within


def by_loops(model, sentences, key, top):
    """One key's triggers and what its value pushes at the strongest."""
    mlp, norm = parts.mlp(model, LAYER, torch.float64), parts.final_norm(model, torch.float64)
    best = []
    for sentence in sentences:
        within = ((coefficient(mlp, x, key), *rest) for x, *rest in sentence)
        best.append(max(((abs(m), m, *rest) for m, *rest in within), key=lambda one: one[0]))
    best = sorted(best, key=lambda one: -one[0])[:top]
    _, m, _, _, final = best[0]
    v = [float(value) for value in mlp.W_out[key]]
    mean = sum(v) / len(v) if norm.kind == "layer" else 0.0
    write = torch.tensor([(value - mean) * float(g) for value, g in zip(v, norm.gain, strict=True)]).double()
    W_U = model.net.get_output_embeddings().weight.double()
    push = [m * final_scale(norm, final) * float(write @ row) for row in W_U]
    middle = sum(push) / len(push)
    length = math.sqrt(sum(value**2 for value in v))
    sign = math.copysign(1, m)
    return {
        "strength": [sign * one[1] * length for one in best],
        "trigger": [one[2] for one in best],
        "next": [one[3] for one in best],
        "top_token": max(range(len(push)), key=push.__getitem__),
        "bottom_token": min(range(len(push)), key=push.__getitem__),
        "rank": sum(one > push[best[0][3]] for one in push),
        "push": max(push) - middle,
        "next_push": push[best[0][3]] - middle,
    }


@pytest.mark.parametrize("family", sorted(FAMILIES))
@torch.inference_mode()
def test_plain_loops_over_single_prefixes_say_the_same(family):
    model = tiny_model(family, dtype=torch.float64)
    spec, out = run(model)
    assert values(spec, out)["left_out"] == 0
    sentences = list(prefixes(model))
    for row in (0, 17, 79):
        expected = by_loops(model, sentences, row, spec.top)
        assert out.strength[row].tolist() == pytest.approx(expected["strength"], rel=1e-5)
        for name in ("trigger", "next"):
            assert getattr(out, name)[row].tolist() == expected[name]
        for name in ("top_token", "bottom_token", "rank"):
            assert int(getattr(out, name)[row]) == expected[name]
        alone = run(model, key=row)[1]
        assert alone.push[0, 0].item() == pytest.approx(expected["push"], rel=1e-4)
        assert alone.next_push[0].item() == pytest.approx(expected["next_push"], rel=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("key", [None, 3])
def test_the_checks_hold(family, key):
    spec, out = run(tiny_model(family), key=key)
    checks = verify(spec, out)
    assert [check for check in checks if not check.ok] == []
    assert len(checks) == 5 + out.gated
    assert out.gated == (family not in ("gpt2", "gpt_neox"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_checks_hold_in_the_runs_own_precision(family):
    model = tiny_model(family, dtype=torch.bfloat16)
    spec, out = run(model)
    assert {weight.dtype for weight in model.net.parameters()} == {torch.bfloat16}
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert float(out.rounding_residual) > 1e-4


def test_relu_memories():
    spec, out = run(tiny_model("gpt2", activation_function="relu"))
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert values(spec, out)["opposite"] == 0


def test_the_batch_changes_nothing():
    model = tiny_model("llama", dtype=torch.float64)
    one, many = run(model, size=1)[1], run(model, size=32)[1]
    for name in ("trigger", "next", "top_token", "rank", "shown"):
        assert torch.equal(getattr(one, name), getattr(many, name)), name
    torch.testing.assert_close(one.strength, many.strength)


# -- the gauge


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
@pytest.mark.parametrize("key", [None, 11])
def test_no_shown_number_depends_on_how_a_memory_is_written_down(family, key):
    spec, out = run(tiny_model(family, dtype=torch.float64), key=key)
    _, other = run(gauged(tiny_model(family, dtype=torch.float64), [LAYER]), key=key)
    for name, value in values(spec, out).items():
        assert values(spec, other)[name] == pytest.approx(value, rel=1e-5), name
    assert (other.lines, other.pushed) == (out.lines, out.pushed)
    torch.testing.assert_close(other.strength, out.strength)
    torch.testing.assert_close(other.push, out.push, rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_a_bare_value_and_a_signed_ranking_do_depend_on_it():
    plain, other = tiny_model("llama"), gauged(tiny_model("llama"), [LAYER])
    asked, sign = torch.zeros(80, 1, dtype=torch.long), torch.ones(80)
    bare = [promoted(model, LAYER, slice(None), sign, asked).first for model in (plain, other)]
    assert 0.3 < (bare[0] == bare[1]).float().mean() < 0.7
    # a ranking by signed m, as one would read it off the kept triggers
    first = []
    for model in (plain, other):
        found = search(model).triggers(model, LAYER, slice(None), 8)
        first.append(found.at.gather(1, found.coefficient.argmax(1, keepdim=True))[:, 0])
    assert 0.3 < (first[0] == first[1]).float().mean() < 0.7


@torch.inference_mode()
def test_the_gauge_check_sees_a_mlp_that_is_not_gated_that_way():
    model = tiny_model("llama")
    mlp = parts.mlp(model, LAYER, torch.float32)
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    nothing = torch.tensor(0.0)
    seen = Seen(x, mlp.coefficients(x), torch.ones(3), nothing, nothing)
    key, draws = torch.tensor([1, 2, 3]), lambda: torch.Generator().manual_seed(1)
    assert gauge_residual(model, mlp, seen, key, draws()) < 1e-5
    swapped = replace(mlp, act=lambda gate: gate.abs() + mlp.b_in.abs().sum(), W_in=mlp.W_in, b_in=mlp.b_in)
    assert gauge_residual(model, swapped, seen, key, draws()) < 1e-5  # any f of the gate has this freedom
    through = replace(mlp, W_gate=None, b_gate=None)
    assert gauge_residual(model, through, seen, key, draws()) == 0  # and without a gate none is claimed


# -- planted memories


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_a_planted_memory_is_found_every_time(family):
    model = planted(family, "cat", "sat")
    spec, out = run(model, layer=0, key=7)
    found = values(spec, out)
    assert {line[1] for line in out.lines} == {"·cat"}
    assert (found["agreement"], found["trigger_agreement"], found["same_token"], found["opposite"]) == (1, 1, 1, 0)
    assert found["next_rank"] == 1
    assert found["peak"] > gaussian_peak(out.looked_at)
    layer = run(model, layer=0)[1]
    assert out.trigger[0].tolist() == layer.trigger[7].tolist()
    assert [check for check in verify(spec, out) if not check.ok] == []


def test_the_value_is_read_by_the_unembedding_not_by_the_embedding():
    model = planted("llama", "cat", "sat", tie_word_embeddings=False)
    sat = model.token_id("sat")
    assert int(run(model, layer=0, key=7)[1].top_token) == sat
    v = parts.mlp(model, 0).W_out[[7]]
    wrong = readout(model, -v) @ parts.embedding(model).W_E.T
    assert int(wrong.argmax()) != sat


def test_an_off_by_one_target_would_not_agree():
    model = planted("gpt2", "cat", "sat")
    whole = search(model)
    sentences, found = whole.sentences, whole.triggers(model, 0, slice(None), 4)
    sat, cat = model.token_id("sat"), model.token_id("cat")
    assert found.next[7].tolist() == [sat] * 4
    assert sentences.ids[found.at[7]].tolist() == [cat] * 4
    assert misaligned(sentences, found) == 0
    shifted = found._replace(next=sentences.ids[found.at])
    assert misaligned(sentences, shifted) > 100
    too_far = found._replace(at=(found.at + 1).clamp(max=len(sentences.ids) - 1))
    assert misaligned(sentences, too_far) > 100


def test_the_first_token_of_a_sentence_is_no_trigger():
    model = planted("llama", "cat", "sat")
    texts = [*SENTENCES, *(f" cat sat {word}." for word in ("there", "still", "so", "first"))]
    _spec, out = run(model, texts, layer=0, key=7, top=8)
    assert sum(line[1] == "·cat" for line in out.lines) == 4  # of the first four texts that have one later on
    whole = search(model, texts)
    found = whole.triggers(model, 0, slice(None), 8)
    starts = found._replace(at=whole.start[whole.sentences.holding(found.at)])
    assert misaligned(whole.sentences, starts) > 0  # what keeps position 0 is told
    with_bos = run(model, texts, layer=0, key=7, top=8, bos=True)[1]
    assert sum(line[1] == "·cat" for line in with_bos.lines) == 8  # behind a token that begins texts it may be one


def test_sinks_and_special_tokens_are_no_triggers_and_listed():
    model = planted("gpt2", "cat", "sat")
    saw = model.token_id("saw")
    with torch.no_grad():
        model.net.get_input_embeddings().weight[saw] *= 100
    spec, out = run(model, [*SENTENCES, "A dog <bos> saw <bos>cat.", "It was <bos> cat sat."], layer=0)
    assert dict(out.sinks) == {"·saw": 3}
    assert "·saw (3)" in draw(spec, out)["triggers"].alt
    assert values(spec, out)["left_out"] == 3
    assert saw not in out.trigger
    assert model.tokenizer.bos_token_id not in out.trigger
    assert model.tokenizer.bos_token_id not in out.next


# -- numbers


def test_same_token_is_the_largest_share():
    tokens = torch.tensor([[1, 1, 2, 1], [1, 2, 3, 4], [5, 5, -1, -1], [-1, -1, -1, -1]])
    assert same_token(tokens).tolist() == [0.75, 0.25, 1.0, 0.0]


def test_an_interval_is_over_clusters():
    generator, hits = torch.Generator().manual_seed(0), torch.tensor([1.0, 0.0]).repeat(200)
    rows = interval(hits, torch.arange(400), generator)
    assert rows[0] < 0.5 < rows[1]
    assert float(rows[1] - rows[0]) == pytest.approx(4 * 0.5 / 20, rel=0.15)
    pairs = interval(hits.sort().values, torch.arange(400) // 40, generator)
    assert float(pairs[1] - pairs[0]) > 3 * float(rows[1] - rows[0])
    assert interval(hits, torch.zeros(400, dtype=torch.long), generator).isnan().all()


def test_the_null_peak_is_that_of_normal_coefficients():
    m = torch.randn(400, 1000, generator=torch.Generator().manual_seed(0)).abs()
    assert gaussian_peak(1000) == pytest.approx(float((m.amax(1) / m.mean(1)).median()), rel=0.02)


def test_the_shuffled_null_is_the_mean_over_shuffles():
    _spec, out = run(planted("gpt2", "cat", "sat"), layer=0)
    generator = torch.Generator().manual_seed(0)
    shuffled = [
        (out.top_token == out.next[:, 0][torch.randperm(80, generator=generator)]).double().mean() for _ in range(2000)
    ]
    assert float(out.chance_agreement[0]) == pytest.approx(float(torch.stack(shuffled).mean()), rel=0.1)


def test_keys_that_never_wake_are_counted_and_left_out():
    model = tiny_model("gpt2", activation_function="relu")
    with torch.no_grad():
        parts.mlp(model, LAYER).b_in[:70] = -1e4
        parts.mlp(model, LAYER).b_in[70:] = 5
    spec, out = run(model)
    found = values(spec, out)
    assert found["silent"] == 70
    assert all(math.isfinite(value) for value in found.values() if not isinstance(value, tuple))
    assert (out.trigger[:70] == -1).all()
    assert [check for check in verify(spec, out) if not check.ok] == []
    draw(spec, out)
    with pytest.raises(NoteError, match="wakes"):
        run(model, key=3)


# -- figures and fields


@pytest.mark.parametrize("key", [None, 3])
def test_figures_are_the_declared_ones_and_the_same_bytes(key):
    spec, out = run(tiny_model("llama"), key=key)
    first, again = ({name: render(one) for name, one in draw(spec, out).items()} for _ in range(2))
    assert first == again
    assert set(first) == ({"page", "meeting"} if key is not None else {"memories", "triggers"})
    assert set(first) < set(EXPERIMENT.figures)
    assert all(figure.kind == "svg" and len(figure.content) < 500_000 for figure in first.values())


def test_foreign_tokens_are_drawn_as_they_are():
    lines = [Line("a $x_1$ \n 中" * 9, "\\frac{", "$"), Line("", "x" * 80, "")]
    figure = draw_page("key 1 of layer 2", lines, [5.0, -2.0], ["$", "^", "𝛼", "\t"], [3.0, 2.0, 1.0, 0.5])
    assert render(figure).content
    assert "⟨4e2d⟩" in fitted("中", 100)
    assert fitted("x" * 80, 60).endswith("…")
    assert fitted("x" * 80, 60, end=True).startswith("…")


@pytest.mark.parametrize(
    ("fields", "said", "field"),
    [
        ({"layer": 9}, "no layer 9", "layer"),
        ({"key": 80}, "no key 80", "key"),
        ({"top": 12}, "10 different sentences", "text"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_mend(fields, said, field):
    with pytest.raises(NoteError, match=said) as error:
        run(tiny_model("llama"), **fields)
    assert error.value.field == field
    assert error.value.hint


def test_an_empty_text_is_refused():
    with pytest.raises(NoteError, match="nothing to read"):
        run(tiny_model("llama"), ["", "\n"])


def test_the_layer_is_five_sixths_of_the_way_up():
    assert run(tiny_model("llama"), layer=None)[1].layer == 2


def test_needs_grow_with_the_text_in_time_not_in_memory():
    shape = tiny_model("llama").shape
    little, much = needs(Spec(tokens=10_000), shape), needs(Spec(tokens=40_000), shape)
    assert much.seconds > little.seconds
    assert much.bytes - little.bytes < 50 * 30_000
