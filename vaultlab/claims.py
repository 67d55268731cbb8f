"""`represented = 5 in 90% of seeds`: a sentence → a Claim, and whether it can be judged at all. Pure.

    [every|any|max|min|mean [of]] metric = != < <= > >= value [+- tolerance] [in P% of seeds]
    [every|any|max|min|mean [of]] metric between a and b [in P% of seeds]
    [every|any|max|min|mean [of]] metric rises|falls with field

Values may be percentages. A bare `=` means the digits written: `= 0.40` is 0.395 to 0.405, `= 5` is 4.5 to 5.5, which
for a count is 5 and nothing else. Over a sweep an aggregate is over all points too, and a claim without one must hold
at every point. What `rises` means, `trend.py` says; where other fields are swept too, it must rise for every
combination of them, with `any` for one. What the verdict is, `verdicts.py` says.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NoReturn, cast

from vaultlab.errors import NoteError
from vaultlab.result import Span, Verdict

Known = Mapping[str, Mapping[str, str]]
"""The metrics of an experiment: name → the aggregates that an identity forces, with why (mostly empty)."""

Aggregate = Literal["every", "any", "max", "min", "mean"]

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?:\s*%)?"
_CLAIM = re.compile(
    rf"""(?:(?P<aggregate>every|any|max|min|mean)\s+(?:of\s+)?)?
    (?P<metric>[A-Za-z_][\w.]*)
    (?: \s+(?P<trend>rises|falls)\s+with\s+(?P<field>[A-Za-z_][\w-]*)
      | (?: \s+between\s+(?P<low>{_NUMBER})\s+and\s+(?P<high>{_NUMBER})
          | \s*(?P<op><=|>=|!=|=|<|>)\s*(?P<value>{_NUMBER})(?:\s*\+-\s*(?P<tolerance>{_NUMBER}))? )
        (?:\s+in\s+(?P<share>{_NUMBER})\s+of\s+seeds)?
    )""",
    re.VERBOSE,
)
_FORM = (
    "A claim reads like `loss < 0.01`, `every norm = 0.40 +- 0.02`, "
    "`max of loss between 0 and 1 in 90% of seeds`, or over a sweep `loss falls with hidden`: beyond the spread it is "
    "lower at the end than at the beginning, and nowhere higher than before."
)
_SIGNS = {"−": "-", "±": "+-", "+/-": "+-", "≤": "<=", "≥": ">=", "≠": "!="}
_WORDS = ("every", "any", "max", "min", "mean", "between", "and", "rises", "falls", "with", "seeds", "of", "in")
_MEANT = {
    **dict.fromkeys(("==", "is", "equals", "equal", "are", ":"), "="),
    **dict.fromkeys(("below", "under", "less", "smaller"), "<"),
    **dict.fromkeys(("above", "over", "more", "greater", "larger", "exceeds"), ">"),
    **dict.fromkeys(("<>", "not", "isn't"), "!="),
    **dict.fromkeys(("increases", "grows", "rise", "up"), "rises"),
    **dict.fromkeys(("decreases", "shrinks", "fall", "drops", "down"), "falls"),
    **dict.fromkeys(("all", "each"), "every"),
    **dict.fromkeys(("some", "one"), "any"),
    **dict.fromkeys(("average", "avg", "median"), "mean"),
    **dict.fromkeys(("maximum", "largest", "highest"), "max"),
    **dict.fromkeys(("minimum", "smallest", "lowest"), "min"),
    **dict.fromkeys(("about", "around", "≈", "~"), "= … +- …"),
    **dict.fromkeys(("=<", "at most"), "<="),
    **dict.fromkeys(("=>", "at least"), ">="),
}


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers from `low` to `high`, both among them; `outside`: all the others."""

    low: float
    high: float
    outside: bool = False

    def verdict(self, span: Span) -> Verdict:
        """Supported if all of the span is in, refuted if nothing of it is, else undecided."""
        within = self.low <= span[0] and span[1] <= self.high
        apart = span[1] < self.low or span[0] > self.high
        if self.outside:
            within, apart = apart, within
        return "supported" if within else "refuted" if apart else "undecided"


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of `expect:`, its white space made single. Either `range` is set, or `trend` and `field` are.

    `share` is the P of `in P% of seeds`; `rounded` says that a whole number was written behind a bare `=` or `!=`.
    """

    text: str
    metric: str
    aggregate: Aggregate | None = None
    range: Range | None = None
    share: Fraction | None = None
    trend: Literal["rises", "falls"] | None = None
    field: str = ""
    rounded: bool = False


def parse(sentence: str) -> Claim:
    """A sentence → a Claim. NoteError names the nearest right word and the form."""
    text = " ".join(sentence.split())
    plain = text
    for sign, ascii_sign in _SIGNS.items():
        plain = plain.replace(sign, ascii_sign)
    match = _CLAIM.fullmatch(plain)
    if match is None:
        raise NoteError(f"The claim `{text}` could not be read.", f"{_nearest_word(text)}{_FORM}", field="expect")
    said = match.groupdict()
    aggregate = cast(Aggregate | None, said["aggregate"])
    claim = Claim(text, said["metric"], aggregate, share=_share(text, said["share"]))
    if said["trend"]:
        return replace(claim, trend=cast(Literal["rises", "falls"], said["trend"]), field=said["field"])
    if said["low"]:
        low, high = _numbers(text, said["low"], said["high"])
        if low > high:
            wrong(text, "the first number is the larger one.", f"Write `between {said['high']} and {said['low']}`.")
        return replace(claim, range=Range(float(low), float(high)))
    written = said["value"].replace(" ", "")
    bare = said["op"] in ("=", "!=") and said["tolerance"] is None
    rounded = bare and not written.endswith("%") and "." not in written and "e" not in written.lower()
    return replace(claim, range=_range(text, said["op"], written, said["tolerance"]), rounded=rounded)


def _range(text: str, op: str, written: str, tolerance: str | None) -> Range:
    if tolerance is not None:
        if op not in ("=", "!="):
            wrong(text, f"`+-` does not go with `{op}`.", "Use it with `=`, or leave it out.")
        value, give = _numbers(text, written, tolerance)
        if give < 0:
            wrong(text, "a tolerance is not negative.", f"Write `+- {tolerance.lstrip('-')}`.")
    else:
        value = _number(written)
        give = Decimal((0, (5,), cast(int, value.as_tuple().exponent) - 1))
    match op:
        case "=" | "!=":
            # Decimal, so that 0.40 ends at the float that is written 0.405, not at the one beside it.
            return Range(float(value - give), float(value + give), outside=op == "!=")
        case "<=":
            return Range(-math.inf, float(value))
        case "<":
            return Range(-math.inf, math.nextafter(float(value), -math.inf))
        case ">=":
            return Range(float(value), math.inf)
        case _:
            return Range(math.nextafter(float(value), math.inf), math.inf)


def _number(written: str) -> Decimal:
    percent = written.endswith("%")
    return Decimal(written.rstrip("% ")).scaleb(-2 if percent else 0)


def _numbers(text: str, one: str, other: str) -> tuple[Decimal, Decimal]:
    if one.endswith("%") != other.endswith("%"):
        wrong(text, f"{one} and {other} are not written alike.", "Write both with % or both without.")
    return _number(one), _number(other)


def _share(text: str, written: str | None) -> Fraction | None:
    if written is None:
        return None
    share = Fraction(_number(written))
    if not written.endswith("%") or not 0 < share <= 1:
        wrong(text, f"{written} is no share of the seeds.", "Write it as `in 90% of seeds`, above 0% and up to 100%.")
    return share


def _nearest_word(text: str) -> str:
    for word in re.findall(r"[^\W\d]+(?:'\w+)?|[<>=!~≈:]+", text):
        meant = _MEANT.get(word.lower())
        if meant is None and word not in _WORDS:
            meant = next(iter(difflib.get_close_matches(word.lower(), _WORDS, 1, 0.75)), None)
        if meant is not None:
            return f"Did you mean `{meant}` where it says `{word}`? "
    return ""


def wrong(text: str, what: str, mend: str) -> NoReturn:
    """The error of a claim: what is wrong in it, and how to write it."""
    raise NoteError(f"In the claim `{text}`, {what}", mend, field="expect")


def check(claim: Claim, known: Known, points: Sequence[Mapping[str, Any]] | None = None) -> None:
    """NoteError where the claim names a metric that the experiment has not, or a field that the block does not sweep.

    Works before anything has run. `points` are the swept fields of every point; None where they are not known.
    """
    if claim.metric not in known:
        near = difflib.get_close_matches(claim.metric.lower(), known, 1, 0.5)
        listed = f"The metrics are {', '.join(sorted(known))}."
        wrong(
            claim.text,
            f"there is no metric called `{claim.metric}`.",
            f"Did you mean `{near[0]}`? {listed}" if near else listed,
        )
    if claim.trend is None or points is None:
        return
    if not points:
        mend = f"Add `sweep: {{{claim.field}: [ … ]}}`."
        wrong(claim.text, "there is nothing to compare: this block has no sweep.", mend)
    if len({place(claim, fields) for fields in points}) < 2:
        wrong(claim.text, f"the sweep has only one value of `{claim.field}`.", "Give it two or more.")


def place(claim: Claim, fields: Mapping[str, Any]) -> float:
    """Where a point of the sweep stands along the claim's field. NoteError where that has no order."""
    if claim.field not in fields:
        near = difflib.get_close_matches(claim.field, fields, 1, 0.5)
        mend = f"Did you mean `{near[0]}`?" if near else f"It sweeps {', '.join(fields)}."
        wrong(claim.text, f"`{claim.field}` is not what the sweep changes.", mend)
    value: Any = fields[claim.field]
    if isinstance(value, str) and re.fullmatch(_NUMBER, value.strip()):
        return float(_number(value.strip()))
    if isinstance(value, bool) or not isinstance(value, int | float):
        wrong(claim.text, f"`{claim.field}` has no order: {value!r} is not a number.", "Claim each value by itself.")
    return float(value)
