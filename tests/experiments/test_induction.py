"""Induction: what is cut is cut, chosen on one batch and judged on another, against draws that match it."""

import math
import re
import weakref
from collections import Counter
from dataclasses import replace

import pytest
import torch

from tests.tiny import FAMILIES, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench
from vaultlab.experiments import induction
from vaultlab.experiments.induction import EXPERIMENT, INDUCTION, Spec, compute, draw, measure, needs, verify
from vaultlab.models.family import Shape, sub
from vaultlab.models.induction import repeated
from vaultlab.models.trace import Site, trace
from vaultlab.plots.style import render

SMALL = {"period": 10, "texts": 3, "cut": 2}
WIDE = {"num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 4}
"""Heads enough for draws of their own."""


def bench(model, batch=32):
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, batch=batch)


def run(model, batch=32, **fields):
    spec = Spec(model="tiny", **{**SMALL, **fields})
    return spec, compute(spec, bench(model, batch))


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


def texts(model, spec, name):
    return repeated(model, spec.texts, spec.period, bench(model).generator("induction", spec.seed, name))


@torch.no_grad()
def loss_with_hooks(model, ids, instead):
    """The loss of every token by torch's own hooks: `instead` is (layer, head) → what its z is from token 1 on."""
    hooks, width = [], model.shape.d_head
    for (layer, head), put in instead.items():

        def change(_module, args, head=head, put=put):
            z = args[0].clone()
            z[:, 1:, head * width : (head + 1) * width] = put
            return (z, *args[1:])

        module = sub(model.family.block(model.net, layer), model.family.attn_out)
        hooks.append(module.register_forward_pre_hook(change))
    logits = model.net(ids).logits.double()
    for hook in hooks:
        hook.remove()
    return torch.nn.functional.cross_entropy(logits[:, :-1].mT, ids[:, 1:], reduction="none")


@pytest.mark.parametrize(
    ("family", "ablation"),
    [("llama", "mean"), ("gpt2", "mean"), ("gpt_neox", "mean"), ("qwen3", "zero"), ("llama", "resample")],
)
def test_cutting_is_what_a_plain_hook_does(family, ablation):
    model = tiny_model(family)
    spec, out = run(model, ablation=ablation)
    judge, other = texts(model, spec, "judge"), texts(model, spec, "choose")
    assert torch.equal(out.ids, judge.ids)
    torch.testing.assert_close(out.nats.double(), loss_with_hooks(model, judge.ids, {}), atol=1e-4, rtol=1e-4)
    for which in (0, 1):
        heads = [tuple(int(n) for n in name[1:].split("H")) for name in out.cuts[which]]
        z = {layer: trace(model, other.ids, [Site("z", layer)])[Site("z", layer)][:, 1:] for layer, _ in heads}
        instead = {
            (layer, head): {
                "zero": torch.tensor(0.0),
                "mean": z[layer][:, :, head].mean((0, 1)),
                "resample": z[layer][:, :, head],
            }[ablation]
            for layer, head in heads
        }
        expected = loss_with_hooks(model, judge.ids, instead)
        torch.testing.assert_close(out.cut[which].double(), expected, atol=1e-4, rtol=1e-4)
        assert (out.cut[which] - out.nats).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in FAMILIES), ("llama", torch.bfloat16), ("gpt2", torch.float16)],
)
def test_checks_hold_in_every_family_and_dtype(family, dtype):
    spec, out = run(tiny_model(family, dtype=dtype))
    assert [check.name for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]


@pytest.fixture(scope="module")
def ran():
    return run(tiny_model("llama", **WIDE))


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [0.5, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken):
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


def test_a_text_that_does_not_repeat_fails_its_check(ran):
    spec, out = ran
    ids = out.ids.clone()
    ids[0, -1] = ids[0, -2]
    assert [c.name for c in verify(spec, out._replace(ids=ids)) if not c.ok] == [
        "the texts repeat, and no token is twice in a stretch"
    ]


def test_draws_match_the_layers_leave_out_the_chosen_and_differ(ran):
    spec, out = ran
    chosen, *others = out.cuts
    assert len(others) == len(set(others)) == spec.draws
    for drawn in others:
        assert Counter(head.split("H")[0] for head in drawn) == Counter(head.split("H")[0] for head in chosen)
        assert len(set(drawn)) == len(drawn)
        assert not set(drawn) & set(chosen)


def test_where_there_are_few_others_all_are_taken():
    _, out = run(tiny_model("gpt2"), cut=1)
    layer, head = out.cuts[0][0][1:].split("H")
    assert sorted(out.cuts[1:]) == [(f"L{layer}H{other}",) for other in range(4) if other != int(head)]


def test_heads_are_chosen_on_one_batch_and_judged_on_another(ran):
    spec, out = ran
    score = out.chosen_on[INDUCTION].mean(0).flatten()
    best = score.argsort(descending=True)[:2].tolist()
    assert out.cuts[0] == tuple(f"L{at // 12}H{at % 12}" for at in best)
    own = out.scores[INDUCTION].mean(0).flatten()
    assert value(spec, out, "best_induction").value == pytest.approx(float(own[best[0]]))
    assert not torch.equal(out.scores, out.chosen_on)
    other = out.scores.flip(-1)
    flattered = out._replace(scores=other)  # what is judged chooses nothing
    expected = float(other[INDUCTION].mean(0).flatten()[best[0]])
    assert value(spec, flattered, "best_induction").value == pytest.approx(expected)


def test_the_null_is_the_largest_of_all_draws(ran):
    spec, out = ran
    cut = torch.zeros_like(out.cut) + out.nats
    cut[0] += 3.0
    cut[5] += 0.5
    cut[9] -= 1.0
    planted = out._replace(cut=cut)
    cost = value(spec, planted, "ablation_cost")
    assert (cost.value, cost.null) == (pytest.approx(3.0, abs=1e-5), pytest.approx(0.5, abs=1e-5))
    assert cost.interval == pytest.approx((3.0, 3.0), abs=1e-5)
    assert value(spec, planted, "cost_by_null").value == pytest.approx(3.0, rel=1e-4)  # a fall counts as a change too


def test_batches_change_no_number_and_nothing_is_left_behind():
    model = tiny_model("qwen2")
    spec, whole = run(model, ablation="resample")
    _, parts = run(model, batch=3, ablation="resample")
    for name in ("chosen_on", "scores", "control", "nats", "cut"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name), atol=1e-4, rtol=1e-4)
    assert whole.cuts == parts.cuts
    assert [check.name for check in verify(spec, parts) if not check.ok] == []


def test_no_more_than_one_layers_patterns_are_held(monkeypatch):
    held, real = [], induction.scores

    def watched(A, start, period):
        assert all(ref() is None for ref in held)
        held.append(weakref.ref(A))
        return real(A, start, period)

    monkeypatch.setattr(induction, "scores", watched)
    run(tiny_model("llama"))
    assert len(held) == 3 * 3


def test_too_many_heads_are_refused():
    model = tiny_model("gpt2")
    with pytest.raises(NoteError, match="12 heads, and 12 are to be cut") as error:
        run(model, cut=12)
    assert error.value.field == "cut"
    with pytest.raises(NoteError, match="not enough to compare with") as error:
        run(model, cut=9)
    assert error.value.field == "cut"


def test_the_control_says_that_counting_back_is_no_induction():
    """A pattern that looks a fixed way back scores in texts that do not repeat as well."""
    model = tiny_model("gpt2")
    spec, out = run(model)
    counted = out._replace(scores=torch.ones_like(out.scores), control=torch.ones_like(out.control))
    heads = value(spec, counted, "induction_heads")
    assert heads.value == heads.null == 12
    assert value(spec, counted, "counting_back").value == 1
    assert value(spec, out, "counting_back").value < 0.3


def test_a_large_model_fits_where_its_weights_fit():
    """Eight billion weights in bfloat16: nothing that grows with layers × heads × tokens² or texts × vocabulary."""
    large = Shape(
        family="llama", layers=32, d_model=4096, heads=32, kv_heads=8, d_head=128, d_mlp=14336, d_vocab=128256,
        context=8192, gated=True, rotary=True, tied=False, flags=frozenset(), parameters=8 * 10**9, bytes=16 * 10**9,
    )  # fmt: skip
    need = needs(Spec(), large)
    assert large.bytes < need.bytes < large.bytes + 2 * 10**9
    assert needs(Spec(texts=16), large).bytes > need.bytes
    assert needs(Spec(draws=40), large).seconds > need.seconds
    assert needs(Spec(weights="shuffled"), large).bytes > 2 * large.bytes
    assert needs(Spec(), replace(large, d_vocab=2 * large.d_vocab)).bytes < need.bytes + 2 * 10**8


def test_figures_say_what_they_show():
    spec, out = run(tiny_model("llama", **WIDE), cut=7, ablation="zero")
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)
    assert out.cuts[0][0] in drawings["heads"].alt
    assert f"{out.nats.shape[0]} texts" in drawings["loss"].alt
