"""`represented = 5 in 90% of seeds` → a verdict. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vaultlab.result import Judgement, Result, Verdict

Known = Mapping[str, Mapping[str, str]]
"""The metrics of an experiment: name → the aggregates that an identity forces, with why (mostly empty)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of `expect:`."""

    text: str
    metric: str


def parse(sentence: str) -> Claim:
    """A sentence → a Claim. NoteError names the nearest right word and the form."""
    raise NotImplementedError


def check(claim: Claim, known: Known) -> None:
    """NoteError where the claim names a metric that the experiment has not. Works before anything has run."""
    raise NotImplementedError


def judge(claim: Claim, result: Result, known: Known) -> Judgement:
    """The verdict on a claim. NoteError where it cannot be said of this result (a bare vector, seeds without seeds)."""
    raise NotImplementedError


def worst(judgements: Iterable[Judgement]) -> Verdict | None:
    """A note's verdict: refuted before undecided before supported; None without claims."""
    raise NotImplementedError


def unaccepted(judgements: Iterable[Judgement], accepted: Sequence[str]) -> list[Judgement]:
    """The judgements that fail a check: not supported and not accepted, or accepted with another verdict.

    `accepted` are strings `claim: verdict`, as `acceptance` writes them.
    """
    raise NotImplementedError


def acceptance(judgement: Judgement) -> str:
    """The string that accepts a verdict as the finding it is."""
    return f"{judgement.claim}: {judgement.verdict}"
