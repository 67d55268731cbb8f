"""The daemon's service from its beginning to its end: who is thought to be there, and what is left behind."""

import platform
import socket
import time

import pytest

from tests.faced import presence_file
from tests.http_client import pair
from tests.test_daemon import Alive, alive
from tests.test_pipeline import NOTE
from vaultlab import service, trust
from vaultlab.desk import Worker
from vaultlab.pairing import Pairings
from vaultlab.pipeline import QUIET_S
from vaultlab.protocol import presence_name
from vaultlab.vault.journal import Journal, home

__all__ = ["alive"]  # the fixture

WORKER = Worker(lambda: {}, lambda key: None)


def test_a_plugin_that_was_there_before_is_given_time_to_find_the_daemon_again(
    alive: Alive, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust.trust(alive.root)
    with service.serving(alive.daemon, WORKER) as server:
        assert not alive.daemon.pipeline.theirs("two"), "nobody is paired"
        client, _ = pair(server.port, Pairings(home(alive.root)).offer(time.time()))
    assert client
    alive.save("Note.md", NOTE)
    with service.serving(alive.daemon, WORKER):
        alive.settle()
        alive.after(QUIET_S + 60)
        assert alive.read("Note.md") == NOTE, "it may have the note open, with words in it that are not saved"
        assert Journal(alive.root).owed() == {"two": "Note.md"}
        monkeypatch.setattr(service, "CONNECTED_S", 0.0)
        alive.after(2)
        assert alive.read("Note.md").count("![[vaultlab/two#^result]]") == 1, "it did not come"
    assert Journal(alive.root).owed() == {}


def test_when_it_ends_it_says_so_and_its_port_is_shut(alive: Alive) -> None:
    with pytest.raises(ZeroDivisionError), service.serving(alive.daemon, WORKER) as server:  # noqa: PT012
        port = server.port
        assert presence_file(alive.root).exists()
        raise ZeroDivisionError
    assert list((alive.root / ".vaultlab").iterdir()) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_where_no_sign_of_life_can_be_left_all_else_goes_on(alive: Alive) -> None:
    trust.trust(alive.root)
    (alive.root / ".vaultlab" / presence_name(platform.node())).mkdir(parents=True)
    alive.save("Note.md", NOTE)
    with service.serving(alive.daemon, WORKER):
        alive.settle()
    assert alive.ran == ["two"]
