"""Note text → Note: whether it takes part, its blocks with their lines, what it embeds, what is wrong with it."""

import hashlib
import re
from typing import Any, cast

from vaultlab.notes.block import RUNS, read_block
from vaultlab.notes.embed import embeds
from vaultlab.notes.fences import LINE_END, Fence, Outline, outline
from vaultlab.notes.note import Block, Embed, Note, Problem, Run, from_json, to_json
from vaultlab.notes.properties import Head, head
from vaultlab.notes.sweep import expand

__all__ = ["Block", "Embed", "Note", "Problem", "expand", "from_json", "may_have_blocks", "parse", "to_json"]

_FENCE = re.compile(r"(?<![`~])[`~]{3,}[ \t]*vaultlab(?!\S)")
# What a note says of itself in frontmatter that cannot be read: enough to tell its author, and nothing runs.
_MEANS_TO = re.compile(r"\bexperiment\b|^vaultlab:[ \t]*true\b", re.MULTILINE | re.IGNORECASE)


def may_have_blocks(text: str) -> bool:
    """Whether the note is worth parsing: false only for a note that has no fence of ours."""
    return "vaultlab" in text and _FENCE.search(text) is not None


def parse(text: str) -> Note:
    """Read a note. It never fails: what cannot be read is among the note's or the block's problems."""
    top = head(text)
    body = text[top.body_at :]
    found = outline(body, top.first_line)
    lines = LINE_END.split(text)
    values = top.values
    run, run_problem = _run(top)
    problems = [problem for problem in (top.problem, run_problem) if problem] + _open_ends(found)
    return Note(
        properties=values,
        takes_part=_takes_part(values) or (top.problem is not None and _MEANS_TO.search(top.text) is not None),
        run=run,
        defaults=_defaults(values),
        blocks=tuple(_block(fence, lines) for fence in found.fences if _is_ours(fence)),
        embeds=tuple(embeds(body, top.first_line, found.code)),
        problems=tuple(problems),
    )


def _takes_part(properties: dict[str, Any]) -> bool:
    if properties.get("vaultlab") is True:
        return True
    tags = properties.get("tags")
    names = re.split(r"[,\s]+", tags) if isinstance(tags, str) else tags if isinstance(tags, list) else []
    return any(_is_tag(name) for name in names if isinstance(name, str))


def _is_tag(name: str) -> bool:
    return name.strip().removeprefix("#").casefold().split("/")[0] == "experiment"


def _run(top: Head) -> tuple[Run, Problem | None]:
    if "vaultlab-run" not in top.entries:
        return "auto", None
    key, node = top.entries["vaultlab-run"]
    if node.value is None:
        return "auto", None
    if node.value in RUNS:
        return cast(Run, node.value), None
    said = f"`vaultlab-run` is `{node.raw or node.value}`."
    return "auto", Problem(key.line, said, "It is auto, manual or frozen.", "run")


def _defaults(properties: dict[str, Any]) -> dict[str, Any]:
    ours = {name.removeprefix("vaultlab-"): value for name, value in properties.items() if name.startswith("vaultlab-")}
    return {name: value for name, value in ours.items() if name != "run" and value is not None}


def _open_ends(found: Outline) -> list[Problem]:
    open_ends = [
        Problem(
            fence.start,
            "This fence is not closed, so nothing in this note runs.",
            "Close it with a line of as many backticks or tildes as it opens with.",
        )
        for fence in found.fences
        if not fence.closed
    ]
    if found.unclosed is not None:
        message = "This comment is not closed: `%%` hides everything below it."
        open_ends.append(Problem(found.unclosed, message, "Close it with `%%`."))
    return open_ends


def _is_ours(fence: Fence) -> bool:
    return fence.info.split()[:1] == ["vaultlab"]


def _block(fence: Fence, lines: list[str]) -> Block:
    digest = hashlib.sha256(fence.text.removesuffix("\n").encode("utf-8", "surrogatepass")).hexdigest()
    at = Block(fence.start, fence.end, digest, prefix=_prefix(fence, lines), listed=fence.listed)
    return read_block(fence.text, at)


def _prefix(fence: Fence, lines: list[str]) -> str:
    """What the container puts before the closing fence; spaces that are the fence's own are no part of it."""
    if not fence.closed:
        return ""
    before = re.split("```|~~~", lines[fence.end - 1], maxsplit=1)[0].removeprefix("\ufeff")
    spaces = len(before) - len(before.rstrip(" "))
    return before[: len(before) - min(spaces, fence.indent)]
