"""The points of a sweep, each a Result of its own, as one Result."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from vaultlab.plots import sweep
from vaultlab.result import Check, Figure, Point, Result
from vaultlab.worker.asked import Asked
from vaultlab.worker.course import Course
from vaultlab.worker.press import Press


def swept(it: Asked, course: Course, results: Sequence[Result], press: Press) -> Result:
    """The points' numbers side by side, each identity where it was at its worst, every headline metric drawn."""
    points = tuple(
        Point(
            {name: getattr(run.spec, name) for name in run.point}, run.key, result.cached, result.metrics, result.checks
        )
        for run, result in zip(it.runs, results, strict=True)
    )
    course.prefix, course.rest_s = "", 0.0
    latest = max((result.provenance for result in results), key=lambda facts: str(facts["computed"]))
    facts = {**latest, "seconds": round(sum(result.provenance["seconds"] for result in results), 3)}
    facts["models"] = {name: model for result in results for name, model in result.provenance["models"].items()}
    facts["peak_memory_bytes"] = max(result.provenance["peak_memory_bytes"] for result in results)
    return Result(
        course.ask.id,
        it.key,
        all(point.cached for point in points),
        (),
        _worst(check for point in points for check in point.checks),
        _figures(it, course, points, press) if course.ask.figures else {},
        it.summary,
        provenance=facts,
        points=points,
    )


def sweep_data(it: Asked, outs: Sequence[Any]) -> dict[str, Any]:
    """The data of every point's interactive figure, by the one field that is swept; empty where there is none."""
    fields = {name for run in it.runs for name in run.point}
    if it.experiment.data is None or len(fields) != 1 or len(outs) < len(it.runs):
        return {}
    (field,) = fields
    each = [dict(it.experiment.data(run.spec, out)) for run, out in zip(it.runs, outs, strict=True)]
    if not all(each):
        return {}
    return {"kind": "sweep", "field": field, "values": [run.point[field] for run in it.runs], "each": each}


def _figures(it: Asked, course: Course, points: Sequence[Point], press: Press) -> dict[str, Figure]:
    course.report("drawing", 0, 1)
    measured = {metric.name for point in points for metric in point.metrics}
    shown = [q.name for q in it.experiment.metrics if q.headline and q.name in measured]
    drawn = {file: one for name in shown for file, one in sweep.drawings(name, points, _labels(it)).items()}
    return press.printed(drawn)


def _labels(it: Asked) -> dict[str, str]:
    """How each field is written at an axis: its name, the paper's letter, the unit."""
    labels = {}
    for name, schema in it.entry.fields.items():
        letter = "" if schema.get("symbol", name) == name else f" {schema['symbol']}"
        labels[name] = f"{name}{letter}" + (f" ({schema['unit']})" if "unit" in schema else "")
    return labels


def _worst(checks: Iterable[Check]) -> tuple[Check, ...]:
    worst: dict[str, Check] = {}
    for check in checks:
        worst[check.name] = max(worst.get(check.name, check), check, key=_strain)
    return tuple(worst.values())


def _strain(check: Check) -> float:
    """How much of its limit a check has used up; a NaN more than any number."""
    if not check.limit or math.isnan(check.residual):
        return 0.0 if check.ok else math.inf
    return check.residual / check.limit
