"""The words about a vault's service, install, uninstall, status: the machine itself runs `watch`, from login on."""

import os
import plistlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vaultlab import terminal, trust
from vaultlab.commands.watch import ask_for_trust
from vaultlab.commands.words import USE, Json, VaultArg, root_of
from vaultlab.errors import NoteError
from vaultlab.notes.ids import slug
from vaultlab.process import logs
from vaultlab.vault import files, presence
from vaultlab.vault.journal import home

RESTART_S = 30
"""How long after a failure it is started again."""
STOP_S = 30
"""How long it may take to stop."""

_KEPT = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME")

app = typer.Typer(
    no_args_is_help=True,
    help="Let the machine run `watch` by itself, from login on. Example: `vaultlab service install ~/Notes`",
)


@dataclass(frozen=True)
class Service:
    """What is written for whoever runs it, and what its owner types: `hints` are (what it does, the command)."""

    path: Path
    content: bytes
    hints: Sequence[tuple[str, str]]


@app.command()
def install(
    vault: VaultArg = None,
    trusted: Annotated[bool, typer.Option("--trust", help="Trust this vault on this machine from now on.")] = False,
) -> None:
    """Write the service of a vault that you trust; nothing is started. Example: `vaultlab service install ~/Notes`"""
    root = root_of(vault)
    if trusted or terminal.interactive():
        ask_for_trust(root, trusted)
    if not trust.trusted(root):
        raise NoteError(
            f"{root} is not trusted on this machine yet, and a service has nobody to ask. {trust.MEANS}",
            f"To trust it: vaultlab service install {shlex.quote(str(root))} --trust",
        )
    service = service_of(root)
    wrote = files.replace(service.path, service.content)
    terminal.say(f"{'wrote' if wrote else 'is there already, as it should be:'} {service.path}")
    if sys.platform != "darwin" and shutil.which("systemctl") is None:
        terminal.warn("There is no systemctl on this machine, so nothing will run it.")
    _show(service)


@app.command()
def uninstall(vault: VaultArg = None) -> None:
    """Take the vault's service away. Example: `vaultlab service uninstall ~/Notes`"""
    root = vault.resolve() if vault is not None else root_of(None)  # the vault itself may be gone
    service = service_of(root)
    gone = [path for path in (service.path, *_enabled(service)) if path.exists() or path.is_symlink()]
    for path in gone:
        with files.in_words(path, "removed"):
            path.unlink()
        terminal.say(f"removed {path}")
    if not gone:
        terminal.say(f"There is no service for {root}.")
    elif presence.present(root) is not None:
        terminal.say(f"It still runs. To end it: vaultlab stop {shlex.quote(str(root))}")


@app.command()
def status(vault: VaultArg = None, as_json: Json = False) -> None:
    """Whether the vault's service is there, begins at login, and runs. Example: `vaultlab service status ~/Notes`"""
    root = root_of(vault)
    service = service_of(root)
    here = files.look_again(service.path)
    at_login = here is not None and (sys.platform == "darwin" or bool(_enabled(service)))
    runs = presence.present(root)
    if as_json:
        said = {"installed": here is not None, "current": here == service.content, "at_login": at_login}
        terminal.dump({"file": service.path, **said, "daemon": runs})
        return
    typed = shlex.quote(str(root))
    if here is None:
        terminal.say(f"There is no service for {root}. To have one: vaultlab service install {typed}")
    else:
        terminal.say(f"installed: {service.path}")
        if here != service.content:
            again = f"vaultlab service install {typed}"
            terminal.say(f"It is not as this vaultlab would write it. To write it anew: {again}", "yellow")
        terminal.say("It begins at login." if at_login else "It does not begin by itself yet.")
    terminal.say(f"Process {runs.get('pid', '?')} watches {root}." if runs is not None else f"Nobody watches {root}.")
    if here is not None:
        _show(service)


def service_of(root: Path) -> Service:
    """The service of the vault at `root`, for whoever runs services on this machine."""
    # Without -P, Python would look for vaultlab in the folder that it is started in first.
    command = [sys.executable, "-P", "-m", "vaultlab", "watch", str(root)]
    environment = {name: os.environ[name] for name in _KEPT if os.environ.get(name)}
    name = f"vaultlab-{slug(root.name)[:40] or 'vault'}-{home(root).name[:8]}"
    return (launchd if sys.platform == "darwin" else systemd)(name, root, command, environment)


def systemd(name: str, root: Path, command: Sequence[str], environment: dict[str, str]) -> Service:
    """A unit of the user's systemd."""
    program, *words = (_quoted(word) for word in command)
    lines = [
        "# Written by `vaultlab service install`; `vaultlab service uninstall` takes it away.",
        "[Unit]",
        f"Description=vaultlab watches {_shown(root)}",
        "",
        "[Service]",
        "Type=exec",
        "ExecStart=" + " ".join((program, *(word.replace("$", "$$") for word in words))),
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()),
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        "# Wrong use, such as a vault that is being watched already, is the same the next time.",
        f"RestartPreventExitStatus={USE}",
        "# The worker is for `watch` to stop: told to end as well, its run would count as one that takes it down.",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_S}",
        "# When the memory runs out the worker goes, and `watch` says so.",
        "OOMPolicy=continue",
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    unit = f"{name}.service"
    return Service(
        config / "systemd" / "user" / unit,
        "\n".join(lines).encode(),
        (
            ("begin now, and at each login", f"systemctl --user daemon-reload && systemctl --user enable --now {unit}"),
            ("see it", f"systemctl --user status {unit}"),
            ("stop it, for good", f"systemctl --user disable --now {unit}"),
            ("keep it when you log out", "loginctl enable-linger"),
        ),
    )


def launchd(name: str, root: Path, command: Sequence[str], environment: dict[str, str]) -> Service:
    """An agent of the user's launchd. It knows no exit code after which not to try again, so it tries seldom."""
    label, domain = name.replace("-", ".", 1), f"gui/{os.getuid()}"
    path = Path.home() / "Library" / "LaunchAgents" / f"{label}.plist"
    agent = {
        "Label": label,
        "ProgramArguments": list(command),
        "EnvironmentVariables": environment,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": RESTART_S,
        "ExitTimeOut": STOP_S,
        "StandardErrorPath": str(logs() / "service.log"),
    }
    try:
        content = plistlib.dumps(agent)
    except ValueError as error:
        raise NoteError(f"launchd cannot be told the path {root}.", "Rename that folder.") from error
    return Service(
        path,
        content,
        (
            ("begin now, and at each login", f"launchctl bootstrap {domain} {shlex.quote(str(path))}"),
            ("see it", f"launchctl print {domain}/{label}"),
            ("stop it, until the next login", f"launchctl bootout {domain}/{label}"),
        ),
    )


def _quoted(word: str) -> str:
    """A word as systemd reads it back: whatever is special to it, and what is no text, is written out."""
    special = {"\\": "\\\\", '"': '\\"', "%": "%%"}
    coded = (special.get(letter) or (letter if letter.isprintable() else _coded(letter)) for letter in word)
    return f'"{"".join(coded)}"'


def _coded(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def _shown(root: Path) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in str(root)).replace("%", "%%")


def _enabled(service: Service) -> list[Path]:
    """The links by which systemd begins it at login."""
    with suppress(OSError):
        return sorted(service.path.parent.glob(f"*.wants/{service.path.name}"))
    return []


def _show(service: Service) -> None:
    for what, command in service.hints:
        terminal.say(f"To {what}: {command}")
