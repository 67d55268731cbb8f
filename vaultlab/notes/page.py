"""A result as a note: an answer's numbers, figures and verdicts → Markdown, through templates/result.md.j2."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vaultlab.result import Check, Judgement, Metric, Point, Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure as the page shows it: its file, relative to the page (`figures/pentagon.weights.svg`), and its words."""

    file: str
    alt: str


@dataclass(frozen=True, slots=True)
class PageError:
    """Why the last run gave nothing; `line` is the line of the author's note."""

    message: str
    hint: str = ""
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """All that a result note says. `note` is the author's note, its path in the vault without `.md`.

    `figures`: the card's own first. `fields`: what ran, after the cascade. With an `error` and without `figures` and
    metrics, the last good result on the page stays.
    """

    id: str
    title: str
    experiment: str
    note: str
    ask: str
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
    """What a result note that we wrote says of itself: its `lab_*` properties and the fields that it was run with."""

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
    fields: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def write(page: Page, previous: str | None, templates: Path | None = None) -> str:
    """The result note's text; `previous` is the text that stands there now, for its history and others' properties.

    `templates`: the owner's folder of overrides. The same page over the same previous text gives the same bytes.
    """
    raise NotImplementedError


def read(text: str) -> Stored | None:
    """What a result note says of itself; None where the file is not ours (it has no `lab_ask`)."""
    raise NotImplementedError


def touched(text: str) -> bool:
    """Whether somebody changed the body, in more than white space, since we wrote it."""
    raise NotImplementedError
