"""A vault's daemon as the other programs of this machine meet it: that it is there, what it says, what it is asked."""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vaultlab.errors import NoteError, RunError
from vaultlab.vault.files import replace
from vaultlab.vault.journal import home, made

_WAIT_S = 1.0
_ANSWER_S = 30.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """Blocks to run now. `named`: their author asked for these very blocks, so a deleted embed comes back."""

    ids: tuple[str, ...]
    force: bool = False
    named: bool = False


@contextmanager
def attend(root: Path) -> Iterator[None]:
    """Be this vault's daemon for as long as it lasts. NoteError where there is one already."""
    lock = FileLock(made(home(root)) / "daemon.lock")
    try:
        lock.acquire(timeout=_WAIT_S)
    except Timeout:
        raise NoteError(
            "This vault is being watched already.", "`vaultlab status` says what it does, `vaultlab stop` ends it."
        ) from None
    try:
        say(root, {})
        yield
    finally:
        _said(root).unlink(missing_ok=True)
        lock.release()


def say(root: Path, what: Mapping[str, Any]) -> None:
    """What the daemon tells of itself; its process id is added."""
    replace(_said(root), json.dumps({"pid": os.getpid(), **what}).encode())


def present(root: Path) -> dict[str, Any] | None:
    """What this vault's daemon says of itself; None where there is none."""
    lock = FileLock(made(home(root)) / "daemon.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            return dict(json.loads(_said(root).read_bytes()))
        except (OSError, ValueError):
            return {}  # it is just beginning or ending
    lock.release()
    return None


def request(root: Path, wanted: Request) -> None:
    """Ask this vault's daemon, and return when it has queued what was asked. RunError if it does not answer."""
    path = made(_asked(root)) / f"{time.time_ns():020d}-{secrets.token_hex(4)}.json"
    replace(path, json.dumps({"ids": wanted.ids, "force": wanted.force, "named": wanted.named}).encode())
    until = time.monotonic() + _ANSWER_S
    while path.exists():
        if time.monotonic() > until or present(root) is None:
            path.unlink(missing_ok=True)
            raise RunError("The vault's daemon does not answer.", "End it with `vaultlab stop`, and try again.")
        time.sleep(_LOOK_S)


def requests(root: Path) -> Iterator[Request]:
    """What the daemon has been asked, oldest first; each counts as answered when the next one is taken."""
    for path in sorted(_asked(root).glob("*.json")):
        try:
            said = json.loads(path.read_bytes())
            wanted = Request(_names(said["ids"]), said["force"] is True, said["named"] is True)
        except (OSError, ValueError, KeyError, TypeError):
            wanted = Request(())
        try:
            yield wanted
        finally:
            path.unlink(missing_ok=True)


def _names(ids: Sequence[Any]) -> tuple[str, ...]:
    return tuple(id for id in ids if isinstance(id, str))


def _said(root: Path) -> Path:
    return home(root) / "daemon.json"


def _asked(root: Path) -> Path:
    return home(root) / "asked"


def by_hand(root: Path) -> bool:
    """Whether this vault's owner wants its blocks to run only when they are asked to, on this machine."""
    return _by_hand(root).exists()


def run_by_hand(root: Path, yes: bool) -> None:
    """Run its blocks only when they are asked to, from now on, or no longer."""
    if yes:
        made(home(root))
        replace(_by_hand(root), b"")
    else:
        _by_hand(root).unlink(missing_ok=True)


def _by_hand(root: Path) -> Path:
    return home(root) / "by-hand"


def queue_of(root: Path) -> Path:
    """The file of this vault's queue."""
    return made(home(root)) / "jobs.sqlite"
