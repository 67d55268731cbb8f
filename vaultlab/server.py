"""The daemon's face on this machine: HTTP on 127.0.0.1, signed both ways, for the plugin and the command line."""

import time
from collections.abc import Callable

from vaultlab.pairing import Pairings
from vaultlab.protocol import Verbs


class Served:
    """A server that is running."""

    port: int

    def wake(self) -> None:
        """Something has happened: whoever waits for events is answered. From any thread."""
        raise NotImplementedError

    def connected(self) -> bool:
        """Whether a plugin has polled within 45 s, so that it makes the edits in authors' notes."""
        raise NotImplementedError

    def stop(self) -> None:
        """Answer whoever still waits, and close the port."""
        raise NotImplementedError


def serve(verbs: Verbs, pairings: Pairings, clock: Callable[[], float] = time.time) -> Served:
    """Answer on a port of the system's choice, on a thread of its own."""
    raise NotImplementedError
