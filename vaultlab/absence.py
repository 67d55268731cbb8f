"""A worker on another machine that does not answer: when it is tried again, and who waits for that."""

import threading
import time
from collections.abc import Callable

FIRST_S = 1.0
LONGEST_S = 60.0
TRIES = 5
"""So often in a row it is tried by one who has no patience, if it has answered before; else once."""


class Absence:
    """Of the worker called `name`. Each try waits twice as long as the one before it. Several threads may wait.

    `patient`: it is waited for as long as it takes.
    """

    def __init__(self, name: str, patient: bool) -> None:
        self.name = name
        self.why = ""
        self._patient = patient
        self._known = False
        self._misses = 0
        self._due = 0.0
        self._waiting: dict[str, threading.Event] = {}

    @property
    def due_s(self) -> float:
        """In how many seconds it may be tried again; 0 for now."""
        return max(0.0, self._due - time.monotonic())

    def missed(self, why: str) -> None:
        """It did not answer, or the line to it broke."""
        self.why = why
        self._due = time.monotonic() + min(FIRST_S * 2**self._misses, LONGEST_S)
        self._misses += 1

    def answered(self) -> None:
        """It is there."""
        self._known, self._misses, self._due = True, 0, 0.0

    def wait(self, id: str, tell: Callable[[str], None]) -> bool:
        """Until it may be tried again, which `tell` is told; False where `stop` came first."""
        if not self.due_s:
            return True
        again = time.strftime("%H:%M:%S", time.localtime(time.time() + self.due_s))
        tell(f"waiting for {self.name} ({self.why}), tried again at {again}")
        stopped = self._waiting.setdefault(id, threading.Event())
        try:
            return not stopped.wait(self.due_s)
        finally:
            self._waiting.pop(id, None)

    def stop(self, id: str) -> None:
        """Whoever waits under this id waits no longer."""
        if (stopped := self._waiting.get(id)) is not None:
            stopped.set()

    @property
    def given_up(self) -> bool:
        """Whether it is in vain to wait for it."""
        return not self._patient and self._misses > (TRIES if self._known else 0)
