"""What a text field refers to, and the passage of a note that a reference names."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from vaultlab.errors import NoteError
from vaultlab.notes.embed import result_of, targets
from vaultlab.notes.fences import LINE_END, tokens_of
from vaultlab.notes.note import Note
from vaultlab.notes.properties import head

Kind = Literal["literal", "this note", "note", "folder", "vault", "python-help", "file"]

_LINK = re.compile(r"\[\[([^\[\]|#]*)(?:#([^\[\]|]*))?(?:\|[^\[\]]*)?\]\]")
_COMMENT = re.compile(r"%%.*?%%")
_ID = re.compile(r"(?:^|\s)\^([A-Za-z0-9-]+)\s*$")
_TASK = re.compile(r"\[.\]\s+")
_SHOWN_LINK = re.compile(r"!?\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_MARKED = re.compile(r"==(?=\S)(.+?)(?<=\S)==")


@dataclass(frozen=True, slots=True)
class Reference:
    """A text value, understood. `path`: a note, folder or file (empty: this note); `fragment`: heading or `^block`."""

    kind: Kind
    path: str = ""
    fragment: str = ""


def classify(value: str) -> Reference:
    """What a text value means: itself, or where a text stands.

    >>> classify("[[Note#Heading]]")
    Reference(kind='note', path='Note', fragment='Heading')
    """
    text = value.strip()
    if text.casefold() == "this note":
        return Reference("this note")
    if text == "vault":
        return Reference("vault")
    if text == "python-help":
        return Reference("python-help")
    if re.fullmatch(r"\^[A-Za-z0-9-]+", text):
        return Reference("note", "", text)
    for kind in ("folder", "file"):
        if text.startswith(f"{kind}:") and "\n" not in text:
            return Reference(kind, text.partition(":")[2].strip())
    if found := _LINK.fullmatch(text):
        return Reference("note", found[1].strip(), (found[2] or "").strip())
    return Reference("literal")


def prose(text: str, note: Note, folder: str = "vaultlab") -> str:
    """A note's body as its author wrote it, for a model to read: without properties, comments, our blocks and embeds.

    An embed of ours put in or taken out does not change it, else every result would make the next one stale.
    """
    top = head(text)
    lines = LINE_END.split(text[top.body_at :])
    code = set()
    for token in tokens_of(text[top.body_at :]):
        if token.map and token.type in ("fence", "code_block"):
            code |= set(range(*token.map))
        elif token.map and token.type == "obsidian_span" and "%%" in lines[token.map[0]]:
            lines[slice(*token.map)] = [""] * (token.map[1] - token.map[0])
    for block in note.blocks:
        inside = range(block.start - top.first_line, block.end - top.first_line + 1)
        lines[inside.start : inside.stop] = [""] * len(inside)
    kept: list[str] = []
    for number, line in enumerate(lines):
        shown = line if number in code else _COMMENT.sub("", line)
        if number not in code and _is_ours(shown, folder):
            continue
        # A blank line within a quote is one too: the splice may have put it there.
        blank = not shown.strip(" \t>")
        if not blank or (kept and kept[-1]):
            kept.append("" if blank else shown)
    return "\n".join(kept).strip("\n")


def passage(text: str, fragment: str) -> str:
    """Of a note's prose: the paragraphs and list items under a heading, or the block with `^id`.

    NoteError, naming the nearest, where there is none.
    """
    tokens = tokens_of(text)
    found = _by_id(tokens, fragment[1:]) if fragment.startswith("^") else _under(tokens, fragment)
    said = _joined(found)
    if not said:
        raise NoteError(f"There is no text under `{fragment}`.", "Write a paragraph or a list there.")
    return said


def items(text: str, fragment: str = "") -> tuple[str | Reference, ...]:
    """Of a note's prose: the items of all lists under a heading, of the list with `^id`, or of the whole note.

    Every kind of list counts (`-`, `*`, `+`, `1.`, `- [ ]`, in quotes and callouts); what an item says is taken without
    its markup. An item that has a list of its own is that list's name: the items are those within. A passage that is
    embedded (`![[Note#Heading]]`) is a Reference, for its items to stand in its place. NoteError where there is none.
    """
    tokens = tokens_of(text)
    if fragment:
        found_at = _by_id(tokens, fragment[1:]) if fragment.startswith("^") else _under(tokens, fragment)
        tokens = _item_of(tokens, found_at[0]) if fragment.startswith("^") and len(found_at) == 1 else found_at
    found: list[str | Reference] = []
    open_items: list[_Item] = []
    for token in tokens:
        if token.type == "list_item_open":
            if open_items:
                open_items[-1].names_a_list = True
            open_items.append(_Item())
        elif token.type == "list_item_close":
            item = open_items.pop()
            if item.said and not item.names_a_list:
                found.append("\n\n".join(item.said))
        elif token.type == "inline":
            said, embedded = _split(token.content)
            found += embedded
            if open_items and said:
                open_items[-1].said.append(said)
    if not found:
        where = f"under `{fragment}`" if fragment else "in that note"
        empty = any(token.type == "list_item_open" for token in tokens)
        raise NoteError(
            f"The list {where} is empty." if empty else f"There is no list {where}.",
            "Write its words or texts there, each on a line of its own that begins with `- `.",
        )
    return tuple(found)


@dataclass(slots=True)
class _Item:
    """A list item while its lines are read."""

    said: list[str] = field(default_factory=list)
    names_a_list: bool = False


def _split(content: str) -> tuple[str, list[Reference]]:
    """What a paragraph says without its markup, and the passages that it embeds on lines of their own."""
    lines, embedded = [], []
    for line in _ID.sub("", content).split("\n"):
        bare = line.strip()
        if bare.startswith("!") and (found := _LINK.fullmatch(bare[1:])):
            embedded.append(Reference("note", found[1].strip(), (found[2] or "").strip()))
        else:
            lines.append(line)
    return _spoken(_TASK.sub("", "\n".join(lines), count=1) if _TASK.match(content) else "\n".join(lines)), embedded


def _spoken(content: str) -> str:
    """Markdown as it is read: `**good**` is good, `[[Good|nice]]` nice; lines that only the window ends are one."""
    [inline] = _inline_reader().parseInline(_MARKED.sub(r"\1", _SHOWN_LINK.sub(r"\1", content)))
    breaks = {"softbreak": " ", "hardbreak": "\n"}
    said = [breaks.get(one.type, "" if one.type == "html_inline" else one.content) for one in inline.children or ()]
    return "".join(said).strip()


@cache
def _inline_reader() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("strikethrough")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The name of the list that is most like this one, for "did you mean"."""
    by_folded = {one.casefold(): one for one in names}
    near = difflib.get_close_matches(name.casefold(), list(by_folded), 1, 0.5)
    return by_folded[near[0]] if near else None


def _is_ours(line: str, folder: str) -> bool:
    bare = line.strip(" \t>")
    shown = list(targets(bare))
    return len(shown) == 1 and bare == shown[0][1] and result_of(shown[0][0], folder) is not None


def _under(tokens: list[Token], fragment: str) -> list[Token]:
    """The tokens under a heading, or under one heading within another: `Results#Geometry`."""
    headings = [(at, int(token.tag[1:])) for at, token in enumerate(tokens) if token.type == "heading_open"]
    start, level, end = 0, 0, len(tokens)
    for wanted in fragment.split("#"):
        here = [(at, depth) for at, depth in headings if start <= at < end and depth > level]
        match = next(((at, depth) for at, depth in here if _plain(tokens[at + 1].content) == _plain(wanted)), None)
        if match is None:
            raise _missing("heading", wanted, [tokens[at + 1].content for at, _ in here])
        start, level = match[0] + 3, match[1]
        end = next((at for at, depth in headings if at >= start and depth <= level), end)
    under = [token for at, token in enumerate(tokens[start:end], start) if tokens[at - 1].type != "heading_open"]
    return [token for token in under if token.type not in ("fence", "code_block")]


def _plain(heading: str) -> str:
    """Headings as Obsidian compares them in links: no case, and none of the characters that a link cannot hold."""
    return " ".join(re.sub(r"[#|^:%\[\]\\]", " ", heading).casefold().split())


def _by_id(tokens: list[Token], id: str) -> list[Token]:
    ids = []
    for at, token in enumerate(tokens):
        found = _ID.search(token.content) if token.type == "inline" else None
        if found is None:
            continue
        ids.append(found[1])
        if found[1] == id:
            alone = not token.content[: found.start()].strip()
            return _before(tokens, at - 1) if alone else [token]
    raise _missing("block", f"^{id}", [f"^{one}" for one in ids])


def _item_of(tokens: list[Token], marked: Token) -> list[Token]:
    """The list item in which a line with an id stands, with the list that it may have; else the line alone."""
    at = next(number for number, token in enumerate(tokens) if token is marked)
    opened = next((i for i in range(at, -1, -1) if tokens[i].type == "list_item_open"), None)
    if opened is None or tokens[opened].level >= marked.level:
        return [marked]
    closed = next(i for i in range(opened, len(tokens)) if i > opened and tokens[i].level == tokens[opened].level)
    return tokens[opened : closed + 1] if closed > at else [marked]


def _before(tokens: list[Token], at: int) -> list[Token]:
    """The block that ends just before the token at `at`: a list, a quote, a table, a fence."""
    start = at - 1
    while start > 0 and tokens[start].level > tokens[at].level:
        start -= 1
    if start >= 0 and tokens[at - 1].nesting == -1:
        start = max(i for i in range(at - 1) if tokens[i].nesting == 1 and tokens[i].level == tokens[at - 1].level)
    return tokens[max(0, start) : at]


def _joined(tokens: Iterable[Token]) -> str:
    """Their texts, paragraphs apart and a tight list's items on lines of their own."""
    said = ""
    hidden = tight = False
    for token in tokens:
        if token.type == "paragraph_open":
            hidden = token.hidden
        text = token.content if token.type in ("inline", "fence", "code_block") else ""
        text = _ID.sub("", text).strip("\n")
        if text:
            said += ("\n" if hidden and tight else "\n\n") * bool(said) + text
            tight = hidden
    return said


def _missing(kind: str, name: str, names: Sequence[str]) -> NoteError:
    near = nearest(name, names)
    return NoteError(f"There is no {kind} `{name}` in that note.", f"Did you mean `{near}`?" if near else "")
