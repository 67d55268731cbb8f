"""A Claim and a Result → a verdict, with the numbers that decided. Pure.

A metric that is one number is judged by its interval, where it has one: supported if all of it passes, refuted if
nothing of it does, else undecided. A vector is judged by its numbers, a trend by what the spread allows (`trend.py`).
"""

import math
from collections.abc import Iterable, Sequence

from vaultlab import trend
from vaultlab.claims import Aggregate, Claim, Known, check, place, wrong
from vaultlab.result import Judgement, Metric, Point, Result, Span, Value, Verdict

_RANK: dict[Verdict, int] = {"refuted": 0, "undecided": 1, "supported": 2}


def judge(claim: Claim, result: Result, known: Known) -> Judgement:
    """The verdict on a claim. NoteError where it cannot be said of this result (a bare vector, seeds without seeds)."""
    check(claim, known, [point.fields for point in result.points])
    runs: Sequence[Result | Point] = result.points or (result,)
    metrics = [next((m for m in run.metrics if m.name == claim.metric and m.value != ()), None) for run in runs]
    found = [metric for metric in metrics if metric is not None]
    for metric in found:
        _must_fold(claim, metric)
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


def _must_fold(claim: Claim, metric: Metric) -> None:
    """NoteError for a vector of which the claim does not say which numbers are meant."""
    folded = claim.aggregate in ("max", "min", "mean") if claim.trend else claim.aggregate is not None
    if isinstance(metric.value, tuple) and not folded:
        plain = claim.text.removeprefix(f"{claim.aggregate} ").removeprefix("of ")
        trends = f"`max of {plain}`; or min of, mean of: at the next point its numbers come in another order"
        other = f"`every {claim.text}`; or any, max of, min of, mean of"
        mend = f"Say of which: {trends if claim.trend else other}."
        wrong(claim.text, f"`{claim.metric}` is {len(metric.value)} numbers, not one.", mend)


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
    if claim.share is None and not (claim.trend and metric.seeds):
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
            why = f"{_show(span)} at {_where(points[at])}"
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
        wrong(claim.text, f"`{claim.aggregate}` over a sweep does not go with seeds.", "Leave one of the two out.")
    verdicts: list[Verdict] = []
    counts = []
    for metric in metrics:
        if not metric.seeds:
            wrong(claim.text, f"`{claim.metric}` has no seeds to count.", "Leave out `in … of seeds`.")
        held = 0
        for seed in metric.seeds:
            each = [claim.range.verdict(span) for span in _fold(claim.aggregate, _exact(seed))]
            held += _together(claim.aggregate, each) == "supported"
        verdicts.append("supported" if held >= claim.share * len(metric.seeds) else "refuted")
        counts.append(f"{held} of {len(metric.seeds)} seeds")
    verdict = _together(claim.aggregate if scalar else None, verdicts)
    at = verdicts.index(verdict)
    return verdict, f"{counts[at]} at {_where(points[at])}" if points else counts[0]


def _follow(claim: Claim, points: Sequence[Point], metrics: Sequence[Metric]) -> tuple[Verdict, str]:
    """Along the field, for every combination of the other swept fields; a swept `seed` makes seeds of its points."""
    groups: dict[str, dict[float, list[tuple[Point, Metric]]]] = {}
    for point, metric in zip(points, metrics, strict=True):
        others = {name: value for name, value in point.fields.items() if name not in (claim.field, "seed")}
        along = groups.setdefault(repr(sorted(others.items())), {})
        along.setdefault(place(claim, point.fields), []).append((point, metric))
    ordered = [[along[at] for at in sorted(along)] for along in groups.values() if len(along) > 1]
    spots = [[_spot(claim, [metric for _, metric in same]) for same in group] for group in ordered]
    rising = claim.trend == "rises"
    trends = trend.rising(spots if rising else [[spot.mirrored for spot in group] for group in spots])
    verdict = _together(claim.aggregate if claim.aggregate == "any" else None, [one.verdict for one in trends])
    at = next(n for n, one in enumerate(trends) if one.verdict == verdict)
    places = [_where(same[0][0]) for same in ordered[at]]
    said = [f"{_show(spot.interval, spot.value)} at {there}" for spot, there in zip(spots[at], places, strict=True)]
    return verdict, _path(trends[at], said, ("rise", "falls") if rising else ("fall", "rises"))


def _spot(claim: Claim, same: Sequence[Metric]) -> trend.Spot:
    """One place along the field; what has been run in several seeds is their mean there."""
    seeds = [one for metric in same for one in metric.seeds or (metric.value,)]
    numbers = [low for one in seeds for low, _ in _fold(claim.aggregate, _exact(one))]
    if len(numbers) == 1:
        (span,) = _fold(claim.aggregate, _spans(same[0]))
        return trend.Spot(numbers[0], span)
    mean = math.fsum(numbers) / len(numbers)
    return trend.Spot(mean, (mean, mean), tuple(numbers))


def _path(found: trend.Trend, said: Sequence[str], words: tuple[str, str]) -> str:
    means = f" (means of {found.seeds} seeds)" if found.seeds else ""
    if found.down is not None:
        return f"{said[found.down[0]]}, but {said[found.down[1]]}{means}"
    ends = f"{said[0]}, {said[-1]}{means}"
    if found.verdict == "undecided":
        return f"{ends}; the spread allows both"
    if not found.up:
        return f"{ends}; no pair of values {words[0]}s"
    return f"{ends}; {found.up} of {found.pairs} pairs {words[0]}, none {words[1]}"


def _where(point: Point) -> str:
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
