"""File events → the paths that changed. An event is a hint to look; what is true, a scan of the vault says."""

import errno
import itertools
import logging
import os
import posixpath
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import psutil
from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from vaultlab.vault.config import VAULT_FILE, Config
from vaultlab.vault.files import TEMPORARY
from vaultlab.vault.find import find, same_name
from vaultlab.vault.journal import home, made

logger = logging.getLogger("vaultlab")

PARSE_S = 0.3
"""A note that has been quiet for so long is read: its errors show early."""
RUN_S = 2.0
"""A block whose note has been quiet for so long runs."""
STORM_PATHS = 200
STORM_S = 2.0
"""More changes than that within so long are a checkout or a sync: it is waited for, and handled as one."""
EVERYTHING = ""
"""The path that stands for the whole vault."""

_KEPT_S = 30.0
_LEAST_S = 2.0
_TIMES = 20
_CANARY_S = 1.0
_SETTINGS = (VAULT_FILE, ".vaultlab/models.lock", ".obsidian/app.json")
# Where another machine writes, no event comes, though this machine's own writes give some.
_SILENT = {"9p", "cifs", "smb3", "smbfs", "nfs", "nfs4", "afs", "ceph", "glusterfs", "vboxsf", "fuse.vmhgfs-fuse"}
_SILENT |= {"fuse.sshfs", "fuse.rclone", "fuse.s3fs", "webdav", "afpfs", "prl_fs", "fuse.gvfsd-fuse", "fuse.davfs"}
_SURE = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "tmpfs", "overlay", "apfs", "hfs"}
# The observer's own list has "opened" and "closed without a write" in it: every scan would set off thousands.
_EVENTS: list[type[FileSystemEvent]] = [
    *(events.FileCreatedEvent, events.FileModifiedEvent, events.FileClosedEvent),
    *(events.FileMovedEvent, events.FileDeletedEvent),
    *(events.DirCreatedEvent, events.DirMovedEvent, events.DirDeletedEvent),
]


class Changes:
    """Which paths have changed and when they last did. Any thread may add to it; `now` is the clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._storm = False
        self.news = threading.Event()

    def add(self, path: str) -> None:
        """A path changed, just now."""
        with self._lock:
            self._last.pop(path, None)  # so that the last to change stand last
            self._last[path] = self._now()
            self._fresh.add(path)
        self.news.set()

    def take(self) -> list[str]:
        """The paths to look at now, the last to change last: quiet for PARSE_S. Nothing during a storm."""
        with self._lock:
            now = self._now()
            lately = itertools.takewhile(lambda at: 0 <= now - at < STORM_S, reversed(self._last.values()))
            self._storm = sum(1 for _ in lately) > (STORM_PATHS // 10 if self._storm else STORM_PATHS)
            if self._storm:
                return []
            quiet = [path for path, at in self._last.items() if path in self._fresh and not 0 <= now - at < PARSE_S]
            self._fresh -= set(quiet)
            for path in [path for path, at in self._last.items() if not 0 <= now - at < _KEPT_S]:
                if path not in self._fresh:
                    del self._last[path]
            return quiet

    def quiet(self, path: str, seconds: float = RUN_S) -> bool:
        """Whether this path has not changed for so long, as far as is known."""
        with self._lock:
            return not 0 <= self._now() - self._last.get(path, float("-inf")) < seconds

    @property
    def pending(self) -> int:
        """How many paths have changed and were not taken yet."""
        return len(self._fresh)


class Watch:
    """Watches the vault at `root` and tells `changed` vault-relative paths, on a thread of its own."""

    def __init__(self, root: Path, config: Callable[[], Config], changed: Callable[[str], None]) -> None:
        self.root = root.resolve()
        self.scans = ""
        """Why the vault is scanned, in a sentence; empty where events tell what changes."""
        self._config = config
        self._changed = changed
        self._observer: BaseObserver | None = None
        self._ended = threading.Event()
        self._scanner: threading.Thread | None = None
        self._overflow = _Overflow(lambda: changed(EVERYTHING))

    def start(self) -> None:
        """Begin. What changed before is not told: whoever starts looks at the vault once, afterwards."""
        logging.getLogger("watchdog").addHandler(self._overflow)
        self.scans = silent(file_system(self.root)) or self._observe()
        if self.scans:
            self._scan()

    def stop(self) -> None:
        """End its threads."""
        logging.getLogger("watchdog").removeHandler(self._overflow)
        self._ended.set()
        self._unobserve()
        if self._scanner is not None:
            self._scanner.join()

    def sound(self) -> bool:
        """Whether it still hears everything. If not, it scans from now on: folders that came later had no room."""
        if self._observer is None:
            return True
        why = self._full() if self._observer.is_alive() else "The watcher of the file system has ended."
        if why:
            self._unobserve()
            self.scans = why
            self._scan()
        return not why

    # -- events

    def _observe(self) -> str:
        """Watch by events; a sentence where that cannot be."""
        self._observer = Observer()
        heard = threading.Event()
        canary = f".{secrets.token_hex(4)}{TEMPORARY}"
        try:
            self._observer.start()
            handler = _Handler(self.root, self._config, self._changed, {canary: heard})
            self._observer.schedule(handler, str(self.root), recursive=True, event_filter=_EVENTS)
        except OSError as error:
            self._unobserve()
            return _limit(error)
        why = self._full()
        if not why and file_system(self.root) not in _SURE:
            why = self._canary(self.root / canary, heard)
        if why:
            self._unobserve()
        return why

    def _full(self) -> str:
        """Why some folders may go unwatched: where no room is left for one, the observer passes it over unsaid."""
        assert self._observer is not None
        beside = made(home(self.root)) / "watched"
        try:
            made(beside)
            watch = self._observer.schedule(FileSystemEventHandler(), str(beside), event_filter=_EVENTS)
            self._observer.unschedule(watch)
        except OSError as error:
            return _limit(error)
        return ""

    def _canary(self, path: Path, heard: threading.Event) -> str:
        try:
            path.touch()
            if heard.wait(_CANARY_S):
                return ""
        except OSError as error:
            logger.info("no canary: %s", error)
        finally:
            path.unlink(missing_ok=True)
        return "This file system does not tell of changes, so the vault is looked through every few seconds."

    def _unobserve(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None and observer.is_alive():
            observer.stop()
            observer.join()

    # -- scans

    def _scan(self) -> None:
        logger.warning("%s", self.scans)
        self._scanner = threading.Thread(target=self._scan_on, args=(self._stats(),), daemon=True)
        self._scanner.start()

    def _scan_on(self, before: dict[str, tuple[int, int, int]]) -> None:
        wait_s = _LEAST_S
        while not self._ended.wait(wait_s):
            began = time.monotonic()
            after = self._stats()
            for path in dict(before.items() ^ after.items()):
                self._changed(path)
            before = after
            wait_s = pause(time.monotonic() - began)

    def _stats(self) -> dict[str, tuple[int, int, int]]:
        config = self._config()
        found, _ = find(self.root, config.folder, config.ignored)
        seen = {file.path: (file.mtime_ns, file.size, file.inode) for file in found}
        for path in _SETTINGS:
            try:
                info = os.stat(self.root / path)
            except OSError:
                continue
            seen[path] = (info.st_mtime_ns, info.st_size, info.st_ino)
        return seen


def pause(scan_s: float) -> float:
    """How long to wait after a scan that took so long: a twentieth of a core at most."""
    return max(_LEAST_S, _TIMES * scan_s)


def relevant(path: str, folder: str) -> bool:
    """Whether a change at this vault-relative path can matter: a note, a figure of ours, what is configured."""
    if path in _SETTINGS:
        return True
    if any(part.startswith(".") for part in path.split("/")):
        return False
    return path[-3:].lower() == ".md" or same_name(path).startswith(same_name(folder) + "/")


def file_system(path: Path, mounts: Mapping[str, str] | None = None) -> str:
    """The type of the file system that a folder is on; `mounts` are (mount point → type), else the system's."""
    if mounts is None:
        mounts = {one.mountpoint: one.fstype for one in psutil.disk_partitions(all=True)}
    for parent in (path, *path.parents):
        if str(parent) in mounts:
            return mounts[str(parent)].lower()
    return ""


def silent(kind: str) -> str:
    """Why no events are to be trusted on a file system of this type; empty where nothing is known against it."""
    if kind in _SILENT:
        return (
            f"The vault is on a `{kind}` file system, where what other machines or Windows write gives no event, "
            "so the vault is looked through every few seconds."
        )
    return ""


def _limit(error: OSError) -> str:
    names = {errno.ENOSPC: "fs.inotify.max_user_watches=524288", errno.EMFILE: "fs.inotify.max_user_instances=1024"}
    if error.errno in names:
        return (
            "The system's limit of watched folders is reached, so the vault is looked through every few seconds. "
            f"To raise it: sudo sysctl {names[error.errno]}"
        )
    return f"The vault cannot be watched ({error.strerror}), so it is looked through every few seconds."


class _Handler(FileSystemEventHandler):
    """Hands on the paths that matter, and nothing else."""

    def __init__(
        self,
        root: Path,
        config: Callable[[], Config],
        changed: Callable[[str], None],
        canaries: Mapping[str, threading.Event],
    ) -> None:
        self._root = str(root)
        self._config = config
        self._changed = changed
        self._canaries = canaries

    def on_any_event(self, event: FileSystemEvent) -> None:
        for name in (event.src_path, event.dest_path):
            if not name:
                continue
            path = posixpath.relpath(os.fsdecode(cast(str, name)), self._root)
            if path in self._canaries:
                self._canaries[path].set()
            elif path.endswith(TEMPORARY):
                continue  # ours: what it becomes is told when it is renamed
            elif event.is_directory:
                if not any(part.startswith(".") for part in path.split("/")):
                    self._changed(EVERYTHING)
            elif relevant(path, self._config().folder):
                self._changed(path)


class _Overflow(logging.Handler):
    """The observer says in its log, and nowhere else, that the system has dropped events."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._dropped = dropped

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._dropped()
