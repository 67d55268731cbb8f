"""Weight vectors of one, two or three dimensions: one model large, its sisters small beside it.

A model is an array [features, dimensions]; the first of `models` is the large one. `kept` says of every feature whether
it counts; the others are grey. `colours` are the features' own, else all are of one. Features are numbered from 1.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, canvas

Colours = Sequence[str]
"""Every feature's; GREY where it does not count."""

SISTERS = 15
NAMED = 12
"""Up to so many features, each has its number at the tip."""

LINES = {"1": 1, "¾": 3 / 4, "⅔": 2 / 3, "½": 1 / 2, "⅖": 2 / 5, "⅜": 3 / 8}
"""The dimensionalities of features alone, and in tetrahedra, triangles, digons, pentagons and square antiprisms."""


def vectors(
    models: Sequence[NDArray[Any]], kept: Sequence[NDArray[Any]], title: str, colours: Sequence[str] | None = None
) -> Canvas:
    """The figure for the models' own number of dimensions: bars, arrows, or arrows seen along three axes."""
    by_dimensions = {1: _line, 2: _plane, 3: _space}
    own = colours or [PALETTE[0]] * len(models[0])
    painted = [[one if counts else GREY for one, counts in zip(own, ours, strict=True)] for ours in kept]
    return by_dimensions[models[0].shape[1]](models[: SISTERS + 1], painted, title)


def feature_axis(ax: Axes, features: int) -> None:
    """Feature numbers from 1 along the x axis, at most a dozen of them."""
    step = max(1, -(-features // 12))
    ax.set(xlim=(0.4, features + 0.6), xlabel="feature")
    ax.set_xticks(range(1, features + 1, step))


def solid_lines(ax: Axes) -> None:
    """The lines of the solids along a y axis of dimensionalities, named at the right."""
    for name, height in LINES.items():
        ax.axhline(height, color=GREY, linewidth=0.7, linestyle=":")
        ax.text(1.06 if name == "⅜" else 1.01, height, name, transform=ax.get_yaxis_transform(), va="center")


def sisters(ax: Axes, values: Sequence[NDArray[Any]]) -> None:
    """The other models' values over the features, as dashes, with one entry in the legend."""
    for place, heights in enumerate(values):
        label = "other seeds" if place == 0 else None
        ax.plot(
            range(1, len(heights) + 1), heights, "_", color=PALETTE[1], markersize=13, markeredgewidth=1.5, label=label
        )


def _line(models: Sequence[NDArray[Any]], painted: Sequence[Colours], title: str) -> Canvas:
    with canvas(height=3.4) as (figure, axes):
        ax, weights = axes[0, 0], models[0][:, 0]
        ax.bar(range(1, len(weights) + 1), weights, width=0.5, color=painted[0], label="lowest loss")
        sisters(ax, [model[:, 0] for model in models[1:]])
        ax.axhline(0, color=GREY, linewidth=0.8)
        feature_axis(ax, len(weights))
        ax.set_ylabel("weight Wᵢ")
        ax.set_title(title)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _plane(models: Sequence[NDArray[Any]], painted: Sequence[Colours], title: str) -> Canvas:
    reach = _reach(models)
    with canvas(1, 2 if len(models) > 1 else 1, height=3.6) as (figure, axes):
        ax = axes[0, 0]
        _frame(ax, reach, "hidden dimension 1", "hidden dimension 2")
        _arrows(ax, (0, 0), models[0], painted[0], 3)
        _name_tips(ax, models[0], painted[0], reach)
        ax.set_title(title)
        if len(models) > 1:
            _small(axes[0, 1], models[1:], painted[1:], 2 * reach)
    return figure


def _small(ax: Axes, models: Sequence[NDArray[Any]], painted: Sequence[Colours], cell: float) -> None:
    """All on one grid in one axes: an axes a model would take longer than the training."""
    across = math.ceil(math.sqrt(len(models)))
    for place, (model, ours) in enumerate(zip(models, painted, strict=False)):
        at = (cell * (place % across), -cell * (place // across))
        ax.plot(*at, ".", color=GREY, markersize=3)
        _arrows(ax, at, model, ours, 1.4)
    down = math.ceil(len(models) / across)
    ax.set(xlim=(-cell / 2, cell * (across - 0.5)), ylim=(-cell * (down - 0.5), cell / 2), aspect="equal")
    ax.set_axis_off()
    ax.set_title("other seeds")


def _space(models: Sequence[NDArray[Any]], painted: Sequence[Colours], title: str) -> Canvas:
    """Turned so that the longest directions come first, then seen along each axis; the sisters are left out."""
    model = models[0] @ np.linalg.svd(models[0])[2].T
    reach = _reach([model])
    with canvas(1, 3, height=2.5) as (figure, axes):
        for ax, pair in zip(axes[0], ([0, 1], [0, 2], [1, 2]), strict=True):
            _frame(ax, reach, f"principal axis {pair[0] + 1}", f"principal axis {pair[1] + 1}")
            _arrows(ax, (0, 0), model[:, pair], painted[0], 2.2)
        figure.suptitle(title)
    return figure


def _reach(models: Sequence[NDArray[Any]]) -> float:
    return 1.35 * max(1.0, *(float(np.linalg.norm(model, axis=1).max()) for model in models))


def _frame(ax: Axes, reach: float, across: str, up: str) -> None:
    """A square about 0, with thin lines through it."""
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel=across, ylabel=up)
    for line in (ax.axhline, ax.axvline):
        line(0, color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
    for ticks in (ax.set_xticks, ax.set_yticks):
        ticks([-1, 0, 1])


def _arrows(ax: Axes, at: tuple[float, float], model: NDArray[Any], colours: Colours, dots: float) -> None:
    x, y = np.full((2, len(model)), np.array(at)[:, None])
    ax.quiver(x, y, *model.T, color=colours, angles="xy", scale_units="xy", scale=1, units="dots", width=dots, zorder=2)


def _name_tips(ax: Axes, model: NDArray[Any], colours: Colours, reach: float) -> None:
    """Numbers at the tips; features that point to the same place share one label."""
    if len(model) > NAMED:
        return
    tips: dict[tuple[float, float], list[str]] = {}
    for number, tip in enumerate(map(tuple, model), start=1):
        if colours[number - 1] != GREY:
            place = next((other for other in tips if math.dist(other, tip) < 0.1 * reach), tip)
            tips.setdefault(place, []).append(str(number))
    for (x, y), names in tips.items():
        away = 1 + 0.14 * reach / math.hypot(x, y)
        ax.text(x * away, y * away, ",".join(names), ha="center", va="center")
