"""Which files are notes, and what is passed over."""

import os

import pytest

from vaultlab.errors import VaultError
from vaultlab.vault.find import find


def test_find_passes_over_what_is_not_a_note(vault, tmp_path):
    for name in [
        "a.md",
        "deep/er/b.MD",
        "deep/vaultlab/own-name-elsewhere.md",
        "vaultlab/pentagon.md",
        "vaultlab/kept/pentagon 1.md",
        "vaultlab/recovered/a.md",
        "vaultlab/figures/f.svg",
        ".obsidian/c.md",
        ".trash/d.md",
        "e/.hidden/f.md",
        ".g.md",
        "h.txt",
        "Templates/i.md",
        "a.sync-conflict-20240131-120000-ABCDEFG.md",
        "a (Anna's conflicted copy 2024-01-31).md",
        "a (conflicting ideas).md",
    ]:
        (vault / name).parent.mkdir(parents=True, exist_ok=True)
        (vault / name).write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("x")
    (vault / "linked").symlink_to(outside)
    (vault / "linked.md").symlink_to(outside / "secret.md")
    (vault / "loop").symlink_to(vault)
    os.mkfifo(vault / "pipe.md")
    (vault / "folder.md").mkdir()
    found, problems = find(vault, "vaultlab", lambda path: path.startswith("Templates/"))
    assert sorted(file.path for file in found) == [
        "a (conflicting ideas).md",
        "a.md",
        "deep/er/b.MD",
        "deep/vaultlab/own-name-elsewhere.md",
        "vaultlab/pentagon.md",
    ]
    assert problems == {}
    info = (vault / "a.md").stat()
    (a,) = [file for file in found if file.path == "a.md"]
    assert a.stat == (info.st_mtime_ns, 1, info.st_ino, info.st_ctime_ns)


def test_find_keeps_names_as_they_are_on_the_disk_and_tells_of_bad_ones(vault):
    (vault / "cafe\u0301.md").write_text("decomposed")
    (vault / "emoji 🧠.md").write_text("x")
    with open(os.fsencode(vault) + b"/bad\xff.md", "w") as bad:
        bad.write("x")
    found, problems = find(vault, "vaultlab", lambda path: False)
    assert sorted(file.path for file in found) == ["cafe\u0301.md", "emoji 🧠.md"]
    ((name, sentence),) = problems.items()
    assert name == "bad\\udcff.md"
    assert "UTF-8" in sentence


def test_no_vault(tmp_path):
    with pytest.raises(VaultError, match="no vault"):
        find(tmp_path / "none", "vaultlab", lambda path: False)
