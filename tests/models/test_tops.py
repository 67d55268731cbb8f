"""The top tokens of all values: one by one in float64, taken up again where they were left, and seen when wrong."""

import torch

from tests.tiny import tiny_model
from vaultlab.experiment import Bench
from vaultlab.models import parts
from vaultlab.models.memories import readout
from vaultlab.models.tops import Tops, tops, tops_residual


def bench(model, **more):
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, **more)


def test_they_are_those_of_every_value_by_itself():
    for family in ("llama", "gpt2"):
        model = tiny_model(family)
        found = tops(bench(model), model)
        W_U = parts.unembedding(model, torch.float64).W_U
        for layer in range(3):
            for key, v in enumerate(parts.mlp(model, layer, torch.float64).W_out):
                push = readout(model, v) @ W_U
                assert (int(found.first[layer, key]), int(found.last[layer, key])) == (push.argmax(), push.argmin())


def test_what_was_kept_under_way_is_gone_on_with():
    model, kept = tiny_model("llama"), []

    def watched(what, kind, work):
        assert what["model"] == model.sha256
        assert "text" not in what
        return work(None, lambda found: kept.append(found()))

    whole = tops(bench(model, shared=watched), model)
    assert [one.done for one in kept] == [1, 2, 3]
    assert (kept[0].first[1:] == -1).all(), "what is kept is no view of what goes on"
    spoilt = Tops(1, kept[0].first.index_fill(0, torch.tensor([0]), 5), kept[0].last)
    again = tops(bench(model, shared=lambda what, kind, work: work(spoilt, lambda found: None)), model)
    assert (again.first[0] == 5).all(), "what was done is not done again"
    assert torch.equal(again.first[1:], whole.first[1:])
    assert torch.equal(again.last, whole.last)


def test_a_wrong_top_token_is_seen():
    model = tiny_model("qwen2")
    found, v = tops(bench(model), model).of(1), parts.mlp(model, 1).W_out
    assert tops_residual(model, v, found.first) < 1e-5
    assert tops_residual(model, -v, found.last) < 1e-5
    assert tops_residual(model, v, found.last) > 1
    assert tops_residual(model, v, found.first.roll(1)) > 0.1
