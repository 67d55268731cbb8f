"""What a result note says, as data: a Page to be written, and what is Stored in one that stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vaultlab.result import Check, Judgement, Metric, Point, Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure as the page shows it: its file, relative to the page (`figures/pentagon.weights.svg`), and its words."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class PageError:
    """Why the last run gave nothing; `line` is the line of the block, whose fence is line 1."""

    message: str
    hint: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """All that a result note says. `note` is the author's note, its path in the vault without `.md`.

    `figures`: the card's own first. `fields`: what ran, after the cascade. `provenance` may hold `version` (the
    experiment's) and `texts` (field → {name, sha256}). `tests`: the wikilink to the claim that the block tests. With an
    `error` the last good result on the page stays.
    """

    id: str
    title: str
    experiment: str
    note: str
    ask: str
    tests: str = ""
    key: str = ""
    card: str = ""
    model: str = ""
    status: Literal["done", "failed"] = "done"
    verdict: Verdict | None = None
    accepted: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    metrics: tuple[Metric, ...] = ()
    checks: tuple[Check, ...] = ()
    judgements: tuple[Judgement, ...] = ()
    figures: Mapping[str, Shown] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    error: PageError | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a result note that we wrote says of itself. `note` is a path without `.md`.

    Of its last good result: `fields` (what it was run with), `version` (the experiment's), `texts` (field → hash),
    `ran` (versions, device), `figures` (files), `claims` (claim → verdict), `failed_checks`, and `metrics`, the
    headline ones.
    """

    title: str
    experiment: str
    status: str
    verdict: str | None
    note: str
    model: str
    ask: str
    key: str
    card: str
    page: str
    accepted: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    version: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)
    ran: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[str, ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)
    failed_checks: tuple[str, ...] = ()
