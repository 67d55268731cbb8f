"""Whether tokens are among the first that a write pushes, without looking at the whole vocabulary for every write."""

import pytest
import torch

from tests.tiny import tiny_model
from vaultlab.models import memories, parts
from vaultlab.models.memories import among_first, prominent, pushed


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("size", [1, 7, 60, 4096])
def test_it_is_what_the_ranks_say(family, size, monkeypatch):
    monkeypatch.setattr(memories, "PROMINENT", size)
    monkeypatch.setattr(memories, "LOGITS", 900)
    model = tiny_model(family)
    v = parts.mlp(model, 1).W_out
    asked = torch.randint(model.shape.d_vocab, (len(v), 5), generator=torch.Generator().manual_seed(1))
    asked[:, 0] = pushed(model, v, asked[:, :0]).first
    for count in (1, 10):
        near = among_first(model, v, asked, count, prominent(model))
        assert torch.equal(near, pushed(model, v, asked).rank < count)
        assert near[:, 0].all()
        assert not near[:, 1:].all()


def test_the_whole_vocabulary_is_looked_at_where_it_could_matter_only(monkeypatch):
    model, seen = tiny_model("llama"), []
    v = parts.mlp(model, 1).W_out
    asked = torch.randint(model.shape.d_vocab, (len(v), 2), generator=torch.Generator().manual_seed(1))
    whole = memories.pushed
    monkeypatch.setattr(memories, "pushed", lambda model, v, *more: seen.append(len(v)) or whole(model, v, *more))
    among_first(model, v, asked, 3, prominent(model)[:100])
    assert 0 < seen[0] < len(v) / 2
