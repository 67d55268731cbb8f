"""Where the fences are in a note's Markdown.

markdown-it reads the blocks and nothing inside them. Two constructs of Obsidian's are taught to it: comments `%%…%%`
and formulas `$$…$$`, which may run over many lines and swallow fences.
"""

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block import fence as fence_rule
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin

LINE_END = re.compile(r"\r\n|\r|\n")
_SPAN = re.compile(r"\\.|(?P<ticks>`+)|%%|\$\$")


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block: its lines (1-based), its text without the container's prefix, and its own indent within that."""

    start: int
    end: int
    info: str
    text: str
    closed: bool
    listed: bool
    indent: int


@dataclass(frozen=True, slots=True)
class Outline:
    """What a note's Markdown holds: its fences; `code`, the lines of any code; `unclosed`, a comment left open."""

    fences: tuple[Fence, ...]
    code: tuple[tuple[int, int], ...]
    unclosed: int | None


def tokens_of(body: str, *, obsidian: bool = True) -> list[Token]:
    """The Markdown's blocks, with nothing read inside; without `obsidian`, as others read them: no `%%`, no `$$`."""
    reader = _reader(obsidian)
    tokens: list[Token] = []
    reader.block.parse(LINE_END.sub("\n", body).replace("\0", "\ufffd"), reader, {}, tokens)
    return tokens


def outline(body: str, first_line: int) -> Outline:
    """The fences of Markdown whose first line is the note's line `first_line`."""
    fences, code = [], []
    unclosed = None
    containers: list[str] = []
    for token in tokens_of(body):
        if token.nesting == 1:
            containers.append(token.type)
        elif token.nesting == -1:
            containers.pop()
        if token.map is None:
            continue
        start, end = first_line + token.map[0], first_line + token.map[1] - 1
        if token.type == "obsidian_span" and token.hidden:
            unclosed = start
        if token.type in ("fence", "code_block"):
            code.append((start, end))
        if token.type == "fence":
            lines = token.content.count("\n") + (not token.content.endswith("\n") and bool(token.content))
            listed = bool(containers) and containers[-1] == "list_item_open"
            closed = lines == end - start - 1
            fences.append(Fence(start, end, token.info, token.content, closed, listed, token.meta["indent"]))
    return Outline(tuple(fences), tuple(code), unclosed)


@cache
def _reader(obsidian: bool) -> MarkdownIt:
    reader = MarkdownIt("commonmark").use(footnote_plugin)
    interrupts: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list", "footnote_def"]}
    if obsidian:
        reader.block.ruler.before("code", "obsidian_span", _obsidian_span, interrupts)
    reader.block.ruler.at("fence", _fence, interrupts)
    return reader


def _fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if not fence_rule(state, start, end, silent):
        return False
    if not silent:
        # Of the closing line: what it is indented by beyond its container, which only the state still knows.
        last = state.line - 1
        state.tokens[-1].meta["indent"] = max(0, state.sCount[last] - state.blkIndent)
    return True


def _obsidian_span(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """A comment or formula that opens in this line and closes in a later one; an open comment runs to the end."""
    opened = None if state.is_code_block(start) else _opening(_line(state, start))
    if opened is None:
        return False
    mark, at = opened
    for number in range(start + 1, end):
        line = _line(state, number)
        if at and mark == "$$" and not line.strip():
            return False
        if mark in line:
            break
    else:
        if at or mark == "$$":
            return False
        number = end
    if not silent:
        token = state.push("obsidian_span", "", 0)
        token.hidden = number == end
        state.line = min(number + 1, end)
        token.map = [start, state.line]
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]


def _opening(line: str) -> tuple[str, int] | None:
    """The `%%` or `$$` that this line opens and does not close, with its place."""
    if "%%" not in line and "$$" not in line:
        return None
    at = 0
    while found := _SPAN.search(line, at):
        at = found.end()
        if found[0].startswith("\\"):
            continue
        if ticks := found["ticks"]:
            close = re.compile(rf"(?<!`){ticks}(?!`)").search(line, at)
            at = close.end() if close else at
            continue
        close_at = line.find(found[0], at)
        if close_at < 0:
            return found[0], found.start()
        at = close_at + 2
    return None
