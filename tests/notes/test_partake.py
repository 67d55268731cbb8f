"""A note is made to take part by one piece of text; taking it out gives the author's bytes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.notes.parse import parse
from vaultlab.notes.partake import partake
from vaultlab.notes.splice import apply

BLOCK = "```vaultlab\nsuperposition: p\n```\n"


@pytest.mark.parametrize(
    ("head", "becomes"),
    [
        ("", "---\ntags:\n  - experiment\n---\n"),
        ("\ufeff", "\ufeff---\ntags:\n  - experiment\n---\n"),
        ("---\n---\n", "---\ntags:\n  - experiment\n---\n"),
        ("---\ntitle: A\n---\n", "---\ntitle: A\ntags:\n  - experiment\n---\n"),
        ("---\r\ntitle: A\r\n---\r\n", "---\r\ntitle: A\r\ntags:\r\n  - experiment\r\n---\r\n"),
        ("---\ntags: [a, b]\n---\n", "---\ntags: [a, b, experiment]\n---\n"),
        ("---\ntags: [ a ]\nx: 1\n---\n", "---\ntags: [ a, experiment ]\nx: 1\n---\n"),
        ("---\ntags: []\n---\n", "---\ntags: [experiment]\n---\n"),
        ("---\ntags:\n---\n", "---\ntags:\n  - experiment\n---\n"),
        ("---\ntags: a\n---\n", "---\ntags: a, experiment\n---\n"),
        ("---\ntags:\n- a\n- b\nx: 1\n---\n", "---\ntags:\n- a\n- b\n- experiment\nx: 1\n---\n"),
        ("---\ntags:\n    - a\n---\n", "---\ntags:\n    - a\n    - experiment\n---\n"),
        ('---\ntags: "a"\n---\n', '---\ntags: "a"\nvaultlab: true\n---\n'),
        ("---\ntags: [a,\n  b]\n---\n", "---\ntags: [a,\n  b]\nvaultlab: true\n---\n"),
        ("---\ntags: {a: 1}\n---\n", "---\ntags: {a: 1}\nvaultlab: true\n---\n"),
        ("---\ntags: a # mine\n---\n", "---\ntags: a # mine\nvaultlab: true\n---\n"),
        ("---\r\ntags: a\r\n---\r\n", "---\r\ntags: a, experiment\r\n---\r\n"),
    ],
)
def test_the_tag_goes_in(head: str, becomes: str) -> None:
    text = head + BLOCK
    edit = partake(text)
    assert edit is not None
    assert apply(text, edit) == becomes + BLOCK
    assert parse(becomes + BLOCK).takes_part


@pytest.mark.parametrize(
    "head",
    ["---\ntags: [experiment]\n---\n", "---\nvaultlab: true\n---\n", "---\ntags: [\n---\n", "---\na: 1\na: 2\n---\n"],
)
def test_a_note_that_takes_part_or_cannot_be_read_is_left_alone(head: str) -> None:
    assert partake(head + BLOCK) is None


@given(st.text("---\n\r tags:[],abx#'\"{}|>&*\ufeff", max_size=60))
def test_whatever_stands_there_nothing_of_it_is_lost(text: str) -> None:
    edit = partake(text)
    if edit is None:
        return
    after = apply(text, edit)
    assert parse(after).takes_part
    assert after[: edit.offset] + after[edit.offset + len(edit.insert) :] == text
