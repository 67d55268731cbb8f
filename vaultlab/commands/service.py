"""The word about watching a vault from login on: a unit of systemd's, or an agent of launchd's, of this user."""

import hashlib
import os
import plistlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vaultlab import places, terminal, trust
from vaultlab.commands.watch import ask_for_trust
from vaultlab.commands.words import USE, VaultArg, root_of
from vaultlab.errors import NoteError, RunError
from vaultlab.notes.ids import slug
from vaultlab.vault import files

app = typer.Typer(no_args_is_help=True, help="Watch a vault from login on. Example: `vaultlab service install ~/Notes`")

# Where it finds its configuration, its state and its cache, if that is not where it always is.
_FOLDERS = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")


@app.callback()
def _service() -> None:
    """With one word only, typer would leave that word out."""


@app.command()
def install(
    vault: VaultArg = None,
    trusted: Annotated[bool, typer.Option("--trust", help="Trust this vault on this machine from now on.")] = False,
) -> None:
    """Write what makes this machine watch a vault for as long as you are logged in, and say how to start and end it.

    Example: `vaultlab service install ~/Notes`
    """
    root = root_of(vault)
    ask_for_trust(root, trusted)
    if not trust.trusted(root):
        raise NoteError("A vault that is not trusted is not watched as a service: there is nobody to ask.")
    name = f"vaultlab-{slug(root.name)[:40] or 'vault'}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:6]}"
    command = (_program(), "watch", str(root))
    if sys.platform == "darwin":
        path = Path.home() / f"Library/LaunchAgents/{name}.plist"
        content, domain = agent(name, command), f"gui/{os.getuid()}"
        start = f"launchctl bootstrap {domain} {shlex.quote(str(path))}"
        end = f"launchctl bootout {domain}/{name}"
    else:
        path = places.config_dir().parent / f"systemd/user/{name}.service"
        content = unit(root.name, command)
        start = f"systemctl --user daemon-reload && systemctl --user enable --now {name}"
        end = f"systemctl --user disable --now {name}"
    wrote = files.replace(path, content)
    terminal.say(f"{'Wrote' if wrote else 'It is there already:'} {path}")
    terminal.say(f"To start it, now and at every login: {start}")
    terminal.say(f"To end it for good: {end} && rm {shlex.quote(str(path))}")


def unit(vault: str, command: Sequence[str]) -> bytes:
    """A unit of systemd's. It begins again after a fault, not where its owner has to do something first."""
    folders = [f"{name}={os.environ[name]}" for name in _FOLDERS if name in os.environ]
    lines = [
        "[Unit]",
        f"Description=vaultlab watches {_escaped(vault)}",
        "",
        "[Service]",
        *(f"Environment={_quoted(one)}" for one in folders),
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in command)}",
        "Restart=on-failure",
        "RestartSec=5",
        f"RestartPreventExitStatus={USE}",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def agent(label: str, command: Sequence[str]) -> bytes:
    """An agent of launchd's."""
    folders = {name: os.environ[name] for name in _FOLDERS if name in os.environ}
    return plistlib.dumps(
        {
            "Label": label,
            "ProgramArguments": list(command),
            "EnvironmentVariables": folders,
            "RunAtLoad": True,
            "KeepAlive": {"SuccessfulExit": False},
            "ProcessType": "Background",
        }
    )


def _program() -> str:
    """The `vaultlab` of this very installation."""
    beside = Path(sys.executable).with_name("vaultlab")
    found = str(beside) if beside.exists() else shutil.which("vaultlab")
    if found is None:
        raise RunError("The program `vaultlab` is not on this machine's path.", "Install it: pip install vaultlab")
    return found


def _escaped(text: str) -> str:
    """For systemd, in which a backslash escapes and `%` stands for something else."""
    plain = text.replace("\\", "\\\\").replace("%", "%%")
    return "".join(
        one if one.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(one)) for one in plain
    )


def _quoted(word: str) -> str:
    return '"' + _escaped(word).replace('"', '\\"') + '"'
