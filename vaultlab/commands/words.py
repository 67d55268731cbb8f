"""What the commands share: their arguments, the vault that is meant, the experiments that there are."""

from pathlib import Path
from typing import Annotated

import typer

from vaultlab import catalogue
from vaultlab.catalogue import Catalogue
from vaultlab.errors import NoteError
from vaultlab.lab import Lab

FINE, FAILS, USE, MACHINE = 0, 1, 2, 3
"""Exit codes: fine; a result or a claim fails; wrong use; the machine."""

VaultArg = Annotated[
    Path | None, typer.Argument(help="The vault's folder; without it, the vault around the current folder.")
]
VaultOpt = Annotated[
    Path | None, typer.Option("--vault", help="The vault's folder; without it, the vault around the current folder.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps or cpu; chosen by itself otherwise.")]


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


def known_experiments() -> Catalogue:
    with Lab() as lab:
        return catalogue.load(lab.describe)


def must_know(known: Catalogue, name: str) -> None:
    if name not in known:
        near = known.nearest(name)
        hint = f"Did you mean `{near}`? " if near else ""
        raise NoteError(f"There is no experiment `{name}`.", f"{hint}There are: {', '.join(known)}.")
