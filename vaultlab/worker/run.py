"""One Ask from its fields to its Answer: look in the store, compute, measure, verify, draw."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from vaultlab import places
from vaultlab.errors import NoteError, RunError
from vaultlab.experiment import Bench, Experiment, Needs
from vaultlab.models.load import Model, Shape, content_of, free_memory, read_shape
from vaultlab.plots import sweep
from vaultlab.plots.style import render
from vaultlab.result import Answer, Ask, Check, Failure, Figure, Plan, Point, Progress, Refusal, Result
from vaultlab.worker.asked import Asked, Folder, Refused, Run, asked, origin_of
from vaultlab.worker.course import (
    Course,
    Stopped,
    choose,
    device_broken,
    peak_memory,
    short_of_memory,
    watch_peak,
)
from vaultlab.worker.provenance import look, provenance
from vaultlab.worker.residents import Residents
from vaultlab.worker.store import Store, settled

_BATCH = 32
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Journey:
    """An Ask that runs: what it asked, how it goes, and under which look its figures are kept."""

    asked: Asked
    course: Course
    look: str


class Runner:
    """Answers Asks, one at a time. `registry`: name → Experiment, by default the folder of experiments."""

    def __init__(self, store: Store | None = None, registry: Mapping[str, Experiment] | None = None) -> None:
        self.store = store or Store(places.cache_dir() / "store")
        self.registry = Folder() if registry is None else registry
        self.residents = Residents()
        self.broken = False
        """The device cannot be used again by this process: answer, then end it."""
        self._current: tuple[str, str] | None = None

    def plan(self, ask: Ask) -> Plan:
        """What a run would be. Computes nothing, loads no model."""
        try:
            it = asked(ask, self.registry, content_of)
        except Refused as refused:
            return Plan(ask.id, problems=refused.refusals)
        except RunError as error:
            return Plan(ask.id, problems=(Refusal(ask.id, error.message, error.hint),))
        stored = tuple(self.store.has(run.key) for run in it.runs)
        wants = [need for run, there in zip(it.runs, stored, strict=True) if not there and (need := _needs(it, run))]
        return Plan(
            ask.id,
            it.key,
            tuple(run.key for run in it.runs),
            stored,
            summary=it.summary,
            needs_bytes=max((need.bytes for need in wants), default=None),
            needs_s=sum(need.seconds for need in wants) if wants else None,
        )

    def run(self, ask: Ask, send: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Answer:
        """The Answer to an Ask, whatever happens. `cancelled` is asked at every progress that the run makes."""
        self._current = None
        try:
            return self._answer(ask, send, cancelled)
        except Refused as refused:
            return refused.refusals[0]
        except NoteError as error:
            return Refusal(ask.id, error.message, error.hint, error.field, origin_of(ask, error.field))
        except _Remembered as remembered:
            return replace(remembered.failure, id=ask.id)
        except RunError as error:
            return Failure(ask.id, "environment", error.message, error.hint)
        except Stopped as stopped:
            return _stopped(ask, stopped)
        except Exception as error:  # the one Ask must not take the worker, and all that waits, with it
            _log.exception("%s failed", ask.experiment)
            return self._failure(ask, error)

    def _answer(self, ask: Ask, send: Callable[[Progress], None], cancelled: Callable[[], bool]) -> Result:
        it = asked(ask, self.registry, content_of)
        journey = _Journey(it, Course(ask, choose(ask.device), send, cancelled), look(it.experiment))
        results: dict[str, Result] = {}
        missing: list[Run] = []
        for run in {run.key: run for run in it.runs}.values():
            kept = None if ask.force else self._kept(journey, run)
            if kept is None:
                missing.append(run)
            else:
                results[run.key] = kept
        self._check_limits(journey, missing)
        for run, result in self._computed(journey, missing):
            results[run.key] = result
        if not ask.points:
            return replace(results[it.key], id=ask.id, summary=it.summary)
        return _swept(journey, [results[run.key] for run in it.runs])

    def _kept(self, journey: _Journey, run: Run) -> Result | None:
        """What the store has of a run, drawn anew where only the tensors are left. Raises what it always fails with."""
        self._current = (run.key, journey.look)
        views = [journey.look, f"{journey.look}-numbers"] if run.point else [journey.look]
        for view in views:
            kept = self.store.view(run.key, view)
            if isinstance(kept, Failure):
                raise _Remembered(kept)
            if kept is not None:
                return replace(kept, cached=True)
        out = self.store.out(run.key, journey.asked.experiment.Out)
        return None if out is None else replace(self._seen(journey, run, *out), cached=True)

    def _computed(self, journey: _Journey, missing: Sequence[Run]) -> Iterator[tuple[Run, Result]]:
        """Compute what is missing; where the memory runs out, what is still missing once more with half the batch."""
        todo = list(missing)
        for batch in (_BATCH, _BATCH // 2):
            try:
                for out, facts in self._outs(journey, list(todo), batch):
                    run = todo.pop(0)
                    yield run, self._finished(journey, run, out, facts)
                return
            except (MemoryError, RuntimeError) as error:
                if not short_of_memory(error):
                    raise
                _log.warning("out of memory with batches of %d: %s", batch, error)
            self.residents.evict()  # not in the except: there the error still holds the tensors of the run
        raise _no_memory(journey.course)

    def _outs(self, journey: _Journey, runs: list[Run], batch: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        course, experiment = journey.course, journey.asked.experiment
        used: list[Model] = []

        def model(name: str) -> Model:
            course.report(f"loading {name}", 0, 1)
            used.append(self.residents.get(name, course.device, lambda doing: course.report(doing, 0, 1)))
            return used[-1]

        bench = Bench(course.device, torch.float32, model, batch=batch, report=course.report)
        watch_peak(course.device)
        for out, begun in self._each(journey, experiment, runs, bench):
            facts = {
                "seconds": round(course.elapsed_s - begun, 3),
                "peak_memory_bytes": peak_memory(course.device),
                "dtype": str(used[-1].dtype if used else bench.dtype).removeprefix("torch."),
                **({"batch": batch} if used else {}),
            }
            yield settled(out), facts

    def _each(
        self, journey: _Journey, experiment: Experiment, runs: list[Run], bench: Bench
    ) -> Iterator[tuple[Any, float]]:
        """The Out of each run with the moment in the course at which its share of the work began."""
        course = journey.course
        if experiment.together is not None and len(runs) > 1 and not any(run.texts for run in runs):
            self._current = None  # a failure of all is not remembered as that of one
            begun = course.elapsed_s
            for out in experiment.together([run.spec for run in runs], bench):
                yield out, begun
                begun = course.elapsed_s
            return
        for done, run in enumerate(runs):
            course.prefix = f"run {done + 1} of {len(runs)}: " if len(runs) > 1 else ""
            self._current = (run.key, journey.look)
            begun = course.elapsed_s
            course.report("starting", 0, 1)
            yield experiment.compute(run.spec, replace(bench, texts=run.texts)), begun

    def _finished(self, journey: _Journey, run: Run, out: Any, facts: Mapping[str, Any]) -> Result:
        written = {**provenance(journey.course.device, run), **facts}
        try:
            self.store.put_out(run.key, out, written)
        except RunError as error:
            _log.warning("%s", error)
            written["not_kept"] = str(error)
        return self._seen(journey, run, out, written)

    def _seen(self, journey: _Journey, run: Run, out: Any, written: Mapping[str, Any]) -> Result:
        """Measure, verify and draw what was computed; of a sweep's point only the numbers are wanted."""
        experiment, spec = journey.asked.experiment, run.spec
        journey.course.report("measuring", 0, 1)
        metrics, checks = tuple(experiment.measure(spec, out)), tuple(experiment.verify(spec, out))
        figures: dict[str, Figure] = {}
        data: dict[str, Any] = {}
        view = f"{journey.look}-numbers"
        if not run.point:
            journey.course.report("drawing", 0, 1)
            figures = {name: render(drawing) for name, drawing in experiment.draw(spec, out).items()}
            data = json.loads(json.dumps(experiment.data(spec, out))) if experiment.data else {}
            view = journey.look
        result = Result("", run.key, False, metrics, checks, figures, data=data, provenance=written)
        self._keep(run.key, view, result)
        return result

    def _keep(self, key: str, look: str, view: Result | Failure) -> None:
        try:
            self.store.put_view(key, look, view)
        except RunError as error:
            _log.warning("%s", error)

    def _check_limits(self, journey: _Journey, missing: Sequence[Run]) -> None:
        """Refused where the estimate passes what the owner allows; RunError where it passes what is there."""
        limits, id = journey.course.ask.limits, journey.course.ask.id
        estimates = [need for run in missing if (need := _needs(journey.asked, run))]
        if not estimates:
            return
        most, seconds = max(need.bytes for need in estimates), sum(need.seconds for need in estimates)
        free = free_memory(journey.course.device)
        smaller = "Take smaller numbers in the block, or a smaller model."
        if limits.memory_bytes and most > limits.memory_bytes:
            took = f"It would take about {_gb(most)} of memory; a run may take {_gb(limits.memory_bytes)} here."
            raise Refused(Refusal(id, took, f"{smaller} The owner of the machine sets the limit."))
        if seconds > 2 * limits.time_s:  # an estimate may be off by a factor of two
            took = f"It would take about {_time(seconds)}; a run may take {_time(limits.time_s)} here."
            raise Refused(
                Refusal(id, took, "Take smaller numbers in the block. The owner of the machine sets the limit.")
            )
        if most > free:
            there = f"It would take about {_gb(most)} of memory; {_gb(free)} are free on {journey.course.device}."
            raise RunError(there, f"{smaller} Closing other programs may help too.")

    def _failure(self, ask: Ask, error: Exception) -> Failure:
        """A failure of the machine may go away; any other would come again, so it is remembered under the run's key."""
        if isinstance(error, OSError) or short_of_memory(error):
            hint = "This machine's log has the details: `vaultlab doctor` says where."
            return Failure(ask.id, "environment", f"The machine could not do it: {error}.", hint)
        if device_broken(error):
            self.broken = True
            hint = "The worker starts anew; run the block again, or take another device: `--device cpu`."
            return Failure(ask.id, "environment", f"The device {ask.device or ''} broke off the run.", hint)
        said = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        failure = Failure(
            ask.id,
            "deterministic",
            f"The experiment `{ask.experiment}` broke with these values ({said}).",
            "Other values may work. It is a fault of the experiment: please report it with this block.",
        )
        if self._current is not None:
            self._keep(*self._current, failure)
        return failure


class _Remembered(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _needs(it: Asked, run: Run) -> Needs | None:
    if it.experiment.needs is None:
        return None
    shapes = [_shape(getattr(run.spec, field), sha256) for field, sha256 in run.models.items()]
    return it.experiment.needs(run.spec, shapes[0] if shapes else None)


@cache  # a sweep asks for each of its points, and transformers takes a while to read a config
def _shape(name: str, sha256: str) -> Shape:
    return read_shape(name)


def _swept(journey: _Journey, results: Sequence[Result]) -> Result:
    """The points' numbers side by side, each identity where it was at its worst, a line plot a headline metric."""
    it, course = journey.asked, journey.course
    points = tuple(
        Point(
            {name: getattr(run.spec, name) for name in run.point}, run.key, result.cached, result.metrics, result.checks
        )
        for run, result in zip(it.runs, results, strict=True)
    )
    course.prefix = ""
    course.report("drawing", 0, 1)
    measured = {metric.name for point in points for metric in point.metrics}
    shown = [q.name for q in it.experiment.metrics if q.headline and q.name in measured]
    figures = {name: render(sweep.lines(name, points)) for name in shown}
    latest = max((result.provenance for result in results), key=lambda facts: str(facts["computed"]))
    facts = {**latest, "seconds": round(sum(result.provenance["seconds"] for result in results), 3)}
    facts["models"] = {name: it for result in results for name, it in result.provenance["models"].items()}
    facts["peak_memory_bytes"] = max(result.provenance["peak_memory_bytes"] for result in results)
    return Result(
        course.ask.id,
        it.key,
        all(point.cached for point in points),
        (),
        _worst(check for point in points for check in point.checks),
        figures,
        it.summary,
        provenance=facts,
        points=points,
    )


def _worst(checks: Iterable[Check]) -> tuple[Check, ...]:
    worst: dict[str, Check] = {}
    for check in checks:
        worst[check.name] = max(worst.get(check.name, check), check, key=_strain)
    return tuple(worst.values())


def _strain(check: Check) -> float:
    """How much of its limit a check has used up; a NaN more than any number."""
    if not check.limit or math.isnan(check.residual):
        return 0.0 if check.ok else math.inf
    return check.residual / check.limit


def _stopped(ask: Ask, stopped: Stopped) -> Failure:
    if stopped.why == "cancelled":
        return Failure(ask.id, "cancelled", "The run was cancelled.", "Run the block again to go on with it.")
    return Failure(
        ask.id,
        "environment",
        f"The run was stopped after {_time(ask.limits.time_s)}, which is how long a run may take on this machine.",
        "Take smaller numbers in the block. The owner of the machine sets the limit.",
    )


def _no_memory(course: Course) -> RunError:
    return RunError(
        f"The memory of {course.device} was not enough: the run had taken {_gb(peak_memory(course.device))}, "
        f"and with half the batch {_gb(free_memory(course.device))} were free and still too little.",
        "Take smaller numbers in the block, a smaller model, or another device: `--device cpu`.",
    )


def _gb(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.2g} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"
