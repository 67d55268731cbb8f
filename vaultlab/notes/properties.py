"""The frontmatter: read as YAML 1.2 as Obsidian reads it, each property with its line; never written back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import frontmatter
from frontmatter.default_handlers import BaseHandler

from vaultlab.errors import NoteError
from vaultlab.notes.fences import LINE_END
from vaultlab.notes.note import Problem
from vaultlab.notes.scalar import Node
from vaultlab.notes.yaml12 import read

_HEAD = re.compile(
    r"\ufeff?---[ \t]*(?:\r\n|\r|\n)(?P<yaml>(?:.*?(?:\r\n|\r|\n))??)---[ \t]*(?:\r\n|\r|\n|\Z)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Head:
    """A note's frontmatter: `text` is its YAML, with line feeds, from line 2 on; `body_at`, where the body begins."""

    body_at: int
    first_line: int
    text: str = ""
    entries: Mapping[str, tuple[Node, Node]] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def values(self) -> dict[str, Any]:
        return {name: node.value for name, (_, node) in self.entries.items()}


class _Yaml12(BaseHandler):  # type: ignore[misc]  # python-frontmatter has no types
    """What it gives are nodes, which know their lines. Splitting is done before: python-frontmatter strips the text."""

    FM_BOUNDARY = re.compile("^---$", re.MULTILINE)

    def split(self, text: str) -> tuple[str, str]:
        return text, ""

    def load(self, fm: str) -> dict[str, tuple[Node, Node]]:
        node = read(fm, 1, strict=False)
        if node.value is not None and not isinstance(node.value, dict):
            raise NoteError("It is no list of properties.", "Write `name: value` lines.", line=2)
        return dict(node.entries)


def head(text: str) -> Head:
    """The frontmatter of a note; one that cannot be read is a problem of that note."""
    found = _HEAD.match(text)
    body_at = found.end() if found else int(text.startswith("\ufeff"))
    first_line = 1 + len(LINE_END.findall(text, 0, body_at))
    if found is None:
        return Head(body_at, first_line)
    yaml = LINE_END.sub("\n", found["yaml"])
    try:
        # A comment stands in for the opening `---`, so that lines stay what they are.
        entries, _ = frontmatter.parse("#\n" + yaml, handler=_Yaml12())
    except NoteError as error:
        message = f"The properties at the top of this note cannot be read. {error.message}"
        return Head(body_at, first_line, yaml, problem=Problem(error.line or 1, message, error.hint))
    return Head(body_at, first_line, yaml, entries)
