"""What a crash is repaired from. It lives in the user's state folder, never in the vault."""

import base64
import hashlib
import json
import os
import platform
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vaultlab import places
from vaultlab.errors import NoteError, RunError, VaultError
from vaultlab.vault.files import (
    TEMPORARY,
    HalfWritten,
    halfway,
    in_words,
    inside,
    replace,
    steady,
    swap,
    sync_folder,
)


def home(root: Path) -> Path:
    """This vault's own folder under the user's state folder: journal, index, lock. Made by `made`."""
    named = f"{platform.node()}\0{root.resolve()}"  # one home folder may be shared by several machines
    return places.state_dir() / "vaults" / hashlib.sha256(named.encode(errors="surrogateescape")).hexdigest()[:16]


def made(folder: Path) -> Path:
    """The folder, made for this user's eyes only: journals hold whole notes."""
    with in_words(folder, "made"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


class Journal:
    """The journal of the vault at `root`. Whoever writes holds `lock`, and calls `recover` first."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._home = home(root)
        self._writes = self._home / "writes"
        self._debts = self._home / "embed-owed.json"

    @contextmanager
    def intent(self, path: Path, old: bytes, new: bytes) -> Iterator[None]:
        """Stands around an in-place write: what it replaces and by what is on the disk before it begins."""
        made(self._home)
        entry = self._writes / f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
        said = {
            "path": (path.parent.resolve() / path.name).relative_to(self.root).as_posix(),
            "old": base64.b64encode(old).decode(),
            "new": base64.b64encode(new).decode(),
        }
        replace(entry, json.dumps(said).encode())
        try:
            yield
        except HalfWritten:
            raise
        except OSError:
            _forget(entry)  # it was undone: the note is as it was
            raise
        _forget(entry)

    def recover(self, folder: str) -> list[str]:
        """Finish what a crash left half done; a sentence for everything done. `folder` is the results folder.

        A note is only touched if it is exactly what the broken write can have left. If not, the author has been at it
        since: then the note as it was before the write goes to `recovered/` in the results folder.
        """
        said: list[str] = []
        for entry in sorted(self._writes.glob("*.json")):
            try:
                kept = json.loads(entry.read_bytes())
                name, old, new = kept["path"], base64.b64decode(kept["old"]), base64.b64decode(kept["new"])
            except (OSError, ValueError, KeyError, TypeError):
                said.append(f"The journal entry {entry.name} could not be read; it was put aside.")
                os.replace(entry, entry.with_suffix(".unreadable"))
                continue
            try:
                sentence = self._repair(name, old, new, folder)
            except (VaultError, RunError) as error:  # open elsewhere, forbidden: the entry stays for the next time
                said.append(f"A crash may have left {name} half written, but it could not be looked after: {error}")
                continue
            _forget(entry)
            said += [sentence] if sentence else []
        self._sweep(folder)
        return said

    def _repair(self, name: str, old: bytes, new: bytes, folder: str) -> str:
        try:
            path = inside(self.root, name)
            state = steady(path).content if os.path.lexists(path) else None
        except NoteError:
            state = None
        if state in (old, new):
            return ""
        if state is not None and halfway(state, old, new):
            swap(path, hashlib.sha256(state).hexdigest(), new, lambda *_: nullcontext())
            return f"A crash had left {name} half written; it is whole again."
        digest = hashlib.sha256(old).hexdigest()[:6]
        copy = f"{folder}/recovered/{Path(name).stem[:80]} {digest}.md"
        replace(inside(self.root, copy), old)
        return (
            f"A crash broke off a write to {name}, which has been changed or moved since, so it was left alone; "
            f"the note as it was before that write is in {copy}."
        )

    def _sweep(self, folder: str) -> None:
        """Remove the temporary files of a `replace` that was killed. Nobody else writes here: we hold the lock."""
        for place in (folder, f"{folder}/figures", f"{folder}/kept", f"{folder}/recovered", ".vaultlab"):
            with suppress(NoteError):
                for left in inside(self.root, place).glob(f".*{TEMPORARY}"):
                    with in_words(left, "removed"):
                        left.unlink(missing_ok=True)
        for left in (*self._home.glob(f".*{TEMPORARY}"), *self._writes.glob(f".*{TEMPORARY}")):
            left.unlink(missing_ok=True)

    def owe(self, id: str, note: str) -> None:
        """Record, before a result note is created, that its embed is still to be put into `note`."""
        self._owe({**self.owed(), id: note})

    def paid(self, id: str) -> None:
        """The embed is in, or is not wanted any more."""
        debts = self.owed()
        if debts.pop(id, None) is not None:
            self._owe(debts)

    def owed(self) -> dict[str, str]:
        """Every debt: id → the note's vault-relative path."""
        try:
            return dict(json.loads(self._debts.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return {}

    def _owe(self, debts: dict[str, str]) -> None:
        made(self._home)
        replace(self._debts, json.dumps(debts, sort_keys=True).encode())


def _forget(entry: Path) -> None:
    entry.unlink(missing_ok=True)
    sync_folder(entry.parent)


@contextmanager
def lock(root: Path, wait_s: float) -> Iterator[None]:
    """One writer at a time in this vault. RunError, saying who holds it, after `wait_s`."""
    folder = made(home(root))
    holder = folder / "holder"
    held = FileLock(folder / "lock")
    try:
        held.acquire(timeout=wait_s)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "it has not said which"
        message = f"Another vaultlab is at work in this vault ({who})."
        raise RunError(message, "Wait until it has finished, or stop it, and run this again.") from None
    try:
        holder.write_text(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}", encoding="utf-8")
        yield
    finally:
        held.release()
