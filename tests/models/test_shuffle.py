"""Shuffled weights are the same numbers without what they do."""

import torch

from tests.tiny import TEXT, tiny_model
from vaultlab.models.shuffle import shuffled
from vaultlab.models.trace import Site, trace


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_every_matrix_keeps_its_numbers_and_gains_stay() -> None:
    model = tiny_model("llama")
    before = {name: weight.clone() for name, weight in model.net.named_parameters()}
    other = shuffled(model, generator())
    for name, weight in other.net.named_parameters():
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
        assert torch.equal(weight, before[name]) == (weight.ndim == 1), name
    assert all(torch.equal(weight, before[name]) for name, weight in model.net.named_parameters())


def test_the_order_is_the_generators_and_ties_stay_tied() -> None:
    model = tiny_model("llama")
    one, two = (shuffled(model, generator()).net for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert one.get_input_embeddings().weight is one.get_output_embeddings().weight


def test_it_runs_as_a_model_and_says_something_else() -> None:
    model = tiny_model("gpt2")
    ids = model.tokens(TEXT[:60]).ids[None]
    site = Site("pattern", 1)
    ours, theirs = trace(model, ids, [site])[site], trace(shuffled(model, generator()), ids, [site])[site]
    torch.testing.assert_close(theirs.sum(-1), torch.ones_like(theirs[..., 0]))
    assert (ours - theirs).abs().max() > 0.05
