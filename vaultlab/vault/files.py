"""Find, read, and write without losing a byte."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Intent = Callable[[Path, bytes, bytes], AbstractContextManager[None]]
"""What stands around an in-place write, given (path, old, new): `Journal.intent`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A Markdown file of the vault: its vault-relative path with `/`, as it is on the disk, and what stat says."""

    path: str
    mtime_ns: int
    size: int
    inode: int


@dataclass(frozen=True, slots=True)
class Read:
    """A file as two looks agreed on it. `text` keeps a BOM and every line end: text.encode() == content."""

    path: Path
    content: bytes
    text: str
    sha256: str
    mtime_ns: int
    size: int
    inode: int


def find(root: Path, folder: str, ignored: Callable[[str], bool]) -> Iterator[Found]:
    """Every note of the vault and every page in the results folder."""
    raise NotImplementedError


def read(path: Path) -> Read:
    """A file's content. VaultError: gone, or still being written; NoteError: not UTF-8; RunError: not allowed."""
    raise NotImplementedError


def swap(path: Path, old_sha256: str, new: bytes, intent: Intent) -> None:
    """Compare and swap, in place. VaultError if the note is no longer what was read: read again, try again."""
    raise NotImplementedError


def replace(path: Path, content: bytes, ours: Callable[[bytes], bool] | None = None) -> bool:
    """Write a file of ours, whole or not at all; False (and no write) where its bytes are already these.

    `ours` looks at what stands there: False is a NoteError, the file is the author's.
    """
    raise NotImplementedError


def inside(root: Path, path: str) -> Path:
    """A vault-relative path made absolute. NoteError if it is absolute, has `..` or leads out through a link."""
    raise NotImplementedError


def quiet(path: Path, seconds: float, now: float) -> bool:
    """Whether nobody has written the note for so long. `now` in seconds since the epoch."""
    raise NotImplementedError
