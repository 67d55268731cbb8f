"""What the daemon does, as the events that a plugin follows: it is looked at again and again; what is new is told."""

import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from vaultlab import wire
from vaultlab.feed import Feed
from vaultlab.jobs import Job, Jobs
from vaultlab.notes.embed import ID
from vaultlab.pipeline import Outcome
from vaultlab.protocol import Edit, Happening, Problem
from vaultlab.result import Progress
from vaultlab.survey import State, Survey

FOLLOWED = 20
"""So many of those that are queued are followed, and what a plugin has asked for: places behind that say little."""

_EVERY_S = 0.25
_ENDS: dict[str, Happening] = {
    "done": "done",
    "failed": "failed",
    "quarantined": "failed",
    "cancelled": "cancelled",
    "superseded": "superseded",
}


class Chronicle:
    """Tells `feed` what becomes of every run, and which results no longer answer their block. From any thread."""

    def __init__(self, jobs: Jobs, feed: Feed, now: Callable[[], float] = time.monotonic) -> None:
        self._jobs = jobs
        self._feed = feed
        self._now = now
        self._lock = threading.Lock()
        self._told: dict[int, tuple[str, int]] = {}
        self._asked: set[int] = set()
        self._over: deque[int] = deque(maxlen=100)
        self._outcomes: dict[str, Outcome] = {}
        self._step: tuple[int | None, str, float] = (None, "", 0.0)
        self._states: dict[str, State] = {}

    def follow(self, job: Job) -> None:
        """Tell what becomes of this one, however far behind it stands."""
        with self._lock:
            self._asked.add(job.id)

    def outcome(self, outcome: Outcome) -> None:
        """What came out, which says more of a run that fails than the queue does."""
        if outcome.problem and outcome.item.state != "error":  # what cannot run has no run that could end
            with self._lock:
                self._outcomes[outcome.item.name] = outcome

    def edit(self, edit: Edit, block: str) -> None:
        """An edit that is to be made."""
        self._feed.tell("edit", path=edit.path, id=block, edit=edit)

    def runs(self, running: Job | None) -> None:
        """Look at the queue."""
        with self._lock:
            ahead = {job.id: job for job in self._jobs.pending(FOLLOWED)}
            queued = [id for id, job in ahead.items() if job.state == "queued"]
            places = {id: place for place, id in enumerate(queued, 1)}
            for id in dict.fromkeys([*self._told, *self._asked, *ahead]):
                job = ahead.get(id) or self._jobs.get(id)
                if job is None or not job.live:
                    self._ended(id, job)
                else:
                    place = places.get(id) or self._jobs.place(job) or 0
                    self._look(job, place, running)

    def step(self, job: Job, progress: Progress) -> None:
        """How far the one that runs is."""
        with self._lock:
            id, phase, at = self._step
            if job.id not in self._told:
                return  # it was cancelled, and its worker has not noticed yet
            if (job.id, progress.phase) == (id, phase) and self._now() - at < _EVERY_S:
                return
            self._step = (job.id, progress.phase, self._now())
            self._tell(
                "loading" if re.search(r"\bloading\b", progress.phase) else "running",
                job,
                place=0,
                phase=progress.phase,
                done=progress.done,
                total=progress.total,
                eta_s=progress.eta_s,
                memory_bytes=progress.memory_bytes,
            )

    def states(self, survey: Survey) -> None:
        """Look at what the vault asks: a result that answered its block and no longer does is told."""
        with self._lock:
            before, self._states = self._states, {item.name: item.state for item in survey.items}
        for item in survey.items:
            if before.get(item.name) == "fresh" and item.state not in ("fresh", "error"):
                self._feed.tell("stale", path=wire.path(item.path), id=item.id, why=item.why)

    def _look(self, job: Job, place: int, running: Job | None) -> None:
        if self._told.get(job.id) == (job.state, place):
            return
        self._told[job.id] = (job.state, place)
        if job.state == "queued":
            self._tell("queued", job, place=place, why=waits_for(job, place, running))
        else:
            self._tell("running", job, place=0)

    def _ended(self, id: int, job: Job | None) -> None:
        self._told.pop(id, None)
        self._asked.discard(id)
        if job is None or id in self._over:
            return
        self._over.append(id)
        outcome = self._outcomes.pop(job.block, None)
        problem = None
        if job.state in ("failed", "quarantined"):
            problem = _problem(outcome) if outcome else Problem(message=job.detail or "It failed.")
        self._tell(_ENDS[job.state], job, why=job.detail, problem=problem)

    def _tell(self, kind: Happening, job: Job, **what: Any) -> None:
        id = job.block if ID.fullmatch(job.block) else None
        self._feed.tell(kind, path=wire.path(job.note), id=id, run=str(job.id), **what)


def waits_for(job: Job, place: int, running: Job | None) -> str:
    """Why a run is queued, and what it waits for, in words."""
    ahead = place - 1 + (running is not None and running.id != job.id)
    if not place or not ahead:
        return job.origin
    behind = f"behind `{running.block}`" if ahead == 1 and running is not None else f"behind {ahead} others"
    return f"{job.origin}; {behind}" if job.origin else behind


def _problem(outcome: Outcome) -> Problem:
    return Problem(message=outcome.problem, hint=outcome.hint, line=outcome.line)
