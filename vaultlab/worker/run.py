"""One Ask from its fields to its Answer: look in the store, compute, measure, verify, draw."""

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from vaultlab import places
from vaultlab.errors import NoteError, RunError, VaultlabError
from vaultlab.experiment import Bench, Directions, Experiment
from vaultlab.models.entry import content_of
from vaultlab.models.model import Model
from vaultlab.result import Answer, Ask, Failure, Figure, Plan, Progress, Quote, Refusal, Result, Said
from vaultlab.worker.asked import Asked, Folder, Refused, Run, asked, origin_of
from vaultlab.worker.batches import costs, in_batches, takes
from vaultlab.worker.course import (
    Course,
    Stopped,
    choose,
    device_broken,
    device_name,
    peak_memory,
    short_of_memory,
    watch_peak,
)
from vaultlab.worker.limits import check_limits, check_points, estimates, in_words, no_memory
from vaultlab.worker.pace import Pace
from vaultlab.worker.passes import Reader, reader
from vaultlab.worker.press import Press
from vaultlab.worker.provenance import look, provenance
from vaultlab.worker.residents import Residents
from vaultlab.worker.shelf import Shelf
from vaultlab.worker.store import Store, settled
from vaultlab.worker.sweep import sweep_data, swept

_BATCH = 32
_FIGURES = 64
"""Points at most of a sweep whose interactive figure is kept."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Journey:
    """An Ask that runs: what it asked, how it goes, and under which look its figures are kept."""

    asked: Asked
    course: Course
    look: str


class Runner:
    """Answers Asks, one at a time. `registry`: name → Experiment, by default the folder of experiments. `press`: by
    default it prints here alone."""

    def __init__(
        self, store: Store | None = None, registry: Mapping[str, Experiment] | None = None, press: Press | None = None
    ) -> None:
        self.store = store or Store(places.cache_dir() / "store")
        self.registry = Folder() if registry is None else registry
        self.press = press or Press()
        self.residents = Residents()
        self.broken = False
        """The device cannot be used again by this process: answer, then end it."""
        self._current: tuple[str, str] | None = None
        self._piece = 1

    def plan(self, ask: Ask) -> Plan:
        """What a run would be. Computes nothing, loads no model."""
        try:
            it = asked(ask, self.registry, content_of)
            stored = tuple(self.store.has(run.key) for run in it.runs)
            missing = {run.key: run for run, there in zip(it.runs, stored, strict=True) if not there}.values()
            check_points(ask, len(missing))
        except Refused as refused:
            return Plan(ask.id, problems=refused.refusals)
        except RunError as error:
            return Plan(ask.id, problems=(Refusal(ask.id, error.message, error.hint),))
        runs = in_batches(it, tuple(missing))
        wants = estimates(it, runs)
        return Plan(
            ask.id,
            it.key,
            tuple(run.key for run in it.runs),
            stored,
            summary=it.summary,
            needs_bytes=max((need.bytes for need in wants), default=None),
            needs_s=takes(costs(it, runs, wants)) if wants else None,
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
        missing = in_batches(it, missing)
        if missing and ask.figures:
            self.press.warm()
        for upstream in {one.key: one for run in missing for one in run.given.values()}.values():
            self._build(upstream, journey.course)
        check_limits(it, journey.course, missing, self.residents)
        if missing and it.experiment.reads:
            self.residents.passes.expect([*self._readers(it, missing), *self._readers_beside(ask)])
        for run, result in self._computed(journey, missing):
            results[run.key] = result
        if not ask.points:
            return replace(results[it.key], id=ask.id, summary=it.summary)
        if ask.figures:
            self._keep_data(journey)
        return swept(it, journey.course, [results[run.key] for run in it.runs], self.press)

    def _build(self, it: Asked, course: Course) -> None:
        """Have the result in the store on which another one is to build."""
        (run,) = it.runs
        if self.store.out(run.key, it.experiment.Out) is not None:
            return
        for upstream in run.given.values():
            self._build(upstream, course)
        check_limits(it, course, [run], self.residents)
        for _ in self._computed(_Journey(it, course, look(it.experiment)), [run]):
            pass

    def _directions(self, it: Asked) -> Directions:
        """What a result gives to those that build on it. RunError where there was no room to keep it."""
        (run,) = it.runs
        kept, give = self.store.out(run.key, it.experiment.Out), it.experiment.directions
        if kept is None or give is None:
            raise RunError("The result that this one builds on could not be kept.", "Make room on the disk.")
        return give(run.spec, kept[0])

    def _readers(self, it: Asked, runs: Iterable[Run]) -> list[Reader]:
        return [one for one in (reader(it, run) for run in runs) if one is not None]

    def _readers_beside(self, ask: Ask) -> Iterator[Reader]:
        """The runs that wait for the same text and are not stored. What is wrong with one, it says at its own turn."""
        for other in ask.beside:
            with suppress(Refused, VaultlabError):
                it = asked(other, self.registry, content_of)
                yield from self._readers(it, (run for run in it.runs if other.force or not self.store.has(run.key)))

    def _keep_data(self, journey: _Journey) -> None:
        """What an interactive figure of a sweep is drawn from: one figure for each value of the swept field."""
        it = journey.asked
        if it.experiment.data is None or len(it.runs) > _FIGURES or self.store.data(it.key):
            return
        outs = [self.store.out(run.key, it.experiment.Out) for run in it.runs]
        data = sweep_data(it, [out for out, _ in filter(None, outs)])
        if data:
            self._keep(it.key, journey.look, Result("", it.key, False, (), (), {}, data=data))

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
        """Compute what is missing; where the memory runs out, what is still missing once more with half the batch.

        Where something was read along for others, first once more without: no result depends on who waits.
        """
        todo, batch = list(missing), _BATCH
        while batch >= _BATCH // 2:
            try:
                for out, facts in self._outs(journey, list(todo), batch):
                    run = todo.pop(0)
                    yield run, self._finished(journey, run, out, facts)
                return
            except (MemoryError, RuntimeError) as error:
                if not short_of_memory(error):
                    raise
                _log.warning("out of memory with batches of %d: %s", batch, error)
            # not in the except: there the error still holds the tensors of the run
            batch //= 1 if self.residents.passes.alone() else 2
            self.residents.evict()
        raise no_memory(journey.course, estimates(journey.asked, todo))

    def _outs(self, journey: _Journey, runs: list[Run], batch: int) -> Iterator[tuple[Any, dict[str, Any]]]:
        course, experiment = journey.course, journey.asked.experiment
        used: list[Model] = []

        def model(name: str) -> Model:
            course.report(f"loading {name}", 0, 1)
            used.append(self.residents.get(name, course.device, lambda doing: course.report(doing, 0, 1)))
            return used[-1]

        shelf = Shelf(self.store, {"device": device_name(course.device), "batch": batch})
        bench = Bench(course.device, torch.float32, model, batch=batch, report=course.report, shared=shelf)
        watch_peak(course.device)
        for out, begun in self._each(journey, experiment, runs, bench):
            facts = {
                "seconds": round(course.elapsed_s - begun, 3),
                "peak_memory_bytes": peak_memory(course.device),
                "dtype": str(used[-1].dtype if used else bench.dtype).removeprefix("torch."),
                **({"batch": batch} if used else {}),
                **({"shared": dict(shelf.used)} if shelf.used else {}),
            }
            yield settled(out), facts

    def _each(
        self, journey: _Journey, experiment: Experiment, runs: list[Run], bench: Bench
    ) -> Iterator[tuple[Any, float]]:
        """The Out of each run with the moment in the course at which its share of the work began."""
        course = journey.course
        reads = any(run.texts or run.models or run.given for run in runs)
        together = None if len(runs) == 1 or reads else experiment.together
        pace = Pace(costs(journey.asked, runs, estimates(journey.asked, runs)), len(runs))
        most = 1 if together is None else len(runs) if bench.batch == _BATCH else math.ceil(self._piece / 2)
        done = 0
        while done < len(runs):
            piece = runs[done : done + min(most, pace.piece())]
            self._piece = len(piece)
            which = f"{done + 1}–{done + len(piece)}" if len(piece) > 1 else f"{done + 1}"
            course.prefix = f"run {which} of {len(runs)}: " if len(piece) < len(runs) else ""
            course.rest_s = pace.rest_s(len(piece))
            begun = course.elapsed_s
            if together:
                self._current = None  # a failure of all is not remembered as that of one
                yield from _timed(course, together([run.spec for run in piece], bench))
            else:
                self._current = (piece[0].key, journey.look)
                course.report("starting", 0, 1)
                with self.residents.passes.turn(reader(journey.asked, piece[0])) as trace:
                    given = {name: self._directions(one) for name, one in piece[0].given.items()}
                    at = replace(bench, texts=piece[0].texts, given=given, trace=trace)
                    out = experiment.compute(piece[0].spec, at)
                yield out, begun
            pace.took(len(piece), course.elapsed_s - begun)
            done += len(piece)

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
        quotes: tuple[Quote, ...] = ()
        said: tuple[Said, ...] = ()
        view = f"{journey.look}-numbers"
        if not run.point:
            journey.course.report("drawing", 0, 1)
            figures = self.press.printed(experiment.draw(spec, out))
            data = json.loads(json.dumps(experiment.data(spec, out))) if experiment.data else {}
            quotes = tuple(experiment.quotes(spec, out)) if experiment.quotes else ()
            said = tuple(experiment.said(spec, out)) if experiment.said else ()
            view = journey.look
        more: dict[str, Any] = {"data": data, "provenance": written, "quotes": quotes, "said": said}
        result = Result("", run.key, False, metrics, checks, figures, **more)
        self._keep(run.key, view, result)
        return result

    def _keep(self, key: str, look: str, view: Result | Failure) -> None:
        try:
            self.store.put_view(key, look, view)
        except RunError as error:
            _log.warning("%s", error)

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


def _timed(course: Course, outs: Iterable[Any]) -> Iterator[tuple[Any, float]]:
    begun = course.elapsed_s
    for out in outs:
        yield out, begun
        begun = course.elapsed_s


class _Remembered(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _stopped(ask: Ask, stopped: Stopped) -> Failure:
    if stopped.why == "cancelled":
        return Failure(ask.id, "cancelled", "The run was cancelled.", "Run the block again to go on with it.")
    return Failure(
        ask.id,
        "environment",
        f"The run was stopped after {in_words(ask.limits.time_s)}, which is how long a run may take on this machine.",
        "Take smaller numbers in the block. The owner of the machine sets the limit.",
    )
