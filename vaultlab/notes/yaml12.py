"""YAML 1.2, core schema, with the line and the raw text of everything: what frontmatter and blocks are read with.

ruamel's parser gives the events. The scalars are resolved here, because a note needs to know what the author typed
(`007`, `17.10`, `[[Note]]`), which a constructed value no longer says; and there are no time stamps.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

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

DEPTH = 16
_QUOTE = "If it is meant as text, put quotes around it, or write it under a `|`."
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WIKILINK = re.compile(r"\[\[[^\[\]\n]+\]\]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its 1-based line, its text as typed (scalars, wikilinks), and whether it was typed without quotes.

    `value` is a plain JSON value; `items` are a list's or a mapping's own nodes; `after` is a comment that cut a text.
    """

    value: Any
    line: int
    raw: str = ""
    plain: bool = False
    after: str = ""
    items: tuple["Node", ...] = ()
    entries: dict[str, tuple["Node", "Node"]] = field(default_factory=dict)


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: `012` is 12, `on` and `22:30` are texts.

    >>> scalar("012"), scalar("1e-4"), scalar("on"), scalar("2024-01-01")
    (12, 0.0001, 'on', '2024-01-01')
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        # Beyond this Python refuses to convert at all, and no field counts that high.
        return int(text) if len(text) <= 300 else float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float(special[1] + "inf") if special[2] else float("nan")
    return text


def read(text: str, first_line: int, *, strict: bool) -> Node:
    """The one document of `text`, whose first line is the note's line `first_line`.

    `strict` refuses tags, anchors and aliases: a block needs none, and a bomb is made of them. Otherwise (frontmatter)
    a tag is passed over and an alias may stand for a scalar. NoteError, with its line, for anything that is not YAML.
    """
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
        problem = str(broken.problem)
        if "mapping values are not allowed" in problem:
            return NoteError(
                "There is a second `: ` in this line, which YAML takes for a second key.", _QUOTE, line=line
            )
        if "'\\t'" in problem:
            return NoteError("A tab stands where YAML wants spaces.", "Indent with spaces.", line=line)
        if "block scalar" in str(broken.context):
            return NoteError("YAML takes a `>` or `|` at the start for the opening of a long text.", _QUOTE, line=line)
        return NoteError(f"YAML cannot read this line: {problem}.", _QUOTE, line=line)

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
            raise self.error(event, f"`{tag}` is a YAML tag, which a block cannot have.", _QUOTE)

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
                first = entries[key.raw][0].line
                raise self.error(
                    inner,
                    f"`{key.raw}` stands here a second time; the first is on line {first}.",
                    "Keep one of the two.",
                )
            entries[key.raw] = key, self.node(next(self.events), depth + 1)
        values = {name: value.value for name, (_, value) in entries.items()}
        return Node(values, self.first_line + event.start_mark.line, entries=entries)
