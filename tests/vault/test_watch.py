"""Every way of saving, on real files; the clock is injected where time is not the point."""

import errno
import math
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from vaultlab.errors import NoteError
from vaultlab.vault import watch
from vaultlab.vault.changes import PARSE_S, RUN_S, STORM_PATHS, STORM_S, Changes
from vaultlab.vault.config import Config
from vaultlab.vault.watch import EVERYTHING, Watch


class Heard:
    """What a watch has told; waits for what must come."""

    watching: Watch

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
    watching = heard.watching = Watch(vault, Config, heard)
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


def renamed_in_case(vault: Path) -> list[str]:
    (vault / "Note.md").rename(vault / "NOTE.md")
    return ["Note.md", "NOTE.md"]


def decomposed(vault: Path) -> list[str]:
    """As a Mac writes it; the path that is told is the one that a scan finds."""
    (vault / "Cafe\u0301.md").write_text("new")
    return ["Cafe\u0301.md"]


def composed_in_place_of_decomposed(vault: Path) -> list[str]:
    (vault / "Cafe\u0301.md").write_text("new")
    (vault / "Cafe\u0301.md").rename(vault / "Caf\u00e9.md")
    return ["Cafe\u0301.md", "Caf\u00e9.md"]


def ending_in_capitals(vault: Path) -> list[str]:
    (vault / "Sub/Loud.MD").write_text("new")
    return ["Sub/Loud.MD"]


def over_another(vault: Path) -> list[str]:
    (vault / "Other.md").write_text("other")
    (vault / "Other.md").replace(vault / "Note.md")
    return ["Other.md", "Note.md"]


def linked_in(vault: Path) -> list[str]:
    """Syncthing and others: written elsewhere under a hidden name, then given its own."""
    (vault / ".syncthing.Note.md.tmp").write_text("after")
    (vault / ".syncthing.Note.md.tmp").rename(vault / "Sub/Synced.md")
    return ["Sub/Synced.md"]


def trashed(vault: Path) -> list[str]:
    """Obsidian's own trash."""
    (vault / ".trash").mkdir()
    (vault / "Note.md").rename(vault / ".trash/Note.md")
    return ["Note.md"]


def touched(vault: Path) -> list[str]:
    """A sync tool that sets the time back after it has written."""
    (vault / "Note.md").write_text("after ")
    os.utime(vault / "Note.md", (1e9, 1e9))
    return ["Note.md"]


@pytest.mark.parametrize(
    "change",
    [
        *(renamed_in_case, decomposed, composed_in_place_of_decomposed, ending_in_capitals),
        *(over_another, linked_in, trashed, touched),
    ],
)
def test_every_path_that_a_scan_will_find_changed_is_told(
    heard: Heard, vault: Path, change: Callable[[Path], list[str]]
) -> None:
    paths = change(vault)
    assert heard.wait(*paths)
    assert set(heard.paths) == set(paths)


def test_moved_out_is_told_when_it_has_not_come_back_for_half_a_second(heard: Heard, vault: Path) -> None:
    (vault / "Note.md").rename(vault.parent / "out.md")
    (vault / "Sub/Behind.md").write_text("new")
    assert heard.wait("Note.md", "Sub/Behind.md")
    assert set(heard.paths) == {"Note.md", "Sub/Behind.md"}


def test_a_folder_that_was_replaced_makes_it_no_deafer(heard: Heard, vault: Path) -> None:
    """Moved to the system's trash, made anew, deleted, and the trash emptied: two watches of one path."""
    for _ in range(2):
        (vault / "Sub").rename(vault.parent / "trashed")
        (vault / "Sub").mkdir()
        (vault / "Sub/New.md").write_text("new")
        assert heard.wait("Sub/New.md")
        assert heard.watching.sound()
        shutil.rmtree(vault.parent / "trashed")
        shutil.rmtree(vault / "Sub")
        (vault / "Sub").mkdir()
        _until(heard.watching.doubtful)
        assert heard.watching.sound()
        heard.paths.clear()
    in_place(vault / "Note.md")
    (vault / "Sub/Last.md").write_text("last")
    assert heard.wait("Note.md", "Sub/Last.md")


def test_after_folders_have_moved_it_begins_anew_and_says_that_anything_may_have_changed(
    heard: Heard, vault: Path
) -> None:
    assert not heard.watching.doubtful()
    before = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        (vault / "Sub").rename(vault.parent / f"gone {number}")
        (vault / "Sub").mkdir()
        heard.paths.clear()
        _until(heard.watching.doubtful)
        assert heard.watching.sound()
        assert EVERYTHING in heard.paths
        assert not heard.watching.doubtful()
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_another_folder_at_the_vaults_path_is_watched(heard: Heard, vault: Path) -> None:
    """A drive that was away; a vault that a sync tool has put there anew."""
    vault.rename(vault.parent / "away")
    assert not heard.watching.doubtful(), "there is nothing to watch"
    vault.mkdir()
    assert heard.watching.doubtful()
    assert heard.watching.sound()
    (vault / "New.md").write_text("new")
    assert heard.wait("New.md")


def test_a_watcher_that_has_died_is_noticed(heard: Heard, vault: Path) -> None:
    for emitter in heard.watching._observer.emitters:
        emitter.stop()
    _until(heard.watching.doubtful)
    assert heard.watching.sound()
    in_place(vault / "Note.md")
    assert heard.wait("Note.md")


def test_a_configuration_that_cannot_be_read_is_no_reason_to_hear_nothing(vault: Path) -> None:
    config = [Config(folder="results")]

    def load() -> Config:
        if not config:
            raise NoteError("The results folder is a link.")
        return config[0]

    heard = Heard()
    watching = heard.watching = Watch(vault, load, heard)
    watching.start()
    (vault / ".vaultlab").mkdir()
    config.clear()
    (vault / ".obsidian").mkdir()
    (vault / "results").mkdir()
    time.sleep(0.2)
    (vault / ".obsidian/app.json").write_text("{}")
    assert heard.wait(".obsidian/app.json")
    (vault / "results/a.svg").write_text("<svg/>")
    assert heard.wait("results/a.svg"), "ours is the folder that it was"
    config.append(Config(folder="answers"))
    (vault / "answers").mkdir()
    (vault / ".obsidian/app.json").write_text("{ }")
    time.sleep(0.2)
    (vault / "answers/a.svg").write_text("<svg/>")
    assert heard.wait("answers/a.svg")
    watching.stop()


def _until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


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

    # The one limit is met by a folder, the other when it begins.
    monkeypatch.setattr(InotifyFD, "add_callback" if error == errno.ENOSPC else "_create_inotify_fd", full)
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
def test_scans_go_on_when_a_vault_has_been_away(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "file_system", lambda path: "cifs")
    watching, heard = scanning(vault)
    vault.rename(vault.parent / "away")
    time.sleep(0.1)
    in_place(vault.parent / "away/Note.md")
    assert heard.paths == [], "a vault that is away has not lost its notes"
    (vault.parent / "away").rename(vault)
    assert heard.wait("Note.md")
    watching.stop()


@pytest.mark.usefixtures("quick_scans")
def test_a_scan_sees_what_leaves_time_and_size_as_they_were(vault: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "file_system", lambda path: "nfs4")
    watching, heard = scanning(vault)
    before = (vault / "Note.md").stat()
    (vault / "Note.md").write_text("behind")
    os.utime(vault / "Note.md", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert heard.wait("Note.md")
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


def test_when_something_will_have_been_quiet_is_known(clock: list[float], changes: Changes) -> None:
    assert changes.due_s(clock[0], PARSE_S, RUN_S) == math.inf
    changes.add("Note.md")
    clock[0] += 0.1
    changes.add("Other.md")
    assert changes.due_s(clock[0], PARSE_S, RUN_S) == pytest.approx(PARSE_S - 0.1)
    clock[0] += PARSE_S
    assert changes.due_s(clock[0], PARSE_S, RUN_S) == pytest.approx(RUN_S - 0.1 - PARSE_S)
    clock[0] += RUN_S
    assert changes.due_s(clock[0], PARSE_S, RUN_S) == math.inf


def test_what_has_come_to_be_quiet_since_the_last_look_is_due_at_once(clock: list[float], changes: Changes) -> None:
    changes.add("Note.md")
    looked = clock[0]
    clock[0] += PARSE_S + 0.01
    assert changes.due_s(looked, PARSE_S, RUN_S) == 0
    assert changes.due_s(clock[0], PARSE_S, RUN_S) == pytest.approx(RUN_S - PARSE_S - 0.01)


def test_of_many_changes_the_next_to_have_been_quiet_is_found(clock: list[float], changes: Changes) -> None:
    dice, times = random.Random(1), dict[str, float]()
    for _ in range(300):
        name = f"{dice.randrange(40)}.md"
        changes.add(name)
        times[name], looked = clock[0], clock[0]
        clock[0] += dice.choice([0.0, 0.01, 0.3])
        ends = [at + quiet_s for at in times.values() for quiet_s in (PARSE_S, RUN_S) if at > looked - quiet_s]
        assert changes.due_s(looked, PARSE_S, RUN_S) == pytest.approx(max(min(ends) - clock[0], 0.0))


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
