"""Trust: what a note may name, and that everything else is refused."""

import os
import stat
from pathlib import Path

import pytest

from vaultlab import places, trust
from vaultlab.errors import NoteError, RunError


@pytest.mark.parametrize("name", ["smollm2-135m", "org/name", "org/name@abc123"])
def test_models_that_a_note_may_name(name):
    trust.model(name)
    trust.model(name, [name])


@pytest.mark.parametrize("allowed", [[], ["org/name"]])
def test_models_that_the_owner_has_not_allowed(allowed):
    with pytest.raises(NoteError, match="owner"):
        trust.model("smollm2-135m", allowed)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "./model",
        "../model",
        "~/model",
        "a/b/c",
        "C:\\m",
        "model.gguf",
        "org/m.safetensors",
        "m.BIN",
        "",
        "a b",
        "file:///x",
        "org/../x",
        "org/.hidden",
        "a\nb",
    ],
)
def test_a_note_may_name_no_path(name):
    with pytest.raises(NoteError, match="vaultlab models add NAME PATH") as caught:
        trust.model(name)
    assert caught.value.field == "model"


def test_text_files_go_by_the_owners_names():
    named = {"moby": Path("/texts/moby.txt")}
    assert trust.text_file("moby", named) == Path("/texts/moby.txt")
    with pytest.raises(NoteError, match="Did you mean `moby`"):
        trust.text_file("mobi", named)
    for name in ("/texts/moby.txt", "../moby", "Moby2000000"):
        with pytest.raises(NoteError, match=r"\[texts\]"):
            trust.text_file(name, {"zzz": Path("/z")})


@pytest.mark.parametrize(
    ("path", "globs", "expected"),
    [
        ("Ideas/a.md", ["Ideas/**"], True),
        ("Ideas/deep/a.md", ["Ideas/**"], True),
        ("Ideas/deep/a.md", ["Ideas/*"], False),
        ("ideas/A.md", ["Ideas/*.md"], True),
        ("a.md", ["**/*.md"], True),
        ("x/a.md", ["**/*.md"], True),
        ("a.md", ["?.md"], True),
        ("ab.md", ["?.md"], False),
        ("Ideas2/a.md", ["Ideas/**"], False),
        ("My Ideas/a.md", ["Ideas/**"], False),
        ("a.md", [], False),
        ("aXmd", ["a.md"], False),
        ("Cafe\u0301/a.md", ["Caf\u00e9/**"], True),
    ],
)
def test_notes_that_may_be_searched(path, globs, expected):
    assert trust.listed(path, globs) == expected


@pytest.mark.parametrize(
    ("path", "expected"), [("private/a.md", False), ("x/Private/y/a.md", False), ("x/private.md", True)]
)
def test_private_folders_are_not_quoted(path, expected):
    assert trust.public(path, {}) == expected


@pytest.mark.parametrize(
    ("frontmatter", "expected"),
    [
        ({"publish": False}, False),
        ({"publish": "no"}, False),
        ({"Publish": "False"}, False),
        ({"publish": True}, True),
        ({"draft": True}, False),
        ({"draft": "yes"}, False),
        ({"draft": False}, True),
        ({"draft": None, "publish": None}, True),
    ],
)
def test_drafts_and_unpublished_notes_are_not_quoted(frontmatter, expected):
    assert trust.public("a.md", frontmatter) == expected


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "state_dir", lambda: tmp_path / "state")
    return tmp_path / "state"


def test_vaults_are_trusted_one_by_one_and_for_good(state, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    assert not trust.trusted(one)
    trust.trust(one)
    assert trust.trusted(one)
    assert not trust.trusted(two)
    trust.trust(two)
    trust.trust(two)
    assert trust.trusted(one)
    assert trust.trusted(two)
    (tmp_path / "name").symlink_to(one)
    assert trust.trusted(tmp_path / "name")
    assert stat.S_IMODE((state / "trust.json").stat().st_mode) == 0o600
    assert os.listdir(state) == ["trust.json"]
    assert os.listdir(one) == []


def test_trust_on_another_machine_is_not_trust_here(state, tmp_path, monkeypatch):
    trust.trust(tmp_path)
    monkeypatch.setattr("platform.node", lambda: "another")
    assert not trust.trusted(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{}", "3", "[1, null]", "\xff"])
def test_a_spoilt_list_trusts_nobody(state, tmp_path, text):
    state.mkdir()
    (state / "trust.json").write_text(text, encoding="latin-1")
    assert not trust.trusted(tmp_path)
    trust.trust(tmp_path)
    assert trust.trusted(tmp_path)


def test_trust_that_cannot_be_kept(state, tmp_path):
    state.write_text("a file in the folder's place")
    with pytest.raises(RunError, match="could not be kept"):
        trust.trust(tmp_path)
