"""An author who types, as Obsidian saves, while the daemon renders: any interleaving, and no byte of theirs is lost."""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.author import Author
from tests.test_daemon import Alive
from tests.test_pipeline import answer
from vaultlab.errors import NoteError
from vaultlab.result import Answer, Ask, Failure, Progress
from vaultlab.survey import Survey
from vaultlab.vault.presence import Request
from vaultlab.vault.watch import EVERYTHING


class Desk(Alive):
    """An author beside a daemon, in a time of the test's own: what happens between any two steps, the dice say."""

    def __init__(self, root: Path, owner: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.author: Author | None = None
        self.late: list[str] = []
        self.told_of: dict[Path, tuple[int, int, int]] = {}
        self.deep = False
        self.fatal: set[object] = set()
        self.cancelled_by_hand: set[str] = set()
        super().__init__(root, owner)
        self.during = self.computing
        self.author = Author(root, "Note", self.dice, lambda: self.clock, self.saved)
        self.author.looked_at = self.looked_at

    def saved(self, name: str) -> None:
        """The note's file is written now, by the tests' clock."""
        path = self.root / name
        if path.exists():
            os.utime(path, (self.clock, self.clock))
        self.late.append(name)

    def events(self) -> None:
        """What was written is told: mostly at once, sometimes late, and sometimes only that something was."""
        for path in sorted([*self.root.glob("*.md"), *self.root.glob("vaultlab/*.md")]):
            info = path.stat()
            stat = (info.st_mtime_ns, info.st_ino, info.st_size)
            if self.told_of.get(path) != stat:
                self.told_of[path] = stat
                self.late.append(str(path.relative_to(self.root)))
        late, self.late = self.late, []
        for name in late:
            chance = self.dice.random()
            if chance < 0.2:
                self.late.append(name)
            else:
                self.daemon.changes.add(name if chance < 0.95 else EVERYTHING)

    def looked_at(self) -> None:
        if not self.deep:
            self.after(0.05)

    def meanwhile(self, chance: float) -> None:
        """Between two steps of the daemon's: its author goes on, and so does time."""
        if self.author is not None and not self.deep and self.dice.random() < chance:
            self.deep = True
            self.author.act()
            self.clock += self.dice.choice([0.0, 0.1, 0.5, 2.1, 6.0])
            self.deep = False

    def computing(self, ask: Ask, progress: Callable[[Progress], None]) -> None:
        """While the worker computes, the daemon looks and writes as ever."""
        print(f"{self.clock:.2f} {ask.id} runs")
        for _ in range(self.dice.randrange(4)):
            self.meanwhile(0.5)
            if not self.deep:
                self.after(self.dice.choice([0.1, 0.5, 2.1, 6.0]))

    def look(self) -> Survey:
        self.meanwhile(0.05)
        survey = super().look()
        self.meanwhile(0.05)
        return survey

    def sleep(self, seconds: float) -> None:
        """In the place of `time.sleep`: between two looks at a file."""
        self.meanwhile(0.4)

    def after(self, seconds: float) -> None:
        self.events()
        super().after(seconds)

    def answered(self, ask: Ask, progress: Callable[[Progress], None]) -> Answer:
        number = ask.fields["number"]
        if number not in self.fatal and self.dice.random() < 0.2:
            self.fatal.add(number)
            self.deaths[ask.id] = self.deaths.get(ask.id, 0) + 1
            return Failure(ask.id, "environment", "The worker died.")
        return answer(ask)

    def by_hand(self) -> None:
        """Its author runs a block, or cancels it."""
        assert self.author is not None
        if self.author.numbers:
            id = self.dice.choice(list(self.author.numbers))
            if self.dice.random() < 0.5:
                if self.daemon.cancel(id):
                    print(f"{self.clock:.2f} {id} is cancelled")
                    self.cancelled_by_hand.add(id)
                return
            named = self.dice.random() < 0.5
            print(f"{self.clock:.2f} {id} is to run{' with its embed' if named else ''}")
            try:
                self.daemon.ask_for(Request((id,), named=named))
            except NoteError:
                return  # it is not saved yet, or not as it should be
            if named:
                self.author.unwanted.discard(id)

    def play(self) -> None:
        assert self.author is not None
        self.answer = self.answered
        for _ in range(40):
            self.author.act()
            self.after(self.dice.choice([0.1, 0.4, 1.0, 2.1, 6.0]))
            chance = self.dice.random()
            if chance < 0.5:
                self.daemon.work()
            elif chance < 0.55:
                print(f"{self.clock:.2f} the daemon is killed")
                self.restart()
            elif chance < 0.6:
                self.by_hand()
        self.deep = True  # from here on nobody types
        self.author.finish()
        self.settle()
        self.author.finish()
        self.settle()
        self.judge()

    def judge(self) -> None:
        assert self.author is not None
        states = self.states()
        open = {id for id, state in states.items() if state != "fresh"}
        assert open <= self.cancelled_by_hand, states
        if open:
            self.daemon.ask_for(Request(tuple(sorted(open))))  # type: ignore[type-var]
            self.settle()
            self.author.sync()
        assert self.states() == dict.fromkeys(self.author.numbers, "fresh")
        assert self.queued == []
        self.author.judge_all()
        assert not (self.root / "vaultlab/kept").exists(), "nobody but the daemon writes results"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a vault is quick: in memory, where there is such a place, for no disk has to be waited for here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as place:
        yield Path(place)


@pytest.mark.parametrize("seed", [*range(50), *(pytest.param(n, marks=pytest.mark.long) for n in range(50, 1000))])
def test_typing_beside_the_daemon(seed: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(place / name.lower()))
    print(f"again: python -m pytest 'tests/test_typing.py::test_typing_beside_the_daemon[{seed}]'")
    (place / "vault").mkdir()
    desk = Desk(place / "vault", place / "config", seed)
    monkeypatch.setattr(time, "sleep", desk.sleep)
    monkeypatch.setattr(time, "time", lambda: desk.clock)
    desk.daemon.tick()
    desk.play()
    desk.jobs.close()
