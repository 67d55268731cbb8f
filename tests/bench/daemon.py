"""A daemon beside an author: from a save to the queue and to the result note, and what the way costs beside the work.

200 saves of a note among a thousand, whose results and figures are stored: at most 50 ms until its block is queued and
150 ms until its result note is written, p95, both after the quiet time. For the default `superposition` at most 100 ms
over computing and drawing.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

from vaultlab import catalogue, daemon
from vaultlab.daemon import Daemon, Way
from vaultlab.jobs import Jobs
from vaultlab.lab import Lab
from vaultlab.result import Answer, Ask, Progress, Result
from vaultlab.survey import survey
from vaultlab.vault.config import Config
from vaultlab.vault.presence import queue_of
from vaultlab.vault.watch import Watch

SAVES, OTHERS = 200, 1000
QUIET_S = 0.5
"""In the place of RUN_S: what comes after the quiet time is the same, and 200 saves take no seven minutes."""
QUEUED_MS, WRITTEN_MS, OVER_MS = 50, 150, 100
WORKS = 7
SPENT = "spent"
BLOCK = "---\ntags: [experiment]\n---\n```vaultlab\nsuperposition: {id}\n{fields}\n```\n"


class Vault:
    """A vault with a living daemon and a worker."""

    def __init__(self, root: Path, lab: Lab) -> None:
        self.root = root
        self.jobs = Jobs(queue_of(root))
        experiments = catalogue.load(lab.describe)
        look = lambda: survey(root, root.parent / "owner", experiments)  # noqa: E731
        self.answers: list[Answer] = []

        def asked(ask: Ask, progress: Callable[[Progress], None]) -> Answer:
            self.answers.append(lab.ask(ask, progress))
            return self.answers[-1]

        way = Way(asked, lab.cancel, lab.deaths, lab.stored)
        self.daemon = Daemon(root, look, way, self.jobs, lambda told: None)

    @contextmanager
    def served(self) -> Iterator[None]:
        watch = Watch(self.root, Config, self.daemon.changes.add)
        serving = threading.Thread(target=self.daemon.serve, args=(watch,))
        serving.start()
        while self.daemon.survey is None:
            time.sleep(0.05)
        yield
        self.daemon.stop()
        serving.join()
        self.jobs.close()

    def save(self, id: str, fields: str) -> float:
        """In place, as Obsidian does; when it was."""
        (self.root / f"{id}.md").write_text(BLOCK.format(id=id, fields=fields))
        return time.time()

    def written(self, id: str) -> float:
        try:
            return (self.root / f"vaultlab/{id}.md").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def wait(self, id: str, since: float) -> float:
        """When the result note was written, after `since`."""
        while self.written(id) <= since:
            time.sleep(0.01)
        return self.written(id)


def told(name: str, seconds: list[float], most_ms: float) -> None:
    p95 = quantiles(seconds, n=20)[-1]
    print(
        f"daemon  {name:34}  p95 {p95 * 1e3:4.0f} ms (at most {most_ms} ms), "
        f"median {median(seconds) * 1e3:.0f} ms, least {min(seconds) * 1e3:.0f} ms"
    )


def saves(vault: Vault) -> None:
    """A note goes back and forth between two runs that the store has."""
    fields = "steps: 20\nseeds: 1\nseed: {}"
    queued, written = [], []
    for number in range(SAVES + 2):
        saved = vault.save("note", fields.format(number % 2))
        after = vault.wait("note", saved) - saved - QUIET_S
        job = vault.jobs.last(str(vault.root), "note")
        assert job is not None
        if number >= 2:
            queued.append(job.put_at - saved - QUIET_S)
            written.append(after)
    told("save → queued, after the quiet time", queued, QUEUED_MS)
    told("save → result note, stored", written, WRITTEN_MS)


def work(vault: Vault, spent: Path) -> None:
    """The whole way of the default run, without what computing, measuring and drawing it took on that very run."""
    over, before = [], 0.0
    for seed in range(WORKS + 1):
        saved = vault.save("whole", f"seed: {seed + 10}")
        whole = vault.wait("whole", saved) - saved - QUIET_S
        result = vault.answers[-1]
        assert isinstance(result, Result)
        assert not result.cached
        now = float(spent.read_text())
        over.append(whole - (now - before))
        before = now
    told("over computing and drawing", over[1:], OVER_MS)  # the first one warms the worker up


def worker(folder: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.bench.timed", f"{folder}/{SPENT}")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Lab(worker(folder)) as lab:
        for name in ("STATE", "CACHE", "CONFIG"):
            os.environ[f"XDG_{name}_HOME"] = f"{folder}/{name.lower()}"
        daemon.RUN_S = QUIET_S
        root = Path(folder) / "vault"
        root.mkdir()
        for number in range(OTHERS):
            (root / f"Other {number}.md").write_text("Words on features, neurons and circuits.\n" * 20)
        vault = Vault(root, lab)
        with vault.served():
            saves(vault)
            work(vault, Path(folder) / SPENT)


if __name__ == "__main__":
    main()
