"""What patches move: places over a prompt's tokens with the answer's path, layers, heads, and a head's two parts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, token_axis, visible

Numbers = NDArray[np.floating]

NAMED = 24
"""Token names along an axis at most."""

FLICKER = 10
"""A stretch of a path that is shorter than a tenth of the layers is not named."""

LEAST = 0.1
"""Of the way: where the strongest position of a layer moves less, the path is nowhere."""

LABEL = "moved: 0 base run, 1 donor’s answer"


class Question(NamedTuple):
    """What is asked about, what is patched where, and of how many pairs, so many of them judged."""

    answer: str
    foil: str
    site: str
    direction: str
    pairs: int
    judged: int

    @property
    def name(self) -> str:
        """For a title."""
        several = f", {self.judged} of {self.pairs} pairs" if self.pairs > 1 else ""
        return f"{visible(self.answer)} − {visible(self.foil)}, {self.direction}{several}"

    @property
    def said(self) -> str:
        """In a sentence."""
        of = f"{self.judged} pairs such as " if self.pairs > 1 else ""
        return f"{of}{visible(self.answer)} against {visible(self.foil)} ({self.direction})"


class Stretch(NamedTuple):
    """From the first to the last of these layers the strongest position is this one."""

    first: int
    last: int
    position: int


def path(cells: Numbers) -> list[Stretch]:
    """The strongest position of each layer [layer, pos], layers in a row with the same one together; what moves little,
    or stays for a few layers only, is left out."""
    best = np.abs(cells).argmax(1)
    found: list[Stretch] = []
    for layer, position in enumerate(best.tolist()):
        if abs(cells[layer, position]) < LEAST:
            continue
        if found and found[-1].position == position:
            found[-1] = found[-1]._replace(last=layer)
        else:
            found.append(Stretch(layer, layer, position))
    kept = [one for one in found if one.last - one.first + 1 > len(cells) / FLICKER] or found
    whole: list[Stretch] = []
    for one in kept:  # what stands on both sides of something left out is one
        if whole and whole[-1].position == one.position:
            whole[-1] = whole[-1]._replace(last=one.last)
        else:
            whole.append(one)
    return whole


def _told(stretches: Sequence[Stretch], labels: Sequence[str], layers: int) -> str:
    """The path in words."""
    if not stretches:
        return f"no place moves {LEAST:g} of the way"

    def layer(one: Stretch) -> str:
        if one.first == one.last:
            return f"in layer {one.first}"
        if one.first == 0:
            return f"until layer {one.last}"
        return f"from layer {one.first}" if one.last == layers - 1 else f"in layers {one.first}–{one.last}"

    return ", ".join(f"{visible(labels[one.position])} {layer(one)}" for one in stretches)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _ticks(ax: Axes, axis: str, count: int, most: int = 12) -> None:
    places = range(0, count, -(-count // most))
    (ax.set_xticks if axis == "x" else ax.set_yticks)(places, [str(place) for place in places])


def positions(cells: Numbers, null: Numbers, chosen: Numbers, labels: Sequence[str], question: Question) -> Drawing:
    """[layer, pos] what each place moves, beside unrelated prompts; the path is that of `chosen`."""
    layers, stretches = len(cells), path(chosen)
    most = float(max(np.abs(cells).max(), np.abs(null).max())) or 1.0
    with canvas(1, 2, height=3.4 + 0.12 * layers, sharey=True) as (figure, axes):
        for ax, values, title in ((axes[0, 0], cells, question.site), (axes[0, 1], null, "unrelated prompts")):
            image = heat(ax, values, "", limits=(-most, most), bar=None)
            ax.invert_yaxis()
            ax.set_title(title)
            token_axis(ax, "x", labels, NAMED)
            ax.tick_params(axis="y", length=0)
            ax.spines[:].set_visible(False)
        for one in stretches:
            for colour, width in (("white", 3.2), ("black", 1.6)):  # seen on bright cells and on dark ones
                corner = (one.position - 0.5, one.first - 0.5)
                size = 1, one.last - one.first + 1
                axes[0, 0].add_patch(
                    Rectangle(corner, *size, facecolor="none", edgecolor=colour, linewidth=width, zorder=3)
                )
        axes[0, 0].set(xlabel="token (donor’s|base run’s)", ylabel="layer")
        _ticks(axes[0, 0], "y", layers)
        colour_bar(list(axes[0]), image, LABEL, "top")
        figure.suptitle(f"{question.name}\n{_told(stretches, labels, layers)}")
    layer, place = divmod(int(np.abs(cells).argmax()), cells.shape[1])
    return Drawing(
        figure,
        f"A map, layer by position, of how far {question.site} at each place moves the answer of {question.said}: "
        f"{_told(stretches, labels, layers)}. Furthest: {visible(labels[place])} in layer {layer}, "
        f"{_signed(float(cells[layer, place]))} of the way; from unrelated prompts that place moves "
        f"{_signed(float(null[layer, place]))}.",
    )


def course(
    both: tuple[Numbers, Numbers], drawn: tuple[Numbers, Numbers], labels: Sequence[str], question: Question
) -> Drawing:
    """By layer what the changed tokens together and the last position move; bands: unrelated prompts [draw, layer]."""
    changed = [label for label in labels if "|" in label]
    names = visible(", ".join(changed) if len(changed) <= 3 else f"{len(changed)} changed tokens"), visible(labels[-1])
    layers = np.arange(len(both[0]))
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        for values, null, name, colour in zip(both, drawn, names, PALETTE, strict=False):
            ax.fill_between(layers, null.min(0), null.max(0), color=colour, alpha=0.25, linewidth=0)
            ax.plot(layers, null.mean(0), color=colour, linewidth=1.2, linestyle=":")
            ax.plot(layers, values, color=colour, label=name)
        ax.plot([], [], color=GREY, linewidth=1.2, linestyle=":", label="unrelated prompts")
        ax.axhline(0, color=GREY, linewidth=1)
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--")
        ax.set(xlabel="layer", ylabel="moved")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper center", ncols=3)
        ax.set_title(f"{question.site}: {question.name}")
    middle = len(layers) // 2
    told = "; ".join(
        f"{name} {_signed(float(values[0]))} in layer 0, {_signed(float(values[middle]))} in layer {middle}, "
        f"{_signed(float(values[-1]))} in the last (unrelated prompts {_signed(float(null[:, middle].mean()))} halfway)"
        for values, null, name in zip(both, drawn, names, strict=True)
    )
    return Drawing(figure, f"How far {question.site} moves the answer of {question.said}, by layer: {told}.")


def heads(moved: Numbers, null: Numbers, of_site: Numbers, strongest: Sequence[str], question: Question) -> Drawing:
    """[layer, head] what each head's z moves, and its `site` where it has one, beside unrelated prompts."""
    panels = {"z": moved, **({question.site: of_site} if of_site.size else {}), "unrelated z": null}
    most = max(float(np.abs(values).max()) for values in panels.values()) or 1.0
    places = [tuple(map(int, name[1:].split("H"))) for name in strongest]
    with canvas(1, len(panels), height=2.6 + 0.14 * len(moved), sharey=True) as (figure, axes):
        for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
            image = heat(ax, values, "", limits=(-most, most), bar=None)
            ax.invert_yaxis()
            ax.set_title(title)
            ax.set_xlabel("key/value head" if values.shape[1] < moved.shape[1] else "head")
            _ticks(ax, "x", values.shape[1], 6)
            ax.tick_params(axis="y", length=0)
            ax.spines[:].set_visible(False)
        for layer, head in places:
            corner = (head - 0.5, layer - 0.5)
            axes[0, 0].add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor="black", linewidth=1.6))
        axes[0, 0].set_ylabel("layer")
        _ticks(axes[0, 0], "y", len(moved))
        colour_bar(list(axes[0]), image, LABEL, "top")
        said = [f"{name} {_signed(float(moved[place]))}" for name, place in zip(strongest, places, strict=True)]
        figure.suptitle(f"{question.name}\n{', '.join(said[:4])}")
    return Drawing(
        figure,
        f"A map, layer by head, of how far each of {moved.size} heads alone moves the answer of {question.said}. "
        f"Strongest: {', '.join(said)}; from unrelated prompts no head moves it by more than {np.abs(null).max():.2f}.",
    )


def alone(strongest: Sequence[str], moved: Numbers, drawn: Numbers, question: Question) -> Drawing:
    """[kind, head] the pattern alone, the values alone, both; whiskers: unrelated prompts [draw, kind, head]."""
    kinds = ("pattern alone", "values alone", "both (z)")
    typical = np.sqrt(np.square(drawn).mean(0))
    with canvas(height=1.9 + 0.55 * len(strongest)) as (figure, axes):
        ax = axes[0, 0]
        rows = np.arange(len(strongest))
        for at, (kind, values, colour) in enumerate(zip(kinds, moved, PALETTE, strict=False)):
            place = rows + 0.26 * (at - 1)
            ax.barh(place, values, height=0.24, color=colour, label=kind)
            ax.errorbar(
                np.zeros(len(rows)), place, xerr=typical[at], fmt="none", ecolor=GREY, elinewidth=1.5, capsize=2,
                label="unrelated prompts" if at == 2 else None,
            )  # fmt: skip
        ax.axvline(0, color=GREY, linewidth=1)
        ax.set_yticks(rows, list(strongest))
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(LABEL)
        figure.legend(loc="outside upper center", ncols=2)
        ax.set_title(question.name)
    told = "; ".join(
        f"{name} {', '.join(f'{kind} {_signed(float(value))}' for kind, value in zip(kinds, column, strict=True))}"
        for name, column in zip(strongest, moved.T, strict=True)
    )
    return Drawing(figure, f"What the strongest heads move for {question.said}, taken apart: {told}.")
