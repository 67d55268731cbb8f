"""A process that uses a queue, to be killed: `python -m tests.queue_user FILE DEED NUMBER`, a line for what is done.

With NUMBER > 0 it kills itself before its NUMBERth SQL statement: between any two steps of any verb.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from vaultlab.errors import RunError
from vaultlab.jobs import Jobs, Order, Priority
from vaultlab.result import Ask


def user(path: Path, deed: str, number: int = 0) -> "subprocess.Popen[str]":
    """Such a process, started."""
    command = [sys.executable, "-m", "tests.queue_user", str(path), deed, str(number)]
    root = Path(__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)


def order(block: str, ask: str = "", text: str = "") -> Order:
    return Order("v", block, "n.md", Ask(block, "toy", {"text": text}), ask or f"ask of {block}", Priority.RECENT)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def wanted(block: str, ask: str = "", key: str = "", at: Priority = Priority.RECENT, *, force: bool = False) -> Order:
    one = order(block, ask)
    return replace(one, key=key, priority=at, ask=replace(one.ask, force=force))


def said(*words: object) -> None:
    print(*words, flush=True)


def work(jobs: Jobs) -> None:
    """Put two, take one, do it; now and then another text, a crash, a piece of a sweep."""
    for number in range(100_000):
        for block in (f"a{number}", f"b{number}"):
            said("put", jobs.put(order(block)).id)
        if number % 5 == 0:
            jobs.put(order(f"b{number}", "another"))
        job = jobs.take(f"process {os.getpid()}", 60.0)
        if job is None:
            continue
        if number % 7 == 0:
            jobs.requeue(job)
        elif number % 11 == 0:
            jobs.crashed(job, "The worker died.")
        elif number % 13 == 0:
            jobs.cancel(job.id)
            jobs.finish(job, "cancelled")
        elif jobs.finish(job, "done"):
            said("done", job.id)


def drain(jobs: Jobs) -> None:
    """Take everything there is, beside others who do so too."""
    while job := jobs.take(f"process {os.getpid()}", 60.0):
        said("took", job.id)
        jobs.finish(job, "done")


def fill(jobs: Jobs) -> None:
    """Put until the disk is full; then there is room again."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    try:
        for number in range(1000):
            jobs.put(order(f"a{number}", text="word " * 2000))
            said("put", number)
    except RunError as error:
        said("full", error)
    said("kept", len(jobs.pending()))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said("after", jobs.put(order("z")).state)


def main() -> None:
    path, deed, number = sys.argv[1:]
    jobs = Jobs(Path(path))
    left = int(number)

    def count(statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    jobs._ledger._db.set_trace_callback(count)
    said("ready", time.time())
    {"work": work, "drain": drain, "fill": fill}[deed](jobs)


if __name__ == "__main__":
    main()
