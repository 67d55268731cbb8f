"""Toys: every path through them is exact, they learn what they are there for, and they come like any model."""

from itertools import product

import pytest
import torch
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models import entry, parts, recipes, toys
from vaultlab.models.attn_only import AttnOnly, AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.load import assemble, load, read_shape
from vaultlab.models.model import Model
from vaultlab.models.pull import add, find, pull
from vaultlab.models.toys import TOYS, Course
from vaultlab.models.trace import Site, trace
from vaultlab.models.verify import verify
from vaultlab.worker.residents import Residents

CPU = torch.device("cpu")
QUICK = Course(steps=3, batch=2)


def wide(layers: int) -> Model:
    """Untrained, with weights large enough that every path counts, in float64."""
    net = toys.fresh(AttnOnlyConfig(layers=layers, context=24), draws("test", layers))
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(2)
    return assemble(f"untrained-{layers}", "", net.double(), toys.tokenizer())


@torch.no_grad()
def test_the_logits_are_the_sum_of_all_paths() -> None:
    model = wide(2)
    ids = toys.repeats(1, 24, 64, draws("texts")).ids
    got = trace(model, ids, [Site("pattern", 0), Site("pattern", 1), Site("logits")])
    x, W_U = parts.embedding(model)(ids)[0], parts.unembedding(model).W_U
    first, second = parts.attention(model, 0), parts.attention(model, 1)

    def moved(layer: int, head: int, stream: Tensor) -> Tensor:
        weights = (first, second)[layer]
        return got[Site("pattern", layer)][0, head] @ stream @ weights.W_V[head] @ weights.W_O[head]

    heads = range(model.shape.heads)
    direct, alone = x @ W_U, [moved(layer, head, x) @ W_U for layer, head in product((0, 1), heads)]
    virtual = [moved(1, later, moved(0, earlier, x)) @ W_U for earlier, later in product(heads, heads)]
    logits = got[Site("logits")][0]
    torch.testing.assert_close(direct + sum(alone) + sum(virtual), logits, atol=1e-9, rtol=1e-9)
    without = direct + sum(alone)
    assert (without - logits).abs().max() > 0.1 * logits.abs().max()


@torch.no_grad()
def test_its_patterns_are_rebuilt_and_look_back_only() -> None:
    model = wide(1)
    ids = toys.repeats(2, 24, 64, draws("texts")).ids
    got = trace(model, ids, [Site("attn_in", 0), Site("pattern", 0), Site("attn", 0), Site("mlp", 0)])
    attention = parts.attention(model, 0)
    torch.testing.assert_close(attention.pattern(got[Site("attn_in", 0)]), got[Site("pattern", 0)])
    torch.testing.assert_close(attention(got[Site("attn_in", 0)]), got[Site("attn", 0)])
    assert got[Site("pattern", 0)].triu(1).abs().max() == 0
    assert got[Site("mlp", 0)].abs().max() == 0


def test_a_text_repeats_itself_with_a_period_of_its_own() -> None:
    ids, known = toys.repeats(50, 64, 64, draws("texts"))
    periods = set()
    for text, tells in zip(ids, known, strict=True):
        [period] = [p for p in range(8, 25) if tells[p:].any() and bool((text[p:] == text[:-p])[tells[p:]].all())][:1]
        periods.add(period)
        again = int(tells.int().argmax())
        assert tells[again:].all()
    assert len(periods) > 8


def test_every_character_is_a_token() -> None:
    tokenizer = toys.tokenizer()
    assert len(toys.LETTERS) == len(set(toys.LETTERS)) == 64
    assert tokenizer(toys.LETTERS)["input_ids"] == list(range(64))
    assert tokenizer("a\nb–c")["input_ids"] == tokenizer("a b?c")["input_ids"]
    model = wide(1)
    assert model.tokens("aB 9").strings == ("a", "B", "·", "9")
    assert model.token_id("a") == 0


def test_a_step_of_training_is_the_same_whatever_else_is_drawn() -> None:
    config = AttnOnlyConfig(layers=1)
    first = toys.train(config, QUICK, draws, CPU, lambda done, total: None)
    torch.rand(7)
    again = toys.train(config, QUICK, draws, CPU, lambda done, total: None)
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    other = toys.train(config, QUICK._replace(seed=1), draws, CPU, lambda done, total: None)
    assert not torch.equal(first.embed.weight, other.embed.weight)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """An empty machine, on which toys are hardly trained."""
    monkeypatch.setattr(entry, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(toys.Course, "__new__", lambda cls, **more: QUICK)
    return tmp_path


def test_a_toy_is_trained_when_it_is_first_asked_for(machine) -> None:
    name, said = "toy/attn-only-2l", []
    content, shape = entry.content_of(name), read_shape(name)  # known before it is there
    residents = Residents()
    with torch.inference_mode():  # as experiments run
        model = residents.get(name, CPU, said.append)
    assert any(line.startswith(f"training {name}, step 0 of") for line in said)
    assert (model.sha256, model.shape) == (content, shape)
    assert shape.d_mlp == 0
    assert verify(model) < 1e-5
    said.clear()
    assert residents.get(name, CPU, said.append) is model
    assert Residents().get(name, CPU, said.append).sha256 == content
    assert said == []


def test_a_toy_of_another_recipe_is_trained_anew(machine, monkeypatch) -> None:
    name = "toy/attn-only-1l"
    old = pull(name)
    monkeypatch.setattr(recipes, "RECIPE", recipes.RECIPE + 1)
    assert entry.content_of(name) != old.sha256()
    assert pull(name).sha256() == entry.content_of(name) == load(name).sha256


def test_a_toy_is_found_and_its_name_is_its_own(machine) -> None:
    assert {found.name for found in find("toy/")} == set(TOYS)
    with pytest.raises(NoteError, match="no toy called"):
        pull("toy/attn-only-9l")
    with pytest.raises(Exception, match="one set of weights"):
        add("toy/attn-only-1l", machine)


@pytest.mark.long
@pytest.mark.parametrize("name", ["toy/attn-only-1l", "toy/attn-only-2l"])
def test_two_layers_learn_to_repeat_and_one_cannot(name: str) -> None:
    net: AttnOnly = toys.train(TOYS[name], Course(), draws, CPU, lambda done, total: None)
    texts = toys.repeats(256, 64, 64, draws("held out"))
    with torch.no_grad():
        everywhere, known = toys.losses(net(texts.ids).logits, texts)
    assert (known < 0.3) if TOYS[name].layers == 2 else (known > 2)
    assert everywhere > known
