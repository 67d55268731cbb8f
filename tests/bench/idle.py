"""A daemon that has nothing to do, beside 10 000 notes in 5 000 folders; then a checkout that changes half of them.

A real `vaultlab watch`, as its owner starts it. At most 1 % of a core and, without its worker, 80 MB are wanted. Of the
5 000 notes that the checkout changes, 500 get a block, 40 of them a wrong one: every block must be known to the daemon
(`vaultlab status` counts those that wait) and every error stand in its result note within ten seconds.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

NOTES, FOLDERS, CHANGED, BLOCKS, WRONG = 10_000, 5_000, 5_000, 500, 40
SHARE, MOST_MB, SETTLED_S = 0.01, 80, 10.0
REST_S, IDLE_S = 20.0, 60.0
PATIENCE_S = 300.0
WORDS = "Words on features, neurons and circuits, with a [[Note 7|link]], *stress* and a claim or two in a line.\n"
BLOCK = "\n```vaultlab\nsuperposition: toy-{number}\nfeatures: {features}\nhidden: 2\nsteps: 20\n```\n"


class Vault:
    """Notes under git, the commit that the checkout leads to, and the user whose vault it is."""

    def __init__(self, home: Path) -> None:
        self.root = home / "vault"
        self.environment = {
            **os.environ,
            **{f"XDG_{name}_HOME": str(home / name) for name in ("CONFIG", "STATE", "CACHE")},
        }
        self.log = home / "watch.log"
        order = random.Random(0).sample(range(NOTES), NOTES)
        self.before, self.after = order[CHANGED : CHANGED + BLOCKS], order[:BLOCKS]
        self.wrong = self.after[:WRONG]
        for number in range(NOTES):
            self._write(number, BLOCK if number in set(self.before) else "")
        self._git("init", "--quiet", "--initial-branch=before")
        self._commit()
        self._git("checkout", "--quiet", "-b", "after")
        for number in order[:CHANGED]:
            self._write(number, "\nIt reads otherwise now.\n" + (BLOCK if number in set(self.after) else ""))
        self._commit()
        self.checkout("before")

    def checkout(self, branch: str) -> None:
        self._git("checkout", "--quiet", branch)

    def _write(self, number: int, more: str) -> None:
        path = self.root / f"Area {number % 50}/Folder {number % FOLDERS}/Note {number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        block = more.format(number=number, features="many" if number in self.wrong else 5)
        path.write_text(f"---\ntags: [experiment]\n---\n# Note {number}\n\n{WORDS * 12}{block}\n{WORDS * 6}")

    def _commit(self) -> None:
        self._git("add", "--all")
        self._git("-c", "user.name=An author", "-c", "user.email=author@localhost", "commit", "--quiet", "-m", "notes")

    def _git(self, *words: str) -> None:
        subprocess.run(["git", "-C", str(self.root), *words], check=True)

    @contextmanager
    def watched(self) -> Iterator[psutil.Process]:
        command = [sys.executable, "-c", "from vaultlab.cli import main; main()"]
        with self.log.open("wb") as log:
            watch = [*command, "watch", str(self.root), "--trust"]
            daemon = subprocess.Popen(watch, env=self.environment, stdout=log, stderr=log)
        try:
            yield psutil.Process(daemon.pid)
        finally:
            daemon.terminate()
            daemon.wait(timeout=PATIENCE_S)

    def said(self) -> Mapping[str, object]:
        """What `vaultlab status --json` reads, without starting a program that would disturb what is measured."""
        for path in Path(self.environment["XDG_STATE_HOME"]).glob("vaultlab/vaults/*/daemon.json"):
            said: Mapping[str, object] = json.loads(path.read_bytes())
            return said
        return {}

    def errors(self) -> int:
        """How many of the wrong blocks have been told so."""
        pages = (self.root / f"vaultlab/toy-{number}.md" for number in self.wrong)
        return sum(page.exists() and "lab_status: failed" in page.read_text() for page in pages)


def wait(until: Callable[[], bool], what: str) -> float:
    """How long it took."""
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > PATIENCE_S:
            raise SystemExit(f"idle  waited in vain for {what}")
        time.sleep(0.05)
    return time.monotonic() - began


def spent(daemon: psutil.Process) -> float:
    times = daemon.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        vault = Vault(Path(folder))
        with vault.watched() as daemon:
            wait(lambda: vault.said().get("held") == BLOCKS, "the first look")
            time.sleep(REST_S)
            before = spent(daemon)
            time.sleep(IDLE_S)
            share, idle_mb = (spent(daemon) - before) / IDLE_S, daemon.memory_info().rss / 1e6
            before, began = spent(daemon), time.monotonic()
            vault.checkout("after")
            took = time.monotonic() - began
            known = wait(lambda: vault.said().get("held") == 2 * BLOCKS - WRONG, "all blocks to wait")
            told = known + wait(lambda: vault.errors() == WRONG, "all errors to be told")
            busy_s, busy_mb = spent(daemon) - before, daemon.memory_info().rss / 1e6
    row("share of a core", f"{share:.2%} (at most {SHARE:.0%})")
    row("memory without its worker", f"{idle_mb:.0f} MB (at most {MOST_MB} MB), after the checkout {busy_mb:.0f} MB")
    row(f"checkout, {CHANGED} of {NOTES}", f"{told:.1f} s until settled (at most {SETTLED_S:.0f} s)")
    row(
        "of which",
        f"{known:.1f} s until all blocks are known; git took {took:.1f} s, the daemon computed {busy_s:.1f} s",
    )


def row(name: str, said: str) -> None:
    print(f"idle  {name:25}  {said}")


if __name__ == "__main__":
    main()
