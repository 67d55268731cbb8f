"""A page's parts, ready for the template: every string that is not ours is escaped here, every number is set."""

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from vaultlab.notes import digits, escape
from vaultlab.notes.answer import Page, Quoted, Stress
from vaultlab.notes.history import setting
from vaultlab.result import Judgement, Metric, Point, Said

_MARKS = {"supported": "✓", "refuted": "✗", "undecided": "?"}
_CARDS = {"supported": "success", "refuted": "failure", "undecided": "question", None: "note"}
_SUBJECT = re.compile(r"\s*(?:<=|>=|!=|[=<>≤≥≠]|\b(?:between|rises|falls)\b)")
LONG = 30
"""A sweep of more points has its table folded, and only its headline metrics there."""

ROWS = 1000
"""Points in a result note at most: as many as can be looked through, in some 50 KB."""

BEFORE = 80
"""Characters of a quoted text in front of what it is quoted for."""

_TREND = re.compile(r"\b(?:rises|falls)\s+with\b")
_TRENDS = (
    "A metric *rises* where its last value lies above its first and no value below an earlier one, *falls* the other "
    "way about; in each case by more than the 95 % interval of the difference, over the seeds where there are some, "
    "widened for the number of pairs."
)
LISTS = ("figures", "claims", "failed_checks")
"""What the page's own record keeps as lists."""


@dataclass(frozen=True, slots=True)
class Table:
    """`align` has a `---` for each column of words, `---:` for one of numbers."""

    head: tuple[str, ...]
    align: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def context(page: Page, runs: Sequence[str]) -> dict[str, Any]:
    """What templates/result.md.j2 fills in."""
    figures = [
        {
            "name": re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-"),
            "file": quote(shown.file),
            "alt": escape.plain(shown.alt.replace("|", "/")),
        }
        for name, shown in page.figures.items()
    ]
    return {
        "kind": _CARDS[page.verdict],
        "title": escape.plain(page.title or page.id),
        "figure": figures[0] if figures else None,
        "lines": [one for one in (_findings(page), _broken(page), *_under_stress(page.stress), _ran(page)) if one],
        "figures": figures,
        "quotes": [_quoted(one) for one in page.quotes],
        "said": [_said(one) for one in page.said],
        "stress": _stress(page.stress) if page.stress else None,
        "metrics": _table_of(page),
        "points": _points(page.points, headline=True) if len(page.points) > LONG else None,
        "count": len(page.points),
        "checks": _checks(page) if page.checks else None,
        "claims": [_claim(one) for one in page.judgements],
        "trends": _TRENDS if any(_TREND.search(one.claim) for one in page.judgements) else "",
        "record": _record(page),
        "facts": [("experiment", _version(page)), *_facts(page.provenance)],
        "history": list(runs),
    }


def failed(page: Page, anchor: str) -> dict[str, Any]:
    """What templates/error.md.j2 fills in; `anchor` is the callout's block id."""
    assert page.error is not None
    where = f"line {page.error.line} of its block in " if page.error.line and page.error.line > 1 else ""
    return {
        "title": escape.plain(page.title or page.id),
        "message": escape.sentence(page.error.message),
        "hint": escape.sentence(page.error.hint),
        "where": f"{where}{escape.link(page.note)}",
        "anchor": anchor,
    }


def _findings(page: Page) -> str:
    """The claims in a few words each; without claims, the headline numbers."""
    if page.judgements:
        return " · ".join(f"{_finding(one)} {_MARKS[one.verdict]}" for one in page.judgements)
    shown = [metric for metric in page.metrics if metric.headline][:3]
    return " · ".join(f"{escape.plain(one.name)} {digits.value(one.value)}{_unit(one)}" for one in shown)


def _finding(one: Judgement) -> str:
    subject = _subject(one.claim)
    why = digits.retyped(one.why)
    first = subject.partition(" ")[0]
    # `max loss`, decided by `max 0.3`, is not to say it twice.
    return escape.plain(f"{subject} {why.removeprefix(f'{first} ')}")


def _subject(claim: str) -> str:
    return _SUBJECT.split(claim, maxsplit=1)[0].replace(" of ", " ")


def _unit(metric: Metric) -> str:
    return f" {escape.plain(metric.unit)}" if metric.unit else ""


def _broken(page: Page) -> str:
    names = [escape.plain(check.name) for check in page.checks if not check.ok]
    return f"✗ A check failed, so these numbers cannot be relied on: {', '.join(names)}" if names else ""


def _ran(page: Page) -> str:
    """The line of parameters: with no daemon running, the only sign that a picture is old."""
    asked = page.summary or " ".join(f"{name}={setting(value)}" for name, value in page.fields.items())
    device = " ".join(str(page.provenance[name]) for name in ("device", "dtype") if name in page.provenance)
    tests = f"tests {escape.reference(page.tests)}" if page.tests else ""
    said = [escape.plain(asked or page.experiment), escape.plain(device), escape.link(page.note), tests]
    return " · ".join(one for one in said if one)


def _metrics(metrics: Iterable[Metric]) -> Table:
    columns = {
        "metric": [],
        "value": [],
        "unit": [],
        "95 % interval": [],
        "by chance": [],
        "n": [],
    }  # type: dict[str, list[str]]
    for one in metrics:
        columns["metric"].append(escape.plain(one.name))
        columns["value"].append(digits.value(one.value))
        columns["unit"].append(escape.plain(one.unit))
        columns["95 % interval"].append(digits.span(*one.interval) if one.interval else "")
        columns["by chance"].append("" if one.null is None else digits.show(one.null))
        columns["n"].append("" if one.n is None else str(one.n))
    return _table({name: cells for name, cells in columns.items() if any(cells)}, words=("metric", "unit"))


def _table_of(page: Page) -> Table | None:
    """What stands under Metrics: of a long sweep where each metric is lowest and highest, its points being folded."""
    if page.points:
        return _extremes(page.points) if len(page.points) > LONG else _points(page.points)
    return _metrics(page.metrics) if page.metrics else None


def _extremes(points: Sequence[Point]) -> Table:
    rows = []
    for name in dict.fromkeys(metric.name for point in points for metric in point.metrics):
        found = [
            (number, point)
            for point in points
            for metric in point.metrics
            if metric.name == name
            for number in (metric.value if isinstance(metric.value, tuple) else (metric.value,))
            if math.isfinite(number)
        ]
        ends = [pick(found, key=lambda one: one[0]) for pick in (min, max)] if found else []
        cells = [cell for number, point in ends for cell in (digits.show(number), escape.plain(_where(point)))]
        rows.append((escape.plain(name), *(cells or ["no number", "", "", ""])))
    return Table(("metric", "lowest", "at", "highest", "at"), ("---", "---:", "---", "---:", "---"), tuple(rows))


def _where(point: Point) -> str:
    return ", ".join(f"{name} {setting(value)}" for name, value in point.fields.items())


def _points(points: Sequence[Point], *, headline: bool = False) -> Table:
    """A row a point; with `headline`, of its metrics only those."""
    columns: dict[str, list[str]] = {}
    for at, point in enumerate(points[:ROWS]):
        cells = {escape.plain(name): escape.plain(setting(value)) for name, value in point.fields.items()}
        shown = [metric for metric in point.metrics if metric.headline or not headline]
        cells |= {escape.plain(metric.name): digits.value(metric.value) for metric in shown}
        cells["checks"] = "✓" if all(check.ok for check in point.checks) else "✗"
        for name, cell in cells.items():
            columns.setdefault(name, [""] * at).append(cell)
        for column in columns.values():
            column.extend([""] * (at + 1 - len(column)))
    columns["checks"] = columns.pop("checks")
    return _table(columns, words=("checks",))


def _checks(page: Page) -> Table:
    columns: dict[str, list[str]] = {"": [], "check": [], "residual": [], "limit": [], "what it says": []}
    for check in page.checks:
        cells = ("✓" if check.ok else "✗", escape.plain(check.name), digits.show(check.residual))
        for column, cell in zip(
            columns.values(), (*cells, digits.show(check.limit), escape.plain(check.help)), strict=True
        ):
            column.append(cell)
    return _table({name: cells for name, cells in columns.items() if any(cells)}, words=("", "check", "what it says"))


def _table(columns: Mapping[str, Sequence[str]], words: Sequence[str]) -> Table:
    align = tuple("---" if name in words else "---:" for name in columns)
    return Table(tuple(columns), align, tuple(zip(*columns.values(), strict=True)))


def _claim(one: Judgement) -> str:
    said = f"{_MARKS[one.verdict]} {escape.plain(one.claim)}: {one.verdict}, {escape.plain(digits.retyped(one.why))}"
    return f"{said} ({escape.plain(one.note)})" if one.note else said


def _quoted(one: Quoted) -> str:
    """A place of a text: what it is shown for in bold, with a link to the note in which it stands."""
    quote = one.quote
    before = escape.line(quote.before)
    before = escape.plain(f"…{before[-BEFORE:]}" if len(before) > BEFORE else before)
    token, after = escape.plain(quote.token) or "⟨⟩", escape.plain(quote.after)
    where = escape.link(one.note) if one.note else escape.plain(one.source)
    words = " ".join(part for part in (before, f"**{token}**", f"→ {after}" if after else "") if part)
    said = f"{escape.plain(quote.said)}: " if quote.said else ""
    return f"{said}{words} · {where}" if where else f"{said}{words}"


def _said(one: Said) -> dict[str, Any]:
    """What a model wrote, its own words in bold behind what they follow. None of it is read as Markdown."""
    lines = [f"{escape.plain(before)} **{escape.plain(after) or '⟨⟩'}**".strip() for before, after in one.lines]
    return {"title": escape.plain(one.title), "lines": lines}


def _under_stress(stress: Stress | None) -> Iterable[str]:
    """The card's lines: how often the claims hold, where they break, and which of them say nothing."""
    if stress is None:
        return
    broken = [one for one in stress.claims if one.held < stress.runs]
    said = [
        f"{_subject(one.claim)} holds in {one.held} of {stress.runs} variations, breaks {one.where}" for one in broken
    ]
    if sure := len(stress.claims) - len(broken):
        others = f"{sure} other{'s' * (sure > 1)}" if broken else "all claims" if sure > 1 else "the claim"
        said.append(f"{others} hold{'s' * (sure == 1)} in all {stress.runs}")
    yield "Under stress: " + " · ".join(map(escape.plain, said))
    if stress.empty:
        yield f"✗ {_says_nothing(stress)}: {escape.plain(', '.join(_subject(one.claim) for one in stress.empty))}"


def _says_nothing(stress: Stress) -> str:
    return escape.plain(f"also holds for {stress.nonsense}, so it says nothing about {stress.about}")


def _stress(stress: Stress) -> dict[str, Any]:
    """What the section of its own shows."""
    control = f"holds for {stress.nonsense}" if stress.controls else ""
    columns: dict[str, list[str]] = {"claim": [], "holds": [], "undecided": [], "breaks": [], escape.plain(control): []}
    for one in stress.claims:
        where = f"{one.where} ({one.counts})" if one.counts else one.where
        cells = (one.claim, f"{one.held} of {stress.runs}", f"{one.undecided or ''}", where)
        for column, cell in zip(columns.values(), (*cells, f"{one.nonsense} of {stress.controls}"), strict=True):
            column.append(escape.plain(cell))
    words = ("claim", "breaks")
    return {
        "varied": escape.plain(f"{stress.runs} variations: {stress.varied}."),
        "table": _table({name: cells for name, cells in columns.items() if name and any(cells)}, words),
        "empty": [f"{escape.plain(one.claim)}: {_says_nothing(stress)}" for one in stress.empty],
    }


def _version(page: Page) -> str:
    version = page.provenance.get("version")
    return escape.plain(f"{page.experiment}, version {version}" if version else page.experiment)


def _facts(provenance: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """What was read, with its hash; the single facts stand in the record."""
    for name, value in provenance.items():
        if isinstance(value, Mapping):
            for inner, what in value.items():
                yield f"{_words(name)}: {escape.plain(str(inner))}", escape.plain(_fact(what))


def _words(name: str) -> str:
    return escape.plain(name.replace("_", " "))


def _fact(value: Any) -> str:
    # Not cut to four digits: versions and seeds are no measurements.
    if isinstance(value, Mapping) and "sha256" in value:
        parts = {name: it for name, it in value.items() if name != "sha256"}
        said = " ".join(it if isinstance(it, str) else f"{name} {it}" for name, it in parts.items())
        return f"{said or 'as written'} (sha256 {str(value['sha256'])[:12]})"
    return setting(value) if isinstance(value, float | bool | Mapping | list | tuple) else escape.line(str(value))


def _record(page: Page) -> str:
    """What the page keeps, as YAML that reads well: fields, hashes, what it ran on, figures, claims with verdicts."""
    texts = page.provenance.get("texts")
    hashes = {name: one["sha256"] for name, one in texts.items()} if isinstance(texts, Mapping) else {}
    version = page.provenance.get("version")
    lines = [f"version: {version}"] if isinstance(version, int) else []
    ran = {name: it for name, it in page.provenance.items() if name != "version" and isinstance(it, str | int | float)}
    for name, said in (("fields", page.fields), ("texts", hashes), ("ran", ran)):
        lines += [f"{name}:"] * bool(said) + [f"  {_json(key)}: {_json(value)}" for key, value in said.items()]
    lists = {
        "figures": [shown.file for shown in page.figures.values()],
        "claims": [f"{one.claim}: {one.verdict}" for one in page.judgements],
        "failed_checks": [check.name for check in page.checks if not check.ok],
    }
    for name in LISTS:
        lines += [f"{name}:"] * bool(lists[name]) + [f"  - {_json(item)}" for item in lists[name]]
    if page.stress:
        lines.append(f"stress: {_json(asdict(page.stress))}")
    return "\n".join(lines)


def _json(value: Any) -> str:
    """JSON, which is YAML too: a name as it is, and any character that YAML cannot hold as its number."""
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z_]+", value) and value not in ("true", "false", "null"):
        return value
    dumped = json.dumps(value, ensure_ascii=False, default=list)
    return "".join(f"\\u{ord(one):04x}" if unicodedata.category(one) in _UNSAFE else one for one in dumped)


_UNSAFE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
