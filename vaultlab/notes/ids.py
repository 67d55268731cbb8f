"""Which block has which id, over a whole vault: written, read off its embed, or made from its title."""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vaultlab.notes.note import Block, Embed, Note, Problem

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
# Files of vaultlab's own folder that are no result notes.
_OURS = {"problems", "figures", "kept", "recovered"}


@dataclass(frozen=True, slots=True)
class Named:
    """A block with its id, or with the problem that leaves it without one."""

    path: str
    block: Block
    id: str | None
    problem: Problem | None = None


def assign(notes: Mapping[str, Note], owners: Mapping[str, str], folder: str = "vaultlab") -> tuple[Named, ...]:
    """An id for every block of the vault, in the order of paths and lines.

    `owners`: for every result note there is, its id → the path of the note that it names as its own.
    """
    raise NotImplementedError


def embed_id(embed: Embed, folder: str = "vaultlab") -> str | None:
    """The id of the result that an embed shows, or whose figure it shows; None where it shows something else."""
    raise NotImplementedError
