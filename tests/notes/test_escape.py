"""No string that is not ours can make anything but text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vaultlab.notes.digits import retyped, show, value
from vaultlab.notes.escape import line, link, plain, quoted, sentence
from vaultlab.notes.fences import outline
from vaultlab.notes.scalar import scalar
from vaultlab.notes.yaml12 import read

NASTY = [
    "[[", "]]", "![", "![[a]]", "#tag", "%%", "==", "$", "$$", "|", "<b>", "<!--", "-->", "`", "```", "~~~", "^id",
    " ^id", "[^1]", "[^1]: x", "\n", "\r\n", "\u2028", "\x85", "\x00", "---", "===", "- ", "+ ", "1. ", "> ", "# ",
    "    ", "\t", "[a](b)", "<http://a.b>", "https://a.b", "www.a.b", "a@b.c", "&amp;", "&#35;", "\\", "*", "_",
    "~~", "!", ":", "::", "%", "=", "x", "word", " ", "é", "\U0001f600",
]  # fmt: skip
texts = st.lists(st.sampled_from(NASTY), max_size=8).map("".join) | st.text(max_size=20)

MARKDOWN = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])


def rendered(markdown: str) -> list[tuple[str, str]]:
    """Inside the paragraph that the Markdown must be: the kinds of its parts and their text."""
    tokens = MARKDOWN.parse(markdown)
    assert [token.type for token in tokens] in (["paragraph_open", "inline", "paragraph_close"], []), markdown
    return [(child.type, child.content) for token in tokens for child in token.children or []]


@given(texts)
@settings(max_examples=1000)
def test_it_reads_as_it_was_and_is_nothing_but_text(text: str) -> None:
    parts = rendered(plain(text))
    assert {kind for kind, _ in parts} <= {"text", "text_special"}
    assert "".join(content for _, content in parts) == line(text)


@given(texts)
@settings(max_examples=1000)
def test_no_construct_of_obsidians_is_left(text: str) -> None:
    escaped = plain(text)
    assert "\n" not in escaped
    bare = re.sub(r"\\.", "\0", escaped)
    for construct in ("[", "]", "#", "%%", "==", "$", "|", "<", ">", "`", "^", "://", "@", "::"):
        assert construct not in bare


@given(texts, texts)
@settings(max_examples=500)
def test_it_holds_in_a_callout_a_list_and_a_table(one: str, other: str) -> None:
    text = f"> [!note] {plain(one)}\n> {plain(other)}\n\n^result\n\n- {plain(one)}\n\n| a | b |\n|---|---|\n"
    text += f"| {plain(one)} | {plain(other)} |\n"
    kinds = [token.type for token in MARKDOWN.parse(text)]
    plainly = text.replace(plain(one), "x") if plain(one) else text
    assert kinds.count("td_open") == 2
    assert kinds.count("blockquote_open") == 1
    assert kinds.count("bullet_list_open") == 1 or not plain(one), plainly
    assert not {"fence", "code_block", "html_block", "heading_open", "hr", "ordered_list_open"} & set(kinds)
    assert outline(text, 1).unclosed is None


@given(st.lists(st.sampled_from([*NASTY, "`"]), max_size=8).map("".join))
@settings(max_examples=500)
def test_a_sentence_may_show_code_and_nothing_else(text: str) -> None:
    parts = rendered(f"x {sentence(text)}")
    assert {kind for kind, _ in parts} <= {"text", "text_special", "code_inline"}


def test_what_stands_between_backticks_is_code() -> None:
    assert sentence("Did you mean `sparsity`?") == "Did you mean `sparsity`?"
    assert sentence("one ` only") == "one \\` only"
    assert sentence("a `%%` b") == "a \\`\\%\\%\\` b"


@given(texts)
@settings(max_examples=500)
def test_a_property_is_a_text_and_no_link(text: str) -> None:
    node = read(f"title: {quoted(text)}\n", 1, strict=True)
    assert isinstance(node.value["title"], str)
    assert "[[" not in node.value["title"]
    assert node.value["title"].replace(" ", "") == line(text).replace(" ", "")


@pytest.mark.parametrize("word", ["true", "No", "null", "012", "a: b", "- a", "# a", "", "2024-01-01"])
def test_a_property_that_would_be_something_else_is_quoted(word: str) -> None:
    assert quoted(word) == f'"{word}"'


def test_links() -> None:
    assert link("Folder/My note") == "[[Folder/My note|My note]]"
    assert link("Note") == "[[Note]]"
    for odd in ("a]] #tag", "a|b", "a#b", "a^b", "a\nb", "<b>", "%%"):
        assert "[[" not in link(odd)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.39104, "0.391"),
        (0.0, "0"),
        (-2.0, "−2"),
        (16.0, "16"),
        (20123.0, "20123"),
        (20123.4, "20120"),
        (0.00012345, "0.0001234"),
        (1e-5, "1 × 10⁻⁵"),
        (-1.23456e-8, "−1.235 × 10⁻⁸"),
        (1.5e12, "1.5 × 10¹²"),
        (0.99996, "1"),
        (float("nan"), "NaN"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers(number: float, shown: str) -> None:
    assert show(number) == shown


@given(st.floats(-1e300, 1e300))
@settings(max_examples=500)
def test_a_shown_number_is_the_number(number: float) -> None:
    digits = "0123456789-"
    typed = show(number).replace("−", "-").replace(" × 10", "e").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", digits))
    assert float(typed) == pytest.approx(number, rel=6e-4, abs=0.0)
    assert "e" not in show(number)


def test_vectors_and_sentences() -> None:
    assert value((0.391, 0.4, 0.407)) == "0.391 to 0.407 (3 values)"
    assert value((1.0, 1.0)) == "1 (2 values)"
    assert value((float("nan"), 1.0)) == "1 (2 values, 1 not finite)"
    assert retyped("max 1e-05 at seed 3, -0.5 to .25") == "max 1 × 10⁻⁵ at seed 3, −0.5 to 0.25"
    assert retyped("L17H10, torch 2.13.0, 5-fold") == "L17H10, torch 2.13.0, 5-fold"


def test_scalars_are_not_made_up() -> None:
    assert scalar("⁵") == "⁵"
