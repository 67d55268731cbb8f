"""The life of a run in real time, told to a plugin: a stand-in for the worker hangs, dies, and answers."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.faced import Plugin
from tests.http_client import pair
from tests.test_daemon import Alive, alive
from tests.test_lab import STANDIN
from tests.test_pipeline import NOTE
from vaultlab import trust
from vaultlab.daemon import Daemon, Way
from vaultlab.desk import Worker
from vaultlab.jobs import Jobs
from vaultlab.lab import Lab
from vaultlab.pairing import Pairings
from vaultlab.service import serving
from vaultlab.vault.journal import home
from vaultlab.vault.watch import Watch

__all__ = ["alive"]  # the fixture


def block(id: str, *acts: str) -> str:
    return (
        NOTE.replace("double: two", f"double: {id}")
        .replace("text: hello", f"acts: [{', '.join(acts)}]")
        .replace("expect:\n  - twice = 2\n", "")
    )


@dataclass
class Living:
    """A daemon that watches a vault, with a worker in a process of its own, and a plugin that follows it."""

    root: Path
    lab: Lab
    plugin: Plugin

    def told(self, id: str, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event of a block that is such a one; waits for it."""
        end, seen = time.monotonic() + 40, 0
        while time.monotonic() < end:
            for event in self.plugin.events[seen:]:
                if event["id"] == id and until(event):
                    return event
            seen = len(self.plugin.events)
            self.plugin.poll(5)
        raise AssertionError([(event["kind"], event["id"], event["phase"]) for event in self.plugin.events])

    def kind(self, id: str, kind: str) -> dict[str, Any]:
        return self.told(id, lambda event: bool(event["kind"] == kind))

    def run(self, id: str, *acts: str) -> dict[str, Any]:
        path, text = f"{id}.md", block(id, *acts)
        (self.root / path).write_text(text)
        reply = self.plugin.run(path, text, id)
        assert reply.status == 200, reply.body
        return dict(reply.json)


@pytest.fixture
def living(alive: Alive) -> Iterator[Living]:
    alive.jobs.close()
    trust.trust(alive.root)
    with Lab(STANDIN) as lab, closing(Jobs(home(alive.root) / "jobs.sqlite")) as jobs:
        way = Way(lab.ask, lab.cancel, lab.deaths)
        daemon = Daemon(alive.root, alive.look, way, jobs, alive.told.append)
        config = alive.look().config
        with serving(daemon, Worker(lambda: {}, lambda key: None)) as server:
            watching = Thread(target=daemon.serve, args=(Watch(alive.root, lambda: config, daemon.changes.add),))
            watching.start()
            client, _ = pair(server.port, Pairings(home(alive.root)).offer(time.time()))
            assert client
            plugin = Plugin(client)
            plugin.poll()
            yield Living(alive.root, lab, plugin)
            daemon.stop()
            watching.join(30)
            assert not watching.is_alive()


def test_a_cancel_frees_the_device_though_a_native_call_hears_nothing(living: Living) -> None:
    run = living.run("stuck", "deaf", "progress", "hang")["run"]
    step = living.told("stuck", lambda event: event["total"] == 2)
    assert (step["kind"], step["run"], step["phase"], step["done"]) == ("running", run, "working", 1)
    behind = living.run("next")
    assert (behind["place"], behind["why"]) == (1, "asked for by hand; behind `stuck`")
    worker = living.lab._process
    assert worker
    assert living.plugin.said("DELETE", f"/v1/runs/{run}")["cancelled"]
    assert living.kind("stuck", "cancelled")["run"] == run
    assert living.kind("next", "done")["run"] == behind["run"], "the other would have hung for a minute"
    assert worker.dead
    assert not (living.root / "vaultlab/stuck.md").exists()


def test_what_kills_the_worker_is_tried_once_more_and_then_said_to_be_the_matter(living: Living) -> None:
    living.run("deadly", "kill")
    failed = living.kind("deadly", "failed")
    assert "worker" in failed["problem"]["message"]
    assert [event["kind"] for event in living.plugin.events if event["id"] == "deadly"].count("running") >= 2
    reply = living.plugin.run("deadly.md", block("deadly", "kill"), "deadly")
    assert reply.status == 503
    assert "--force" in reply.json["hint"]
    living.run("next")
    assert living.kind("next", "done")
