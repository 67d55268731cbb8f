"""What crosses between scribe and worker, as plain data: an Ask one way; Progress, then an Answer the other.

Answers are told apart by which fields they have; the protocol names them beside (`worker/__main__.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, cast

from pydantic import ConfigDict, TypeAdapter

Value = float | tuple[float, ...]
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Text:
    """A text that an Ask reads, by content. `parts` are (source, text), such as (a note's path, its text)."""

    name: str
    sha256: str
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Default:
    """A field's value that the block did not write: `origin` says where it came from, for error messages."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take; set by the owner of the machine, never by a note or a vault."""

    time_s: float = 3600.0
    memory_bytes: int = 0
    points: int = 200


@dataclass(frozen=True, slots=True)
class Ask:
    """One block's question. `points` are the fields of a sweep's points, each laid over `fields`; empty: one run.

    `version` is that of the experiment as the asker knows it; 0: whatever it is.
    `figures`: whether a sweep's answer is to have any.
    `given` are Asks whose results this one builds on, by the field that names them.
    `beside` are Asks that wait and read the same text, known by its hash alone: what they want of it is read with this
    one, where that is possible. It changes no answer.
    """

    id: str
    experiment: str
    fields: Mapping[str, Any]
    defaults: tuple[Default, ...] = ()
    texts: Mapping[str, Text] = field(default_factory=dict)
    points: tuple[Mapping[str, Any], ...] = ()
    device: str | None = None
    limits: Limits = Limits()
    force: bool = False
    version: int = 0
    figures: bool = True
    given: Mapping[str, "Ask"] = field(default_factory=dict)
    beside: tuple["Ask", ...] = ()


def without_texts(ask: Ask) -> Ask:
    """The same, its texts known by their hashes alone: enough to tell which results it means."""
    given = {name: without_texts(one) for name, one in ask.given.items()}
    return replace(ask, texts={name: replace(text, parts=()) for name, text in ask.texts.items()}, given=given)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `phase` is in plain words ("training", "loading smollm2-135m")."""

    id: str
    phase: str
    done: int
    total: int
    eta_s: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured number, or a vector of them.

    `interval` is a 95 % bootstrap interval where runs repeat; `null` what chance alone gives; `n` how many words,
    prompts or seeds stand behind it; `seeds` its value in every seed, where there are seeds.
    """

    name: str
    value: Value
    unit: str = ""
    interval: tuple[float, float] | None = None
    null: float | None = None
    n: int | None = None
    seeds: tuple[Value, ...] | None = None
    headline: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """An identity, checked on this very run: its residual and the limit that it must not pass."""

    name: str
    residual: float
    limit: float
    help: str = ""

    @property
    def ok(self) -> bool:
        return self.residual <= self.limit  # a NaN fails


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure: its file's bytes, `svg` or `png`, and what it shows in words."""

    kind: Literal["svg", "png"]
    content: bytes
    alt: str


@dataclass(frozen=True, slots=True)
class Quote:
    """A place of a text that a result shows: part number `part` of the text in the field `text`. `token` is what it is
    shown for, `said` why in a few words ("key 1211, 28.9 × the mean")."""

    text: str
    part: int
    before: str
    token: str
    after: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model wrote under one `title` ("strength 2"): each `lines` a prompt and how it went on."""

    title: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a sweep: the swept fields' values, and what came out there."""

    fields: Mapping[str, Any]
    key: str
    cached: bool
    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What an experiment found. A sweep's `points` carry the numbers; its own metrics are empty."""

    id: str
    key: str
    cached: bool
    metrics: tuple[Metric, ...]
    checks: tuple[Check, ...]
    figures: Mapping[str, Figure]
    summary: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    quotes: tuple[Quote, ...] = ()
    said: tuple[Said, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether every check held, those of a sweep's points included."""
        return all(check.ok for checks in (self.checks, *(one.checks for one in self.points)) for check in checks)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The block cannot be run as written. `origin` is set where the value came from a default, not from the block."""

    id: str
    message: str
    hint: str = ""
    field: str | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The run broke. A deterministic failure would break again; an environmental one (memory, time, a kill) may not."""

    id: str
    kind: Literal["deterministic", "environment", "cancelled"]
    message: str
    hint: str = ""


Answer = Result | Refusal | Failure

Verdict = Literal["supported", "refuted", "undecided"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim with its verdict, and in a few words the numbers that decided; `note` points out an empty claim."""

    claim: str
    verdict: Verdict
    why: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would be, found out without running it: the key of its Result, and what stands in the way.

    `keys` are those of its runs (a sweep's: one per point), `stored` says which of them need no computing.
    """

    id: str
    key: str = ""
    keys: tuple[str, ...] = ()
    stored: tuple[bool, ...] = ()
    problems: tuple[Refusal, ...] = ()
    summary: str = ""
    needs_bytes: int | None = None
    needs_s: float | None = None


_Crossing = Ask | Plan | Progress | Answer


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
    # in a tuple, for pydantic takes the configuration of a dataclass from what is around it
    return TypeAdapter(tuple[kind], config=config)


def encode(what: _Crossing) -> dict[str, Any]:
    """To plain JSON types: bytes as base64, numbers that are not finite as the strings NaN, Infinity, -Infinity."""
    # by way of the text: straight to Python types, pydantic would leave a NaN as it is
    return cast(dict[str, Any], json.loads(_adapter(cast(Any, type(what))).dump_json((what,)))[0])


def decode(kind: Any, fields: Mapping[str, Any]) -> Any:
    """The inverse of `encode`; ValueError where the fields are not of that kind."""
    return _adapter(kind).validate_python((fields,))[0]
