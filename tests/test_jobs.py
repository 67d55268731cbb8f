"""The queue against a simple model of it, and against kills, threads, other processes and clocks that jump."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.queue_user import Clock, user, wanted
from vaultlab.errors import RunError
from vaultlab.jobs import CRASHES, KEPT, Job, Jobs, Priority
from vaultlab.result import Ask, Text


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Iterator[Jobs]:
    queue = Jobs(tmp_path / "jobs.sqlite", clock)
    assert queue.said == ""
    yield queue
    queue.close()


def taken(jobs: Jobs, holder: str = "me") -> Job:
    job = jobs.take(holder, 60.0)
    assert job is not None
    return job


def blocks(found: list[Job]) -> list[str]:
    return [job.block for job in found]


# -- one verb at a time ---------------------------------------------------------------------------------------


def test_order(jobs: Jobs) -> None:
    for block, at in [("sweep", 3), ("recent", 2), ("edited", 0), ("asked", 1), ("recent too", 2)]:
        jobs.put(wanted(block, at=Priority(at)))
    assert blocks(jobs.pending()) == ["edited", "asked", "recent", "recent too", "sweep"]
    jobs.put(wanted("sweep", at=Priority.EDITING))  # its note is opened: behind what was being edited already
    assert blocks(jobs.pending())[:2] == ["edited", "sweep"]
    jobs.put(wanted("edited", at=Priority.SWEEP))  # a later look at the vault makes nothing less urgent
    assert blocks(jobs.pending())[0] == "edited"


def test_a_job_carries_its_ask(jobs: Jobs) -> None:
    text = Text("Note", "abc", (("Note.md", "Grüße \x00 🧠"),))
    ask = Ask("a", "toy", {"rate": float("inf"), "layers": [1, 2]}, texts={"text": text}, points=({"n": 1}, {"n": 2}))
    jobs.put(replace(wanted("a"), ask=ask, origin="edited"))
    assert jobs.ask(taken(jobs)) == replace(ask, fields={"rate": "Infinity", "layers": [1, 2]})
    forced = jobs.put(replace(wanted("a"), ask=replace(ask, force=True)))
    assert (forced.state, forced.origin) == ("running", "edited")
    assert jobs.ask(jobs.put(wanted("a"))).force  # who insisted is not forgotten
    jobs.cancel(forced.id)
    with pytest.raises(RunError, match="no longer in the queue"):
        jobs.ask(forced)


def test_an_edit_supersedes_only_what_is_about_something_else(jobs: Jobs) -> None:
    first = jobs.put(wanted("a", "2 features", key="K"))
    running = taken(jobs)
    assert jobs.put(replace(wanted("a", "2.0 features", key="K"), note="moved.md")).id == first.id
    assert jobs.renew(running)
    assert jobs.get(first.id).note == "moved.md"  # type: ignore[union-attr]
    second = jobs.put(wanted("a", "3 features", key="L"))
    assert second.id != first.id
    assert not jobs.renew(running)
    assert blocks(jobs.unwanted("me")) == ["a"]
    assert not jobs.finish(running, "done")
    assert (jobs.unwanted("me"), jobs.get(first.id).state) == ([], "superseded")  # type: ignore[union-attr]
    assert taken(jobs).id == second.id


def test_an_edit_that_is_taken_back_waits_for_the_run_that_is_being_stopped(jobs: Jobs) -> None:
    jobs.put(wanted("a", "A"))
    running = taken(jobs)
    jobs.put(wanted("a", "B"))
    again = jobs.put(wanted("a", "A"))
    assert jobs.take("me", 60.0) is None
    jobs.finish(running, "cancelled")
    assert taken(jobs).id == again.id


def test_twins_run_one_after_the_other_and_let_others_by(jobs: Jobs) -> None:
    for block, ask, key in [("a", "A", ""), ("b", "A", "K"), ("c", "C", ""), ("d", "D", "K")]:
        jobs.put(wanted(block, ask, key))
    a, c = taken(jobs), taken(jobs)  # b asks what a asks; d has the key of b, but of nothing that runs
    assert [a.block, c.block, taken(jobs).block] == ["a", "c", "d"]
    assert jobs.take("me", 60.0) is None
    jobs.finish(a, "done")
    assert jobs.take("me", 60.0) is None  # d has its key
    jobs.finish(next(job for job in jobs.pending() if job.block == "d"), "done")
    assert taken(jobs).block == "b"


def test_two_crashes_are_a_quarantine(jobs: Jobs) -> None:
    for block in "ab":
        jobs.put(wanted(block, "A"))
    assert jobs.crashed(taken(jobs), "Once.").state == "queued"  # type: ignore[union-attr]
    second = taken(jobs)
    assert (second.block, second.detail) == ("a", "Once.")  # to its place, in front
    assert jobs.crashed(second, "Killed by signal 9.").state == "quarantined"  # type: ignore[union-attr]
    assert jobs.crashed(second, "Told twice.") is None
    assert [(job.state, job.detail) for job in jobs.recent()] == [("quarantined", "Killed by signal 9.")] * 2
    assert jobs.pending() == []
    again = jobs.put(wanted("a", "A"))
    assert (again.id, again.state) == (second.id, "quarantined")  # a look at the vault adds no line to the history
    assert jobs.put(wanted("a", "B")).state == "queued"
    back = jobs.put(wanted("a", "A"))
    assert (back.state, back.detail) == ("quarantined", "Killed by signal 9.")
    assert jobs.pending() == []
    assert jobs.put(wanted("a", "A", force=True)).state == "queued"
    assert jobs.crashed(taken(jobs), "Once more.").state == "queued"  # type: ignore[union-attr]


def test_a_quarantine_holds_for_an_ask_that_has_the_key_of_a_queued_one(jobs: Jobs) -> None:
    jobs.put(wanted("b", "A"))
    for _ in range(CRASHES):
        jobs.crashed(taken(jobs), "It died.")
    live = jobs.put(wanted("a", "A in other words", key="K"))
    assert jobs.put(wanted("a", "A", key="K")).state == "quarantined"
    assert (jobs.pending(), jobs.get(live.id).state) == ([], "superseded")  # type: ignore[union-attr]


def test_a_run_that_went_well_forgives_a_crash(jobs: Jobs) -> None:
    jobs.put(wanted("a"))
    jobs.crashed(taken(jobs), "Once.")
    jobs.finish(taken(jobs), "done")
    jobs.put(wanted("a"))
    assert jobs.crashed(taken(jobs), "A month later.").state == "queued"  # type: ignore[union-attr]


def test_the_death_that_a_cancel_brings_is_no_crash(jobs: Jobs) -> None:
    for _ in range(CRASHES + 1):
        jobs.put(wanted("a"))
        job = taken(jobs)
        jobs.cancel(job.id)
        assert jobs.crashed(job, "SIGKILL") is None
        assert jobs.unwanted("me") == []
    assert jobs.put(wanted("a")).state == "queued"


def test_a_sweep_goes_piece_by_piece(jobs: Jobs) -> None:
    for block in ("long", "other"):
        jobs.put(wanted(block, at=Priority.SWEEP))
    order_of_pieces = []
    for _ in range(4):
        job = taken(jobs)
        order_of_pieces.append(job.block)
        assert jobs.requeue(job)
        assert not jobs.finish(replace(job, runs=job.runs - 1), "done")
    assert order_of_pieces == ["long", "other", "long", "other"]
    assert jobs.requeue(jobs.pending()[1], Priority.EDITING)
    assert taken(jobs).block == "other"


def test_what_cannot_be_put_changes_nothing(jobs: Jobs) -> None:
    before = jobs.put(wanted("a", "A"))
    with pytest.raises(UnicodeEncodeError):
        jobs.put(replace(wanted("a", "B"), note="\udcff.md"))
    assert jobs.pending() == [before]
    assert taken(jobs).id == before.id


def test_what_is_held_is_not_forgotten(jobs: Jobs) -> None:
    jobs.put(wanted("a"))
    held = taken(jobs)
    jobs.cancel(held.id)
    for number in range(KEPT + 5):
        jobs.put(wanted("b", f"{number}"))
    assert blocks(jobs.unwanted("me")) == ["a"]
    jobs.finish(held, "cancelled")
    jobs.put(wanted("b", "the last"))
    assert jobs.get(held.id) is None


def test_history_is_short_and_keeps_no_texts(jobs: Jobs, tmp_path: Path) -> None:
    first = jobs.put(wanted("never ends", "X"))
    for number in range(KEPT + 50):
        jobs.put(wanted("a", f"{number}"))
    assert len(jobs.recent(10 * KEPT)) == KEPT
    assert jobs.recent(1)[0].lab_ask == f"{KEPT + 48}"
    assert jobs.last("v", "a") == jobs.pending()[1]
    assert jobs.pending()[0] == first
    assert jobs.get(first.id + 1) is None
    assert {row[0] for row in jobs._ledger.rows("SELECT ask FROM jobs WHERE ended_at IS NOT NULL")} == {""}


# -- clocks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9, -1e9])
def test_a_jump_of_the_clock_takes_nothing_from_the_living(jobs: Jobs, clock: Clock, jump: float) -> None:
    jobs.put(wanted("a"))
    job = taken(jobs)
    clock.now += jump
    assert jobs.take("another", 60.0) is None
    assert jobs.renew(job)
    assert jobs.recover(lambda holder: True) == []
    assert jobs.finish(job, "done")


@pytest.mark.parametrize("jump", [60.0, -60.0])
def test_a_lease_that_nobody_renews_ends(jobs: Jobs, clock: Clock, jump: float) -> None:
    jobs.put(wanted("a"))
    job = taken(jobs)
    clock.now += jump * 0.99
    assert jobs.recover(lambda holder: True) == []
    clock.now += jump * 0.01
    assert blocks(jobs.recover(lambda holder: True)) == ["a"]
    assert not jobs.renew(job)
    assert jobs.finish(job, "done")  # late, but nobody has begun it anew: it is not computed for nothing
    assert jobs.take("another", 60.0) is None


def test_who_comes_late_does_not_end_another_s_run(jobs: Jobs) -> None:
    jobs.put(wanted("a"))
    old = taken(jobs, "dead")
    jobs.recover(lambda holder: False)
    new = taken(jobs, "new")
    assert not jobs.finish(old, "failed")
    assert jobs.crashed(old, "Late.") is None
    assert not jobs.requeue(old)
    assert jobs.renew(new)
    assert jobs.finish(new, "done")


def test_who_renews_while_recovery_asks_keeps_its_job(jobs: Jobs, clock: Clock) -> None:
    jobs.put(wanted("a"))
    job = taken(jobs)
    clock.now += 61.0
    assert jobs.recover(lambda holder: jobs.renew(job)) == []
    assert jobs.finish(job, "done")


def test_recovery_asks_about_each_holder_and_frees_what_had_ended(jobs: Jobs) -> None:
    for block in "abc":
        jobs.put(wanted(block))
    a, b, c = taken(jobs, "dead"), taken(jobs, "alive"), taken(jobs, "dead")
    jobs.cancel(c.id)
    asked = []
    assert blocks(jobs.recover(lambda holder: asked.append(holder) or holder == "alive")) == ["a"]  # type: ignore[func-returns-value]
    assert sorted(set(asked)) == ["alive", "dead"]
    assert jobs.unwanted("dead") == []
    assert jobs.renew(b)
    assert jobs.place(a) == 1


# -- threads and processes ------------------------------------------------------------------------------------


def test_threads_share_a_queue(jobs: Jobs) -> None:
    for number in range(120):
        jobs.put(wanted(f"block {number}", f"ask {number % 30}"))
    done: list[int] = []
    computing: set[str] = set()
    wrong: list[str] = []

    def work(name: str) -> None:
        while jobs.pending():
            job = jobs.take(name, 60.0)
            if job is None:
                continue
            if job.lab_ask in computing:
                wrong.append(job.lab_ask)
            computing.add(job.lab_ask)
            jobs.renew(job)
            computing.remove(job.lab_ask)
            if jobs.finish(job, "done"):
                done.append(job.id)

    threads = [threading.Thread(target=work, args=(f"thread {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (wrong, len(done), len(set(done))) == ([], 120, 120)


def test_two_processes_take_each_job_once_while_a_third_looks(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    jobs = Jobs(path)
    ids = [jobs.put(wanted(f"block {number}")).id for number in range(300)]
    jobs.close()
    looking = Jobs(path, read_only=True)
    assert [job.id for job in looking.pending()] == ids
    with user(path, "drain") as one, user(path, "drain") as two:
        seen = [len(looking.pending())]
        while seen[-1] and (one.poll() is None or two.poll() is None):
            seen.append(len(looking.pending()))
        took = [line.split()[1] for out in (one, two) for line in out.communicate(timeout=60)[0].splitlines()[1:]]
    assert (one.returncode, two.returncode) == (0, 0)
    assert sorted(map(int, took)) == ids
    assert seen == sorted(seen, reverse=True)
    with pytest.raises(RunError):
        looking.put(wanted("a"))
    looking.close()


def test_looking_at_a_queue_that_is_not_there_makes_none(tmp_path: Path) -> None:
    looking = Jobs(tmp_path / "jobs.sqlite", read_only=True)
    assert (looking.pending(), looking.recent(), looking.last("v", "a")) == ([], [], None)
    looking.close()
    assert list(tmp_path.iterdir()) == []


def after_a_kill(path: Path, lines: list[str]) -> None:
    """What was said to be queued is there, what was said to be done is done, and everything else runs once more."""
    put = {int(line.split()[1]) for line in lines if line.startswith("put")}
    done = {int(line.split()[1]) for line in lines if line.startswith("done")}
    jobs = Jobs(path)
    assert jobs.said == ""
    held = [job for job in jobs.pending() if job.holder]
    assert len(held) <= 1
    assert jobs.recover(lambda holder: False) == [replace(job, state="queued", holder=None) for job in held]
    states = {job.id: job.state for job in jobs.pending() + jobs.recent(KEPT)}
    assert put <= set(states) or len(states) >= KEPT
    assert all(states[id] == "done" for id in done if id in states)
    ran: Counter[int] = Counter()
    while job := jobs.take("after", 60.0):
        assert jobs.ask(job).id == job.block
        ran[job.id] += 1
        assert jobs.finish(job, "done")
    assert set(ran) == {id for id, state in states.items() if state == "queued"}
    assert not set(ran) & done
    assert set(ran.values()) <= {1}
    assert jobs.pending() == []
    jobs.close()


def killed_at(path: Path, statement: int) -> None:
    process = user(path, "work", statement)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    after_a_kill(path, out.splitlines())


def killed_after(path: Path, seconds: float) -> None:
    process = user(path, "work")
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)  # real time: the kill may come inside a write
    process.kill()
    out, err = process.communicate(timeout=60)
    assert first.startswith("ready"), err
    after_a_kill(path, out[: out.rfind("\n") + 1].splitlines())


@pytest.mark.parametrize("statement", [1, 7, 18, 60])
def test_a_kill_between_two_statements_loses_nothing(tmp_path: Path, statement: int) -> None:
    killed_at(tmp_path / "jobs.sqlite", statement)


@pytest.mark.parametrize("seconds", [0.01, 0.1])
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, seconds: float) -> None:
    killed_after(tmp_path / "jobs.sqlite", seconds)


@pytest.mark.long
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(3)
    for number in range(100):
        killed_at(tmp_path / f"{number}.sqlite", number + 1 if number < 70 else chance.randrange(70, 400))


@pytest.mark.long
def test_one_queue_lives_through_fifty_kills(tmp_path: Path) -> None:
    chance = random.Random(4)
    for _ in range(50):
        killed_after(tmp_path / "jobs.sqlite", chance.random() * 0.2)
