"""The points of a sweep that are computed as one batch: in which order they come, and what they take."""

from collections.abc import Sequence
from typing import NamedTuple

from vaultlab.experiment import Needs
from vaultlab.worker.asked import Asked, Run


class Cost(NamedTuple):
    """Seconds of a run that is the first of a piece, and behind the one that is before it."""

    alone: float
    behind: float


def in_batches(it: Asked, runs: Sequence[Run]) -> list[Run]:
    """Those of one batch one after another, however the sweep is written."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_batch(it, run), []).append(run)
    return [run for group in groups.values() for run in group]


def costs(it: Asked, runs: Sequence[Run], found: Sequence[Needs]) -> list[Cost]:
    """By the runs' estimates; none where there are none."""
    batches = [_batch(it, run) for run in runs]
    return [
        Cost(need.seconds, need.seconds - (need.once if at and batches[at - 1] == batches[at] else 0.0))
        for at, need in enumerate(found)
    ]


def takes(each: Sequence[Cost]) -> float:
    """Seconds of all together."""
    return each[0].alone + sum(cost.behind for cost in each[1:]) if each else 0.0


def _batch(it: Asked, run: Run) -> str:
    if it.experiment.together is None or run.texts or run.models or run.given:
        return run.key
    return str(run.spec.model_dump_json(exclude=set(it.experiment.batched)))
