"""A served daemon that can do next to nothing, and a client that is paired with it."""

import time
from dataclasses import dataclass, field

import pytest

from tests.http_client import Client, pair
from vaultlab.feed import Feed
from vaultlab.pairing import Pairings
from vaultlab.protocol import (
    Artifact,
    Cancelled,
    Experiments,
    Hello,
    Noted,
    Outcome,
    PaceAsk,
    PlanAsk,
    Planned,
    Queue,
    Queued,
    RunAsk,
    TrustAsk,
    Verbs,
)
from vaultlab.server import serve

SHA = "ab" * 32


@dataclass
class Daemon:
    """As little of a daemon as can be asked: it remembers what it was asked, and raises or waits where told to."""

    said: list[object] = field(default_factory=list)
    feed: Feed = field(default_factory=Feed)
    raises: Exception | None = None

    def heard(self, *words: object) -> None:
        self.said.append(words)
        if self.raises:
            raise self.raises

    def hello(self) -> Hello:
        self.heard("hello")
        return Hello(
            protocol=1,
            version="0",
            epoch=self.feed.epoch,
            last=self.feed.last,
            vault="My vault",
            machine="m",
            devices=("cpu",),
            models=(),
            queue=Queue(queued=0),
        )

    def experiments(self) -> Experiments:
        self.heard("experiments")
        return Experiments(experiments={}, broken={"mine": "It does not import."})

    def plan(self, ask: PlanAsk) -> Planned:
        self.heard("plan", ask.path, ask.text)
        return Planned(takes_part=True, problems=(), blocks=())

    def run(self, ask: RunAsk) -> Queued:
        self.heard("run", ask.path, ask.id, ask.block_sha256)
        return Queued(run="r1", place=1)

    def cancel(self, run: str) -> Cancelled | None:
        self.heard("cancel", run)
        return Cancelled(run=run, cancelled=True) if run == "r1" else None

    def edit(self, id: str, outcome: Outcome) -> Noted | None:
        self.heard("edit", id, outcome.outcome)
        return Noted() if id == "e1" else None

    def pace(self, ask: PaceAsk) -> Noted:
        self.heard("pace", ask.by_hand)
        return Noted()

    def trust(self, ask: TrustAsk) -> Noted:
        self.heard("trust", ask.trusted)
        return Noted()

    def artifact(self, block: str, name: str) -> Artifact | None:
        self.heard("artifact", block, name)
        known = (block, name) == ("pentagon", "weights")
        return Artifact(kind="svg", content="PHN2Zy8+", alt="A pentagon") if known else None

    @property
    def verbs(self) -> Verbs:
        names = ("hello", "experiments", "plan", "run", "cancel", "edit", "artifact", "trust", "pace")
        return Verbs(events=self.feed.after, **{name: getattr(self, name) for name in names})


class Clock:
    """Seconds since the epoch, put forward by hand."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class House:
    """A served daemon and a client that is paired with it."""

    def __init__(self, folder, clock=time.time):
        self.daemon, self.pairings = Daemon(), Pairings(folder / "state")
        self.server = serve(self.daemon.verbs, self.pairings, clock, clock)
        self.daemon.feed.wake = self.server.wake
        self.port = self.server.port
        client, _ = pair(self.port, self.pairings.offer(clock()), time_ms=int(clock() * 1000))
        assert client
        self.client: Client = client


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.server.stop()


@pytest.fixture
def house(standing):
    standing.daemon.said.clear()
    standing.daemon.raises = None
    return standing


@pytest.fixture
def build(tmp_path):
    """A house of one's own, with a clock of one's own."""
    built = []

    def make(clock=time.time):
        built.append(House(tmp_path, clock))
        return built[-1]

    yield make
    for one in built:
        one.server.stop()


RUN = {"path": "Notes/My note.md", "id": "pentagon", "block_sha256": SHA}
