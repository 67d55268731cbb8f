"""Which paths have changed and for how long each has been quiet: what is typed is waited for, a storm taken as one."""

import itertools
import math
import threading
import time
from bisect import bisect_right
from collections.abc import Callable

PARSE_S = 0.3
"""A note that has been quiet for so long is read: its errors show early."""
RUN_S = 2.0
"""A block whose note has been quiet for so long runs."""
STORM_PATHS = 200
STORM_S = 2.0
"""More changes than that within so long are a checkout or a sync: it is waited for, and handled as one."""

_KEPT_S = 30.0


class Changes:
    """Which paths have changed and when they last did. Any thread may add to it; `now` is the clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._fresh: set[str] = set()
        self._storm = False
        self.news = threading.Event()

    def add(self, path: str) -> None:
        """A path changed, just now."""
        with self._lock:
            self._last.pop(path, None)  # so that the last to change stand last
            self._last[path] = self._now()
            self._fresh.add(path)
        self.news.set()

    def take(self) -> list[str]:
        """The paths to look at now, the last to change last: quiet for PARSE_S. Nothing during a storm."""
        with self._lock:
            now = self._now()
            lately = itertools.takewhile(lambda at: 0 <= now - at < STORM_S, reversed(self._last.values()))
            self._storm = sum(1 for _ in lately) > (STORM_PATHS // 10 if self._storm else STORM_PATHS)
            if self._storm:
                return []
            quiet = [path for path, at in self._last.items() if path in self._fresh and not 0 <= now - at < PARSE_S]
            self._fresh -= set(quiet)
            for path in [path for path, at in self._last.items() if not 0 <= now - at < _KEPT_S]:
                if path not in self._fresh:
                    del self._last[path]
            return quiet

    def quiet(self, path: str, seconds: float = RUN_S) -> bool:
        """Whether this path has not changed for so long, as far as is known."""
        with self._lock:
            return not 0 <= self._now() - self._last.get(path, float("-inf")) < seconds

    def due_s(self, since: float, *seconds: float) -> float:
        """How long until some path will have been quiet for one of these times; 0 where one has come to be since then,
        infinite where nothing has changed."""
        with self._lock:
            now, times = self._now(), list(self._last.values())  # in order, so the first that was not quiet yet is next
        firsts = [(bisect_right(times, since - quiet_s), quiet_s) for quiet_s in seconds]
        return min((max(times[at] + quiet_s - now, 0.0) for at, quiet_s in firsts if at < len(times)), default=math.inf)

    @property
    def pending(self) -> int:
        """How many paths have changed and were not taken yet."""
        return len(self._fresh)
