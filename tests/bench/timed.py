"""A worker that also writes down how long computing, measuring and drawing have taken: tests.bench.timed FILE.

What the whole way costs beside the work is only known where the work is timed on that very run, in that very process.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaultlab.experiments import superposition
from vaultlab.worker import __main__ as worker
from vaultlab.worker import run

spent_s = 0.0


def timed(work: Callable[..., Any], file: Path) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        global spent_s
        began = time.perf_counter()
        try:
            return work(*given)
        finally:
            spent_s += time.perf_counter() - began
            file.write_text(str(spent_s))

    return call


def main() -> None:
    file = Path(sys.argv[1])
    whole = superposition.EXPERIMENT
    parts = {name: timed(getattr(whole, name), file) for name in ("compute", "measure", "verify", "draw", "data")}
    superposition.EXPERIMENT = replace(whole, **parts)
    run.render = timed(run.render, file)  # type: ignore[attr-defined]
    worker.main()


if __name__ == "__main__":
    main()
