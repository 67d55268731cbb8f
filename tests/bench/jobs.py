"""A queue with 10 000 jobs: a whole life of one more, and the verbs by themselves. At most 1 ms a job is wanted."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from vaultlab.jobs import Jobs, Order, Priority
from vaultlab.result import Ask

QUEUED, LIVES, WANTED_MS = 10_000, 2_000, 1.0
ASK = Ask("toy", "superposition", {"features": 20, "hidden": 5, "sparsity": 0.9, "importance": "0.7^i", "seeds": 5})


def order(number: int, change: str = "") -> Order:
    priority = Priority(number % len(Priority))
    return Order("vault", f"toy-{number}", "Folder/Note.md", ASK, f"{number:060d}{change}", priority, origin="edited")


def told(name: str, deeds: Iterable[object], limit: str = "") -> None:
    start = time.perf_counter()
    count = sum(1 for _ in deeds)
    print(f"jobs   {name:24}  {(time.perf_counter() - start) * 1e3 / count:6.3f} ms{limit}")


def life(queue: Jobs, number: int) -> None:
    job = queue.put(order(number)) and queue.take("bench", 60.0)
    assert job is not None
    assert queue.finish(job, "done")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue = Jobs(Path(folder) / "jobs.sqlite")
        told("put, up to 10 000", (queue.put(order(number)) for number in range(QUEUED)))
        told("put, take, done", (life(queue, QUEUED + number) for number in range(LIVES)), f" (at most {WANTED_MS} ms)")
        pending = queue.pending()
        assert len(pending) == QUEUED
        told("put, nothing new", (queue.put(order(int(job.lab_ask))) for job in pending[:LIVES]))
        told("put, superseding", (queue.put(order(int(job.lab_ask), "b")) for job in pending[:LIVES]))
        told("renew", (queue.renew(job) for job in pending[:LIVES]))
        told("place of the last", (queue.place(pending[-1]) for _ in range(100)))
        told("pending, all of them", (look() for look in [queue.pending]))
        queue.close()


if __name__ == "__main__":
    main()
