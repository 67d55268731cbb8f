"""An SQLite file that a kill leaves whole: opened, set aside where it is broken, changed all at once or not at all."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from vaultlab.errors import RunError

BUSY_S = 5.0
"""How long one process waits for another that is writing."""

_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Ledger:
    """The tables of `schema` in the file at `path`, for the threads of one process; others open it with `read_only`.

    `wrong` says what was the matter with the file that stood there, and `aside` where it was put; empty if all is
    well. RunError, from everything, where the disk is full or the file cannot be used; then nothing has changed.
    """

    def __init__(self, path: Path, schema: str, version: int, *, read_only: bool = False) -> None:
        self.path = path
        self.aside = ""
        self._lock = threading.RLock()
        with self._in_words():
            self.wrong = "" if read_only else _wrong(path, version)
            if self.wrong:
                self.aside = _set_aside(path)
            self._db = _looked_at(path, schema) if read_only else _opened(path, schema, version)

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Around what is to happen as a whole. Only what goes through here may change the file."""
        with self._lock, self._in_words():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds."""
        with self._lock, self._in_words():
            return self._db.execute(query, values).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
                raise
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            said = "the disk is full" if full else str(error)
            raise RunError(
                f"{self.path} could not be used: {said}.",
                "See that its disk has room and that you may write there, then start vaultlab again; "
                "a file that is broken is then set aside.",
            ) from error


def _connect(uri: str) -> sqlite3.Connection:
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    db.text_factory = lambda content: content.decode("utf-8", "replace")  # one spoilt letter is no spoilt file
    return db


def _opened(path: Path, schema: str, version: int) -> sqlite3.Connection:
    # It may hold whole notes: the file is for its owner only, and SQLite gives its log the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = _connect(path.resolve().as_uri())
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A kill loses nothing; a power cut may take the last moments with it, and leaves the file whole.
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _looked_at(path: Path, schema: str) -> sqlite3.Connection:
    """For reading only; what is not there yet looks empty."""
    if path.exists():
        return _connect(f"{path.resolve().as_uri()}?mode=ro")
    db = _connect("file::memory:")
    db.executescript(schema)
    return db


def _wrong(path: Path, version: int) -> str:
    """Why the file cannot be gone on with; empty if it can. OperationalError where it only cannot be reached."""
    if not path.exists():
        return ""
    try:
        with closing(_connect(path.resolve().as_uri())) as db:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            (stamp,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _BROKEN:
            raise
        return "was broken"
    if found != "ok":
        return "was broken"
    return "was written by another version of vaultlab" if tables and stamp != version else ""


def _set_aside(path: Path) -> str:
    """Rename the file and its log; the new name. The file goes last: killed between, it is found again."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.broken-{number}{path.suffix}")).exists():
        number += 1
    for ending in ("-shm", "-wal", ""):
        with suppress(FileNotFoundError):
            os.replace(f"{path}{ending}", f"{aside}{ending}")
    return aside.name
