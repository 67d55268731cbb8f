"""Text and list fields → the very texts that they mean, as content-addressed snapshots; and what may be quoted."""

import hashlib
import pydoc_data.topics
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from vaultlab import trust
from vaultlab.catalogue import Entry
from vaultlab.errors import NoteError, VaultlabError
from vaultlab.notes import parse, passage
from vaultlab.notes.note import Note
from vaultlab.notes.passage import Reference
from vaultlab.result import Text
from vaultlab.vault import files
from vaultlab.vault.config import Config
from vaultlab.vault.index import Scan

COLLECTIONS = ("folder", "vault")
"""References to many notes at once: a change in them marks a result stale, and runs only when asked for."""


def snapshot(name: str, parts: tuple[tuple[str, str], ...]) -> Text:
    """A text with its content hash; the sources' names are not in the hash, so a renamed note reads the same."""
    digest = hashlib.sha256()
    for _, text in parts:
        content = text.encode()
        digest.update(len(content).to_bytes(8, "big") + content)
    return Text(name, digest.hexdigest(), parts)


@cache
def python_help() -> Text:
    """Python's own help texts, which every CPython carries: about 0.7 MB of plain English and code."""
    topics = pydoc_data.topics.topics
    return snapshot("python-help", tuple((name, topics[name]) for name in sorted(topics)))


_MARK = re.compile(r"\s*(?:[-*+]|\d+[.)])(?:\s+|$)")
"""What a list's lines begin with, where one is written into the block itself."""

Above = tuple[tuple[str, str], ...]
"""The passages, as (note, heading), that each embed the next."""


def _is_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


class Texts:
    """Resolves what the notes of one vault refer to, each note read at most once. Without a vault: literals, files."""

    def __init__(self, config: Config, root: Path | None = None, scan: Scan | None = None) -> None:
        self.config = config
        self.root = root
        self.scan = scan
        self._read: dict[str, tuple[Note, str]] = {}

    def put(self, path: str, text: str) -> None:
        """The note at this path reads so, whatever stands on the disk: it is being typed."""
        self._read[path] = (parse.parse(text), text)

    def of(self, entry: Entry, values: Mapping[str, Any], source: str = "") -> dict[str, Text]:
        """What every text and list field of an experiment means, `values` laid over its defaults. NoteError."""
        found = {}
        for kind, read in (("text", self.resolve), ("list", self.resolve_list)):
            for name in entry.of_kind(kind):
                value = values.get(name, entry.defaults[name])
                if not isinstance(value, str) and (kind == "text" or not _is_list(value)):
                    continue  # none, or what the experiment refuses in its own words
                try:
                    found[name] = read(value, source)
                except NoteError as error:
                    raise NoteError(error.message, error.hint, field=name) from error
                except VaultlabError as error:
                    said = f"The {kind} of `{name}` cannot be read: {error.message}"
                    raise NoteError(said, error.hint, field=name) from error
        return found

    def resolve_list(self, value: str | Sequence[str], source: str = "") -> Text:
        """The list that `value` means in the note `source`: a part an item. NoteError: as `resolve`; it is empty."""
        parts = tuple(self._items(value, source, ()))
        if not parts:
            raise NoteError("This list is empty.", 'Write its words, or where they stand: "[[Note#Heading]]".')
        return snapshot(value if isinstance(value, str) and parts[0][0] else "", parts)

    def _items(self, value: str | Sequence[str], source: str, above: Above) -> Iterator[tuple[str, str]]:
        if not isinstance(value, str):
            for one in value:
                if one.startswith("[[") and passage.classify(one).kind == "note":
                    yield from self._items(one, source, above)
                elif one.strip():
                    yield "", one.strip()
            return
        reference = passage.classify(value)
        match reference.kind:
            case "literal":
                yield from (("", item) for line in value.splitlines() if (item := _MARK.sub("", line).strip()))
            case "file":
                [(path, text)] = self.resolve(value, source).parts
                yield from ((path, line.strip()) for line in text.splitlines() if line.strip())
            case "note" | "this note":
                yield from self._listed(reference, source, above)
            case _:
                raise NoteError(
                    f"`{value}` is no list but a text.", 'Name the heading over a list: "[[Note#Heading]]".'
                )

    def _listed(self, reference: Reference, source: str, above: Above) -> Iterator[tuple[str, str]]:
        path, fragment = self._target(reference.path, source), reference.fragment
        if (path, fragment) in above:
            raise NoteError(f"The list under `{fragment or path}` embeds itself.", "Take that embed out of it.")
        for item in passage.items(self._prose(path), fragment):
            if isinstance(item, str):
                yield path, item
            else:
                yield from self._listed(item, path, (*above, (path, fragment)))

    def resolve(self, value: str, source: str = "") -> Text:
        """The text that `value` means in the note `source`. NoteError: it leads nowhere, or may not be quoted."""
        reference = passage.classify(value)
        match reference.kind:
            case "literal":
                return snapshot("", (("", value),))
            case "python-help":
                return python_help()
            case "file":
                named = trust.text_file(reference.path, self.config.texts)
                return snapshot(reference.path, ((reference.path, files.read(named).text),))
            case "folder" | "vault":
                return snapshot(value, tuple(self._collection(reference.path)))
        path = self._target(reference.path, source)
        text = self._prose(path)
        if reference.fragment:
            text = passage.passage(text, reference.fragment)
        return snapshot(value, ((path, text),))

    def _target(self, link: str, source: str) -> str:
        if self.scan is None:
            raise NoteError("This reference needs a vault.", "Give the text itself, or `python-help`.")
        if not link:
            return source
        path = self.scan.resolve(link, source)
        if path is None:
            names = [one.rpartition("/")[2].removesuffix(".md") for one in self.scan.paths]
            near = passage.nearest(link, names)
            raise NoteError(f"There is no note `{link}` in this vault.", f"Did you mean `[[{near}]]`?" if near else "")
        if path != source and not trust.public(path, self._note(path)[0].properties):
            raise NoteError(
                f"`{link}` is private (publish: false, draft: true, or in private/): no other note's result quotes it.",
                "Put the block into that note, or quote another one.",
            )
        return path

    def _collection(self, folder: str) -> Iterator[tuple[str, str]]:
        if self.scan is None:
            raise NoteError("This reference needs a vault.", "Give the text itself, or `python-help`.")
        found = False
        folder = folder.strip("/")
        folders = {str(above) for path in self.scan.paths for above in PurePosixPath(path).parents} - {"."}
        if folder and folder not in folders:
            near = passage.nearest(folder, sorted(folders))
            mend = f"Did you mean `folder:{near}`? " if near else ""
            raise NoteError(f"There is no folder `{folder}` with notes in this vault.", f"{mend}All notes are `vault`.")
        for path in self.scan.paths:
            if folder and not path.startswith(folder + "/"):
                continue
            if not trust.listed(path, self.config.search):
                continue
            try:
                properties = self._note(path)[0].properties
            except VaultlabError:
                continue  # not readable as a note: listed among the vault's problems already
            if trust.public(path, properties):
                found = True
                yield path, self._prose(path)
        if not found:
            raise NoteError(
                f"No note of {f'`{folder}`' if folder else 'this vault'} may be searched.",
                'The owner of this machine lists them: `search = ["Folder/**"]` in vaultlab\'s own config.toml.',
            )

    def _note(self, path: str) -> tuple[Note, str]:
        if path not in self._read:
            assert self.root is not None
            text = files.read(files.inside(self.root, path)).text
            self._read[path] = (parse.parse(text), text)
        return self._read[path]

    def _prose(self, path: str) -> str:
        note, text = self._note(path)
        return passage.prose(text, note, self.config.folder)


def changed_parts(old: Mapping[str, str], new: Text) -> int:
    """How many sources of a text are new, gone or other than they were; `old`: source → its text's hash."""
    now = part_hashes(new)
    return sum(old.get(source) != now.get(source) for source in {*old, *now})


def part_hashes(text: Text) -> dict[str, str]:
    """Source → the hash of its text, to say later how much of a collection changed."""
    return {source: hashlib.sha256(content.encode()).hexdigest()[:16] for source, content in text.parts}
