"""Every verb of the queue in any order, against a simple model of it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from tests.queue_user import Clock, wanted
from vaultlab.jobs import CRASHES, KEPT, Job, Jobs, Priority


@dataclass
class Row:
    """A job as the model sees it; `turn` is when it last went to the end of a row."""

    id: int
    block: str
    ask: str
    key: str
    priority: int
    forced: bool
    turn: int
    state: str = "queued"
    holder: str | None = None
    runs: int = 0
    leased: float = 0.0

    def same(self, ask: str, key: str) -> bool:
        return key == self.key if key and self.key else ask == self.ask

    @property
    def live(self) -> bool:
        return self.state in ("queued", "running")


class Model:
    """The queue as anybody would write it who had no disk, no other process and no need for speed."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.turns = 0
        self.crashes: Counter[str] = Counter()

    def turn(self) -> int:
        self.turns += 1
        return self.turns

    def queued(self) -> list[Row]:
        return sorted((row for row in self.rows if row.state == "queued"), key=lambda row: (row.priority, row.turn))

    def end(self, row: Row, state: str) -> None:
        row.state, row.turn = state, self.turn()

    def put(self, block: str, ask: str, key: str, priority: int, force: bool) -> Row:
        if force:
            self.crashes[ask] = 0
        bad = self.crashes[ask] >= CRASHES
        mine = [row for row in self.rows if row.block == block]
        live = next((row for row in mine if row.live), None)
        if live and live.same(ask, key) and not bad:
            live.ask, live.key, live.forced = ask, key or live.key, live.forced or force
            if priority < live.priority:
                live.priority, live.turn = priority, self.turn()
            return live
        last = mine[-1] if mine else None
        if live:
            self.end(live, "superseded")
        if bad and last and last.state == "quarantined" and last.ask == ask:
            return last
        row = Row(len(self.rows), block, ask, key, priority, force, self.turn(), "quarantined" if bad else "queued")
        self.rows.append(row)
        return row

    def take(self, holder: str, now: float) -> Row | None:
        held = [row for row in self.rows if row.holder]
        for row in self.queued():
            if not any(other.same(row.ask, row.key) for other in held):
                row.state, row.holder, row.leased = "running", holder, now
                row.runs += 1
                return row
        return None


LEASE_S = 60.0
HOLDERS = ("a worker", "another")


class Queue(RuleBasedStateMachine):
    """Every verb in any order, with kept snapshots old and new, against the model."""

    seen = Bundle("seen")

    @initialize(target=seen)
    def begin(self) -> Any:
        self.folder = TemporaryDirectory()
        self.clock = Clock()
        self.model = Model()
        self.open()
        self.ids: dict[int, int] = {}
        return multiple()

    def open(self) -> None:
        self.jobs = Jobs(Path(self.folder.name) / "jobs.sqlite", self.clock)
        assert self.jobs.said == ""

    def teardown(self) -> None:
        if hasattr(self, "jobs"):
            self.jobs.close()
            self.folder.cleanup()

    def row(self, job: Job) -> Row:
        return self.model.rows[self.ids[job.id]]

    def mine(self, job: Job) -> Row | None:
        """What `Jobs` calls released: the row under this very lease, no longer held if the snapshot was a holder's."""
        row = self.row(job)
        if row.runs != job.runs:
            return None
        if job.holder is not None:
            row.holder = None
        return row if row.live else None

    @rule(
        target=seen,
        block=st.sampled_from("pqrs"),
        ask=st.sampled_from("AB"),
        key=st.sampled_from(["", "", "K", "L"]),
        at=st.sampled_from(Priority),
        force=st.integers(0, 7).map(lambda number: number == 0),
    )
    def put(self, block: str, ask: str, key: str, at: Priority, force: bool) -> Job:
        job = self.jobs.put(wanted(block, ask, key, at, force=force))
        row = self.model.put(block, ask, key, at, force)
        assert self.ids.setdefault(job.id, row.id) == row.id
        return job

    @rule(target=seen, holder=st.sampled_from(HOLDERS))
    def take(self, holder: str) -> Any:
        job, row = self.jobs.take(holder, LEASE_S), self.model.take(holder, self.clock.now)
        assert (job is None) == (row is None)
        if job is None or row is None:
            return multiple()
        assert (self.ids[job.id], job.runs, job.holder) == (row.id, row.runs, row.holder)
        return job

    @rule(job=seen)
    def renew(self, job: Job) -> None:
        row = self.row(job)
        running = row.state == "running" and row.runs == job.runs
        assert self.jobs.renew(job) == running
        if running:
            row.leased = self.clock.now

    @rule(job=seen, state=st.sampled_from(["done", "failed", "cancelled"]))
    def finish(self, job: Job, state: Any) -> None:
        row = self.mine(job)
        assert self.jobs.finish(job, state, "so") == (row is not None)
        if row:
            self.model.end(row, state)
            if state == "done":
                self.model.crashes[row.ask] = 0

    @rule(job=seen)
    def crashed(self, job: Job) -> None:
        row = self.mine(job)
        found = self.jobs.crashed(job, "It died.")
        if row is None or row.state != "running":
            assert found is None
            return
        assert found is not None
        self.model.crashes[row.ask] += 1
        row.state = "queued"
        if self.model.crashes[row.ask] >= CRASHES:
            turn = self.model.turn()
            for one in self.model.rows:
                if one.live and one.ask == row.ask:
                    one.state, one.turn = "quarantined", turn
        assert found.state == row.state

    @rule(job=seen)
    def cancel(self, job: Job) -> None:
        row = self.row(job)
        assert (self.jobs.cancel(job.id) is not None) == row.live
        if row.live:
            self.model.end(row, "cancelled")

    @rule(block=st.sampled_from("pqrs"))
    def supersede(self, block: str) -> None:
        live = [row for row in self.model.rows if row.block == block and row.live]
        assert (self.jobs.supersede("v", block) is not None) == bool(live)
        for row in live:
            self.model.end(row, "superseded")

    @rule(job=seen, at=st.none() | st.sampled_from(Priority))
    def requeue(self, job: Job, at: Priority | None) -> None:
        row = self.mine(job)
        assert self.jobs.requeue(job, at) == (row is not None)
        if row:
            row.state, row.priority, row.turn = "queued", row.priority if at is None else at, self.model.turn()

    @rule(alive=st.sets(st.sampled_from(HOLDERS)))
    def recover(self, alive: set[str]) -> None:
        back = set()
        for row in self.model.rows:
            expired = abs(self.clock.now - row.leased) >= LEASE_S
            if row.holder and (expired or row.holder not in alive):
                row.holder = None
                if row.state == "running":
                    row.state = "queued"
                    back.add(row.id)
        assert {self.ids[job.id] for job in self.jobs.recover(alive.__contains__)} == back

    @rule(seconds=st.sampled_from([1.0, 30.0, 61.0, 1e6, -1.0, -90.0]))
    def time_goes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def reopen(self) -> None:
        self.jobs.close()
        self.open()

    @invariant()
    def as_the_model(self) -> None:
        if not hasattr(self, "jobs"):
            return
        pending = self.jobs.pending()
        queued = [job for job in pending if job.state == "queued"]
        assert self.jobs.first() == (queued[0] if queued else None)
        assert [self.ids[job.id] for job in queued] == [row.id for row in self.model.queued()]
        assert [self.jobs.place(job) for job in pending] == [0] * (len(pending) - len(queued)) + [
            place + 1 for place in range(len(queued))
        ]
        for number, id in self.ids.items():
            found, row = self.jobs.get(number), self.model.rows[id]
            assert found is not None
            said = (found.lab_ask, found.key, found.priority, found.forced, found.state, found.holder, found.runs)
            assert said == (row.ask, row.key, row.priority, row.forced, row.state, row.holder, row.runs)
        recent = [self.ids[job.id] for job in self.jobs.recent(KEPT)]
        ended = [row for row in self.model.rows if not row.live]
        assert recent == [row.id for row in sorted(ended, key=lambda row: (-row.turn, -row.id))]
        for holder in HOLDERS:
            unwanted = {self.ids[job.id] for job in self.jobs.unwanted(holder)}
            assert unwanted == {row.id for row in ended if row.holder == holder}


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
