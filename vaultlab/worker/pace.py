"""A sweep in pieces: what is done is kept, and what is more urgent waits for no more than one of them."""

import math
from collections.abc import Sequence

PIECE_S = 10.0
"""What a piece takes at most, unless it is a single run."""


class Pace:
    """How fast runs go: by their estimates in seconds until one is measured, then by those and the last one's time.

    Without estimates all count alike, and the first piece is a single run. Runs that are computed together take less
    than one by one, so that a piece takes rather less than it was given.
    """

    def __init__(self, estimates: Sequence[float], runs: int) -> None:
        self._to_come = list(estimates) or [1.0] * runs
        self._rate = 1.0 if estimates else math.inf
        self._measured = False

    def piece(self) -> int:
        """How many of the runs to come are one piece."""
        count, seconds = 1, self._to_come[0] * self._rate
        for estimate in self._to_come[1:]:
            seconds += estimate * self._rate
            if seconds > PIECE_S:
                break
            count += 1
        return count

    def rest_s(self, count: int) -> float | None:
        """What is left behind the next `count` runs; None before anything was measured."""
        rest = sum(self._to_come[count:])
        return rest * self._rate if self._measured or not rest else None

    def took(self, count: int, seconds: float) -> None:
        """The next `count` runs took so long."""
        self._rate = seconds / sum(self._to_come[:count])
        self._measured = True
        del self._to_come[:count]
