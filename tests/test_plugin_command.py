"""`vaultlab plugin install`, and the wheel that carries what was built."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vaultlab import cli
from vaultlab.commands import plugin
from vaultlab.errors import NoteError, RunError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in plugin.FILES:
        (folder / name).write_text(f"the {name} of today")
    monkeypatch.setattr(plugin, "_BUILDS", (tmp_path / "nowhere", folder))
    return folder


def install(vault: Path) -> str:
    done = CliRunner().invoke(cli.app, ["plugin", "install", str(vault)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return " ".join(done.output.split())


@pytest.mark.parametrize("settings", [".obsidian", ".obsidian-phone"])
def test_it_goes_where_this_vault_has_its_settings_and_leaves_its_own(
    tmp_path: Path, build: Path, settings: str
) -> None:
    ours = tmp_path / "vault" / settings / "plugins/vaultlab"
    ours.mkdir(parents=True)
    (ours / "data.json").write_text("{}")
    (tmp_path / "vault" / settings / "app.json").write_text("{}")
    assert "Put the plugin into" in install(tmp_path / "vault")
    assert {path.name for path in ours.iterdir()} == {*plugin.FILES, "data.json"}
    assert (ours / "main.js").read_text() == "the main.js of today"
    before = (ours / "main.js").stat().st_mtime_ns
    assert "already in" in install(tmp_path / "vault")
    assert (ours / "main.js").stat().st_mtime_ns == before


def test_a_vault_that_obsidian_has_not_opened_yet_gets_it_too(tmp_path: Path, build: Path) -> None:
    (tmp_path / "vault").mkdir()
    install(tmp_path / "vault")
    assert (tmp_path / "vault/.obsidian/plugins/vaultlab/manifest.json").is_file()


def test_a_link_out_of_the_vault_is_not_followed(tmp_path: Path, build: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "vault/.obsidian").mkdir(parents=True)
    (tmp_path / "vault/.obsidian/plugins").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoteError, match="leads out of the vault"):
        install(tmp_path / "vault")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_build_it_says_how_to_make_one(tmp_path: Path, build: Path) -> None:
    (build / "styles.css").unlink()
    with pytest.raises(RunError) as refused:
        install(tmp_path)
    assert "make plugin" in refused.value.hint


@pytest.mark.long
@pytest.mark.parametrize("built", [True, False])
def test_the_wheel_carries_the_plugin_where_it_was_built(tmp_path: Path, built: bool) -> None:
    copy = tmp_path / "copy"
    for name in ("vaultlab", "templates"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "obsidian-plugin/dist").mkdir(parents=True)
    for name in plugin.FILES if built else ():
        (copy / "obsidian-plugin/dist" / name).write_text(name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(copy)]
    subprocess.run(command, check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("vaultlab/plugin/")} == {
        f"vaultlab/plugin/{name}" for name in plugin.FILES if built
    }
    assert {"vaultlab/cli.py", "vaultlab/templates/result.md.j2"} <= names
    assert not any(name.startswith(("obsidian-plugin", "tests")) for name in names)
