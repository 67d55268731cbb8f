"""A sweep's figures show the numbers that came out, each field where it can be read, the same bytes each time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from vaultlab.plots.style import Drawing, render
from vaultlab.plots.sweep import PANELS, drawings
from vaultlab.result import Metric, Point


def point(fields: Mapping[str, Any], value: Any, **more: Any) -> Point:
    metric = Metric("loss", value, unit="nats", headline=True, **more)
    return Point(fields, "key", False, (Metric("other", 1.0), metric), ())


def drawn(points: Sequence[Point]) -> dict[str, Drawing]:
    return drawings("loss", points, {"sparsity": "sparsity S"})


def axes_of(points: Sequence[Point], name: str = "loss") -> list[Any]:
    return [ax for ax in drawn(points)[name].figure.axes if ax.get_visible()]


def legend_of(points: Sequence[Point]) -> list[str]:
    return [text.get_text() for legend in drawn(points)["loss"].figure.legends for text in legend.get_texts()]


def band(ax: Any, at: int = 0) -> set[float]:
    return {float(y) for _, y in ax.collections[at].get_paths()[0].vertices}


def whole_ticks(line: Any) -> bool:
    low, high = sorted(line.get_view_interval())
    return all(tick == round(tick) for tick in line.get_major_locator()() if low <= tick <= high)


def test_points_are_drawn_in_the_order_of_the_parameter() -> None:
    points = [point({"sparsity": s}, 1 - s) for s in (0.9, 0.0, 0.5)]
    (ax,) = axes_of(points)
    (line,) = ax.lines
    assert list(line.get_xdata()) == [0.0, 0.5, 0.9]
    assert list(line.get_ydata()) == pytest.approx([1.0, 0.5, 0.1])
    figure = drawn(points)["loss"].figure
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("sparsity S", "loss (nats)")
    assert not figure.legends


def test_an_interval_is_a_band_and_the_null_a_dashed_line() -> None:
    points = [point({"n": n}, 0.5, interval=(0.25, 0.75), null=0.125) for n in (1, 2)]
    (ax,) = axes_of(points)
    assert band(ax) == {0.25, 0.75}
    assert list(ax.lines[1].get_ydata()) == [0.125, 0.125]
    assert legend_of(points) == ["95 % interval", "chance alone"]


def test_seeds_are_a_band_from_the_lowest_to_the_highest() -> None:
    points = [point({"n": n}, 2.0, seeds=(1.0, 2.0, 4.0), interval=(1.9, 2.1)) for n in (1, 2)]
    (ax,) = axes_of(points)
    assert band(ax) == {1.0, 4.0}
    assert list(ax.lines[0].get_ydata()) == [2.0, 2.0]
    assert legend_of(points) == ["lowest to highest of 3 seeds"]


def test_a_swept_seed_is_spread_and_no_field() -> None:
    points = [point({"n": n, "seed": seed}, float(n + seed)) for n in (1, 2, 3) for seed in (0, 1, 5)]
    (ax,) = axes_of(points)
    assert list(ax.lines[0].get_ydata()) == [3.0, 4.0, 5.0]
    assert band(ax) == {1.0, 2.0, 3.0, 6.0, 7.0, 8.0}
    assert legend_of(points) == ["lowest to highest of 3 seeds, line: the mean"]
    (alone,) = axes_of([point({"seed": seed}, float(seed)) for seed in (0, 1)])
    assert list(alone.lines[0].get_xdata()) == [0, 1]


def test_a_vector_is_its_median_within_all_its_numbers() -> None:
    points = [point({"n": n}, (0.0, 1.0, 5.0)) for n in (1, 2)]
    (ax,) = axes_of(points)
    assert list(ax.lines[0].get_ydata()) == [1.0, 1.0]
    assert band(ax) == {0.0, 5.0}
    assert legend_of(points) == ["all its numbers, line: the median"]


def test_models_lie_over_each_other() -> None:
    points = [point({"model": m, "n": n}, float(n), null=0.5) for m in "ab" for n in (1, 2)]
    assert list(drawn(points)) == ["loss"]
    (ax,) = axes_of(points)
    assert drawn(points)["loss"].figure.get_supxlabel() == "n"  # the one that is a number
    assert legend_of(points) == ["model a", "model b", "chance alone"]
    assert len(ax.lines) == 3  # what chance gives is the same for both


def test_layers_lie_over_each_other_with_a_scale_of_colours() -> None:
    points = [point({"layer": layer, "n": n}, float(layer * n)) for layer in range(7) for n in range(10)]
    figures = drawn(points)
    assert list(figures) == ["loss", "loss_lines"]
    curves, scale = figures["loss_lines"].figure.axes
    assert len(curves.lines) == 7
    assert scale.get_ylabel() == "layer"


def test_a_layer_with_most_values_runs_along() -> None:
    points = [point({"model": m, "layer": layer}, float(layer)) for m in "ab" for layer in range(6)]
    assert drawn(points)["loss"].figure.get_supxlabel() == "layer"
    assert whole_ticks(axes_of(points)[0].xaxis)


def test_further_numbers_are_panels_on_one_scale() -> None:
    points = [point({"n": n, "m": m}, float(n * m)) for m in (1, 10) for n in (1, 2, 3)]
    one, two = axes_of(points)
    assert [ax.get_title() for ax in (one, two)] == ["m 1", "m 10"]
    assert one.get_ylim() == two.get_ylim()
    assert one.get_xlim() == two.get_xlim()
    assert list(two.lines[0].get_ydata()) == [10.0, 20.0, 30.0]


def test_panels_and_colours_together() -> None:
    fields = [{"n": n, "m": m, "model": k} for k in "ab" for m in (1, 2) for n in (1, 2, 3)]
    panels = axes_of([point(one, float(one["n"])) for one in fields])
    assert [len(ax.lines) for ax in panels] == [2, 2]


def test_of_many_panels_some_are_shown_and_it_says_so() -> None:
    points = [point({"n": n, "m": m}, float(n * m)) for m in range(30) for n in range(40)]
    panels = axes_of(points, "loss_lines")
    assert len(panels) == PANELS
    assert [panels[0].get_title(), panels[-1].get_title()] == ["m 0", "m 29"]
    assert drawn(points)["loss_lines"].alt.endswith("9 further lines, 12 of 30 panels.")


def test_a_grid_of_two_numbers_is_a_heat_map_with_its_numbers() -> None:
    points = [point({"n": n, "m": m}, float(10 * n + m)) for m in (3, 1, 2) for n in (1, 2, 3)]
    figures = drawn([one for one in points if one.fields != {"n": 3, "m": 2}])
    assert list(figures) == ["loss", "loss_lines"]
    ax, scale = figures["loss"].figure.axes
    written = {(round(text.get_position()[0]), round(text.get_position()[1])): text.get_text() for text in ax.texts}
    assert written == {
        (0, 0): "13", (1, 0): "23", (2, 0): "33",
        (0, 1): "12", (1, 1): "22",
        (0, 2): "11", (1, 2): "21", (2, 2): "31",
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["3", "2", "1"]  # the largest on top
    assert (ax.get_xlabel(), ax.get_ylabel(), scale.get_ylabel()) == ("n", "m", "loss (nats)")
    assert figures["loss"].alt == (
        "loss (nats) over 3 values of m and 3 of n: lowest 11 at m 1, n 1; highest 33 at m 3, n 3."
    )


@pytest.mark.parametrize(
    ("values", "limits"),
    [([0.0, 1.0, 4.0], (0.0, 4.0)), ([-1.0, 0.0, 3.0], (-3.0, 3.0)), ([0.96, 0.97, 0.99], (0.96, 0.99))],
)
def test_a_heat_maps_scale_shows_differences(values: list[float], limits: tuple[float, float]) -> None:
    points = [point({"n": n, "m": m}, value) for n in range(3) for m, value in enumerate(values)]
    image = axes_of(points)[0].images[0]
    assert image.get_clim() == limits


def test_words_are_points_not_lines() -> None:
    (ax,) = axes_of([point({"model": name}, 0.5, interval=(0.25, 1.0)) for name in ("b", "a")])
    (container,) = ax.containers
    assert container.lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "a"]


def test_what_is_missing_or_no_number_leaves_a_gap() -> None:
    points = [point({"n": 1}, 0.5), Point({"n": 2}, "key", False, (), ()), point({"n": 3}, float("nan"))]
    line = axes_of(points)[0].lines[0]
    assert list(line.get_xdata()) == [1, 3]
    assert np.isnan(line.get_ydata()[1])


@pytest.mark.parametrize("values", [[2, 5], [3, 3], [0, 1], [1, 400]])
def test_whole_numbers_have_no_half_steps(values: list[int]) -> None:
    (ax,) = axes_of([point({"n": n}, float(value)) for n, value in enumerate(values)])
    assert whole_ticks(ax.xaxis)
    assert whole_ticks(ax.yaxis)
    (halves,) = axes_of([point({"s": s / 2}, s + 0.5) for s in (0, 1)])
    assert not whole_ticks(halves.xaxis)


@pytest.mark.parametrize(
    ("xs", "scale"),
    [((1, 10, 100, 1000), "log"), ((0, 10, 1000), "linear"), ((1, 2, 3, 4), "linear"), (range(1, 100), "linear")],
)
def test_decades_are_drawn_as_decades(xs: Sequence[int], scale: str) -> None:
    (ax,) = axes_of([point({"n": x}, 1.0) for x in xs])
    assert ax.get_xscale() == scale
    (ax,) = axes_of([point({"n": n}, float(10**-n)) for n in range(5)])
    assert ax.get_yscale() == "log"


def test_the_description_says_where_it_begins_and_ends() -> None:
    points = [point({"sparsity": s}, 1 - s) for s in (0.0, 0.9)]
    assert drawn(points)["loss"].alt == "loss (nats) against sparsity: 1 at sparsity 0 and 0.1 at 0.9."


def test_many_lines_keep_a_short_legend_and_a_short_description() -> None:
    points = [point({"n": n, "model": f"m{k}"}, float(n * k)) for k in range(30) for n in (1, 2)]
    assert len(axes_of(points)[0].lines) == 30
    assert len(legend_of(points)) <= 12
    assert drawn(points)["loss"].alt.endswith("27 further lines.")


def test_a_name_that_is_not_ours_is_drawn_as_it_is() -> None:
    points = [point({"model": name, "n": n}, 1.0) for name in ("$x_1$", "中") for n in (1, 2)]
    assert legend_of(points) == ["model $x_1$", "model ⟨4e2d⟩"]


def test_a_thousand_points_are_one_picture_with_the_same_bytes_each_time() -> None:
    points = [point({"n": n}, math.sin(n / 50), interval=(-2.0, 2.0)) for n in range(1000)]
    first, again = (render(drawn(points)["loss"]) for _ in range(2))
    assert first.content == again.content
    assert len(first.content) < 200_000
