"""What is to run, durable and in order: a queue in one SQLite file, which outlives any kill of daemon or worker.

A block has at most one live job. With the file goes the order, never a result: the vault says what still has to run.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Literal, cast

from vaultlab.errors import RunError
from vaultlab.ledger import Ledger
from vaultlab.result import Ask, decode, encode

State = Literal["queued", "running", "done", "failed", "cancelled", "superseded", "quarantined"]
Ended = Literal["done", "failed", "cancelled"]

CRASHES = 2  # deaths of the worker on one ask, until it is in quarantine
KEPT = 1000  # jobs that have ended


class Priority(IntEnum):
    """Who goes first: the note being edited, what was asked for by hand, recent edits, sweeps over the vault."""

    EDITING = 0
    BY_HAND = 1
    RECENT = 2
    SWEEP = 3


@dataclass(frozen=True, slots=True)
class Order:
    """A run that is wanted. `block` is the block's id (or its place), `note` a vault-relative path.

    `lab_ask` is the hash of what is asked, `key` that of the result if known; `origin` says why it runs ("edited").
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
        return self.state in ("queued", "running")


_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, vault TEXT, block TEXT, note TEXT, lab_ask TEXT, key TEXT, origin TEXT,
    forced INTEGER, detail TEXT, holder TEXT, runs INTEGER DEFAULT 0, put_at REAL, began_at REAL, ended_at REAL,
    leased REAL, lease_s REAL, turn INTEGER, ask TEXT, priority INTEGER CHECK (priority BETWEEN 0 AND 3),
    state TEXT CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled', 'superseded', 'quarantined')));
CREATE UNIQUE INDEX IF NOT EXISTS live ON jobs (vault, block) WHERE state IN ('queued', 'running');
CREATE INDEX IF NOT EXISTS queued ON jobs (priority, turn) WHERE state = 'queued';
CREATE INDEX IF NOT EXISTS held ON jobs (holder) WHERE holder IS NOT NULL;
CREATE INDEX IF NOT EXISTS ended ON jobs (turn) WHERE ended_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS turns ON jobs (turn);
CREATE INDEX IF NOT EXISTS blocks ON jobs (vault, block, id);
CREATE TABLE IF NOT EXISTS crashes (lab_ask TEXT PRIMARY KEY, times INTEGER, report TEXT);
"""
_SELECT = f"SELECT {', '.join(one.name for one in fields(Job))} FROM jobs AS job "
# Turns order the queue and its history; no wall clock could, for it jumps.
_NEXT = "(SELECT coalesce(max(turn), 0) + 1 FROM jobs)"
_LIVE = "state IN ('queued', 'running')"
_TWIN = """SELECT 1 FROM jobs AS other WHERE holder IS NOT NULL AND
    CASE WHEN job.key <> '' AND other.key <> '' THEN job.key = other.key ELSE job.lab_ask = other.lab_ask END"""
_PUT = f"""
INSERT INTO jobs (
    vault, block, note, lab_ask, key, priority, origin, forced, put_at, ask, state, detail, ended_at, turn)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {_NEXT})
ON CONFLICT (vault, block) WHERE {_LIVE} DO UPDATE SET
    note = excluded.note, lab_ask = excluded.lab_ask, key = CASE excluded.key WHEN '' THEN key ELSE excluded.key END,
    forced = max(forced, excluded.forced), ask = excluded.ask, priority = min(priority, excluded.priority),
    origin = CASE WHEN excluded.priority < priority THEN excluded.origin ELSE origin END,
    turn = CASE WHEN excluded.priority < priority THEN excluded.turn ELSE turn END
"""


class Jobs:
    """The queue in the file at `path`; several threads may use one. `said` tells what was found wrong at the start.

    One process at a time changes a queue; with `read_only` any other may look. RunError, from every verb, where the
    disk is full or the file cannot be used; then nothing has changed.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, read_only: bool = False) -> None:
        self._clock = clock
        self._ledger = Ledger(path, _SCHEMA, _VERSION, read_only=read_only)
        self.said = self._ledger.wrong and (
            f"The queue {self._ledger.wrong}; it was set aside as {self._ledger.aside}, and a new one was begun. "
            "Blocks that still have to run are found again; what was asked for by hand is to be asked for again."
        )

    def put(self, order: Order) -> Job:
        """Queue it, in one step with superseding the block's older job if that is about something else.

        A job of the same key (of the same ask, if either key is not known) stays where it is, or moves up if this
        order is more urgent. An ask in quarantine is not queued (the Job says so), unless its `force` insists.
        """
        with self._ledger.changing() as db:
            if order.ask.force:
                db.execute("DELETE FROM crashes WHERE lab_ask = ?", (order.lab_ask,))
            crashes = "SELECT report FROM crashes WHERE lab_ask = ? AND times >= ?"
            report = db.execute(crashes, (order.lab_ask, CRASHES)).fetchone()
            last = self.last(order.vault, order.block)
            if last is not None and last.live and (report or not _same(last, order)):
                self._end(db, "superseded", "The block asks something else now.", "id = ?", last.id)
            if report and last is not None and last.state == "quarantined" and last.lab_ask == order.lab_ask:
                return last
            now = self._clock()
            text = json.dumps(encode(order.ask), ensure_ascii=False)
            ended = ("quarantined", report[0], now) if report else ("queued", "", None)
            wanted = (order.vault, order.block, order.note, order.lab_ask, order.key, order.priority, order.origin)
            db.execute(_PUT, (*wanted, order.ask.force, now, "" if report else text, *ended))
            return cast(Job, self.last(order.vault, order.block))

    def take(self, holder: str, lease_s: float) -> Job | None:
        """The next job, leased to `holder`; None if there is none. One of a key or ask that is held waits for that."""
        with self._ledger.changing() as db:
            job = self._one(f"WHERE state = 'queued' AND NOT EXISTS ({_TWIN}) ORDER BY priority, turn LIMIT 1")
            if job is not None:
                now = self._clock()
                taken = "state = 'running', holder = ?, leased = ?, lease_s = ?, began_at = ?, runs = runs + 1"
                db.execute(f"UPDATE jobs SET {taken} WHERE id = ?", (holder, now, lease_s, now, job.id))
            return job and self.get(job.id)

    def ask(self, job: Job) -> Ask:
        """What a live job asks; RunError if it has ended or cannot be read any more."""
        rows = self._ledger.rows("SELECT ask, forced FROM jobs WHERE id = ?", job.id)
        try:
            ask, forced = rows[0] if rows else ("", 0)
            return replace(cast(Ask, decode(Ask, json.loads(ask))), force=bool(forced))
        except ValueError:
            hint = "Save its note, or run the block by hand: it is queued anew."
            raise RunError(f"What `{job.block}` asked is no longer in the queue.", hint) from None

    def renew(self, job: Job) -> bool:
        """Hold it for another lease. False: it was cancelled, superseded or given back, so stop computing it.

        Renew before `recover`: then no jump of the clock takes a job from one who is alive.
        """
        with self._ledger.changing() as db:
            mine = "UPDATE jobs SET leased = ? WHERE id = ? AND runs = ? AND state = 'running'"
            return bool(db.execute(mine, (self._clock(), job.id, job.runs)).rowcount)

    def finish(self, job: Job, state: Ended, detail: str = "") -> bool:
        """End it and let go of it. False: it had ended already, or has been taken anew since, and stays what it is."""
        with self._ledger.changing() as db:
            now = self._released(db, job)
            if now is not None and state == "done":
                db.execute("DELETE FROM crashes WHERE lab_ask = ?", (now.lab_ask,))
            return now is not None and bool(self._end(db, state, detail, "id = ?", now.id))

    def crashed(self, job: Job, report: str) -> Job | None:
        """The worker died of it: back to its place, or, with all of this ask, into quarantine with the report.

        None, and not counted, if it had ended already or has been taken anew since.
        """
        with self._ledger.changing() as db:
            now = self._released(db, job)
            if now is None or now.state != "running":
                return None
            again = "ON CONFLICT DO UPDATE SET times = times + 1, report = excluded.report"
            db.execute(f"INSERT INTO crashes VALUES (?, 1, ?) {again}", (now.lab_ask, report))
            db.execute("UPDATE jobs SET state = 'queued', detail = ? WHERE id = ?", (report, job.id))
            (times,) = db.execute("SELECT times FROM crashes WHERE lab_ask = ?", (now.lab_ask,)).fetchone()
            if times >= CRASHES:
                self._end(db, "quarantined", report, f"lab_ask = ? AND {_LIVE}", now.lab_ask)
            return self.get(job.id)

    def cancel(self, id: int, detail: str = "") -> Job | None:
        """End it, queued or running; None if it was not live. One that runs is in `unwanted` until it is let go of."""
        with self._ledger.changing() as db:
            return self.get(id) if self._end(db, "cancelled", detail, f"id = ? AND {_LIVE}", id) else None

    def supersede(self, vault: str, block: str, detail: str = "") -> Job | None:
        """End the block's live job: it is gone, or asks something else now. None if there was none."""
        with self._ledger.changing() as db:
            ended = self._end(db, "superseded", detail, f"vault = ? AND block = ? AND {_LIVE}", vault, block)
            return self.last(vault, block) if ended else None

    def unwanted(self, holder: str) -> list[Job]:
        """What `holder` still computes though it was cancelled or superseded: the worker is to be stopped."""
        return self._all("WHERE holder = ? AND state <> 'running' ORDER BY turn", holder)

    def requeue(self, job: Job, priority: Priority | None = None) -> bool:
        """To the end of its class or another: queued, or, by its holder, letting others by. False as in `finish`."""
        with self._ledger.changing() as db:
            now = self._released(db, job)
            last = f"UPDATE jobs SET state = 'queued', priority = coalesce(?, priority), turn = {_NEXT} WHERE id = ?"
            return now is not None and bool(db.execute(last, (priority, job.id)).rowcount)

    def recover(self, holder_alive: Callable[[str], bool]) -> list[Job]:
        """Give back what the dead held, and the living beyond their lease: to its place, or to rest if it had ended."""
        # A lease from the future is one from before a jump of the clock.
        leases = "SELECT id, leased, holder, abs(? - leased) >= lease_s FROM jobs WHERE holder IS NOT NULL"
        held = self._ledger.rows(leases, self._clock())
        alive = {holder: holder_alive(holder) for _, _, holder, _ in held}
        lost = [(id, leased) for id, leased, holder, expired in held if expired or not alive[holder]]
        with self._ledger.changing() as db:
            back = "state = CASE state WHEN 'running' THEN 'queued' ELSE state END"
            free = f"UPDATE jobs SET holder = NULL, {back} WHERE id = ? AND leased = ? AND holder IS NOT NULL"
            given = [self.get(id) for id, leased in lost if db.execute(free, (id, leased)).rowcount]
            return [job for job in given if job is not None and job.live]

    def get(self, id: int) -> Job | None:
        """The job of this number, unless it ended so long ago that it is forgotten."""
        return self._one("WHERE id = ?", id)

    def last(self, vault: str, block: str) -> Job | None:
        """The newest job of a block, ended or not: what became of what it asked last."""
        return self._one("WHERE vault = ? AND block = ? ORDER BY id DESC LIMIT 1", vault, block)

    def place(self, job: Job) -> int | None:
        """1 for the next to be taken; 0 while it runs; None when it has ended."""
        ahead = "SELECT count(*) FROM jobs WHERE state = 'queued' AND (priority, turn) <= (job.priority, job.turn)"
        rows = self._ledger.rows(f"SELECT state, ({ahead}) FROM jobs AS job WHERE id = ?", job.id)
        state, place = rows[0] if rows else ("", 0)
        return int(place) if state == "queued" else 0 if state == "running" else None

    def first(self) -> Job | None:
        """The most urgent that is queued, whether or not it may run yet: what a long run is to let by."""
        return self._one("WHERE state = 'queued' ORDER BY priority, turn LIMIT 1")

    def pending(self, most: int = -1) -> list[Job]:
        """What runs, then what is queued, in order; at most so many."""
        return self._all(f"WHERE {_LIVE} ORDER BY state = 'queued', priority, turn LIMIT ?", most)

    def recent(self, most: int = 50) -> list[Job]:
        """What has ended, newest first."""
        return self._all("WHERE ended_at IS NOT NULL ORDER BY turn DESC, id DESC LIMIT ?", most)

    def close(self) -> None:
        """Let go of the file. What is held stays held, for `recover`."""
        self._ledger.close()

    def _all(self, where: str, *values: Any) -> list[Job]:
        return [_job(row) for row in self._ledger.rows(_SELECT + where, *values)]

    def _one(self, where: str, *values: Any) -> Job | None:
        return next(iter(self._all(where, *values)), None)

    def _end(self, db: Connection, state: State, detail: str, where: str, *values: Any) -> int:
        """How many it ended. Their text is not kept, nor more than KEPT of them."""
        put = f"UPDATE jobs SET state = ?, detail = ?, ended_at = ?, turn = {_NEXT}, ask = '' WHERE {where}"
        ended = db.execute(put, (state, detail, self._clock(), *values)).rowcount
        old = "SELECT turn FROM jobs WHERE ended_at IS NOT NULL ORDER BY turn DESC LIMIT 1 OFFSET ?"
        db.execute(f"DELETE FROM jobs WHERE ended_at IS NOT NULL AND holder IS NULL AND turn <= ({old})", (KEPT,))
        return ended

    def _released(self, db: Connection, job: Job) -> Job | None:
        """The job as it is now, let go of by whoever held this lease; None if it has ended or is another's by now."""
        now = self.get(job.id)
        if now is None or now.runs != job.runs:
            return None
        if job.holder is not None:
            db.execute("UPDATE jobs SET holder = NULL WHERE id = ?", (job.id,))
        return now if now.live else None


def _job(row: tuple[Any, ...]) -> Job:
    job = Job(*row)
    return replace(job, priority=Priority(job.priority), forced=bool(job.forced))


def _same(job: Job, order: Order) -> bool:
    return job.key == order.key if job.key and order.key else job.lab_ask == order.lab_ask
