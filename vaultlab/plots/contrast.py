"""Figures of two sets of texts: a number layer by layer at several sites, beside what shuffled labels leave."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas


class Lines(NamedTuple):
    """`sites`: name → a value a layer, the stream first; `null` the ends of nine in ten shuffles there; `interval` and
    `expected`, a value that chance alone gives, where there are such."""

    sites: dict[str, NDArray[Any]]
    null: NDArray[Any]
    interval: NDArray[Any] | None = None
    expected: float | None = None


def draw_by_layer(lines: Lines, label: str, said: str) -> Drawing:
    first = next(iter(lines.sites))
    layers = np.arange(len(lines.sites[first]))
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        ax.fill_between(layers, *lines.null, color=GREY, alpha=0.3, linewidth=0, label=f"shuffled, 9 in 10 ({first})")
        if lines.expected is not None:
            ax.axhline(lines.expected, color=GREY, linestyle="--", linewidth=1.2, label="shuffled, on average")
        if lines.interval is not None:
            ax.fill_between(layers, *lines.interval, color=PALETTE[0], alpha=0.25, linewidth=0)
        for number, (name, values) in enumerate(lines.sites.items()):
            style: dict[str, Any] = {"marker": "o", "markersize": 4} if name == first else {"linewidth": 1.3}
            ax.plot(layers, values, color=PALETTE[number], label=name, **style)
        ax.set(xlabel="layer", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left", ncols=2)
    values = lines.sites[first]
    most, least = int(values.argmax()), int(values.argmin())
    return Drawing(
        figure,
        f"{said} At {first}: largest {values[most]:.3g} in layer {most}, least {values[least]:.3g} in layer {least}; "
        f"shuffled labels there {lines.null[0, most]:.2g} to {lines.null[1, most]:.2g}.",
    )
