"""YAML 1.2, core schema, with the line and the raw text of everything: what frontmatter and blocks are read with.

ruamel's parser gives the events. They are put together here, because a note needs to know what the author typed
(`007`, `17.10`, `[[Note]]`), which a constructed value no longer says.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from vaultlab.errors import NoteError
from vaultlab.notes.scalar import Node, scalar
from vaultlab.notes.simple_yaml import read_simple

DEPTH = 16
_QUOTE = "If it is meant as text, put quotes around it, or write it under a `|`."
# What ruamel says, and the same for an author.
_BROKEN = (
    (
        "mapping values are not allowed",
        "There is a second `: ` in this line, which YAML takes for a second key.",
        _QUOTE,
    ),
    ("character '\\t'", "A tab stands where YAML wants spaces.", "Indent with spaces."),
    ("block scalar", "YAML takes a `>` or `|` at the start for the opening of a long text.", _QUOTE),
    (
        "flow",
        "A `[` or `{` in this line has no end of its own, or a `:` or `,` in it no space behind it.",
        f"Write it as in `{{sparsity: [0, 0.9]}}`. {_QUOTE}",
    ),
    (
        "quoted scalar",
        "A quotation mark in this line has no end of its own.",
        "Close it, or use the other kind, ' or \".",
    ),
    ("expected <block end>", "Something stands behind the end of a value, or the line is indented otherwise.", _QUOTE),
    ("could not find expected ':'", "This line has no `: `.", "Write `name: value`."),
    ("cannot start any token", "YAML gives the sign at the start of this value a meaning of its own.", _QUOTE),
)
_WIKILINK = re.compile(r"\[\[[^\[\]\n]+\]\]")


def read(text: str, first_line: int, *, strict: bool) -> Node:
    """The one document of `text`, whose first line is the note's line `first_line`.

    `strict` refuses tags, anchors and aliases: a block needs none, and a bomb is made of them. Otherwise (frontmatter)
    a tag is passed over and an alias may stand for a scalar. NoteError, with its line, for anything that is not YAML.
    """
    return read_simple(text, first_line) or read_full(text, first_line, strict=strict)


def read_full(text: str, first_line: int, *, strict: bool) -> Node:
    """The same by way of the parser, whatever the document."""
    return _Reader(text, first_line, strict).document()


class _Reader:
    def __init__(self, text: str, first_line: int, strict: bool) -> None:
        self.text = text
        self.first_line = first_line
        self.strict = strict
        self.anchors: dict[str, Node] = {}
        self.events: Iterator[Event] = iter(YAML(typ="safe", pure=True).parse(text))

    def document(self) -> Node:
        try:
            event = next(self.events)
            while not isinstance(event, NodeEvent | StreamEndEvent):
                event = next(self.events)
            if isinstance(event, StreamEndEvent):
                return Node(None, self.first_line)
            root = self.node(event, 0)
            for event in self.events:
                if isinstance(event, DocumentStartEvent):
                    raise self.error(event, "A second YAML document begins here.", "Take the `---` line out.")
            return root
        except MarkedYAMLError as broken:
            raise self.broken(broken) from None
        except YAMLError as broken:
            # A character that YAML does not allow; only such an error has a bare position.
            line = self.first_line + self.text.count("\n", 0, getattr(broken, "position", 0))
            raise NoteError(
                "There is an invisible control character in this line, which YAML cannot hold.",
                "Type the line anew.",
                line=line,
            ) from None

    def error(self, event: Event, message: str, hint: str) -> NoteError:
        return NoteError(message, hint, line=self.first_line + event.start_mark.line)

    def broken(self, broken: MarkedYAMLError) -> NoteError:
        mark = broken.problem_mark or broken.context_mark
        line = self.first_line + (mark.line if mark else 0)
        said = f"{broken.context}: {broken.problem}"
        if "mapping values" in said and mark and self.text.split("\n")[mark.line][: mark.column].count(":") == 0:
            hint = "Take the spaces at its beginning away; or, if it belongs to the text above, put that under a `|`."
            return NoteError("This line is indented, so YAML reads it as part of the line above.", hint, line=line)
        for words, message, hint in _BROKEN:
            if words in said:
                return NoteError(message, hint, line=line)
        return NoteError("YAML cannot read this line.", _QUOTE, line=line)

    def node(self, event: Event, depth: int) -> Node:
        if depth > DEPTH:
            raise self.error(
                event, f"Lists within lists, more than {DEPTH} deep.", "Nothing here needs that: flatten it."
            )
        if isinstance(event, AliasEvent):
            return self.alias(event)
        if self.strict and isinstance(event, NodeEvent):
            self.refuse_marks(event)
        if isinstance(event, ScalarEvent):
            node = self.scalar(event)
        elif isinstance(event, SequenceStartEvent):
            node = self.sequence(event, depth)
        elif isinstance(event, MappingStartEvent):
            node = self.mapping(event, depth)
        else:  # pragma: no cover  # the parser yields no other node
            raise TypeError(event)
        if isinstance(event, NodeEvent) and event.anchor:
            self.anchors[event.anchor] = node
        return node

    def refuse_marks(self, event: NodeEvent) -> None:
        if event.anchor is not None:
            raise self.error(event, f"`&{event.anchor}` is a YAML anchor, which a block cannot have.", _QUOTE)
        tag = getattr(event, "tag", None)
        if tag is not None:
            short = str(tag).replace("tag:yaml.org,2002:", "!!")
            raise self.error(event, f"`{short}` is a YAML tag, which a block cannot have.", _QUOTE)

    def alias(self, event: AliasEvent) -> Node:
        if self.strict:
            raise self.error(event, f"`*{event.anchor}` is a YAML alias, which a block cannot have.", _QUOTE)
        target = self.anchors.get(event.anchor)
        if target is None or isinstance(target.value, dict | list):
            raise self.error(event, f"vaultlab does not follow the YAML alias `*{event.anchor}`.", _QUOTE)
        return target

    def scalar(self, event: ScalarEvent) -> Node:
        line = self.first_line + event.start_mark.line
        raw = str(event.value)
        if event.style in ("|", ">"):
            return Node(raw.removesuffix("\n"), line, raw)
        if event.style is not None or not event.implicit[0]:
            return Node(raw, line, raw)
        rest = re.compile(r"[ \t]+(#[^\n]*)").match(self.text, event.end_mark.index)
        return Node(scalar(raw), line, raw, plain=True, after=rest[1] if rest else "")

    def sequence(self, event: SequenceStartEvent, depth: int) -> Node:
        items = []
        while not isinstance(inner := next(self.events), SequenceEndEvent):
            items.append(self.node(inner, depth + 1))
        line = self.first_line + event.start_mark.line
        link = _WIKILINK.match(self.text, event.start_mark.index) if event.flow_style else None
        # `[[Note]]` is a list in a list to YAML; a list of numbers in a list stays what it is.
        if (
            link
            and link.end() == inner.end_mark.index
            and any(one.plain and isinstance(one.value, str) for one in items[0].items[:1])
        ):
            return Node(link[0], line, link[0])
        return Node([one.value for one in items], line, items=tuple(items))

    def mapping(self, event: MappingStartEvent, depth: int) -> Node:
        entries: dict[str, tuple[Node, Node]] = {}
        while not isinstance(inner := next(self.events), MappingEndEvent):
            key = self.node(inner, depth + 1)
            if isinstance(key.value, dict | list) or not key.raw:
                raise self.error(inner, "A key has to be a word.", _QUOTE)
            if key.raw in entries:
                raise self.error(inner, f"`{key.raw}` stands here a second time.", "Keep one of the two lines.")
            value = self.node(next(self.events), depth + 1)
            # The parser finds nothing only on the next line.
            entries[key.raw] = key, replace(value, line=key.line) if value.plain and not value.raw else value
        values = {name: value.value for name, (_, value) in entries.items()}
        return Node(values, self.first_line + event.start_mark.line, entries=entries)
