"""An author at Obsidian's editor, by dice: a buffer that is saved in place every two seconds while it is dirty."""

import os
import random
import re
from collections.abc import Callable
from pathlib import Path

from diff_match_patch import diff_match_patch

HEAD = "---\ntags: [experiment]\n---\n"
SAVE_S = 2.0
_EMBED = re.compile(r"!\[\[vaultlab/([a-z0-9-]+)#\^result\]\]\n")
_LINE = re.compile(r"(w\d+ )*(Begin\.|End\.)?|---|tags.*|```(vaultlab)?|double.*|number.*|text.*|expect.*|  - .*")
_MERGER = diff_match_patch()


def block(id: str, number: int) -> str:
    return f"```vaultlab\ndouble: {id}\nnumber: {number}\ntext: hello\nexpect:\n  - twice > {number}\n```\n"


def plain(text: str) -> str:
    """What its author has written: without embeds, and without the empty lines that come with them."""
    return "".join(line for line in text.splitlines(True) if line != "\n" and not _EMBED.fullmatch(line))


class Author:
    """One author and one note. `words` and `numbers` are what they have typed, kept apart from any text.

    `saved` is told each path whose file has changed; `looked_at` lets others look at a note that is half saved.
    """

    def __init__(
        self, root: Path, name: str, dice: random.Random, now: Callable[[], float], saved: Callable[[str], None]
    ) -> None:
        self.root, self.dice, self.now, self.saved = root, dice, now, saved
        self.looked_at: Callable[[], None] = lambda: None
        self.stem = name
        self.name = f"{name}.md"
        self.buffer = self.base = HEAD + "Begin.\n\nEnd.\n"
        self.dirty_since: float | None = None
        self.words: list[str] = []
        self.numbers: dict[str, int] = {}
        self.begun = self.rest = ""
        self.unwanted: set[str] = set()
        self._write(self.buffer)

    @property
    def clean(self) -> bool:
        return self.dirty_since is None and not self.rest

    # -- what they do

    def act(self) -> None:
        """One of the things that authors do, and whatever is due."""
        self.sync()
        before = self.buffer
        deeds = [self.word, self.number, self.new, self.unembed, self.drop, self.move, self.elsewhere, self.pause]
        (deed,) = self.dice.choices(deeds, [6, 4, 3, 1, 1, 1, 1, 5])
        print(f"{self.now():.2f} {self.stem}: {deed.__name__}")  # shown where a test fails
        deed()
        if self.buffer != before and self.dirty_since is None:
            self.dirty_since = self.now()
        self.sync()

    def pause(self) -> None:
        """Nothing."""

    def word(self) -> None:
        at = self.dice.choice(["Begin.", "End."])
        word = f"w{len(self.words)}"
        self.words.append(word)
        self.buffer = self.buffer.replace(at, f"{word} {at}", 1)

    def number(self) -> None:
        if self.numbers and not self.begun:
            id = self.dice.choice(list(self.numbers))
            self.numbers[id] = self.dice.randrange(9)
            self.buffer = re.sub(rf"(double: {id}\nnumber: )\d", rf"\g<1>{self.numbers[id]}", self.buffer)

    def new(self) -> None:
        """A block is typed in two halves: the fence stands open for a while."""
        if self.begun:
            half = f"double: {self.begun}\nnumber: 0\n"
            self.buffer = self.buffer.replace(half, half + block("", 0).partition("number: 0\n")[2] + "\n")
            self.begun = ""
        elif len(self.numbers) < 4:
            free = [id for id in (f"{self.stem.lower()}-{n}" for n in range(6)) if id not in self.numbers]
            self.begun = self.dice.choice(free)
            self.numbers[self.begun] = 0
            self.buffer = re.sub(r"((?:w\d+ )+)End\.", r"\1\n\nEnd.", self.buffer)  # it comes below what is there
            self.buffer = self.buffer.replace("End.", f"```vaultlab\ndouble: {self.begun}\nnumber: 0\nEnd.", 1)

    def drop(self) -> None:
        """A block goes; its embed may stay behind."""
        if self.numbers and not self.begun:
            id = self.dice.choice(list(self.numbers))
            self.buffer = re.sub(rf"```vaultlab\ndouble: {id}\n[^`]*```\n", "", self.buffer)
            del self.numbers[id]
            if self.dice.random() < 0.5:
                self._unembed(id)

    def unembed(self) -> None:
        if found := [id for id in _EMBED.findall(self.buffer) if id in self.numbers]:
            self._unembed(self.dice.choice(found))

    def _unembed(self, id: str) -> None:
        if f"[[vaultlab/{id}#" in self.buffer:
            self.buffer = re.sub(rf"!\[\[vaultlab/{id}#\^result\]\]\n", "", self.buffer)
            self.unwanted.add(id)

    def move(self) -> None:
        """The note gets another name: another case, a longer one, another folder."""
        if self.clean:
            new = self.dice.choice(
                [f"{self.stem}.md", f"{self.stem.upper()}.md", f"{self.stem} of old.md", f"Deep/{self.stem}.md"]
            )
            (self.root / new).parent.mkdir(exist_ok=True)
            old, self.name = self.name, new
            os.rename(self.root / old, self.root / new)
            self.saved(old)
            self.saved(new)

    def elsewhere(self) -> None:
        """Another program changes the note, which its author is not typing in, and saves in its own way."""
        if self.clean:
            self.word()
            self.base = self.buffer
            path = self.root / self.name
            way = self.dice.choice(["renamed", "recreated", "in place"])
            if way == "renamed":
                beside = path.with_name(f".{path.name}.tmp")
                beside.write_bytes(self.buffer.encode())
                beside.replace(path)
            if way == "recreated":
                path.unlink()
                self.rest = self.buffer
                self.saved(self.name)
                self.looked_at()
                return
            self._write(self.buffer)

    # -- how the editor saves

    def sync(self) -> None:
        """What another has written is taken over, into a dirty buffer by a fuzzy patch; and what is due is saved."""
        if self.rest:
            text, self.rest = self.rest, ""
            self._write(text)
        disk = self.read()
        if disk != self.base:
            self.judge(disk)
            self.buffer = disk if self.clean else self._merged(disk)
            self.base = disk
        if self.dirty_since is not None and self.now() - self.dirty_since >= SAVE_S:
            self.save()

    def save(self) -> None:
        self.base, self.dirty_since = self.buffer, None
        if self.dice.random() < 0.3:  # truncated first, or half of it there, and somebody looks in between
            self.rest = self.buffer
            self._write(self.buffer[: self.dice.choice([0, self.dice.randrange(len(self.buffer))])])
            self.looked_at()
            return
        self._write(self.buffer)

    def finish(self) -> None:
        """What is half typed is typed, and what is typed is saved."""
        self.sync()
        if self.begun:
            self.new()
            self.dirty_since = self.now() - SAVE_S
        if self.dirty_since is not None:
            self.dirty_since = self.now() - SAVE_S
        self.sync()
        self.sync()

    def read(self) -> str:
        return (self.root / self.name).read_bytes().decode()

    def _write(self, text: str) -> None:
        (self.root / self.name).write_bytes(text.encode())
        self.saved(self.name)

    def _merged(self, disk: str) -> str:
        merged = str(_MERGER.patch_apply(_MERGER.patch_make(self.base, disk), self.buffer)[0])
        if plain(merged) != plain(self.buffer):
            merged = self.buffer  # it came into the wrong place, which its author takes back
        self.unwanted |= set(_EMBED.findall(disk)) - set(_EMBED.findall(merged))
        return merged

    # -- what they expect

    def judge(self, disk: str) -> None:
        """What is on the disk is what they have saved, byte for byte, and embeds that were put in between."""
        ours = iter(self.base.splitlines(True))
        line: str | None = next(ours)
        for there in disk.splitlines(True):
            if there == line:
                line = next(ours, None)
            else:
                assert there == "\n" or _EMBED.fullmatch(there), f"{there!r} is none of its author's, {line!r} is gone"
        assert line is None, f"{line!r} is gone"
        ids = _EMBED.findall(disk)
        assert len(ids) == len(set(ids)), "at most one embed a block"
        assert not self.unwanted & (set(ids) - set(_EMBED.findall(self.base))), "what was deleted stays deleted"

    def judge_all(self) -> None:
        """When all has settled: every word, once, and every block as it was typed last."""
        text = self.read()
        assert text == self.buffer == self.base
        assert sorted(re.findall(r"\bw\d+\b", text)) == sorted(self.words)
        assert dict(re.findall(r"double: (\S+)\nnumber: (\d)", text)) == {
            id: str(number) for id, number in self.numbers.items()
        }
        for line in plain(text).splitlines():
            assert _LINE.fullmatch(line), line
        for id, number in self.numbers.items():
            page = (self.root / f"vaultlab/{id}.md").read_text()
            assert f'lab_note: "[[{self.name.removesuffix(".md")}]]"' in page
            assert (self.root / f"vaultlab/figures/{id}.plot.svg").read_text() == f"<svg>{number}.0</svg>"
