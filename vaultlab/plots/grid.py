"""A metric over two fields that are numbers: a heat map, a column and a row for each value."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaultlab.plots.style import Drawing, canvas, heat

WRITTEN = (7, 9)
"""Up to so many columns and rows, each cell says its number."""


def grid(
    values: NDArray[Any], places: tuple[Sequence[float], Sequence[float]], fields: tuple[str, str], label: str
) -> Drawing:
    """`values` [row, column]; `places` and `fields`: the values and the names of the rows' field, then the columns'."""
    rows, columns = places
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    # Numbers that are all alike would be all of one colour on a scale from 0.
    limits = (low, high) if low > high / 2 else (0.0, high or 1.0) if low >= 0 else (-max(-low, high), max(-low, high))
    with canvas(height=min(6.0, 2.6 + 0.28 * len(rows))) as (figure, axes):
        ax = axes[0, 0]
        image = heat(ax, values[::-1], label, limits=limits)
        _numbers(ax, "x", columns)
        _numbers(ax, "y", rows[::-1])
        ax.set(xlabel=fields[1], ylabel=fields[0])
        ax.spines[:].set_visible(False)
        if len(columns) <= WRITTEN[0] and len(rows) <= WRITTEN[1]:
            for (row, column), value in np.ndenumerate(values[::-1]):
                red, green, blue, _ = image.cmap(image.norm(value))
                ink = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
                if np.isfinite(value):
                    ax.text(column, row, f"{value:.3g}", ha="center", va="center", color=ink, fontsize=11)
    return Drawing(figure, _alt(values, places, fields, label))


def _numbers(ax: Any, axis: str, values: Sequence[float], most: int = 9) -> None:
    step = -(-len(values) // most)
    shown = range(0, len(values), step)
    getattr(ax, f"set_{axis}ticks")(shown, [f"{values[at]:.4g}" for at in shown])


def _alt(
    values: NDArray[Any], places: tuple[Sequence[float], Sequence[float]], fields: tuple[str, str], label: str
) -> str:
    size = f"{label} over {len(places[0])} values of {fields[0]} and {len(places[1])} of {fields[1]}"
    if not np.isfinite(values).any():
        return f"{size}: nothing that is a number."
    ends = []
    for word, flat in (("lowest", int(np.nanargmin(values))), ("highest", int(np.nanargmax(values)))):
        row, column = divmod(flat, values.shape[1])
        ends.append(
            f"{word} {values[row, column]:.4g} at {fields[0]} {places[0][row]:.4g}, {fields[1]} {places[1][column]:.4g}"
        )
    return f"{size}: {'; '.join(ends)}."
