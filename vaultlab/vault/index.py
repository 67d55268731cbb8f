"""Which notes have blocks, kept between runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaultlab.vault.config import Config

Parser = Callable[[str], dict[str, Any] | None]
"""A note's text → what is to be kept of it as plain JSON, or None where nothing is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A note or a page that its parser kept something of."""

    path: str
    sha256: str
    parsed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scan:
    """The vault as it is. Keys are vault-relative paths; `problems` maps a path to a sentence."""

    notes: Mapping[str, Entry]
    pages: Mapping[str, Entry]
    paths: tuple[str, ...]
    problems: Mapping[str, str]

    def resolve(self, link: str, source: str = "") -> str | None:
        """The path that a wikilink's target leads to from the note `source`, found as Obsidian finds it."""
        raise NotImplementedError


class Index:
    """The index of the vault at `root`. `stamp` names the parsers' version: another one reads everything again."""

    def __init__(self, root: Path, stamp: str) -> None:
        self.root = root
        self.stamp = stamp

    def scan(self, config: Config, parse_note: Parser, parse_page: Parser) -> Scan:
        """Look at the vault; only what changed is read, and what was learned is kept."""
        raise NotImplementedError
