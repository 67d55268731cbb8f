"""What has happened at the daemon, numbered, for whoever polls."""

import secrets
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from vaultlab.protocol import Event, Events, Happening

KEPT = 1000


class Feed:
    """The last thousand events. Their numbers carry this daemon's `epoch`, so that another's are never taken for ours.

    `wake` is called after each: set it to the server's. From any thread.
    """

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(8)
        self.wake: Callable[[], None] = lambda: None
        self._count = 0
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    @property
    def last(self) -> str:
        """The number of the latest event."""
        return f"{self.epoch}.{self._count}"

    def tell(self, kind: Happening, **what: Any) -> Event:
        """Something has happened; `what` are fields of Event."""
        with self._lock:
            event = Event(number=f"{self.epoch}.{self._count + 1}", kind=kind, **what)
            self._count += 1
            self._events.append(event)
        self.wake()
        return event

    def after(self, number: str | None) -> Events:
        """What has happened since, as far as it is known; `missed` if some of it is not, or the number is no number of
        ours."""
        epoch, _, seen = (number or f"{self.epoch}.0").partition(".")
        with self._lock:
            known = epoch == self.epoch and self._count - len(self._events) <= int(seen) <= self._count
            start = len(self._events) - (self._count - int(seen)) if known else 0
            return Events(last=self.last, missed=not known, events=tuple(self._events)[start:])
