"""A metric against what a sweep changed: lines where the parameter is a number, points where it is a word."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes

from vaultlab.plots.style import GREY, PALETTE, SHADES, Drawing, canvas
from vaultlab.result import Metric, Point

_LEGEND = 8
_TOLD = 3


class _Spot(NamedTuple):
    """A metric at one point: its value and how far it reaches, by its interval or, for a vector, by its numbers."""

    x: Any
    value: float
    low: float
    high: float
    null: float | None


def lines(name: str, points: Sequence[Point]) -> Drawing:
    """The metric `name` against the first swept parameter that is a number, a line for each value of the others.

    A band is the metric's interval; of a vector the band spans all its numbers, and the line is their median. A dashed
    line is what chance alone gives.
    """
    along = _along(points)
    numeric = all(_is_number(point.fields[along]) for point in points)
    series = _series(name, along, points)
    unit = next((metric.unit for point in points for metric in point.metrics if metric.name == name), "")
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for (label, spots), colour in zip(series.items(), _colours(len(series)), strict=True):
            _draw(ax, spots, colour, label, numeric)
        ax.set_xlabel(along)
        ax.set_ylabel(f"{name} ({unit})" if unit else name)
        if len(series) == 1:
            _draw_null(ax, next(iter(series.values())))
        else:
            handles, labels = ax.get_legend_handles_labels()
            step = math.ceil(len(labels) / _LEGEND)
            ax.legend(handles[::step], labels[::step], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return Drawing(figure, _alt(name, along, series))


def _along(points: Sequence[Point]) -> str:
    names = list(points[0].fields)
    numbers = [name for name in names if all(_is_number(point.fields[name]) for point in points)]
    return (numbers or names)[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _series(name: str, along: str, points: Sequence[Point]) -> dict[str, list[_Spot]]:
    """What the other parameters are → the spots in the order in which they are drawn."""
    series: dict[str, list[_Spot]] = {}
    for point in points:
        metric = next((metric for metric in point.metrics if metric.name == name), None)
        if metric is None:  # this point has nothing to measure it on
            continue
        series.setdefault(_label(point.fields, along), []).append(_spot(point.fields[along], metric))
    for spots in series.values():
        if all(_is_number(spot.x) for spot in spots):
            spots.sort(key=lambda spot: spot.x)
    return series


def _label(fields: Mapping[str, Any], along: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items() if name != along)


def _spot(x: Any, metric: Metric) -> _Spot:
    if isinstance(metric.value, tuple):
        values = metric.value or (math.nan,)
        return _Spot(x, float(np.median(values)), min(values), max(values), metric.null)
    low, high = metric.interval or (metric.value, metric.value)
    return _Spot(x, metric.value, low, high, metric.null)


def _colours(count: int) -> Sequence[Any]:
    return PALETTE[:count] if count <= len(PALETTE) else [SHADES(at / (count - 1)) for at in range(count)]


def _draw(ax: Axes, spots: Sequence[_Spot], colour: Any, label: str, numeric: bool) -> None:
    xs = [spot.x if numeric else str(spot.x) for spot in spots]
    values = np.array([spot.value for spot in spots])
    low, high = np.array([spot.low for spot in spots]), np.array([spot.high for spot in spots])
    if not numeric:
        reach = np.abs(np.stack([values - low, high - values]))
        ax.errorbar(xs, values, yerr=reach, fmt="o", color=colour, label=label or None, capsize=3)
        return
    ax.plot(xs, values, marker="o", markersize=4, color=colour, label=label or None)
    if np.any(low < high):
        ax.fill_between(xs, low, high, color=colour, alpha=0.25, linewidth=0)


def _draw_null(ax: Axes, spots: Sequence[_Spot]) -> None:
    known = [(spot.x, spot.null) for spot in spots if spot.null is not None]
    if known:
        xs, nulls = zip(*known, strict=True)
        words = [x if _is_number(x) else str(x) for x in xs]
        ax.plot(words, nulls, linestyle="--", color=GREY, linewidth=1.2, label="chance alone")
        ax.legend()


def _alt(name: str, along: str, series: Mapping[str, Sequence[_Spot]]) -> str:
    ends = [
        f"{f'for {label} ' if label else ''}{spots[0].value:.4g} at {along} {spots[0].x}"
        f" and {spots[-1].value:.4g} at {spots[-1].x}"
        for label, spots in list(series.items())[:_TOLD]
    ]
    more = f"; {len(series) - _TOLD} further lines" if len(series) > _TOLD else ""
    return f"{name} against {along}: {'; '.join(ends)}{more}."
