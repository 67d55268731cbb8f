"""Which vaults, models and texts the owner of this machine has allowed."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any


def model(name: str, pulled: Collection[str], allowed: Collection[str] = ()) -> None:
    """NoteError unless a note may name this model: pulled to this machine and, where the owner lists any, listed."""
    raise NotImplementedError


def text_file(name: str, named: Mapping[str, Path]) -> Path:
    """The file that the owner has given this name to; NoteError with the nearest."""
    raise NotImplementedError


def searchable(path: str, frontmatter: Mapping[str, Any], globs: Collection[str]) -> bool:
    """Whether a note may be quoted in another's result: on the owner's list, and neither private nor a draft."""
    raise NotImplementedError


def trusted(vault: Path) -> bool:
    """Whether the owner has trusted this vault on this machine."""
    raise NotImplementedError


def trust(vault: Path) -> None:
    """Trust this vault on this machine, from now on."""
    raise NotImplementedError
