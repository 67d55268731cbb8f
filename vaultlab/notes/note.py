"""A note as vaultlab sees it: plain data, kept between runs by the index. Lines are 1-based lines of the note."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Run = Literal["auto", "manual", "frozen"]
Shown = Literal["result", "figure", "none"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What the author wrote that cannot be used as written, and the mend. `field` is the block's key it is about."""

    line: int
    message: str
    hint: str = ""
    field: str | None = None


@dataclass(frozen=True, slots=True)
class Embed:
    """Something that the note embeds, in any form: the target's path as written, and what stands after its `#`."""

    path: str
    fragment: str
    line: int


@dataclass(frozen=True, slots=True)
class Block:
    """A fence of ours. `start` and `end` are the lines of its two fences; a block with problems is listed all the same.

    `lines_of` gives the line of every key, of each claim (`expect.0`) and of each swept field (`sweep.seed`). `prefix`
    is what the container puts before a line (`> `, two spaces …), `listed` whether the innermost container is a list.
    `run` is None where the block does not say: the note's counts. `sha256` is of what stands between the fences, as
    Markdown sees it: without the container's prefix, its lines joined by a line feed.
    """

    start: int
    end: int
    sha256: str = ""
    prefix: str = ""
    listed: bool = False
    id: str | None = None
    experiment: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    expect: tuple[str, ...] = ()
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    title: str = ""
    tests: str = ""
    embed: Shown = "result"
    run: Run | None = None
    lines_of: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def line_of(self, name: str | None) -> int:
        """The line of a field, swept or not; the fence's where the block does not have it."""
        return self.lines_of.get(name or "", self.lines_of.get(f"sweep.{name}", self.start))


@dataclass(frozen=True, slots=True)
class Note:
    """What a note says to vaultlab. With a problem of its own (frontmatter, an open fence) none of its blocks runs."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    takes_part: bool = False
    run: Run = "auto"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    embeds: tuple[Embed, ...] = ()
    problems: tuple[Problem, ...] = ()


def to_json(note: Note) -> dict[str, Any]:
    """The note as plain JSON types."""
    return asdict(note)


def from_json(stored: Mapping[str, Any]) -> Note:
    """The inverse of `to_json`, also after the trip through JSON has turned tuples into lists."""
    return Note(
        **{
            **stored,
            "blocks": tuple(map(_block, stored["blocks"])),
            "embeds": tuple(Embed(**one) for one in stored["embeds"]),
            "problems": tuple(Problem(**one) for one in stored["problems"]),
        }
    )


def _block(stored: Mapping[str, Any]) -> Block:
    return Block(
        **{
            **stored,
            "expect": tuple(stored["expect"]),
            "sweep": {name: tuple(values) for name, values in stored["sweep"].items()},
            "problems": tuple(Problem(**one) for one in stored["problems"]),
        }
    )
