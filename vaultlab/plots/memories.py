"""Figures of memories: prefixes with the token that wakes one, the tokens that a value pushes, how peaked keys are."""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from functools import cache, lru_cache, partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from numpy.typing import NDArray

from vaultlab.plots.style import GREY, PALETTE, WIDTH, Drawing, canvas, log_axis, visible

WAKES, MEETS, OPPOSITE = PALETTE[0], PALETTE[1], PALETTE[2]
SPACE = 0.88 * 72 * WIDTH
"""Points that an axes is wide, where another one above or below has labels on its left."""


class Line(NamedTuple):
    """A trigger: what stands before the waking token, that token, and the one that came next."""

    before: str
    token: str
    after: str


def fitted(text: str, points: float, *, end: bool = False) -> str:
    """As much of a text as fits into a width, from its beginning or up to its `end`; … for what is left out."""
    most = int(points)  # no character is narrower than a point
    kept = visible(text[-most:] if end else text[:most])
    if len(text) <= most and _width(kept) <= points:
        return kept
    # near the end from the characters alone, and from there with their kerning: laying out a line takes a while
    near = bisect_right(list(accumulate(map(_width, reversed(kept) if end else kept))), points - _width("…"))
    fits = partial(_fits, kept, points, end)
    count = next((one for one in range(near, len(kept)) if not fits(one + 1)), len(kept))
    while count and not fits(count):
        count -= 1
    return "…" + _cut(kept, count, end) if end else _cut(kept, count, end) + "…"


def _fits(text: str, points: float, end: bool, count: int) -> bool:
    return _width("…" + _cut(text, count, end)) <= points


def _cut(text: str, count: int, end: bool) -> str:
    return text[len(text) - count :] if end else text[:count]


@cache
def _font() -> ft2font.FT2Font:
    font = ft2font.FT2Font(font_manager.findfont("DejaVu Sans"))
    font.set_size(12, 72)
    return font


@lru_cache(4096)
def _width(text: str) -> float:
    _font().set_text(text, 0)
    return float(_font().get_width_height()[0]) / 64


def _blank(ax: Axes, rows: float) -> None:
    ax.set(xlim=(0, 1), ylim=(rows, 0), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _write(ax: Axes, text: str, place: tuple[float, float], colour: str = GREY, **more: Any) -> Annotation:
    written = ax.annotate(text, place, color=colour, **{"va": "center", **more})
    written.set_in_layout(False)  # what stands inside an axes must not shrink it
    return written


def _behind(ax: Axes, before: Annotation, text: str, colour: str, gap: float) -> Annotation:
    """A text right behind another one."""
    return _write(ax, text, (1, 0), colour, xycoords=before, xytext=(gap, 0), textcoords="offset points", va="bottom")


def _concordance(ax: Axes, row: float, line: Line, at: float, meets: bool) -> None:
    """A trigger on a line of its own, the waking token starting at `at`, a share of the width."""
    _write(ax, fitted(line.before, SPACE * at - 4, end=True), (at, row), ha="right")
    token = _write(ax, fitted(line.token, 90), (at, row), WAKES, weight="bold")
    _behind(ax, token, f"→ {fitted(line.after, 90)}", MEETS if meets else GREY, 5)


def draw_page(
    name: str, lines: Sequence[Line], strengths: Sequence[float], tokens: Sequence[str], pushes: Sequence[float]
) -> Drawing:
    """One memory: its triggers with their strengths as bars, and the tokens that its value pushes at the strongest."""
    rows = len(lines)
    with canvas(2, height=0.9 + 0.29 * rows + 2.7, height_ratios=[0.29 * rows + 0.35, 2.6]) as (figure, axes):
        ax = axes[0, 0]
        _blank(ax, rows - 0.4)
        ax.set_ylim(rows - 0.4, -1.5)
        _write(ax, f"{name}:", (0.44, -1), ha="right")
        token = _write(ax, "wakes at", (0.45, -1), WAKES, weight="bold")
        _behind(ax, token, "→ next", GREY, 5)
        _write(ax, "strength (× mean)", (1, -1), ha="right")
        most = max(map(abs, strengths))
        for row, (line, strength) in enumerate(zip(lines, strengths, strict=True)):
            _concordance(ax, row, line, 0.44, line.after in tokens)
            length, colour = 0.14 * abs(strength) / most, WAKES if strength > 0 else OPPOSITE
            ax.barh(row, length, left=0.76, height=0.6, color=colour)
            _write(ax, f"{strength:.3g}".replace("-", "−"), (0.77 + length, row))
        _draw_pushes(axes[1, 0], tokens, pushes, {line.after for line in lines})
    return Drawing(figure, _said_page(name, lines, tokens, pushes))


def _draw_pushes(ax: Axes, tokens: Sequence[str], pushes: Sequence[float], came: set[str]) -> None:
    place = np.arange(len(tokens))
    ax.barh(place, pushes, height=0.65, color=[MEETS if token in came else GREY for token in tokens])
    ax.set_yticks(place, [fitted(token, 120) for token in tokens])
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("push on the logit at the strongest trigger (nats)")


def _said_page(name: str, lines: Sequence[Line], tokens: Sequence[str], pushes: Sequence[float]) -> str:
    wakes = ", ".join(dict.fromkeys(visible(line.token) for line in lines))
    met = sum(line.after in tokens for line in lines)
    return (
        f"The {len(lines)} strongest triggers of {name} end in {wakes}. Its value pushes {visible(tokens[0])} most, by "
        f"{pushes[0]:.2g} nats, then {', '.join(map(visible, tokens[1:4]))}; in {met} of the triggers what came next "
        f"is among its first {len(tokens)} tokens."
    )


def draw_meeting(name: str, lines: Sequence[Line], came: Sequence[float], most: Sequence[float]) -> Drawing:
    """Where one memory's key and value meet: at each trigger its push on what came next, and on its own top token."""
    place = np.arange(len(lines))
    with canvas(height=1.5 + 0.29 * len(lines)) as (figure, axes):
        ax = axes[0, 0]
        ax.axvline(0, color=GREY, linewidth=0.8)
        ax.hlines(place, came, most, color=GREY, linewidth=1)
        ax.plot(most, place, "o", color=GREY, fillstyle="none", markersize=11, label="the token it pushes most")
        ax.plot(came, place, "o", color=MEETS, markersize=7, label="the token that came next")
        ax.set_yticks(place, [f"{fitted(line.token, 80)} → {fitted(line.after, 80)}" for line in lines])
        ax.set_ylim(len(lines) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel(f"push of {name} at each trigger (nats)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, columnspacing=1, handletextpad=0.2)
    share = float(np.median(np.array(came) / np.array(most)))
    best = max(range(len(lines)), key=came.__getitem__)
    return Drawing(
        figure,
        f"At its {len(lines)} strongest triggers {name} pushes the token that came next by {share:.0%} (median) of "
        f"what it pushes most; furthest {visible(lines[best].after)} after {visible(lines[best].token)}, by "
        f"{came[best]:.2g} nats.",
    )


class Row(NamedTuple):
    """A memory in a list of them: its name, its strongest trigger, and the tokens that it pushes there, in nats."""

    name: str
    line: Line
    tokens: Sequence[str]
    pushes: Sequence[float]


def draw_layer(name: str, ranks: NDArray[np.integer], chance: NDArray[np.integer], rows: Sequence[Row]) -> Drawing:
    """How soon the next token comes in the value, key by key, and the memories that push hardest."""
    with canvas(2, height=2.9 + 0.62 * len(rows), height_ratios=[2.5, 0.62 * len(rows)]) as (figure, axes):
        ax = axes[0, 0]
        for values, colour, style, label in (
            (ranks, MEETS, "-", "what came next"),
            (chance, GREY, "--", "that of another key (shuffled)"),
        ):
            ax.step(*_share_within(values), where="post", color=colour, linestyle=style, label=label)
        log_axis(ax, "x")
        log_axis(ax, "y")
        ax.set(xlabel=f"among the value's first r tokens ({name})", ylabel="share of keys")
        ax.legend(loc="upper left")
        agreement = float(np.mean(ranks == 1))
        if agreement:
            ax.plot(1, agreement, "o", color=MEETS, clip_on=False)
        _draw_rows(axes[1, 0], rows, None)
    return Drawing(
        figure,
        f"In {name} the token that came next after a key's strongest trigger is its value's top token for "
        f"{agreement:.2%} of {len(ranks)} keys, among the first 100 for {np.mean(ranks <= 100):.2%} "
        f"(shuffled: {np.mean(chance <= 100):.2%}). Of those that push hardest, {_said_rows(rows)}.",
    )


def _short(line: Line) -> str:
    return fitted(line.before + line.token, 200, end=True)


def _share_within(ranks: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """At each rank that occurs, the share of keys up to it."""
    places, counts = np.unique(ranks, return_counts=True)
    return places, counts.cumsum() / ranks.size


def _said_rows(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.name} wakes at {_short(row.line)} and pushes {visible(row.tokens[0])}" for row in rows[:4])


def draw_memories(title: str, rows: Sequence[Row], wanted: Collection[str] | None = None) -> Drawing:
    """A list of memories, each with a trigger and what it pushes there. Marked is what came next, where it is among
    what is pushed; or, if there are some, the tokens that are `wanted`."""
    with canvas(height=0.3 + 0.62 * len(rows)) as (figure, axes):
        _draw_rows(axes[0, 0], rows, wanted)
    return Drawing(figure, f"{title}: {_said_rows(rows)}.")


def _draw_rows(ax: Axes, rows: Sequence[Row], wanted: Collection[str] | None) -> None:
    _blank(ax, len(rows))
    for place, row in enumerate(rows):
        ax.axhline(place, color=GREY, linewidth=0.5)
        marked = {row.line.after} if wanted is None else wanted
        met = row.line.after in (row.tokens[:1] if wanted is None else wanted)
        _concordance(ax, place + 0.28, row.line, 0.6, met)
        last = _write(ax, f"{row.name}: {row.pushes[0]:+.1f} nats", (0.02, place + 0.73))
        left = 0.95 * SPACE - _width(last.get_text())
        for token in row.tokens:
            shown = fitted(token, 100)
            left -= _width(shown) + 11
            if left < 0:
                break
            last = _behind(ax, last, shown, MEETS if token in marked else GREY, 10)


def draw_triggers(
    peak: NDArray[np.floating], null_peak: float, same: NDArray[np.floating], null_same: float, top: int
) -> Drawing:
    """How peaked keys are, and how many of their triggers end in one token, each beside what chance gives."""
    with canvas(1, 2, height=3.2) as (figure, axes):
        left, right = axes[0]
        low, high = min(peak.min(), null_peak), max(peak.max(), null_peak)
        left.hist(peak, bins=np.geomspace(low * 0.95, high * 1.05, 31), color=WAKES)
        left.axvline(null_peak, color=GREY, linestyle="--", linewidth=1.2, label="normal law")
        log_axis(left, "x")
        left.set(xlabel="strongest trigger (× the mean)", ylabel="keys")
        left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
        count = np.bincount(np.rint(same * top).astype(int), minlength=top + 1)[1:]
        right.bar(np.arange(1, top + 1), count / len(same), width=0.75, color=WAKES)
        right.axvline(null_same * top, color=GREY, linestyle="--", linewidth=1.2, label="random tokens")
        right.set(xlabel=f"of {top} triggers, same token", ylabel="share of keys")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return Drawing(
        figure,
        f"The strongest trigger of {len(peak)} keys is at {np.median(peak):.3g} × the mean strength (median; normal "
        f"law: {null_peak:.3g}). On average {same.mean():.0%} of a key's {top} triggers end in one token "
        f"(random tokens: {null_same:.0%}); for {np.mean(same == 1):.1%} of the keys all do.",
    )
