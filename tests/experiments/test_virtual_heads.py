"""Virtual heads: one pair written out in loops, every path of a toy, the null by rotations, and the wrong ways."""

import math
import re
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.tiny import FAMILIES, TEXT, tiny_model, tiny_tokenizer
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.virtual_heads import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import parts, paths
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.load import assemble
from vaultlab.models.toys import fresh
from vaultlab.models.trace import trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:40]
FIRST, SECOND = (0, 3), (2, 1)


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    texts = {"text": Text("", "0", (("", text),))}
    return spec, compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model, texts))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def toy(seed=0):
    config = AttnOnlyConfig(layers=2, d_model=24, heads=3, context=40, vocab_size=len(tiny_tokenizer()))
    return assemble("toy", f"{seed:02x}", fresh(config, torch.Generator().manual_seed(seed)), tiny_tokenizer())


def read(model, text=SENTENCE):
    ids = model.tokens(text).ids
    found = trace(model, ids[None], paths.sites(model.shape.layers))
    return ids, {site: one[0] for site, one in found.items()}


# -- the same numbers by loops, in float64


def by_loops(model, first=FIRST, second=SECOND, *, frozen=True, tiled=False):
    """What one virtual head pushes, token by token by token."""
    ids, found = read(model)
    at = {name: (lambda layer, name=name: found[paths.Site(name, layer)].double()) for name in ("resid_pre", "pattern")}
    per_group = model.shape.heads // model.shape.kv_heads
    heads = []
    for layer, head in (first, second):
        attn, norm = parts.attention(model, layer, torch.float64), parts.attn_norm(model, layer, torch.float64)
        shared = head % model.shape.kv_heads * per_group if tiled else head // per_group * per_group
        stream = at["resid_pre"](layer)
        scale = norm.scale(stream) if frozen else torch.ones(len(stream), 1, dtype=torch.float64)

        def into(x, norm=norm, scale=scale, W_V=attn.W_V[shared], W_O=attn.W_O[head]):
            centred = x - x.mean(-1, keepdim=True) if norm.kind == "layer" else x
            return centred * scale * norm.gain @ W_V @ W_O

        heads.append((at["pattern"](layer)[head], into))
    (A, one), (B, two) = heads
    moved = two(A @ one(at["resid_pre"](first[0])))
    final, W_U = parts.final_norm(model, torch.float64), parts.unembedding(model, torch.float64).W_U
    last = final.scale(found[paths.Site("final")].double())
    total = 0.0
    for i in range(len(ids) - 1):
        write = sum(B[i, j] * moved[j] for j in range(i + 1))
        write = write - write.mean() if final.kind == "layer" else write
        logits = (write * last[i] * final.gain) @ W_U
        total += float(logits[ids[i + 1]] - logits.mean())
    return total / (len(ids) - 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_virtual_head_is_what_loops_find(family):
    model = tiny_model(family)
    spec, out = run(model, first="L0H3", second="L2H1")
    assert value(spec, out, "pair_push").value == pytest.approx(by_loops(model), rel=1e-3, abs=1e-6)
    assert abs(by_loops(model, frozen=False) / by_loops(model) - 1) > 0.05
    if model.shape.kv_heads < model.shape.heads:
        assert abs(by_loops(model, tiled=True) / by_loops(model) - 1) > 0.05
    # the drawn pattern is the product, not one of the two
    assert torch.allclose(out.product, out.second_pattern @ out.first_pattern, atol=1e-5)
    assert not torch.allclose(out.product, out.first_pattern @ out.second_pattern, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_sum_to_the_models_own_logit(family):
    model = tiny_model(family)
    spec, out = run(model)
    ids, found = read(model)
    logits = found[paths.Site("logits")][:-1].double()
    own = (logits.gather(1, ids[1:, None])[:, 0] - logits.mean(1)).mean()
    named = {metric.name: metric.value for metric in measure(spec, out)}
    parts_of = [named[name] for name in ("direct", "one_head", "two_heads", "rest")]
    assert sum(parts_of) == pytest.approx(float(own), rel=1e-3, abs=1e-4)
    assert named["logit"] == pytest.approx(float(own), rel=1e-4, abs=1e-5)


def test_all_paths_of_two_layers_are_all_logits_and_without_the_virtual_heads_they_are_not(monkeypatch):
    model = toy()
    spec, out = run(model)
    assert out.expanded
    assert [check for check in verify(spec, out) if not check.ok] == []
    assert value(spec, out, "rest").value == pytest.approx(0, abs=1e-6)
    ids, found = read(model)
    site = paths.Site("pattern", 1)
    others = {**found, site: torch.eye(len(ids)).expand_as(found[site])}
    assert paths.whole_expansion(model, found) < 1e-5
    assert paths.whole_expansion(model, others) > 1e-2
    assert paths.whole_expansion(tiny_model("gpt2"), found) is None


# -- the null


def test_the_null_is_that_of_rotations():
    """One head's writes turned at random, again and again, against the spread that is told."""
    model = toy()
    ids, found = read(model)
    pushes = paths.pushes(model, ids, found, lambda done, total: None)
    attn = [parts.attention(model, layer, torch.float64) for layer in range(2)]
    count, d = len(ids) - 1, 24
    A, B = (found[paths.Site("pattern", layer)][0, :count, :count].double() for layer in range(2))
    w = A @ found[paths.Site("resid_pre", 0)][:count].double() @ attn[0].W_V[0] @ attn[0].W_O[0]
    W_U = parts.unembedding(model, torch.float64).W_U
    u = (W_U[:, ids[1:]] - W_U.mean(1, keepdim=True)).T
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(3000):
        Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        turned = w @ (Q * R.diagonal().sign())
        drawn.append(float((B @ turned @ attn[1].W_V[0] @ attn[1].W_O[0] * u).sum() / count))
    drawn = torch.tensor(drawn)
    assert float(pushes.chance[0, 3]) == pytest.approx(float(drawn.std()), rel=0.06)
    assert abs(float(drawn.mean())) < 4 * float(pushes.chance[0, 3]) / math.sqrt(3000)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_weights_push_by_chance(family):
    spec, out = run(tiny_model(family))
    assert value(spec, out, "virtual_heads").value < 0.4
    assert value(spec, out, "virtual_heads").null == pytest.approx(0.0455, abs=1e-4)
    assert out.chance_together > out.chance.max()
    there = out.virtual != 0
    assert int(there.sum()) == 3 * 16
    assert (out.chance[there] > 0).all()


# -- what must not matter


def test_another_basis_for_values_changes_no_push():
    M = torch.eye(16) + 0.3 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    model, other, lopsided = (tiny_model("llama") for _ in range(3))
    with torch.no_grad():
        for net, both in ((other.net, True), (lopsided.net, False)):
            for layer in net.model.layers:
                attn = layer.self_attn
                for head in range(2):
                    rows = slice(16 * head, 16 * head + 16)
                    attn.v_proj.weight[rows] = M.T @ attn.v_proj.weight[rows]
                    attn.v_proj.bias[rows] = attn.v_proj.bias[rows] @ M
                for head in range(4) if both else ():
                    cols = slice(16 * head, 16 * head + 16)
                    attn.o_proj.weight[:, cols] = attn.o_proj.weight[:, cols] @ torch.linalg.inv(M).T
    one, two, three = (run(each)[1].virtual for each in (model, other, lopsided))
    assert (one - two).abs().max() < 1e-3 * one.abs().max()
    assert (one - three).abs().max() > 0.05 * one.abs().max()


def test_what_is_added_to_all_logits_changes_no_push():
    def pushes(shift):
        model = tiny_model("gpt_neox")
        with torch.no_grad():
            model.net.get_output_embeddings().weight += shift * torch.randn(
                48, generator=torch.Generator().manual_seed(3)
            )
        return run(model)[1]

    one, other = pushes(0), pushes(2)
    assert (one.virtual - other.virtual).abs().max() < 1e-3 * one.virtual.abs().max()
    assert float(one.logit) == pytest.approx(float(other.logit), rel=1e-3)


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [check for check in verify(spec, out) if not check.ok] == []


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(field, broken):
    spec, out = run(toy())
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_forgotten_bias_does_not_sum_up(family, monkeypatch):
    model = tiny_model(family)
    right = parts.attention

    def forgetful(model, layer, dtype=None):
        attn = right(model, layer, dtype)
        return replace(attn, b_O=torch.zeros_like(attn.b_O), b_V=torch.zeros_like(attn.b_V))

    monkeypatch.setattr(parts, "attention", forgetful)
    spec, out = run(model)
    assert "direct + heads + MLPs and biases = logit" in [check.name for check in verify(spec, out) if not check.ok]


# -- what the author may write, and what a reader gets


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"first": "L3H0"}, "first", "L0H0 to L2H3"),
        ({"second": "L0H4"}, "second", "L0H0 to L2H3"),
        ({"second": "L0H1"}, "second", "no head before it"),
        ({"first": "L2H1"}, "first", "no head after it"),
        ({"text": "a"}, "text", "Give it a sentence"),
    ],
)
def test_what_the_model_has_not_is_refused_with_the_mend(fields, field, says):
    with pytest.raises(NoteError) as error:
        run(tiny_model("llama"), **{"text": SENTENCE, **fields})
    assert error.value.field == field
    assert says in str(error.value)


def test_one_layer_and_an_order_that_cannot_be_are_refused():
    with pytest.raises(NoteError, match="one layer"):
        run(tiny_model("gpt2", n_layer=1))
    with pytest.raises(ValidationError, match="nothing passes through both"):
        Spec(first="L2H1", second="L2H3")


def test_what_is_left_open_is_the_largest_push():
    model = tiny_model("qwen2")
    _, out = run(model)
    a, b = divmod(int(out.virtual.abs().argmax()), 12)
    assert (out.first, out.second) == (f"L{a // 4}H{a % 4}", f"L{b // 4}H{b % 4}")
    _, other = run(model, second="L1H2")
    assert other.first == f"L0H{int(out.virtual[:4, 6].abs().argmax())}"


def test_metrics_are_those_promised_and_figures_say_what_they_show():
    for model in (toy(), tiny_model("qwen3")):
        spec, out = run(model)
        metrics = measure(spec, out)
        assert [metric.name for metric in metrics] == [quantity.name for quantity in EXPERIMENT.metrics]
        drawings = draw(spec, out)
        assert list(drawings) == list(EXPERIMENT.figures)
        for drawing in drawings.values():
            assert len(render(drawing).content) < 500_000
            assert not re.search(r"\bnan\b|\binf\b", drawing.alt)


def test_what_it_needs_is_said():
    shape = replace(
        tiny_model("llama").shape,
        layers=32,
        heads=32,
        kv_heads=8,
        d_head=128,
        d_model=4096,
        d_vocab=128_256,
        bytes=16 * 10**9,
    )
    assert 16e9 < needs(Spec(), shape).bytes < 22e9
    assert needs(Spec(tokens=10), shape).bytes < needs(Spec(), shape).bytes
    assert needs(Spec(weights="shuffled"), shape).bytes > 32e9
