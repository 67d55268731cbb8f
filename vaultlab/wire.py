"""What we know, in the shapes in which it crosses to a plugin."""

import base64
import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast, get_args

from pydantic import TypeAdapter, ValidationError

from vaultlab.catalogue import Entry
from vaultlab.notes import note
from vaultlab.notes.page import Stored
from vaultlab.protocol import Artifact, Example, Experiment, Last, NotePath, Problem
from vaultlab.result import Verdict

_FIGURE = re.compile(r"figures/(?P<id>[a-z0-9-]+)\.(?P<name>[a-z0-9][a-z0-9_-]*)\.(?P<kind>svg|png)")
_PATH: TypeAdapter[str] = TypeAdapter(NotePath)


def path(vault_path: str) -> str | None:
    """A note's path as the plugin knows it; None for one that Obsidian cannot have."""
    try:
        return _PATH.validate_python(unicodedata.normalize("NFC", vault_path))
    except ValidationError:
        return None


def sha256(text: str) -> str:
    """A text's hash, as the plugin reckons it."""
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """As JSON has it: numbers that are not finite are words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def experiment(entry: Entry) -> Experiment:
    """An entry of the catalogue."""
    return Experiment(
        version=entry.version,
        title=entry.title,
        page=entry.page,
        fields=plain(entry.schema),
        metrics=tuple(map(plain, entry.metrics)),
        examples=tuple(map(_example, entry.examples)),
        interactive=entry.interactive,
    )


def _example(found: Mapping[str, Any]) -> Example:
    """An example as a form would have it; a text that it comes with is one of its fields."""
    fields = {**found.get("texts", {}), **found["fields"]}
    return Example(title=found["title"], fields=plain(fields), expect=tuple(found["expect"]))


def problem(found: note.Problem) -> Problem:
    """What is wrong with a note or a block."""
    return Problem(message=found.message, hint=found.hint, line=found.line, field=found.field)


def last(id: str, stored: Stored, folder: str) -> Last:
    """What the result note of a block says; whatever is not as we write it is left out."""
    verdicts = get_args(Verdict)
    return Last(
        note=f"{folder}/{id}.md",
        status="failed" if stored.status == "failed" else "done",
        key=stored.key,
        verdict=cast(Verdict, stored.verdict) if stored.verdict in verdicts else None,
        claims={claim: cast(Verdict, verdict) for claim, verdict in stored.claims.items() if verdict in verdicts},
        headline=plain(stored.metrics),
        figures={name: f"{folder}/{file}" for name, _, file in figures(id, stored)},
    )


def figures(id: str, stored: Stored) -> Iterator[tuple[str, Literal["svg", "png"], str]]:
    """Name, kind and file (within the results folder) of this block's figures, and of no other file."""
    for file in stored.figures:
        found = _FIGURE.fullmatch(file)
        if found and found["id"] == id:
            yield found["name"], cast(Literal["svg", "png"], found["kind"]), file


def figure(kind: Literal["svg", "png", "json"], content: bytes, page: str = "", file: str = "") -> Artifact:
    """A file as it crosses; what it shows in words, its result note says."""
    found = re.search(rf"!\[((?:\\.|[^\]\\])*)\]\({re.escape(file)}\)", page) if file else None
    alt = re.sub(r"\\(.)", r"\1", found[1]) if found else ""
    return Artifact(kind=kind, content=base64.b64encode(content).decode(), alt=alt)
