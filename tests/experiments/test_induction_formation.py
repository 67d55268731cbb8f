"""Induction formation: what is looked at is there, sudden is told from steady, and counting back shows."""

import math
import re

import pytest
import torch

from vaultlab.experiment import Bench
from vaultlab.experiments import induction_formation
from vaultlab.experiments.induction_formation import (
    EXPERIMENT,
    FIXED,
    INDUCTION,
    LENGTHS,
    PREVIOUS,
    START,
    Spec,
    _law_residual,
    compute,
    crossing,
    draw,
    drop,
    measure,
    needs,
    verify,
)
from vaultlab.models import toys
from vaultlab.models.attn_only import AttnOnlyConfig
from vaultlab.models.draws import draws
from vaultlab.models.toys import PERIODS, Course
from vaultlab.plots.style import render

CPU = torch.device("cpu")


def run(**fields):
    spec = Spec(**{"steps": 10, "batch": 4, **fields})
    bench = Bench(CPU, torch.float32, lambda name: None)  # it asks for no model
    return spec, compute(spec, bench)


def value(spec, out, name):
    return next(metric for metric in measure(spec, out) if metric.name == name)


@pytest.fixture(scope="module")
def ran():
    return run(seeds=2)


def test_checks_hold_and_everything_is_measured_and_drawn(ran):
    spec, out = ran
    assert [check.name for check in verify(spec, out) if not check.ok] == []
    assert [metric.name for metric in measure(spec, out)] == [quantity.name for quantity in EXPERIMENT.metrics]
    assert all(len(metric.seeds) == 2 for metric in measure(spec, out))
    drawings = draw(spec, out)
    assert set(drawings) == set(EXPERIMENT.figures)
    for drawing in drawings.values():
        assert render(drawing).content
        assert not re.search(r"nan|inf", drawing.alt)


@pytest.mark.parametrize("field", [name for name in EXPERIMENT.Out._fields if name.endswith("_residual")])
@pytest.mark.parametrize("broken", [2.0, math.nan])
def test_every_residual_can_fail_its_check(ran, field, broken):
    spec, out = ran
    damaged = out._replace(**{field: torch.full_like(getattr(out, field).float(), broken)})
    assert sum(not check.ok for check in verify(spec, damaged)) == 1


@torch.no_grad()
def test_what_is_seen_is_what_the_training_made(ran):
    """The same training without looks gives the same model; its losses and scores by plain loops are those shown."""
    spec, out = ran
    course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seed + 1)
    net = toys.train(AttnOnlyConfig(layers=2), course, draws, CPU, lambda done, total: None)
    texts = toys.repeats(128, 64, 64, draws("formation", 0, "own"))
    p = net(texts.ids).logits.double().softmax(-1)
    each = {True: [], False: []}
    for row in range(128):
        for at in range(63):
            each[bool(texts.known[row, at])].append(-math.log(p[row, at, texts.ids[row, at + 1]]))
    assert float(out.repeat_loss[1, -1]) == pytest.approx(sum(each[True]) / len(each[True]), rel=1e-5)
    assert float(out.first_loss[1, -1]) == pytest.approx(sum(each[False]) / len(each[False]), rel=1e-5)
    found = torch.zeros(2)
    for at, period in enumerate(LENGTHS):
        generator = draws("formation", 0, "scored", at)
        for _ in range(6):
            first = torch.randperm(64, generator=generator)[: START + period]
            ids = torch.cat([first, first[START:]])
            seen = []
            net(ids[None], touches={1: {"pattern": lambda A, seen=seen: seen.append(A) or A}})
            A = seen[0][0, 3]
            again = range(START + period, len(ids))
            found[0] += sum(A[i, i - 1] for i in range(START + 1, len(ids))) / (len(ids) - START - 1) / 30
            found[1] += sum(A[i, i - period + 1] for i in again) / period / 30
    torch.testing.assert_close(out.scores[1, -1, [PREVIOUS, INDUCTION], 1, 3], found, rtol=1e-4, atol=1e-6)


def test_looks_begin_before_the_first_step_and_end_with_the_last(ran, monkeypatch):
    _, out = ran
    assert out.at.tolist() == list(range(11))
    assert out.scores.shape == (2, 11, 3, 2, 4)
    assert out.repeat_loss[:, 0].tolist() == pytest.approx([math.log(64)] * 2, abs=0.5)
    assert not torch.equal(out.scores[0], out.scores[1])
    monkeypatch.setattr(induction_formation, "LOOKS", 4)
    _, longer = run(steps=20, layers=1)
    assert longer.at.tolist() == [0, 5, 10, 15, 20]


def test_a_sudden_fall_is_told_from_a_steady_one():
    at = torch.arange(0, 101.0)
    steady = drop(at, 4 - 0.04 * at)
    assert steady.share == pytest.approx(0.1)
    sudden = drop(at, torch.where(at < 60, 4.0, 0.1))
    assert sudden.share == pytest.approx(1)
    assert sudden.first < 60 <= sudden.last == sudden.first + 10
    assert sudden.middle == pytest.approx(59.5)
    late = drop(at, 4 - 3.9 * torch.sigmoid((at - 60) / 2))
    assert late.share == pytest.approx(math.tanh(1.25), abs=1e-3)
    assert (late.first, late.middle, late.last) == pytest.approx((55, 60, 65), abs=1e-3)
    slow = drop(at, 4 - 3.9 * torch.sigmoid((at - 60) / 20))
    assert slow.share < 0.2
    risen = drop(at, 4 + 0.01 * at)
    assert risen.share == 0


def test_a_level_is_crossed_between_two_looks():
    at = torch.tensor([0.0, 10.0, 20.0])
    assert crossing(at, torch.tensor([0.0, 0.4, 0.8]), 0.6) == pytest.approx(15)
    assert crossing(at, torch.tensor([0.7, 0.4, 0.8]), 0.6) == 0
    assert crossing(at, torch.tensor([0.0, 0.4, 0.5]), 0.6) == 20


def test_texts_that_do_not_repeat_as_they_say_are_found():
    texts = toys.repeats(40, 64, 64, draws("law"))
    assert int(_law_residual(texts, PERIODS)) == 0
    broken = texts.ids.clone()
    broken[3, -1] = (broken[3, -1] + 1) % 64
    assert int(_law_residual(texts._replace(ids=broken), PERIODS)) == 1
    assert int(_law_residual(texts, (FIXED, FIXED))) > 30


def test_fixed_texts_have_one_length_and_start_anywhere():
    texts = toys.repeats(40, 64, 64, draws("law"), (FIXED, FIXED))
    assert int(_law_residual(texts, (FIXED, FIXED))) == 0
    assert len(set(texts.known.int().argmax(1).tolist())) > 8


def test_the_metrics_are_those_of_the_best_seed_and_heads_are_chosen_elsewhere(ran):
    spec, out = ran
    loss = out.repeat_loss.clone()
    loss[1, -1], loss[0, -1] = 0.1, 0.4
    chosen = torch.zeros_like(out.chosen)
    chosen[:, INDUCTION, 1, 2] = 1
    scores = torch.rand(out.scores.shape, generator=draws("planted")) * 0.5
    scores[:, :, INDUCTION, 1, 2] = torch.linspace(0, 0.4, 11)
    scores[:, :, INDUCTION, 0, 0] = 0.9  # larger, and not what was chosen
    planted = out._replace(repeat_loss=loss, chosen=chosen, scores=scores, control=torch.full_like(out.control, 0.8))
    assert value(spec, planted, "repeat_loss").value == pytest.approx(0.1)
    assert value(spec, planted, "best_induction").value == pytest.approx(0.4)
    assert value(spec, planted, "induction_at").value == pytest.approx(5)
    assert value(spec, planted, "counting_back").value == pytest.approx(0.8)


def test_what_it_needs_grows_with_the_training():
    seconds = [needs(Spec(steps=steps), None).seconds for steps in (20, 1500, 3000)]
    assert seconds == sorted(seconds)
    assert seconds[0] < 10 < seconds[1]
    assert needs(Spec(seeds=3), None).seconds > 2 * needs(Spec(), None).seconds


@pytest.mark.long
def test_counting_back_looks_like_induction_by_its_loss_alone():
    """The wrong version: one length for all. One layer then has the loss of two, and nothing that they have."""
    spec, wrong = run(layers=1, periods="fixed", steps=500, batch=32)
    assert value(spec, wrong, "repeat_loss").value < 0.3
    assert value(spec, wrong, "varied_loss").value > math.log(64)
    spec, right = run(layers=1, steps=500, batch=32)
    assert value(spec, right, "repeat_loss").value > 2
    assert value(spec, right, "counting_back").value < value(spec, wrong, "counting_back").value
