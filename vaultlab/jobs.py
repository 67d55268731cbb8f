"""What is to run, durable and in order: a queue in one SQLite file, which outlives any kill of daemon or worker.

A block has at most one job that is queued or running. What is lost with the file is the order, never a result: a look
at the vault finds every block that still has to run.
"""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Self, cast

from vaultlab.errors import RunError
from vaultlab.result import Ask, decode, encode

State = Literal["queued", "running", "done", "failed", "cancelled", "superseded", "quarantined"]
Ended = Literal["done", "failed", "cancelled"]

CRASHES = 2
"""So many deaths of the worker on one ask put it in quarantine."""
KEPT = 1000
"""So many jobs that have ended are remembered."""
BUSY_S = 5.0
"""How long one process waits for another that is writing."""


class Priority(IntEnum):
    """Who goes first: the note being edited, what was asked for by hand, recent edits, sweeps over the vault."""

    EDITING = 0
    BY_HAND = 1
    RECENT = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True)
class Order:
    """A run that is wanted. `block` is the block's id (or its place), `note` a vault-relative path.

    `lab_ask` is the hash of what is asked, `key` that of the result if it is known yet; `origin` says in a few words
    why it is to run ("edited", "asked for by hand").
    """

    vault: str
    block: str
    note: str
    ask: Ask
    lab_ask: str
    priority: Priority
    key: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """An order in the queue, as it was when it was read. Times are the clock's; `ended_at` is None while it lives.

    `holder` computes it: also that of a job that was cancelled or superseded, until its worker has let go. `runs`
    counts how often it was taken, and is what a lease is known by.
    """

    id: int
    vault: str
    block: str
    note: str
    lab_ask: str
    key: str
    priority: Priority
    origin: str
    forced: bool
    state: State
    detail: str
    holder: str | None
    runs: int
    put_at: float
    began_at: float | None
    ended_at: float | None

    @property
    def live(self) -> bool:
        """Whether it is still to run, or running."""
        return self.state in ("queued", "running")


class Jobs:
    """The queue in the file at `path`; several threads may use one. `said` tells what was found wrong at the start.

    One process at a time changes a queue; with `read_only` any other may look. RunError, from every verb, where the
    disk is full or the file cannot be used; then nothing has changed.
    """

    said: str

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, read_only: bool = False) -> None: ...

    def put(self, order: Order) -> Job:
        """Queue it, in one step with superseding the block's older job if that is about something else.

        A job of the same ask or key stays where it is, or moves up if this order is more urgent. An ask in quarantine
        is not queued (the Job says so), unless its `force` insists.
        """
        ...

    def take(self, holder: str, lease_s: float) -> Job | None:
        """The next job, now running and leased to `holder`; None if there is none that may run.

        What somebody is computing is not computed beside it: a job of the same ask or key waits for it to end.
        """
        ...

    def ask(self, job: Job) -> Ask:
        """What a live job asks; RunError if it has ended or cannot be read any more."""
        ...

    def renew(self, job: Job) -> bool:
        """Hold it for another lease. False: it was cancelled, superseded or given back, so stop computing it.

        Renew before `recover`: then no jump of the clock takes a job from one who is alive.
        """
        ...

    def finish(self, job: Job, state: Ended, detail: str = "") -> bool:
        """End it and let go of it. False: it had ended already, or has been taken anew since, and stays what it is."""
        ...

    def crashed(self, job: Job, report: str) -> Job | None:
        """The worker died of it: back to its place, or into quarantine with the report, its twins with it."""
        ...

    def cancel(self, id: int, detail: str = "") -> Job | None:
        """End it, queued or running; None if it was not live. One that runs is in `unwanted` until it is let go of."""
        ...

    def supersede(self, vault: str, block: str, detail: str = "") -> Job | None:
        """End the block's live job: it is gone, or asks something else now. None if there was none."""
        ...

    def unwanted(self, holder: str) -> list[Job]:
        """What `holder` still computes though it was cancelled or superseded: the worker is to be stopped."""
        ...

    def requeue(self, job: Job, priority: Priority | None = None) -> bool:
        """To the end of its class, or of another: a queued job, or a running one that lets others by.

        False: it has ended, or has been taken anew since.
        """
        ...

    def recover(self, holder_alive: Callable[[str], bool]) -> list[Job]:
        """Give back what the dead held, and the living beyond their lease: to its place, or to rest if it had ended."""
        ...

    def get(self, id: int) -> Job | None:
        """The job of this number, unless it ended so long ago that it is forgotten."""
        ...

    def last(self, vault: str, block: str) -> Job | None:
        """The newest job of a block, ended or not: what became of what it asked last."""
        ...

    def place(self, job: Job) -> int | None:
        """1 for the next to be taken; 0 while it runs; None when it has ended."""
        ...

    def pending(self) -> list[Job]:
        """What runs, then what is queued, in order."""
        ...

    def recent(self, most: int = 50) -> list[Job]:
        """What has ended, newest first."""
        ...

    def close(self) -> None:
        """Let go of the file. What is held stays held, for `recover`."""
        ...
