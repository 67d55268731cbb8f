"""The algebra of transformers, on tiny random models whose every bias and gain counts; the wrong ways must fail."""

import copy
from dataclasses import replace

import pytest
import torch
from einops import einsum, rearrange
from torch import Tensor

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.models import parts
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, trace
from vaultlab.models.verify import rebuild
from vaultlab.models.weights import AttentionParts, Rotary

LAYER = 1
ROTARY = [name for name in FAMILIES if name != "gpt2"]
GROUPED = ["llama", "mistral", "qwen2", "qwen3"]
RMS = GROUPED


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Model:
    return tiny_model(request.param)


def ids_of(model: Model) -> Tensor:
    return model.tokens(TEXT[:100]).ids[None]


def reads(model: Model, layer: int = LAYER) -> Tensor:
    """What the layer's attention reads of the text."""
    site = Site("attn_in", layer)
    return trace(model, ids_of(model), [site])[site].clone()


def relative(got: Tensor, truth: Tensor) -> float:
    return ((got - truth).abs().max() / truth.abs().max()).item()


def logits_of(model: Model) -> Tensor:
    return trace(model, ids_of(model), [Site("logits")])[Site("logits")]


@torch.no_grad()
def test_the_stream_is_the_sum_of_its_writers(model: Model) -> None:
    layers = range(model.shape.layers)
    writers = [Site(name, layer) for layer in layers for name in ("attn", "mlp")]
    got = trace(model, ids_of(model), [Site("resid_pre", 0), *writers, Site("final"), Site("logits")])
    stream = got[Site("resid_pre", 0)] + sum(got[site] for site in writers)
    torch.testing.assert_close(stream, got[Site("final")], atol=1e-5, rtol=1e-5)
    logits = parts.unembedding(model)(parts.final_norm(model)(stream))
    torch.testing.assert_close(logits, got[Site("logits")], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_last_hidden_state_of_transformers_is_not_the_last_stream(model: Model) -> None:
    got = trace(model, ids_of(model), [Site("final"), Site("logits")])
    hidden = model.net(ids_of(model), output_hidden_states=True).hidden_states[-1]
    assert relative(hidden, got[Site("final")]) > 0.1
    twice = parts.unembedding(model)(parts.final_norm(model)(hidden))
    assert relative(twice, got[Site("logits")]) > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_logits_are_rebuilt_from_parts(model: Model, folded: bool) -> None:
    last = dict(rebuild(model, ids_of(model), folded=folded))[Site("logits")]
    assert relative(last, logits_of(model)) < 1e-5


@torch.no_grad()
def test_folding_unties_the_unembedding_first() -> None:
    model = tiny_model("llama")
    assert model.shape.tied
    before, gain = parts.embedding(model).W_E.clone(), parts.final_norm(model).gain.clone()
    parts.unembedding(model).folded(parts.final_norm(model))
    torch.testing.assert_close(parts.embedding(model).W_E, before, rtol=0, atol=0)
    truth = logits_of(model)
    wrong = copy.deepcopy(model.net)
    wrong.lm_head.weight *= gain  # the gain goes into W_E as well, for it is the same tensor
    wrong.model.norm.weight.fill_(1)
    assert relative(wrong(ids_of(model)).logits, truth) > 0.05


@torch.no_grad()
def test_centring_what_writes_is_a_symmetry_of_layer_norm_only(model: Model) -> None:
    changed = copy.deepcopy(model.net)
    own = replace(model, net=changed)
    centre(own)
    moved = (logits_of(own) - logits_of(model)).abs().max().item()
    if model.family.name == "llama":
        assert moved > 0.1
    else:
        assert moved < 1e-4


def centre(model: Model) -> None:
    """Take the mean over d_model out of all that writes to the stream."""
    embedding = parts.embedding(model)
    written = [embedding.W_E, *([] if embedding.W_pos is None else [embedding.W_pos])]
    if model.shape.tied:  # only the embedding is centred, not what reads the logits
        model.net.get_output_embeddings().weight = torch.nn.Parameter(embedding.W_E.clone(), requires_grad=False)
    for layer in range(model.shape.layers):
        attention, mlp = parts.attention(model, layer), parts.mlp(model, layer)
        written += [attention.W_O, attention.b_O, mlp.W_out, mlp.b_out]
    for weight in written:
        weight -= weight.mean(-1, keepdim=True)


@torch.no_grad()
def test_patterns_are_rebuilt(model: Model) -> None:
    for layer in range(model.shape.layers):
        x, truth = reads(model, layer), trace(model, ids_of(model), [Site("pattern", layer)])[Site("pattern", layer)]
        torch.testing.assert_close(parts.attention(model, layer).pattern(x), truth, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ROTARY)
def test_without_rotary_positions_the_pattern_is_wrong(name: str) -> None:
    attention, x = parts.attention(tiny_model(name), LAYER), reads(tiny_model(name))
    still = replace(attention, rotary=None).pattern(x)
    assert (still - attention.pattern(x)).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", ROTARY)
def test_one_qk_circuit_a_distance(name: str) -> None:
    model = tiny_model(name)
    attention, x = without_biases(parts.attention(model, LAYER, torch.float64)), reads(model)[0].double()
    if attention.q_norm is not None:
        assert "qk_norm" in model.shape.flags  # no bilinear form: an experiment is told so
        return
    scores = attention.scores(x)
    pairs = [(0, 9, 9), (1, 9, 2), (3, 7, 6), (2, 5, 8)]
    truth = torch.stack([scores[pair] for pair in pairs])

    def at(sign: int) -> Tensor:
        found = [attention.qk_at(h, sign * (q - k), x[q : q + 1], x[k : k + 1]) for h, q, k in pairs]
        return torch.cat(found).flatten()

    torch.testing.assert_close(at(1), truth, atol=1e-5, rtol=1e-5)
    assert (at(-1) - truth).abs().max() > 1e-2  # turned the wrong way round


def test_yarn_scales_only_what_turns() -> None:
    rotary = Rotary(torch.tensor([1.0, 0.1]), 6, scaling=1.3)
    q, k = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(0))
    turned = rotary.rotate(q, torch.tensor([9])) @ rotary.rotate(k, torch.tensor([4])).T
    torch.testing.assert_close(q @ rotary.matrix(5, q) @ k.T, turned)


def without_biases(attention: AttentionParts) -> AttentionParts:
    zeros = torch.zeros_like
    return replace(attention, b_Q=zeros(attention.b_Q), b_K=zeros(attention.b_K), b_V=zeros(attention.b_V))


@torch.no_grad()
def test_heads_and_bias_sum_to_the_layer(model: Model) -> None:
    sites = [Site(name, LAYER) for name in ("attn_in", "pattern", "z", "attn")]
    x, pattern, z, truth = (trace(model, ids_of(model), sites)[site] for site in sites)
    attention = parts.attention(model, LAYER)
    torch.testing.assert_close(attention.z(pattern, x), z, atol=1e-5, rtol=1e-5)
    assert relative(attention.writes(z).sum(-2) + attention.b_O, truth) < 1e-5
    # The same through W_OV, the way the papers write it: A X W_V W_O, and b_V's constant.
    W_OV = einsum(attention.W_V, attention.W_O, "head d_in d_head, head d_head d_out -> head d_in d_out")
    heads = einsum(pattern, x, W_OV, "b head query key, b key d_in, head d_in d_out -> b query d_out")
    constant = einsum(attention.b_V, attention.W_O, "head d_head, head d_head d_model -> d_model")
    assert relative(heads + constant + attention.b_O, truth) < 2e-4


@torch.no_grad()
@pytest.mark.parametrize("name", GROUPED)
def test_grouped_heads_are_repeated_one_by_one_not_tiled(name: str) -> None:
    model = tiny_model(name)
    attention, x = parts.attention(model, LAYER), reads(model)
    group = model.shape.heads // model.shape.kv_heads
    own = attention.W_V[::group]
    tiled = replace(attention, W_V=own.repeat(group, 1, 1), b_V=attention.b_V[::group].repeat(group, 1))
    truth = trace(model, ids_of(model), [Site("attn", LAYER)])[Site("attn", LAYER)]
    assert relative(attention(x), truth) < 1e-5
    assert relative(tiled(x), truth) > 0.5


@torch.no_grad()
def test_ov_is_unchanged_by_a_change_of_basis_within_the_head(model: Model) -> None:
    attention, x = parts.attention(model, LAYER, torch.float64), reads(model).double()
    M = invertible(attention)
    moved = replace(
        attention, W_V=attention.W_V @ M, b_V=(attention.b_V[:, None] @ M)[:, 0], W_O=M.inverse() @ attention.W_O
    )
    pattern = attention.pattern(x)
    torch.testing.assert_close(moved.writes(moved.z(pattern, x)), attention.writes(attention.z(pattern, x)))
    lopsided = replace(attention, W_V=attention.W_V @ M)
    assert relative(lopsided.writes(lopsided.z(pattern, x)), attention.writes(attention.z(pattern, x))) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"qwen3"}))
def test_qk_is_unchanged_by_what_commutes_with_the_rotation_and_by_nothing_else(name: str) -> None:
    model = tiny_model(name)
    attention, x = parts.attention(model, LAYER, torch.float64), reads(model).double()
    M = invertible(attention)
    if attention.rotary is None:
        assert qk_moved(attention, M, x) < 1e-9
        return
    half = len(attention.rotary.frequencies)
    # One complex number a plane commutes with turning that plane.
    re, im = torch.randn(2, half, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    C = torch.eye(model.shape.d_head, dtype=torch.float64).repeat(model.shape.heads, 1, 1)
    plane = torch.arange(half)
    C[:, plane, plane], C[:, plane, plane + half] = re, im
    C[:, plane + half, plane], C[:, plane + half, plane + half] = -im, re
    assert qk_moved(attention, C, x) < 1e-9
    assert qk_moved(attention, M, x) > 1e-3


def qk_moved(attention: AttentionParts, M: Tensor, x: Tensor) -> float:
    inverse = M.inverse().transpose(-1, -2)
    moved = replace(
        attention,
        W_Q=attention.W_Q @ M,
        b_Q=(attention.b_Q[:, None] @ M)[:, 0],
        W_K=attention.W_K @ inverse,
        b_K=(attention.b_K[:, None] @ inverse)[:, 0],
    )
    return (moved.pattern(x) - attention.pattern(x)).abs().max().item()


def invertible(attention: AttentionParts) -> Tensor:
    heads, _, d_head = attention.W_Q.shape
    noise = torch.randn(heads, d_head, d_head, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return torch.eye(d_head, dtype=torch.float64) + 0.1 * noise


@torch.no_grad()
def test_what_each_bias_does(model: Model) -> None:
    attention, x = parts.attention(model, LAYER, torch.float64), reads(model).double()
    pattern = attention.pattern(x)
    no_V = replace(attention, b_V=torch.zeros_like(attention.b_V))
    adds = attention.writes(attention.z(pattern, x)) - no_V.writes(no_V.z(pattern, x))
    constant = einsum(attention.b_V, attention.W_O, "head d_head, head d_head d_model -> head d_model")
    torch.testing.assert_close(adds, constant.expand_as(adds))
    no_K = replace(attention, b_K=torch.zeros_like(attention.b_K)).pattern(x)
    no_Q = replace(attention, b_Q=torch.zeros_like(attention.b_Q)).pattern(x)
    if model.family.name == "gpt2":  # the only one without rotary positions
        assert (no_K - pattern).abs().max() < 1e-9
    elif attention.b_K.any():
        assert (no_K - pattern).abs().max() > 1e-3
    if attention.b_Q.any():
        assert (no_Q - pattern).abs().max() > 1e-3


@torch.no_grad()
def test_memories_sum_to_the_mlp(model: Model) -> None:
    sites = [Site(name, LAYER) for name in ("mlp_in", "m", "mlp")]
    x, m, truth = (trace(model, ids_of(model), sites)[site] for site in sites)
    mlp = parts.mlp(model, LAYER)
    assert relative(mlp.coefficients(x), m) < 1e-5
    one_by_one = torch.stack([m[..., i, None] * mlp.W_out[i] for i in range(model.shape.d_mlp)]).sum(0)
    assert relative(one_by_one + mlp.b_out, truth) < 1e-5
    if mlp.W_gate is not None:
        exchanged = replace(mlp, W_in=mlp.W_gate, W_gate=mlp.W_in)
        assert relative(exchanged(x), truth) > 0.1


@torch.no_grad()
def test_frozen_scales_make_the_norm_linear(model: Model) -> None:
    stream = trace(model, ids_of(model), [Site("final")])[Site("final")].double()
    norm = parts.final_norm(model, torch.float64)
    bare = stream - stream.mean(-1, keepdim=True) if norm.kind == "layer" else stream
    torch.testing.assert_close(bare * norm.scale(stream) * norm.gain + norm.bias, norm(stream))


@torch.no_grad()
def test_rounding_of_a_run_and_algebra_are_two_things() -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    got = trace(model, ids_of(model), [Site("attn_in", LAYER), Site("attn", LAYER)])
    x, truth = got[Site("attn_in", LAYER)].float(), got[Site("attn", LAYER)].float()
    wide = parts.attention(model, LAYER, torch.float32)
    eps = torch.finfo(torch.bfloat16).eps
    assert 1e-4 < relative(wide(x), truth) <= 4 * eps  # the run's own rounding
    heads = einsum(wide.pattern(x), wide.values(x), wide.W_O, "b h q k, b h k d, h d m -> b q m") + wide.b_O
    assert relative(heads, wide(x)) < 1e-5  # the algebra, upcast


@torch.no_grad()
def test_no_part_is_a_copy_where_the_layout_allows_a_view() -> None:
    for name in FAMILIES:
        model = tiny_model(name)
        storages = {weight.untyped_storage().data_ptr() for weight in model.net.parameters()}
        attention, mlp = parts.attention(model, LAYER), parts.mlp(model, LAYER)
        views = [attention.W_Q, attention.W_O, mlp.W_in, mlp.W_out]
        views += [parts.embedding(model).W_E, parts.unembedding(model).W_U]
        assert all(view.untyped_storage().data_ptr() in storages for view in views), name
        assert rearrange(attention.W_Q, "h m d -> m (h d)").shape == (model.shape.d_model, 4 * model.shape.d_head)
