"""The one line that goes into an author's note: an embed under its block. Nothing else in the house writes there."""

from dataclasses import dataclass

from markdown_it.token import Token

from vaultlab.notes.embed import shows
from vaultlab.notes.fences import LINE_END, tokens_of
from vaultlab.notes.note import Block
from vaultlab.notes.parse import parse
from vaultlab.notes.properties import head


@dataclass(frozen=True, slots=True)
class Edit:
    """`insert` goes in at `offset`, counted in characters of the note's text."""

    offset: int
    insert: str


def splice(text: str, block: Block, id: str, folder: str = "vaultlab") -> Edit | None:
    """Where the embed of `id` goes, `block` being a block of this very text.

    None where the note embeds the result or a figure of it already, in whatever form, or where the block wants none.
    """
    if block.embed == "none" or any(shows(embed, id, folder) for embed in parse(text).embeds):
        return None
    embed = f"![[{folder}/{id}#^{block.embed}]]"
    if not block.listed:
        above, below = True, not _is_blank(_line_after(text, block), block.prefix)
        return _edit(text, block, embed, above=above, below=below)
    # A blank line in a tight list would turn it loose. Behind the list's end it does not, and there it is needed
    # where the author's next line would otherwise be read as the embed's own second line.
    plain, apart = (_edit(text, block, embed, above=False, below=below) for below in (False, True))
    return apart if not _adds_only(text, plain, embed) and _adds_only(text, apart, embed) else plain


def apply(text: str, edit: Edit) -> str:
    """The note with the edit made."""
    return text[: edit.offset] + edit.insert + text[edit.offset :]


def _edit(text: str, block: Block, embed: str, *, above: bool, below: bool) -> Edit:
    blank = block.prefix.rstrip()
    lines = [blank] * above + [block.prefix + embed] + [blank] * below
    start, end = _line_end(text, block.end)
    if start == end:  # the note ends with the fence, without a line end: the opening fence has one
        opening = slice(*_line_end(text, block.start))
        return Edit(end, "".join(text[opening] + line for line in lines))
    return Edit(end, "".join(line + text[start:end] for line in lines))


def _line_end(text: str, line: int) -> tuple[int, int]:
    for number, found in enumerate(LINE_END.finditer(text), 1):
        if number == line:
            return found.span()
    return len(text), len(text)


def _line_after(text: str, block: Block) -> str:
    _, start = _line_end(text, block.end)
    return LINE_END.split(text[start:], maxsplit=1)[0]


def _is_blank(line: str, prefix: str) -> bool:
    return not line.strip(" \t>" if ">" in prefix else " \t")


def _adds_only(text: str, edit: Edit, embed: str) -> bool:
    """Whether the edit adds one paragraph and changes nothing else, not even a list's tightness, to any reader."""
    body_at = head(text).body_at
    old, new = text[body_at:], apply(text, edit)[body_at:]
    return all(_is_one_more(tokens_of(old, obsidian=o), tokens_of(new, obsidian=o), embed) for o in (True, False))


def _is_one_more(before: list[Token], after: list[Token], embed: str) -> bool:
    added = [at for at, token in enumerate(after) if token.type == "inline" and token.content == embed]
    if not added:
        return False
    del after[added[0] - 1 : added[0] + 2]
    return _shape(after) == _shape(before)


def _shape(tokens: list[Token]) -> list[tuple[str, int, bool, str]]:
    return [(token.type, token.level, token.hidden, token.content) for token in tokens]
