"""Crashes. A child process does the work and dies, without a word, between any two calls to the system."""

import errno
import hashlib
import json
import os
import random
import signal
import stat
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlab import places
from vaultlab.errors import RunError, VaultError
from vaultlab.vault.files import halfway, read, replace, swap
from vaultlab.vault.journal import Journal, home, lock

CALLS = ("open", "close", "pwrite", "ftruncate", "fsync", "replace", "unlink", "mkdir", "fchmod")


def dies(work, at, part=1.0):
    """Do the work in a child that dies before its call number `at` to the system; whether it did die.

    If that call writes, `part` of its bytes still get out.
    """
    pid = os.fork()
    if pid == 0:
        left = at

        def wrapped(name, real):
            def call(*args, **kwargs):
                nonlocal left
                left -= 1
                if left < 0:
                    if name == "pwrite":
                        real(args[0], args[1][: int(len(args[1]) * part)], args[2])
                    os._exit(9)
                return real(*args, **kwargs)

            return call

        try:
            for name in CALLS:
                setattr(os, name, wrapped(name, getattr(os, name)))
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), "the work itself failed"
    return code == 9


@contextmanager
def fresh():
    """A vault with a note and its state folder, for one example; in memory where that can be, for the many fsyncs."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, pytest.MonkeyPatch.context() as patch:
        top = Path(folder)
        patch.setattr(places, "state_dir", lambda: top / "state")
        root = top / "vault"
        root.mkdir()
        yield root


def sha(content):
    return hashlib.sha256(content).hexdigest()


def write(root, old, new):
    swap(root / "n.md", sha(old), new, Journal(root).intent)


def lay(root, content):
    (root / "n.md").write_bytes(content)


def rest(root):
    """Let the note have been written a while ago, so that nobody waits for a second look at it."""
    if (root / "n.md").exists():
        os.utime(root / "n.md", (time.time() - 60,) * 2)


def leave_half(root):
    """A note that a crash has left half written."""
    for at in range(100):
        lay(root, b"old")
        assert dies(lambda: write(root, b"old", b"new and longer"), at, 0.5)
        if (root / "n.md").read_bytes() not in (b"old", b"new and longer"):
            return (root / "n.md").read_bytes()
        rest(root)
        Journal(root).recover("vaultlab")
    raise AssertionError("no state in between was found")


def entries(root):
    return list((home(root) / "writes").glob("*"))


contents = st.binary(max_size=40) | st.text(max_size=20).map(str.encode)


@settings(max_examples=15, deadline=None)
@given(old=contents, new=contents, part=st.floats(0, 1))
def test_killed_anywhere_a_note_is_mended(old, new, part):
    with fresh() as root:
        at, died = 0, True
        while died:
            lay(root, old)
            died = dies(lambda: write(root, old, new), at, part)
            rest(root)
            assert halfway((root / "n.md").read_bytes(), old, new)
            Journal(root).recover("vaultlab")
            assert (root / "n.md").read_bytes() in ((old, new) if died else (new,))
            assert entries(root) == []
            assert os.listdir(root) == ["n.md"], "nothing to recover, nothing to say"
            assert Journal(root).recover("vaultlab") == []
            at += 1
        assert at > 5 or old == new


@pytest.mark.long
@settings(max_examples=5, deadline=None)
@given(old=contents, extra=st.binary(min_size=2, max_size=20), part=st.floats(0.1, 0.9))
def test_killed_while_it_mends(old, extra, part):
    """A crash in the repair of a crash is repaired like any other."""
    new = b"embed" + extra + old
    with fresh() as root:
        for first in range(100):
            lay(root, old)
            if not dies(lambda: write(root, old, new), first, part):
                break
            for second in range(100):
                rest(root)
                if not dies(lambda: Journal(root).recover("vaultlab"), second, part):
                    break
                assert halfway((root / "n.md").read_bytes(), old, new)
            assert (root / "n.md").read_bytes() in (old, new)
            assert entries(root) == []
        assert first > 5


@settings(max_examples=15, deadline=None)
@given(old=contents, new=contents, edited=contents, part=st.floats(0, 1))
def test_what_the_author_wrote_since_is_never_touched(old, new, edited, part):
    with fresh() as root:
        at, died = 0, True
        while died:
            lay(root, old)
            died = dies(lambda: write(root, old, new), at, part)
            lay(root, edited)
            rest(root)
            pending = len(list((home(root) / "writes").glob("*.json"))) > 0
            said = Journal(root).recover("vaultlab")
            if not halfway(edited, old, new):
                assert (root / "n.md").read_bytes() == edited
                copies = list((root / "vaultlab").rglob("*.md"))
                assert [copy.read_bytes() for copy in copies] == ([old] if pending else [])
                assert len(said) == len(copies)
                for copy in copies:
                    assert copy.relative_to(root).as_posix() in said[0]
                    copy.unlink()
            at += 1


def test_the_plain_way_to_write_would_be_caught(vault):
    """Truncate, then write: killed in between the note is gone, and these tests see it."""

    def plainly():
        fd = os.open(vault / "n.md", os.O_WRONLY | os.O_TRUNC)
        os.pwrite(fd, b"old and more", 0)
        os.close(fd)

    seen = []
    for at in range(4):
        lay(vault, b"old")
        dies(plainly, at, 0.0)
        seen.append(halfway((vault / "n.md").read_bytes(), b"old", b"old and more"))
    assert seen == [True, False, True, True]


def test_recover_where_the_note_has_gone_or_moved(vault):
    half = leave_half(vault)
    (vault / "n.md").rename(vault / "renamed.md")
    (sentence,) = Journal(vault).recover("vaultlab")
    (copy,) = (vault / "vaultlab/recovered").iterdir()
    assert copy.read_bytes() == b"old"
    assert copy.name in sentence
    assert (vault / "renamed.md").read_bytes() == half
    assert not (vault / "n.md").exists()


def test_recover_waits_for_a_note_that_is_open_elsewhere(vault):
    half = leave_half(vault)
    with (vault / "n.md").open("rb+"):
        (sentence,) = Journal(vault).recover("vaultlab")
    assert "open in another program" in sentence
    assert (vault / "n.md").read_bytes() == half
    (sentence,) = Journal(vault).recover("vaultlab")
    assert "whole again" in sentence
    assert (vault / "n.md").read_bytes() == b"new and longer"


def test_recover_never_follows_a_link_that_has_come_in_between(vault, tmp_path):
    half = leave_half(vault)
    outside = tmp_path / "outside.md"
    (vault / "n.md").rename(outside)
    (vault / "n.md").symlink_to(outside)
    Journal(vault).recover("vaultlab")
    assert outside.read_bytes() == half
    assert [c.read_bytes() for c in (vault / "vaultlab/recovered").iterdir()] == [b"old"]


def test_a_write_that_cannot_be_undone_stays_in_the_journal(vault, monkeypatch):
    lay(vault, b"one\ntwo\n")
    real, calls = os.pwrite, 0

    def full(*args):
        nonlocal calls
        calls += 1
        if calls > 2:  # the journal's entry and what lies beyond the old end get through
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(RunError, match="disk is full"):
            write(vault, b"one\ntwo\n", b"one\nembed\ntwo\n")
    assert len(entries(vault)) == 1
    Journal(vault).recover("vaultlab")
    assert (vault / "n.md").read_bytes() in (b"one\ntwo\n", b"one\nembed\ntwo\n")
    assert entries(vault) == []


def test_a_write_that_was_undone_leaves_no_entry(vault, monkeypatch):
    lay(vault, b"one\ntwo\n")
    real, calls = os.pwrite, 0

    def full_once(*args):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, "pwrite", full_once)
    with pytest.raises(RunError, match="disk is full"):
        write(vault, b"one\ntwo\n", b"one\nembed\ntwo\n")
    assert (vault / "n.md").read_bytes() == b"one\ntwo\n"
    assert entries(vault) == []


def test_no_journal_no_write(vault, monkeypatch):
    """If what a crash would be repaired from cannot be kept, the note is not touched."""
    lay(vault, b"old")
    (places.state_dir()).write_text("a file in the folder's place")
    with pytest.raises(Exception, match="each other's place"):
        write(vault, b"old", b"new")
    assert (vault / "n.md").read_bytes() == b"old"


def test_an_entry_that_cannot_be_read_is_put_aside(vault):
    folder = home(vault) / "writes"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text("{")
    assert len(Journal(vault).recover("vaultlab")) == 1
    assert Journal(vault).recover("vaultlab") == []


@settings(max_examples=15, deadline=None)
@given(old=st.none() | contents, new=contents, part=st.floats(0, 1))
def test_killed_anywhere_a_file_of_ours_is_whole(old, new, part):
    with fresh() as root:
        page = root / "vaultlab/p.md"
        at, died = 0, True
        while died:
            page.unlink(missing_ok=True)
            if old is not None:
                page.parent.mkdir(exist_ok=True)
                page.write_bytes(old)
            died = dies(lambda: replace(page, new), at, part)
            now = page.read_bytes() if page.exists() else None
            assert now in ((old, new) if died else (new,))
            Journal(root).recover("vaultlab")
            assert [p.name for p in page.parent.glob("*")] == (["p.md"] if now is not None else [])
            at += 1


@settings(max_examples=5, deadline=None)
@given(part=st.floats(0, 1))
def test_killed_anywhere_an_embed_is_owed_or_in(part):
    """The debt, the result note, the embed, paid: whatever the moment, a result without embed has its debt."""
    with fresh() as root:
        page = root / "vaultlab/p.md"

        def work():
            journal = Journal(root)
            journal.owe("p", "n.md")
            replace(page, b"lab_ask")
            write(root, b"claim", b"claim\n![[vaultlab/p]]")
            journal.paid("p")

        at, died = 0, True
        while died:
            page.unlink(missing_ok=True)
            Journal(root).paid("p")
            lay(root, b"claim")
            died = dies(work, at, part)
            rest(root)
            Journal(root).recover("vaultlab")
            embedded = b"![[vaultlab/p]]" in (root / "n.md").read_bytes()
            if page.exists() and not embedded:
                assert Journal(root).owed() == {"p": "n.md"}
            at += 1
        assert (embedded, Journal(root).owed()) == (True, {})
        assert at > 20


def test_debts(vault):
    journal = Journal(vault)
    assert journal.owed() == {}
    journal.owe("b", "deep/Nöte.md")
    journal.owe("a", "n.md")
    assert Journal(vault).owed() == {"a": "n.md", "b": "deep/Nöte.md"}
    journal.paid("b")
    journal.paid("never owed")
    assert journal.owed() == {"a": "n.md"}


def test_state_is_kept_apart_and_private(vault, tmp_path):
    Journal(vault).owe("a", "n.md")
    assert os.listdir(vault) == []
    assert stat.S_IMODE(home(vault).stat().st_mode) == 0o700
    (tmp_path / "name").symlink_to(vault)
    assert home(tmp_path / "name") == home(vault)
    assert home(tmp_path / "other") != home(vault)


def test_one_writer_at_a_time(vault):
    with lock(vault, 0):
        with pytest.raises(RunError, match=rf"process {os.getpid()}, since \d\d:\d\d:\d\d"), lock(vault, 0.1):
            pass
        (vault.parent / "other").mkdir()
        with lock(vault.parent / "other", 0):
            pass
    with lock(vault, 0):
        pass


def test_a_dead_holder_holds_nothing(vault):
    pid = os.fork()
    if pid == 0:
        lock(vault, 0).__enter__()
        os._exit(9)
    os.waitpid(pid, 0)
    with lock(vault, 0):
        pass


@pytest.mark.long
def test_killed_for_real(vault):
    """SIGKILL at a random moment, in a note large enough to be caught half written."""
    chance = random.Random(0)
    old = os.urandom(1 << 20).hex().encode()
    new = b"\n![[vaultlab/p]]\n" + old
    caught, whole = 0, 0.0
    for number in range(150):
        lay(vault, old)
        begun = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                write(vault, old, new)
            finally:
                os._exit(0)
        if number == 0:  # how long it takes on this machine, as busy as it is
            os.waitpid(pid, 0)
            whole = time.monotonic() - begun
            continue
        time.sleep(chance.uniform(0, whole))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        state = (vault / "n.md").read_bytes()
        caught += bool(entries(vault))
        assert halfway(state, old, new)
        Journal(vault).recover("vaultlab")
        assert (vault / "n.md").read_bytes() in (old, new)
        assert not (vault / "vaultlab").exists()
    assert caught


@pytest.mark.long
def test_two_writers_lose_no_byte(vault):
    """Five processes append a line each, over and over, as editors do that compare before they write."""
    note = vault / "n.md"
    note.write_bytes(b"")

    def append(who):
        for number in range(10):
            while True:
                try:
                    now = read(note)
                    swap(note, now.sha256, now.content + f"{who} {number}\n".encode(), Journal(vault).intent)
                    break
                except VaultError:
                    time.sleep(0.01)

    children = []
    for who in range(5):
        pid = os.fork()
        if pid == 0:
            try:
                append(who)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 5
    assert sorted(note.read_text().splitlines()) == sorted(f"{w} {n}" for w in range(5) for n in range(10))


def test_the_journal_holds_both_versions(vault):
    lay(vault, b"old")
    with Journal(vault).intent(vault / "n.md", b"old", b"new"):
        (entry,) = entries(vault)
        assert json.loads(entry.read_text()) == {"path": "n.md", "old": "b2xk", "new": "bmV3"}
    assert entries(vault) == []
