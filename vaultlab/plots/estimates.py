"""An estimate beside what it estimates: place by place as two maps, and all places as dots about the diagonal."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, token_axis, visible

Numbers = NDArray[np.floating]

NAMED = 24
"""Token names along an axis at most."""

NOTICED = 0.02
"""A dot nearer to the diagonal than this share of it lies on it for every eye, and is not named."""


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def maps(estimate: Numbers, true: Numbers, labels: Sequence[str], title: str) -> Drawing:
    """[layer, pos] side by side on one scale, the first layer at the bottom."""
    most = float(max(np.abs(estimate).max(), np.abs(true).max())) or 1.0
    with canvas(1, 2, height=3.2 + 0.12 * len(true), sharey=True) as (figure, axes):
        for ax, values, name in ((axes[0, 0], estimate, "estimated"), (axes[0, 1], true, "patched")):
            image = heat(ax, values, "", limits=(-most, most), bar=None)
            ax.invert_yaxis()
            ax.set_title(name)
            token_axis(ax, "x", labels, NAMED)
            ax.tick_params(axis="y", length=0)
            ax.spines[:].set_visible(False)
        axes[0, 0].set(xlabel="token (donor’s|base run’s)", ylabel="layer")
        places = range(0, len(true), -(-len(true) // 12))
        axes[0, 0].set_yticks(places, [str(place) for place in places])
        colour_bar(list(axes[0]), image, "moved: 0 base run, 1 donor’s answer", "top")
        figure.suptitle(title)
    layer, place = divmod(int(np.abs(estimate - true).argmax()), true.shape[1])
    return Drawing(
        figure,
        f"Two maps, layer by position, of {title}: what a gradient estimates and what patching moves. Furthest apart: "
        f"{visible(labels[place])} in layer {layer}, estimated {_signed(float(estimate[layer, place]))}, patched "
        f"{_signed(float(true[layer, place]))}.",
    )


def _named(ax: Axes, name: str, estimate: float, true: float, line: int) -> None:
    """The name of a dot, tied to it from the corner on its side of the diagonal, where no dots are."""
    above = true > estimate
    corner = (0.03, 0.97 - 0.08 * line) if above else (0.97, 0.03 + 0.08 * line)
    ax.annotate(
        name,
        (estimate, true),
        corner,
        textcoords="axes fraction",
        ha="left" if above else "right",
        va="top" if above else "bottom",
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.8, "shrinkB": 3},
    )


def scatter(kinds: Mapping[str, tuple[Numbers, Numbers, str]], title: str) -> Drawing:
    """Kind → estimates, what was patched, and the name of the place where they are furthest apart."""
    every = np.concatenate([np.concatenate(pair[:2]) for pair in kinds.values()])
    low, high = float(every.min()), float(every.max())
    told: list[str] = []
    with canvas(height=5.2) as (figure, axes):
        ax = axes[0, 0]
        for (kind, (estimate, true, worst)), colour in zip(kinds.items(), PALETTE, strict=False):
            ax.scatter(estimate, true, s=22, color=colour, alpha=0.7, linewidths=0, label=kind)
            at = int(np.abs(estimate - true).argmax())
            if abs(estimate[at] - true[at]) > NOTICED * (high - low):
                _named(ax, worst, float(estimate[at]), float(true[at]), len(told))
            told.append(f"{kind}: {worst} estimated {_signed(float(estimate[at]))}, patched {_signed(float(true[at]))}")
        ax.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="equal")
        ax.set(xlabel="estimated from the gradient", ylabel="moved by patching")
        figure.legend(loc="outside upper center", ncols=3)
        ax.set_title(title)
    return Drawing(
        figure, f"What a gradient estimates against what patching moves, {title}. Furthest apart: {'; '.join(told)}."
    )
