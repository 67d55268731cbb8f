"""Where a claim breaks: among variations in which it held or broke, the values of a field where it breaks more. Pure.

One field is divided by one bound, the one that tells broken from held best (by likelihood); what it leaves is divided
again. A bound is named only where fewer than a twentieth of all ways to shuffle broken and held have one as good.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, groupby
from typing import Any, NamedTuple

SURE = 0.05

_SHUFFLES, _CONDITIONS = 1000, 3


class Breaks(NamedTuple):
    """Where, and how often there and elsewhere; both empty where it never breaks. `seed` is no place."""

    where: str = ""
    counts: str = ""


class _Side(NamedTuple):
    """A stretch of the variations in the order of a field, and what it is in words."""

    start: int
    stop: int
    words: str


class _Found(NamedTuple):
    gain: float
    words: str
    inside: frozenset[int]


Order = list[int]


def breaks(variations: Sequence[Mapping[str, Any]], held: Sequence[bool]) -> Breaks:
    """In words.

    >>> breaks([{"n": n} for n in range(20)], [n >= 5 for n in range(20)])
    Breaks(where='where n < 5', counts='5 of 5 there, 0 of 15 elsewhere')
    """
    left: list[int] = list(range(len(held)))
    said: list[str] = []
    while len(said) < _CONDITIONS and not all(held[at] for at in left):
        sides = _sides(variations, left)
        found = _best(sides, held)
        if found is None or not _sure(sides, held, left, found.gain):
            break
        said.append(found.words)
        left = [at for at in left if at not in found.inside]
    broken, rest = held.count(False), sum(not held[at] for at in left)
    if not said:
        return Breaks("at no value in particular") if rest else Breaks()
    there = f"{broken - rest} of {len(held) - len(left)} there"
    return Breaks(f"where {' or '.join(said)}", f"{there}, {rest} of {len(left)} elsewhere")


def _sides(variations: Sequence[Mapping[str, Any]], left: Sequence[int]) -> list[tuple[Order, list[_Side]]]:
    """Of every field: what is left in its order, and each way to cut a side off."""
    found = []
    for name in variations[0]:
        values = {at: variations[at][name] for at in left}
        number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values.values())
        order = sorted(left, key=values.__getitem__ if number else lambda at, by=values: str(by[at]))
        stretches = [[values[at] for at in same] for _, same in groupby(order, key=values.__getitem__)]
        ends = list(accumulate(map(len, stretches)))
        sides: list[_Side] = []
        for place, (stretch, end) in enumerate(zip(stretches, ends, strict=True)):
            if not number:
                sides.append(_Side(end - len(stretch), end, f"{name} is {str(stretch[0]).lower()}"))
            elif place:
                bound = _between(stretches[place - 1][0], stretch[0])
                start = end - len(stretch)
                sides += [_Side(0, start, f"{name} < {bound}"), _Side(start, len(order), f"{name} ≥ {bound}")]
        if name != "seed" and len(stretches) > 1:
            found.append((order, sides))
    return found


def _best(sides: Sequence[tuple[Order, list[_Side]]], held: Sequence[bool]) -> _Found | None:
    """The side that tells most, if it has a larger share of broken ones than what is outside."""
    best = max(_gains(sides, held), key=lambda one: one[0], default=None)
    if best is None:
        return None
    gain, order, side = best
    return _Found(gain, side.words, frozenset(order[side.start : side.stop]))


def _gains(sides: Sequence[tuple[Order, list[_Side]]], held: Sequence[bool]) -> Iterator[tuple[float, Order, _Side]]:
    for order, those in sides:
        count = len(order)
        broken = [0, *accumulate(not held[at] for at in order)]
        for side in those:
            inside, there = side.stop - side.start, broken[side.stop] - broken[side.start]
            if there * count > broken[-1] * inside:
                outside = _likelihood(broken[-1] - there, count - inside)
                yield _likelihood(there, inside) + outside - _likelihood(broken[-1], count), order, side


@cache
def _likelihood(broken: int, count: int) -> float:
    """Of so many broken ones among so many, at the share that they have; as a logarithm."""
    return sum(part * math.log(part / count) for part in (broken, count - broken) if part)


def _sure(sides: Sequence[tuple[Order, list[_Side]]], held: Sequence[bool], left: Sequence[int], gain: float) -> bool:
    draw, as_good = random.Random(0), 0
    shuffled = list(held)
    for _ in range(_SHUFFLES):
        for at, one in zip(left, draw.sample([held[at] for at in left], len(left)), strict=True):
            shuffled[at] = one
        as_good += max((one[0] for one in _gains(sides, shuffled)), default=0.0) >= gain - 1e-9
    return as_good < SURE * _SHUFFLES


def _between(low: float, high: float) -> str:
    """The bound with fewest digits: above the one, and not above the other. A whole number stays one."""
    if isinstance(high, int):
        return str(high)
    for digits in range(1, 18):
        for number in (float(f"{(low + high) / 2:.{digits}g}"), float(f"{high:.{digits}g}")):
            if low < number <= high:
                return f"{number:g}" if float(f"{number:g}") == number else repr(number)
    return repr(high)
