"""Long work makes way for the note being edited, in real time, and goes on with what it had done."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.test_daemon import Alive, alive
from tests.test_desk_life import block
from tests.test_lab import STANDIN
from tests.test_pipeline import NOTE
from vaultlab import catalogue, daemon, survey
from vaultlab.daemon import Daemon, Way
from vaultlab.jobs import Job, Jobs
from vaultlab.lab import Lab
from vaultlab.pipeline import insisted
from vaultlab.survey import Look
from vaultlab.vault.journal import home, made
from vaultlab.vault.presence import Request
from vaultlab.vault.watch import Watch

__all__ = ["alive"]  # the fixture
POINTS = 1000


@dataclass
class Watched:
    """A vault that a daemon watches, with a worker in a process of its own."""

    daemon: Daemon
    lab: Lab

    def job(self, block: str) -> Job | None:
        return self.daemon.jobs.last(str(self.daemon.root), block)

    def runs(self, block: str) -> bool:
        running = self.daemon.status.running
        return running is not None and running.block == block and self.daemon.status.progress is not None

    def told(self) -> str:
        """What the run under way says that it is doing."""
        progress = self.daemon.status.progress
        return progress.phase if progress else ""

    def state(self, block: str) -> str:
        job = self.job(block)
        return job.state if job else ""


def until(true: Callable[[], bool], patience_s: float = 120.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def watched(root: Path, look: Look, lab: Lab) -> Iterator[Watched]:
    jobs = Jobs(made(home(root)) / "jobs.sqlite")
    one = Daemon(root, look, Way(lab.ask, lab.cancel, lab.deaths), jobs, lambda said: None)
    config = look().config
    thread = threading.Thread(target=one.serve, args=(Watch(root, lambda: config, one.changes.add),))
    thread.start()
    try:
        yield Watched(one, lab)
    finally:
        one.stop()
        thread.join(60)
        jobs.close()
    assert not thread.is_alive()


def test_a_run_that_never_ends_makes_way_and_begins_again(alive: Alive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "YIELD_S", 1.0)
    monkeypatch.setattr(daemon, "STOP_S", 0.2)
    alive.jobs.close()
    alive.write("Long.md", block("long", "progress", "wait"))
    with Lab(STANDIN) as lab, watched(alive.root, alive.look, lab) as here:
        until(lambda: here.runs("long"))
        alive.write("Note.md", NOTE.replace("expect:\n  - twice = 2\n", ""))
        until(lambda: here.state("two") == "done")
        until(lambda: here.runs("long"))
        job = here.job("long")
        assert job is not None
        assert job.runs == 2


SWEPT = f"""---
tags: [experiment]
---
```vaultlab
superposition: long
steps: 200
sweep:
  seed: {list(range(POINTS))}
```
"""
QUICK = """---
tags: [experiment]
---
```vaultlab
superposition: quick
steps: 20
seeds: 1
```
"""


@pytest.mark.long
def test_a_sweep_of_a_thousand_points_makes_way_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    root = tmp_path / "vault"
    root.mkdir()
    (root / "Long.md").write_text(SWEPT)
    with Lab(device="cpu") as lab:
        look = partial(survey.survey, root, tmp_path / "config", catalogue.load(lab.describe))
        ask = look().items[0].ask
        assert ask is not None
        ask = insisted(ask)  # it has more points than run by themselves
        with watched(root, look, lab) as here:
            here.daemon.ask_for(Request(("long",), named=True))
            until(lambda: here.told().startswith("run ") and not here.told().startswith("run 1–"))
            (root / "Quick.md").write_text(QUICK)
            until(lambda: here.state("quick") == "done")
            quick = here.job("quick")
            assert quick is not None
            assert quick.began_at is not None
            assert quick.began_at - quick.put_at <= daemon.YIELD_S
            done = sum(lab.plan(ask).stored)
            assert done > 0
            until(lambda: here.runs("long") and here.told().startswith("run 1–"))
            assert f" of {POINTS - done}: " in here.told(), "what was done is not computed again"
