"""File events → the paths that changed. An event is a hint to look; what is true, a scan of the vault says."""

import errno
import logging
import os
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, EventEmitter

from vaultlab.errors import VaultlabError
from vaultlab.vault.config import VAULT_FILE, Config
from vaultlab.vault.files import TEMPORARY, Stat, stat_of
from vaultlab.vault.find import find, same_name
from vaultlab.vault.journal import home, made

logger = logging.getLogger("vaultlab")
# Of a folder made within one that was made a moment ago watchdog hears twice, says so on stderr, and all is well.
warnings.filterwarnings("ignore", "Callback with id .* already exists", RuntimeWarning)

EVERYTHING = ""
"""The path that stands for the whole vault."""

_LEAST_S = 2.0
_TIMES = 20
_CANARY_S = 1.0
_CALM_S = 1.0
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


class Watch:
    """Watches the vault at `root` and tells `changed` vault-relative paths, on a thread of its own."""

    def __init__(self, root: Path, config: Callable[[], Config], changed: Callable[[str], None]) -> None:
        self.root = root.resolve()
        self.scans = ""
        """Why the vault is scanned, in a sentence; empty where events tell what changes."""
        self._config = config
        self._folder = ""
        self._changed = changed
        self._observer: BaseObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._shaken_at: float | None = None
        self._canary = f".{secrets.token_hex(4)}{TEMPORARY}"
        self._sang = threading.Event()
        self._ended = threading.Event()
        self._scanner: threading.Thread | None = None
        self._overflow = _Overflow(lambda: changed(EVERYTHING))

    def start(self) -> None:
        """Begin. What changed before is not told: whoever starts looks at the vault once, afterwards."""
        logging.getLogger("watchdog").addHandler(self._overflow)
        self._read_folder()
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

    def doubtful(self) -> bool:
        """Whether it may not hear everything any more: folders have moved, or it watches what is elsewhere by now."""
        here = _identity(self.root)
        if self._observer is None or here is None:
            return False
        shaken = self._shaken_at is not None and time.monotonic() - self._shaken_at >= _CALM_S
        return shaken or here != self._watched or not all(one.is_alive() for one in _threads(self._observer))

    def sound(self) -> bool:
        """Whether it hears everything, from now on. If not, it scans: folders that came later had no room."""
        if self._observer is None:
            return True
        if self.doubtful():
            self._unobserve()
            why = self._observe()
            self._changed(EVERYTHING)  # whatever happened between the two
        else:
            why = self._full()
        if why:
            self._unobserve()
            self.scans = why
            self._scan()
        return not why

    # -- events

    def _observe(self) -> str:
        """Watch by events; a sentence where that cannot be."""
        self._shaken_at = None
        self._watched = _identity(self.root)
        try:
            self._observer = Observer()
            self._observer.start()
            handler = _Handler(self.root, self._told)
            self._observer.schedule(handler, str(self.root), recursive=True, event_filter=_EVENTS)
        except OSError as error:
            self._unobserve()
            return _limit(error)
        why = self._full()
        if not why and file_system(self.root) not in _SURE:
            why = self._silence()
        if why:
            self._unobserve()
        return why

    def _told(self, path: str, is_folder: bool) -> None:
        """Hand on what matters, and nothing else."""
        if path == self._canary:
            self._sang.set()
        elif path.endswith(TEMPORARY):
            return  # ours: what it becomes is told when it is renamed
        elif is_folder:
            if not any(part.startswith(".") for part in path.split("/")):
                self._shaken_at = time.monotonic()
                self._changed(EVERYTHING)
        elif relevant(path, self._folder):
            self._changed(path)
            if path in _SETTINGS:
                self._read_folder()

    def _read_folder(self) -> None:
        """Which folder is ours. While the configuration cannot be read it stays the one it was."""
        try:
            self._folder = self._config().folder
        except VaultlabError as error:
            logger.info("the configuration cannot be read: %s", error)

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

    def _silence(self) -> str:
        """Why events are not to be trusted here: a file that comes is not told."""
        path = self.root / self._canary
        try:
            self._sang.clear()
            path.touch()
            if self._sang.wait(_CANARY_S):
                return ""
        except OSError as error:
            logger.info("no canary: %s", error)
        finally:
            path.unlink(missing_ok=True)
        return "This file system does not tell of changes, so the vault is looked through every few seconds."

    def _unobserve(self) -> None:
        observer, self._observer = self._observer, None
        if observer is None:
            return
        for emitter in observer.emitters:
            _let_go(emitter)
        if observer.is_alive():
            observer.stop()
            observer.join()

    # -- scans

    def _scan(self) -> None:
        logger.warning("%s", self.scans)
        self._scanner = threading.Thread(target=self._scan_on, args=(self._stats() or {},), daemon=True)
        self._scanner.start()

    def _scan_on(self, before: dict[str, Stat]) -> None:
        wait_s = _LEAST_S
        while not self._ended.wait(wait_s):
            began = time.monotonic()
            after = self._stats()
            if after is not None:
                for path in dict(before.items() ^ after.items()):
                    self._changed(path)
                before = after
            wait_s = pause(time.monotonic() - began)

    def _stats(self) -> dict[str, Stat] | None:
        """What stands in the vault; None while it is away or its configuration cannot be read."""
        try:
            config = self._config()
            found, _ = find(self.root, config.folder, config.ignored)
        except VaultlabError:
            return None
        seen = {file.path: file.stat for file in found}
        for path in _SETTINGS:
            with suppress(OSError):
                seen[path] = stat_of(os.stat(self.root / path))
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


def _identity(path: Path) -> tuple[int, int] | None:
    """Which folder stands at a path now; None where none does."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _threads(observer: BaseObserver) -> list[threading.Thread]:
    """All that must live for an event to be told, the reader of the system's events among them."""
    reader = getattr(observer, "_inotify_fd", None)
    return [observer, *observer.emitters, *([reader] if reader else [])]


def _let_go(emitter: EventEmitter) -> None:
    """Have it drop its watches. Where a folder was moved away and another came in its place, watchdog 7.1 has two
    watches of one path in its books, and stumbles over each such pair once.
    """
    group = getattr(emitter, "_inotify", None)
    while group is not None:
        try:
            group.deactivate()
            return
        except KeyError:
            continue


def _limit(error: OSError) -> str:
    names = {errno.ENOSPC: "fs.inotify.max_user_watches=524288", errno.EMFILE: "fs.inotify.max_user_instances=1024"}
    if error.errno in names:
        return (
            "The system's limit of watched folders is reached, so the vault is looked through every few seconds. "
            f"To raise it: sudo sysctl {names[error.errno]}"
        )
    return f"The vault cannot be watched ({error.strerror}), so it is looked through every few seconds."


class _Handler(FileSystemEventHandler):
    """Tells each path of an event, relative to `root`, and whether it is a folder's."""

    def __init__(self, root: Path, told: Callable[[str, bool], None]) -> None:
        self._from = len(str(root)) + 1
        self._told = told

    def on_any_event(self, event: FileSystemEvent) -> None:
        for name in filter(None, (event.src_path, event.dest_path)):
            self._told(
                os.fsdecode(cast(str, name))[self._from :] or ".", event.is_directory
            )  # a checkout has thousands


class _Overflow(logging.Handler):
    """The observer says in its log, and nowhere else, that the system has dropped events."""

    def __init__(self, dropped: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._dropped = dropped

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._dropped()
