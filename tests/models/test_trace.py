"""One forward pass: the right tensors, no more than asked for, and batches that say what single texts say."""

import pytest
import torch
from torch import Tensor

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.models.model import Model
from vaultlab.models.trace import SITES, Site, right_pad, sinks, trace


@pytest.fixture(params=sorted(FAMILIES))
def model(request: pytest.FixtureRequest) -> Model:
    return tiny_model(request.param)


def ids_of(model: Model, characters: int = 90) -> Tensor:
    return model.tokens(TEXT[:characters]).ids[None]


def all_sites(model: Model) -> list[Site]:
    inner = [name for name in SITES if name not in ("final", "logits")]
    if "parallel" in model.shape.flags:
        inner.remove("resid_mid")
    return [
        *(Site(name, layer) for layer in range(model.shape.layers) for name in inner),
        Site("final"),
        Site("logits"),
    ]


def test_every_site_has_its_shape(model: Model) -> None:
    ids, shape = ids_of(model), model.shape
    pos = ids.shape[1]
    got = trace(model, ids, all_sites(model))
    assert set(got) == set(all_sites(model))
    width = {"m": shape.d_mlp, "logits": shape.d_vocab}
    for (name, _), value in got.items():
        if name == "pattern":
            assert value.shape == (1, shape.heads, pos, pos)
        elif name in ("q", "k", "v", "z"):
            assert value.shape == (1, pos, shape.heads, shape.d_head)
        else:
            assert value.shape == (1, pos, width.get(name, shape.d_model))


def test_the_sites_fit_together(model: Model) -> None:
    got = trace(model, ids_of(model), all_sites(model))
    hidden = model.net(ids_of(model), output_hidden_states=True).hidden_states
    for layer in range(model.shape.layers):
        pre, post = got[Site("resid_pre", layer)], got[Site("resid_post", layer)]
        torch.testing.assert_close(pre, hidden[layer])
        torch.testing.assert_close(post, pre + got[Site("attn", layer)] + got[Site("mlp", layer)])
        if Site("resid_mid", layer) in got:
            torch.testing.assert_close(got[Site("resid_mid", layer)], pre + got[Site("attn", layer)])
    torch.testing.assert_close(got[Site("final")], post)
    torch.testing.assert_close(got[Site("logits")], model.net(ids_of(model)).logits)


def test_patterns_are_those_of_transformers(model: Model) -> None:
    sites = [Site("pattern", layer) for layer in range(model.shape.layers)]
    ids = ids_of(model)
    got = trace(model, ids, sites)
    model.net.set_attn_implementation("eager")
    truth = model.net(ids, output_attentions=True).attentions
    for site, expected in zip(sites, truth, strict=True):
        torch.testing.assert_close(got[site], expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(got[site].sum(-1), torch.ones(got[site].shape[:-1]))
        assert got[site].triu(1).count_nonzero() == 0


def test_what_else_is_asked_for_changes_no_bit(model: Model) -> None:
    """Blocks share a pass: the number of one must not depend on what the others look at."""
    ids, every = ids_of(model), all_sites(model)
    whole = trace(model, ids, every)
    for site in every:
        assert torch.equal(trace(model, ids, [site])[site], whole[site]), site


def test_a_window_hides_what_is_further_back() -> None:
    for name, first in [("mistral", 0), ("qwen2", 1)]:
        model = tiny_model(name)
        got = trace(model, ids_of(model), [Site("pattern", layer) for layer in range(model.shape.layers)])
        for (_, layer), pattern in got.items():
            far = pattern.tril(-5).count_nonzero()
            assert (far == 0) == (layer is not None and layer >= first)


def test_nothing_runs_beyond_what_is_asked_for(model: Model) -> None:
    ran: list[int] = []
    for layer in range(model.shape.layers):
        model.family.block(model.net, layer).register_forward_pre_hook(lambda *_, layer=layer: ran.append(layer))
    trace(model, ids_of(model), [Site("m", 1)])
    assert ran == [0, 1]
    ran.clear()
    trace(model, ids_of(model), [Site("resid_pre", 1), Site("pattern", 0)])
    assert ran[:1] == [0]
    assert 2 not in ran


def test_no_hook_is_left_behind_even_after_an_error(model: Model) -> None:
    def hooks() -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())

    before = hooks()
    trace(model, ids_of(model), all_sites(model))
    with pytest.raises(IndexError):
        trace(model, torch.tensor([[10**6]]), all_sites(model))
    assert hooks() == before


def test_asking_for_a_pattern_changes_nothing_else(model: Model) -> None:
    plain = trace(model, ids_of(model), [Site("logits")])[Site("logits")]
    beside = trace(model, ids_of(model), [Site("logits"), Site("pattern", 1)])[Site("logits")]
    torch.testing.assert_close(plain, beside, atol=1e-5, rtol=1e-5)


def test_a_batch_padded_on_the_right_says_what_single_texts_say(model: Model) -> None:
    texts = [model.tokens(TEXT[start : start + length]).ids for start, length in [(0, 90), (4, 30), (40, 8)]]
    ids, real = right_pad(texts)
    got = trace(model, ids, all_sites(model))
    for row, text in enumerate(texts):
        assert real[row].sum() == len(text)
        for site, alone in trace(model, text[None], all_sites(model)).items():
            ours = got[site][row]
            ours = ours[:, real[row]][..., real[row]] if site.name == "pattern" else ours[real[row]]
            torch.testing.assert_close(ours, alone[0], atol=1e-4, rtol=1e-4)


def test_padding_on_the_left_without_positions_is_wrong() -> None:
    model = tiny_model("gpt2")
    text = model.tokens(TEXT[:30]).ids
    alone = trace(model, text[None], [Site("logits")])[Site("logits")][0]
    left = torch.cat([torch.zeros(6, dtype=torch.long), text])[None]
    assert (trace(model, left, [Site("logits")])[Site("logits")][0, 6:] - alone).abs().max() > 1


def test_sinks_are_tokens_far_over_the_median_norm() -> None:
    stream = torch.ones(2, 6, 4)
    stream[0, 0] *= 5.1
    stream[1, 3] *= 4.9
    stream[1, 5] *= 400
    assert sinks(stream).nonzero().tolist() == [[0, 0], [1, 5]]
    assert sinks(stream[0].bfloat16()).tolist() == [True, *[False] * 5]


@pytest.mark.parametrize(
    ("site", "field"),
    [(Site("m", 3), "layer"), (Site("m", -1), "layer"), (Site("m"), "layer"), (Site("mlp_out", 0), "site")],
)
def test_what_is_not_there_is_refused(site: Site, field: str) -> None:
    model = tiny_model("llama")
    with pytest.raises(NoteError) as error:
        trace(model, ids_of(model), [site])
    assert error.value.field == field
    assert error.value.hint


def test_a_parallel_layer_has_no_stream_between() -> None:
    model = tiny_model("gpt_neox")
    with pytest.raises(NoteError, match="read the same stream"):
        trace(model, ids_of(model), [Site("resid_mid", 0)])
    plain = tiny_model("gpt_neox", use_parallel_residual=False)
    assert "parallel" not in plain.shape.flags
    assert trace(plain, ids_of(plain), [Site("resid_mid", 0)])


def test_a_text_longer_than_the_model_reads_is_refused() -> None:
    model = tiny_model("gpt2")
    with pytest.raises(NoteError, match=r"129 tokens.* at most 128"):
        trace(model, torch.zeros(1, 129, dtype=torch.long), [Site("logits")])
