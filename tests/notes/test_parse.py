"""What a corpus of small notes cannot hold: sizes, and text of any kind."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlab.notes.block import MAX_BYTES
from vaultlab.notes.parse import from_json, may_have_blocks, parse, to_json

_SPECIAL = """```vaultlab|```|~~~|````|superposition: a|x: [1|---|%%|$$|<!--|-->|> |- |  |tags: experiment
![[vaultlab/a]]|a: .nan|sweep: {a: 0..3}|[^1]: x|    code|é"""
LINES = st.sampled_from([*_SPECIAL.replace("\n", "|").split("|"), "\t", "\r", "\0", "\ufeff"])


def block(size: int) -> str:
    start = "attention: a\ntext: "
    return f"```vaultlab\n{start}{'é' * ((size - len(start) - 1) // 2)}\n```\n"


def test_a_block_may_have_64_kib_and_no_more() -> None:
    (fits,) = parse(block(MAX_BYTES)).blocks
    assert fits.problems == ()
    (too_long,) = parse("text\n" + block(MAX_BYTES + 2)).blocks
    assert [(one.line, one.message) for one in too_long.problems] == [(2, "The block is longer than 64 KiB.")]
    assert too_long.fields == {}


def test_a_bad_block_leaves_the_others_as_they_are() -> None:
    good, bad = "```vaultlab\nsuperposition: a\n```\n", "```vaultlab\na: [\n```\n"
    found = parse(good + bad + good.replace(": a", ": b")).blocks
    assert [one.id for one in found] == ["a", None, "b"]
    assert [bool(one.problems) for one in found] == [False, True, False]


def test_a_note_without_a_fence_of_ours_is_known_at_a_glance() -> None:
    assert not may_have_blocks("# vaultlab\n\n`vaultlab`\n\n```vaultlabs\n```\n```python\nvaultlab\n```\n")
    assert may_have_blocks("- > ~~~~ vaultlab more\n")
    assert may_have_blocks("```vaultlab")


@given(st.lists(LINES, max_size=12).map("\n".join) | st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_any_text_can_be_read_and_kept(text: str) -> None:
    note = parse(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
    for one in note.blocks:
        assert 1 <= one.start <= one.end <= lines
        assert all(one.start <= line <= one.end for line in one.lines_of.values())
    problems = [*note.problems, *(problem for one in note.blocks for problem in one.problems)]
    assert all(1 <= problem.line <= lines for problem in problems)
    assert from_json(json.loads(json.dumps(to_json(note)))) == note or "nan" in text
    assert may_have_blocks(text) or not note.blocks
