"""Finding, reading and writing: what is passed over, what is refused, and that no byte is lost."""

import errno
import hashlib
import os
import stat
import threading
import time
from contextlib import contextmanager, nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.errors import NoteError, RunError, VaultError
from vaultlab.vault import files
from vaultlab.vault.files import halfway, inside, look_again, quiet, read, replace, swap


def no_intent(path, old, new):
    return nullcontext()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def old_file(path, content, age_s=60):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def failing(monkeypatch, name, number, after=0):
    """Let the system call fail with this error from its call number `after` on."""
    real, calls = getattr(os, name), 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf# BOM\r\n", b"mixed\r\nends\n\rno end", "café".encode()])
def test_read_keeps_every_byte(vault, content):
    note = read(old_file(vault / "n.md", content))
    assert note.content == content
    assert note.text.encode() == content
    assert note.sha256 == sha(content)


def test_read_waits_until_two_looks_agree(vault, monkeypatch):
    """A note that is being saved in place is seen half: the first looks must not be taken for it."""
    note = vault / "n.md"
    note.write_text("half")
    states = iter(["half a", "half a note", "half a note.\n"])
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if text := next(states, None):
            note.write_text(text)

    monkeypatch.setattr(time, "sleep", pause)
    assert read(note).text == "half a note.\n"
    assert len(pauses) == 4


def test_read_gives_up_on_a_note_that_never_rests(vault, monkeypatch):
    note = vault / "n.md"
    note.write_text("x")
    monkeypatch.setattr(time, "sleep", lambda seconds: note.write_text(note.read_text() + "x"))
    with pytest.raises(VaultError, match="being written"):
        read(note)


def test_read_does_not_wait_for_an_old_note(vault, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("no need to wait"))
    for age_s in (60, -60):  # a clock may be wrong
        assert read(old_file(vault / "n.md", b"x", age_s)).text == "x"


def test_read_in_words(vault, tmp_path):
    with pytest.raises(VaultError, match=r"n\.md is not there any more"):
        read(vault / "n.md")
    with pytest.raises(NoteError, match=r"not UTF-8: byte 0xff on line 3") as caught:
        read(old_file(vault / "latin.md", b"one\ntwo\n\xff"))
    assert caught.value.line == 3
    (tmp_path / "out.md").write_text("x")
    (vault / "link.md").symlink_to(tmp_path / "out.md")
    with pytest.raises(NoteError, match=r"link\.md is a link"):
        read(vault / "link.md")
    os.mkfifo(vault / "pipe.md")
    with pytest.raises(NoteError):
        read(vault / "pipe.md")


def test_what_stands_at_a_path(vault, monkeypatch):
    page = vault / "p.md"
    assert look_again(page) is None
    page.write_bytes(b"x")
    assert look_again(page) == b"x"
    fd = os.open(page, os.O_RDWR)
    files._lease(fd)  # somebody is writing it
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(VaultError, match="being written"):
        look_again(page)
    os.close(fd)
    (vault / "link.md").symlink_to(page)
    with pytest.raises(NoteError, match="is a link"):
        look_again(vault / "link.md")


def test_swap_in_place(vault):
    note = old_file(vault / "n.md", b"one\r\ntwo")
    note.chmod(0o640)
    before = note.stat()
    swap(note, sha(b"one\r\ntwo"), b"one\r\nembed\r\ntwo", no_intent)
    after = note.stat()
    assert note.read_bytes() == b"one\r\nembed\r\ntwo"
    assert (after.st_ino, stat.S_IMODE(after.st_mode)) == (before.st_ino, 0o640)
    assert time.time() - after.st_mtime < 10  # the system's own time: Obsidian must see that it changed


def test_swap_writes_nothing_where_nothing_changes(vault):
    note = old_file(vault / "n.md", b"same")
    before = note.stat().st_mtime_ns
    swap(note, sha(b"same"), b"same", no_intent)
    assert note.stat().st_mtime_ns == before


def test_swap_refuses_a_note_that_has_changed(vault):
    note = old_file(vault / "n.md", b"the author's newest")
    with pytest.raises(VaultError, match="changed since it was read"):
        swap(note, sha(b"what was read"), b"ours", no_intent)
    assert note.read_bytes() == b"the author's newest"


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="leases are Linux's")
def test_swap_holds_everybody_off_while_it_writes(vault):
    note = old_file(vault / "n.md", b"old")
    tried = []

    @contextmanager
    def intent(path, old, new):
        with pytest.raises(BlockingIOError):
            os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        tried.append((old, new))
        yield

    swap(note, sha(b"old"), b"new", intent)
    assert tried == [(b"old", b"new")]
    # ... and somebody who waits gets in afterwards, and writes last
    editor = threading.Thread(target=lambda: note.write_bytes(b"the author's"))

    @contextmanager
    def meanwhile(path, old, new):
        editor.start()
        time.sleep(0.05)
        assert editor.is_alive()
        yield

    swap(note, sha(b"new"), b"newer", meanwhile)
    editor.join(timeout=10)
    assert note.read_bytes() == b"the author's"


def test_swap_leaves_a_note_alone_that_is_open_elsewhere(vault):
    note = old_file(vault / "n.md", b"old")
    with note.open("rb+"), pytest.raises(VaultError, match="open in another program"):
        swap(note, sha(b"old"), b"new", no_intent)
    assert note.read_bytes() == b"old"


def test_swap_notices_a_rename_over_the_note(vault):
    """Editors that save by rename break no lease: their version stays, and ours is told to be made again."""
    note = old_file(vault / "n.md", b"old")

    @contextmanager
    def intent(path, old, new):
        (vault / ".tmp").write_bytes(b"the author's")
        os.replace(vault / ".tmp", note)
        yield

    with pytest.raises(VaultError, match="changed while it was written"):
        swap(note, sha(b"old"), b"new", intent)
    assert note.read_bytes() == b"the author's"


def test_without_leases_it_reads_again_after_writing(vault, monkeypatch):
    note = old_file(vault / "n.md", b"old")
    monkeypatch.setattr(files, "_lease", lambda fd: False)
    real = os.fsync

    def other_writer(fd):
        real(fd)
        note.write_bytes(b"somebody else's")

    swap(note, sha(b"old"), b"new", no_intent)
    assert note.read_bytes() == b"new"
    monkeypatch.setattr(os, "fsync", other_writer)
    with pytest.raises(VaultError, match="changed while it was written"):
        swap(note, sha(b"new"), b"newer", no_intent)


@pytest.mark.parametrize(("call", "number"), [("pwrite", 1), ("pwrite", 2), ("fsync", 1)])
def test_a_full_disk_leaves_the_note_as_it_was(vault, monkeypatch, call, number):
    note = old_file(vault / "n.md", b"one\ntwo\n")
    real, calls = getattr(os, call), 0

    def fails_once(*args):
        nonlocal calls
        calls += 1
        if calls == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, call, fails_once)
    with pytest.raises(RunError, match=r"n\.md could not be written: the disk is full\. Nothing was lost"):
        swap(note, sha(b"one\ntwo\n"), b"one\nembed\ntwo\n", no_intent)
    assert note.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.EROFS, RunError, "read-only"),
        (errno.EACCES, RunError, "not allowed"),
        (errno.ENOSPC, RunError, "disk is full"),
        (errno.EIO, RunError, "Input/output error"),
    ],
)
def test_writing_in_words(vault, monkeypatch, number, kind, sentence):
    note = old_file(vault / "n.md", b"old")
    with monkeypatch.context() as patch:
        failing(patch, "open", number)
        with pytest.raises(kind, match=sentence):
            swap(note, sha(b"old"), b"new", no_intent)
        with pytest.raises(kind, match=sentence):
            replace(vault / "new.md", b"new")
    assert sorted(os.listdir(vault)) == ["n.md"]


@pytest.mark.parametrize("call", ["pwrite", "fsync", "replace", "fchmod"])
def test_replace_fails_whole(vault, monkeypatch, call):
    page = old_file(vault / "p.md", b"old")
    with monkeypatch.context() as patch:
        failing(patch, call, errno.ENOSPC)
        with pytest.raises(RunError, match="disk is full"):
            replace(page, b"new")
    assert page.read_bytes() == b"old"
    assert os.listdir(vault) == ["p.md"]


def test_replace(vault):
    page = vault / "vaultlab/figures/f.svg"
    assert replace(page, b"one")
    assert page.read_bytes() == b"one"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(page.stat().st_mode) == 0o666 & ~umask
    page.chmod(0o600)
    before = page.stat()
    assert not replace(page, b"one")
    assert page.stat().st_mtime_ns == before.st_mtime_ns
    assert page.stat().st_ino == before.st_ino
    assert replace(page, b"two")
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert os.listdir(page.parent) == ["f.svg"]


def test_replace_never_overwrites_what_is_not_ours(vault, tmp_path):
    note = old_file(vault / "vaultlab/pentagon.md", b"my own thoughts")
    with pytest.raises(NoteError, match="a file of yours") as caught:
        replace(note, b"ours", ours=lambda content: b"lab_ask" in content)
    assert caught.value.field == "id"
    assert note.read_bytes() == b"my own thoughts"
    note.write_bytes(b"lab_ask: 1")
    assert replace(note, b"lab_ask: 2", ours=lambda content: b"lab_ask" in content)
    (tmp_path / "out.md").write_text("lab_ask")
    (vault / "link.md").symlink_to(tmp_path / "out.md")
    with pytest.raises(NoteError, match="is a link"):
        replace(vault / "link.md", b"ours")
    assert (tmp_path / "out.md").read_text() == "lab_ask"
    (vault / "p.md").mkdir()
    with pytest.raises(NoteError, match="each other's place"):
        replace(vault / "p.md", b"ours")
    with pytest.raises(NoteError, match="each other's place"):
        replace(note / "below.md", b"ours")


@pytest.mark.parametrize(
    "path",
    [
        "../x.md",
        "a/../../x.md",
        "a/..",
        "/etc/passwd",
        "C:\\x.md",
        "c:/x.md",
        "\\\\host\\x",
        "out/x.md",
        "out",
        "leaf.md",
        "loop/x.md",
        "null\0.md",
    ],
)
def test_no_path_leads_out_of_the_vault(vault, tmp_path, path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/x.md").write_text("x")
    (vault / "out").symlink_to(tmp_path / "beside")
    (vault / "leaf.md").symlink_to(tmp_path / "beside/x.md")
    (vault / "loop").symlink_to(vault / "loop")
    with pytest.raises(NoteError):
        inside(vault, path)


def test_paths_inside(vault, tmp_path):
    (tmp_path / "name-of-vault").symlink_to(vault)
    (vault / "real").mkdir()
    (vault / "alias").symlink_to(vault / "real")
    for root in (vault, tmp_path / "name-of-vault"):
        assert inside(root, "vaultlab/pentagon.md") == vault.resolve() / "vaultlab/pentagon.md"
        assert inside(root, "./a/..b.md") == vault.resolve() / "a/..b.md"
        assert inside(root, "alias/x.md") == vault.resolve() / "real/x.md"
    # a name that only begins like the vault's is another folder
    (tmp_path / "vault2").mkdir()
    (vault / "sly").symlink_to(tmp_path / "vault2")
    with pytest.raises(NoteError, match="out of the vault"):
        inside(vault, "sly/x.md")


def test_quiet(vault):
    note = old_file(vault / "n.md", b"x")
    written = note.stat().st_mtime
    assert not quiet(note, 5, written + 4.9)
    assert quiet(note, 5, written + 5)
    assert quiet(note, 5, written - 60)  # written in the future: a clock is wrong, and waiting would not end
    with pytest.raises(VaultError):
        quiet(vault / "gone.md", 5, 0)


SMALL = st.binary(max_size=6).map(lambda b: bytes(x % 3 for x in b))  # few letters: many coincidences


@given(old=SMALL, new=SMALL, state=SMALL)
def test_halfway_knows_exactly_the_states_that_a_write_leaves(old, new, state):
    """Against the list of states that the writes, one byte at a time, pass through."""
    left = {old, new}
    if len(new) > len(old):
        left |= {old + new[len(old) : at] for at in range(len(old), len(new) + 1)}
    for at in range(len(old) + 1):
        left.add(new[:at] + old[at:] + new[max(at, len(old)) :] if len(new) >= at else new + old[len(new) :])
    assert halfway(state, old, new) == (state in left)
    for reached in left:
        assert halfway(reached, old, new)


@given(old=st.binary(min_size=2, max_size=20), extra=st.binary(min_size=1, max_size=9), at=st.integers(0, 20))
def test_a_truncated_note_is_no_state_of_ours(old, extra, at):
    """A writer that truncates first would leave these: they are the author's, or a loss, and never repaired over."""
    at = min(at, len(old))
    new = old[:at] + extra + old[at:]
    assert not halfway(b"", old, new)
    assert not halfway(old[:-1], old, new)
