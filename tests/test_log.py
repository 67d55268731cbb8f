"""The daemon's log: all that happens, each on a line for programs, and nothing that stands in a note."""

import json
import logging
from typing import Any

import pytest

from tests.test_daemon import Alive, alive
from tests.test_pipeline import NOTE
from vaultlab.commands import log
from vaultlab.process import logs
from vaultlab.result import Answer, Ask, Failure, Refusal

__all__ = ["alive"]  # the fixture

SECRET = "Rosebud"
DIARY = (
    NOTE.replace("A claim.", f"{SECRET} in the prose.")
    .replace("text: hello", f"title: {SECRET}\ntext: {SECRET} in a field")
    .replace("The end.", f"%% {SECRET} %%")
)


def lines() -> list[dict[str, Any]]:
    said = [json.loads(line) for file in sorted(logs().glob("daemon.log*")) for line in file.read_text().splitlines()]
    assert all({"at", "level", "what"} <= one.keys() for one in said)
    return said


def told(block: str = "two") -> list[tuple[Any, ...]]:
    return [(one["what"], one.get("state")) for one in lines() if one.get("block") == block]


def test_a_job_is_told_from_the_queue_to_its_end(alive: Alive) -> None:
    with log.logged():
        alive.save("Note.md", NOTE)
        alive.settle()
    assert told() == [("queued", "missing"), ("began", None), ("ended", "done")]
    queued, began, ended = (one for one in lines() if one.get("block") == "two")
    assert queued["job"] == began["job"] == ended["job"]
    assert (queued["note"], queued["priority"], queued["forced"]) == ("Note.md", "editing", False)
    assert (ended["stored"], ended["verdict"]) == (False, "supported")
    assert ended["seconds"] >= 0


@pytest.mark.parametrize("wrong", ["fine", "refused", "broken", "machine", "field", "yaml", "ours"])
def test_nothing_of_a_note_is_in_it(alive: Alive, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    note = DIARY
    if wrong == "field":
        note = note.replace("number: 1", f"number: {SECRET}").replace("twice = 2", f"{SECRET} = 2")
    elif wrong == "yaml":
        note = note.replace("number: 1", f"number: [{SECRET}")
    elif wrong == "refused":
        alive.answer = lambda ask, p: Refusal(ask.id, f"`text` is {SECRET}.", field="text")
    elif wrong == "broken":
        alive.answer = lambda ask, p: Failure(ask.id, "deterministic", f"ValueError: {SECRET}")
    elif wrong == "machine":
        alive.answer = lambda ask, p: Failure(ask.id, "environment", "The worker died.", f"Its last words: {SECRET}")
    elif wrong == "ours":

        def fails(ask: Ask, progress: object) -> Answer:
            raise ZeroDivisionError(ask.texts["text"].parts)

        alive.answer = fails
    with log.logged():
        alive.save("Note.md", note)
        alive.settle()
        alive.save(
            "Note.md", note.replace(f"{SECRET} in a field", f"{SECRET} {SECRET}").replace("number: 1", "number: 3")
        )
        alive.settle()
    said = "\n".join(file.read_text() for file in logs().glob("daemon.log*"))
    assert SECRET not in said
    ended = [one for one in lines() if one["what"] in ("ended", "wrong")]
    assert len(ended) == (1 if wrong in ("field", "yaml") else 2), lines()
    if wrong == "machine":
        assert {one["why"] for one in ended} == {"The worker died."}
    if wrong == "ours":
        traces = [one["trace"] for one in lines() if "trace" in one]
        assert traces
        assert all(trace.startswith("ZeroDivisionError\n") for trace in traces)
        assert all("raise ZeroDivisionError(ask.texts" in trace for trace in traces)


def test_what_takes_the_worker_down_and_what_makes_way_is_told(alive: Alive) -> None:
    def falls(ask: Ask, progress: object) -> Answer:
        alive.deaths[ask.id] = alive.deaths.get(ask.id, 0) + 1
        return Failure(ask.id, "environment", "The worker died.")

    alive.answer = falls
    with log.logged():
        alive.save("Note.md", NOTE)
        alive.settle()
    assert [what for what, _ in told()].count("took the worker down") == 2
    assert ("set aside", None) in told()


def test_it_is_begun_anew_when_it_is_full(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOG_BYTES", 500)
    with log.logged():
        for number in range(60):
            logging.getLogger("vaultlab.lab").warning("The worker has ended: %d", number)
    logging.getLogger("vaultlab.lab").warning("This is after it.")
    files = sorted(path.name for path in logs().glob("daemon.log*"))
    assert files == ["daemon.log", *(f"daemon.log.{number}" for number in range(1, log.KEPT + 1))]
    assert all(path.stat().st_size <= 500 for path in logs().glob("daemon.log*"))
    assert "The worker has ended: 59" in (logs() / "daemon.log").read_text()
