"""Forward passes that several runs share: what one has a model read is kept for those behind it that read the same.

Runs share where model, text and `Reads.cut` are equal. The first one's pass takes in the sites of all that are still to
come; each of them finds its own, batch by batch, and the last takes them away. A longer cut of the same text is another
pass: in other batches the last bits are other ones. Which runs are to come decides how long something takes and never
what comes out, for a site has the same bits whoever looks beside it, and what is not kept is read again.

At most a quarter of the memory that is free on the device is taken; what does not fit in is read by each run itself.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from vaultlab.models.device import free_memory
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, Trace, has, trace
from vaultlab.worker.asked import Asked, Run, shapes

_SHARE = 0.25

_Place = tuple[tuple[Any, ...], Model, str]


@dataclass(frozen=True)
class Reader:
    """A run that has a model read: `group` is what it has in common with those it shares with."""

    key: str
    group: tuple[Any, ...]
    sites: frozenset[Site]


def reader(it: Asked, run: Run) -> Reader | None:
    """How a run reads; None where its experiment does not say."""
    if it.experiment.reads is None or not run.models:
        return None
    reads = it.experiment.reads(run.spec, shapes(run)[0])
    if reads is None:
        return None
    texts = tuple(text.sha256 for text in run.texts.values())
    return Reader(run.key, (*run.models.values(), texts, reads.cut), frozenset(reads.sites))


class Passes:
    """What is kept, and for whom."""

    def __init__(self) -> None:
        self._coming: dict[str, Reader] = {}
        self._others: frozenset[Site] = frozenset()
        self._along = False
        self._kept: dict[_Place, dict[Site, Tensor]] = {}

    @property
    def bytes(self) -> int:
        """How much is kept."""
        return sum(value.nbytes for found in self._kept.values() for value in found.values())

    def expect(self, readers: Iterable[Reader]) -> None:
        """These are to come, and no others; what none of them reads is let go."""
        self._coming = {one.key: one for one in readers}
        self._along = False
        self._tidy()

    @contextmanager
    def turn(self, own: Reader | None) -> Iterator[Trace]:
        """The turn of a run has come: its `Bench.trace`. Afterwards only what others read is still there."""
        if own is None:
            yield trace
            return
        self._coming.pop(own.key, None)
        beside = [one.sites for one in self._coming.values() if one.group == own.group]
        self._others = frozenset().union(*beside)
        self._along |= bool(beside)

        def shared(model: Model, ids: Int[Tensor, "batch pos"], sites: Iterable[Site]) -> dict[Site, Tensor]:
            return self._read((own.group, model, _digest(ids)), ids, set(sites))

        try:
            yield shared
        finally:
            self._others = frozenset()
            self._tidy()

    def alone(self) -> bool:
        """Let go of everything and read nothing for others any more; False where it was so since `expect`."""
        along = self._along or bool(self._kept)
        self._coming, self._kept, self._along = {}, {}, False
        return along

    def drop(self) -> None:
        """Let go of what is kept: whoever reads it, reads it again."""
        self._kept = {}

    @torch.inference_mode()
    def _read(self, place: _Place, ids: Int[Tensor, "batch pos"], sites: set[Site]) -> dict[Site, Tensor]:
        there = self._kept.get(place, {})
        if sites <= there.keys():
            if not self._others:
                del self._kept[place]
                return {site: there[site] for site in sites}
            return {site: there[site].clone() for site in sites}
        model = place[1]
        more = {site for site in self._others if has(model, site)}
        found = trace(model, ids, sites | more)
        if more:
            self._keep(place, {site: found[site].clone() for site in more})
        return {site: found[site] for site in sites}

    def _keep(self, place: _Place, found: dict[Site, Tensor]) -> None:
        """Copies, for a run may write over what it was given."""
        self._kept[place] = found
        bytes = self.bytes
        if bytes > _SHARE * (free_memory(place[1].device) + bytes):
            del self._kept[place]
            self._others = frozenset()  # nor is the rest of this run's text read for them

    def _tidy(self) -> None:
        groups = {one.group for one in self._coming.values()}
        self._kept = {place: found for place, found in self._kept.items() if place[0] in groups}


def _digest(ids: Int[Tensor, "batch pos"]) -> str:
    return hashlib.sha256(f"{tuple(ids.shape)}".encode() + ids.cpu().numpy().tobytes()).hexdigest()
