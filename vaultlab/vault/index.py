"""Which notes have blocks, kept between runs."""

import hashlib
import json
import posixpath
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from vaultlab.errors import NoteError, VaultlabError
from vaultlab.vault.config import Config
from vaultlab.vault.files import Look, Stat, decode, look, replace, steady
from vaultlab.vault.find import Found, find, same_name
from vaultlab.vault.journal import home, made

Parser = Callable[[str], dict[str, Any] | None]
"""A note's text → what is to be kept of it as plain JSON, or None. A NoteError is a problem of the note."""

_FORMAT = 2
_PAUSE_S = 0.05
_SIGNS = (b"vaultlab", b"v\0a\0u\0l\0t\0l\0a\0b")
"""Every note that takes part has this word, in its fence if nowhere else; in UTF-16 it is told to be UTF-8."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A note or a page that its parser kept something of."""

    path: str
    sha256: str
    parsed: dict[str, Any]


@dataclass(frozen=True)
class Scan:
    """The vault as it is. Keys are vault-relative paths; `problems` maps a path to a sentence."""

    notes: Mapping[str, Entry]
    pages: Mapping[str, Entry]
    paths: tuple[str, ...]
    problems: Mapping[str, str]

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for path in self.paths:
            name = same_name(posixpath.basename(path))
            found[name] = (*found.get(name, ()), path)
        return found

    def resolve(self, link: str, source: str = "") -> str | None:
        """The path that a wikilink's target (no heading, no alias) leads to from the note `source`.

        As Obsidian finds it: a name or the end of a path, in any case and any normal form. Of several, the one whose
        whole path was written, then one beside the source, then the one fewest folders down.
        """
        here = posixpath.dirname(source)
        wanted = link.strip()
        if not wanted:
            return source or None
        if wanted.startswith(("./", "../")):
            wanted = "/" + posixpath.normpath(posixpath.join(here, wanted))
        for ending in (".md", ""):
            target = same_name(wanted.lstrip("/") + ending)
            found = [
                path
                for path in self._by_name.get(posixpath.basename(target), ())
                if same_name(path) == target or (wanted[0] != "/" and same_name(path).endswith("/" + target))
            ]
            if found:
                return min(found, key=lambda path: _distance(path, target, here))
        return None


def _distance(path: str, target: str, here: str) -> tuple[bool, bool, int, str]:
    return (same_name(path) != target, posixpath.dirname(path) != here, path.count("/"), path)


@dataclass(slots=True)
class _Kept:
    """What is known of one file. `stat` is None where its next change might not show in it."""

    stat: Stat | None
    sha256: str = ""
    parsed: dict[str, Any] | None = None
    problem: str = ""


@dataclass(slots=True)
class _Files:
    """A kind of file and how it is read: one of `signs` must be in its bytes for its parser to be asked at all."""

    parse: Parser
    signs: tuple[bytes, ...]
    known: dict[str, _Kept]
    now: dict[str, _Kept] = field(default_factory=dict)


class Index:
    """The index of the vault at `root`. `stamp` names the parsers' version: another one reads everything again."""

    def __init__(self, root: Path, stamp: str) -> None:
        self.root = root
        self._stamp = f"{_FORMAT} {stamp}"
        self._path = home(root) / "index.json"

    def scan(self, config: Config, parse_note: Parser, parse_page: Parser) -> Scan:
        """Look at the vault; only what changed is read, and what was learned is kept."""
        found, problems = find(self.root, config.folder, config.ignored)
        known = self._load()
        notes = _Files(parse_note, _SIGNS, known.get("notes", {}))
        pages = _Files(parse_page, (b"",), known.get("pages", {}))
        own, plain = same_name(config.folder), cache(same_name)
        moving: list[tuple[Found, _Files, Look | None]] = []
        for file in found:
            kind = pages if plain(file.path.rpartition("/")[0]) == own else notes
            before = kind.known.get(file.path)
            if before is not None and before.stat == file.stat:
                kind.now[file.path] = before
            else:
                self._see(file, kind, moving)
        self._see_again(moving)
        if (notes.now, pages.now) != (notes.known, pages.known):
            self._save(notes.now, pages.now)
        problems |= {path: kept.problem for kind in (notes, pages) for path, kept in kind.now.items() if kept.problem}
        paths = tuple(sorted(file.path for file in found))
        return Scan(_entries(notes.now), _entries(pages.now), paths, dict(sorted(problems.items())))

    def _see(self, file: Found, kind: _Files, moving: list[tuple[Found, _Files, Look | None]]) -> None:
        try:
            seen = look(self.root / file.path)
        except FileNotFoundError:
            return
        except OSError as error:
            kind.now[file.path] = _Kept(None, problem=f"This note could not be read: {error.strerror}.")
            return
        if seen is None or not seen.still:
            moving.append((file, kind, seen))
        else:
            kind.now[file.path] = _learn(file.path, seen, kind)

    def _see_again(self, moving: Sequence[tuple[Found, _Files, Look | None]]) -> None:
        """Files just written want a second look; all of them wait together, so a fresh checkout is not slow."""
        waited = False
        for file, kind, seen in moving:
            path = self.root / file.path
            try:
                if not waited:
                    time.sleep(_PAUSE_S)
                    waited = True
                again = look(path)
                if again is None or seen is None or again.content != seen.content:
                    again = steady(path)
                kind.now[file.path] = _learn(file.path, again, kind)
            except FileNotFoundError:
                continue
            except (OSError, VaultlabError) as error:
                kind.now[file.path] = _Kept(None, problem=str(error))

    def _load(self) -> dict[str, dict[str, _Kept]]:
        try:
            said = json.loads(self._path.read_bytes())
            if said["stamp"] != self._stamp:
                return {}
            return {
                kind: {path: _Kept(tuple(stat) if stat else None, *rest) for path, (stat, *rest) in said[kind].items()}
                for kind in ("notes", "pages")
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # a cache: what cannot be read is learned again

    def _save(self, notes: Mapping[str, _Kept], pages: Mapping[str, _Kept]) -> None:
        said: dict[str, Any] = {"stamp": self._stamp}
        for kind, files in (("notes", notes), ("pages", pages)):
            said[kind] = {path: (kept.stat, kept.sha256, kept.parsed, kept.problem) for path, kept in files.items()}
        with suppress(VaultlabError):  # a cache: where it cannot be kept, the next run reads everything again
            made(self._path.parent)
            replace(self._path, json.dumps(said, separators=(",", ":")).encode(), lasting=False)


def _learn(path: str, seen: Look, kind: _Files) -> _Kept:
    kept = _Kept(seen.stat if seen.settled else None)
    if not any(sign in seen.content for sign in kind.signs):
        return kept
    kept.sha256 = hashlib.sha256(seen.content).hexdigest()
    before = kind.known.get(path)
    if before is not None and before.sha256 == kept.sha256:
        kept.parsed, kept.problem = before.parsed, before.problem
        return kept
    try:
        kept.parsed = kind.parse(decode(seen.content, posixpath.basename(path)))
    except NoteError as error:
        kept.problem = str(error)
    return kept


def _entries(files: Mapping[str, _Kept]) -> dict[str, Entry]:
    return {
        path: Entry(path, kept.sha256, kept.parsed) for path, kept in sorted(files.items()) if kept.parsed is not None
    }
