"""A queue with 10 000 jobs: every verb of a job's life, on this disk. At most 1 ms a job is wanted."""

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


def told(name: str, jobs: Iterable[object]) -> None:
    start = time.perf_counter()
    count = sum(1 for _ in jobs)
    print(f"jobs   {name:34}  {(time.perf_counter() - start) * 1e3 / count:6.3f} ms a job (at most {WANTED_MS} ms)")


def life(queue: Jobs, number: int) -> None:
    """An edit, which supersedes; take, renew, done; and another put, so that as many are queued as before."""
    queue.put(order(number, "edited"))
    job = queue.take("bench", 60.0)
    assert job is not None
    assert queue.renew(job)
    assert queue.finish(job, "done")
    queue.put(order(int(job.block.removeprefix("toy-"))))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        queue = Jobs(Path(folder) / "jobs.sqlite")
        told("put, up to 10 000", (queue.put(order(number)) for number in range(QUEUED)))
        told("put again, nothing new", (queue.put(order(number)) for number in range(LIVES)))
        told("edit, take, renew, done, put", (life(queue, number) for number in range(LIVES)))
        told("all that is pending", (job for read in (queue.pending,) for job in read()))
        last = queue.pending()[-1]
        assert queue.place(last) == QUEUED
        told("the place of the last", (queue.place(last) for _ in range(100)))
        queue.close()


if __name__ == "__main__":
    main()
