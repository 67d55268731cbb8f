"""Whether a metric rises along a field, by what its spread allows. Pure.

Every pair of values along the field is compared, as Kendall's rank correlation does, but a pair counts only beyond its
spread: the 95 % interval of its difference, made wider so that all pairs together are wrong in 5 % of cases
(Bonferroni), lies above 0 or below it.

    supported   the last value is above the first, and no pair falls
    refuted     some pair falls, or none can rise: the same number everywhere
    undecided   else: the spread allows both

With seeds a difference is taken seed by seed, and its interval is Student's over the seeds. Without, the two intervals
make it: their ends add in squares (Zou and Donner 2008, section 2, https://doi.org/10.1002/sim.3095), which is wider
than need be where both runs read the same text. Where nothing repeats no spread is known: the numbers as they are.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from functools import cache
from statistics import NormalDist
from typing import NamedTuple

from vaultlab.result import Span, Verdict

ERROR = 0.05
"""How often all pairs together may be wrong."""


class Spot(NamedTuple):
    """A metric at one value of the field: the number, its 95 % interval, and the number in every seed."""

    value: float
    interval: Span
    seeds: tuple[float, ...] = ()

    @property
    def mirrored(self) -> "Spot":
        """What falls, rises in the mirror."""
        low, high = self.interval
        return Spot(-self.value, (-high, -low), tuple(-one for one in self.seeds))


class Trend(NamedTuple):
    """`up` of all `pairs` rise; `down` are the places of the pair that falls most, `seeds` how many are compared."""

    verdict: Verdict
    up: int
    pairs: int
    down: tuple[int, int] | None
    seeds: int


def rising(groups: Sequence[Sequence[Spot]]) -> list[Trend]:
    """Whether each group rises from its first spot to its last; the pairs of all groups share the error."""
    pairs = sum(math.comb(len(group), 2) for group in groups)
    return [_rising(group, pairs) for group in groups]


def _rising(group: Sequence[Spot], comparisons: int) -> Trend:
    seeds = min(len(spot.seeds) for spot in group)
    paired = seeds > 1 and all(len(spot.seeds) == seeds for spot in group)
    spans = _by_seed(group, comparisons) if paired else _by_interval(group, comparisons)
    up, level, whole, worst, down = 0, True, False, 0.0, None
    for (i, j), (low, high) in zip(itertools.combinations(range(len(group)), 2), spans, strict=True):
        up += low > 0
        whole = whole or (low > 0 and j - i == len(group) - 1)
        level = level and high <= 0
        if high < worst:
            worst, down = high, (i, j)
    verdict: Verdict = "refuted" if down or level else "supported" if whole else "undecided"
    return Trend(verdict, up, math.comb(len(group), 2), down, seeds if paired else 0)


def _by_interval(group: Sequence[Spot], comparisons: int) -> Iterator[Span]:
    wider = NormalDist().inv_cdf(1 - ERROR / 2 / comparisons) / NormalDist().inv_cdf(0.975)
    below = [wider * (spot.value - spot.interval[0]) for spot in group]
    above = [wider * (spot.interval[1] - spot.value) for spot in group]
    for i, j in itertools.combinations(range(len(group)), 2):
        change = group[j].value - group[i].value
        yield change - math.hypot(below[j], above[i]), change + math.hypot(above[j], below[i])


def _by_seed(group: Sequence[Spot], comparisons: int) -> Iterator[Span]:
    count = len(group[0].seeds)
    reach = student(count - 1, 1 - ERROR / 2 / comparisons) / math.sqrt(count)
    for a, b in itertools.combinations(group, 2):
        changes = [there - here for here, there in zip(a.seeds, b.seeds, strict=True)]
        change = math.fsum(changes) / count
        spread = math.sqrt(math.fsum((one - change) ** 2 for one in changes) / (count - 1))
        yield change - reach * spread, change + reach * spread


@cache
def student(freedom: int, probability: float) -> float:
    """The quantile of Student's distribution above its middle, by halving on its closed form for whole degrees."""
    low, high = 0.0, math.pi / 2  # the angle whose tangent is t / √freedom
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _below(freedom, middle) < probability else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _below(freedom: int, angle: float) -> float:
    """P(T < t), Abramowitz and Stegun (1964), 26.7.3 and 26.7.4."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = 0.0
    if freedom > 1:
        term = total = cosine if odd else 1.0
    for step in range(2 + odd, freedom - 1, 2):
        term *= (step - 1) / step * cosine**2
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2
