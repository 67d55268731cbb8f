"""What a result note says, as data: a Page to be written, and what is Stored in one that stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vaultlab.result import Check, Judgement, Metric, Point, Quote, Said, Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure as the page shows it: its file, relative to the page (`figures/pentagon.weights.svg`), and its words."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class Quoted:
    """A place of a text that the figures show, and where it stands: in a note (its path without `.md`), or in what is
    called `source` there; both empty: in the block itself."""

    quote: Quote
    note: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class PageError:
    """Why the last run gave nothing; `line` is the line of the block, whose fence is line 1."""

    message: str
    hint: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Endured:
    """A claim under stress: in how many variations it held or stayed undecided, where it breaks in words and how often
    there, and in how many of the controls it held too."""

    claim: str
    held: int
    undecided: int
    where: str
    counts: str
    nonsense: int


@dataclass(frozen=True, slots=True)
class Stress:
    """What became of a block's claims in `runs` variations. `varied`: over what, in words; `nonsense`: what the control
    is, of `controls` runs, and `about` what a claim says nothing if it holds for that too. `ask`: of which ask it is.
    """

    ask: str
    runs: int
    varied: str
    claims: tuple[Endured, ...]
    nonsense: str = ""
    about: str = ""
    controls: int = 0

    @property
    def empty(self) -> tuple[Endured, ...]:
        """The claims that hold for nonsense too, more often than not."""
        return tuple(one for one in self.claims if 2 * one.nonsense > self.controls)


@dataclass(frozen=True, slots=True)
class Page:
    """All that a result note says. `note` is the author's note, its path in the vault without `.md`.

    `figures`: the card's own first. `fields`: what ran, after the cascade. `provenance` may hold `version` (the
    experiment's) and `texts` (field → {name, sha256}). `tests`: the wikilink to the claim that the block tests. With an
    `error` the last good result on the page stays. Without `stress`, what the page says of this very ask stays.
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
    stress: Stress | None = None
    quotes: tuple[Quoted, ...] = ()
    said: tuple[Said, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """What a result note that we wrote says of itself. `note` is a path without `.md`.

    Of its last good result: `fields` (what it was run with), `version` (the experiment's), `texts` (field → hash),
    `ran` (versions, device), `figures` (files), `claims` (claim → verdict), `failed_checks`, and `metrics`, the
    headline ones. `stress`: the fields of its Stress, if it was stressed.
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
    stress: Mapping[str, Any] = field(default_factory=dict)
