"""A daemon that is served, driven step by step, and a plugin that is paired with it and speaks HTTP."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.http_client import Client, Reply, pair
from tests.test_daemon import Alive, alive
from vaultlab import trust
from vaultlab.desk import Worker
from vaultlab.pairing import Pairings
from vaultlab.result import Refusal
from vaultlab.server import Served
from vaultlab.service import serving
from vaultlab.vault.journal import home

__all__ = ["alive"]


@dataclass
class Plugin:
    """As little of a plugin as a test needs. `events` are all that it was told, oldest first."""

    client: Client
    events: list[dict[str, Any]] = field(default_factory=list)
    last: str = ""

    def ask(self, method: str, target: str, body: object = None) -> Reply:
        reply = self.client.ask(method, target, body)
        assert reply.signed, (reply.status, reply.body)
        return reply

    def said(self, method: str, target: str, body: object = None) -> Any:
        reply = self.ask(method, target, body)
        assert reply.status == 200, (reply.status, reply.body)
        return reply.json

    def poll(self, wait: int = 0) -> list[dict[str, Any]]:
        """What is new since the last time."""
        self.last = self.last or self.said("GET", "/v1/hello")["last"]
        said = self.said("GET", f"/v1/events?after={self.last}&wait={wait}")
        self.last = said["last"]
        self.events += said["events"]
        return list(said["events"])

    def plan(self, path: str, text: str) -> Any:
        return self.said("POST", "/v1/plan", {"path": path, "text": text})

    def run(self, path: str, text: str, id: str = "two") -> Reply:
        (block,) = [one for one in self.plan(path, text)["blocks"] if one["id"] == id]
        return self.ask("POST", "/v1/runs", {"path": path, "id": id, "block_sha256": block["sha256"]})

    def edits(self) -> list[dict[str, Any]]:
        return [event["edit"] for event in self.poll() if event["kind"] == "edit"]

    def outcome(self, edit: dict[str, Any], outcome: str) -> int:
        return self.ask("POST", f"/v1/edits/{edit['id']}", {"outcome": outcome}).status


@dataclass
class Faced:
    """The daemon, its server, and what its worker would say beside runs."""

    alive: Alive
    server: Served
    data: dict[str, Any]
    refusals: list[Refusal]
    plugins: list[Plugin] = field(default_factory=list)

    def pair(self) -> Plugin:
        client, _ = pair(self.server.port, Pairings(home(self.alive.root)).offer(time.time()))
        assert client
        self.plugins.append(Plugin(client))
        return self.plugins[-1]


@pytest.fixture
def faced(alive: Alive) -> Iterator[Faced]:
    trust.trust(alive.root)
    data: dict[str, Any] = {}
    refusals: list[Refusal] = []
    here = {"devices": ["cpu"], "models": ["tiny"]}
    with serving(alive.daemon, Worker(lambda: here, data.get, lambda ask: tuple(refusals))) as server:
        yield Faced(alive, server, data, refusals)


@pytest.fixture
def plugin(faced: Faced) -> Plugin:
    return faced.pair()


def made(edit: dict[str, Any], text: str) -> str:
    """The text with the edit made, if it is of this very text: editors count in UTF-16."""
    assert hashlib.sha256(text.encode()).hexdigest() == edit["base_sha256"]
    units = text.encode("utf-16-le")
    at = 2 * edit["offset"]
    return (units[:at] + edit["insert"].encode("utf-16-le") + units[at:]).decode("utf-16-le")


def presence_file(root: Path) -> Path:
    (found,) = (root / ".vaultlab").glob("daemon-*.json")
    return found
