"""The index: what is read, what is not read again, and where a link leads."""

import json
import os
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.errors import NoteError
from vaultlab.vault.config import Config
from vaultlab.vault.index import Index, Scan
from vaultlab.vault.journal import home

CONFIG = Config()


class Parser:
    """Counts what it is asked, and keeps every id it finds."""

    def __init__(self):
        self.asked = []

    def __call__(self, text):
        self.asked.append(text)
        if "broken" in text:
            raise NoteError("The frontmatter does not parse.", "Close the quote.", line=2)
        ids = re.findall(r"^id: (.*)$", text, re.MULTILINE)
        return {"ids": ids} if ids else None


def lay(vault, name, text, age_s=60.0):
    path = vault / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def scan(vault, stamp="1", config=CONFIG):
    """The scan, and how many notes and pages were parsed for it."""
    notes, pages = Parser(), Parser()
    found = Index(vault, stamp).scan(config, notes, pages)
    return found, len(notes.asked), len(pages.asked)


BLOCK = "```vaultlab\nid: {}\n```\n"


@pytest.fixture
def full(vault):
    lay(vault, "a.md", BLOCK.format("one"))
    lay(vault, "b.md", "no block here\nid: not-asked\n")
    lay(vault, "deep/c.md", BLOCK.format("two"))
    lay(vault, "d.md", "vaultlab is mentioned only")
    lay(vault, "vaultlab/one.md", "id: page\n")
    lay(vault, "vaultlab/kept/one.md", "id: copy\n")
    lay(vault, "latin.md", b"vaultlab \xff")
    lay(vault, "latin-elsewhere.md", b"none of our business \xff")
    lay(vault, "utf16.md", BLOCK.format("x").encode("utf-16"))
    lay(vault, "broken.md", "vaultlab broken")
    return vault


def test_first_look_and_nothing_changed(full):
    first, notes, pages = scan(full)
    assert {path: entry.parsed["ids"] for path, entry in first.notes.items()} == {"a.md": ["one"], "deep/c.md": ["two"]}
    assert {path: entry.parsed["ids"] for path, entry in first.pages.items()} == {"vaultlab/one.md": ["page"]}
    assert set(first.problems) == {"latin.md", "utf16.md", "broken.md"}
    assert "UTF-8" in first.problems["utf16.md"]
    assert first.problems["broken.md"] == "The frontmatter does not parse. Close the quote."
    assert "vaultlab/one.md" in first.paths
    assert "vaultlab/kept/one.md" not in first.paths
    assert (notes, pages) == (4, 1)
    index = home(full) / "index.json"
    before = index.stat().st_mtime_ns
    second, notes, pages = scan(full)
    assert second == first
    assert (notes, pages) == (0, 0)
    assert index.stat().st_mtime_ns == before


def test_only_what_changed_is_parsed_again(full):
    scan(full)
    lay(full, "a.md", BLOCK.format("other"), age_s=50)
    (full / "deep/c.md").unlink()
    (full / "d.md").rename(full / "e.md")
    lay(full, "new.md", BLOCK.format("three"))
    found, notes, _ = scan(full)
    assert {path: entry.parsed["ids"] for path, entry in found.notes.items()} == {
        "a.md": ["other"],
        "new.md": ["three"],
    }
    assert notes == 3
    assert set(found.paths) >= {"e.md", "new.md"}
    assert not {"d.md", "deep/c.md"} & set(found.paths)


def test_a_change_that_stat_does_not_show_is_seen(vault):
    """Same size, same inode, same modification time: within a clock's tick of the scan that can happen."""
    note = lay(vault, "a.md", BLOCK.format("one"), age_s=0)
    info = note.stat()
    first, _, _ = scan(vault)
    assert first.notes["a.md"].parsed == {"ids": ["one"]}
    note.write_text(BLOCK.format("two"))
    os.utime(note, ns=(info.st_atime_ns, info.st_mtime_ns))
    again = note.stat()
    assert (again.st_mtime_ns, again.st_size, again.st_ino) == (info.st_mtime_ns, info.st_size, info.st_ino)
    second, _, _ = scan(vault)
    assert second.notes["a.md"].parsed == {"ids": ["two"]}


def test_a_change_that_leaves_time_and_size_as_they_were_is_seen(vault):
    """A sync tool writes in place and sets the time back: long after the first, in the same number of bytes."""
    note = lay(vault, "a.md", BLOCK.format("one"))
    scan(vault)
    before = note.stat()
    note.write_text(BLOCK.format("two"))
    os.utime(note, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scan(vault)[0].notes["a.md"].parsed == {"ids": ["two"]}


def test_a_fresh_note_is_read_again_but_not_parsed_again(vault):
    lay(vault, "a.md", BLOCK.format("one"), age_s=0)
    assert scan(vault)[1] == 1
    assert scan(vault)[1] == 0


def test_a_half_saved_note_is_not_taken_for_a_shorter_one(vault, monkeypatch):
    note = lay(vault, "a.md", "vaultl", age_s=0)
    pauses = []

    def save_goes_on(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            note.write_text(BLOCK.format("one"))

    monkeypatch.setattr(time, "sleep", save_goes_on)
    assert scan(vault)[0].notes["a.md"].parsed == {"ids": ["one"]}


def test_a_note_that_never_rests_is_a_problem_and_asked_again(vault, monkeypatch):
    note = lay(vault, "a.md", "vaultlab", age_s=0)
    lay(vault, "b.md", BLOCK.format("two"), age_s=0)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: note.write_text(note.read_text() + "x"))
        found, _, _ = scan(vault)
    assert "being written" in found.problems["a.md"]
    assert list(found.notes) == ["b.md"]
    note.write_text(BLOCK.format("one"))
    assert set(scan(vault)[0].notes) == {"a.md", "b.md"}


def test_another_stamp_reads_everything_again(full):
    first, _, _ = scan(full)
    second, notes, pages = scan(full, stamp="2")
    assert (notes, pages) == (4, 1)
    assert second == first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda said: b"",
        lambda said: b"\xff\xfe",
        lambda said: b"[]",
        lambda said: b'{"stamp": "1 1"}',
        lambda said: json.dumps({**json.loads(said), "notes": {"a.md": [1]}}).encode(),
        lambda said: json.dumps({**json.loads(said), "notes": {"a.md": [[1, 2, 3], "x", {}, "", "more"]}}).encode(),
        lambda said: said[: len(said) // 2],
    ],
)
def test_a_spoilt_index_is_made_anew(full, spoil):
    first, _, _ = scan(full)
    index = home(full) / "index.json"
    good = index.read_bytes()
    index.write_bytes(spoil(good))
    assert scan(full)[0] == first
    assert index.read_bytes() == good


def test_an_index_that_cannot_be_kept_stops_nothing(full, tmp_path):
    (tmp_path / "state").write_text("a file in the folder's place")
    assert scan(full)[0] == scan(full)[0]


def test_excluded_files_are_not_read_but_pages_are(full):
    found, _, _ = scan(full, config=Config(ignored=lambda path: path.startswith(("deep/", "vaultlab/"))))
    assert set(found.notes) == {"a.md"}
    assert set(found.pages) == {"vaultlab/one.md"}


def test_a_moved_results_folder_makes_notes_of_pages_and_pages_of_notes(full):
    scan(full)
    found, _, _ = scan(full, config=Config(folder="deep"))
    assert set(found.pages) == {"deep/c.md"}
    assert "vaultlab/one.md" not in found.pages


def test_the_vault_is_not_written(full):
    before = {path: path.stat().st_mtime_ns for path in full.rglob("*")}
    scan(full)
    assert {path: path.stat().st_mtime_ns for path in full.rglob("*")} == before


@pytest.mark.parametrize(
    ("link", "source", "target"),
    [
        ("Alpha", "", "Alpha.md"),
        ("alpha", "x/Beta.md", "Alpha.md"),  # the whole path was written
        ("gamma", "y/z/other.md", "y/z/Gamma.md"),  # beside the source, whatever the case
        ("Beta", "", "x/Beta.md"),
        ("x/beta", "", "x/Beta.md"),
        ("Beta.md", "", "x/Beta.md"),
        ("z/Gamma", "", "y/z/Gamma.md"),
        ("Gamma", "", "w/Gamma.md"),  # fewer folders down
        ("/w/Gamma", "y/z/Gamma.md", "w/Gamma.md"),
        ("/Gamma", "", None),
        ("./Gamma", "y/z/other.md", "y/z/Gamma.md"),
        ("../../w/Gamma", "y/z/Gamma.md", "w/Gamma.md"),
        ("../../../etc", "y/z/Gamma.md", None),
        ("v1.2", "", "v1.2.md"),
        ("Cafe\u0301", "", "Caf\u00e9.md"),
        ("vaultlab/one", "", "vaultlab/one.md"),
        ("lpha", "", None),
        ("eta", "x/Beta.md", None),
        ("", "x/Beta.md", "x/Beta.md"),
        ("", "", None),
        ("/", "", None),
    ],
)
def test_where_a_link_leads(link, source, target):
    paths = ("Alpha.md", "x/alpha.md", "x/Beta.md", "w/Gamma.md", "y/z/Gamma.md", "v1.2.md", "Caf\u00e9.md")
    found = Scan({}, {}, (*paths, "vaultlab/one.md"), {})
    assert found.resolve(link, source) == target


segments = st.lists(st.sampled_from(["a", "A", "b", "é", "é"]), min_size=1, max_size=3).map("/".join)


@given(paths=st.lists(segments.map(lambda path: path + ".md"), min_size=1, unique=True), source=segments)
def test_a_whole_path_always_leads_home(paths, source):
    """From anywhere, a link that spells a note's whole path leads to it, or to one that differs by case or form."""
    found = Scan({}, {}, tuple(paths), {})
    for path in paths:
        reached = found.resolve("/" + path[:-3], source)
        assert reached is not None
        assert reached.count("/") == path.count("/")
        assert found.resolve(path[:-3], source) is not None
