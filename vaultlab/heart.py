"""The daemon's sign of life in the vault: where the plugin finds it, and how the daemons of two machines know which of
them has a vault that is synced."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vaultlab.errors import VaultlabError
from vaultlab.protocol import presence, presence_name
from vaultlab.vault import files

BEAT_S = 120.0
"""So often the file is written anew: every time a sync tool has to carry it to the other machines."""
FRESH_S = 600.0
"""A beat that is older is a dead daemon's; syncing takes its time, and clocks differ."""

_FOLDER = ".vaultlab"
_MOST_BYTES = 4096


class _Sign(BaseModel):
    machine: str
    since: int
    beat: int


class Heart:
    """Beats for the daemon of the vault at `root`, which answers on `port`. `now` in seconds since the epoch."""

    def __init__(
        self, root: Path, port: int, now: Callable[[], float] = time.time, machine: str = platform.node()
    ) -> None:
        self._root = root
        self._port = port
        self._now = now
        self._machine = machine
        self._name = presence_name(machine)
        self._since = int(now())
        self._last = float("-inf")

    def beat(self) -> None:
        """Say that we are here, if that is due. Raises what `files.replace` and `files.inside` raise."""
        if 0 <= self._now() - self._last < BEAT_S:
            return
        said = presence(self._port, self._machine, self._since, int(self._now()))
        files.replace(files.inside(self._root, f"{_FOLDER}/{self._name}"), json.dumps(said).encode() + b"\n")
        self._last = self._now()

    def stop(self) -> None:
        """We are here no more."""
        with suppress(VaultlabError, OSError):
            files.inside(self._root, f"{_FOLDER}/{self._name}").unlink(missing_ok=True)

    def elsewhere(self) -> str:
        """The machine whose daemon has this vault, for it was there first; empty if it is this one."""
        first = min(self._others(), key=lambda sign: (sign.since, sign.machine), default=None)
        return first.machine if first and (first.since, first.machine) < (self._since, self._machine) else ""

    def _others(self) -> Iterator[_Sign]:
        for path in sorted((self._root / _FOLDER).glob("daemon-*.json")):
            if path.name == self._name:
                continue
            with suppress(VaultlabError, ValidationError):
                content = files.look_again(files.inside(self._root, f"{_FOLDER}/{path.name}")) or b""
                sign = _Sign.model_validate_json(content[:_MOST_BYTES])
                if abs(self._now() - sign.beat) < FRESH_S:
                    yield sign
