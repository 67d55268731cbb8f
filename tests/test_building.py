"""Blocks that build on other blocks' results: how they are named, when they are stale, and in circles."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_pipeline import DOUBLE, Bed, answer, bed
from vaultlab.catalogue import Catalogue, Entry
from vaultlab.result import Ask

__all__ = ["bed"]  # the fixture

FIELDS = {**DOUBLE.schema["properties"], "direction": {"type": "string", "kind": "result", "default": None}}
BUILDING = replace(DOUBLE, schema={"properties": FIELDS})


def note(*blocks: str) -> str:
    return "---\ntags: [experiment]\n---\n" + "".join(f"```vaultlab\n{block}text: hello\n```\n\n" for block in blocks)


ONE, TWO = "double: one\nnumber: 1\n", 'double: two\nnumber: 2\ndirection: "[[vaultlab/one]]"\n'


@pytest.fixture
def built(bed: Bed) -> Bed:
    bed.catalogue = Catalogue({"double": BUILDING})
    bed.answer = lambda ask, progress: replace(answer(ask), key=f"key-{ask.given.get('direction')}-{ask.fields}")
    bed.write("Note.md", note(ONE, TWO))
    return bed


def why(bed: Bed, id: str) -> str:
    return next(item.why for item in bed.look().items if item.id == id)


def problem(bed: Bed, id: str) -> tuple[str, str, int]:
    (found,) = next(item.problems for item in bed.look().items if item.id == id)
    return found.message, found.hint, found.line


def test_the_ask_of_the_other_goes_with_it(built: Bed) -> None:
    built.render()
    upstream: Ask = built.asked[1].given["direction"]
    assert (upstream.id, upstream.fields["number"]) == ("one", 1)
    assert built.states() == {"one": "fresh", "two": "fresh"}
    built.render()
    assert not built.asked


@pytest.mark.parametrize("name", ["[[one]]", "[[vaultlab/one]]", "[[vaultlab/one.md]]", "[[vaultlab/one|the one]]"])
def test_ways_to_name_it(built: Bed, name: str) -> None:
    built.write("Note.md", note(ONE, TWO.replace("[[vaultlab/one]]", name)))
    built.render()
    assert built.asked[1].given["direction"].id == "one"


def test_another_note_may_build_on_it_and_either_may_come_first(built: Bed) -> None:
    built.write("Note.md", note(TWO))
    built.write("Deep/Zero.md", note(ONE))
    built.render()
    assert built.states() == {"one": "fresh", "two": "fresh"}


def test_what_it_builds_on_changes_and_it_is_stale(built: Bed) -> None:
    built.render()
    built.write("Note.md", note(ONE.replace("number: 1", "number: 3"), TWO))
    assert built.states() == {"one": "stale", "two": "stale"}
    assert why(built, "two") == "what it builds on, `one`, has changed"
    built.render()
    assert [ask.id for ask in built.asked] == ["one", "two"]
    assert built.states() == {"one": "fresh", "two": "fresh"}


def test_claims_of_the_other_do_not_matter(built: Bed) -> None:
    built.render()
    built.write("Note.md", note(ONE + "expect: [twice = 2]\n", TWO))
    assert built.states() == {"one": "reworded", "two": "fresh"}


def test_a_new_version_of_the_other_is_asked_first(built: Bed) -> None:
    built.render()
    other: Entry = replace(BUILDING, name="other")
    built.catalogue = Catalogue({"double": BUILDING, "other": other})
    built.write("Note.md", note(ONE.replace("double", "other"), TWO))
    built.render()
    built.catalogue = Catalogue({"double": BUILDING, "other": replace(other, version=2)})
    assert built.states() == {"one": "outdated", "two": "outdated"}
    assert why(built, "two").startswith("of `one`, on which it builds: other has a new version")
    built.render()
    assert not built.asked


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ('"[[vaultlab/on]]"', "No block of this vault has the id `on`.", 'Did you mean "[[vaultlab/one]]"?'),
        ("one", "`one` is no result.", 'Name it as its embed does: "[[vaultlab/its-id]]".'),
        ('"[[vaultlab/two]]"', "This block builds on itself: `two` → `two`.", "Let one of them name another result."),
    ],
)
def test_what_leads_nowhere_is_said_at_its_line(built: Bed, value: str, message: str, hint: str) -> None:
    built.write("Note.md", note(ONE, TWO.replace('"[[vaultlab/one]]"', value)))
    assert problem(built, "two") == (message, hint, 13)
    built.render()
    assert built.states() == {"one": "fresh", "two": "error"}


def test_a_circle_is_an_error_of_each(built: Bed) -> None:
    built.write("Note.md", note(ONE + 'direction: "[[vaultlab/two]]"\n', TWO))
    for id, other in (("one", "two"), ("two", "one")):
        assert f"This block builds on itself: `{id}` → `{other}` → `{id}`." in problem(built, id)[0]
    built.render()
    assert not built.asked


def test_what_cannot_run_cannot_be_built_on(built: Bed) -> None:
    built.write("Note.md", note("dubble: one\n", TWO))
    message, hint, _ = problem(built, "two")
    assert message == "`one`, on which it builds, cannot run: There is no experiment `dubble`."
    assert hint == "Mend that block, in `Note.md`."


def test_a_text_that_the_other_reads_counts(built: Bed, tmp_path: Path) -> None:
    words = built.write("Words.md", "good\n")
    built.write("Note.md", note(ONE, TWO).replace("number: 1\ntext: hello", 'number: 1\ntext: "[[Words]]"'))
    built.render()
    words.write_text("better\n")
    assert built.states() == {"one": "stale", "two": "stale"}
