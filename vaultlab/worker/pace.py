"""A sweep in pieces: what is done is kept, and what is more urgent waits for no more than one of them."""

import math
from collections.abc import Sequence

from vaultlab.worker.batches import Cost, takes

PIECE_S = 10.0
"""What a piece takes at most, unless it is a single run."""


class Pace:
    """How fast runs go: by what they are thought to cost until some are measured, then by that and the last ones' time.

    Without estimates all count alike, and the first piece is a single run.
    """

    def __init__(self, costs: Sequence[Cost], runs: int) -> None:
        self._to_come = list(costs) or [Cost(1.0, 1.0)] * runs
        self._rate = 1.0 if costs else math.inf
        self._measured = False

    def piece(self) -> int:
        """How many of the runs to come are one piece."""
        count, seconds = 1, self._to_come[0].alone * self._rate
        for cost in self._to_come[1:]:
            seconds += cost.behind * self._rate
            if seconds > PIECE_S:
                break
            count += 1
        return count

    def rest_s(self, count: int) -> float | None:
        """What is left behind the next `count` runs; None before anything was measured."""
        rest = takes(self._to_come[count:])
        return rest * self._rate if self._measured or not rest else None

    def took(self, count: int, seconds: float) -> None:
        """The next `count` runs took so long."""
        self._rate = seconds / takes(self._to_come[:count])
        self._measured = True
        del self._to_come[:count]
