"""Words for what YAML cannot read, and scalars by its 1.2 core schema."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaultlab.errors import NoteError
from vaultlab.notes.scalar import scalar
from vaultlab.notes.simple_yaml import read_simple
from vaultlab.notes.yaml12 import read, read_full


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: b: c", "second `: `"),
        ("a:\n\t- b", "A tab"),
        ("a: > b", "long text"),
        ("a: [1, 2", "has no end of its own"),
        ('a: "b', "quotation mark"),
        ("a: 'b' c", "behind the end"),
        ("a: 1\nb\nc: 2", "no `: `"),
        ("a: @b", "meaning of its own"),
        ("a: `b`", "meaning of its own"),
        ("a: %b", "meaning of its own"),
        ("a: \x07", "control character"),
        ("[a]: b", "A key has to be a word"),
        ("? \n: b", "A key has to be a word"),
    ],
)
def test_what_cannot_be_read_is_told_without_jargon(text: str, words: str) -> None:
    with pytest.raises(NoteError, match=r"\w") as caught:
        read(f"x: 1\n{text}\n", 10, strict=True)
    assert words in caught.value.message
    assert caught.value.line is not None
    assert 10 <= caught.value.line <= 14
    assert "<" not in caught.value.message


def test_the_line_is_the_notes_own() -> None:
    with pytest.raises(NoteError, match="YAML") as caught:
        read("a: 1\nb: 2\nc: @", 7, strict=True)
    assert caught.value.line == 9


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("012", 12),
        ("-0", 0),
        ("+5", 5),
        ("0o17", 15),
        ("0x1f", 31),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e-4", 1e-4),
        ("-.inf", -math.inf),
        ("yes", "yes"),
        ("no", "no"),
        ("22:30", "22:30"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("NULL", None),
        ("nULL", "nULL"),
        ("False", False),
        ("17.10", 17.1),
        ("9" * 5000, math.inf),
    ],
)
def test_scalars(typed: str, meant: object) -> None:
    assert scalar(typed) == meant
    assert type(scalar(typed)) is type(meant)


def test_not_a_number_is_one() -> None:
    assert math.isnan(scalar(".nan"))


def test_aliases_are_refused_where_they_could_make_a_bomb() -> None:
    bomb = "a: &a [x, x]\nb: [*a, *a]\n"
    for strict in (True, False):
        with pytest.raises(NoteError):
            read(bomb, 1, strict=strict)
    assert read("a: &a x\nb: *a\n", 1, strict=False).value == {"a": "x", "b": "x"}


def test_a_deep_nest_is_refused_and_not_recursed_into() -> None:
    with pytest.raises(NoteError, match="deep"):
        read("a: " + "[" * 20_000, 1, strict=True)


_NAMES = st.sampled_from(["a", "b", "tags", "null", "on", "x-y", "012", "a b"])
_TYPED = """
5|-1e-3|+.5|012|~|on|95%|a b|22:30|x: y|x:|a #b|a # b|[a, b]|[]|[a b, -5 ]|[a,b]|[[N]]|"q"|'q'|"a" b|"it's"|''|- a|-
--- a|*b|a*|!t x|> a|a  b |@a|`a`|? a|ä é|\U0001f600|\u2028|a\tb|"a\tb"|{a: 1}|[a, b] c|&a b||
""".replace("\n", "|").split("|")
_VALUES = st.one_of(st.sampled_from([*_TYPED, "|"]), st.text("ab1.-+:# [],'\"", max_size=6))
_LINES = st.one_of(
    st.builds(lambda name, space, value: f"{name}:{space}{value}", _NAMES, st.sampled_from(["", " ", "  "]), _VALUES),
    st.builds(lambda indent, value: f"{indent}- {value}", st.sampled_from(["", " ", "  "]), _VALUES),
    st.sampled_from(["", " ", "# c", "---", "...", "a", "  more"]),
)


@given(st.lists(_LINES, max_size=6).map("\n".join))
@settings(max_examples=1500, deadline=None)
def test_the_short_way_reads_as_the_parser_does(text: str) -> None:
    short = read_simple(text, 3)
    if short is not None:
        assert repr(short) == repr(read_full(text, 3, strict=True))


def test_the_short_way_is_taken() -> None:
    assert read_simple("superposition: pentagon\nsparsity: 95%\nexpect:\n  - loss < 0.01\nx: [a, 0.5]\ny: 'q'\n", 1)
