"""The daemon, step by step, under a clock of the tests' own and with a plain function in the worker's place."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.test_pipeline import NOTE, Bed, answer
from vaultlab import daemon
from vaultlab.daemon import MANY, YIELD_S, Daemon, Way
from vaultlab.errors import NoteError, RunError, VaultError
from vaultlab.jobs import Jobs, Priority
from vaultlab.pipeline import QUIET_S, Outcome
from vaultlab.result import Answer, Ask, Failure, Progress, Refusal
from vaultlab.survey import Survey
from vaultlab.vault import files, index, presence, watch
from vaultlab.vault.changes import PARSE_S, RUN_S
from vaultlab.vault.journal import Journal, home, lock, made
from vaultlab.vault.presence import Request
from vaultlab.vault.watch import EVERYTHING, Watch

OTHER = NOTE.partition("A claim.\n\n")[2].replace("double: two", "double: other").replace("number: 1", "number: 5")


class Alive(Bed):
    """A vault with a daemon whose time is what the test says. The start lies back, so that notes' times are past."""

    def __init__(self, root: Path, owner: Path) -> None:
        super().__init__(root, owner)
        self.clock = time.time()
        self.told: list[Outcome | str] = []
        self.cancelled: set[str] = set()
        self.deaths: dict[str, int] = {}
        self.stored = False
        self.during: Callable[[Ask, Callable[[Progress], None]], None] = lambda ask, progress: None
        self.start()

    def start(self) -> None:
        self.jobs = Jobs(made(home(self.root)) / "jobs.sqlite", lambda: self.clock)
        way = Way(
            self._way,
            self.cancelled.add,
            lambda ask: self.deaths.get(ask.id, 0),
            lambda asks: [self.stored] * len(asks),
        )
        self.daemon = Daemon(self.root, self.look, way, self.jobs, self.told.append, lambda: self.clock)

    def restart(self) -> None:
        """As after kill -9: nothing is put in order."""
        self.jobs.close()
        self.start()

    def _way(self, ask: Ask, progress: Callable[[Progress], None]) -> Answer:
        self.asked.append(ask)
        try:
            self.during(ask, progress)
        except AssertionError as error:  # the pipeline would take it for a fault of its own
            pytest.fail(str(error))
        if ask.id in self.cancelled:
            self.cancelled.discard(ask.id)
            return Failure(ask.id, "cancelled", "The run was cancelled.")
        return self.answer(ask, progress)

    def save(self, name: str, text: str) -> None:
        self.write(name, text)
        self.changed(name)

    def changed(self, name: str) -> None:
        """The note is saved now, by the tests' clock."""
        os.utime(self.root / name, (self.clock, self.clock))
        self.daemon.changes.add(name)

    def after(self, seconds: float) -> None:
        self.clock += seconds + 0.001
        self.daemon.tick()

    def settle(self) -> None:
        """Time goes by until all is done."""
        for _ in range(20):
            self.after(0.5)
            while self.daemon.work():
                self.after(0.1)

    @property
    def queued(self) -> list[str]:
        return [job.block for job in self.jobs.pending()]

    @property
    def ran(self) -> list[str]:
        return [ask.id for ask in self.asked]

    @property
    def outcomes(self) -> list[Outcome]:
        return [one for one in self.told if isinstance(one, Outcome)]


@pytest.fixture
def alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Alive]:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for reader in (files, index):
        monkeypatch.setattr(reader, "_PAUSE_S", 0.001)  # nobody writes between two looks here
    (tmp_path / "vault").mkdir()
    alive = Alive(tmp_path / "vault", tmp_path / "config")
    alive.daemon.tick()
    yield alive
    alive.jobs.close()


def test_a_saved_block_runs_after_two_quiet_seconds_and_its_embed_comes_after_five(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(PARSE_S + 0.01)
    assert alive.queued == []
    alive.after(RUN_S - PARSE_S)
    assert alive.queued == ["two"]
    assert alive.daemon.work()
    assert "[!success]" in alive.page(), "the result note is there at once"
    assert alive.read("Note.md") == NOTE, "the author may still be typing"
    alive.after(QUIET_S - RUN_S - 0.2)
    assert alive.read("Note.md") == NOTE
    alive.after(0.5)
    alive.after(1.0)
    assert alive.read("Note.md").count("![[vaultlab/two#^result]]") == 1
    alive.settle()
    assert alive.ran == ["two"]
    assert alive.states() == {"two": "fresh"}
    assert [one.verdict for one in alive.outcomes] == ["supported"]


def test_the_same_files_as_a_render(alive: Alive, tmp_path: Path) -> None:
    alive.save("Note.md", NOTE + "\n" + OTHER)
    alive.settle()
    (tmp_path / "rendered").mkdir()
    rendered = Bed(tmp_path / "rendered", tmp_path / "config")
    rendered.write("Note.md", NOTE + "\n" + OTHER)
    rendered.render()
    assert {name: content for name, (content, _) in alive.everything().items()} == {
        name: content for name, (content, _) in rendered.everything().items()
    }


def test_while_its_author_types_nothing_runs(alive: Alive) -> None:
    for number in range(1, 6):
        alive.save("Note.md", NOTE.replace("number: 1", f"number: {number}"))
        alive.after(PARSE_S + 0.1)
        alive.after(RUN_S - PARSE_S - 0.2)
        assert alive.queued == []
    alive.settle()
    assert [ask.fields["number"] for ask in alive.asked] == [5]


def test_our_own_writing_sets_nothing_off(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    before = alive.everything()
    for name in before:
        alive.daemon.changes.add(name)
    alive.settle()
    assert alive.ran == ["two"]
    assert alive.everything() == before


def test_what_we_write_in_a_large_vault_sets_no_look_off_at_once(alive: Alive) -> None:
    looks, look = [], alive.daemon.pipeline.look

    def slow() -> Survey:
        looks.append(alive.clock)
        alive.clock += 0.5
        return look()

    alive.daemon.pipeline.look = slow
    alive.save("Note.md", NOTE)
    alive.after(PARSE_S)
    assert len(looks) == 1, "what an author writes is looked at soon"
    alive.write("vaultlab/other.md", "Of ours.")
    alive.daemon.changes.add("vaultlab/other.md")
    alive.after(5)
    assert len(looks) == 1
    alive.after(5)
    assert len(looks) == 2, "a look takes half a second, so after twenty times as long"
    alive.daemon.pipeline.left[alive.root / "Note.md"] = hashlib.sha256(NOTE.encode()).hexdigest()
    alive.daemon.changes.add("Note.md")
    alive.daemon.changes.add("vaultlab/other.md")
    alive.after(PARSE_S)
    assert len(looks) == 2, "nor does a note that stands as we have left it"
    alive.save("Note.md", NOTE.replace("number: 1", "number: 3"))
    alive.after(PARSE_S)
    assert len(looks) == 3, "what an author writes meanwhile is looked at soon all the same"


def test_what_ran_leaves_nothing_behind_in_a_daemon(alive: Alive) -> None:
    for number in range(1, 4):
        alive.save("Note.md", NOTE.replace("number: 1", f"number: {number}"))
        alive.settle()
    assert len(alive.ran) == 3
    assert not alive.daemon.pipeline.tried


def test_back_to_what_it_was_before_runs_again(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    first = alive.read("Note.md")
    alive.save("Note.md", first.replace("number: 1", "number: 3"))
    alive.settle()
    alive.save("Note.md", first)
    alive.settle()
    assert [ask.fields["number"] for ask in alive.asked] == [1, 3, 1]
    assert alive.states() == {"two": "fresh"}


def test_a_deleted_result_note_comes_back(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.after(60)
    (alive.root / "vaultlab/two.md").unlink()
    alive.daemon.changes.add("vaultlab/two.md")
    alive.settle()
    assert "[!success]" in alive.page()


def test_what_the_machine_could_not_do_is_not_tried_for_ever(alive: Alive) -> None:
    alive.answer = lambda ask, _: Failure(ask.id, "environment", "No memory.", "Take smaller numbers.")
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.after(700)
    alive.settle()
    assert len(alive.asked) == 1
    assert "No memory." in alive.page()
    alive.answer = answer
    alive.daemon.ask_for(Request(("two",)))
    alive.settle()
    assert alive.states() == {"two": "fresh"}


def test_an_edit_during_its_run_cancels_the_older_run_and_writes_nothing_of_it(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def edits(ask: Ask, progress: object) -> None:
        if len(alive.asked) == 1:
            alive.save("Note.md", NOTE.replace("number: 1", "number: 2"))
            alive.after(RUN_S + 0.1)
            alive.after(0.1)
            assert alive.cancelled == {"two"}

    alive.during = edits
    assert alive.daemon.work()
    assert not (alive.root / "vaultlab/two.md").exists()
    alive.settle()
    assert [ask.fields["number"] for ask in alive.asked] == [1, 2]
    assert alive.states() == {"two": "fresh"}


def test_a_claim_edited_during_its_run_is_judged_in_the_end(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def edits(ask: Ask, progress: object) -> None:
        if len(alive.asked) == 1:
            alive.save("Note.md", NOTE.replace("twice = 2", "twice > 5"))
            alive.after(RUN_S + 0.1)

    alive.during = edits
    alive.daemon.work()
    alive.settle()
    assert "lab_verdict: refuted" in alive.page()


def test_a_block_deleted_during_its_run_is_cancelled(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def deletes(ask: Ask, progress: object) -> None:
        alive.save("Note.md", "No block.\n")
        alive.after(PARSE_S)
        alive.after(RUN_S)
        alive.daemon.changes.add("Else.md")
        alive.after(PARSE_S)
        alive.after(0.1)
        assert alive.cancelled

    alive.during = deletes
    alive.daemon.work()
    alive.settle()
    assert not (alive.root / "vaultlab/two.md").exists()


def test_a_fence_that_is_being_typed_takes_no_run_and_no_embed_away(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def types(ask: Ask, progress: object) -> None:
        alive.save("Note.md", NOTE + "\n```vaultlab\ndouble: new\n")
        alive.after(PARSE_S)
        alive.after(QUIET_S + 1)
        assert alive.cancelled == set()

    alive.during = types
    alive.daemon.work()
    alive.settle()
    assert Journal(alive.root).owed(), "the embed is still owed"
    assert "![[" not in alive.read("Note.md")
    alive.save("Note.md", NOTE)
    alive.settle()
    assert alive.read("Note.md").count("![[vaultlab/two#^result]]") == 1


# -- order ---------------------------------------------------------------------------------------------------------


def test_what_was_typed_last_runs_first(alive: Alive) -> None:
    for name in ("a", "b", "c"):
        alive.save(f"{name}.md", NOTE.replace("double: two", f"double: {name}"))
        alive.after(PARSE_S + 0.05)
    alive.after(RUN_S)
    assert alive.queued == ["c", "a", "b"]
    alive.save("b.md", NOTE.replace("double: two", "double: b").replace("number: 1", "number: 7"))
    alive.after(RUN_S + 0.01)
    assert alive.queued[0] == "b"
    assert {job.block: job.priority for job in alive.jobs.pending()}["c"] == Priority.RECENT


@pytest.mark.parametrize(("eta_s", "yields"), [(5.0, False), (500.0, True), (None, True)])
def test_long_work_makes_way_for_the_note_being_edited(alive: Alive, eta_s: float | None, yields: bool) -> None:
    alive.write("Long.md", NOTE.replace("double: two", "double: long"))
    alive.daemon.changes.add("vaultlab/x.md")
    alive.after(RUN_S + 1)

    def edits(ask: Ask, progress: Callable[[Progress], None]) -> None:
        if ask.id == "long" and len(alive.asked) == 1:
            progress(Progress("long", "training", 1, 100, eta_s))
            alive.save("Note.md", NOTE)
            alive.after(RUN_S)
            began = alive.clock
            while not alive.cancelled and alive.clock < began + 7:
                alive.after(0.5)
            assert bool(alive.cancelled) == yields

    alive.during = edits
    alive.daemon.work()
    assert alive.queued == (["two", "long"] if yields else ["two"])
    alive.settle()
    assert alive.ran == (["long", "two", "long"] if yields else ["long", "two"])
    assert alive.states() == {"two": "fresh", "long": "fresh"}


def test_a_run_that_always_says_it_is_about_to_end_makes_way_too(alive: Alive) -> None:
    """Each phase of a run, or each point of a sweep, may say so."""
    alive.write("Long.md", NOTE.replace("double: two", "double: long"))
    alive.daemon.changes.add("vaultlab/x.md")
    alive.after(RUN_S + 1)

    def edits(ask: Ask, progress: Callable[[Progress], None]) -> None:
        if ask.id == "long" and len(alive.asked) == 1:
            alive.save("Note.md", NOTE)
            alive.after(RUN_S)
            began = alive.clock
            while not alive.cancelled:
                progress(Progress("long", "training", 1, 100, 1.0))
                alive.after(0.5)
            assert YIELD_S / 2 < alive.clock - began < YIELD_S

    alive.during = edits
    alive.daemon.work()
    alive.settle()
    assert alive.ran == ["long", "two", "long"]


def test_only_what_is_as_urgent_is_named_with_a_block(alive: Alive) -> None:
    """What others want of the same text must not keep the note being edited waiting."""
    for id in ("a", "b"):
        alive.write(f"{id}.md", NOTE.replace("double: two", f"double: {id}"))
    alive.daemon.changes.add("vaultlab/x.md")
    alive.after(RUN_S + 1)
    alive.save("Note.md", NOTE + "\n" + OTHER)
    alive.after(RUN_S)
    alive.settle()
    assert [(ask.id, [one.id for one in ask.beside]) for ask in alive.asked] == [
        ("two", ["other"]),
        ("other", []),
        ("a", ["b"]),
        ("b", []),
    ]


def test_manual_and_frozen_blocks_wait_for_a_hand(alive: Alive) -> None:
    alive.save("Note.md", NOTE.replace("number: 1", "number: 1\nrun: manual"))
    alive.settle()
    assert alive.asked == []
    alive.daemon.ask_for(Request(("two",), named=True))
    assert alive.jobs.pending()[0].priority == Priority.BY_HAND
    alive.settle()
    assert alive.ran == ["two"]


def test_by_hand_a_deleted_embed_comes_back_and_force_runs_what_is_fresh(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.after(60)
    alive.save("Note.md", NOTE)
    alive.settle()
    assert "![[" not in alive.read("Note.md")
    alive.daemon.ask_for(Request(("two",), force=True))
    alive.settle()
    assert "![[" not in alive.read("Note.md")
    alive.daemon.ask_for(Request(("two",), force=True, named=True))
    alive.settle()
    assert "![[" in alive.read("Note.md")
    assert [ask.force for ask in alive.asked] == [False, True, True]


def test_an_embed_deleted_after_its_block_was_asked_for_stays_deleted(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.daemon.ask_for(Request(("two",), force=True, named=True))
    alive.save("Note.md", NOTE)
    alive.settle()
    assert alive.ran == ["two", "two"]
    assert "![[" not in alive.read("Note.md"), "whoever deletes it has the last word"


def test_edited_back_to_what_is_answered_the_run_of_the_other_is_stopped(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    answered = alive.read("Note.md")
    page = alive.page()
    alive.save("Note.md", answered.replace("number: 1", "number: 3"))
    alive.after(RUN_S)

    def back(ask: Ask, progress: object) -> None:
        alive.save("Note.md", answered)
        alive.after(RUN_S)
        alive.after(0.1)
        assert alive.cancelled == {"two"}

    alive.during = back
    alive.daemon.work()
    alive.settle()
    assert [ask.fields["number"] for ask in alive.asked] == [1, 3]
    assert alive.page() == page


def test_a_note_that_moves_during_its_run_and_back_is_named_as_it_is(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def moves(ask: Ask, progress: object) -> None:
        (alive.root / "Note.md").rename(alive.root / "Moved.md")

    alive.during = moves
    alive.daemon.work()
    alive.during = lambda ask, progress: None
    assert 'lab_note: "[[Moved]]"' in alive.page()
    (alive.root / "Moved.md").rename(alive.root / "Note.md")
    alive.changed("Note.md")
    alive.settle()
    assert 'lab_note: "[[Note]]"' in alive.page()
    assert alive.states() == {"two": "fresh"}


def test_what_is_not_there_cannot_be_asked_for(alive: Alive) -> None:
    with pytest.raises(NoteError, match="No block"):
        alive.daemon.ask_for(Request(("nowhere",)))


def test_cancelled_by_hand_is_not_begun_again(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)
    assert alive.daemon.cancel("two")
    assert not alive.daemon.cancel("two")
    alive.settle()
    assert alive.asked == []
    alive.save("Note.md", NOTE.replace("number: 1", "number: 2"))
    alive.after(RUN_S)
    alive.during = lambda ask, progress: alive.daemon.cancel("two") and None
    alive.daemon.work()
    alive.settle()
    assert not (alive.root / "vaultlab/two.md").exists()
    assert alive.jobs.last(str(alive.root), "two").state == "cancelled"


def test_a_large_sweep_waits_and_it_is_said_once(alive: Alive) -> None:
    alive.save("Note.md", NOTE.replace("number: 1", 'sweep: {number: "1..300"}').replace("twice = 2", "twice < 700"))
    alive.settle()
    assert alive.asked == []
    said = "two waits: its sweep has 300 points, and more than 200 run only when asked for."
    assert alive.told == [f"{said} To run it: vaultlab render --id two"]
    alive.daemon.ask_for(Request(("two",), named=True))
    alive.settle()
    assert [len(ask.points) for ask in alive.asked] == [300]
    assert alive.asked[0].limits.points == 300
    assert alive.outcomes[-1].verdict == "supported"


def test_many_new_runs_wait_until_somebody_says_so(alive: Alive) -> None:
    for number in range(MANY + 1):
        alive.write(f"{number}.md", NOTE.replace("double: two", f"double: n{number}"))
    alive.daemon.changes.add("0.md")
    alive.settle()
    assert alive.asked == []
    (sentence,) = [one for one in alive.told if isinstance(one, str)]
    assert f"{MANY + 1} blocks" in sentence
    assert "vaultlab render" in sentence
    alive.save("7.md", NOTE.replace("double: two", "double: n7").replace("number: 1", "number: 2"))
    alive.settle()
    assert alive.ran == ["n7"], "what is edited runs all the same"
    alive.daemon.ask_for(Request(tuple(f"n{number}" for number in range(MANY + 1) if number != 7)))
    alive.settle()
    assert len(alive.asked) == MANY + 1
    assert set(alive.states().values()) == {"fresh"}


def test_what_the_store_has_needs_no_asking(alive: Alive) -> None:
    alive.stored = True
    for number in range(MANY + 1):
        alive.write(f"{number}.md", NOTE.replace("double: two", f"double: n{number}"))
    alive.daemon.changes.add("0.md")
    alive.settle()
    assert len(alive.asked) == MANY + 1


# -- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_is_written_once_its_note_is_quiet(alive: Alive) -> None:
    alive.save("Note.md", NOTE.replace("twice = 2", "twise = 2"))
    alive.after(RUN_S)
    assert not (alive.root / "vaultlab/two.md").exists()
    alive.after(QUIET_S)
    assert "[!error]" in alive.page()
    assert len(alive.outcomes) == 1
    alive.settle()
    assert len(alive.outcomes) == 1
    alive.save("Note.md", NOTE)
    alive.settle()
    assert "[!error]" not in alive.page()


def test_a_refusal_is_said_and_not_asked_for_again(alive: Alive) -> None:
    alive.answer = lambda ask, _: Refusal(ask.id, "`number` is 1.", "Take another.", field="number")
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.after(700)
    alive.settle()
    assert len(alive.asked) == 1
    assert alive.states() == {"two": "failed"}
    assert alive.jobs.last(str(alive.root), "two").state == "failed"


def test_problems_of_notes_are_listed_when_they_are_quiet(alive: Alive) -> None:
    alive.save("Note.md", "---\ntags: [experiment\n---\n```vaultlab\ndouble: two\n```\n")
    alive.after(RUN_S)
    assert not (alive.root / "vaultlab/problems.md").exists()
    alive.after(QUIET_S)
    assert "Note" in alive.read("vaultlab/problems.md")
    alive.save("Note.md", NOTE)
    alive.settle()
    assert not (alive.root / "vaultlab/problems.md").exists()


def test_what_takes_the_worker_down_is_tried_twice_in_all(alive: Alive) -> None:
    def dies(ask: Ask, progress: object) -> Answer:
        alive.deaths[ask.id] = alive.deaths.get(ask.id, 0) + 1
        return Failure(ask.id, "environment", "The worker died.", "")

    alive.answer = dies
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)
    alive.daemon.work()
    assert not (alive.root / "vaultlab/two.md").exists()
    assert alive.queued == ["two"]
    alive.restart()
    alive.settle()
    assert len(alive.asked) == 2
    assert "The worker died" in alive.page()
    alive.restart()
    alive.settle()
    assert len(alive.asked) == 2, "remembered over a restart"
    alive.answer = answer
    alive.daemon.ask_for(Request(("two",), force=True))
    alive.settle()
    assert alive.states() == {"two": "fresh"}


def test_a_vault_that_is_away_for_a_while_is_waited_for(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)
    away = alive.root.with_name("away")
    alive.root.rename(away)
    alive.daemon.changes.add("Note.md")
    alive.clock += PARSE_S + 0.1
    with pytest.raises(VaultError, match="no vault"):
        alive.daemon.tick()
    away.rename(alive.root)
    alive.settle()
    assert alive.states() == {"two": "fresh"}


def test_a_result_that_met_half_a_note_is_written_when_the_note_is_whole(alive: Alive) -> None:
    alive.save("First.md", NOTE.replace("double: two", "double: first"))
    alive.settle()
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)

    def halves(ask: Ask, progress: object) -> None:
        alive.write("Note.md", NOTE[:40])

    alive.during = halves
    alive.daemon.work()
    alive.during = lambda ask, progress: None
    alive.save("Note.md", NOTE)
    alive.settle()
    assert alive.states() == {"first": "fresh", "two": "fresh"}


def test_a_vault_that_goes_away_during_a_run_is_not_made_anew(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)
    away = alive.root.with_name("away")
    alive.during = lambda ask, progress: alive.root.rename(away) and None
    alive.daemon.work()
    with pytest.raises(VaultError, match="no vault"):
        alive.settle()
    assert not alive.root.exists()
    alive.during = lambda ask, progress: None
    away.rename(alive.root)
    alive.daemon.changes.add(EVERYTHING)
    alive.settle()
    assert alive.states() == {"two": "fresh"}
    assert "![[vaultlab/two" in alive.read("Note.md")


def test_a_job_that_nobody_could_look_at_is_taken_again(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(RUN_S)
    alive.restart()
    (alive.root / "vaultlab").symlink_to(alive.owner)
    with pytest.raises(NoteError, match="out of the vault"):
        alive.daemon.work()
    assert [job.state for job in alive.jobs.pending()] == ["queued"]
    (alive.root / "vaultlab").unlink()
    alive.settle()
    assert alive.ran == ["two"]
    assert alive.states() == {"two": "fresh"}


def test_what_was_being_edited_when_a_look_failed_goes_first_all_the_same(alive: Alive) -> None:
    alive.save("Other.md", OTHER.replace("```vaultlab", "---\ntags: [experiment]\n---\n```vaultlab"))
    alive.save("Note.md", NOTE)
    (alive.root / "vaultlab").symlink_to(alive.owner)
    alive.clock += PARSE_S + 0.1
    with pytest.raises(NoteError, match="out of the vault"):
        alive.daemon.tick()
    (alive.root / "vaultlab").unlink()
    alive.daemon.changes.add(EVERYTHING)
    alive.after(RUN_S)
    assert next((job.block, job.priority) for job in alive.jobs.pending()) == ("two", Priority.EDITING)


# -- lives -------------------------------------------------------------------------------------------------------


def test_a_restart_goes_on_with_the_queue(alive: Alive) -> None:
    alive.save("Note.md", NOTE + "\n" + OTHER)
    alive.after(RUN_S)

    def dies(ask: Ask, progress: object) -> None:
        raise KeyboardInterrupt

    alive.during = dies
    with pytest.raises(KeyboardInterrupt):
        alive.daemon.work()
    assert alive.jobs.pending()[0].state == "running"
    alive.during = lambda ask, progress: None
    alive.asked.clear()
    alive.restart()
    assert alive.queued == ["two", "other"]
    alive.settle()
    assert sorted(alive.ran) == ["other", "two"], "and nothing twice"
    assert set(alive.states().values()) == {"fresh"}


def test_what_became_stale_while_no_daemon_ran_runs(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.jobs.close()
    alive.write("Note.md", alive.read("Note.md").replace("number: 1", "number: 4"))
    alive.start()
    alive.settle()
    assert alive.states() == {"two": "fresh"}
    assert [ask.fields["number"] for ask in alive.asked] == [1, 4]


def test_nothing_is_lost_where_no_event_comes(alive: Alive) -> None:
    alive.write("Note.md", NOTE)
    alive.after(1)
    assert alive.queued == []
    alive.after(daemon.LOOK_S)
    alive.settle()
    assert alive.states() == {"two": "fresh"}


def test_one_daemon_a_vault(alive: Alive) -> None:
    assert presence.present(alive.root) is None
    with presence.attend(alive.root):
        assert presence.present(alive.root) == {"pid": os.getpid()}
        with pytest.raises(NoteError, match="watched already"), presence.attend(alive.root):
            pass
    assert presence.present(alive.root) is None


def test_a_request_from_beside_is_queued_and_answered(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.settle()
    with presence.attend(alive.root):
        asking = threading.Thread(target=presence.request, args=(alive.root, Request(("two",), force=True)))
        asking.start()
        while asking.is_alive():
            alive.after(0.01)
            time.sleep(0.01)
        assert alive.queued == ["two"]
        assert alive.jobs.pending()[0].forced
    with pytest.raises(RunError, match="does not answer"):
        presence.request(alive.root, Request(("two",)))


def test_other_commands_can_write_between(alive: Alive) -> None:
    with lock(alive.root, 0):
        pass
    alive.save("Note.md", NOTE)
    alive.during = lambda ask, progress: _free(alive.root)
    alive.settle()
    assert alive.ran == ["two"]


def _free(root: Path) -> None:
    with lock(root, 0):
        pass


@contextmanager
def serving(alive: Alive, now: Callable[[], float] = time.time) -> Iterator[None]:
    """The daemon in real time, on a thread of its own."""
    alive.jobs.close()
    alive.jobs = Jobs(home(alive.root) / "jobs.sqlite")
    way = Way(alive._way, alive.cancelled.add)
    alive.daemon = Daemon(alive.root, alive.look, way, alive.jobs, alive.told.append, now)
    config = alive.look().config
    serving = threading.Thread(
        target=alive.daemon.serve, args=(Watch(alive.root, lambda: config, alive.daemon.changes.add),)
    )
    serving.start()
    try:
        yield
    finally:
        alive.daemon.stop()
        serving.join(20)
        assert not serving.is_alive()


def _wait(until: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_after_the_machine_was_asleep_the_vault_is_looked_at(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changed meanwhile, on a drive that another machine writes to, has given no event."""
    monkeypatch.setattr(watch._Handler, "on_any_event", lambda self, event: None)
    slept = 0.0
    with serving(alive, lambda: time.time() + slept):
        _wait(lambda: alive.daemon.survey is not None)
        alive.write("Note.md", NOTE)
        time.sleep(1.0)
        assert alive.asked == []
        slept = 60.0
        _wait(lambda: alive.asked != [])
        _wait(lambda: alive.states() == {"two": "fresh"})


@pytest.mark.long
def test_in_real_time_edit_a_note_and_the_answer_is_there(alive: Alive) -> None:
    with serving(alive):
        alive.write("Note.md", NOTE)
        began = time.monotonic()
        _wait(lambda: (alive.root / "vaultlab/two.md").exists())
        assert time.monotonic() - began > RUN_S - 0.1
        _wait(lambda: "![[vaultlab/two#^result]]" in alive.read("Note.md"))
        assert time.monotonic() - began > QUIET_S - 0.1
        alive.write("Note.md", alive.read("Note.md").replace("number: 1", "number: 3"))
        _wait(lambda: "lab_verdict: refuted" in alive.page())
    assert alive.states() == {"two": "fresh"}
    assert len(alive.asked) == 2


@pytest.mark.long
def test_stopped_while_it_runs_the_block_stays_in_the_queue(alive: Alive) -> None:
    alive.during = lambda ask, progress: _wait(lambda: ask.id in alive.cancelled)
    with serving(alive):
        alive.write("Note.md", NOTE)
        _wait(lambda: alive.asked != [])
    assert alive.queued == ["two"]
    assert not (alive.root / "vaultlab/two.md").exists()
