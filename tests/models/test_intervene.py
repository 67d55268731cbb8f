"""Interventions: nothing changed is nothing, and what is changed is what the weights say it must be."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.models import parts, toys
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.family import sub
from vaultlab.models.intervene import Edit, Since, intervene, of_heads
from vaultlab.models.load import assemble
from vaultlab.models.model import Model
from vaultlab.models.trace import SITES, Site, has, trace

LAYER = 1
LOGITS = Site("logits")
LENGTHS = (70, 40, 55)
GROUPED = ["llama", "mistral", "qwen2", "qwen3"]


def attn_only() -> Model:
    net = toys.fresh(AttnOnlyConfig(layers=3, d_model=48, heads=4, context=128), draws("intervened"))
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(2)
    return assemble("attn-only", "", net, toys.tokenizer())


@pytest.fixture(params=["llama", "qwen3", "gpt2", "gpt_neox", "gpt_neox-in-turn", "attn_only"])
def model(request: pytest.FixtureRequest) -> Model:
    if request.param == "attn_only":
        return attn_only()
    if request.param == "gpt_neox-in-turn":
        return tiny_model("gpt_neox", use_parallel_residual=False)
    return tiny_model(request.param)


def ids_of(model: Model, batch: int = 3, pos: int = 24) -> Tensor:
    return torch.randint(model.shape.d_vocab, (batch, pos), generator=torch.Generator().manual_seed(1))


def within(model: Model, layer: int = LAYER) -> list[Site]:
    return [site for name in SITES if name not in ("final", "logits") and has(model, site := Site(name, layer))]


def plain(model: Model, site: Site, ids: Tensor) -> Tensor:
    return trace(model, ids, [site])[site]


def noise(value: Tensor) -> Tensor:
    return torch.randn(value.shape, generator=torch.Generator().manual_seed(2)).to(value)


def the_same(value: Tensor) -> Tensor:
    return value.clone()


def test_nothing_changed_changes_nothing(model: Model) -> None:
    ids = ids_of(model)
    clean = plain(model, LOGITS, ids)
    for site in (*within(model), Site("final"), LOGITS):
        nowhere = Edit(site, noise, positions=torch.zeros(1, ids.shape[1], dtype=torch.bool))
        for edit in (nowhere, Edit(site, the_same)):
            patched = intervene(model, ids, [edit], [LOGITS])[LOGITS]
            if site.name in ("k", "v", "pattern"):  # other kernels add in another order
                torch.testing.assert_close(patched, clean, atol=1e-4, rtol=1e-5)
            else:
                assert torch.equal(patched, clean), site


def test_every_site_but_those_that_nobody_reads_moves_the_logits(model: Model) -> None:
    ids = ids_of(model)
    clean = plain(model, LOGITS, ids)
    for site in (*within(model), Site("final"), LOGITS):
        found = intervene(model, ids, [Edit(site, lambda value: value + noise(value))], [site, LOGITS])
        unread = model.family.name == "attn_only" and site.name in ("mlp_in", "m")
        assert ((found[LOGITS] - clean).abs().max() > 1e-2) != unread, site
        torch.testing.assert_close(found[site], plain(model, site, ids) + noise(found[site]), atol=1e-5, rtol=1e-5)


def test_what_stands_there_is_read_from_there_on(model: Model) -> None:
    """What came before is as it was, and the stream after is what is written to the one that stands there."""
    ids = ids_of(model)
    parallel = "parallel" in model.shape.flags
    names = ("resid_pre", "attn", *(() if parallel else ("resid_mid",)), "mlp", "resid_post")
    sites = [Site(name, LAYER) for name in names]
    clean = trace(model, ids, sites)
    for site in sites:
        got = intervene(model, ids, [Edit(site, lambda value: value + noise(value))], sites)
        before = sites[: 1 if parallel and site.name in ("attn", "mlp") else sites.index(site)]
        assert all(torch.equal(got[one], clean[one]) for one in before)
        pre, attn, mlp, post = (got[Site(name, LAYER)] for name in ("resid_pre", "attn", "mlp", "resid_post"))
        added = noise(post) if site.name in ("resid_mid", "resid_post") else 0
        torch.testing.assert_close(post, pre + attn + mlp + added, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_zeroing_a_head_is_zeroing_its_rows_of_W_O(model: Model) -> None:
    ids, d_head = ids_of(model), model.shape.d_head
    for head in (0, 3):
        ablated = Edit(Site("z", LAYER), torch.zeros_like, heads=of_heads(model.shape.heads, [head]))
        got = intervene(model, ids, [ablated], [LOGITS])[LOGITS]
        out: Any = sub(model.family.block(model.net, LAYER), model.family.attn_out)
        rows = slice(head * d_head, (head + 1) * d_head)
        weight = out.weight[rows] if model.family.name == "gpt2" else out.weight[:, rows]
        kept = weight.clone()
        weight.zero_()
        without = plain(model, LOGITS, ids)
        weight.copy_(kept)
        torch.testing.assert_close(got, without, atol=1e-5, rtol=1e-5)
        assert (got - plain(model, LOGITS, ids)).abs().max() > 1e-2
        other = Edit(Site("z", LAYER), torch.zeros_like, heads=of_heads(model.shape.heads, [(head + 1) % 4]))
        assert (intervene(model, ids, [other], [LOGITS])[LOGITS] - without).abs().max() > 1e-2


def test_the_last_stream_of_another_text_gives_its_output(model: Model) -> None:
    ids = ids_of(model)
    other = ids.roll(1, 0)
    last = model.shape.layers - 1
    for site in (Site("resid_post", last), Site("final"), Site("resid_pre", 0)):
        donor = plain(model, site, other)
        got = intervene(model, ids, [Edit(site, lambda _, donor=donor: donor)], [LOGITS])[LOGITS]
        torch.testing.assert_close(got, plain(model, LOGITS, other), atol=1e-5, rtol=1e-5)


def test_a_stream_put_in_at_one_position_moves_no_earlier_one(model: Model) -> None:
    ids, at = ids_of(model), 9
    where = torch.arange(ids.shape[1])[None] == at
    clean = plain(model, LOGITS, ids)
    got = intervene(model, ids, [Edit(Site("resid_pre", LAYER), noise, positions=where)], [LOGITS])[LOGITS]
    assert torch.equal(got[:, :at], clean[:, :at])
    assert (got[:, at] - clean[:, at]).abs().max() > 1e-2
    last = Site("resid_post", model.shape.layers - 1)
    got = intervene(model, ids, [Edit(last, noise, positions=where)], [LOGITS])[LOGITS]
    assert ((got - clean).abs().amax(-1) > 1e-3).nonzero()[:, 1].unique().tolist() == [at]


def test_a_batch_of_interventions_says_what_single_ones_say(model: Model) -> None:
    """Every row has a position and a head of its own."""
    one = ids_of(model, 1)
    rows, heads = 6, model.shape.heads
    at = torch.eye(24, dtype=torch.bool)[3 : 3 + rows]
    of = torch.eye(heads, dtype=torch.bool)[torch.arange(rows) % heads]
    site = Site("z", LAYER)
    together = intervene(model, one.repeat(rows, 1), [Edit(site, torch.zeros_like, at, of)], [LOGITS])[LOGITS]
    for row in range(rows):
        alone = intervene(model, one, [Edit(site, torch.zeros_like, at[[row]], of[[row]])], [LOGITS])[LOGITS]
        torch.testing.assert_close(together[row], alone[0], atol=1e-4, rtol=1e-4)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_layers_under_a_known_stream_are_not_run_again(model: Model) -> None:
    ids, site = ids_of(model), Site("resid_pre", LAYER)
    edit = Edit(Site("z", LAYER), torch.zeros_like, heads=of_heads(model.shape.heads, [2]))
    ran: list[Any] = []
    first = trace(model, ids, [site])[site]
    hook = sub(model.family.block(model.net, 0), model.family.attn).register_forward_hook(lambda *_: ran.append(0))
    got = intervene(model, ids, [edit], [LOGITS], Since(LAYER, first))[LOGITS]
    assert ran == []
    assert torch.equal(got, intervene(model, ids, [edit], [LOGITS])[LOGITS])
    assert ran == [0]
    hook.remove()
    other = intervene(model, ids.roll(1, 0), [edit], [LOGITS], Since(LAYER, first))[LOGITS]
    torch.testing.assert_close(other, got)  # whatever the tokens are, the stream is what counts


def test_edits_of_one_site_follow_each_other(model: Model) -> None:
    ids, site = ids_of(model), Site("mlp" if model.shape.d_mlp else "attn", LAYER)
    twice = [Edit(site, lambda value: value + 1), Edit(site, lambda value: value * 2)]
    got = intervene(model, ids, twice, [site])[site]
    torch.testing.assert_close(got, (plain(model, site, ids) + 1) * 2)


@torch.no_grad()
def test_queries_keys_and_values_are_those_of_the_weights(model: Model) -> None:
    """Normed and turned, head by head; and what the pattern makes of them is what the heads gather."""
    ids = ids_of(model)
    sites = [Site(name, LAYER) for name in ("attn_in", "q", "k", "v", "pattern", "z")]
    found = trace(model, ids, sites)
    x, q, k, v, A, z = (found[site] for site in sites)
    attn = parts.attention(model, LAYER)
    for ours, theirs in ((attn.queries(x), q), (attn.keys(x), k), (attn.values(x), v)):
        torch.testing.assert_close(ours.transpose(1, 2), theirs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close((A @ v.transpose(1, 2)).transpose(1, 2), z, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_changed_pattern_gathers_by_it(model: Model) -> None:
    ids, heads = ids_of(model), model.shape.heads
    previous = torch.eye(ids.shape[1]).roll(-1, 1).tril(-1)  # every token looks at the one before, the first nowhere
    edit = Edit(Site("pattern", LAYER), lambda A: previous.expand_as(A), heads=of_heads(heads, [2]))
    sites = [Site(name, LAYER) for name in ("v", "z")]
    got, clean = intervene(model, ids, [edit], sites), trace(model, ids, sites)
    z, v = got[sites[1]], clean[sites[0]]
    torch.testing.assert_close(z[:, 1:, 2], v[:, :-1, 2], atol=1e-5, rtol=1e-4)
    assert z[:, 0, 2].abs().max() == 0
    torch.testing.assert_close(z[:, :, [0, 1, 3]], clean[sites[1]][:, :, [0, 1, 3]], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_scaling_queries_or_keys_scales_the_scores(model: Model) -> None:
    ids = ids_of(model)
    A = plain(model, Site("pattern", LAYER), ids)
    sharper = (A.log() * 2).softmax(-1)
    for name in ("q", "k"):
        edit = Edit(Site(name, LAYER), lambda value: 2 * value)
        got = intervene(model, ids, [edit], [Site("pattern", LAYER)])[Site("pattern", LAYER)]
        torch.testing.assert_close(got, sharper, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", GROUPED)
@pytest.mark.parametrize("name", ["k", "v"])
def test_a_shared_key_or_value_is_changed_for_one_head_alone(family: str, name: str) -> None:
    model = tiny_model(family)
    ids = ids_of(model)
    seen = Site("pattern" if name == "k" else "z", LAYER)
    edit = Edit(Site(name, LAYER), noise, heads=of_heads(4, [1]))
    got, clean = (
        value if name == "k" else value.transpose(1, 2)
        for value in (intervene(model, ids, [edit], [seen])[seen], plain(model, seen, ids))
    )
    moved = (got - clean).abs().amax((0, 2, 3))
    assert (moved > 1e-2).tolist() == [False, True, False, False]
    whole = intervene(model, ids, [Edit(Site(name, LAYER), noise, heads=of_heads(4, [0, 1]))], [seen])[seen]
    both = whole if name == "k" else whole.transpose(1, 2)
    assert ((both - clean).abs().amax((0, 2, 3)) > 1e-2).tolist() == [True, True, False, False]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "mistral"])
def test_a_look_changes_no_bit(family: str) -> None:
    model = tiny_model(family)
    ids = ids_of(model)
    seen: list[tuple[int, ...]] = []

    def look(value: Tensor) -> Tensor:
        seen.append(tuple(value.shape))
        return value

    touches = [(site, look) for site in (*within(model), Site("final"))]
    assert torch.equal(trace(model, ids, [LOGITS], touches)[LOGITS], plain(model, LOGITS, ids))
    assert len(seen) == len(touches)


def test_a_stream_is_not_written_over_where_it_was_given(model: Model) -> None:
    """What one site shows does not change because another site is edited later in the same pass."""
    ids = ids_of(model)
    early = [Site(name, layer) for layer in (0, LAYER) for name in ("resid_pre", "attn")]
    clean = {site: value.clone() for site, value in trace(model, ids, early).items()}
    later = Site("resid_mid", LAYER) if has(model, Site("resid_mid", LAYER)) else Site("mlp", LAYER)
    got = intervene(model, ids, [Edit(later, noise)], [*early, LOGITS])
    assert all(torch.equal(got[site], clean[site]) for site in early)


def test_the_model_is_as_it_was_afterwards_even_after_an_error(model: Model) -> None:
    ids = ids_of(model)
    clean = plain(model, LOGITS, ids)

    def broken(value: Tensor) -> Tensor:
        raise RuntimeError("by intention")

    for site in (Site("z", LAYER), Site("pattern", LAYER)):
        with pytest.raises(RuntimeError, match="intention"):
            intervene(model, ids, [Edit(site, broken)], [LOGITS])
    intervene(model, ids, [Edit(Site("resid_pre", 0), noise)], [LOGITS])
    assert torch.equal(plain(model, LOGITS, ids), clean)


def test_what_cannot_be_is_refused() -> None:
    model = tiny_model("llama")
    ids = model.tokens(TEXT[:30]).ids[None]
    with pytest.raises(NoteError, match="no layer 9"):
        intervene(model, ids, [Edit(Site("z", 9), torch.zeros_like)], [LOGITS])
    with pytest.raises(ValueError, match="has no heads"):
        intervene(model, ids, [Edit(Site("mlp", 0), torch.zeros_like, heads=of_heads(4, [0]))], [LOGITS])
    with pytest.raises(RuntimeError):
        intervene(model, ids, [Edit(Site("mlp", 0), lambda value: value[:, :-1])], [LOGITS])
