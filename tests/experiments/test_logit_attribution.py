"""Direct pushes: a second implementation with plain loops, planted pushes, the traps that must fail, figures."""

import math
import re
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.logit_attribution import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import direct, parts
from vaultlab.models.load import assemble, load
from vaultlab.models.toys import TOYS, fresh, tokenizer
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:60]


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": Text("", "0", (("", text),))})
    return spec, compute(spec, bench)


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def parts_of(out):
    return dict(zip(out.names, out.own.tolist(), strict=True))


def found_in(model, text=SENTENCE):
    return {
        site: one[0].double()
        for site, one in trace(model, model.tokens(text).ids[None], direct.sites(model.shape)).items()
    }


def untied(model):
    """The model with an unembedding of its own, and a bias."""
    net = model.net
    old = net.get_output_embeddings()
    head = torch.nn.Linear(old.in_features, old.out_features, bias=False)
    head.weight = torch.nn.Parameter(old.weight.clone(), requires_grad=False)
    net.set_output_embeddings(head)
    return model


# -- the same numbers, written down again with plain loops


def by_loops(model, at, target, foil=None):
    """Every part's push on one token's logit at one position."""
    wide = torch.float64
    found = found_in(model)
    norm, U = parts.final_norm(model, wide), parts.unembedding(model, wide)
    final = found[Site("final")][at]
    centre = (lambda v: v - v.mean()) if norm.kind == "layer" else (lambda v: v)
    scale = 1 / math.sqrt(float(centre(final).square().mean()) + norm.eps)

    def read(vector):
        """The logits of a vector, less the baseline."""
        logits = (centre(vector) * scale * norm.gain) @ U.W_U
        return float(logits[target] - (logits.mean() if foil is None else logits[foil]))

    pushes = {"embedding": read(found[Site("resid_pre", 0)][at])}
    for layer in range(model.shape.layers):
        attn, attn_norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
        x = found[Site("attn_in", layer)]
        A = attn.pattern(x)
        for head in range(model.shape.heads):
            writes = [(x[j] - attn_norm.bias) @ attn.W_V[head] @ attn.W_O[head] for j in range(at + 1)]
            pushes[f"L{layer}H{head}"] = sum(float(A[head, at, j]) * read(writes[j]) for j in range(at + 1))
        fixed = [(attn_norm.bias @ W_V + b_V) @ W_O for W_V, b_V, W_O in zip(attn.W_V, attn.b_V, attn.W_O, strict=True)]
        pushes[f"attention biases {layer}"] = read(torch.stack(fixed).sum(0) + attn.b_O)
        pushes[f"MLP {layer}"] = read(found[Site("mlp", layer)][at])
    last = norm.bias @ U.W_U + U.b_U
    pushes["last biases"] = float(last[target] - (last.mean() if foil is None else last[foil]))
    return pushes


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_pushes_are_those_of_plain_loops(family: str) -> None:
    model = tiny_model(family)
    logits = found_in(model)[Site("logits")]
    spec, out = run(model)
    at, target = len(logits) - 1, int(logits[-1].argmax())
    expected = by_loops(model, at, target)
    assert parts_of(out) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert sum(expected.values()) == pytest.approx(float(logits[-1].max() - logits[-1].mean()), rel=1e-4)
    assert value(spec, out, "logit").value == pytest.approx(sum(expected.values()), rel=1e-4)
    foil = int(model.token_id("cat"))
    spec, out = run(model, foil="cat", position=-3)
    target = int(logits[-3].argmax())
    assert parts_of(out) == pytest.approx(by_loops(model, at - 2, target, foil), rel=1e-4, abs=1e-5)
    assert value(spec, out, "probability").value == pytest.approx(float(logits[-3].softmax(-1).max()), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_of_all_positions_it_is_the_mean(family: str) -> None:
    model = tiny_model(family)
    _, out = run(model, position="all", target="cat")
    target = int(model.token_id("cat"))
    each = [by_loops(model, int(at), target) for at in out.at]
    assert parts_of(out) == pytest.approx(
        {name: sum(one[name] for one in each) / len(each) for name in each[0]}, rel=1e-4, abs=1e-5
    )
    for place, one in enumerate(each):
        for layer in range(3):
            attention = sum(one[f"L{layer}H{head}"] for head in range(4)) + one[f"attention biases {layer}"]
            assert float(out.along[0, layer, place]) == pytest.approx(attention, rel=1e-4, abs=1e-5)
            assert float(out.along[1, layer, place]) == pytest.approx(one[f"MLP {layer}"], rel=1e-4, abs=1e-5)


def test_kinds_and_layers_are_sums_of_parts() -> None:
    model = tiny_model("gpt2")
    spec, out = run(model)
    own = parts_of(out)
    of = {metric.name: metric.value for metric in measure(spec, out)}
    heads = [own[f"L{layer}H{head}"] for layer in range(3) for head in range(4)]
    assert list(of["head_pushes"]) == pytest.approx(heads)
    attention = [sum(heads[4 * layer : 4 * layer + 4]) + own[f"attention biases {layer}"] for layer in range(3)]
    assert list(of["attention_pushes"]) == pytest.approx(attention, abs=1e-5)
    assert list(of["mlp_pushes"]) == pytest.approx([own[f"MLP {layer}"] for layer in range(3)])
    assert of["logit"] == pytest.approx(
        of["embedding_push"] + of["attention_push"] + of["mlp_push"] + of["bias_push"], abs=1e-4
    )
    assert of["late_push"] == pytest.approx(attention[2] + own["MLP 2"], abs=1e-5)
    assert of["cancelled"] == pytest.approx(1 - abs(sum(own.values())) / sum(map(abs, own.values())), abs=1e-5)
    assert of["strongest"] == pytest.approx(max(map(abs, own.values())))


@torch.no_grad()
def test_the_null_is_what_random_tokens_get() -> None:
    model = tiny_model("llama")
    spec, out = run(model, draws=8)
    generator = Bench(torch.device("cpu"), torch.float32, lambda name: model).generator("tokens", 0)
    drawn = torch.randint(model.shape.d_vocab, (8,), generator=generator)
    for row, token in enumerate(drawn[:3].tolist()):
        expected = by_loops(model, len(out.tokens) - 1, token)
        assert dict(zip(out.names, out.null[row].tolist(), strict=True)) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    metric = value(spec, out, "logit")
    assert metric.null == pytest.approx(float(out.null.double().sum(1).square().mean().sqrt()))


# -- planted pushes


@torch.no_grad()
def test_a_planted_push_is_found_with_its_size() -> None:
    model = untied(tiny_model("llama"))
    token = int(model.token_id("dog"))
    norm = parts.final_norm(model)
    W_U = parts.unembedding(model).W_U
    g = norm.gain * (W_U[:, token] - W_U.mean(-1))
    model.net.model.layers[1].mlp.down_proj.bias += 40 * g / g.norm()
    spec, out = run(model, target="dog")
    own = parts_of(out)
    assert max(own, key=lambda name: own[name]) == "MLP 1"
    final = trace(model, model.tokens(SENTENCE).ids[None], [Site("final")])[Site("final")][0, -1]
    closed = float(norm.scale(final)) * 40 * float(g.norm())
    assert own["MLP 1"] == pytest.approx(closed, rel=0.15)  # beside what its memories write
    assert value(spec, out, "strongest").value == pytest.approx(own["MLP 1"])
    assert value(spec, out, "strongest").value > 3 * value(spec, out, "strongest").null


@torch.no_grad()
def test_a_head_that_copies_is_traced_to_the_token_it_copied_from() -> None:
    """In a toy whose head looks at the first token and writes that token's own unembedding."""
    net = fresh(TOYS["toy/attn-only-1l"], torch.Generator().manual_seed(0))
    model = assemble("toy", "0", net, tokenizer())
    with torch.no_grad():
        attn = net.blocks[0].attn
        attn.q.weight.zero_()
        for head in range(4):
            rows = slice(16 * head, 16 * head + 16)
            attn.v.weight[rows] *= 0 if head != 2 else 1
    _, out = run(model, "abcabcab", target="c")
    assert out.head == "L0H2"
    split = dict(zip(out.source_heads, out.sources.sum(-1).tolist(), strict=True))
    assert split["L0H2"] == pytest.approx(parts_of(out)["L0H2"], rel=1e-5)
    row = out.sources[out.source_heads.index("L0H2")]
    found = found_in(model, "abcabcab")
    x = found[Site("attn_in", 0)]
    attn, W_U = parts.attention(model, 0, torch.float64), parts.unembedding(model, torch.float64).W_U
    u = W_U[:, model.token_id("c")] - W_U.mean(-1)
    uniform = (x @ attn.W_V[2] @ attn.W_O[2] @ u) / len(x)  # it looks everywhere alike
    assert row.tolist() == pytest.approx(uniform.tolist(), rel=1e-4, abs=1e-6)


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family: str, dtype: torch.dtype) -> None:
    for fields in ({}, {"position": "all", "foil": "cat"}):
        spec, out = run(tiny_model(family, dtype=dtype), **fields)
        assert [(check.name, check.residual) for check in verify(spec, out) if not check.ok] == []


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(field: str, broken: float) -> None:
    spec, out = run(tiny_model("llama"))
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def failed(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


def test_a_layer_norm_that_is_not_centred_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "seen_through", lambda norm, u: norm.gain * u)
    assert "parts = logit (algebra)" in failed(*run(tiny_model("gpt2")))
    assert failed(*run(tiny_model("llama"))) == []  # RMSNorm has nothing to centre


@pytest.mark.parametrize("bias", ["b_V", "norm's"])
def test_a_forgotten_bias_fails(bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the layer's constant only b_O is kept, or of what heads carry nothing is taken off."""
    monkeypatch.setattr(
        direct,
        "constant",
        lambda attn, norm: attn.b_O + (0 if bias == "b_V" else 1) * attn.b_V.flatten() @ attn.W_O.flatten(0, 1),
    )
    assert {"parts = logit (algebra)", "heads + biases = layer (rounding)"} <= set(failed(*run(tiny_model("gpt2"))))


def test_values_left_with_what_they_carry_fail_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum is right whatever is counted to the heads: only the second way tells."""
    monkeypatch.setattr(direct, "carried", lambda attn, norm: 0 * attn.b_V)
    monkeypatch.setattr(direct, "constant", lambda attn, norm: attn.b_O)
    for family in ("llama", "qwen2", "gpt2", "gpt_neox"):
        assert failed(*run(tiny_model(family))) == ["a head's push, token by token"], family


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_tiled_instead_of_repeated_heads_fail(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = parts.attention

    def tiled(model, layer, dtype=None):
        attn = true(model, layer, dtype)
        return replace(attn, W_V=attn.W_V[::2].repeat(2, 1, 1), b_V=attn.b_V[::2].repeat(2, 1))

    model = tiny_model(family)
    spec, out = run(model, head="L1H1")
    assert failed(spec, out) == []
    monkeypatch.setattr(parts, "attention", tiled)
    spec, out = run(model, head="L1H1")
    assert "a head's push, token by token" in failed(spec, out)
    assert float(out.head_residual) > 0.01


@torch.no_grad()
def test_the_hidden_state_after_the_norm_is_not_the_last_stream() -> None:
    model = tiny_model("llama")
    found = found_in(model)
    hidden = model.net(model.tokens(SENTENCE).ids[None], output_hidden_states=True).hidden_states[-1][0, -1].double()
    total = found[Site("resid_pre", 0)][-1] + sum(
        found[Site(name, layer)][-1] for layer in range(3) for name in ("attn", "mlp")
    )
    assert (total - found[Site("final")][-1]).norm() < 1e-5 * total.norm()
    assert (total - hidden).norm() > 0.1 * total.norm()


@torch.no_grad()
def test_a_norm_computed_anew_for_every_part_adds_up_to_another_logit() -> None:
    model = tiny_model("llama")
    found = found_in(model)
    norm, U = parts.final_norm(model, torch.float64), parts.unembedding(model, torch.float64)
    pieces = [found[Site("resid_pre", 0)][-1]] + [
        found[Site(name, layer)][-1] for layer in range(3) for name in ("attn", "mlp")
    ]
    logits = found[Site("logits")][-1]
    target = int(logits.argmax())
    gap = float(logits[target] - logits.mean())
    scale = norm.scale(found[Site("final")][-1])

    def total(own_scale: bool) -> float:
        read = [(norm.bare(x) if own_scale else x * scale) * norm.gain @ U.W_U for x in pieces]
        return float(sum(one[target] - one.mean() for one in read))

    assert total(False) == pytest.approx(gap, rel=1e-4)
    assert abs(total(True) - gap) > 0.1 * gap


@torch.no_grad()
def test_folding_the_gain_into_tied_weights_changes_what_the_embedding_pushes() -> None:
    model = tiny_model("llama")
    before = model.net.get_input_embeddings().weight.clone()
    _, out = run(model, target="cat")
    assert torch.equal(model.net.get_input_embeddings().weight, before)
    expected = parts_of(out)
    model.net.get_input_embeddings().weight *= parts.final_norm(model).gain  # W_U is the same matrix
    model.net.model.norm.weight.fill_(1)
    assert parts_of(run(model, target="cat")[1]) != pytest.approx(expected, rel=0.05)
    fine = untied(tiny_model("llama"))
    fine.net.get_output_embeddings().weight *= parts.final_norm(fine).gain
    fine.net.model.norm.weight.fill_(1)
    assert parts_of(run(fine, target="cat")[1]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


# -- what must not matter


@torch.no_grad()
def test_adding_the_same_to_every_column_changes_nothing_but_raw_shares() -> None:
    model, other = untied(tiny_model("llama")), untied(tiny_model("llama"))
    c = torch.randn(48, generator=torch.Generator().manual_seed(3))
    other.net.get_output_embeddings().weight += c
    (spec, one), (_, two) = run(model, position="all"), run(other, position="all")
    assert torch.allclose(one.own, two.own, atol=1e-4)
    assert torch.allclose(one.null, two.null, atol=1e-4)
    for mine, theirs in zip(measure(spec, one), measure(spec, two), strict=True):
        assert theirs.value == pytest.approx(mine.value, rel=1e-3, abs=1e-4)
        assert (theirs.null or 0) == pytest.approx(mine.null or 0, rel=1e-3, abs=1e-4)

    def raw(net) -> torch.Tensor:
        """Shares of a raw logit."""
        found, norm = found_in(net), parts.final_norm(net, torch.float64)
        column = parts.unembedding(net, torch.float64).W_U[:, 5]
        pieces = torch.stack([found[Site(name, layer)][-1] for layer in range(3) for name in ("attn", "mlp")])
        pushes = (pieces * norm.scale(found[Site("final")][-1]) * norm.gain) @ column
        return pushes / pushes.abs().sum()

    assert (raw(model) - raw(other)).abs().max() > 0.05


def test_a_value_bias_moved_into_the_output_bias_changes_no_push_of_a_head() -> None:
    model, other = tiny_model("llama"), tiny_model("llama")
    shift = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer in other.net.model.layers:
            attn = layer.self_attn
            attn.v_proj.bias += shift
            attn.o_proj.bias -= attn.o_proj.weight @ shift.view(2, 1, 16).expand(2, 2, 16).flatten()
    assert torch.allclose(run(model)[1].own, run(other)[1].own, atol=1e-4)


# -- what the author may write


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"head": "L3H0"}, "head", "L0H0 to L2H3"),
        ({"target": "antidisestablishment"}, "target", "not one token"),
        ({"foil": "antidisestablishment"}, "foil", "not one token"),
        ({"position": 99}, "position", "Positions are 0 to"),
        ({"position": -99}, "position", "from the end -1 to"),
        ({"target": " cat", "foil": "cat"}, "foil", "the same token"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_mend(fields, field: str, says: str) -> None:
    with pytest.raises(NoteError) as error:
        run(tiny_model("llama"), **fields)
    assert error.value.field == field
    assert says in str(error.value)


def test_one_word_twice_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValidationError, match="the same word"):
        Spec(target="cat", foil="cat")


def test_positions_count_from_either_end() -> None:
    model = tiny_model("qwen2")
    count = len(run(model)[1].tokens)
    for one, other in (("last", -1), (0, -count), (count - 1, -1), (3, 3 - count)):
        assert torch.equal(run(model, position=one)[1].own, run(model, position=other)[1].own)


@torch.no_grad()
def test_a_massive_token_is_left_out_of_all_positions_and_listed() -> None:
    model = tiny_model("gpt2")
    ids = model.tokens(SENTENCE).ids
    model.net.transformer.wte.weight[ids[4]] *= 200
    spec, out = run(model, position="all")
    assert 4 not in out.at.tolist()
    assert out.tokens[4] in out.left_out
    assert value(spec, out, "logit").n == len(out.at) < len(ids)
    assert out.tokens[4].replace("·", "") in draw(spec, out)["tokens"].alt.partition("Left out")[2]


# -- numbers and figures as a reader gets them


@pytest.mark.parametrize("fields", [{"foil": "cat"}, {"position": "all"}])
def test_metrics_and_figures_are_those_promised(fields) -> None:
    spec, out = run(tiny_model("qwen2"), "a $b$ <c>\n中🙂" + SENTENCE, **fields)
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]
    drawings = draw(spec, out)
    missing = "sources" if "position" in fields else "tokens"
    assert list(drawings) == [name for name in EXPERIMENT.figures if name != missing]
    for drawing in drawings.values():
        assert render(drawing).content
        assert re.search(r"\d", drawing.alt)
        assert not re.search(r"\bnan|\binf", drawing.alt)


def test_a_model_of_attention_alone_pushes_with_nothing_else() -> None:
    model = assemble("toy", "0", fresh(TOYS["toy/attn-only-2l"], torch.Generator().manual_seed(0)), tokenizer())
    spec, out = run(model, "abcabcab")
    assert failed(spec, out) == []
    assert value(spec, out, "mlp_push").value == value(spec, out, "bias_push").value == 0
    drawings = draw(spec, out)
    assert "MLP" not in drawings["course"].alt
    assert "others" not in drawings["waterfall"].alt


def test_what_is_kept_stays_small_for_large_models() -> None:
    shape = replace(tiny_model("llama").shape, layers=80, heads=64, d_model=8192, parameters=70 * 10**9)
    parts_count = len(direct.names_of(shape))
    assert (1024 + 1) * parts_count * 4 + 2 * 80 * 512 * 4 + 6 * 512 * 4 < 50_000_000
    assert needs(Spec(tokens=512), shape).bytes > needs(Spec(), shape).bytes
    assert needs(Spec(position="all"), shape).bytes > needs(Spec(), shape).bytes
    assert needs(Spec(tokens=512), shape).seconds > needs(Spec(), shape).seconds


@pytest.mark.model
def test_what_a_shuffled_model_answers_is_not_pushed_by_that_head() -> None:
    _, out = run(load("smollm2-135m"), Spec().text, target="Paris", head="L23H4")
    _, shuffled = run(load("smollm2-135m"), Spec().text, target="Paris", head="L23H4", weights="shuffled")
    assert parts_of(out)["L23H4"] > 1.5
    assert abs(parts_of(shuffled)["L23H4"]) < 1
