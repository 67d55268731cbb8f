"""An author who types, as Obsidian saves, while the daemon renders: any interleaving, and no byte of theirs is lost."""

import difflib
import random
import re

import pytest

from tests.test_daemon import Alive, alive
from vaultlab.result import Ask

__all__ = ["alive"]  # the fixture

NAME = "Note.md"
HEAD = "---\ntags: [experiment]\n---\n"
SAVE_S = 2.0


def block(id: str, number: int) -> str:
    return f"```vaultlab\ndouble: {id}\nnumber: {number}\ntext: hello\nexpect:\n  - twice > {number}\n```\n"


class Author:
    """Obsidian's editor with a note open: a buffer, saved in place every two seconds while it is dirty.

    `words` and `numbers` are what its author has typed, kept apart from any text.
    """

    def __init__(self, alive: Alive, seed: int) -> None:
        self.alive = alive
        self.dice = random.Random(seed)
        self.buffer = self.base = HEAD + "Begin.\n\nEnd.\n"
        self.dirty_since: float | None = None
        self.words: list[str] = []
        self.numbers: dict[str, int] = {}
        self.half = ""
        self.alive.save(NAME, self.buffer)

    def act(self) -> None:
        self.sync()
        before = self.buffer
        self.dice.choices([self.word, self.number, self.new, self.unembed, lambda: None], [5, 3, 2, 1, 4])[0]()
        if self.buffer != before and self.dirty_since is None:
            self.dirty_since = self.alive.clock
        self.sync()

    def word(self) -> None:
        at = self.dice.choice(["Begin.", "End."])
        word = f"w{len(self.words)}"
        self.words.append(word)
        self.buffer = self.buffer.replace(at, f"{word} {at}", 1)

    def number(self) -> None:
        if self.numbers and not self.half:
            id = self.dice.choice(list(self.numbers))
            self.numbers[id] = self.dice.randrange(9)
            self.buffer = re.sub(rf"(double: {id}\nnumber: )\d", rf"\g<1>{self.numbers[id]}", self.buffer)

    def new(self) -> None:
        """A block is typed in two halves: the fence stands open for a while."""
        if self.half:
            begun = f"double: {self.half}\nnumber: 0\n"
            self.buffer = self.buffer.replace(begun, begun + block("", 0).partition("number: 0\n")[2] + "\n")
            self.half = ""
        elif len(self.numbers) < 4:
            self.half = f"b{len(self.numbers)}"
            self.numbers[self.half] = 0
            self.words_before_end()
            self.buffer = self.buffer.replace("End.", f"```vaultlab\ndouble: {self.half}\nnumber: 0\nEnd.", 1)

    def words_before_end(self) -> None:
        """What stands before the end goes above the new block."""
        self.buffer = re.sub(r"((?:w\d+ )+)End\.", r"\1\n\nEnd.", self.buffer)

    def unembed(self) -> None:
        found = re.findall(r"!\[\[vaultlab/.*?\]\]\n", self.buffer)
        if found:
            self.buffer = self.buffer.replace(self.dice.choice(found), "", 1)

    def sync(self) -> None:
        """What another has written is taken over, into a dirty buffer by a patch; and what is due is saved."""
        disk = self.alive.read(NAME)
        if disk != self.base:
            self.buffer = disk if self.buffer == self.base else patched(self.base, disk, self.buffer)
            self.base = disk
        if self.dirty_since is not None and self.alive.clock - self.dirty_since >= SAVE_S:
            self.save()

    def save(self) -> None:
        if self.dice.random() < 0.3:  # truncated first, and somebody looks in between
            self.alive.save(NAME, "")
            self.alive.after(0.05)
        self.alive.save(NAME, self.buffer)
        self.base, self.dirty_since = self.buffer, None


def patched(base: str, disk: str, buffer: str) -> str:
    """What was inserted between base and disk, put into the buffer behind the lines that it stood behind."""
    lines, out = base.splitlines(True), buffer.splitlines(True)
    for op, start, _, first, last in reversed(
        difflib.SequenceMatcher(None, lines, disk.splitlines(True), False).get_opcodes()
    ):
        if op == "insert":
            for match in difflib.SequenceMatcher(None, lines, out, False).get_matching_blocks():
                if match.a < start <= match.a + match.size:
                    at = match.b + start - match.a
                    out[at:at] = disk.splitlines(True)[first:last]
                    break
    return "".join(out)


def play(alive: Alive, seed: int) -> None:
    author = Author(alive, seed)
    dice = author.dice

    def meanwhile(ask: Ask, progress: object) -> None:
        for _ in range(dice.randrange(3)):
            author.act()
            alive.after(dice.choice([0.1, 0.5, 2.1, 6.0]))

    alive.during = meanwhile
    for _ in range(40):
        author.act()
        alive.after(dice.choice([0.1, 0.4, 1.0, 2.1, 6.0]))
        if dice.random() < 0.5:
            alive.daemon.work()
        if dice.random() < 0.05:
            alive.restart()
    alive.during = lambda ask, progress: None
    if author.half:
        author.new()
        author.dirty_since = author.dirty_since or alive.clock
    author.sync()
    if author.dirty_since is not None:
        author.save()
    alive.settle()
    author.sync()
    alive.settle()
    judge(alive, author)


def judge(alive: Alive, author: Author) -> None:
    text = alive.read(NAME)
    assert sorted(re.findall(r"\bw\d+\b", text)) == sorted(author.words), "every word, once"
    plain = re.sub(r"!\[\[vaultlab/b\d#\^result\]\]\n", "", text)
    assert re.findall(r"double: (b\d)\nnumber: (\d)", plain) == [(id, str(n)) for id, n in author.numbers.items()]
    for id in author.numbers:
        assert text.count(f"![[vaultlab/{id}#^result]]") <= 1
        assert 'lab_note: "[[Note]]"' in alive.page(id)
    for line in plain.splitlines():
        assert re.fullmatch(
            r"(w\d+ )*(Begin\.|End\.)?|---|tags.*|```(vaultlab)?|double.*|number.*|text.*|expect.*|  - .*", line
        ), line
    assert alive.states() == dict.fromkeys(author.numbers, "fresh")
    assert alive.queued == []
    assert not (alive.root / "vaultlab/kept").exists(), "nobody but the daemon writes results"


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(n, marks=pytest.mark.long) for n in range(8, 100))])
def test_typing_beside_the_daemon(alive: Alive, seed: int) -> None:
    play(alive, seed)
