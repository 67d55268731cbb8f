"""Every case of the corpus: what a note's text gives, and where the embeds go."""

import json
from typing import Any

import pytest

from tests.notes.corpus import Case, cases
from vaultlab.notes.note import Problem
from vaultlab.notes.parse import from_json, may_have_blocks, parse, to_json
from vaultlab.notes.splice import apply, splice

CASES = list(cases())


def _agree(found: tuple[Problem, ...], expected: list[list[Any]]) -> None:
    said = [(one.line, f"{one.message} {one.hint}") for one in found]
    assert len(said) == len(expected), said
    for (line, words), (wanted_line, wanted) in zip(said, expected, strict=True):
        assert line == wanted_line, said
        assert wanted in words, said


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
def test_what_a_note_gives(case: Case) -> None:
    note = parse(case.note)
    found = to_json(note)
    expected = case.expected
    for key, name in (("part", "takes_part"), ("run", "run"), ("defaults", "defaults")):
        if key in expected:
            assert found[name] == expected[key]
    _agree(note.problems, expected.get("problems", []))
    if "embeds" in expected:
        assert [[one.path, one.fragment, one.line] for one in note.embeds] == expected["embeds"]
    if "blocks" in expected:
        assert len(note.blocks) == len(expected["blocks"])
        for block, wanted, plain in zip(note.blocks, expected["blocks"], found["blocks"], strict=True):
            if wanted.get("problems") != []:
                _agree(block.problems, wanted.get("problems", []))
            plain = json.loads(json.dumps(plain))
            assert {key: plain[key] for key in wanted if key != "problems"} == {
                key: value for key, value in wanted.items() if key != "problems"
            }
    assert may_have_blocks(case.note) or not note.blocks
    assert from_json(json.loads(json.dumps(found))) == note


@pytest.mark.parametrize("case", [one for one in CASES if one.after], ids=[one.title for one in CASES if one.after])
def test_where_the_embeds_go(case: Case) -> None:
    text = case.note
    for number in range(len(parse(text).blocks)):
        block = parse(text).blocks[number]
        edit = splice(text, block, block.id or "auto")
        if edit is not None:
            spliced = apply(text, edit)
            assert spliced[: edit.offset] + spliced[edit.offset + len(edit.insert) :] == text
            text = spliced
    assert text == case.after


def test_the_corpus_covers_both_answers_of_the_splice() -> None:
    changed = [case for case in CASES if case.after]
    assert len(CASES) > 90
    assert any(case.after == case.note for case in changed)
    assert any(case.after != case.note for case in changed)
