"""One Ask to its Answer, with a small real experiment and a store on disk."""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import counting
from vaultlab.experiment import Bench, Experiment
from vaultlab.result import Answer, Ask, Default, Failure, Limits, Progress, Refusal, Result, Text
from vaultlab.worker import pace
from vaultlab.worker.course import choose, short_of_memory
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    counting.computed.clear()
    return Runner(Store(tmp_path), {"counting": counting.EXPERIMENT})


def run(
    runner: Runner,
    fields: dict[str, Any] | None = None,
    *,
    cancelled: Callable[[], bool] = lambda: False,
    seen: list[Progress] | None = None,
    **more: Any,
) -> Answer:
    ask = Ask("id", "counting", fields or {}, device="cpu", **more)
    return runner.run(ask, (seen if seen is not None else []).append, cancelled)


def result(runner: Runner, fields: dict[str, Any] | None = None, **more: Any) -> Result:
    answer = run(runner, fields, **more)
    assert isinstance(answer, Result), answer
    return answer


def failure(runner: Runner, fields: dict[str, Any], **more: Any) -> Failure:
    answer = run(runner, fields, **more)
    assert isinstance(answer, Failure), answer
    return answer


def computed() -> int:
    return len(counting.computed)


def with_together() -> Experiment:
    return replace(counting.EXPERIMENT, together=counting.together)


# -- one run


def test_a_run_is_measured_checked_and_drawn(runner: Runner) -> None:
    found = result(runner, {"n": 3, "seed": 5})
    assert found.id == "id"
    assert [metric.name for metric in found.metrics] == ["mean", "numbers"]
    assert found.checks[0].ok
    assert found.figures["numbers"].content.startswith(b"<?xml")
    assert found.summary == "n=3 S=.5 seed=5"
    assert found.data == {"names": ["not", ["a", 1, None]]}
    facts = found.provenance
    assert facts["torch"] == torch.__version__
    assert facts["device"] == "cpu"
    assert facts["dtype"] == "float32"
    assert facts["seed"] == 5
    assert facts["texts"]["text"]["name"] == "text"
    assert facts["peak_memory_bytes"] > 1e7
    assert facts["seconds"] >= 0
    assert "batch" not in facts  # no model, so no batches


def test_the_second_time_it_is_there_with_the_same_bytes(runner: Runner) -> None:
    first, second = result(runner), result(runner)
    assert (first.cached, second.cached, computed()) == (False, True, 1)
    assert replace(second, cached=False) == first


def test_another_look_draws_from_the_tensors(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    first = result(runner)
    monkeypatch.setattr("vaultlab.worker.run.look", lambda experiment: "another")
    second = result(runner)
    assert computed() == 1
    assert second.cached
    assert replace(second, cached=False) == first


def test_force_computes_again(runner: Runner) -> None:
    result(runner)
    assert not result(runner, force=True).cached
    assert computed() == 2


def test_a_text_is_the_snapshot_of_its_field(runner: Runner) -> None:
    found = result(runner, {"text": "this note"}, texts={"text": Text("Note", "77", (("Note.md", "words"),))})
    assert found.data["names"][0] == "wor"
    assert found.provenance["texts"] == {"text": {"name": "Note", "sha256": "77"}}


def test_progress_says_what_and_how_far(runner: Runner) -> None:
    seen: list[Progress] = []
    result(runner, seen=seen)
    assert [step.phase for step in seen] == ["starting", "counting", "measuring", "drawing"]
    assert all(step.memory_bytes and step.memory_bytes > 1e7 for step in seen)


def test_progress_has_an_end_in_sight(runner: Runner) -> None:
    seen: list[Progress] = []
    times = itertools.count()
    run(runner, {"mode": "slow"}, seen=seen, cancelled=lambda: next(times) > 40)
    counted = [step for step in seen if step.phase == "counting" and step.done]
    assert 1 <= len(counted) <= 10  # ten a second at most
    assert all(step.eta_s is not None and step.eta_s > 10 for step in counted)


# -- what stops a run


def test_a_cancelled_run_says_so_and_leaves_nothing(runner: Runner) -> None:
    times = itertools.count()
    answer = failure(runner, {"mode": "slow"}, cancelled=lambda: next(times) > 5)
    assert answer.kind == "cancelled"
    assert list(runner.store.root.iterdir()) == []


def test_time_is_the_owner_s(runner: Runner) -> None:
    answer = failure(runner, {"mode": "slow"}, limits=Limits(time_s=0.2))
    assert answer.kind == "environment"
    assert "stopped after 0 s" in answer.message
    assert list(runner.store.root.iterdir()) == []


def test_more_points_than_the_limit_are_refused_unless_they_are_stored(runner: Runner) -> None:
    two = Limits(points=2)
    answer = run(runner, {}, points=POINTS, limits=two)
    assert isinstance(answer, Refusal)
    assert (answer.message, answer.field) == (
        "3 points of this sweep are to be run; more than 2 run only when asked for.",
        "sweep",
    )
    ask = Ask("id", "counting", {}, points=POINTS, limits=two)
    assert runner.plan(ask).problems == (answer,)
    result(runner, {}, points=POINTS[:1])
    assert len(result(runner, {}, points=POINTS, limits=two).points) == 3
    assert runner.plan(ask).problems == ()
    assert result(runner, {}, limits=Limits(points=0)).points == ()


@pytest.mark.parametrize(
    ("limits", "said"),
    [(Limits(memory_bytes=1000), "about 0.04 MB of memory"), (Limits(time_s=0.001), "about 0 s; a run may take 0 s")],
)
def test_what_would_pass_the_limits_is_refused_before_it_starts(runner: Runner, limits: Limits, said: str) -> None:
    answer = run(runner, {"n": 10_000}, limits=limits)
    assert isinstance(answer, Refusal)
    assert said in answer.message
    assert computed() == 0


def test_what_the_machine_has_not_fails(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultlab.worker.limits.free_memory", lambda device: 100)
    assert "are free on cpu" in failure(runner, {"n": 1000}).message
    assert computed() == 0


# -- what breaks


def test_a_deterministic_failure_is_remembered_under_its_key(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    first = failure(runner, {"mode": "broken"})
    assert first.kind == "deterministic"
    assert "ValueError: shapes do not fit" in first.message
    assert "Traceback" in caplog.text  # for the log, not for the note
    assert "Traceback" not in first.message
    assert failure(runner, {"mode": "broken"}) == first
    assert computed() == 1
    failure(runner, {"mode": "broken"}, force=True)
    assert computed() == 2


def test_another_look_tries_a_broken_one_again(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    failure(runner, {"mode": "broken"})
    monkeypatch.setattr("vaultlab.worker.run.look", lambda experiment: "mended")
    failure(runner, {"mode": "broken"})
    assert computed() == 2


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_what_the_machine_did_is_never_remembered(runner: Runner, mode: str) -> None:
    for _ in range(2):
        assert failure(runner, {"mode": mode}).kind == "environment"
    assert computed() == (4 if mode == "memory" else 2)


def test_short_of_memory_it_tries_once_more_with_half_the_batch(runner: Runner) -> None:
    assert not result(runner, {"mode": "half"}).cached
    assert [spec.mode for spec in counting.computed] == ["half", "half"]
    out, _ = runner.store.out(result(runner, {"mode": "half"}).key, counting.Out) or (None, None)
    assert out is not None
    assert out.batch == 16


def test_short_of_memory_says_what_to_change(runner: Runner) -> None:
    answer = failure(runner, {"mode": "memory"})
    assert "The memory of cpu was not enough" in answer.message
    assert "smaller" in answer.hint


def test_an_author_s_mistake_found_late_is_a_refusal(runner: Runner) -> None:
    answer = run(runner, {"mode": "refused"})
    assert answer == Refusal("id", "`seed` is not one token.", "Choose another.", "seed")
    answer = run(runner, {"mode": "refused"}, defaults=(Default("seed", 3, "the vault"),))
    assert isinstance(answer, Refusal)
    assert answer.origin == "the vault"


def test_a_failed_check_is_a_result(runner: Runner) -> None:
    assert not result(runner, {"mode": "wrong"}).checks[0].ok


def test_an_unknown_device(runner: Runner) -> None:
    for name in ("quantum", "cuda:99"):
        answer = runner.run(Ask("id", "counting", {}, device=name), lambda step: None, lambda: False)
        assert isinstance(answer, Failure)
        assert f"no device called `{name}`" in answer.message
    assert choose(None).type in ("cuda", "mps", "cpu")


def test_a_full_disk_costs_the_cache_not_the_result(
    runner: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = result(runner)
    assert found.metrics
    assert "No space left on device" in found.provenance["not_kept"]
    assert any(record.levelno == logging.WARNING for record in caplog.records)


# -- planning


def test_a_plan_computes_nothing(runner: Runner) -> None:
    ask = Ask("id", "counting", {"n": 9})
    plan = runner.plan(ask)
    assert computed() == 0
    found = result(runner, {"n": 9})
    assert (plan.key, plan.keys, plan.stored) == (found.key, (found.key,), (False,))
    assert (plan.summary, plan.needs_bytes) == (found.summary, 36)
    after = runner.plan(ask)
    assert (after.stored, after.needs_bytes) == ((True,), None)
    assert [problem.field for problem in runner.plan(Ask("id", "counting", {"m": 1, "n": 0})).problems] == ["n", "m"]


# -- sweeps

POINTS = ({"n": 2}, {"n": 3}, {"n": 5})


def test_a_sweep_has_its_points_numbers_and_a_plot_a_headline_metric(runner: Runner) -> None:
    found = result(runner, points=POINTS)
    assert [point.fields for point in found.points] == list(POINTS)
    assert [len(point.metrics[1].value) for point in found.points] == [2, 3, 5]  # type: ignore[arg-type]
    assert found.metrics == ()
    assert list(found.figures) == ["mean"]
    assert [check.name for check in found.checks] == ["sum over n is the mean"]
    assert found.summary == "n=2,3,5 S=.5"
    assert found.provenance["torch"] == torch.__version__
    assert runner.plan(Ask("id", "counting", {}, points=POINTS)).key == found.key


def test_a_sweep_keeps_what_an_interactive_figure_is_drawn_from(runner: Runner) -> None:
    found = result(runner, points=POINTS)
    data = runner.store.data(found.key)
    assert data is not None
    assert (data["kind"], data["field"], data["values"]) == ("sweep", "n", [2, 3, 5])
    assert data["each"] == [{"names": ["not", ["a", 1, None]]}] * 3
    grid = result(runner, points=({"n": 2, "rate": 0.1}, {"n": 3, "rate": 0.2}))
    assert runner.store.data(grid.key) is None  # two ways at once are no row of figures


def test_adding_a_value_computes_only_that(runner: Runner) -> None:
    result(runner, points=POINTS[:2])
    found = result(runner, points=POINTS)
    assert [spec.n for spec in counting.computed] == [2, 3, 5]
    assert [point.cached for point in found.points] == [True, True, False]
    assert result(runner, points=POINTS).cached


def test_a_sweep_and_a_block_of_one_of_its_points_share_the_tensors(runner: Runner) -> None:
    result(runner, points=POINTS)
    single = result(runner, {"n": 3})
    assert single.cached
    assert "numbers" in single.figures
    result(runner, points=POINTS)
    assert result(runner, {"n": 3}).figures == single.figures
    assert computed() == 3


@pytest.mark.parametrize("experiment", [counting.EXPERIMENT, with_together()], ids=["one by one", "together"])
def test_an_interrupted_sweep_goes_on_where_it_was(runner: Runner, experiment: Experiment) -> None:
    runner.registry = {"counting": experiment}
    answer = failure(runner, {"text": None}, points=POINTS, cancelled=lambda: computed() == 2)
    assert answer.kind == "cancelled"
    done = runner.plan(Ask("id", "counting", {"text": None}, points=POINTS)).stored
    assert done == (True, False, False)
    found = result(runner, {"text": None}, points=POINTS)
    assert [point.cached for point in found.points] == [True, False, False]


def test_what_trains_together_is_kept_piece_by_piece(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is there at its end only: one that is stopped costs that piece, not all of the sweep."""
    pieces: list[int] = []

    def trained(specs: list[counting.Spec], bench: Bench) -> list[counting.Out]:
        pieces.append(len(specs))
        bench.progress(1, 1, "training")
        return [counting.Out(torch.ones(spec.n), [], bench.batch) for spec in specs]

    monkeypatch.setattr(pace, "PIECE_S", 2.5e-5)  # a number is said to take a millionth of a second
    runner.registry = {"counting": replace(counting.EXPERIMENT, together=trained, data=None)}
    points = tuple({"n": 10, "seed": seed, "text": None} for seed in range(8))
    seen: list[Progress] = []
    answer = run(runner, {}, points=points, seen=seen, cancelled=lambda: len(pieces) == 3)
    assert isinstance(answer, Failure)
    assert pieces[0] == 2
    stored = sum(runner.plan(Ask("id", "counting", {}, points=points)).stored)
    assert stored == sum(pieces[:2])
    assert "run 1–2 of 8: training" in [step.phase for step in seen]
    before = len(pieces)
    assert len(result(runner, points=points).points) == 8
    assert sum(pieces[before:]) == 8 - stored


def test_together_gives_the_numbers_of_one_by_one(runner: Runner, tmp_path: Path) -> None:
    alone = result(runner, {"text": None}, points=POINTS)
    runner = Runner(Store(tmp_path / "other"), {"counting": with_together()})
    batched = result(runner, {"text": None}, points=POINTS)
    assert [point.metrics for point in batched.points] == [point.metrics for point in alone.points]


def test_a_point_that_is_there_twice_is_computed_once(runner: Runner) -> None:
    found = result(runner, points=({"n": 2}, {"n": 2}))
    assert len(found.points) == 2
    assert computed() == 1


def test_a_sweep_s_point_fails_for_all(runner: Runner) -> None:
    answer = failure(runner, {}, points=({"mode": "fine"}, {"mode": "broken"}))
    assert answer.kind == "deterministic"
    assert runner.plan(Ask("id", "counting", {"mode": "fine"})).stored == (True,)


def test_short_of_memory_a_sweep_keeps_what_it_has(runner: Runner) -> None:
    assert failure(runner, {}, points=({"n": 2}, {"mode": "memory"})).kind == "environment"
    assert [spec.n for spec in counting.computed] == [2, 4, 4]


def test_short_of_memory_points_that_go_together_go_by_halves(runner: Runner) -> None:
    sizes: list[int] = []

    def narrow(specs: list[counting.Spec], bench: Bench) -> Iterator[counting.Out]:
        sizes.append(len(specs))
        if len(specs) > 2:
            raise MemoryError
        yield from counting.together(specs, bench)

    runner.registry = {"counting": replace(counting.EXPERIMENT, together=narrow)}
    assert [point.fields["n"] for point in result(runner, {"text": None}, points=POINTS).points] == [2, 3, 5]
    assert sizes == [3, 2, 1]


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_way_in_which_memory_runs_out_is_known(error: Exception, short: bool) -> None:
    assert short_of_memory(error) is short
