"""`vaultlab service install`: what it writes runs this very program on this very vault."""

import os
import plistlib
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_cli import Typed
from tests.test_daemon import Alive, alive
from vaultlab.commands.service import agent, unit
from vaultlab.errors import NoteError

__all__ = ["alive"]  # the fixture


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def words(line: str) -> list[bytes]:
    """A line of systemd's as systemd reads it: quoted words, escapes, doubled `%` and `$`."""
    found = []
    for word in re.findall(r'"((?:\\.|[^"\\])*)"', line):
        plain = word.replace("%%", "%").replace("$$", "$").encode("utf-8", "surrogateescape")
        escapes = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
        found.append(escapes.sub(lambda it: bytes.fromhex(it[1][1:].decode()) if len(it[1]) == 3 else it[1], plain))
    return found


def test_what_is_written_watches_this_vault(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    shown = Typed("service", "install", alive.root, "--trust")
    assert shown.code == 0
    (path,) = (alive.root.parent / "config/systemd/user").glob("vaultlab-vault-*.service")
    text = path.read_text()
    (line,) = values(text, "ExecStart")
    program, *rest = (os.fsdecode(word) for word in words(line))
    assert rest == ["watch", str(alive.root)]
    assert Path(program).name == "vaultlab"
    assert f'"XDG_STATE_HOME={alive.root.parent / "state"}"' in values(text, "Environment")
    assert values(text, "RestartPreventExitStatus") == ["2"], "where its owner has to do something first"
    assert f"systemctl --user enable --now {path.stem}" in shown.out
    assert f"rm {path}" in shown.out
    assert "already" in Typed("service", "install", alive.root).out


def test_nobody_is_asked_later_so_it_must_be_trusted_now(alive: Alive) -> None:
    shown = Typed("service", "install", alive.root)
    assert isinstance(shown.error, NoteError)
    assert "--trust" in str(shown.error)
    assert not (alive.root.parent / "config/systemd").exists()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_whatever_a_vault_is_called_systemd_reads_the_same(name: str) -> None:
    text = unit(name, ("/usr/bin/vaultlab", "watch", f"/home/me/{name}")).decode()
    (line,) = (one for one in text.split("\n") if one.startswith("ExecStart="))
    assert words(line) == [b"/usr/bin/vaultlab", b"watch", f"/home/me/{name}".encode()]
    assert len(text.split("\n")) == len(unit("vault", ("a", "b", "c")).decode().split("\n")), "no line more"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_and_launchd(name: str) -> None:
    read = plistlib.loads(agent("vaultlab-vault", ("/usr/bin/vaultlab", "watch", name)))
    assert read["ProgramArguments"] == ["/usr/bin/vaultlab", "watch", name]
    assert read["KeepAlive"] == {"SuccessfulExit": False}
