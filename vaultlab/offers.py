"""Two writers, one rule: while a plugin is there, it makes the edits of authors' notes, each of which is offered here.

An edit that a plugin has taken may be in a text that is not saved yet. Until its outcome is told, or the note on the
disk has it, nobody else makes it: so a block gets one embed, whoever is slow, falls asleep or dies in between.
"""

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vaultlab.errors import VaultError
from vaultlab.notes import splice
from vaultlab.protocol import Edit, Outcome, as_edit

PAUSE_S = 10.0
"""So long an edit of an editor's own text stands before one of the text on the disk takes its place, and a plugin that
said `deferred` is left alone."""
TAKEN_S = 20.0
"""An edit that was taken and of which nothing is heard is offered anew: a plugin makes it within ten seconds."""
UNSAVED_S = 300.0
"""So long the text that a plugin may have put an edit into may stay unsaved."""


@dataclass(slots=True)
class _Offer:
    """`at` is when its state was entered; `taken` when the block's embed may have gone into an unsaved text."""

    edit: Edit
    block: str
    planned: bool
    at: float
    state: Literal["open", "taken", "put off"] = "open"
    taken: float | None = None


class Offers:
    """The embeds that a plugin is to place, at most one a block. `tell` is told each that no plan asked for.

    `connected`: whether a plugin is there; `now` stands still while the machine sleeps, as a plugin does.
    """

    def __init__(
        self,
        tell: Callable[[Edit, str], None],
        connected: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._connected = connected
        self._now = now
        self._lock = threading.Lock()
        self._offers: dict[str, _Offer] = {}

    def theirs(self, block: str) -> bool:
        """Whether a plugin writes this block's embed: it is there, or it may have put it into a text not yet saved."""
        with self._lock:
            offer = self._offers.get(block)
            unsaved = offer is not None and offer.taken is not None and self._now() - offer.taken < UNSAVED_S
            return unsaved or self._connected()

    def offer(self, block: str, path: str, text: str, sha256: str, edit: splice.Edit) -> None:
        """Offer the edit of the note as it is on the disk, unless another of this block is pending."""
        with self._lock:
            if self._pending(block, path, sha256):
                return
            offered = self._put(block, as_edit(secrets.token_hex(8), path, text, sha256, edit), planned=False)
        self._tell(offered, block)

    def plan(self, block: str, path: str, text: str, sha256: str, edit: splice.Edit) -> Edit | None:
        """The edit of a text that an editor has posted; None while one of this block is being made."""
        with self._lock:
            last = self._offers.get(block)
            if last is not None and last.state == "taken" and self._now() - last.at < TAKEN_S:
                return None
            if last is not None and last.state == "open" and (last.edit.path, last.edit.base_sha256) == (path, sha256):
                return last.edit
            return self._put(block, as_edit(secrets.token_hex(8), path, text, sha256, edit), planned=True)

    def block_of(self, id: str) -> str | None:
        """The block whose embed this edit places; None where no such edit is on offer."""
        with self._lock:
            return next((block for block, offer in self._offers.items() if offer.edit.id == id), None)

    def heard(self, block: str, said: Outcome) -> None:
        """What becomes of this block's edit. VaultError where it may not be taken."""
        with self._lock:
            offer = self._offers[block]
            match said.outcome:
                case "taken":
                    if offer.state != "open":
                        raise VaultError("This edit was taken before, or given back.", "Post the note's text as it is.")
                    offer.state, offer.taken = "taken", self._now()
                case "applied":
                    del self._offers[block]
                case _:
                    offer.state, offer.taken = "put off", None
            offer.at = self._now()

    def forget(self, block: str) -> None:
        """Nothing is owed for this block any more."""
        with self._lock:
            self._offers.pop(block, None)

    def _put(self, block: str, edit: Edit, *, planned: bool) -> Edit:
        last = self._offers.get(block)
        self._offers[block] = _Offer(edit, block, planned, self._now(), taken=last.taken if last else None)
        return edit

    def _pending(self, block: str, path: str, sha256: str) -> bool:
        offer = self._offers.get(block)
        if offer is None:
            return False
        age = self._now() - offer.at
        if offer.state != "open":
            return age < (TAKEN_S if offer.state == "taken" else PAUSE_S)
        same = (offer.edit.path, offer.edit.base_sha256) == (path, sha256)
        return same or (offer.planned and age < PAUSE_S)
