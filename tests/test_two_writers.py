"""Obsidian with the plugin in it and the daemon, at one note: whatever the interleaving, a block gets one embed."""

import hashlib
import os
import random
import re
from typing import Any

import pytest

from tests.author import Author
from tests.test_daemon import Alive, alive
from vaultlab import trust
from vaultlab.desk import Desk, Worker
from vaultlab.errors import VaultlabError
from vaultlab.protocol import Edit, Outcome, PlanAsk
from vaultlab.server import CONNECTED_S
from vaultlab.vault import files, index

__all__ = ["alive"]  # the fixture

HOLD_S = 10.0
"""So long after it asked whether it may take an edit a plugin may still make it: the protocol says so."""
_OFTEN = {
    **{"plugin": 12, "author": 8, "time": 6, "sync": 3},
    **{"gone": 1, "back": 3, "crash": 0.5, "kill": 0.5, "sleep": 0.5, "hang": 6},
}
EMBED = re.compile(r"!\[\[vaultlab/(note-\d)#\^result\]\]\n")


class Served:
    """A daemon with its desk, killed and begun anew at will. While the machine sleeps, `awake` stands still."""

    def __init__(self, alive: Alive) -> None:
        self.alive = alive
        self.slept = 0.0
        self.begin()

    def begin(self) -> None:
        self.began = self.polled = self.awake()
        self.desk = Desk(self.alive.daemon, Worker(lambda: {}, lambda key: None), self.awake)
        self.desk.connected = lambda: self.awake() - max(self.polled, self.began) < CONNECTED_S

    def awake(self) -> float:
        return self.alive.clock - self.slept

    def restart(self) -> None:
        self.alive.restart()
        self.begin()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.alive.clock += seconds


class Obsidian(Author):
    """An author, in whose editor a plugin is at work, one step at a time: between any two, anything may happen."""

    def __init__(self, served: Served, seed: int) -> None:
        self.alive = alive = served.alive
        self.served = served
        self.begin(random.Random(seed))
        super().__init__(alive.root, "Note", self.dice, lambda: alive.clock, self.changed)
        self.lasting: set[str] = set()

    def begin(self, dice: random.Random) -> None:
        """The plugin starts: it remembers nothing. It begins where the feed is, or, being careless, before that."""
        self.dice = dice
        self.polls = True
        self.last = self.served.desk.feed.last if dice.random() < 0.5 else None
        self.inbox: list[Edit] = []
        self.held: tuple[Edit, float] | None = None
        self.unsaved: Edit | None = None

    def changed(self, name: str) -> None:
        if (self.root / name).exists():
            os.utime(self.root / name, (self.alive.clock, self.alive.clock))
        self.alive.daemon.changes.add(name)

    def crash(self) -> None:
        """What was not saved is lost."""
        if self.rest:
            return  # what half a save leaves of a note is no matter of ours
        self.buffer = self.base = disk = self.read()
        self.dirty_since = None
        found = re.findall(r"double: (note-\d)\nnumber: (\d)\n(text:)?", disk)
        self.numbers = {id: int(number) for id, number, _ in found}
        self.begun = next((id for id, _, whole in found if not whole), "")
        self.words = [word for word in self.words if re.search(rf"\b{word}\b", disk)]
        self.unwanted = self.lasting - set(EMBED.findall(disk))
        self.begin(self.dice)

    def save(self) -> None:
        super().save()
        self.lasting = set(self.unwanted)

    def drop(self) -> None:
        """No: what becomes of a block that comes back is another story."""

    def _unembed(self, id: str) -> None:
        """Not in the very moment in which it is put in."""
        if self.unsaved is None or f"/{id}#" not in self.unsaved.insert:
            super()._unembed(id)

    # -- the plugin

    def step(self) -> None:
        """One thing that a plugin does at a time."""
        if not self.polls:
            return
        if self.unsaved is not None:
            edit, self.unsaved = self.unsaved, None
            self.sync()
            if self.dirty_since is not None:
                self.save()
            self.sync()
            self.say(edit, "applied")
        elif self.held is not None:
            self.make()
        elif self.inbox and self.dice.random() < 0.7:
            self.take(self.inbox.pop(0))
        else:
            self.poll()

    def poll(self) -> None:
        self.served.polled = self.served.awake()
        said = self.served.desk.feed.after(self.last)
        self.last = said.last
        self.inbox += [event.edit for event in said.events if event.edit is not None]
        if said.missed or self.dice.random() < 0.2:
            self.plan()

    def plan(self) -> None:
        planned = self.served.desk.plan(PlanAsk(path=self.name, text=self.buffer))
        self.inbox += [block.edit for block in planned.blocks if block.edit is not None]

    def take(self, edit: Edit) -> None:
        if self.dice.random() < 0.1:
            self.say(edit, "deferred")
        elif not self.meant(edit):
            self.say(edit, "conflict")
            self.plan()
        else:
            asked = self.alive.clock
            if self.say(edit, "taken"):
                self.held = (edit, asked)

    def make(self) -> None:
        assert self.held is not None
        (edit, asked), self.held = self.held, None
        if self.alive.clock - asked > HOLD_S:
            self.say(edit, "deferred")
        elif not self.meant(edit):
            self.say(edit, "conflict")
            self.plan()
        else:
            units = self.buffer.encode("utf-16-le")
            at = 2 * edit.offset
            self.buffer = (units[:at] + edit.insert.encode("utf-16-le") + units[at:]).decode("utf-16-le")
            self.dirty_since = self.dirty_since or self.alive.clock
            self.unsaved = edit

    def meant(self, edit: Edit) -> bool:
        """Whether it is an edit of this very text."""
        return edit.path == self.name and edit.base_sha256 == sha(self.buffer)

    def say(self, edit: Edit, outcome: Any) -> bool:
        try:
            return self.served.desk.edit(edit.id, Outcome(outcome=outcome)) is not None
        except VaultlabError:
            return False


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def doubled(text: str) -> bool:
    found = EMBED.findall(text)
    return len(found) != len(set(found))


def play(alive: Alive, seed: int) -> None:
    trust.trust(alive.root)
    served = Served(alive)
    obsidian = Obsidian(served, seed)
    dice = obsidian.dice

    def judged() -> None:
        for where, text in (("disk", obsidian.read()), ("editor", obsidian.buffer)):
            assert not doubled(text), f"twice in the {where}:\n{text}"

    def happens(running: bool = False) -> None:
        match dice.choices(list(_OFTEN), list(_OFTEN.values()))[0]:
            case "plugin":
                obsidian.step()
            case "author":
                obsidian.act()
            case "time":
                alive.after(dice.choice([0.1, 0.5, 1.1, 2.1, 6.0, 12.0, 50.0]))
            case "gone":
                obsidian.polls = False
            case "back":
                obsidian.polls = True
            case "crash":
                obsidian.crash()
            case "kill" if not running:
                served.restart()
            case "hang":
                alive.after(dice.choice([1.5, 12.0, 50.0]))
                alive.after(6.0)
                obsidian.step()
                obsidian.step()
            case "sleep":
                served.sleep(3600)
            case "sync":
                obsidian.sync()
        judged()

    alive.during = lambda ask, progress: [happens(True) for _ in range(dice.randrange(4))] and None
    for _ in range(150):
        happens()
        if dice.random() < 0.3:
            alive.daemon.work()
            judged()
    alive.during = lambda ask, progress: None
    obsidian.finish()
    obsidian.polls = dice.random() < 0.5
    for _ in range(120):
        obsidian.sync()
        obsidian.step()
        alive.after(4.0)
        while alive.daemon.work():
            alive.after(0.1)
        judged()
    obsidian.finish()
    obsidian.judge_all()
    found = set(EMBED.findall(obsidian.read()))
    assert found == set(obsidian.numbers) - obsidian.unwanted
    assert alive.states() == dict.fromkeys(obsidian.numbers, "fresh")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes while a note is read: all in one thread."""
    monkeypatch.setattr(files, "_PAUSE_S", 0.0)
    monkeypatch.setattr(index, "_PAUSE_S", 0.0)


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(n, marks=pytest.mark.long) for n in range(8, 64))])
def test_at_most_one_embed_a_block(alive: Alive, seed: int) -> None:
    play(alive, seed)
