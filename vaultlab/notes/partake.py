"""The one line that has a note take part, where its author asks for it."""

import re

from vaultlab.notes.fences import LINE_END
from vaultlab.notes.parse import parse
from vaultlab.notes.properties import Head, head
from vaultlab.notes.splice import Edit, apply

TAG = "experiment"


def partake(text: str) -> Edit | None:
    """What to put in so that the note has the tag; None where it takes part, or its properties cannot be read.

    Where the tags are written in a way that a word cannot simply be added to, the checkbox `vaultlab: true` does.
    """
    before, top = parse(text), head(text)
    if before.takes_part or top.problem is not None:
        return None
    ending = LINE_END.search(text)
    end = ending.group() if ending else "\n"
    for edit in _ways(text, top, end):
        after = parse(apply(text, edit))
        if after.takes_part and not after.problems[len(before.problems) :] and len(after.blocks) == len(before.blocks):
            return edit
    return None


def _ways(text: str, top: Head, end: str) -> list[Edit]:
    """The ways to say it, the best first; each is tried on the note before one is taken."""
    at = int(text.startswith("\ufeff"))
    if top.first_line == 1:
        return [Edit(at, f"---{end}tags:{end}  - {TAG}{end}---{end}")]
    closing = text.rindex("---", 0, top.body_at)
    ways = [] if "tags" in top.entries else [Edit(closing, f"tags:{end}  - {TAG}{end}")]
    for pattern, insert in (
        (r"^tags:[ \t]*\[[^\]\r\n]*[^\]\s,](?=[ \t]*\])", f", {TAG}"),  # tags: [a, b]
        (r"^tags:[ \t]*\[(?=[ \t]*\])", TAG),  # tags: []
        (r"^tags:[ \t]*(?=\r?$)", f"{end}  - {TAG}"),  # tags:
        (r"^tags:[ \t]*[^\s\[\]{}\"'|>&*!#%@`,][^\r\n#]*?(?=[ \t]*\r?$)", f", {TAG}"),  # tags: a, b
    ):
        found = re.search(pattern, text[:closing], re.MULTILINE)
        ways += [Edit(found.end(), insert)] if found else []
    items = re.search(
        r"^tags:[ \t]*(?:\r\n|\r|\n)(?:(?P<indent>[ \t]*)- [^\r\n]*(?:\r\n|\r|\n))+", text[:closing], re.MULTILINE
    )
    ways = [Edit(items.end(), f"{items['indent']}- {TAG}{end}"), *ways] if items else ways
    return [*ways, Edit(closing, f"vaultlab: true{end}")]
