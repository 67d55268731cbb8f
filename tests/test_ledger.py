"""The queue's file on disks that spoil it, fill up, or are another's."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.queue_user import order, user
from vaultlab.errors import RunError
from vaultlab.jobs import Job, Jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    queue = Jobs(tmp_path / "jobs.sqlite")
    yield queue
    queue.close()


def blocks(found: list[Job]) -> list[str]:
    return [job.block for job in found]


def queue_of(path: Path, number: int = 40) -> bytes:
    jobs = Jobs(path)
    for one in range(number):
        jobs.put(order(f"block {one}"))
    jobs.close()
    return path.read_bytes()


def test_the_file_is_its_owner_s_only(jobs: Jobs, tmp_path: Path) -> None:
    jobs.put(order("a"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"jobs.sqlite": 0o600, "jobs.sqlite-wal": 0o600, "jobs.sqlite-shm": 0o600}


def garbage(whole: bytes) -> bytes:
    return b"This was a queue once. " * 1000


def broken_head(whole: bytes) -> bytes:
    return b"\0" * 100 + whole[100:]


def broken_middle(whole: bytes) -> bytes:
    return whole[:4096] + b"\xff" * 8192 + whole[12288:]


def half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("spoil", [garbage, broken_head, broken_middle, half])
def test_a_broken_file_is_set_aside_with_a_sentence(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "jobs.sqlite"
    broken = spoil(queue_of(path))
    for number in (1, 2):
        path.write_bytes(broken)
        jobs = Jobs(path)
        assert jobs.said.startswith(f"The queue was broken; it was set aside as jobs.broken-{number}.sqlite, and a new")
        assert (tmp_path / f"jobs.broken-{number}.sqlite").read_bytes() == broken
        assert jobs.pending() == []
        jobs.put(order("a"))
        jobs.close()
    whole = Jobs(path)
    assert (whole.said, blocks(whole.pending())) == ("", ["a"])
    whole.close()


@pytest.mark.parametrize(("number", "left"), [(0, ["a"]), (400, [])])
def test_a_log_mends_its_file_or_goes_with_it(tmp_path: Path, number: int, left: list[str]) -> None:
    """Beside a new file, a log left by a kill would be taken for the new file's."""
    path, log = tmp_path / "jobs.sqlite", tmp_path / "jobs.sqlite-wal"
    queue_of(path, number)
    jobs = Jobs(path) if number else Jobs(tmp_path / "new.sqlite")
    jobs.put(order("a"))
    written = (tmp_path / f"{jobs._ledger.path.name}-wal").read_bytes()
    jobs.close()
    path.write_bytes(b"\xff" * path.stat().st_size)
    log.write_bytes(written)
    jobs = Jobs(path)
    assert blocks(jobs.pending()) == left
    assert bool(jobs.said) == bool(number)
    jobs.put(order("b"))
    assert blocks(jobs.pending()) == [*left, "b"]
    jobs.close()


def test_a_log_that_somebody_looks_into_goes_with_its_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    queue_of(path, 400)
    writing, looking = Jobs(path), Jobs(path, read_only=True)
    writing.put(order("a"))
    assert len(looking.pending()) == 401
    writing.close()  # leaves the log to the other
    path.write_bytes(b"\xff" * path.stat().st_size)
    jobs = Jobs(path)
    assert "was broken" in jobs.said
    assert {one.name for one in tmp_path.glob("*broken*")} == {
        f"jobs.broken-1.sqlite{end}" for end in ("", "-wal", "-shm")
    }
    jobs.put(order("b"))
    assert blocks(jobs.pending()) == ["b"]
    jobs.close()
    looking.close()


def test_who_only_looks_sets_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    path.write_bytes(garbage(b""))
    looking = Jobs(path, read_only=True)
    with pytest.raises(RunError, match="could not be used"):
        looking.pending()
    looking.close()
    assert [one.name for one in tmp_path.iterdir()] == ["jobs.sqlite"]


def test_another_version_s_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    queue_of(path)
    jobs = Jobs(path)
    jobs._ledger._db.execute("PRAGMA user_version = 99")
    jobs.close()
    jobs = Jobs(path)
    assert "was written by another version of vaultlab" in jobs.said
    assert jobs.pending() == []
    jobs.close()


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_whatever_bytes_are_spoilt_there_is_a_queue_or_a_sentence(flips: list[tuple[float, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.sqlite"
        content = bytearray(queue_of(path, 15))
        for at, change in flips:
            content[int(at * len(content))] ^= change
        path.write_bytes(content)
        try:
            jobs = Jobs(path)
        except RunError:
            return
        try:
            jobs.put(order("a"))
            for _ in range(20):
                job = jobs.take("me", 60.0)
                jobs.pending()
                if job is not None:
                    jobs.ask(job)
                    jobs.finish(job, "done")
        except RunError:
            pass  # said, and nothing else
        finally:
            jobs.close()


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with user(path, "fill") as process:
        out, err = process.communicate(timeout=60)
    lines = [line.split(maxsplit=1) for line in out.splitlines()]
    said = {word: rest for word, rest in lines if word != "put"}
    put = [int(rest) for word, rest in lines if word == "put"]
    assert "could not be used" in said["full"], err
    assert "has room" in said["full"]
    assert 0 < len(put) == int(said["kept"])
    assert said["after"] == "queued"
    jobs = Jobs(path)
    assert jobs.said == ""
    assert blocks(jobs.pending()) == [f"a{number}" for number in put] + ["z"]
    jobs.close()


def test_a_full_disk_is_called_by_its_name(jobs: Jobs) -> None:
    jobs.put(order("a"))
    ((pages,),) = jobs._ledger.rows("PRAGMA page_count")
    jobs._ledger.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RunError, match="the disk is full") as told:
        jobs.put(order("b", text="word " * 100_000))
    assert "room" in told.value.hint
    job = jobs.take("me", 60.0)
    assert job is not None
    assert jobs.finish(job, "done")
    assert jobs.pending() == []


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"could not be used: .*No such file"):
        Jobs(tmp_path / "gone" / "jobs.sqlite")
