"""`represented = 5 in 90% of seeds` → a verdict. Pure.

    [every|any|max|min|mean [of]] metric = != < <= > >= value [+- tolerance] [in P% of seeds]
    [every|any|max|min|mean [of]] metric between a and b [in P% of seeds]
    [max|min|mean [of]] metric rises|falls with field

Values may be percentages. A bare `=` means the digits written: `= 0.40` is 0.395 to 0.405, `= 5` is 4.5 to 5.5, which
for a count is 5 and nothing else. Over a sweep an aggregate is over all points too, and a claim without one must hold
at every point; `rises` means never lower at the next value of the field, and higher at the last than at the first.
A metric that is one number is judged by its interval, where it has one; a vector by its numbers.
"""

import difflib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NoReturn, cast

from vaultlab.errors import NoteError
from vaultlab.result import Judgement, Metric, Point, Result, Value, Verdict

Known = Mapping[str, Mapping[str, str]]
"""The metrics of an experiment: name → the aggregates that an identity forces, with why (mostly empty)."""

Aggregate = Literal["every", "any", "max", "min", "mean"]
Span = tuple[float, float]

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?:\s*%)?"
_CLAIM = re.compile(
    rf"""(?:(?P<aggregate>every|any|max|min|mean)\s+(?:of\s+)?)?
    (?P<metric>[A-Za-z_][\w.]*)
    (?: \s+(?P<trend>rises|falls)\s+with\s+(?P<field>[A-Za-z_][\w-]*)
      | (?: \s+between\s+(?P<low>{_NUMBER})\s+and\s+(?P<high>{_NUMBER})
          | \s*(?P<op><=|>=|!=|=|<|>)\s*(?P<value>{_NUMBER})(?:\s*\+-\s*(?P<tolerance>{_NUMBER}))? )
        (?:\s+in\s+(?P<share>{_NUMBER})\s+of\s+seeds)?
    )""",
    re.VERBOSE,
)
_FORM = (
    "A claim reads like `loss < 0.01`, `every norm = 0.40 +- 0.02`, "
    "`max of loss between 0 and 1 in 90% of seeds`, or `loss falls with hidden`."
)
_SIGNS = {"−": "-", "±": "+-", "+/-": "+-", "≤": "<=", "≥": ">=", "≠": "!="}
_WORDS = ("every", "any", "max", "min", "mean", "between", "and", "rises", "falls", "with", "seeds", "of", "in")
_MEANT = {
    **dict.fromkeys(("==", "is", "equals", "equal", "are", ":"), "="),
    **dict.fromkeys(("below", "under", "less", "smaller"), "<"),
    **dict.fromkeys(("above", "over", "more", "greater", "larger", "exceeds"), ">"),
    **dict.fromkeys(("<>", "not", "isn't"), "!="),
    **dict.fromkeys(("increases", "grows", "rise", "up"), "rises"),
    **dict.fromkeys(("decreases", "shrinks", "fall", "drops", "down"), "falls"),
    **dict.fromkeys(("all", "each"), "every"),
    **dict.fromkeys(("some", "one"), "any"),
    **dict.fromkeys(("average", "avg", "median"), "mean"),
    **dict.fromkeys(("maximum", "largest", "highest"), "max"),
    **dict.fromkeys(("minimum", "smallest", "lowest"), "min"),
    **dict.fromkeys(("about", "around", "≈", "~"), "= … +- …"),
    **dict.fromkeys(("=<", "at most"), "<="),
    **dict.fromkeys(("=>", "at least"), ">="),
}
_RANK: dict[Verdict, int] = {"refuted": 0, "undecided": 1, "supported": 2}


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, both among them; `outside`: all the others."""

    low: float
    high: float
    outside: bool = False

    def verdict(self, span: Span) -> Verdict:
        """Supported if all of the span is in, refuted if nothing of it is, else undecided."""
        within = self.low <= span[0] and span[1] <= self.high
        apart = span[1] < self.low or span[0] > self.high
        if self.outside:
            within, apart = apart, within
        return "supported" if within else "refuted" if apart else "undecided"


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of `expect:`, its white space made single. Either `range` is set, or `trend` and `field` are.

    `share` is the P of `in P% of seeds`; `rounded` says that a whole number was written behind a bare `=` or `!=`.
    """

    text: str
    metric: str
    aggregate: Aggregate | None = None
    range: Range | None = None
    share: Fraction | None = None
    trend: Literal["rises", "falls"] | None = None
    field: str = ""
    rounded: bool = False


def parse(sentence: str) -> Claim:
    """A sentence → a Claim. NoteError names the nearest right word and the form."""
    text = " ".join(sentence.split())
    plain = text
    for sign, ascii_sign in _SIGNS.items():
        plain = plain.replace(sign, ascii_sign)
    match = _CLAIM.fullmatch(plain)
    if match is None:
        raise NoteError(f"The claim `{text}` could not be read.", f"{_nearest_word(text)}{_FORM}", field="expect")
    said = match.groupdict()
    aggregate = cast(Aggregate | None, said["aggregate"])
    claim = Claim(text, said["metric"], aggregate, share=_share(text, said["share"]))
    if said["trend"]:
        if aggregate in ("every", "any"):
            _wrong(text, f"`{aggregate}` does not go with `{said['trend']}`.", "Use max of, min of or mean of.")
        return replace(claim, trend=cast(Literal["rises", "falls"], said["trend"]), field=said["field"])
    if said["low"]:
        low, high = _numbers(text, said["low"], said["high"])
        if low > high:
            _wrong(text, "the first number is the larger one.", f"Write `between {said['high']} and {said['low']}`.")
        return replace(claim, range=Range(float(low), float(high)))
    written = said["value"].replace(" ", "")
    bare = said["op"] in ("=", "!=") and said["tolerance"] is None
    rounded = bare and not written.endswith("%") and "." not in written and "e" not in written.lower()
    return replace(claim, range=_range(text, said["op"], written, said["tolerance"]), rounded=rounded)


def _range(text: str, op: str, written: str, tolerance: str | None) -> Range:
    if tolerance is not None:
        if op not in ("=", "!="):
            _wrong(text, f"`+-` does not go with `{op}`.", "Use it with `=`, or leave it out.")
        value, give = _numbers(text, written, tolerance)
        if give < 0:
            _wrong(text, "a tolerance is not negative.", f"Write `+- {tolerance.lstrip('-')}`.")
    else:
        value = _number(written)
        give = Decimal((0, (5,), cast(int, value.as_tuple().exponent) - 1))
    match op:
        case "=" | "!=":
            # Decimal, so that 0.40 ends at the float that is written 0.405, not at the one beside it.
            return Range(float(value - give), float(value + give), outside=op == "!=")
        case "<=":
            return Range(-math.inf, float(value))
        case "<":
            return Range(-math.inf, math.nextafter(float(value), -math.inf))
        case ">=":
            return Range(float(value), math.inf)
        case _:
            return Range(math.nextafter(float(value), math.inf), math.inf)


def _number(written: str) -> Decimal:
    percent = written.endswith("%")
    return Decimal(written.rstrip("% ")).scaleb(-2 if percent else 0)


def _numbers(text: str, one: str, other: str) -> tuple[Decimal, Decimal]:
    if one.endswith("%") != other.endswith("%"):
        _wrong(text, f"{one} and {other} are not written alike.", "Write both with % or both without.")
    return _number(one), _number(other)


def _share(text: str, written: str | None) -> Fraction | None:
    if written is None:
        return None
    share = Fraction(_number(written))
    if not written.endswith("%") or not 0 < share <= 1:
        _wrong(text, f"{written} is no share of the seeds.", "Write it as `in 90% of seeds`, above 0% and up to 100%.")
    return share


def _nearest_word(text: str) -> str:
    for word in re.findall(r"[^\W\d]+(?:'\w+)?|[<>=!~≈:]+", text):
        meant = _MEANT.get(word.lower())
        if meant is None and word not in _WORDS:
            meant = next(iter(difflib.get_close_matches(word.lower(), _WORDS, 1, 0.75)), None)
        if meant is not None:
            return f"Did you mean `{meant}` where it says `{word}`? "
    return ""


def _wrong(text: str, what: str, mend: str) -> NoReturn:
    raise NoteError(f"In the claim `{text}`, {what}", mend, field="expect")


def check(claim: Claim, known: Known) -> None:
    """NoteError where the claim names a metric that the experiment has not. Works before anything has run."""
    if claim.metric in known:
        return
    near = difflib.get_close_matches(claim.metric.lower(), known, 1, 0.5)
    listed = f"The metrics are {', '.join(sorted(known))}."
    mend = f"Did you mean `{near[0]}`? {listed}" if near else listed
    _wrong(claim.text, f"there is no metric called `{claim.metric}`.", mend)


def judge(claim: Claim, result: Result, known: Known) -> Judgement:
    """The verdict on a claim. NoteError where it cannot be said of this result (a bare vector, seeds without seeds)."""
    check(claim, known)
    runs: Sequence[Result | Point] = result.points or (result,)
    metrics = [next((m for m in run.metrics if m.name == claim.metric and m.value != ()), None) for run in runs]
    found = [metric for metric in metrics if metric is not None]
    for metric in found:
        if isinstance(metric.value, tuple) and claim.aggregate is None:
            _wrong(
                claim.text,
                f"`{claim.metric}` is {len(metric.value)} numbers, not one.",
                f"Say of which: `every {claim.text}`; or any, max of, min of, mean of.",
            )
    if claim.trend is not None and not result.points:
        mend = f"Add `sweep: {{{claim.field}: [ … ]}}`."
        _wrong(claim.text, "there is nothing to compare: this block has no sweep.", mend)
    note = _note(claim, known, found)
    failed = [
        c.name for checks in (result.checks, *(point.checks for point in result.points)) for c in checks if not c.ok
    ]
    if failed:
        return Judgement(claim.text, "undecided", f"the check “{failed[0]}” failed on this run", note)
    if len(found) < len(runs):
        return Judgement(claim.text, "undecided", f"this run has not measured {claim.metric}", note)
    if any(math.isnan(number) for metric in found for number in _all_numbers(metric, claim)):
        return Judgement(claim.text, "undecided", "not a number (NaN)", note)
    if claim.trend is not None:
        verdict, why = _follow(claim, result.points, found)
    elif claim.share is not None:
        verdict, why = _count(claim, result.points, found)
    else:
        verdict, why = _hold(claim, result.points, found)
    return Judgement(claim.text, verdict, why, note)


def _note(claim: Claim, known: Known, found: Sequence[Metric]) -> str:
    """Why the claim is empty, or that a number which is no whole one was rounded to the digits written."""
    forced = known[claim.metric].get(claim.aggregate or "every")
    if forced is not None:
        return f"This claim is empty: {forced}."
    numbers = [number for metric in found for number in _all_numbers(metric, claim)]
    if claim.rounded and claim.range and any(math.isfinite(n) and n != round(n) for n in numbers):
        low, high = claim.range.low, claim.range.high
        return f"As written, this means from {low:g} to {high:g}; write more digits, or `+-`, to mean it more narrowly."
    return ""


def _all_numbers(metric: Metric, claim: Claim) -> list[float]:
    """Every number of the metric that the claim is judged on."""
    if claim.share is None:
        return [end for span in _spans(metric) for end in span] + [n for n, _ in _exact(metric.value)]
    return [number for seed in metric.seeds or () for number, _ in _exact(seed)]


def _exact(value: Value) -> list[Span]:
    return [(v, v) for v in (value if isinstance(value, tuple) else (value,))]


def _spans(metric: Metric) -> list[Span]:
    if metric.interval is not None and not isinstance(metric.value, tuple):
        return [metric.interval]
    return _exact(metric.value)


def _fold(aggregate: Aggregate | None, spans: Sequence[Span]) -> list[Span]:
    """max, min and mean make one span of many: each end is the aggregate of those ends."""
    lows, highs = [low for low, _ in spans], [high for _, high in spans]
    match aggregate:
        case "max":
            return [(max(lows), max(highs))]
        case "min":
            return [(min(lows), min(highs))]
        case "mean":
            return [(sum(lows) / len(lows), sum(highs) / len(highs))]
        case _:
            return list(spans)


def _together(aggregate: Aggregate | None, verdicts: Iterable[Verdict]) -> Verdict:
    return (max if aggregate == "any" else min)(verdicts, key=_RANK.__getitem__)


def _hold(claim: Claim, points: Sequence[Point], metrics: Sequence[Metric]) -> tuple[Verdict, str]:
    assert claim.range is not None
    spans = [(span, at) for at, metric in enumerate(metrics) for span in _spans(metric)]
    folded = _fold(claim.aggregate, [span for span, _ in spans])
    verdicts = [claim.range.verdict(span) for span in folded]
    verdict = _together(claim.aggregate, verdicts)
    if len(folded) > 1:
        why = f"{min(low for low, _ in folded):.4g} to {max(high for _, high in folded):.4g}"
        if points and claim.aggregate != "any" and verdict != "supported":
            span, at = spans[verdicts.index(verdict)]
            why = f"{_show(span)} at {_place(points[at])}"
        return verdict, why
    if len(metrics) == 1 and isinstance(metrics[0].value, float | int):
        return verdict, _show(folded[0], metrics[0].value)
    return verdict, f"{claim.aggregate or ''} {_show(folded[0])}".strip()


def _count(claim: Claim, points: Sequence[Point], metrics: Sequence[Metric]) -> tuple[Verdict, str]:
    """The share of seeds in which the claim holds; over a sweep it must be reached at every point (`any`: at one)."""
    assert claim.range is not None
    assert claim.share is not None
    scalar = not isinstance(metrics[0].value, tuple)
    if points and scalar and claim.aggregate in ("max", "min", "mean"):
        _wrong(claim.text, f"`{claim.aggregate}` over a sweep does not go with seeds.", "Leave one of the two out.")
    verdicts: list[Verdict] = []
    counts = []
    for metric in metrics:
        if not metric.seeds:
            _wrong(claim.text, f"`{claim.metric}` has no seeds to count.", "Leave out `in … of seeds`.")
        held = 0
        for seed in metric.seeds:
            each = [claim.range.verdict(span) for span in _fold(claim.aggregate, _exact(seed))]
            held += _together(claim.aggregate, each) == "supported"
        verdicts.append("supported" if held >= claim.share * len(metric.seeds) else "refuted")
        counts.append(f"{held} of {len(metric.seeds)} seeds")
    verdict = _together(claim.aggregate if scalar else None, verdicts)
    at = verdicts.index(verdict)
    return verdict, f"{counts[at]} at {_place(points[at])}" if points else counts[0]


def _follow(claim: Claim, points: Sequence[Point], metrics: Sequence[Metric]) -> tuple[Verdict, str]:
    """Along the field, for every combination of the other swept fields: no step the wrong way, and on the whole one."""
    groups: dict[str, list[tuple[float, Span]]] = {}
    for point, metric in zip(points, metrics, strict=True):
        others = {name: value for name, value in point.fields.items() if name != claim.field}
        (span,) = _fold(claim.aggregate, _spans(metric))
        if claim.trend == "falls":
            span = (-span[1], -span[0])
        groups.setdefault(repr(sorted(others.items())), []).append((_place_on_axis(claim, point), span))
    verdicts: list[Verdict] = []
    for group in groups.values():
        along = [span for _, span in sorted(group)]
        if len(along) < 2:
            _wrong(claim.text, f"the sweep has only one value of `{claim.field}`.", "Give it two or more.")
        verdicts += [_step(a, b, level=True) for a, b in itertools.pairwise(along)]
        verdicts.append(_step(along[0], along[-1], level=False))
    ordered = sorted(zip(points, metrics, strict=True), key=lambda pair: _place_on_axis(claim, pair[0]))
    ends = [_show(_fold(claim.aggregate, _spans(metric))[0]) for _, metric in (ordered[0], ordered[-1])]
    return _together(None, verdicts), f"{ends[0]} at {_place(ordered[0][0])}, {ends[1]} at {_place(ordered[-1][0])}"


def _step(a: Span, b: Span, level: bool) -> Verdict:
    """Whether `b` is above `a`; where `level`, at least not below it."""
    if b[0] > a[1] or (level and b[0] == a[1]):
        return "supported"
    return "refuted" if b[1] < a[0] or (not level and b[1] == a[0]) else "undecided"


def _place_on_axis(claim: Claim, point: Point) -> float:
    if claim.field not in point.fields:
        near = difflib.get_close_matches(claim.field, point.fields, 1, 0.5)
        mend = f"Did you mean `{near[0]}`?" if near else f"It sweeps {', '.join(point.fields)}."
        _wrong(claim.text, f"`{claim.field}` is not what the sweep changes.", mend)
    value: Any = point.fields[claim.field]
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        return float(_number(value.strip()))
    if isinstance(value, bool) or not isinstance(value, int | float):
        _wrong(claim.text, f"`{claim.field}` has no order: {value!r} is not a number.", "Claim each value by itself.")
    return float(value)


def _place(point: Point) -> str:
    return ", ".join(f"{name} {value}" for name, value in point.fields.items())


def _show(span: Span, value: float | None = None) -> str:
    """Four significant digits: the value, and its interval where it has one."""
    if span[0] == span[1]:
        return f"{span[0]:.4g}"
    interval = f"{span[0]:.4g} to {span[1]:.4g}"
    return interval if value is None else f"{value:.4g} ({interval})"


def worst(judgements: Iterable[Judgement]) -> Verdict | None:
    """A note's verdict: refuted before undecided before supported; None without claims."""
    return min((judgement.verdict for judgement in judgements), key=_RANK.__getitem__, default=None)


def unaccepted(judgements: Iterable[Judgement], accepted: Sequence[str]) -> list[Judgement]:
    """The judgements that fail a check: not supported and not accepted, or accepted with another verdict.

    `accepted` are strings `claim: verdict`, as `acceptance` writes them.
    """
    once = dict(entry.rpartition(": ")[::2] for entry in accepted)
    return [j for j in judgements if j.verdict != once.get(j.claim, "supported")]


def acceptance(judgement: Judgement) -> str:
    """The string that accepts a verdict as the finding it is."""
    return f"{judgement.claim}: {judgement.verdict}"
