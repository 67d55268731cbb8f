"""A metric against what a sweep changed: lines with their spread, small multiples on one scale, a grid as a heat map.

The number with most values runs along the x axis. Words and layers are compared: they lie over each other as lines of
several colours, or as points where nothing runs along. Any other field makes a panel for each of its values. A swept
`seed` is no field: its runs are each other's spread.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from vaultlab.plots.curves import Curves, Lines, Spot, curves
from vaultlab.plots.grid import grid
from vaultlab.plots.style import Drawing
from vaultlab.result import Metric, Point

PANELS = 12
"""Small multiples at most: of more values as many, evenly spaced, are shown."""

_GRID = 3
_TOLD = 3


class Layout(NamedTuple):
    """Which field runs along the x axis, which is told by colour, which ones by panels."""

    along: str
    over: str | None
    panels: tuple[str, ...]


def drawings(name: str, points: Sequence[Point], labels: Mapping[str, str]) -> dict[str, Drawing]:
    """The figures of a metric, its main one under its own name. `labels`: how a field is written at an axis."""
    measured = [(point.fields, metric) for point in points for metric in point.metrics if metric.name == name]
    values = {field: list(dict.fromkeys(fields[field] for fields, _ in measured)) for field in points[0].fields}
    if len(values) > 1:
        values.pop("seed", None)
    numbers = [field for field, them in values.items() if all(map(_is_number, them))]
    for field in numbers:
        values[field].sort()
    layout = _layout(values, numbers)
    spots, spread = _spots(measured, tuple(values))
    titles = {field: labels.get(field, field) for field in values}
    unit = next((metric.unit for _, metric in measured), "")
    ylabel = f"{name} ({unit})" if unit else name
    drawn = {name: _curves(spots, values, layout, (titles, ylabel), spread)}
    if len(values) == len(numbers) == 2 and all(len(them) >= _GRID for them in values.values()):
        across, down = layout.along, next(field for field in values if field != layout.along)
        cells = np.array([[_value(spots, values, {across: x, down: y}) for x in values[across]] for y in values[down]])
        as_grid = grid(cells, (values[down], values[across]), (titles[down], titles[across]), ylabel)
        drawn = {name: as_grid, f"{name}_lines": drawn[name]}
    return drawn


def _layout(values: Mapping[str, Sequence[Any]], numbers: Sequence[str]) -> Layout:
    along = max(numbers or values, key=lambda field: len(values[field]))
    rest = [field for field in values if field != along]
    over = next((field for field in rest if field not in numbers or field == "layer"), None)
    return Layout(along, over, tuple(field for field in rest if field != over))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# -- what was measured where

Place = tuple[Any, ...]


def _spots(
    measured: Iterable[tuple[Mapping[str, Any], Metric]], fields: Sequence[str]
) -> tuple[dict[Place, Spot], str]:
    """Place → spot, and in words how far a spot reaches."""
    there: dict[Place, list[Metric]] = {}
    for at, metric in measured:
        there.setdefault(tuple(at[field] for field in fields), []).append(metric)
    kinds = dict.fromkeys(_spread(metrics) for metrics in there.values())
    return {place: _spot(metrics) for place, metrics in there.items()}, ", ".join(kind for kind in kinds if kind)


def _spread(metrics: Sequence[Metric]) -> str:
    first = metrics[0]
    if isinstance(first.value, tuple):
        return "all its numbers, line: the median"
    if len(metrics) > 1:
        return f"lowest to highest of {len(metrics)} seeds, line: the mean"
    if len(first.seeds or ()) > 1:
        return f"lowest to highest of {len(first.seeds or ())} seeds"
    return "95 % interval" if first.interval else ""


def _spot(metrics: Sequence[Metric]) -> Spot:
    first = metrics[0]
    numbers = [number for metric in metrics for number in _numbers(metric.value)] or [math.nan]
    if isinstance(first.value, tuple):
        return Spot(float(np.median(numbers)), min(numbers), max(numbers), first.null)
    if len(metrics) == 1:
        numbers = [number for seed in first.seeds or () for number in _numbers(seed)]
    if len(numbers) > 1:
        value = first.value if len(metrics) == 1 else math.fsum(numbers) / len(numbers)
        return Spot(value, min(numbers), max(numbers), first.null)
    return Spot(first.value, *(first.interval or (first.value, first.value)), first.null)


def _numbers(value: Any) -> Sequence[float]:
    return value if isinstance(value, tuple) else (value,)


def _value(spots: Mapping[Place, Spot], values: Mapping[str, Any], at: Mapping[str, Any]) -> float:
    spot = spots.get(tuple(at[field] for field in values))
    return math.nan if spot is None else spot.value


# -- lines


def _curves(
    spots: Mapping[Place, Spot],
    values: Mapping[str, Sequence[Any]],
    layout: Layout,
    labels: tuple[Mapping[str, str], str],
    spread: str,
) -> Drawing:
    titles, ylabel = labels
    every = list(product(*(values[field] for field in layout.panels)))
    shown = [every[round(at)] for at in np.linspace(0, len(every) - 1, min(PANELS, len(every)))]
    panels: dict[str, Lines] = {}
    for panel in shown:
        lines: Lines = {}
        for over in values[layout.over] if layout.over else [None]:
            fixed = {**dict(zip(layout.panels, panel, strict=True)), layout.over or "": over}
            places = [(x, {**fixed, layout.along: x}) for x in values[layout.along]]
            line = [(x, spots.get(tuple(at[field] for field in values))) for x, at in places]
            lines[over] = [(x, spot) for x, spot in line if spot is not None]
        panels[_named(zip(layout.panels, panel, strict=True))] = {over: line for over, line in lines.items() if line}
    missing = f", {len(shown)} of {len(every)} panels" if len(shown) < len(every) else ""
    over = titles[layout.over] if layout.over else ""
    figure = curves(panels, Curves(titles[layout.along], ylabel, over, spread))
    return Drawing(figure, _alt(ylabel, layout, panels) + missing + ".")


def _named(fields: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{field} {_short(value)}" for field, value in fields)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _alt(ylabel: str, layout: Layout, panels: Mapping[str, Lines]) -> str:
    said = []
    for panel, lines in panels.items():
        for over, line in lines.items():
            whose = _named([(layout.over, over)]) if layout.over else ""
            name = ", ".join(one for one in (panel, whose) if one)
            (first, begin), (last, end) = line[0], line[-1]
            said.append(
                f"{f'for {name} ' if name else ''}{begin.value:.4g} at {layout.along} {_short(first)}"
                f" and {end.value:.4g} at {_short(last)}"
            )
    more = f"; {len(said) - _TOLD} further lines" if len(said) > _TOLD else ""
    return f"{ylabel} against {layout.along}: {'; '.join(said[:_TOLD])}{more}"
