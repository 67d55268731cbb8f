"""Every way of saving, on real files; the clock is injected where time is not the point."""

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from vaultlab.vault import watch
from vaultlab.vault.config import Config
from vaultlab.vault.watch import EVERYTHING, PARSE_S, RUN_S, STORM_PATHS, STORM_S, Changes, Watch


class Heard:
    """What a watch has told; waits for what must come."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._news = threading.Condition()

    def __call__(self, path: str) -> None:
        with self._news:
            self.paths.append(path)
            self._news.notify_all()

    def wait(self, *paths: str, seconds: float = 5.0) -> bool:
        with self._news:
            return self._news.wait_for(lambda: set(paths) <= set(self.paths), seconds)

    def nothing_after(self, act: Callable[[], object], vault: Path) -> None:
        """Do `act`, then something that is told: whatever `act` sets off has come before it."""
        act()
        (vault / "Last.md").write_text("told")
        assert self.wait("Last.md")
        assert set(self.paths) == {"Last.md"}


@pytest.fixture
def heard(vault: Path) -> Iterator[Heard]:
    (vault / "Sub").mkdir()
    (vault / "Note.md").write_text("before")
    heard = Heard()
    watching = Watch(vault, Config, heard)
    watching.start()
    assert watching.scans == ""
    yield heard
    watching.stop()


def in_place(path: Path) -> None:
    path.write_text("after")


def truncated_first(path: Path) -> None:
    with path.open("r+") as file:
        file.truncate(0)
        file.flush()
        time.sleep(0.05)
        file.write("after")


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("after")


def by_rename(path: Path) -> None:
    beside = path.with_name(".Note.md.tmp")
    beside.write_text("after")
    beside.replace(path)


def from_elsewhere(path: Path) -> None:
    outside = path.parent.parent / "synced.md"
    outside.write_text("after")
    outside.replace(path)


def with_a_backup(path: Path) -> None:
    """vim: the old file becomes the backup, a new one is created."""
    path.rename(path.with_name("Note.md~"))
    path.write_text("after")
    path.with_name("Note.md~").unlink()


def exchanged(path: Path) -> None:
    path.unlink()
    path.write_text("after")


def mapped(path: Path) -> None:
    """Written through a file that stays open."""
    with path.open("r+b", buffering=0) as file:
        file.write(b"after")
        time.sleep(0.05)


@pytest.mark.parametrize(
    "save", [in_place, truncated_first, appended, by_rename, from_elsewhere, with_a_backup, exchanged, mapped]
)
def test_every_way_of_saving_is_heard(heard: Heard, vault: Path, save: Callable[[Path], None]) -> None:
    save(vault / "Note.md")
    assert heard.wait("Note.md")
    assert set(heard.paths) <= {"Note.md"}


def test_a_note_that_comes_goes_and_moves(heard: Heard, vault: Path) -> None:
    (vault / "Sub/New.md").write_text("new")
    assert heard.wait("Sub/New.md")
    (vault / "Sub/New.md").rename(vault / "Other.md")
    assert heard.wait("Other.md")
    heard.paths.clear()
    (vault / "Other.md").rename(vault.parent / "out.md")
    assert heard.wait("Other.md")
    (vault / "Note.md").unlink()
    assert heard.wait("Note.md")


def test_folders_that_come_move_and_go(heard: Heard, vault: Path) -> None:
    outside = vault.parent / "Deep/er"
    outside.mkdir(parents=True)
    (outside / "One.md").write_text("one")
    (vault.parent / "Deep").rename(vault / "Deep")
    assert heard.wait(EVERYTHING)
    (vault / "Deep/er/Two.md").write_text("two")
    assert heard.wait("Deep/er/Two.md"), "a folder that came later is watched too"
    (vault / "Deep").rename(vault / "Deeper")
    (vault / "Deeper/er/Three.md").write_text("three")
    assert heard.wait("Deeper/er/Three.md")
    heard.paths.clear()
    shutil.rmtree(vault / "Deeper")
    assert heard.wait(EVERYTHING)


@pytest.mark.parametrize(
    "name", [".obsidian/workspace.json", ".trash/Note.md", ".git/index", "picture.png", ".Note.md.tmp", "Sub/x.txt"]
)
def test_what_cannot_matter_is_not_told(heard: Heard, vault: Path, name: str) -> None:
    def act() -> None:
        (vault / name).parent.mkdir(exist_ok=True)
        (vault / name).write_text("x")

    heard.nothing_after(act, vault)


def test_reading_is_not_told(heard: Heard, vault: Path) -> None:
    heard.nothing_after((vault / "Note.md").read_bytes, vault)


@pytest.mark.parametrize("name", [".vaultlab/config.toml", ".obsidian/app.json", "vaultlab/figures/a.plot.svg"])
def test_what_is_configured_and_our_own_folder_is_told(heard: Heard, vault: Path, name: str) -> None:
    (vault / name).parent.mkdir(parents=True)
    time.sleep(0.1)
    (vault / name).write_text("x")
    assert heard.wait(name)


def test_a_checkout_of_many_notes_loses_none(heard: Heard, vault: Path) -> None:
    names = [f"Sub/{number % 20}/{number}.md" for number in range(1000)]
    for number in range(20):
        (vault / f"Sub/{number}").mkdir()
    for name in names:
        (vault / name).write_text("x")
    assert heard.wait(*names, seconds=20)


def test_where_the_system_drops_events_the_whole_vault_is_told(heard: Heard) -> None:
    watch.logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; events were lost")
    assert heard.wait(EVERYTHING)


# -- where events are not to be had --------------------------------------------------------------------------------


@pytest.fixture
def quick_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_LEAST_S", 0.02)
    monkeypatch.setattr(watch, "_TIMES", 1)
    monkeypatch.setattr(watch, "_CANARY_S", 0.05)


def scanning(vault: Path) -> tuple[Watch, Heard]:
    (vault / "Note.md").write_text("before")
    heard = Heard()
    watching = Watch(vault, Config, heard)
    watching.start()
    return watching, heard


@pytest.mark.usefixtures("quick_scans")
def test_on_a_silent_file_system_the_vault_is_scanned(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "file_system", lambda path: "9p")
    watching, heard = scanning(vault)
    assert "`9p`" in watching.scans
    time.sleep(0.1)
    assert heard.paths == []
    for save in (in_place, by_rename, exchanged):
        heard.paths.clear()
        save(vault / "Note.md")
        assert heard.wait("Note.md")
    (vault / "Note.md").unlink()
    (vault / ".vaultlab").mkdir()
    (vault / ".vaultlab/config.toml").write_text("")
    assert heard.wait(".vaultlab/config.toml")
    watching.stop()


@pytest.mark.usefixtures("quick_scans")
@pytest.mark.parametrize(
    ("error", "sysctl"),
    [(errno.ENOSPC, "fs.inotify.max_user_watches"), (errno.EMFILE, "fs.inotify.max_user_instances")],
)
def test_the_sysctl_is_named_where_the_limit_is_reached(
    vault: Path, monkeypatch: pytest.MonkeyPatch, error: int, sysctl: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(error, "limit")

    monkeypatch.setattr(InotifyFD, "add_callback", full)
    watching, heard = scanning(vault)
    assert f"sudo sysctl {sysctl}=" in watching.scans
    in_place(vault / "Note.md")
    assert heard.wait("Note.md")
    watching.stop()


@pytest.mark.usefixtures("quick_scans")
def test_a_limit_that_only_some_folders_meet_is_noticed(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = [2]
    real = InotifyFD.add_callback

    def some(*args: object) -> object:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return real(*args)

    monkeypatch.setattr(InotifyFD, "add_callback", some)
    (vault / "A").mkdir()
    (vault / "B").mkdir()
    watching, heard = scanning(vault)
    assert "max_user_watches" in watching.scans
    (vault / "B/New.md").write_text("new")
    assert heard.wait("B/New.md")
    watching.stop()


@pytest.mark.usefixtures("quick_scans")
def test_a_limit_reached_later_is_noticed_too(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching, heard = scanning(vault)
    assert watching.sound()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "limit")

    monkeypatch.setattr(InotifyFD, "add_callback", full)
    assert not watching.sound()
    (vault / "Late").mkdir()
    (vault / "Late/New.md").write_text("new")
    assert heard.wait("Late/New.md")
    assert watching.sound()
    watching.stop()


@pytest.mark.usefixtures("quick_scans")
def test_an_unknown_file_system_is_believed_if_its_canary_sings(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "file_system", lambda path: "fuse.mystery")
    monkeypatch.setattr(watch, "_CANARY_S", 5.0)
    watching, _ = scanning(vault)
    assert watching.scans == ""
    watching.stop()
    monkeypatch.setattr(watch, "_CANARY_S", 0.05)
    monkeypatch.setattr(watch._Handler, "on_any_event", lambda self, event: None)
    watching, heard = scanning(vault)
    assert "does not tell of changes" in watching.scans
    in_place(vault / "Note.md")
    assert heard.wait("Note.md")
    watching.stop()
    assert [path.name for path in vault.iterdir()] == ["Note.md"], "no canary stays behind"


def test_scans_leave_the_machine_alone() -> None:
    assert watch.pause(0.001) == 2.0
    assert watch.pause(0.5) == 10.0


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = {"/": "ext4", "/mnt/c": "9p", "/home/a/Cloud": "fuse.sshfs"}
    assert watch.file_system(Path("/mnt/c/Users/a/Notes"), mounts) == "9p"
    assert watch.file_system(Path("/home/a/Notes"), mounts) == "ext4"
    assert watch.silent("9p")
    assert watch.silent("fuse.sshfs")
    assert not watch.silent("ext4")
    assert watch.file_system(Path("/")) != ""


# -- quiet times -----------------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def changes(clock: list[float]) -> Changes:
    return Changes(lambda: clock[0])


def test_a_note_is_looked_at_when_it_has_been_quiet(clock: list[float], changes: Changes) -> None:
    changes.add("Note.md")
    clock[0] += PARSE_S - 0.01
    assert changes.take() == []
    changes.add("Note.md")
    clock[0] += PARSE_S - 0.01
    assert changes.take() == [], "it changed again"
    clock[0] += 0.02
    assert changes.take() == ["Note.md"]
    assert changes.take() == [], "once"
    assert not changes.quiet("Note.md")
    assert changes.quiet("Other.md")
    clock[0] += RUN_S
    assert changes.quiet("Note.md")


def test_one_note_being_typed_keeps_no_other_waiting(clock: list[float], changes: Changes) -> None:
    changes.add("Quiet.md")
    clock[0] += 0.2
    changes.add("Typed.md")
    clock[0] += 0.2
    assert changes.take() == ["Quiet.md"]
    assert changes.pending == 1


def test_a_storm_is_handled_as_one(clock: list[float], changes: Changes) -> None:
    names = {f"{number}.md" for number in range(STORM_PATHS + 50)}
    for name in sorted(names):
        changes.add(name)
        clock[0] += 0.005
    for _ in range(3):
        clock[0] += 0.5
        assert changes.take() == []
    clock[0] += STORM_S
    assert set(changes.take()) == names


def test_fewer_changes_are_no_storm(clock: list[float], changes: Changes) -> None:
    for number in range(STORM_PATHS - 1):
        changes.add(f"{number}.md")
    clock[0] += PARSE_S + 0.01
    assert len(changes.take()) == STORM_PATHS - 1


def test_somebody_who_types_on_does_not_prolong_a_storm(clock: list[float], changes: Changes) -> None:
    for number in range(STORM_PATHS + 1):
        changes.add(f"{number}.md")
    assert changes.take() == []
    for _ in range(3):
        clock[0] += 1.0
        changes.add("Typed.md")
    assert len(changes.take()) == STORM_PATHS + 1


def test_a_clock_that_is_set_back_holds_nothing_up(clock: list[float], changes: Changes) -> None:
    changes.add("Note.md")
    clock[0] -= 3600
    assert changes.take() == ["Note.md"]
    assert changes.quiet("Note.md")


def test_what_is_long_past_is_forgotten(clock: list[float], changes: Changes) -> None:
    for number in range(1000):
        changes.add(f"{number}.md")
        clock[0] += 1
        changes.take()
    assert len(changes._last) < 50
