"""Attention: a second implementation with plain loops, the traps that must fail, symmetries, figures."""

import math
import re
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments.attention import EXPERIMENT, Spec, compute, draw, measure, needs, verify
from vaultlab.models import parts
from vaultlab.models.heads import TILE, apart, constant, kronecker_residual, read, rebuilt
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render
from vaultlab.result import Text

SENTENCE = TEXT[:60]
LAYER = 1


def bench(model, text=SENTENCE):
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": Text("", "0", (("", text),))})


def run(model, text=SENTENCE, **fields):
    spec = Spec(model="tiny", text=text, **fields)
    return spec, compute(spec, bench(model, text))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def inside(model, layer=LAYER, text=SENTENCE):
    """What the layer's attention reads, its pattern and its output, in float64."""
    names = ("resid_pre", "attn_in", "pattern", "attn", "resid_post")
    found = trace(model, model.tokens(text).ids[None], [Site(name, layer) for name in names])
    return [found[Site(name, layer)][0].double() for name in names]


# -- the same numbers, written down again with plain loops


def turned(vector, position, rotary):
    """RoPE, pair by pair."""
    out = vector.clone()
    half = len(rotary.frequencies)
    for i in range(half):
        angle = float(position * rotary.frequencies[i])
        a, b = float(vector[i]), float(vector[i + half])
        out[i] = (a * math.cos(angle) - b * math.sin(angle)) * rotary.scaling
        out[i + half] = (b * math.cos(angle) + a * math.sin(angle)) * rotary.scaling
    return out


def row_of(attn, head, q, i, keys):
    """One token's attention weights over the tokens before it."""
    first = 0 if attn.window is None else max(0, i - attn.window + 1)
    scores = {j: float(q @ keys[j]) * attn.scale for j in range(first, i + 1)}
    most = max(scores.values())
    total = sum(math.exp(score - most) for score in scores.values())
    return {j: math.exp(score - most) / total for j, score in scores.items()}


def by_loops(model, layer=LAYER):
    """Entropy, mass on sinks plain and weighted, mass on the token before, write norm and pattern of every head."""
    attn, norm = parts.attention(model, layer, torch.float64), parts.attn_norm(model, layer, torch.float64)
    before, x, _, _, after = inside(model, layer)
    norms = [float(row.norm()) for row in before]
    median = sorted(norms)[(len(norms) - 1) // 2]
    sink = {j for j, length in enumerate(norms) if j == 0 or length > 5 * median}
    group = model.shape.heads // model.shape.kv_heads
    found = []
    for head in range(model.shape.heads):
        shared = head // group * group  # any head of the group has its keys and values
        place = (lambda v, at: turned(v, at, attn.rotary)) if attn.rotary else (lambda v, at: v)
        queries = [row @ attn.W_Q[head] + attn.b_Q[head] for row in x]
        keys = [row @ attn.W_K[shared] + attn.b_K[shared] for row in x]
        queries = [place(attn.q_norm(q) if attn.q_norm else q, i) for i, q in enumerate(queries)]
        keys = [place(attn.k_norm(k) if attn.k_norm else k, i) for i, k in enumerate(keys)]
        adds = [(row - norm.bias) @ attn.W_V[shared] @ attn.W_O[head] for row in x]
        rows = [row_of(attn, head, queries[i], i, keys) for i in range(len(x))]
        asking = [i for i in range(len(x)) if i not in sink]
        weighted = [{j: w * float(adds[j].norm()) for j, w in rows[i].items()} for i in asking]
        writes = [sum((w * adds[j] for j, w in rows[i].items() if j not in sink), 0 * adds[0]) for i in asking]
        plain_before = [i for i in asking if i - 1 not in sink]
        found.append(
            {
                "entropy": mean(-sum(w * math.log2(w) for w in rows[i].values() if w > 0) for i in asking),
                "sink_mass": mean(sum(w for j, w in rows[i].items() if j in sink) for i in asking),
                "weighted_sink_mass": sum(w for row in weighted for j, w in row.items() if j in sink)
                / sum(sum(row.values()) for row in weighted),
                "previous_token": mean(rows[i].get(i - 1, 0.0) for i in plain_before),
                "write_norm": mean(
                    float(write.norm() / after[i].norm()) for i, write in zip(asking, writes, strict=True)
                ),
                "rows": rows,
                "moved": [float(add.norm()) for add in adds],
            }
        )
    return found


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_are_those_of_plain_loops(family):
    model = tiny_model(family)
    expected = by_loops(model)
    spec, out = run(model, layer=LAYER, head=f"L{LAYER}H2")
    for name in ("entropy", "sink_mass", "weighted_sink_mass", "previous_token", "write_norm"):
        assert value(spec, out, name).value == pytest.approx([head[name] for head in expected], rel=1e-4, abs=1e-6), (
            name
        )
        if name not in ("entropy", "write_norm"):
            assert value(spec, out, f"head_{name}").value == pytest.approx(expected[2][name], rel=1e-4)
    share = [head["write_norm"] / sum(other["write_norm"] for other in expected) for head in expected]
    assert value(spec, out, "write_share").value == pytest.approx(share, rel=1e-4)
    for i, row in enumerate(expected[2]["rows"]):
        for j in range(len(out.tokens)):
            assert float(out.pattern[i, j]) == pytest.approx(row.get(j, 0.0), abs=1e-5)
    assert out.moved.tolist() == pytest.approx(expected[2]["moved"], rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_nulls_are_what_uniform_attention_gives(family):
    model = tiny_model(family)
    with torch.no_grad():
        for name, weight in model.net.named_parameters():
            if any(part in name for part in ("q_proj", "query_key_value", "c_attn", "q_norm")):
                weight.zero_()
    spec, out = run(model)
    for name in ("entropy", "sink_mass", "previous_token"):
        metric = value(spec, out, name)
        assert getattr(out, name).mean() == pytest.approx(metric.null, rel=1e-5)
        assert torch.allclose(getattr(out, name), getattr(out, f"uniform_{name}")[:, None], rtol=1e-5)
    assert all(check.ok for check in verify(spec, out))


# -- checks hold, and can fail


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_checks_hold_in_every_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [check.name for check in verify(spec, out) if not check.ok] == []
    assert out.entropy.shape == (3, 4)


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(field, broken):
    spec, out = run(tiny_model("llama"))
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_a_write_norm_that_is_off_fails_its_check():
    spec, out = run(tiny_model("llama"))
    failed = [check.name for check in verify(spec, out._replace(write_norm=out.write_norm * 1.01)) if not check.ok]
    assert failed == ["write norm, another way"]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gpt2"])
def test_without_rope_the_pattern_is_another(family):
    model = tiny_model(family)
    _, x, A, _, _ = inside(model)
    attn = parts.attention(model, LAYER, torch.float64)
    assert (attn.pattern(x) - A).abs().max() < 1e-5
    assert (replace(attn, rotary=None).pattern(x) - A).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt_neox"])
def test_a_forgotten_key_bias_shows_with_rope(family):
    model = tiny_model(family)
    _, x, A, _, _ = inside(model)
    attn = parts.attention(model, LAYER, torch.float64)
    assert (replace(attn, b_K=torch.zeros_like(attn.b_K)).pattern(x) - A).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_tiled_instead_of_repeated_heads_do_not_sum_to_the_layer(family):
    model = tiny_model(family)
    before, whole, A, output, after = inside(model)
    attn, norm = parts.attention(model, LAYER, torch.float64), parts.attn_norm(model, LAYER, torch.float64)
    x = whole - norm.bias
    assert apart(rebuilt(attn, norm, x, A), output) < 1e-5
    tiled = replace(attn, W_V=attn.W_V[::2].repeat(2, 1, 1))
    assert apart(rebuilt(tiled, norm, x, A), output) > 0.5
    _, moved = read(tiled, x, A, before, after, model.shape.kv_heads)
    assert apart(moved + constant(attn, norm), output) > 0.5


@pytest.mark.parametrize(
    ("family", "bias"),
    [
        *((family, "b_V") for family in ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox")),
        ("gpt2", "norm's"),
        ("gpt_neox", "norm's"),
    ],
)
def test_a_forgotten_bias_does_not_sum_to_the_layer(family, bias):
    model = tiny_model(family)
    _, whole, A, output, _ = inside(model)
    attn, norm = parts.attention(model, LAYER, torch.float64), parts.attn_norm(model, LAYER, torch.float64)
    x = whole - norm.bias
    assert apart(rebuilt(attn, norm, x, A), output) < 1e-5
    if bias == "b_V":
        attn = replace(attn, b_V=torch.zeros_like(attn.b_V))
    else:
        norm = replace(norm, bias=torch.zeros_like(norm.bias))
    assert apart(rebuilt(attn, norm, x, A), output) > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_mask_something_looks_ahead(family):
    model = tiny_model(family)
    before, x, A, _, after = inside(model)
    attn = parts.attention(model, LAYER, torch.float64)
    unmasked = attn.scores(x).softmax(-1)
    assert read(attn, x, A, before, after, model.shape.kv_heads)[0].ahead_residual == 0
    assert read(attn, x, unmasked, before, after, model.shape.kv_heads)[0].ahead_residual > 1e-3


def test_the_kronecker_identity_goes_row_by_row():
    generator = torch.Generator().manual_seed(0)
    A = torch.rand(6, 6, generator=generator, dtype=torch.float64).tril()
    x, W_V, W_O = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((6, 24), (24, 5), (5, 24)))
    assert kronecker_residual(A, x, W_V, W_O) < 1e-14
    full = torch.kron(A, (W_V @ W_O).T.contiguous())
    assert torch.allclose(full @ x.flatten(), (A @ x @ W_V @ W_O).flatten())
    assert not torch.allclose(full @ x.T.flatten(), (A @ x @ W_V @ W_O).T.flatten())  # column by column is another


# -- what must not matter


def shown(out):
    return [out.entropy, out.sink_mass, out.weighted_sink_mass, out.previous_token, out.write_norm, out.moved]


def assert_same_numbers(one, other):
    assert one.head == other.head
    for mine, theirs in zip(shown(one), shown(other), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-6)
    assert torch.allclose(one.small.float(), other.small.float(), rtol=2e-3, atol=1e-3, equal_nan=True)


def test_another_basis_for_values_changes_no_number():
    model, other = tiny_model("llama"), tiny_model("llama")
    M = torch.eye(16) + 0.4 * torch.randn(16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer in other.net.model.layers:
            attn = layer.self_attn
            for head in range(2):
                rows = slice(16 * head, 16 * head + 16)
                attn.v_proj.weight[rows] = M.T @ attn.v_proj.weight[rows]
                attn.v_proj.bias[rows] = attn.v_proj.bias[rows] @ M
            for head in range(4):
                cols = slice(16 * head, 16 * head + 16)
                attn.o_proj.weight[:, cols] = attn.o_proj.weight[:, cols] @ torch.linalg.inv(M).T
    one, changed = run(model)[1], run(other)[1]
    assert_same_numbers(one, changed)
    values = parts.attention(model, LAYER).W_V, parts.attention(other, LAYER).W_V
    assert apart(*(value.norm(dim=1) for value in values)) > 0.1  # the norm of a bare value does change


def test_a_value_bias_moved_into_the_output_bias_changes_no_number():
    model, other = tiny_model("llama"), tiny_model("llama")
    shift = torch.randn(32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for layer in other.net.model.layers:
            attn = layer.self_attn
            attn.v_proj.bias += shift
            attn.o_proj.bias -= attn.o_proj.weight @ shift.view(2, 1, 16).expand(2, 2, 16).flatten()
    assert_same_numbers(run(model)[1], run(other)[1])


def test_one_layer_has_the_numbers_that_it_has_among_all():
    model = tiny_model("gpt_neox")
    all_layers, one = run(model)[1], run(model, layer=LAYER)[1]
    assert one.layers == (LAYER,)
    assert torch.allclose(all_layers.entropy[LAYER], one.entropy[0])
    assert torch.allclose(all_layers.write_norm[LAYER], one.write_norm[0])


# -- sinks


def test_a_massive_token_is_a_sink_and_left_out():
    model = tiny_model("gpt2")
    ids = model.tokens(SENTENCE).ids
    massive = 4
    with torch.no_grad():
        model.net.transformer.wte.weight[ids[massive]] *= 100
    spec, out = run(model)
    expected = torch.zeros(len(ids), dtype=torch.bool)
    expected[0] = True
    expected[ids == ids[massive]] = True
    assert torch.equal(out.sinks[0], expected)
    assert value(spec, out, "head_entropy").n == int((~out.sinks[out.layers.index(int(out.head[1]))]).sum())
    again = by_loops(model, 0)
    assert out.sink_mass[0].tolist() == pytest.approx([head["sink_mass"] for head in again], rel=1e-4)
    assert out.write_norm[0].tolist() == pytest.approx([head["write_norm"] for head in again], rel=1e-4)


def test_the_strongest_head_is_drawn_unless_one_is_named():
    model = tiny_model("llama")
    spec, out = run(model)
    layer, number = divmod(int(out.write_norm.argmax()), 4)
    assert out.head == f"L{layer}H{number}"
    assert value(spec, out, "head_write_share").value == pytest.approx(
        float(out.write_norm[layer, number] / out.write_norm[layer].sum())
    )
    assert run(model, head="L2H0")[1].head == "L2H0"


# -- what the author may write


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"layer": 3}, "layer", "Its layers are 0 to 2"),
        ({"head": "L3H0"}, "head", "L0H0 to L2H3"),
        ({"head": "L0H4"}, "head", "L0H0 to L2H3"),
        ({"text": "a"}, "text", "Give it a sentence"),
    ],
)
def test_what_the_model_has_not_is_refused_with_the_mend(fields, field, says):
    with pytest.raises(NoteError) as error:
        run(tiny_model("llama"), **{"text": SENTENCE, **fields})
    assert error.value.field == field
    assert says in str(error.value)


def test_a_head_of_another_layer_is_refused():
    with pytest.raises(ValidationError, match="L2H1 is not in layer 1"):
        Spec(layer=1, head="L2H1")


def test_a_long_text_is_read_from_its_beginning_and_says_so():
    spec, out = run(tiny_model("llama"), TEXT, tokens=20)
    assert len(out.tokens) == 20 < out.length
    assert all(f"the first 20 of {out.length} tokens" in drawing.alt for drawing in draw(spec, out).values())
    exact = run(tiny_model("llama"), TEXT, tokens=out.length)[1]
    assert len(exact.tokens) == exact.length


def test_a_token_that_begins_texts_can_be_asked_for():
    assert run(tiny_model("llama"), bos=True)[1].tokens[0] == "<bos>"
    assert run(tiny_model("llama"), bos=False)[1].tokens[0] != "<bos>"


# -- numbers and figures as a reader gets them


@pytest.mark.parametrize("fields", [{}, {"layer": 2}])
def test_metrics_are_those_promised_and_within_their_range(fields):
    spec, out = run(tiny_model("qwen2"), **fields)
    metrics = measure(spec, out)
    assert [metric.name for metric in metrics] == [quantity.name for quantity in EXPERIMENT.metrics]
    assert sum(quantity.headline for quantity in EXPERIMENT.metrics) == 3
    for metric, quantity in zip(metrics, EXPERIMENT.metrics, strict=True):
        for number in metric.value if isinstance(metric.value, tuple) else (metric.value,):
            assert quantity.range[0] <= number <= quantity.range[1] + 1e-6, metric.name
    assert mean(value(spec, out, "write_share").value) == pytest.approx(1 / 4)


def test_shares_of_parking_heads_are_counted():
    spec, out = run(tiny_model("llama"))
    mass = torch.full((3, 4), 0.2)
    mass[0, :3] = 0.6
    assert value(spec, out._replace(sink_mass=mass), "sink_heads").value == pytest.approx(0.25)
    assert value(spec, out._replace(weighted_sink_mass=mass), "weighted_sink_heads").value == pytest.approx(0.25)
    assert value(spec, out._replace(sink_mass=mass), "weighted_sink_heads").null == pytest.approx(0.25)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("fields", [{}, {"layer": 0}])
def test_figures_say_what_they_show_and_are_small(family, fields):
    spec, out = run(tiny_model(family), **fields)
    drawings, again = draw(spec, out), draw(spec, out)
    assert list(drawings) == list(EXPERIMENT.figures)
    for name, drawing in drawings.items():
        figure = render(drawing)
        assert len(figure.content) < 1_000_000
        assert render(again[name]) == figure
        assert re.search(r"\d%|bits", drawing.alt)
    assert out.head in drawings["pattern"].alt


def test_the_card_hatches_sinks_and_shows_no_number_there():
    spec, out = run(tiny_model("gpt2"))
    ax = draw(spec, out)["pattern"].figure.axes[0]
    times = len(ax.images[0].get_array()) // len(out.tokens)  # each cell is drawn as many pixels
    cells = ax.images[0].get_array()[::times, ::times]
    assert cells.mask[:, 0].all()
    assert cells.mask[0].all()
    assert not cells.mask[2, 1:3].any()
    assert cells[5, 3] == pytest.approx(float(out.pattern[5, 3] * out.moved[3]))
    assert [patch.get_hatch() for patch in ax.patches] == ["////"] * int(out.sinks[int(out.head[1])].sum())


def test_strange_tokens_are_drawn_as_they_are():
    spec, out = run(tiny_model("llama"), "cost $x_1$ \\alpha 中 🙂\n\tend")
    for drawing in draw(spec, out).values():
        render(drawing)


def test_a_tile_holds_what_a_block_of_keys_gives_on_average():
    model = tiny_model("gpt2")
    _, out = run(model, TEXT, tokens=50)
    count = len(out.tokens)
    assert count > TILE
    by = -(-count // TILE)
    row, number = int(out.head[1]), int(out.head.split("H")[1])
    weighted = out.pattern * out.moved
    asking = ~out.sinks[row]
    weighted = weighted / weighted[asking].sum(-1).mean()
    for r, c in ((3, 0), (5, 5), (8, 2)):
        queries = [i for i in range(by * r, min(by * r + by, count)) if i >= by * c]
        expected = sum(float(weighted[i, by * c : by * c + by].sum()) for i in queries) / len(queries)
        assert float(out.small[row, number, r, c]) == pytest.approx(expected, rel=2e-3, abs=1e-4)
    assert out.small[:, :, 2, 3].isnan().all()


def test_what_is_kept_stays_small_for_large_models():
    shape = replace(tiny_model("llama").shape, layers=80, heads=64, d_model=8192, parameters=70 * 10**9)
    cells = 1100 // shape.heads
    assert shape.layers * shape.heads * cells**2 * 2 + 512 * 512 * 4 < 50_000_000
    assert needs(Spec(), shape).bytes > needs(Spec(layer=1), shape).bytes
    assert needs(Spec(tokens=512), shape).seconds > needs(Spec(), shape).seconds
