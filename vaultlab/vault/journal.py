"""What a crash is repaired from. It lives in the user's state folder, never in the vault."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def home(root: Path) -> Path:
    """This vault's own folder under the user's state folder: journal, index, lock."""
    raise NotImplementedError


class Journal:
    """The journal of the vault at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def intent(self, path: Path, old: bytes, new: bytes) -> Iterator[None]:
        """Stands around an in-place write: what it replaces and what by is on the disk before it begins."""
        raise NotImplementedError

    def recover(self, folder: str) -> list[str]:
        """Finish or undo what a crash left; a sentence for everything that was done. `folder` is the results folder."""
        raise NotImplementedError

    def owe(self, id: str, note: str) -> None:
        """Record, before a result note is created, that its embed is still to be put into `note`."""
        raise NotImplementedError

    def paid(self, id: str) -> None:
        """The embed is in."""
        raise NotImplementedError

    def owed(self) -> dict[str, str]:
        """Every debt: id → the note's vault-relative path."""
        raise NotImplementedError


@contextmanager
def lock(root: Path, wait_s: float) -> Iterator[None]:
    """One writer at a time in this vault. RunError, saying who holds it, after `wait_s`."""
    raise NotImplementedError
