"""The daemon's sign of life in the vault, and whose a vault is that two machines watch."""

import json
import os
from pathlib import Path

import pytest

from vaultlab.errors import NoteError
from vaultlab.heart import BEAT_S, FRESH_S, Heart


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def heart(root: Path, clock: Clock, machine: str) -> Heart:
    made = Heart(root, 4711, clock, machine)
    made.beat()
    return made


def said(root: Path) -> dict[str, object]:
    return json.loads((root / ".vaultlab/daemon-desk.json").read_bytes())  # type: ignore[no-any-return]


def test_it_says_where_it_is_and_goes(tmp_path: Path, clock: Clock) -> None:
    one = heart(tmp_path, clock, "desk")
    here = {"protocol": 1, "port": 4711, "pid": os.getpid(), "machine": "desk"}
    assert said(tmp_path) == {**here, "since": 1_800_000_000, "beat": 1_800_000_000}
    one.stop()
    one.stop()
    assert list((tmp_path / ".vaultlab").iterdir()) == []


def test_it_beats_no_more_often_than_a_sync_tool_can_bear(tmp_path: Path, clock: Clock) -> None:
    one, times = heart(tmp_path, clock, "desk"), set()
    for _ in range(3600):
        clock.now += 1
        one.beat()
        times.add(said(tmp_path)["beat"])
    assert len(times) == 3600 / BEAT_S + 1
    clock.now -= 7200  # the clock was set back
    one.beat()
    assert said(tmp_path)["beat"] == int(clock.now)


def test_the_daemon_that_was_there_first_has_the_vault(tmp_path: Path, clock: Clock) -> None:
    first = heart(tmp_path, clock, "desk")
    clock.now += 30
    second = heart(tmp_path, clock, "attic")
    assert (first.elsewhere(), second.elsewhere()) == ("", "desk")
    first.stop()
    assert second.elsewhere() == ""


def test_of_two_that_begin_in_the_same_second_one_has_the_vault(tmp_path: Path, clock: Clock) -> None:
    one, other = heart(tmp_path, clock, "desk"), heart(tmp_path, clock, "attic")
    assert (one.elsewhere(), other.elsewhere()) == ("attic", "")


def test_a_daemon_that_died_holds_nobody_up_for_ever(tmp_path: Path, clock: Clock) -> None:
    heart(tmp_path, clock, "desk")
    clock.now += FRESH_S - 1
    second = heart(tmp_path, clock, "attic")
    assert second.elsewhere() == "desk"
    clock.now += 2
    assert second.elsewhere() == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"machine": 3, "since": 1, "beat": 1}', b'{"machine": "x"}', b"\xff\0", b" " * 10**6],
)
def test_what_is_no_sign_of_life_is_none(tmp_path: Path, clock: Clock, content: bytes) -> None:
    one = heart(tmp_path, clock, "desk")
    (tmp_path / ".vaultlab/daemon-other.json").write_bytes(content)
    assert one.elsewhere() == ""


def test_a_link_is_neither_followed_nor_written_through(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "vault").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "daemon-other.json").write_text(json.dumps({"machine": "other", "since": 1, "beat": int(clock.now)}))
    (tmp_path / "vault/.vaultlab").symlink_to(outside)
    one = Heart(tmp_path / "vault", 4711, clock, "desk")
    with pytest.raises(NoteError, match="leads out of the vault"):
        one.beat()
    assert one.elsewhere() == ""
    one.stop()
    assert [path.name for path in outside.iterdir()] == ["daemon-other.json"]
