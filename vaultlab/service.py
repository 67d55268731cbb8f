"""The daemon's local service for as long as it watches: its desk, the server before it, and its sign of life."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from vaultlab.daemon import Daemon
from vaultlab.desk import Desk, Worker
from vaultlab.errors import VaultlabError
from vaultlab.heart import Heart
from vaultlab.pairing import Pairings
from vaultlab.server import CONNECTED_S, Served, serve
from vaultlab.vault.journal import home, made

LOOK_S = 5.0
"""So often it is seen whether another machine's daemon has the vault, and whether the vault is trusted."""

logger = logging.getLogger("vaultlab")


@contextmanager
def serving(daemon: Daemon, worker: Worker) -> Iterator[Served]:
    """Serve this daemon's plugin while it lasts."""
    pairings, began = Pairings(made(home(daemon.root))), time.monotonic()
    desk = Desk(daemon, worker)
    server = serve(desk.verbs, pairings)
    paired = pairings.plugin

    def connected() -> bool:
        # A plugin that was there before us needs a while to find us: until then the notes may be open in its editor.
        return server.connected() or (paired and time.monotonic() - began < CONNECTED_S)

    desk.feed.wake, desk.connected = server.wake, connected
    heart, ended = Heart(daemon.root, server.port), threading.Event()
    _beat(daemon, desk, heart)
    beating = threading.Thread(target=partial(_beat_on, daemon, desk, heart, ended), daemon=True)
    beating.start()
    logger.info("serving on port %d", server.port)
    try:
        yield server
    finally:
        ended.set()
        beating.join()
        heart.stop()
        server.stop()
        desk.close()


def _beat_on(daemon: Daemon, desk: Desk, heart: Heart, ended: threading.Event) -> None:
    while not ended.wait(LOOK_S):
        _beat(daemon, desk, heart)


def _beat(daemon: Daemon, desk: Desk, heart: Heart) -> None:
    before = daemon.restraint
    try:
        heart.beat()
    except (VaultlabError, OSError) as error:  # a plugin will not find us; all else goes on
        logger.warning("no sign of life in the vault: %s", error)
    desk.restrain(heart.elsewhere())
    if daemon.restraint != before:
        daemon.tell(daemon.restraint or "What is new runs by itself again.")
        daemon.changes.news.set()
