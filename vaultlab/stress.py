"""What becomes of a block's claims when what they should survive is varied, and on nonsense.

The experiment declares the ranges and the control. Variations are spread evenly over all ranges at once (the sequence
of Halton 1960, https://doi.org/10.1007/BF01386213), each with a seed of its own; the first ones of many are those of
few, so that asking for more runs only what is new.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vaultlab import catalogue
from vaultlab.breaks import breaks
from vaultlab.catalogue import Entry
from vaultlab.claims import Known, parse
from vaultlab.notes.answer import Endured, Stress
from vaultlab.result import Ask, Judgement, Point, Result
from vaultlab.verdicts import judge

RUNS = 50
CONTROLS = 5
"""Variations in which the nonsense is tried too."""

_SEEDS = 2**31
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """The variations of a block, and those of them that are nonsense: the fields to lay over it."""

    varied: tuple[Fields, ...]
    nonsense: tuple[Fields, ...]
    entry: Entry
    swept: tuple[str, ...]

    def ask(self, ask: Ask) -> Ask:
        """All of it as the points of one sweep, its numbers only."""
        points = ask.points or ({},)
        laid = tuple({**fields, **point} for fields in (*self.varied, *self.nonsense) for point in points)
        return replace(ask, points=laid, figures=False)

    def found(self, answer: Result, claims: Sequence[str], known: Known) -> Stress:
        """How often each claim held, where it breaks, and whether it holds for nonsense too."""
        each = len(answer.points) // (len(self.varied) + len(self.nonsense))
        chunks = [answer.points[at : at + each] for at in range(0, len(answer.points), each)]
        results = [self._result(answer, chunk) for chunk in chunks]
        count = len(self.varied)
        endured = []
        for claim in claims:
            judged = [judge(parse(claim), result, known) for result in results]
            endured.append(self._endured(claim, judged[:count], judged[count:]))
        control = self.entry.nonsense or {"what": "", "about": ""}
        about = {"nonsense": control["what"], "about": control["about"], "controls": len(self.nonsense)}
        return Stress("", count, varied(self.entry, self.swept), tuple(endured), **about)

    def _result(self, answer: Result, points: Sequence[Point]) -> Result:
        """What the block itself would have answered in this variation."""
        if not self.swept:
            return replace(answer, metrics=points[0].metrics, checks=points[0].checks, points=())
        own = tuple(replace(one, fields={name: one.fields[name] for name in self.swept}) for one in points)
        return replace(answer, points=own, checks=())

    def _endured(self, claim: str, judged: Sequence[Judgement], control: Sequence[Judgement]) -> Endured:
        held = [one.verdict == "supported" for one in judged]
        undecided = sum(one.verdict == "undecided" for one in judged)
        nonsense = sum(one.verdict == "supported" for one in control)
        return Endured(claim, sum(held), undecided, *breaks(self.varied, held), nonsense)


def trial(entry: Entry, own: Fields, swept: Collection[str], runs: int) -> Trial:
    """The variations of a block with the fields `own`, of which `swept` are its sweep's."""
    axes = {name: _axis(entry, name, own) for name in entry.stress if name not in swept}
    seeded = "seed" in entry.fields and "seed" not in swept
    first = own.get("seed", entry.defaults.get("seed")) or 0
    laid: dict[str, Fields] = {}
    for run in range(1, runs + 1):
        fields = {name: axis(_inverse(run, base)) for (name, axis), base in zip(axes.items(), _PRIMES, strict=False)}
        fields |= {"seed": (first + run) % _SEEDS} if seeded else {}
        laid[catalogue.canonical(fields)] = fields
    found = tuple(fields for fields in laid.values() if fields)
    control = entry.nonsense["fields"] if entry.nonsense else {}
    tried = found[:CONTROLS] if control and not set(control) & set(swept) else ()
    return Trial(found, tuple({**fields, **control} for fields in tried), entry, tuple(swept))


def varied(entry: Entry, swept: Collection[str]) -> str:
    """What is varied, in words."""
    said = [f"{name} {catalogue.spread(entry, name)}" for name in entry.stress if name not in swept]
    return ", ".join(said + ["seed anew each time"] * ("seed" in entry.fields and "seed" not in swept))


def _inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point: 6, in base 2 110, becomes 0.011, which is 3/8."""
    value, place = 0.0, 1.0
    while number:
        place /= base
        value += place * (number % base)
        number //= base
    return value


def _axis(entry: Entry, name: str, own: Fields) -> Callable[[float], Any]:
    """From 0 to 1 → a value. The range reaches as far as what the block itself has."""
    values, schema = entry.stress[name], entry.fields[name]
    if not catalogue.is_number(schema):
        return lambda at: values[int(at * len(values))]
    here = _number(own.get(name, entry.defaults[name]))
    low, high = min([values[0], *here]), max([values[1], *here])
    if catalogue.is_whole(schema):
        return lambda at: int(low + at * (high - low + 1))
    decades = low > 0 and high / low >= 10

    def value(at: float) -> float:
        exact: float = low * (high / low) ** at if decades else low + at * (high - low)
        return float(min(max(float(f"{exact:.3g}"), low), high))

    return value


def _number(value: Any) -> list[float]:
    """A field's value as it may be written, 95% too; nothing where it is none."""
    if isinstance(value, str) and value.strip().endswith("%"):
        return [float(value.strip()[:-1]) / 100]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []
