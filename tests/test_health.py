"""A daemon that lives for weeks: what it holds does not grow with what its author writes, and idle it writes nothing.

python -m tests.test_health ROOT STORE      the daemon, with its face and a stand-in worker, in short quiet times
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faced import Plugin, presence_file
from tests.http_client import pair
from tests.test_pipeline import DOUBLE
from vaultlab import daemon, jobs, pipeline, places, trust
from vaultlab.catalogue import Catalogue
from vaultlab.commands import log
from vaultlab.commands.watch import pairings_of
from vaultlab.daemon import Daemon, Way
from vaultlab.desk import Worker
from vaultlab.jobs import Jobs
from vaultlab.lab import Lab
from vaultlab.service import serving
from vaultlab.survey import Survey, survey
from vaultlab.vault import changes, presence
from vaultlab.vault.config import Config
from vaultlab.vault.journal import Journal
from vaultlab.vault.watch import Watch

NOTES, WARM, EDITS = 12, 600, 2400
MORE_BYTES = 6 * 2**20
"""What a process may grow by that forgets nothing of this size: its allocator's own untidiness."""
STATE_BYTES = 6 * 2**20
"""A queue's log is written over at 4 MB."""
IDLE_S, PATIENCE_S = 3.0, 120.0


def live(root: Path, store: Path) -> None:
    """In quiet times and with bounds so short that a test meets them all."""
    changes.PARSE_S, daemon.RUN_S = 0.05, 0.1
    daemon.QUIET_S = pipeline.QUIET_S = 0.3
    jobs.KEPT, log.LOG_BYTES = 100, 2**16
    trust.trust(root)
    look = partial(survey, root, root.parent / "config", Catalogue({"double": DOUBLE}))
    with presence.attend(root), log.logged(), Lab((sys.executable, "-m", "tests.mortal", "worker", str(store))) as lab:
        queue = Jobs(presence.queue_of(root))
        living = Daemon(root, look, Way(lab.ask, lab.cancel, lab.deaths), queue, lambda told: None)
        signal.signal(signal.SIGTERM, lambda number, frame: living.stop())
        with serving(living, Worker(dict, lambda key: None)):
            living.serve(Watch(root, Config, living.changes.add))


class Author:
    """Writes in a dozen notes: numbers, a word that is no number, a note that is renamed, one that goes and comes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dice = random.Random(1)

    def edit(self) -> None:
        at = self.dice.randrange(NOTES)
        path, other = self.root / f"Note {at}.md", self.root / f"Moved {at}.md"
        deed = self.dice.random()
        if deed < 0.02 and path.exists():
            path.rename(other)
        elif deed < 0.04:
            other.unlink(missing_ok=True)
        else:
            other.unlink(missing_ok=True)
            self.write(at, "many" if deed < 0.1 else self.dice.randrange(5))

    def write(self, at: int, number: int | str) -> None:
        path = self.root / f"Note {at}.md"
        embed = f"\n![[vaultlab/note-{at}#^result]]\n"
        standing = embed if path.exists() and embed in path.read_text() else ""
        path.write_text(self.text(at, number, standing))

    def text(self, at: int, number: int | str, standing: str = "") -> str:
        block = f"double: note-{at}\nnumber: {number}\ntext: hello\nexpect:\n  - twice = 4"
        return f"---\ntags: [experiment]\n---\nA claim.\n\n```vaultlab\n{block}\n```\n{standing}\nThe end.\n"


@dataclass(frozen=True)
class Held:
    """What a daemon holds at one moment."""

    memory: int
    files: int
    threads: int
    state: int

    @classmethod
    def by(cls, process: psutil.Process) -> "Held":
        files = [path.stat().st_size for path in places.state_dir().rglob("*") if path.is_file()]
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads(), sum(files))


def standing(root: Path) -> dict[Path, tuple[bytes, int]]:
    """Every file of the vault but the daemon's sign of life."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("daemon-")]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)


def settled(root: Path, owner: Path) -> bool:
    """Whether all is fresh and no embed is owed; where its author took one out, it stays out."""
    found: Survey = survey(root, owner, Catalogue({"double": DOUBLE}))
    return [item.state for item in found.items] == ["fresh"] * NOTES and not Journal(root).owed()


@pytest.mark.long
def test_thousands_of_edits_leave_nothing_behind_and_an_idle_daemon_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    root, store = tmp_path / "vault", tmp_path / "store"
    root.mkdir()
    store.mkdir()
    author, rest = Author(root), partial(settled, root, tmp_path / "config")
    for at in range(NOTES):
        author.write(at, 1)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "tests.test_health", str(root), str(store)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            wait(rest)
            port = json.loads(presence_file(root).read_bytes())["port"]
            client, _ = pair(port, pairings_of(root).offer(time.time()))
            assert client
            plugin, seen = Plugin(client), []
            for count in (WARM, EDITS):
                for number in range(count):
                    author.edit()
                    time.sleep(0.01)
                    if number % 50 == 0:
                        plugin.said("GET", "/v1/hello")
                        plugin.plan("Note 0.md", author.text(0, number))
                for at in range(NOTES):
                    (root / f"Moved {at}.md").unlink(missing_ok=True)
                    author.write(at, 2)
                wait(rest)
                seen.append(Held.by(psutil.Process(process.pid)))
            warm, worn = seen
            assert worn.memory - warm.memory < MORE_BYTES
            assert worn.files <= warm.files
            assert worn.threads <= warm.threads
            assert worn.state < STATE_BYTES
            before = standing(root)
            time.sleep(IDLE_S)
            assert standing(root) == before
            assert process.poll() is None
        finally:
            process.terminate()
    assert process.returncode == 0


if __name__ == "__main__":
    live(*map(Path, sys.argv[1:]))
