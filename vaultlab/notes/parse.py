"""Note text → Note: whether it takes part, its blocks with their lines, what it embeds, what is wrong with it."""

import re
from typing import Any, cast

import frontmatter
from frontmatter.default_handlers import BaseHandler

from vaultlab.errors import NoteError
from vaultlab.notes import yaml12
from vaultlab.notes.block import RUNS, read_block
from vaultlab.notes.embed import embeds
from vaultlab.notes.fences import LINE_END, Fence, Outline, outline
from vaultlab.notes.note import Block, Embed, Note, Problem, Run, from_json, to_json
from vaultlab.notes.sweep import expand

__all__ = ["Block", "Embed", "Note", "Problem", "expand", "from_json", "may_have_blocks", "parse", "to_json"]

_FRONTMATTER = re.compile(
    r"\ufeff?---[ \t]*(?:\r\n|\r|\n)(?P<yaml>(?:.*?(?:\r\n|\r|\n))??)---[ \t]*(?:\r\n|\r|\n|\Z)", re.DOTALL
)
_FENCE = re.compile(r"(?:```|~~~)[`~]*[ \t]*vaultlab(?!\S)")


def may_have_blocks(text: str) -> bool:
    """Whether the note is worth parsing: false only for a note that has no fence of ours."""
    return "vaultlab" in text and _FENCE.search(text) is not None


def parse(text: str) -> Note:
    """Read a note. It never fails: what cannot be read is among the note's or the block's problems."""
    head = _FRONTMATTER.match(text)
    body_at = head.end() if head else int(text.startswith("\ufeff"))
    first_line = 1 + len(LINE_END.findall(text, 0, body_at))
    properties, problems = _properties(head)
    body = text[body_at:]
    lines = LINE_END.split(text)
    found = outline(body, first_line)
    run, run_problems = _run(properties)
    problems += run_problems
    problems += _open_ends(found)
    values = {name: node.value for name, (_, node) in properties.items()}
    return Note(
        properties=values,
        takes_part=_takes_part(values),
        run=run,
        defaults=_defaults(values),
        blocks=tuple(_block(fence, lines) for fence in found.fences if _is_ours(fence)),
        embeds=tuple(embeds(body, first_line, found.code)),
        problems=tuple(problems),
    )


class _Yaml12(BaseHandler):  # type: ignore[misc]  # python-frontmatter has no types
    """python-frontmatter with YAML 1.2 as Obsidian reads it; what it gives are nodes, which know their lines."""

    FM_BOUNDARY = re.compile("^---$", re.MULTILINE)  # asked for, but `head` has been split off already

    def detect(self, text: str) -> bool:
        return True

    def split(self, text: str) -> tuple[str, str]:
        return text, ""

    def load(self, fm: str) -> dict[str, Any]:
        node = yaml12.read(fm, 1, strict=False)
        if node.value is not None and not isinstance(node.value, dict):
            raise NoteError("The frontmatter is not a list of properties.", "Write `name: value` lines.", line=2)
        return dict(node.entries)


def _properties(head: re.Match[str] | None) -> tuple[dict[str, tuple[yaml12.Node, yaml12.Node]], list[Problem]]:
    if head is None:
        return {}, []
    try:
        # It strips what it is given, which would move the lines: a comment stands in for the opening `---`.
        entries, _ = frontmatter.parse("#\n" + LINE_END.sub("\n", head["yaml"]), handler=_Yaml12())
    except NoteError as error:
        message = f"The properties at the top of this note cannot be read. {error.message}"
        return {}, [Problem(error.line or 1, message, error.hint)]
    return cast("dict[str, tuple[yaml12.Node, yaml12.Node]]", entries), []


def _takes_part(properties: dict[str, Any]) -> bool:
    if properties.get("vaultlab") is True:
        return True
    tags = properties.get("tags")
    names = re.split(r"[,\s]+", tags) if isinstance(tags, str) else tags if isinstance(tags, list) else []
    return any(_is_tag(name) for name in names if isinstance(name, str))


def _is_tag(name: str) -> bool:
    return name.strip().removeprefix("#").casefold().split("/")[0] == "experiment"


def _run(properties: dict[str, tuple[yaml12.Node, yaml12.Node]]) -> tuple[Run, list[Problem]]:
    if "vaultlab-run" not in properties:
        return "auto", []
    key, node = properties["vaultlab-run"]
    if node.value in RUNS:
        return cast(Run, node.value), []
    if node.value is None:
        return "auto", []
    return "auto", [
        Problem(key.line, f"`vaultlab-run` is `{node.raw or node.value}`.", "It is auto, manual or frozen.", "run")
    ]


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
    at = Block(fence.start, fence.end, prefix=_prefix(fence, lines), listed=fence.listed)
    return read_block(fence.text, at)


def _prefix(fence: Fence, lines: list[str]) -> str:
    """What the container puts before the closing fence; spaces that are the fence's own are no part of it."""
    if not fence.closed:
        return ""
    before = re.split("```|~~~", lines[fence.end - 1], maxsplit=1)[0].removeprefix("\ufeff")
    spaces = len(before) - len(before.rstrip(" "))
    return before[: len(before) - min(spaces, fence.indent)]
