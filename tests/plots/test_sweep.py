"""A sweep's plot shows the numbers that came out, in the order of the parameter, the same bytes each time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vaultlab.plots.style import render
from vaultlab.plots.sweep import lines
from vaultlab.result import Metric, Point


def point(fields: dict[str, Any], value: Any, **more: Any) -> Point:
    metric = Metric("loss", value, unit="nats", headline=True, **more)
    return Point(fields, "key", False, (Metric("other", 1.0), metric), ())


def drawn(points: Sequence[Point]) -> Any:
    return lines("loss", points).figure.axes[0]


def test_points_are_drawn_in_the_order_of_the_parameter() -> None:
    ax = drawn([point({"sparsity": s}, 1 - s) for s in (0.9, 0.0, 0.5)])
    (line,) = ax.lines
    assert list(line.get_xdata()) == [0.0, 0.5, 0.9]
    assert list(line.get_ydata()) == pytest.approx([1.0, 0.5, 0.1])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sparsity", "loss (nats)")
    assert ax.get_legend() is None


def test_an_interval_is_a_band_and_the_null_a_dashed_line() -> None:
    ax = drawn([point({"n": n}, 0.5, interval=(0.25, 0.75), null=0.125) for n in (1, 2)])
    (band,) = ax.collections
    assert {y for _, y in band.get_paths()[0].vertices} == {0.25, 0.75}
    assert list(ax.lines[1].get_ydata()) == [0.125, 0.125]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["chance alone"]


def test_a_vector_is_its_median_within_all_its_numbers() -> None:
    ax = drawn([point({"n": n}, (0.0, 1.0, 5.0)) for n in (1, 2)])
    assert list(ax.lines[0].get_ydata()) == [1.0, 1.0]
    assert {y for _, y in ax.collections[0].get_paths()[0].vertices} == {0.0, 5.0}


def test_further_parameters_are_lines_with_a_legend() -> None:
    points = [point({"model": m, "n": n}, float(n), null=0.5) for m in "ab" for n in (1, 2)]
    ax = drawn(points)
    assert ax.get_xlabel() == "n"  # the one that is a number
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["model a", "model b"]
    assert len(ax.lines) == 2


def test_many_lines_keep_a_short_legend_and_a_short_description() -> None:
    points = [point({"n": n, "seed": s}, float(n * s)) for s in range(30) for n in (1, 2)]
    drawing = lines("loss", points)
    assert len(drawing.figure.axes[0].lines) == 30
    assert len(drawing.figure.axes[0].get_legend().get_texts()) <= 8
    assert drawing.alt.endswith("27 further lines.")


def test_words_are_points_not_lines() -> None:
    ax = drawn([point({"model": name}, 0.5, interval=(0.25, 1.0)) for name in ("b", "a")])
    (container,) = ax.containers
    assert container.lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a"]


def test_what_is_missing_or_no_number_leaves_a_gap() -> None:
    points = [point({"n": 1}, 0.5), Point({"n": 2}, "key", False, (), ()), point({"n": 3}, float("nan"))]
    line = drawn(points).lines[0]
    assert list(line.get_xdata()) == [1, 3]
    assert np.isnan(line.get_ydata()[1])


def test_the_description_says_where_it_begins_and_ends() -> None:
    points = [point({"sparsity": s}, 1 - s) for s in (0.0, 0.9)]
    assert lines("loss", points).alt == ("loss against sparsity: 1 at sparsity 0.0 and 0.1 at 0.9.")


def test_the_same_numbers_give_the_same_bytes() -> None:
    points = [point({"n": n, "m": m}, n / m, interval=(0.0, 1.0)) for n in (1, 2, 3) for m in (1, 2)]
    assert render(lines("loss", points)).content == render(lines("loss", points)).content
