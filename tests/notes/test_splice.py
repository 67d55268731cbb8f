"""What the splice promises, over notes made of nasty parts and over real ones."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.footnote import footnote_plugin

from vaultlab.notes.note import Block
from vaultlab.notes.parse import parse
from vaultlab.notes.splice import Edit, apply, splice

BLOCK = "```vaultlab\nsuperposition: ours\nfeatures: 5\n```"
WILD = os.environ.get("VAULTLAB_WILD_NOTES")

PARTS = [
    "", "text", "more *text* here  ", "# Heading", "## Another", "---", "***", "Title\n===", "- a\n- b",
    "- a\n\n- b", "- a\n\t- b\n\t\t- c", "1. one\n2. two", "9. nine\n10. ten", "* x\n+ y", "- [ ] task",
    "> quote\nlazy", "> a\n>\n> b", "> [!note] Callout\n> text", "> > deeper", "%%\nhidden\n%%", "%% inline %%",
    "$$\nx^2\n$$", "$x$ and $$y$$", "[^1]: foot", "[^2]: foot\n\n    more", "text[^1]",
    "````\n```vaultlab\nx: y\n```\n````", "~~~python\n%%time\n~~~", "    indented code", "<!-- comment -->",
    "<div>\nhtml\n</div>", "| a | b |\n|---|---|\n| 1 | 2 |", "trailing  ", "\ttab", "^block-id", "![[other]]",
    "![[image.png|600]]", "text ^id", "\u00a0", "e\u0301 é", "- a\n  - b\n    text\n  text", "-", ">", "- - x",
    "<!--\n\n-->", "- a\n\n  b\n- c", "> - q\n>   - r", "-   wide", "- a\n\ntext", "$$ open", "line\u2028separator",
]  # fmt: skip
INDENTS = [
    "",
    "  ",
    "   ",
    "    ",
    "\t",
    "> ",
    ">",
    "> > ",
    "- ",
    "  - ",
    "1. ",
    ">   ",
    "\t\t",
    "> - ",
    "  > ",
    "[^9]: ",
]


def indented(text: str, prefix: str) -> str:
    """The text behind a container's prefix: a marker stands on the first line, its width before the others."""
    later = re.sub(r"[-+*]|\d+\.|\[\^\d\]:", lambda found: " " * len(found[0]), prefix)
    later = "    " if prefix.startswith("[^") else later
    first, *rest = text.split("\n")
    return "\n".join([prefix + first, *(later + line if line else later.rstrip() for line in rest)])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A note of nasty parts with blocks of ours among them, under any line ends."""
    parts = draw(st.lists(st.sampled_from(PARTS), max_size=5))
    parts.insert(draw(st.integers(0, len(parts))), indented(BLOCK, draw(st.sampled_from(INDENTS))))
    pieces = []
    for part in parts:
        pieces.append(indented(part, draw(st.sampled_from(["", "", "", *INDENTS]))))
        pieces.append(draw(st.sampled_from(["\n", "\n\n", "\n\n\n"])))
    text = "".join(pieces[: -draw(st.integers(0, 1)) or None])
    if draw(st.booleans()):
        text = "---\ntags: experiment\n---\n" + text
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"]]))
    text = re.sub("\n", lambda _: draw(st.sampled_from(ends)), text)
    return draw(st.sampled_from(["", "\ufeff"])) + text


def blocks(text: str) -> Iterator[Block]:
    note = parse(text)
    if not note.problems:
        yield from (block for block in note.blocks if block.id == "ours")


def check(text: str, block: Block) -> Edit:
    """The promises that hold for every note and every place of a block in it."""
    edit = splice(text, block, "ours")
    assert edit is not None
    after = apply(text, edit)
    assert after[: edit.offset] + after[edit.offset + len(edit.insert) :] == text
    assert after.count("![[vaultlab/ours#^result]]") == 1
    again = parse(after)
    twins = [twin for twin in again.blocks if twin.id == "ours"]
    assert [twin.start for twin in again.blocks if twin.start <= block.start] == [
        twin.start for twin in parse(text).blocks if twin.start <= block.start
    ]
    assert all(splice(after, twin, "ours") is None for twin in twins)
    assert not again.problems
    return edit


@given(documents())
@settings(max_examples=250, deadline=None)
def test_idempotent_and_taken_away_without_a_trace(text: str) -> None:
    for block in blocks(text):
        event("a block")
        check(text, block)


@given(documents())
@example("> %%\n> hidden\n> %%\n[^9]: ```vaultlab\n    superposition: ours\n    features: 5\n    ```\n")
@settings(max_examples=250, deadline=None)
def test_markdown_sees_one_paragraph_more_and_nothing_else(text: str) -> None:
    for block in blocks(text):
        edit = check(text, block)
        after = apply(text, edit)
        if not any(kind == "fence" for kind, *_ in structure(text)):
            # A reader that knows no %% reads on through the comment's end, and what is a block is its last line.
            assert edit.insert.strip(" \t>\r\n") == "![[vaultlab/ours#^result]]"
            continue
        if block.listed and not _can_stand_apart(text, block, edit):
            # Only in a list, which must stay tight: there the author's next line may join the embed's paragraph.
            assert edit.insert.strip(" \t>\r\n") == "![[vaultlab/ours#^result]]"
            assert len(re.findall(r"\r\n|\r|\n", edit.insert)) == 1
            continue
        assert without_embed(after) == structure(text)


def structure(text: str) -> list[tuple[str, int, bool, str]]:
    """A plain CommonMark reading, by a parser that knows nothing of ours."""
    plain = text.removeprefix("\ufeff")
    plain = (
        re.sub(r"\A---\r?\n?tags: experiment\r?\n?---(\r\n|\r|\n)", "", plain).replace("\r\n", "\n").replace("\r", "\n")
    )
    tokens = MarkdownIt("commonmark").use(footnote_plugin).disable("footnote_tail").parse(plain)
    return [(token.type, token.level, token.hidden, token.content) for token in tokens]


def without_embed(text: str) -> list[tuple[str, int, bool, str]]:
    seen = structure(text)
    at = [i for i, one in enumerate(seen) if one[0] == "inline" and one[3] == "![[vaultlab/ours#^result]]"]
    return seen[: at[0] - 1] + seen[at[0] + 2 :] if at else []


def _can_stand_apart(text: str, block: Block, edit: Edit) -> bool:
    """Whether the embed, with a blank line behind it or without, can be put there as a paragraph and nothing more."""
    line = f"{block.prefix}![[vaultlab/ours#^result]]"
    end = re.search(r"\r\n|\r|\n", text[: edit.offset] + edit.insert)
    assert end
    if not re.search(r"[\r\n]\Z", text[: edit.offset]):
        return True
    tries = [line + end[0], line + end[0] + block.prefix.rstrip() + end[0]]
    return any(without_embed(apply(text, Edit(edit.offset, one))) == structure(text) for one in tries)


if WILD:  # a note that somebody has written, where there is one

    @pytest.mark.parametrize("ends", ["\n", "\r\n"])
    def test_the_note_in_the_wild_keeps_every_byte(ends: str) -> None:
        seen = 0
        for path in sorted(Path(WILD).glob("*.md")):
            original = path.read_bytes().decode().replace("\r\n", "\n")
            for at in boundaries(original):
                prefix = re.match(r"[ \t]*", original[at:])
                text = original[:at] + indented(BLOCK, prefix[0] if prefix else "") + "\n" + original[at:]
                text = text.replace("\n", ends)
                for block in blocks(text):
                    edit = check(text, block)
                    content = apply(text, edit).encode()
                    start = len(text[: edit.offset].encode())
                    assert content[:start] + content[start + len(edit.insert.encode()) :] == text.encode()
                    seen += 1
        assert seen > 50


def boundaries(text: str) -> list[int]:
    """Where a line of the body begins, and the end: more places than there are paragraphs."""
    body = text.index("---\n", 4) + 4 if text.startswith("---\n") else 0
    return [at for match in re.finditer(r"\n", text) if (at := match.end()) >= body]
