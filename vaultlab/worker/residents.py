"""Models that stay loaded between runs, the least recently used making way for the next; and what they have read."""

import gc
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import cache

import torch

from vaultlab.models import recipes
from vaultlab.models.device import free_memory
from vaultlab.models.entry import read_entry
from vaultlab.models.model import Model
from vaultlab.worker.asked import IMPORTING
from vaultlab.worker.passes import Passes

_SHARE = 0.9
IDLE_S = 300.0
"""A model that nobody has asked for in this time is idle: other programs want the memory."""


class Residents:
    """Loads each model once for all runs that want it, within nine tenths of the memory that is free at that moment."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.passes = Passes()
        self._clock = clock
        self._models: OrderedDict[tuple[str, torch.device], tuple[Model, float]] = OrderedDict()

    def get(self, name: str, device: torch.device, say: Callable[[str], None] = lambda doing: None) -> Model:
        """The model on the device; a toy is trained where it is not here yet, which `say` is told. Raises as `load`."""
        with IMPORTING:
            from vaultlab.models.load import load  # noqa: PLC0415
            from vaultlab.models.pull import pull  # noqa: PLC0415

        _freeze_imports()
        if name in recipes.NAMES:
            pull(name, say)
        entry, key = read_entry(name), (name, device)
        kept = self._models.pop(key, None)
        if kept is None or kept[0].sha256 != entry.sha256():
            del kept
            while (self.passes.bytes or self._models) and entry.bytes > _SHARE * free_memory(device):
                if self.passes.bytes:
                    self.passes.drop()
                else:
                    self._models.popitem(last=False)
                give_back()
            kept = (load(name, device), 0.0)
        self._models[key] = (kept[0], self._clock())
        return kept[0]

    def bytes(self, name: str, device: torch.device) -> int:
        """What this model's weights take there; 0 if it is not loaded."""
        kept = self._models.get((name, device))
        return kept[0].shape.bytes if kept else 0

    def evict(self, idle_s: float = 0.0) -> None:
        """Let go of models that nobody has asked for in this time, and of what was read for runs to come."""
        self.passes.drop()
        old = [key for key, (_, used) in self._models.items() if self._clock() - used >= idle_s]
        for key in old:
            del self._models[key]
        give_back()

    def rest(self) -> float | None:
        """Let go of models that are idle; in how many seconds the next one is, None if none is left."""
        due = self._due_s()
        if due is not None and due <= 0:
            self.evict(IDLE_S)
            due = self._due_s()
        return due

    def _due_s(self) -> float | None:
        return min((used + IDLE_S - self._clock() for _, used in self._models.values()), default=None)


@cache
def _freeze_imports() -> None:
    """What is there once a model can be loaded stays: to look through its 400 000 objects took a third of a second."""
    gc.freeze()


def give_back() -> None:
    """Return freed memory to the device, for other programs use it too."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
