"""A direction taken out: in passing and out of the weights are one thing, if what only reads is left as it is."""

import pytest
import torch

from tests.tiny import FAMILIES, TEXT, tiny_model
from vaultlab.models import toys
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.intervene import intervene
from vaultlab.models.load import assemble
from vaultlab.models.removal import added, project, random_units, removed, streams, unit, without
from vaultlab.models.trace import Site, trace

LOGITS = Site("logits")


def attention_only():
    net = toys.fresh(AttnOnlyConfig(layers=2, context=24), draws("test"))
    return assemble("untrained", "", net, toys.tokenizer())


def model_of(family):
    return attention_only() if family == "attn_only" else tiny_model(family)


def a_direction(model, seed=0):
    return random_units(1, model.shape.d_model, draws("direction", seed))[0]


def logits(model, ids, edits=()):
    return intervene(model, ids, edits, [LOGITS])[LOGITS]


@pytest.mark.parametrize("family", [*FAMILIES, "attn_only"])
def test_removed_in_passing_is_removed_from_the_weights(family):
    model = model_of(family)
    ids, direction = model.tokens(TEXT).ids[None, :20], a_direction(model)
    before = trace(model, ids, [LOGITS])[LOGITS]
    passing = logits(model, ids, removed(model, direction))
    torch.testing.assert_close(trace(without(model, direction), ids, [LOGITS])[LOGITS], passing, atol=1e-4, rtol=1e-4)
    assert (passing - before).abs().max() > 1e-2 * before.abs().max()
    torch.testing.assert_close(trace(model, ids, [LOGITS])[LOGITS], before, atol=0, rtol=0)  # it stays what it was


def test_an_unembedding_that_stays_tied_loses_the_direction_too():
    """The trap: the embedding writes to the stream, and the very same matrix reads the logits from it."""
    model = tiny_model("llama")
    assert model.shape.tied
    ids, direction = model.tokens(TEXT).ids[None, :20], a_direction(model)
    passing = logits(model, ids, removed(model, direction))
    wrong = trace(without(model, direction, untie=False), ids, [LOGITS])[LOGITS]
    assert (wrong - passing).abs().max() > 1e-2 * passing.abs().max()


@pytest.mark.parametrize("forgotten", ["embedding", "attn_out", "mlp_out", "bias"])
def test_every_writer_counts(forgotten):
    """With any one of them left as it was, the weights still write along the direction."""
    model = tiny_model("gpt2")
    ids, direction = model.tokens(TEXT).ids[None, :20], a_direction(model)
    edited = without(model, direction)
    block, own = edited.family.block(edited.net, 1), model.family.block(model.net, 1)
    with torch.no_grad():
        if forgotten == "embedding":
            edited.net.get_input_embeddings().weight.copy_(model.net.get_input_embeddings().weight)
        else:
            path = model.family.mlp_out if forgotten == "mlp_out" else model.family.attn_out
            name = "bias" if forgotten == "bias" else "weight"
            getattr(block.get_submodule(path), name).copy_(getattr(own.get_submodule(path), name))
    last = trace(edited, ids, [Site("final")])[Site("final")]
    assert (last @ direction).abs().max() > 1e-3
    good = trace(without(model, direction), ids, [Site("final")])[Site("final")]
    assert (good @ direction).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "attn_only"])
def test_nothing_is_left_anywhere(family):
    model = model_of(family)
    ids, direction = model.tokens(TEXT).ids[None, :20], a_direction(model)
    places = streams(model)
    found = intervene(model, ids, removed(model, direction), [*places, Site("final")])
    assert max(float((x @ direction).abs().max()) for x in found.values()) < 1e-4
    one_layer = [removed(model, direction)[0]]  # only where it enters: later layers write along it again
    assert (intervene(model, ids, one_layer, [Site("final")])[Site("final")] @ direction).abs().max() > 1e-2


def test_what_is_added_is_there_and_nothing_else():
    model = tiny_model("qwen3")
    ids, vector, site = model.tokens(TEXT).ids[None, :20], 3 * a_direction(model), Site("resid_post", 1)
    moved = intervene(model, ids, [added(site, vector)], [site])[site] - trace(model, ids, [site])[site]
    torch.testing.assert_close(moved, vector.expand_as(moved), atol=1e-5, rtol=1e-5)


def test_projecting_leaves_the_rest():
    x, direction = torch.randn(7, 5, generator=draws("x")), unit(torch.tensor([3.0, 0, 4, 0, 0]))
    left = project(x, direction)
    torch.testing.assert_close(left + (x @ direction)[:, None] * direction, x)
    torch.testing.assert_close(project(left, direction), left)
    torch.testing.assert_close(direction.norm(), torch.tensor(1.0))
