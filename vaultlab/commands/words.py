"""What the commands share: their arguments, the vault that is meant, the experiments that there are."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vaultlab import catalogue, places, terminal
from vaultlab.catalogue import Catalogue
from vaultlab.errors import NoteError, RunError
from vaultlab.lab import Lab
from vaultlab.vault import config as configuration
from vaultlab.vault.journal import Journal, lock

FINE, FAILS, USE, MACHINE = 0, 1, 2, 3
"""Exit codes: fine; a result or a claim fails; wrong use; the machine."""

WAIT_S = 3600.0
"""How long a command waits for another one to leave the vault."""

VaultArg = Annotated[
    Path | None, typer.Argument(help="The vault's folder; without it, the vault around the current folder.")
]
VaultOpt = Annotated[
    Path | None, typer.Option("--vault", help="The vault's folder; without it, the vault around the current folder.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cuda, cuda:1, mps or cpu, or a worker on another machine, by its name in your config.toml; "
        "without it what that file says, else the best here."
    ),
]
_DEVICE = re.compile(r"cuda(:\d+)?|mps|cpu")


def root_of(vault: Path | None) -> Path:
    if vault is not None:
        if not vault.is_dir():
            raise NoteError(f"{vault} is not a folder.", "Give the folder that you open as a vault in Obsidian.")
        return vault.resolve()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".vaultlab").is_dir() or (folder / ".obsidian").is_dir():
            return folder
    raise NoteError(
        "There is no vault around this folder.", "Give the vault's folder, or prepare one: vaultlab init VAULT"
    )


@contextmanager
def alone(root: Path, dry_run: bool = False) -> Iterator[None]:
    """Alone in this vault, and after what a crash left has been repaired."""
    if dry_run:
        yield
        return
    with ExitStack() as held:
        try:
            held.enter_context(lock(root, wait_s=0.5))
        except RunError as error:
            terminal.warn(f"{error.message} Waiting for it to finish …")
            held.enter_context(lock(root, wait_s=WAIT_S))
        for sentence in Journal(root).recover(configuration.load(root, places.config_dir()).folder):
            terminal.warn(sentence)
        yield


def lab_on(device: str | None, *, patient: bool = False) -> Lab:
    """The worker that the owner means: by the command line, else by their configuration, else the best device here.

    `patient`: where it is on another machine it is waited for, however long it does not answer.
    """
    config = configuration.of_owner(places.config_dir())
    wanted = device or config.device
    if wanted is not None and wanted in config.workers:
        return Lab(config.workers[wanted], far=wanted, patient=patient)
    if wanted is not None and not _DEVICE.fullmatch(wanted):
        near = catalogue.nearest(wanted, config.workers)
        raise NoteError(
            f"There is no device and no worker called `{wanted}`.",
            f"Did you mean `{near}`?" if near else f"Workers are named in {places.config_dir() / 'config.toml'}.",
        )
    return Lab(device=wanted)


def known_experiments(lab: Lab | None = None) -> Catalogue:
    """What this very vaultlab has; a worker on another machine may have others. `lab` may be the one to ask."""
    if lab is not None and not lab.far:
        return catalogue.load(lab.describe)
    with Lab() as here:
        return catalogue.load(here.describe)


def must_know(known: Catalogue, name: str) -> None:
    if name not in known:
        near = known.nearest(name)
        hint = f"Did you mean `{near}`? " if near else ""
        raise NoteError(f"There is no experiment `{name}`.", f"{hint}There are: {', '.join(known)}.")
