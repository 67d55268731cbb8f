"""Read and write without losing a byte."""

import errno
import hashlib
import os
import re
import secrets
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vaultlab.errors import NoteError, RunError, VaultError

if sys.platform != "win32":
    import fcntl

Intent = Callable[[Path, bytes, bytes], AbstractContextManager[None]]
"""What stands around an in-place write, given (path, old, new): `Journal.intent`."""

TEMPORARY = ".vaultlab-tmp"
"""How the names of our temporary files end; they start with a dot, so that Obsidian does not see them."""

STILL_S = 0.1
"""A file last written so long ago is not being written now: one look at it is as good as two that agree."""
SETTLED_S = 2.0
"""The next change of a file last written so long ago will show in what `stat` says of it, however coarse its clock."""

_PAUSE_S = 0.05
_LOOKS = 8
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


Stat = tuple[int, int, int, int]
"""What tells that a file has changed: its modification time, size and inode, which a sync tool may leave as they were,
and the time of its last change of any kind, which nobody can set.
"""


def stat_of(info: os.stat_result) -> Stat:
    """Of the whole that the system says, what a change shows in."""
    return info.st_mtime_ns, info.st_size, info.st_ino, info.st_ctime_ns


@dataclass(frozen=True, slots=True)
class Look:
    """A file's bytes, at one moment."""

    content: bytes
    stat: Stat

    @property
    def still(self) -> bool:
        return self._age_s >= STILL_S or self.settled

    @property
    def settled(self) -> bool:
        return abs(self._age_s) >= SETTLED_S

    @property
    def _age_s(self) -> float:
        return time.time() - self.stat[0] / 1e9


@dataclass(frozen=True, slots=True)
class Read:
    """A note as two looks agreed on it. `text` keeps a BOM and every line end: text.encode() == content."""

    path: Path
    content: bytes
    text: str
    sha256: str


class HalfWritten(OSError):
    """A write broke off and could not be undone: the journal must keep what it knows."""


def look(path: Path) -> Look | None:
    """A file's bytes; None if it was being written. OSError as the system gives it; ELOOP for a link."""
    try:
        # Not to wait on another's lease, nor for ever on a pipe that is named like a note.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _NO_FOLLOW)
    except BlockingIOError:
        return None
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EISDIR, "It is not a file")
        content = _all(fd, before.st_size)
        after = os.fstat(fd)
    finally:
        os.close(fd)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, len(content)):
        return None
    return Look(content, stat_of(after))


def _all(fd: int, size: int) -> bytes:
    parts, at = [], 0
    while part := os.pread(fd, max(size - at, 0) + 1, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def read(path: Path) -> Read:
    """A note, once two looks agree.

    VaultError: it is gone or being written; NoteError: it is not UTF-8, or a link; RunError: it may not be read.
    """
    now = steady(path)
    text = decode(now.content, path.name)
    return Read(path, now.content, text, hashlib.sha256(now.content).hexdigest())


def steady(path: Path) -> Look:
    """A file's bytes, once two looks agree; errors as `read` has them."""
    seen: Look | None = None
    with in_words(path, "read"):
        for _ in range(_LOOKS):
            now = look(path)
            if now is not None and (now.still or (seen is not None and seen.content == now.content)):
                return now
            seen = now
            time.sleep(_PAUSE_S)
    raise VaultError(f"{path.name} is being written by another program.", "It is tried again later.")


def look_again(path: Path) -> bytes | None:
    """What stands at a path of ours now; None where nothing does. VaultError if it is being written."""
    with in_words(path, "read"):
        for _ in range(_LOOKS):
            try:
                now = look(path)
            except FileNotFoundError:
                return None
            if now is not None:
                return now.content
            time.sleep(_PAUSE_S)
    raise VaultError(f"{path.name} is being written by another program.", "It is tried again later.")


def decode(content: bytes, name: str) -> str:
    """The text of these bytes, BOM and line ends kept. NoteError if they are not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        mend = "Save it as UTF-8; until then it is left as it is."
        raise NoteError(
            f"{name} is not UTF-8: byte {content[error.start]:#04x} on line {line}.", mend, line=line
        ) from None


def swap(path: Path, old_sha256: str, new: bytes, intent: Intent) -> None:
    """Put `new` in the place of the bytes whose hash is `old_sha256`, in place: inode, mode and birth time stay.

    VaultError if the note is no longer what was read, or is open elsewhere: read again, try again. A crash at any point
    leaves a state for which `halfway` is true.
    """
    with in_words(path, "written"):
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | _NO_FOLLOW)
        try:
            leased = _lease(fd)
            old = _all(fd, os.fstat(fd).st_size)
            if hashlib.sha256(old).hexdigest() != old_sha256 or not _still_at(fd, path):
                raise VaultError(f"{path.name} has changed since it was read.", "It is read again.")
            if old == new:
                return
            with intent(path, old, new):
                _write(fd, old, new)
            moved = not _still_at(fd, path)
        finally:
            os.close(fd)  # gives the lease back too
        # Without a lease somebody may have written at the same moment: what is there now says so.
        if moved or (not leased and steady(path).content != new):
            raise VaultError(f"{path.name} was changed while it was written.", "It is read again.")


def _lease(fd: int) -> bool:
    """Keep everybody else from opening the file while we compare and write. False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    # A broken lease is told by SIGIO, which kills; SIGURG is ignored unless asked for.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    for _ in range(_LOOKS):
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:  # not our file, or a file system without leases
            return False
    raise VaultError("The note is open in another program.", "It is tried again later.")


def _still_at(fd: int, path: Path) -> bool:
    """Whether the path still leads to the open file: a rename breaks no lease."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    return False


def _write(fd: int, old: bytes, new: bytes) -> None:
    """What lies beyond the old end first: if the disk is full, no byte of the author's has been touched yet."""
    same = _alike(old, new)
    try:
        _put(fd, new[len(old) :], len(old))
        _put(fd, new[same : len(old)], same)
        if len(new) < len(old):
            os.ftruncate(fd, len(new))
        os.fsync(fd)
    except OSError as error:
        try:
            _put(fd, old[same:], same)
            os.ftruncate(fd, len(old))
        except OSError:
            raise HalfWritten(error.errno, error.strerror) from error
        raise


def _alike(a: bytes, b: bytes) -> int:
    """How many bytes the two begin with in common."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _put(fd: int, content: bytes, at: int) -> None:
    while content:
        done = os.pwrite(fd, content, at)
        content, at = content[done:], at + done


def halfway(state: bytes, old: bytes, new: bytes) -> bool:
    """Whether a `swap` of old for new, killed at some point, could have left exactly this; both ends count."""
    end = len(old)
    if len(state) < len(new) and len(state) >= end:
        return state[:end] == old and state[end:] == new[end : len(state)]
    if len(state) != max(len(new), end):
        return state == new
    same = _alike(state, new)
    if state[end:] != new[end:]:
        return False
    return state == new or state[same:end] == old[same:]


def replace(path: Path, content: bytes, ours: Callable[[bytes], bool] | None = None, *, lasting: bool = True) -> bool:
    """Write a file of ours, whole or not at all; False, and nothing written, where its bytes are already these.

    `ours` looks at the bytes that stand there: if they are not, a NoteError says so and the file stays. `lasting` is
    whether it outlives a power cut from now on: to wait for the disk may take a second where others write much.
    """
    with in_words(path, "written"):
        there = look_again(path)
        if there is not None and ours is not None and not ours(there):
            mend = "Give the block another `id`, or move that file elsewhere."
            raise NoteError(f"{path.name} is a file of yours; it is not overwritten.", mend, field="id")
        if there == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666)
            try:
                if there is not None:
                    os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
                _put(fd, content, 0)
                if lasting:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        if lasting:
            sync_folder(path.parent)
        return True


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, not only the bytes they stand for."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def in_words(path: Path, done: str) -> Iterator[None]:
    """The system's errors as sentences, sorted by who must act."""
    try:
        yield
    except OSError as error:
        name = path.name
        match error.errno:
            case errno.ENOENT:
                raise VaultError(f"{name} is not there any more.", "It is looked for again.") from error
            case errno.EAGAIN:
                raise VaultError(f"{name} is open in another program.", "It is tried again later.") from error
            case errno.ELOOP:
                mend = "Links are not followed; put the file itself there."
                raise NoteError(f"{name} is a link.", mend) from error
            case errno.ENAMETOOLONG:
                raise NoteError(f"{name[:40]}… is too long a name.", "Give it a shorter one.") from error
            case errno.EISDIR | errno.ENOTDIR | errno.EEXIST:
                message = f"{name} could not be {done}: a folder and a file are in each other's place."
                raise NoteError(message, f"Look at {path}.") from error
            case errno.ENOSPC | errno.EDQUOT:
                message = f"{name} could not be {done}: the disk is full."
                raise RunError(message, "Nothing was lost. Make room and run it again.") from error
            case errno.EROFS:
                message = f"{name} could not be {done}: the disk is read-only."
                raise RunError(message, "Make it writable, or work on a copy of the vault.") from error
            case errno.EACCES | errno.EPERM:
                message = f"{name} could not be {done}: it is not allowed."
                raise RunError(message, f"Change the permissions of {path}.") from error
            case _:
                raise RunError(f"{name} could not be {done}: {error.strerror}.", f"Look at {path}.") from error


def inside(root: Path, path: str) -> Path:
    """A vault-relative path made absolute. NoteError if it is absolute, has `..`, or leads out through a link."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path or re.match(r"[A-Za-z]:[\\/]|\\", path):
        raise NoteError(f"`{path}` is no path within the vault.", "Write it from the vault's top folder, without `..`.")
    top = root.resolve()
    whole = top / pure
    try:
        # The last part stays as it is: whoever writes there replaces a link, and never what it leads to.
        there = whole.parent.resolve() / whole.name if pure.parts else top
        ends = (there.resolve(), there)
    except (OSError, RuntimeError) as error:
        raise NoteError(f"`{path}` is a link that leads in a circle.", "Remove the link.") from error
    if not all(end.is_relative_to(top) for end in ends):
        raise NoteError(f"`{path}` leads out of the vault through a link.", "Links out of the vault are not followed.")
    return there


def quiet(path: Path, seconds: float, now: float) -> bool:
    """Whether nobody has written the note for so long. `now` in seconds since the epoch."""
    with in_words(path, "read"):
        return abs(now - path.stat().st_mtime) >= seconds
