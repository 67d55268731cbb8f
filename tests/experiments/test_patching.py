"""Patching: what plain hooks say one pass at a time, what must be 0 or 1, the traps that must fail, figures."""

import math
import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import patching as experiment
from vaultlab.experiments.patching import EXPERIMENT, Spec, compute, draw, measure, moves_on, needs, shares, verify
from vaultlab.models import patching
from vaultlab.models.family import sub
from vaultlab.models.load import load
from vaultlab.models.pairs import read_pairs
from vaultlab.plots.patching import path
from vaultlab.plots.style import render
from vaultlab.result import Text

CLEAN, CORRUPT = "The cat saw the mat", "The dog saw the mat"
ASKED = {"answer": ("cat",), "foil": ("dog",)}
MORE = {
    "clean": f"{CLEAN}\nThe mat saw the cat\nThe dog sat on it\nThe cat said it was",
    "corrupt": f"{CORRUPT}\nThe dog saw the cat\nThe cat sat on it\nThe dog said it was",
}


def run(model, batch=32, **fields):
    spec = Spec(**{"model": "tiny", "clean": CLEAN, "corrupt": CORRUPT, "draws": 1, **ASKED, **fields})
    texts = {name: Text("", "0", (("", getattr(spec, name)),)) for name in ("clean", "corrupt")}
    return spec, compute(spec, Bench(torch.device("cpu"), torch.float32, lambda name: model, texts, batch=batch))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def failing(spec, out):
    return [check.name for check in verify(spec, out) if not check.ok]


# -- one pass at a time, with torch's own hooks


MODULES = {
    "llama": {"resid_pre": ("", "pre"), "resid_post": ("", "out"), "attn": ("self_attn", "out"), "mlp": ("mlp", "out"),
              "z": ("self_attn.o_proj", "pre"), "v": ("self_attn.v_proj", "out"),
},
    "gpt2": {"resid_pre": ("", "pre"), "resid_post": ("", "out"), "attn": ("attn", "out"), "mlp": ("mlp", "out"),
             "z": ("attn.c_proj", "pre")},
}  # fmt: skip
"""family → site → the module and side where it stands."""


@torch.no_grad()
def with_hooks(model, prompts, question, place, change):
    """The question's nats of the base run with `change(own, donor's)` at a module of one layer."""
    module, side = place
    kept = []

    def hook(_module, args, output=None):
        standing = args[0] if output is None else output[0] if isinstance(output, tuple) else output
        if not kept:
            kept.append(standing.clone())
            return None
        put = change(standing, kept[0])
        if output is None:
            return (put, *args[1:])
        return (put, *output[1:]) if isinstance(output, tuple) else put

    handle = module.register_forward_pre_hook(hook) if side == "pre" else module.register_forward_hook(hook)
    donor, base = prompts
    model.net(donor[None])
    logits = model.net(base[None]).logits[0, -1]
    handle.remove()
    return float(logits[question[0]] - logits[question[1]])


def at(position):
    def change(own, other):
        own = own.clone()
        own[:, position] = other[:, position]
        return own

    return change


def of(columns):
    def change(own, other):
        own = own.clone()
        own[..., columns] = other[..., columns]
        return own

    return change


@pytest.mark.parametrize(("family", "site"), [(family, site) for family in MODULES for site in MODULES[family]])
def test_every_cell_is_what_a_plain_hook_does(family, site) -> None:
    model = tiny_model(family)
    spec, out = run(model, site=site)
    [pair] = read_pairs(model, (CLEAN, CORRUPT), (["cat"], ["dog"]))
    question, d_head = (pair.answer, pair.foil), model.shape.d_head
    for layer in range(3):
        name, side = MODULES[family][site]
        place = sub(model.family.block(model.net, layer), name), side
        for position in range(len(pair.clean)):
            got = with_hooks(model, (pair.clean, pair.corrupt), question, place, at(position)) - float(out.corrupt)
            assert float(out.cells[0, layer, position]) == pytest.approx(got, abs=1e-4), (layer, position)
        name, side = MODULES[family]["z"]
        place = sub(model.family.block(model.net, layer), name), side
        for head in range(4):
            some = slice(head * d_head, (head + 1) * d_head)
            got = with_hooks(model, (pair.clean, pair.corrupt), question, place, of(some)) - float(out.corrupt)
            assert float(out.heads[0, layer, head]) == pytest.approx(got, abs=1e-4), (layer, head)
    assert out.cells.abs().max() > 0.05
    assert failing(spec, out) == []


def by_v_proj(model, out):
    """What each shared value moves, patched where the projection writes it, before it is repeated for its heads."""
    [pair] = read_pairs(model, (CLEAN, CORRUPT), (["cat"], ["dog"]))
    d_head = model.shape.d_head
    return [
        with_hooks(
            model,
            (pair.clean, pair.corrupt),
            (pair.answer, pair.foil),
            (sub(model.family.block(model.net, layer), "self_attn.v_proj"), "out"),
            of(slice(column * d_head, (column + 1) * d_head)),
        )
        - float(out.corrupt)
        for layer in range(3)
        for column in range(model.shape.kv_heads)
    ]


def test_shared_values_are_patched_for_the_heads_that_share_them() -> None:
    model = tiny_model("llama")
    _, out = run(model, site="v")
    assert out.of_site.shape == (1, 3, 2)
    assert out.of_site.flatten().tolist() == pytest.approx(by_v_proj(model, out), abs=1e-4)


def test_groups_laid_out_in_turn_would_be_wrong(monkeypatch) -> None:
    """Head h of four with two shared values reads value h // 2, not h % 2."""
    model = tiny_model("llama")
    monkeypatch.setattr(
        patching,
        "heads_of",
        lambda shape, name, column: torch.arange(shape.heads) % patching.columns(shape, name) == column,
    )
    _, out = run(model, site="v")
    right = torch.tensor(by_v_proj(model, out))
    assert (out.of_site.flatten() - right).abs().max() > 0.02


# -- identities


@pytest.mark.parametrize(
    ("family", "site", "dtype"),
    [
        *((family, "q", torch.float32) for family in FAMILIES),
        ("llama", "pattern", torch.float32),
        ("gpt2", "k", torch.bfloat16),
    ],
)
def test_checks_hold_in_every_family(family, site, dtype) -> None:
    spec, out = run(tiny_model(family, seed=3, dtype=dtype), site=site)
    assert failing(spec, out) == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
def test_the_stream_begins_at_the_changed_token_and_ends_at_the_last(site) -> None:
    _, out = run(tiny_model("llama"), site=site)
    cells, where = shares(out).cells, out.where[0]
    if site == "resid_pre":
        assert cells[0].tolist() == pytest.approx(where.double().tolist(), abs=1e-4)
    if site == "resid_post":
        assert cells[-1].tolist() == pytest.approx([0] * (len(where) - 1) + [1], abs=1e-4)
    assert cells[:, : int(where.nonzero()[0])].abs().max() < 1e-4  # before it the two prompts are the same


def test_several_changed_tokens_together_move_all() -> None:
    spec, out = run(tiny_model("gpt2"), corrupt="The dog said the mat")
    it = shares(out)
    assert int(out.where.sum()) > 1
    assert float(it.changed[0]) == pytest.approx(1, abs=1e-4)
    assert (it.cells[0] - 1).abs().min() > 1e-3
    assert failing(spec, out) == []


def test_noising_is_denoising_with_the_prompts_exchanged() -> None:
    model = tiny_model("llama")
    spec, one = run(model, direction="noising", site="attn")
    _, other = run(model, clean=CORRUPT, corrupt=CLEAN, site="attn")
    for name in ("cells", "changed", "heads"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(getattr(shares(one), name), getattr(shares(other), name), atol=1e-4, rtol=1e-4)
    assert one.tokens == other.tokens
    assert value(spec, one, "gap").value == pytest.approx(-value(spec, other, "gap").value)
    assert failing(spec, one) == []


def test_pattern_alone_and_values_alone_are_what_the_head_gathers_of_both() -> None:
    """z with the donor's pattern and the base's values, written down again; put in by a plain hook."""
    model = tiny_model("llama")
    spec, out = run(model)
    [pair] = read_pairs(model, (CLEAN, CORRUPT), (["cat"], ["dog"]))
    layer, head = map(int, out.strongest[0][1:].split("H"))
    sites = [patching.Site(name, layer) for name in ("pattern", "v")]
    A, v = (patching.trace(model, torch.stack([pair.clean, pair.corrupt]), sites)[site] for site in sites)
    place = sub(model.family.block(model.net, layer), "self_attn.o_proj"), "pre"
    some = slice(head * model.shape.d_head, (head + 1) * model.shape.d_head)
    for kind, (looks, says) in enumerate([(0, 1), (1, 0), (0, 0)]):
        z = A[looks, head] @ v[says, :, head]

        def change(own, _other, z=z):
            own = own.clone()
            own[0, :, some] = z
            return own

        got = with_hooks(model, (pair.clean, pair.corrupt), (pair.answer, pair.foil), place, change)
        assert float(out.alone[0, kind, 0]) == pytest.approx(got - float(out.corrupt), abs=1e-4)
    pattern, values, whole = (value(spec, out, f"head_{name}").value for name in ("pattern", "values", "moved"))
    assert value(spec, out, "interaction").value == pytest.approx(whole - pattern - values)


# -- what must fail


@pytest.mark.parametrize("wrong", ["the donor's streams", "the streams of the layer above", "the first token's"])
def test_resuming_from_another_stream_is_seen(monkeypatch, wrong) -> None:
    real = patching.patching

    def other(model, base, donors, *more):
        one = real(model, base, donors, *more)
        streams = {
            "the donor's streams": lambda: real(model, donors[0], donors, *more).streams,
            "the streams of the layer above": lambda: one.streams.roll(-1, 0),
            "the first token's": lambda: one.streams[:, :1].expand_as(one.streams),
        }[wrong]()
        return experiment.Patching(**{**vars(one), "streams": streams})

    monkeypatch.setattr(experiment.patching, "patching", other)
    spec, out = run(tiny_model("llama"))
    assert "resumed in a batch = from the beginning, one by one" in failing(spec, out)


@pytest.fixture(scope="module")
def ran():
    return run(tiny_model("llama"), **MORE)


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken) -> None:
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert len(failing(spec, damaged)) == 1


def test_a_last_stream_read_by_the_wrong_norm_is_seen(monkeypatch) -> None:
    monkeypatch.setattr(patching.Question, "read", lambda self, model, final: final.float() @ self.u + self.b)
    spec, out = run(tiny_model("llama"))
    assert failing(spec, out) == ["the logits' difference = the model's own"]


# -- pairs


def test_places_and_heads_are_chosen_on_one_half_and_judged_on_the_other(ran) -> None:
    spec, out = ran
    assert (out.choosing, out.judging, len(out.toward)) == (2, 2, 4)
    moved = out.heads[:2].sum(0) / out.toward[:2].sum()
    best = moved.abs().flatten().argsort(descending=True)[:6].tolist()
    assert out.strongest[:6] == tuple(f"L{place // 4}H{place % 4}" for place in best)
    assert out.strongest[6] == out.strongest[0]
    flattered = out._replace(cells=out.cells.clone())
    flattered.cells[2:] = out.cells[2:].flip(-1)  # what is judged chooses no place
    chosen = shares(out).chosen.abs().argmax(1)
    assert torch.equal(shares(flattered).chosen.abs().argmax(1), chosen)
    judged = flattered.cells[2:].double().sum(0) / out.toward[2:].double().sum()
    expected = float(judged[torch.arange(3), chosen].mean())
    assert value(spec, flattered, "along_path").value == pytest.approx(expected)
    assert value(spec, out, "along_path").n == 2


def test_a_pair_alone_is_a_pair_of_many(ran) -> None:
    _, out = ran
    for number in (0, 3):
        lines = {name: text.splitlines()[number] for name, text in MORE.items()}
        _, one = run(tiny_model("llama"), **lines)
        for name in ("cells", "changed", "heads"):
            torch.testing.assert_close(getattr(one, name)[0], getattr(out, name)[number], atol=1e-5, rtol=1e-4)


def test_intervals_are_over_pairs_and_hold_the_share(ran) -> None:
    spec, out = ran
    for name in ("head_moved", "along_path", "best_cell"):
        metric = value(spec, out, name)
        low, high = metric.interval
        assert low <= metric.value <= high
    spec, one = run(tiny_model("llama"))
    assert all(metric.interval is None for metric in measure(spec, one))


def test_batches_change_no_number() -> None:
    model = tiny_model("qwen2")
    _, whole = run(model, site="z")
    _, some = run(model, site="z", batch=3)
    for name in ("cells", "changed", "heads", "alone", "drawn_cells", "drawn_alone"):
        torch.testing.assert_close(getattr(whole, name), getattr(some, name), atol=1e-5, rtol=1e-4)


def test_the_null_is_of_prompts_with_random_tokens() -> None:
    """Patched before the first layer at the changed token, an unrelated prompt's activations are its own run."""
    spec, out = run(tiny_model("llama"), draws=3)
    torch.testing.assert_close(out.drawn_changed[:, 0, 0], out.drawn_toward[:, 0], atol=1e-4, rtol=1e-4)
    assert len(set(out.drawn_toward[:, 0].tolist())) == 3
    gap = value(spec, out, "gap")
    assert gap.null == pytest.approx(float(out.drawn_toward.square().mean().sqrt()))
    other = run(tiny_model("llama"), draws=3, seed=1)[1]
    assert not torch.equal(other.drawn_toward, out.drawn_toward)
    assert torch.equal(other.cells, out.cells)


# -- refusals


def test_what_cannot_be_is_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(NoteError, match="no head L7H1") as error:
        run(model, head="L7H1")
    assert error.value.field == "head"
    with pytest.raises(NoteError, match="no `resid_mid`"):
        run(tiny_model("gpt_neox"), site="resid_mid")
    with pytest.raises(NoteError, match="do not lie token on token"):
        run(model, corrupt="The dog saw the mat, and it was so")
    blind = tiny_model("llama")
    with torch.no_grad():
        blind.net.model.embed_tokens.weight.zero_()
    with pytest.raises(NoteError, match="nothing that a patch could move") as error:
        run(blind)
    assert error.value.field == "answer"
    with pytest.raises(ValidationError):
        Spec(site="logits")


def test_more_work_is_said_to_take_longer() -> None:
    shape = tiny_model("llama").shape
    one = needs(Spec(), shape)
    assert needs(Spec(draws=8), shape).seconds > one.seconds
    assert needs(Spec(clean="\n".join([CLEAN] * 8)), shape).seconds > one.seconds
    assert needs(Spec(clean="[[Capitals#Clean]]"), shape).bytes > one.bytes
    assert needs(Spec(weights="shuffled"), shape).bytes > one.bytes


# -- what is seen


def test_the_path_is_the_strongest_position_without_what_flickers() -> None:
    cells = np.zeros((20, 4))
    cells[:12, 1] = 1
    cells[5, 1], cells[5, 2] = 0.2, 0.3
    cells[12:14, 0] = 0.05
    cells[14:, 3] = 0.6
    assert [tuple(one) for one in path(cells)] == [(0, 11, 1), (14, 19, 3)]
    assert path(np.full((4, 3), 0.01)) == []


def test_it_moves_on_where_it_stays_moved() -> None:
    changed = torch.tensor([1.0, 0.9, 0.2, 0.5, 0.1])
    assert moves_on(changed, torch.tensor([0.0, 0.1, 0.3, 0.4, 0.8])) == 4
    assert moves_on(changed, torch.zeros(5)) == 5
    assert moves_on(changed, torch.ones(5) * 2) == 0


@pytest.mark.parametrize("site", ["resid_pre", "k"])
def test_figures_say_what_they_show(site) -> None:
    spec, out = run(tiny_model("llama"), **{**MORE, "site": site})
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)
        assert "2 pairs" in drawing.alt
    assert "·cat|·dog" in drawings["course"].alt
    assert out.strongest[0] in drawings["heads"].alt
    titles = [ax.get_title() for ax in drawings["heads"].figure.axes]
    assert ("k" in titles) == (site == "k")


# -- the model


@pytest.mark.model
def test_in_a_toy_where_and_what_are_two_things() -> None:
    """What came after the letter is in the values alone; whether it is that letter in the pattern alone."""
    model = load("toy/attn-only-2l")
    text = {"answer": ("p",), "foil": ("a",), "head": "L1H3"}
    spec, out = run(model, clean="kQ7xWm2pLr9vTz kQ7xWm2", corrupt="kQ7xWm2aLr9vTz kQ7xWm2", **text)
    assert value(spec, out, "head_values").value > 0.3
    assert abs(value(spec, out, "head_pattern").value) < 0.05
    spec, out = run(model, clean="kQ7xWm2pLr9vTz m2aLkQ kQ7xWm2", corrupt="kQ7xWm3pLr9vTz m2aLkQ kQ7xWm2", **text)
    assert value(spec, out, "head_pattern").value > 0.3
    assert abs(value(spec, out, "head_values").value) < 0.05
