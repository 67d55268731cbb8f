"""What the experiments are, without importing one.

The worker's `describe`, kept in the user's cache until the code of an experiment changes.
"""

import difflib
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.scalarstring import LiteralScalarString

from vaultlab import places

_PACKAGE = Path(__file__).parent
_CODE = ("experiments", "models", "experiment.py")


@dataclass(frozen=True)
class Entry:
    """One experiment. `schema` is its Spec's JSON schema; metrics, examples and nonsense are as Quantity, Example and
    Nonsense say; `interactive`: whether its results carry what an interactive figure is drawn from."""

    name: str
    version: int
    page: str
    schema: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, str]
    examples: tuple[Mapping[str, Any], ...]
    nonsense: Mapping[str, Any] | None = None
    interactive: bool = False

    @property
    def title(self) -> str:
        """The first line of the manual page."""
        return self.page.strip().splitlines()[0]

    @cached_property
    def fields(self) -> Mapping[str, Mapping[str, Any]]:
        """Name → its JSON schema, in the Spec's order, with whatever it refers to or may be put in."""
        shared = self.schema.get("$defs", {})
        return {name: _resolved(entry, shared) for name, entry in self.schema.get("properties", {}).items()}

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        return {name: entry.get("default") for name, entry in self.schema.get("properties", {}).items()}

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The fields of this kind: `model`, `text`, `list`, `result` or `head`."""
        return self._of_kinds.get(kind, ())

    @cached_property
    def _of_kinds(self) -> Mapping[str, tuple[str, ...]]:
        kinds = {name: _kinds(entry) for name, entry in self.fields.items()}
        every = set().union(*kinds.values())
        return {kind: tuple(name for name, its in kinds.items() if kind in its) for kind in every}

    @property
    def stress(self) -> dict[str, list[Any]]:
        """The fields that a stress varies: of a number [low, high], of anything else the values to try."""
        return {name: schema["stress"] for name, schema in self.fields.items() if "stress" in schema}

    def metric(self, name: str) -> Mapping[str, Any] | None:
        """The metric of this name: name, help, unit, range, headline, forced."""
        return next((metric for metric in self.metrics if metric["name"] == name), None)


@dataclass(frozen=True)
class Catalogue:
    """Name → entry, for every experiment; `broken` says of the others what is wrong with their file."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> Entry:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def nearest(self, name: str) -> str | None:
        """The experiment whose name is most like this one, or None."""
        return nearest(name, self.entries)


def load(describe: Callable[[], Mapping[str, Any]]) -> Catalogue:
    """The catalogue of this very code; `describe` is called only when the kept one is of other code."""
    path, stamp = places.cache_dir() / "catalogue.json", _stamp()
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_bytes())
        if kept["stamp"] == stamp:
            return _catalogue(kept["described"])
    described = dict(describe())
    catalogue = _catalogue(described)
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        beside.write_text(json.dumps({"stamp": stamp, "described": described}), encoding="utf-8")
        beside.replace(path)
    return catalogue


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that was probably meant, or None."""
    by_lower = {other.lower().replace("-", "_"): other for other in names}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def spread(entry: Entry, name: str) -> str:
    """What a stress varies a field over, in words."""
    values = entry.stress[name]
    if is_number(entry.fields[name]):
        return f"from {values[0]:g} to {values[1]:g}"
    return "over " + ", ".join("none" if value is None else str(value).lower() for value in values)


def is_number(schema: Mapping[str, Any]) -> bool:
    """Whether a field takes a number, and no word and no list."""
    return any(arm.get("type") in ("integer", "number") for arm in _arms(schema))


def is_whole(schema: Mapping[str, Any]) -> bool:
    """Whether the number that a field takes is a whole one."""
    return any(arm.get("type") == "integer" for arm in _arms(schema))


def wanted(schema: Mapping[str, Any]) -> str:
    """What a field takes, from its JSON schema, in words: `a whole number from 1 to 64`."""
    arms = _arms(schema)
    words = [_wanted(arm) for arm in arms if arm.get("type") != "null"]
    none = ["none"] if len(words) < len(arms) else []
    return " or ".join(words + none)


def example_block(entry: Entry, example: str) -> str:
    """The fenced block of an example, ready to paste; KeyError if there is no such example."""
    chosen = {each["id"]: each for each in entry.examples}[example]
    block: dict[str, Any] = {entry.name: chosen["id"], "title": chosen["title"], **chosen["fields"]}
    block |= {name: text for name, text in chosen.get("texts", {}).items() if name not in chosen["fields"]}
    if chosen["expect"]:
        block["expect"] = list(chosen["expect"])
    return fenced(block)


def fenced(block: Mapping[str, Any]) -> str:
    """A mapping as a block to paste, in a fence longer than any run of backticks within."""
    yaml = YAML()
    yaml.allow_unicode, yaml.width = True, 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump({name: _written(name, value) for name, value in block.items()}, stream)
    text = stream.getvalue()
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}vaultlab\n{text}{fence}\n"


def lab_ask(
    experiment: str,
    version: int,
    fields: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]] = (),
    models: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
) -> str:
    """The hash of what a block asks, in whatever order: `models` and `texts` are name or field → content hash."""
    asked = {
        "experiment": experiment,
        "version": version,
        "fields": fields,
        "points": sorted(map(canonical, points)),
        "models": models or {},
        "texts": texts or {},
    }
    return hashlib.sha256(canonical(asked).encode()).hexdigest()


def canonical(what: Any) -> str:
    """Plain data as the one JSON text that equal data has, in whatever order its keys came."""
    return json.dumps(what, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _stamp() -> list[list[Any]]:
    """Name, size and time of every file that says what an experiment is."""
    found = []
    for part in _CODE:
        paths = [_PACKAGE / part] if part.endswith(".py") else sorted((_PACKAGE / part).rglob("*.py"))
        for path in paths:
            stat = os.stat(path)
            found.append([path.relative_to(_PACKAGE).as_posix(), stat.st_size, stat.st_mtime_ns])
    return [[str(_PACKAGE)], *found]


def _catalogue(described: Mapping[str, Any]) -> Catalogue:
    entries = described["experiments"].items()
    return Catalogue({name: _entry(entry) for name, entry in entries}, described.get("broken", {}))


def _entry(entry: Mapping[str, Any]) -> Entry:
    said = {part.name: entry[part.name] for part in fields(Entry)}  # one that is not there is another program's
    return Entry(**{**said, "metrics": tuple(entry["metrics"]), "examples": tuple(entry["examples"])})


def _resolved(schema: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    merged = {**(shared[reference.rsplit("/", 1)[1]] if reference else {}), **schema}
    for nest in ("anyOf", "prefixItems"):
        if nest in merged:
            merged[nest] = [_resolved(arm, shared) for arm in merged[nest]]
    if isinstance(merged.get("items"), Mapping):
        merged["items"] = _resolved(merged["items"], shared)
    return merged


def _arms(schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    # a list is written out or named: to an author one thing
    return (schema,) if schema.get("kind") == "list" else tuple(schema.get("anyOf", (schema,)))


def _kinds(schema: Mapping[str, Any]) -> set[Any]:
    return {part.get("kind") for part in (schema, *_arms(schema))}


def _wanted(arm: Mapping[str, Any]) -> str:
    if "enum" in arm:
        return "one of " + ", ".join(map(str, arm["enum"]))
    if "const" in arm:
        return str(arm["const"])
    kind = arm.get("type")
    if kind == "array":
        return "a list" + (f", each {_wanted(arm['items'])}" if isinstance(arm.get("items"), Mapping) else "")
    special = {
        "model": "the name of a model",
        "text": "a text",
        "list": 'a list, such as [one, two], or where it stands, such as "[[Note#Heading]]"',
        "head": "a head, such as L17H10",
        "result": 'the result of another block, such as "[[vaultlab/its-id]]"',
    }
    plain = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a word or text"}
    words = special.get(arm.get("kind", ""), plain.get(str(kind), "a value"))
    return words + _bounds(arm)


def _bounds(arm: Mapping[str, Any]) -> str:
    # behind a validator of its own, a type's bounds are called `ge` and `le`, beside those of the field
    low = max((arm[name] for name in ("minimum", "ge") if name in arm), default=None)
    high = min((arm[name] for name in ("maximum", "le") if name in arm), default=None)
    above, below = arm.get("exclusiveMinimum"), arm.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    words = [
        f" {word} {bound}"
        for word, bound in (("from", low), ("above", above), ("up to", high), ("below", below))
        if bound is not None
    ]
    return " and".join(words)


def _written(name: str, value: Any) -> Any:
    """As an author would write it: lists in one line but for the claims, a text of several lines under a `|`."""
    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    if not isinstance(value, list | tuple):
        return value
    listed = CommentedSeq(value)
    if name != "expect":
        listed.fa.set_flow_style()
    return listed
