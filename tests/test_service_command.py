"""`service install`, `uninstall`, `status`: what is written is read back as systemd and launchd read it, and run."""

import os
import plistlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_cli import Typed
from vaultlab import trust
from vaultlab.commands import service
from vaultlab.commands.words import USE
from vaultlab.vault import presence


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    root = tmp_path / 'My $HOME 100% "notes" \\ \'é; x'
    (root / ".vaultlab").mkdir(parents=True)
    trust.trust(root)
    return root


def unit_file(tmp_path: Path) -> Path:
    (unit,) = (tmp_path / "config/systemd/user").glob("*.service")
    return unit


def as_systemd(text: str) -> list[str]:
    """The words of a value: quotes and backslashes first, then `%%`. Anything else with a meaning is a fault."""
    words: list[bytes] = []
    left = text
    while left:
        found = re.match(r'"((?:[^"\\]|\\.)*)"(?: |$)', left)
        assert found, left
        left = left[found.end() :]
        word, at = b"", 0
        for escape in re.finditer(r"\\(x[0-9a-f]{2}|[\\\"])", found[1]):
            said = escape[1]
            word += os.fsencode(found[1][at : escape.start()])
            word += bytes([int(said[1:], 16)]) if said[0] == "x" else said.encode()
            at = escape.end()
        words.append(word + os.fsencode(found[1][at:]))
        assert not re.search(rb"(?<!%)%(?:%%)*(?!%)", words[-1]), "a specifier"
    return [os.fsdecode(word.replace(b"%%", b"%")) for word in words]


def parsed(content: str) -> Iterator[tuple[str, str, list[str]]]:
    section = ""
    for line in filter(None, content.splitlines()):
        if line.startswith("["):
            section = line
        elif not line.startswith("#"):
            key, _, value = line.partition("=")
            quoted = key in ("ExecStart", "Environment")
            yield section, key, as_systemd(value) if quoted else [value]


def test_what_nobody_trusts_is_refused_with_what_to_type(tmp_path: Path) -> None:
    root = tmp_path / "Not mine"
    root.mkdir()
    shown = Typed("service", "install", root)
    assert f"vaultlab service install {shlex.quote(str(root))} --trust" in str(shown.error)
    assert not (tmp_path / "config").exists()
    assert Typed("service", "install", root, "--trust").code == 0
    assert trust.trusted(root)
    assert unit_file(tmp_path).exists()


def test_it_is_written_once_and_says_how_it_is_begun_seen_and_stopped(vault: Path, tmp_path: Path) -> None:
    shown = Typed("service", "install", vault)
    unit = unit_file(tmp_path)
    assert f"wrote {unit}" in shown.out
    for command in ("enable --now", "status", "disable --now"):
        assert f"systemctl --user {command} {unit.name}" in shown.out
    assert re.fullmatch(r"vaultlab-my-home-100-notes-e-x-[0-9a-f]{8}\.service", unit.name)
    os.utime(unit, (1e9, 1e9))
    assert "is there already" in Typed("service", "install", vault).out
    assert unit.stat().st_mtime == 1e9
    unit.write_text("spoilt")
    assert "wrote" in Typed("service", "install", vault).out
    assert unit_file(tmp_path).read_text() != "spoilt"


def test_what_is_written_runs_and_is_not_tried_again_where_a_vault_is_watched(vault: Path, tmp_path: Path) -> None:
    Typed("service", "install", vault)
    entries = list(parsed(unit_file(tmp_path).read_text()))
    said = {key: values for _, key, values in entries}
    assert ("[Install]", "WantedBy", ["default.target"]) in entries
    assert said["Restart"] == ["on-failure"]
    assert said["KillMode"] == ["mixed"]
    assert said["Description"] == [f"vaultlab watches {vault}".replace("%", "%%")]
    command = [said["ExecStart"][0], *(word.replace("$$", "$") for word in said["ExecStart"][1:])]
    assert command[-2:] == ["watch", str(vault)]
    environment = dict(value.split("=", 1) for _, key, values in entries if key == "Environment" for value in values)
    assert environment["XDG_STATE_HOME"] == str(tmp_path / "state")
    with presence.attend(vault):
        done = subprocess.run(
            command,
            env={**environment, "PYTHONPATH": str(Path.cwd()), "HOME": "/nowhere"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "being watched already" in done.stderr
    assert done.returncode == USE
    assert said["RestartPreventExitStatus"] == [str(done.returncode)]


@given(st.one_of(st.text().map(str.encode), st.binary()).map(lambda name: os.fsdecode(name.replace(b"\0", b""))))
def test_any_path_is_read_back(name: str) -> None:
    root = Path(f"/vaults/{name}")
    unit = service.systemd("vaultlab", root, ["/bin/python", str(root)], {"XDG_STATE_HOME": str(root)})
    said = {key: values for _, key, values in parsed(unit.content.decode())}
    assert said["ExecStart"] == ["/bin/python", str(root).replace("$", "$$")]
    assert said["Environment"] == [f"XDG_STATE_HOME={root}"]
    assert set(said) >= {"Description", "WantedBy"}


def test_status_and_uninstall(vault: Path, tmp_path: Path) -> None:
    assert f"vaultlab service install {shlex.quote(str(vault))}" in Typed("service", "status", vault).out
    assert "There is no service" in Typed("service", "uninstall", vault).out
    Typed("service", "install", vault)
    unit = unit_file(tmp_path)
    shown = Typed("service", "status", vault).out
    assert "It does not begin by itself yet." in shown
    assert "Nobody watches" in shown
    link = unit.parent / "default.target.wants" / unit.name
    link.parent.mkdir()
    link.symlink_to(unit)
    with presence.attend(vault):
        shown = Typed("service", "status", vault).out
        assert "It begins at login." in shown
        assert f"Process {os.getpid()} watches" in shown
        assert Typed("service", "status", vault, "--json").json == {
            "file": str(unit),
            "installed": True,
            "current": True,
            "at_login": True,
            "daemon": {"pid": os.getpid()},
        }
        unit.write_text("spoilt")
        assert "It is not as this vaultlab would write it." in Typed("service", "status", vault).out
        assert f"vaultlab stop {shlex.quote(str(vault))}" in Typed("service", "uninstall", vault).out
    assert not unit.exists()
    assert not link.is_symlink()


def test_the_service_of_a_vault_that_is_gone_goes_too(vault: Path, tmp_path: Path) -> None:
    Typed("service", "install", vault)
    unit = unit_file(tmp_path)
    vault.rename(tmp_path / "elsewhere")
    assert f"removed {unit}" in Typed("service", "uninstall", vault).out


def test_launchd_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "darwin")
    root = tmp_path / "My <notes> & é"
    root.mkdir()
    trust.trust(root)
    shown = Typed("service", "install", root)
    (agent,) = (tmp_path / "Library/LaunchAgents").glob("*.plist")
    said = plistlib.loads(agent.read_bytes())
    assert said["Label"] == agent.stem
    assert agent.stem.startswith("vaultlab.my-notes-e-")
    assert said["ProgramArguments"] == [sys.executable, "-P", "-m", "vaultlab", "watch", str(root)]
    assert said["KeepAlive"] == {"SuccessfulExit": False}
    assert said["RunAtLoad"] is True
    assert said["EnvironmentVariables"]["XDG_STATE_HOME"] == str(tmp_path / "state")
    assert f"launchctl bootstrap gui/{os.getuid()} {agent}" in shown.out
    assert "It begins at login." in Typed("service", "status", root).out
    with pytest.raises(service.NoteError, match="launchd cannot be told"):
        service.launchd("vaultlab", tmp_path, ["a\x01b"], {})
