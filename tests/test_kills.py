"""`kill -9` at any moment, of the daemon and of its worker, beside an author who writes: nothing is lost.

Afterwards the author's text is whole, a block has one embed, the queue and the store are whole, no run that had been
finished was computed again, no process is left over, and all is fresh.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.test_pipeline import DOUBLE
from vaultlab import catalogue, places
from vaultlab.catalogue import Catalogue
from vaultlab.lab import Lab
from vaultlab.survey import Survey, survey
from vaultlab.vault import presence
from vaultlab.vault.presence import queue_of

KILLS, REAL_KILLS = 160, 40
NOTES = 3
PATIENCE_S = 120.0


class Mortal:
    """A vault, a daemon's command, and an author who writes in its notes: `text` of a number is what they write."""

    def __init__(self, root: Path, command: list[str], text: Callable[[str, int], str]) -> None:
        self.root, self.command, self.text = root, command, text
        self.written: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def write(self, id: str, number: int) -> None:
        """In place, as Obsidian does; what stands under the block by now stays."""
        path = self.root / f"{id}.md"
        text = self.text(id, number)
        if path.exists():
            text = path.read_text().replace(
                self.written[id].partition("\n\nThe end.")[0], text.partition("\n\nThe end.")[0]
            )
        path.write_text(text)
        self.written[id] = self.text(id, number)

    def workers(self) -> list[psutil.Process]:
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def kill(self, whom: str) -> None:
        """The daemon, which then begins again, or its worker."""
        assert self.process is not None
        orphans = self.workers()
        if whom == "worker":
            for one in orphans:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(orphans, timeout=PATIENCE_S)
        assert alive == [], "a worker has outlived its daemon"
        self.start()

    def stop(self) -> None:
        assert self.process is not None
        orphans = self.workers()
        self.process.terminate()
        self.process.wait(timeout=PATIENCE_S)
        _, alive = psutil.wait_procs(orphans, timeout=PATIENCE_S)
        assert alive == []


def wait(until: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def settled(mortal: Mortal, look: Callable[[], Survey]) -> bool:
    """Whether all is fresh, and under every block stands its result."""
    states = {item.id: item.state for item in look().items}
    embedded = all(f"![[vaultlab/{id}#" in (mortal.root / f"{id}.md").read_text() for id in mortal.written)
    return len(states) == NOTES and set(states.values()) == {"fresh"} and embedded


def hurt(mortal: Mortal, seed: int, kills: int, pause_s: float) -> None:
    """Write and kill, at moments and of whom the seed says."""
    dice = random.Random(seed)
    for number in range(kills):
        id = f"note-{dice.randrange(NOTES)}"
        if dice.random() < 0.7:
            mortal.write(id, dice.randrange(4))
        time.sleep(dice.uniform(0, pause_s))
        mortal.kill(dice.choice(["daemon", "worker"]))
        assert mortal.process is not None
        assert mortal.process.poll() is None, f"the daemon ended by itself after kill {number} of seed {seed}"
    for number in range(NOTES):  # what has taken the worker down twice is not tried again by itself
        mortal.write(f"note-{number}", 4)


def whole(mortal: Mortal, look: Callable[[], Survey]) -> None:
    for id, text in mortal.written.items():
        found = (mortal.root / f"{id}.md").read_text()
        embed = f"![[vaultlab/{id}#^result]]"
        assert found.count(embed) == 1
        lines = [line for line in found.split("\n") if line and line != embed]
        assert lines == [line for line in text.split("\n") if line], "the author's lines, each once and in order"
    with sqlite3.connect(queue_of(mortal.root)) as queue:
        assert queue.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert queue.execute("SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')").fetchone() == (0,)
    assert not list(mortal.root.rglob("*.vaultlab-tmp"))
    assert not (mortal.root / "vaultlab/recovered").exists()
    assert settled(mortal, look)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    (tmp_path / "vault").mkdir()
    (tmp_path / "store").mkdir()
    return tmp_path


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_and_sixty_kills_lose_nothing(home: Path) -> None:
    root, store, seed = home / "vault", home / "store", int(os.environ.get("VAULTLAB_SEED", "1"))

    def text(id: str, number: int) -> str:
        block = f"double: {id}\nnumber: {number}\ntext: hello\nexpect:\n  - twice = {2 * number}"
        return f"---\ntags: [experiment]\n---\nA claim.\n\n```vaultlab\n{block}\n```\n\nThe end.\n"

    def look() -> Survey:
        return survey(root, home / "config", Catalogue({"double": DOUBLE}))

    mortal = Mortal(root, [sys.executable, "-m", "tests.mortal", "daemon", str(root), str(store)], text)
    for number in range(NOTES):
        mortal.write(f"note-{number}", 0)
    mortal.start()
    wait(lambda: presence.present(root), "the daemon")
    print(f"to replay it: VAULTLAB_SEED={seed}")
    hurt(mortal, seed, KILLS, 0.8)
    wait(lambda: settled(mortal, look), "all to be fresh")
    mortal.stop()
    whole(mortal, look)
    finished = (store / "finished").read_text().split()
    assert len(finished) == len(set(finished)), "what was finished was computed again"
    for kept in store.glob("*.json"):
        json.loads(kept.read_text())
    # how many were born between two kills is the machine's affair; that some were is what makes this a test
    assert len(list(store.glob("worker-*"))) > KILLS / 10, "the workers did die"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_forty_kills_of_the_real_ones_lose_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    root, seed = home / "vault", int(os.environ.get("VAULTLAB_SEED", "2"))

    def text(id: str, number: int) -> str:
        block = f"superposition: {id}\nsteps: {200 + number}\nseeds: 1\nseed: {number}"
        return f"---\ntags: [experiment]\n---\nA claim.\n\n```vaultlab\n{block}\n```\n\nThe end.\n"

    with Lab() as lab:
        known = catalogue.load(lab.describe)

    def look() -> Survey:
        return survey(root, home / "config", known)

    command = [sys.executable, "-c", "from vaultlab.cli import main; main()", "watch", str(root), "--trust"]
    mortal = Mortal(root, command, text)
    for number in range(NOTES):
        mortal.write(f"note-{number}", 0)
    mortal.start()
    wait(lambda: presence.present(root), "the daemon")
    print(f"to replay it: VAULTLAB_SEED={seed}")
    hurt(mortal, seed, REAL_KILLS, 5.0)
    wait(lambda: settled(mortal, look), "all to be fresh")
    mortal.stop()
    whole(mortal, look)
    for entry in (places.cache_dir() / "store").iterdir():
        if not entry.name.startswith("."):
            manifest = json.loads((entry / "out" / "manifest.json").read_text())
            assert all((entry / "out" / name).exists() for name in manifest)
