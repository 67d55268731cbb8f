"""What several runs ask for alike, computed by the first of them and kept in the store; under way in pieces."""

import datetime
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vaultlab.errors import RunError
from vaultlab.models.shared import Keep
from vaultlab.worker.asked import hashed
from vaultlab.worker.store import Store, settled

PIECE_S = 8.0
"""So much work at most, and what can be kept only behind it, is lost with a process that is killed."""

_log = logging.getLogger(__name__)

Found = TypeVar("Found")


class Shelf:
    """A `Shared` over the store, for one run. `facts` are what is written beside (device, batch); `used` is what of the
    shelf the run has used, by what it is: when and where it was computed, and how long that took.

    A run that is forced takes from it all the same. Of two processes that want the same at once, each computes it.
    """

    def __init__(self, store: Store, facts: Mapping[str, Any], clock: Callable[[], float] = time.monotonic) -> None:
        self.used: dict[str, dict[str, Any]] = {}
        self._store = store
        self._facts = facts
        self._clock = clock

    def __call__(
        self, what: Mapping[str, Any], kind: type[Found], work: Callable[[Found | None, Keep[Found]], Found]
    ) -> Found:
        key = hashed({"shared": dict(what)})
        whole = self._store.out(key, kind)
        if whole is None:
            whole = self._worked(what, key, kind, work)
        found: Found = whole[0]
        facts = whole[1]
        self.used[str(what["of"])] = {**facts, "sha256": key}
        return found

    def _worked(
        self, what: Mapping[str, Any], key: str, kind: type[Found], work: Callable[[Found | None, Keep[Found]], Found]
    ) -> tuple[Found, dict[str, Any]]:
        # two places in turn: while one is written, the other is whole
        pieces = [hashed({"shared": dict(what), "piece": piece}) for piece in (0, 1)]
        there = [one for one in (self._store.out(piece, kind) for piece in pieces) if one is not None]
        begun, facts = max(there, key=lambda one: one[1]["pieces"], default=(None, {"pieces": 0, "seconds": 0.0}))
        number, before = int(facts["pieces"]), float(facts["seconds"])
        started = last = self._clock()

        def facts_now() -> dict[str, Any]:
            computed = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            return {"computed": computed, "seconds": round(before + self._clock() - started, 3), **self._facts}

        def keep(found: Callable[[], Found]) -> None:
            nonlocal number, last
            if self._clock() - last >= PIECE_S:
                number += 1
                self._put(pieces[number % 2], found(), {**facts_now(), "pieces": number})
                last = self._clock()

        found = settled(work(begun, keep))
        said = facts_now()
        self._put(key, found, said)
        self._store.forget(pieces)
        return found, said

    def _put(self, key: str, found: Any, facts: Mapping[str, Any]) -> None:
        try:
            self._store.put_out(key, found, facts)
        except RunError as error:
            _log.warning("%s", error)
