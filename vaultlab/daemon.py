"""For as long as Obsidian is open: what its author changes is looked at, queued, run and written.

One thread looks and writes what needs no worker (`tick`), another has one block after another run (`work`). Between
them stands the queue, which outlives both.
"""

import hashlib
import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vaultlab.errors import NoteError, RunError, VaultError, VaultlabError
from vaultlab.jobs import Ended, Job, Jobs, Order, Priority
from vaultlab.pipeline import BEHIND, QUIET_S, AskWorker, Outcome, Pipeline, Selection
from vaultlab.result import Answer, Ask, Failure, Progress, Result
from vaultlab.survey import Item, Look, Survey
from vaultlab.vault import files, presence
from vaultlab.vault.changes import PARSE_S, RUN_S, Changes
from vaultlab.vault.journal import lock
from vaultlab.vault.presence import Request
from vaultlab.vault.watch import Watch

logger = logging.getLogger("vaultlab")

MANY = 50
"""More new runs than this at once are not begun before somebody has said so."""
YIELD_S = 10.0
"""What is asked by hand or being edited has begun within this: a longer run makes way, and goes on afterwards."""
STOP_S = 2.0
"""What a run may take to stop."""
LOOK_S = 600.0
"""So often the whole vault is looked at though nothing seems to have changed."""

_HOLDER = "daemon"
_LEASE_S = 60.0
_RETRY_S = 5.0
_DEBTS_S = 1.0
_WRITE_WAIT_S = 60.0
_BUSY_S, _IDLE_S, _PACE_S = 0.1, 0.5, 0.02
_SLEPT_S = 5.0
_TIMES = 20  # so many times as long as a look takes waits what we have written ourselves
_BY_NAME = "asked for by hand"
_BY_RENDER = "asked for by `render`"
_WANTED = Selection()


@dataclass(frozen=True)
class Way:
    """The way to a worker: a Lab's `ask` and `cancel`; `deaths` counts how often an Ask has taken the worker down,
    `stored` says of each whether all its results are in the store already.
    """

    ask: AskWorker
    cancel: Callable[[str], None] = lambda id: None
    deaths: Callable[[Ask], int] = lambda ask: 0
    stored: Callable[[Sequence[Ask]], Sequence[bool]] = lambda asks: [False] * len(asks)


@dataclass(frozen=True, slots=True)
class Status:
    """What the daemon is at; what is queued, the queue says.

    `scans`: why the vault is scanned, in a sentence, where events do not tell what changes. `held`: how many blocks
    wait for somebody to say that they may run.
    """

    running: Job | None = None
    progress: Progress | None = None
    scans: str = ""
    held: int = 0


Tell = Callable[[Outcome | str], None]
"""Is told what became of each block, and sentences about everything else."""


class Daemon:
    """The daemon of the vault that `look` looks at. `now` is the clock, in seconds since the epoch."""

    def __init__(
        self, root: Path, look: Look, way: Way, jobs: Jobs, tell: Tell, now: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self.way = way
        self.jobs = jobs
        self.tell = tell
        self.now = now
        self.changes = Changes(now)
        self.survey: Survey | None = None
        self.pipeline = Pipeline(look, self._asked, self._progressed, now=now, patient=False, alone=self._alone)
        self.status = Status()
        self._lock = threading.RLock()
        self._work = threading.Event()
        self._ended = threading.Event()
        self._seen: set[tuple[str, str, str]] = set()
        self._stale: dict[tuple[str, str, str], list[Item]] = {}
        self._held: dict[tuple[str, str, str], Item] = {}
        self._named: set[str] = set()
        self._edited: dict[str, None] = {}
        self._changed: list[str] = []
        self._again: set[tuple[str, str, str]] = set()
        self._problems_due = self._writing = self._pressing = False
        self._next_look = self._rested = self._next_debts = 0.0
        self._told_debts: set[tuple[str, str]] = set()
        self._told_large: set[tuple[str, str, str]] = set()
        self.restraint = ""
        """Why only what is asked for by hand is run and written, in a sentence; empty where all that is new is."""
        self.noticed: Callable[[], None] = lambda: None
        """Is called when something may have happened that others want to know."""
        self._complaint = ""
        self._ends_at = math.inf
        if jobs.said:
            tell(jobs.said)
        jobs.recover(lambda holder: False)  # whoever held something died: there is one daemon a vault

    # -- for as long as it lasts

    def serve(self, watch: Watch) -> None:
        """Watch, look and run until `stop`. RunError where the vault cannot be watched."""
        watch.start()
        self._scanning(watch)
        worker = threading.Thread(target=self._work_on, daemon=True)
        worker.start()
        try:
            ticked = self.now()
            while not self._ended.is_set():
                due_s = self.changes.due_s(ticked, PARSE_S, RUN_S, QUIET_S)
                timeout_s = min(_BUSY_S if self._busy() else _IDLE_S, due_s)
                slept = self.now()
                self.changes.news.wait(timeout_s)
                self.changes.news.clear()
                if abs(self.now() - slept) > timeout_s + _SLEPT_S:
                    self._next_look = 0.0  # the machine was asleep, or its clock was set
                if self.survey and (self.now() >= self._next_look or watch.doubtful()) and not watch.sound():
                    self._scanning(watch)
                ticked = self.now()
                self._guarded(self.tick)
                if not worker.is_alive() and not self._ended.is_set():
                    raise RunError("The thread that runs blocks has ended: a fault of ours.", "Begin again; tell us.")
                time.sleep(_PACE_S)  # a storm of events is no reason for a storm of looks
        finally:
            self._ended.set()
            watch.stop()
            self._put_aside(worker)

    def _scanning(self, watch: Watch) -> None:
        if watch.scans:
            self.tell(watch.scans)
            self._set_status(scans=watch.scans)

    def stop(self) -> None:
        """End `serve`; what runs is stopped, and stays in the queue for the next time. Safe in a signal's handler."""
        self._ended.set()
        self.changes.news.set()
        self._work.set()

    def _busy(self) -> bool:
        return bool(self.changes.pending or self.status.running or self._todo() or self._problems_due)

    def _guarded(self, act: Callable[[], object]) -> bool:
        """Whether `act` says that there was something to do. What goes wrong is said once, and tried again."""
        try:
            done = bool(act())
            self._complaint = ""
            return done
        except (VaultlabError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                logger.warning("%s", error)
                self.tell(str(error))
            self._next_look = self.now() + _RETRY_S
            self._ended.wait(_BUSY_S)
            return False

    def _work_on(self) -> None:
        while not self._ended.is_set():
            self._work.clear()
            if not self._guarded(self.work):
                self._work.wait(_IDLE_S)

    def _put_aside(self, worker: threading.Thread) -> None:
        while worker.is_alive():
            with self._lock:
                running = self.status.running
                if running is not None:
                    self.jobs.requeue(running)
                    self.way.cancel(running.block)
            worker.join(_BUSY_S)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Around everything that is written: alone among our threads, and among the other programs at this vault."""
        with self._lock:
            if self._writing:
                yield
                return
            with lock(self.root, _WRITE_WAIT_S):
                if not self.root.is_dir():  # what is written would make one in its place
                    raise VaultError(f"There is no vault at {self.root}.", "It is waited for.")
                self._writing = True
                try:
                    yield
                finally:
                    self._writing = False

    # -- looking

    def tick(self) -> None:
        """Look at what has changed, queue what is to run, write what needs no worker."""
        with self._lock:
            for request in presence.requests(self.root):
                self._guarded(partial(self.ask_for, request))
            new = self.changes.take()
            self._changed += new
            self._pressing = self._pressing or not all(map(self._of_ours, new))
            soon = min(self._rested, self._next_look) if self._changed else self._next_look
            if self._pressing or self.now() >= soon:
                self._look()
            if self.restraint:
                self._hold_back()
            else:
                self._queue()
                self._write()
            self._pay()
            self._heed()
            if self.status.held != len(self._held):
                self._set_status(held=len(self._held))
        self.noticed()

    def _of_ours(self, path: str) -> bool:
        """Whether what changed there is ours: it stands in our folder, or is a note as we have left it."""
        if self.survey is not None and path.startswith(f"{self.survey.config.folder}/"):
            return True
        left = self.pipeline.left.get(self.root / path)
        try:
            now = files.look_again(self.root / path) if left is not None else None
        except VaultlabError:
            return False
        return now is not None and hashlib.sha256(now).hexdigest() == left

    def _look(self) -> None:
        began = self.now()
        self._next_look = began + LOOK_S
        self._pressing = False
        survey = self.survey = self.pipeline.look()
        self._rested = self.now() + _TIMES * (self.now() - began)
        changed, self._changed = self._changed, []
        for path in changed:
            if path in survey.scan.notes and not self._own(path):
                self._edited.pop(path, None)
                self._edited[path] = None  # the last one is being edited now
        waiting = {_key(item): item for item in survey.items if item.state != "fresh"}
        self._seen &= waiting.keys() - self._again
        self._again.clear()
        self._held = {key: waiting[key] for key in self._held if key in waiting}
        self._stale = {}
        for item in survey.items:
            if _WANTED.wants(item) and (item.run != "manual" or item.state == "error"):
                self._stale.setdefault(_key(item), []).append(item)
        self._problems_due = True
        self._tell_large(survey)
        self._forget_unasked(survey)
        self._demote()

    def _tell_large(self, survey: Survey) -> None:
        """Sweeps that do not run by themselves: each said once."""
        large = {_key(item): item for item in survey.items if item.state == "large"}
        for key in large.keys() - self._told_large:
            self.tell(f"{large[key].name} waits: {large[key].why}. To run it: vaultlab render --id {large[key].id}")
        self._told_large = set(large)

    def _own(self, path: str) -> bool:
        """Whether the note is as we have left it: known by its content, never by a time."""
        assert self.survey is not None
        note = self.survey.scan.notes.get(path)
        return note is not None and self.pipeline.left.get(self.root / path) == note.sha256

    def _forget_unasked(self, survey: Survey) -> None:
        """Jobs of blocks that are gone or ask again what is answered. A note that cannot be read now lost nothing."""
        here = {item.name: item for item in survey.items}
        for job in self.jobs.pending():
            if job.note in survey.problems or not self.changes.quiet(job.note):
                continue
            item = here.get(job.block)
            if item is None:
                self.jobs.supersede(job.vault, job.block, "Its block is no longer there.")
                _log("gone", job)
            elif item.state == "fresh" and item.lab_ask != job.lab_ask:
                self.jobs.supersede(job.vault, job.block, "The block asks again what is answered already.")
                _log("answered already", job)

    def _demote(self) -> None:
        """Only one note is being edited: what another one is still waiting for is a recent edit by now."""
        for job in self.jobs.pending():
            if job.state == "queued" and job.priority == Priority.EDITING and job.note != self._active:
                self.jobs.requeue(job, Priority.RECENT)

    @property
    def _active(self) -> str | None:
        return next(reversed(self._edited), None)

    # -- queueing

    def _todo(self) -> list[Item]:
        """What is neither queued, nor answered, nor held back."""
        todo = self._stale.keys() - self._seen - self._held.keys()
        return [item for key, items in self._stale.items() if key in todo for item in items] if todo else []

    def _queue(self) -> None:
        todo = [item for item in self._todo() if item.state != "error"]
        if len(todo) > MANY:
            asks = [item.ask for item in todo if item.ask]
            new = [item for item, stored in zip(todo, self.way.stored(asks), strict=True) if not stored]
            if len(new) > MANY:
                self._held |= {_key(item): item for item in new}
                self.tell(
                    f"{len(new)} blocks are new or changed, which may take a while, so they wait. "
                    f"To run them: vaultlab render {shlex.quote(str(self.root))}"
                )
        for item in todo:
            if _key(item) not in self._held and self._quiet(item.path, RUN_S):
                self._put(item, self._priority(item), item.why)

    def _hold_back(self) -> None:
        """What runs or was queued by itself waits for a time without restraint."""
        running = self.status.running
        if running is not None and running.priority != Priority.BY_HAND:
            self.jobs.requeue(running)
            self.way.cancel(running.block)
        for job in self.jobs.pending():
            if job.state == "queued" and job.priority != Priority.BY_HAND:
                self.jobs.cancel(job.id, self.restraint)
                self._seen = {one for one in self._seen if one[0] != job.block}

    def _quiet(self, path: str, seconds: float) -> bool:
        """Whether nobody has written the note for so long, as the events say and, where they came late, its file."""
        try:
            by_file = files.quiet(self.root / path, seconds, self.now())
        except VaultError:
            return False  # gone: the next look will say so
        return self.changes.quiet(path, seconds) and (by_file or self._own(path))

    def _priority(self, item: Item) -> Priority:
        if item.path == self._active:
            return Priority.EDITING
        return Priority.RECENT if item.path in self._edited else Priority.SWEEP

    def _put(self, item: Item, priority: Priority, why: str, *, force: bool = False) -> Job:
        assert item.ask is not None
        older = self.jobs.last(str(self.root), item.name)
        if older is not None and older.live:  # what was asked for by hand stays so, whatever is typed meanwhile
            force = force or older.forced
            priority = min(priority, Priority.BY_HAND) if older.priority == Priority.BY_HAND else priority
        self._seen.add(_key(item))
        self._held.pop(_key(item), None)
        ask = replace(item.ask, force=force)
        job = self.jobs.put(Order(str(self.root), item.name, item.path, ask, item.lab_ask, priority, origin=why))
        _log("queued", job, state=item.state, priority=job.priority.name.lower(), forced=force)
        if job.state == "quarantined":
            self.tell(f"{item.name} is not run again by itself: it has taken the worker down twice.")
        self._work.set()
        return job

    def ask_for(self, request: Request) -> None:
        """Run these blocks ahead of all but the note being edited. NoteError for one that is not there or is wrong."""
        with self._lock:
            self._look()
            assert self.survey is not None
            items = {item.id: item for item in self.survey.items if item.id}
            for id in request.ids:
                if id not in items:
                    raise NoteError(f"No block of this vault has the id `{id}`.")
            for item in map(items.__getitem__, request.ids):
                self._seen.discard(_key(item))
                if item.state == "error":
                    self._tell_outcome(self.pipeline.one(self.survey, item, _WANTED))
                    self._seen.add(_key(item))
                    continue
                if request.named:
                    self._named.add(item.name)
                    self.pipeline.wish(self.survey, item)
                why = _BY_NAME if request.named else _BY_RENDER
                self._put(item, Priority.BY_HAND, why, force=request.force)

    def cancel(self, id: str) -> bool:
        """Cancel the run of this block, queued or running; False where there is none."""
        with self._lock:
            job = self.jobs.last(str(self.root), id)
            if job is None or self.jobs.cancel(job.id, "It was cancelled.") is None:
                return False
            _log("cancelled", job)
            self.tell(f"{id} is cancelled.")
            self._heed()
            return True

    # -- what needs no worker

    def _write(self) -> None:
        survey = self.survey
        if survey is None:
            return
        for item in self._todo():
            if item.state == "error" and self._quiet(item.path, QUIET_S):
                self._seen.add(_key(item))
                self._tell_outcome(self.pipeline.one(survey, item, _WANTED))
        if self._problems_due and all(self.changes.quiet(path, QUIET_S) for path in self._told_about(survey)):
            self._problems_due = False
            self.pipeline.problems(survey)

    def _pay(self) -> None:
        """Put in the embeds that are owed, where that can be done now."""
        if self.survey is not None and self.now() >= self._next_debts:
            self._next_debts = self.now() + _DEBTS_S
            for outcome in self.pipeline.debts(self.survey):
                told = (outcome.item.name, outcome.problem)
                if outcome.problem and told not in self._told_debts:
                    self._told_debts.add(told)
                    self._tell_outcome(outcome)

    def _told_about(self, survey: Survey) -> set[str]:
        return {*survey.problems, *(item.path for item in survey.items if item.problems)}

    # -- running

    def work(self) -> bool:
        """Have the next block of the queue run, and write what came out; False where there is none."""
        with self._lock:
            job = self.jobs.take(_HOLDER, _LEASE_S)
            if job is None:
                return False
            self._set_status(running=job, progress=None)
            self._ends_at = math.inf
        _log("began", job, runs=job.runs)
        try:
            self._run(job)
        except (VaultlabError, OSError):
            self.jobs.requeue(job)  # nobody has looked at it yet
            raise
        finally:
            with self._lock:
                self._set_status(running=None, progress=None)
            self.changes.news.set()
        return True

    def _run(self, job: Job) -> None:
        by_name = job.block in self._named or job.origin == _BY_NAME
        survey = self.survey or self.pipeline.look()
        item = _item_of(survey, job.block)
        if item is None or item.lab_ask != job.lab_ask:  # the job may be younger than the last look
            survey = self.pipeline.look()
            item = _item_of(survey, job.block)
        # Whoever names a block means it as it stands now.
        if item is None or item.ask is None or (item.lab_ask != job.lab_ask and not by_name):
            self.jobs.finish(job, "cancelled", "The block is no longer as it was when it was queued.")
            _log("ended", job, state="cancelled")
            if item is not None:
                self._seen.discard(_key(item))
            return
        items = {one.name: one for one in survey.items}
        waiting = [one for one in self.jobs.pending(BEHIND) if one.state == "queued" and one.priority <= job.priority]
        behind = [items[one.block] for one in waiting if one.block in items]
        selection = Selection(id=item.id if by_name else None, force=job.forced)
        outcome = self.pipeline.one(survey, item, selection, behind=behind)
        self.pipeline.tried.clear()  # only a render, which ends, asks what it has tried
        answer = outcome.answer
        stopped = isinstance(answer, Failure) and answer.kind == "cancelled"
        now = self.jobs.get(job.id)
        if stopped and now is not None and now.state == "queued":
            _log("set aside", job, seconds=round(outcome.seconds, 3))
            return  # its turn comes again
        state: Ended = "cancelled" if stopped else "failed" if outcome.problem else "done"
        self.jobs.finish(job, state, outcome.problem)
        _log("ended", job, state=state, seconds=round(outcome.seconds, 3), **_how(outcome))
        self._named.discard(job.block)
        if not stopped:
            self._tell_outcome(outcome)
        with self._lock:
            answered = _key(outcome.item)  # where its note was in the end
            for one in (item, *(self.survey.items if self.survey else ())):
                if one.name == job.block and _key(one) != answered:
                    self._seen.discard(_key(one))  # its claims were edited meanwhile: the same run is judged anew

    def _asked(self, ask: Ask, progress: Callable[[Progress], None]) -> Answer:
        """Ask the worker. What takes it down is tried once more, then never again by itself."""
        before = self.way.deaths(ask)
        answer = self.way.ask(ask, progress)
        job = self.status.running
        if job is not None and isinstance(answer, Failure) and self.way.deaths(ask) > before:
            again = self.jobs.crashed(job, answer.message)
            _log("took the worker down", job)
            if again is not None and again.state == "queued":
                self.tell(f"{job.block} has taken the worker down; it is tried once more.")
                return Failure(ask.id, "cancelled", answer.message)
        return answer

    def _progressed(self, item: Item, progress: Progress) -> None:
        with self._lock:
            self._set_status(progress=progress)
            if progress.eta_s is not None:
                self._ends_at = self.now() + progress.eta_s

    def _heed(self) -> None:
        """Stop what nobody wants any more, and what keeps the note being edited waiting."""
        running = self.status.running
        if running is None:
            return
        # A job that has just ended is neither: a cancel by its block's name could meet the block's next run.
        unwanted = any(job.id == running.id for job in self.jobs.unwanted(_HOLDER))
        if unwanted or (self.jobs.renew(running) and self._in_the_way(running)):
            self.way.cancel(running.block)  # of no effect before it has begun: then the next tick does it

    def _in_the_way(self, running: Job) -> bool:
        first = self.jobs.first()
        urgency = running.priority
        if urgency == Priority.EDITING and running.note != self._active:
            urgency = Priority.RECENT
        if first is None or first.priority > Priority.BY_HAND or first.priority >= urgency:
            return False
        waits_since = max(first.put_at, running.began_at or 0.0)
        latest = waits_since + YIELD_S - STOP_S
        # It has half of that time to end, or to say that it will end in time; that it says so is no reason to wait on.
        if self.now() < (latest if self._ends_at <= latest else waits_since + YIELD_S / 2):
            return False
        _log("makes way", running, for_job=first.id, for_block=first.block)
        self.tell(f"{running.block} makes way for {first.block}, and goes on afterwards.")
        return self.jobs.requeue(running)

    # -- saying

    def _set_status(self, **now: object) -> None:
        self.status = replace(self.status, **now)  # type: ignore[arg-type]
        self.noticed()

    def _tell_outcome(self, outcome: Outcome) -> None:
        """Say it; and what may go well the next time is taken up again at the next look."""
        item = outcome.item
        if outcome.again:
            with self._lock:
                self._again.add(_key(item))
                self._next_look = min(self._next_look, self.now() + _RETRY_S)
        if item.state == "error":
            logger.info("wrong", extra={"of": {"block": item.name, "note": item.path, "line": outcome.line}})
        self.tell(outcome)


def _log(what: str, job: Job, **more: object) -> None:
    """Nothing that its author wrote is in it but names: the block's, the note's."""
    logger.info(what, extra={"of": {"job": job.id, "block": job.block, "note": job.note, **more}})


def _how(outcome: Outcome) -> dict[str, object]:
    """How a run ended. What a refusal says may quote the note; what the machine could not do does not."""
    answer = outcome.answer
    match answer:
        case Result():
            return {"stored": answer.cached, "verdict": outcome.verdict}
        case Failure(kind="environment"):
            return {"kind": "environment", "why": answer.message}
        case Failure():
            return {"kind": answer.kind}
    return {"kind": "refused"}


def _key(item: Item) -> tuple[str, str, str]:
    return (item.id or item.path, item.lab_ask, item.card)


def _item_of(survey: Survey, name: str) -> Item | None:
    return next((item for item in survey.items if item.name == name), None)
