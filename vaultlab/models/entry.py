"""A model's entry on this machine: a folder with its weights as safetensors, its tokenizer, and `entry.json`."""

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from vaultlab.errors import NoteError, RunError
from vaultlab.models import recipes
from vaultlab.places import cache_dir

CONVERTER = 1
"""Raise it when the same source would convert to other numbers: it is part of every model's hash."""

SMOLLM2 = "smollm2-135m"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[A-Za-z0-9][\w.-]*)?")


class Stamp(BaseModel):
    """A file of the entry as it was written."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: int
    mtime_ns: int
    sha256: str


class Entry(BaseModel):
    """What is known of a model without loading it.

    `source_sha256` covers all files it was made from, the tokenizer's included. `residual` is how far the logits
    rebuilt from its parts were from its own when it arrived, relative to the largest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    source: str
    source_sha256: str
    converter: int
    family: str
    model_type: str
    dtype: str
    parameters: int
    bytes: int
    residual: float
    files: dict[str, Stamp]

    def sha256(self, dtype: str | None = None) -> str:
        """The model's content, the same on every machine: source, converter's version, dtype."""
        return content_sha256(self.source_sha256, self.converter, dtype or self.dtype)


def content_sha256(source_sha256: str, converter: int, dtype: str) -> str:
    """What a model is, as `Entry.sha256` says it."""
    return hashlib.sha256(f"{source_sha256}\n{converter}\n{dtype}".encode()).hexdigest()


def content_of(name: str) -> str:
    """The hash of a model's content; a toy's is known before it is trained. RunError as `read_entry`."""
    if name in recipes.NAMES:
        return content_sha256(recipes.sha256(name), CONVERTER, "float32")
    return read_entry(name).sha256()


def models_dir() -> Path:
    """Where the entries are, one folder each."""
    return cache_dir() / "models"


def folder_of(name: str) -> Path:
    """A model's folder, which may not be there. Raises NoteError where the name is no model's name."""
    if not _NAME.fullmatch(name):
        raise NoteError(
            f"`{name}` is no model's name.", f"A name looks like `{SMOLLM2}` or `ORG/NAME@REVISION`.", field="model"
        )
    return models_dir() / name.replace("/", "--")


def read_entry(name: str) -> Entry:
    """The entry of a model. Raises RunError where it is not on this machine or not readable, with the mend."""
    path = folder_of(name) / "entry.json"
    try:
        entry = Entry.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        here = ", ".join(f"`{entry.name}`" for entry in entries()) or "none yet"
        raise RunError(
            f"The model `{name}` is not on this machine.",
            f"Get it with `vaultlab models pull {name}`. On this machine: {here}.",
        ) from None
    except (ValidationError, OSError) as error:
        raise corrupt(name, "its entry cannot be read") from error
    if entry.converter != CONVERTER:
        raise RunError(
            f"The model `{name}` was converted by another version of vaultlab.",
            f"Get it again: `vaultlab models remove {name}`, then `vaultlab models pull {name}`.",
        )
    return entry


def entries() -> list[Entry]:
    """All models on this machine, by name. What cannot be read is left out: `load` says what is wrong with it."""
    found = []
    for path in models_dir().glob("[!.]*/entry.json"):
        try:
            found.append(Entry.model_validate_json(path.read_bytes()))
        except (ValidationError, OSError):
            continue
    return sorted(found, key=lambda entry: entry.name)


def check_files(entry: Entry, folder: Path) -> None:
    """Raises RunError where a file of the entry is missing or not what was written.

    Sizes always, contents only where a file was touched since: hashing a model takes longer than loading it.
    """
    for name, stamp in entry.files.items():
        try:
            stat = (folder / name).stat()
        except OSError as error:
            raise corrupt(entry.name, f"its file `{name}` is missing") from error
        if stat.st_size != stamp.bytes:
            raise corrupt(entry.name, f"its file `{name}` has {stat.st_size} bytes instead of {stamp.bytes}")
        if stat.st_mtime_ns != stamp.mtime_ns and file_sha256(folder / name) != stamp.sha256:
            raise corrupt(entry.name, f"its file `{name}` is not what was written")


def stamps(folder: Path) -> dict[str, Stamp]:
    """Every file of a folder as it is now."""
    return {path.name: _stamp(path) for path in sorted(folder.iterdir()) if path.is_file()}


def corrupt(name: str, why: str) -> RunError:
    """The error for an entry that has gone bad."""
    return RunError(
        f"The model `{name}` is damaged: {why}.",
        f"Get it again: `vaultlab models remove {name}`, then `vaultlab models pull {name}`.",
    )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> Stamp:
    stat = path.stat()
    return Stamp(bytes=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=file_sha256(path))
