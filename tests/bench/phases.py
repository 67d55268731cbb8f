"""The 2 → 1 phase diagram of 100 × 100 cells, theory included: at most 10 s are wanted on two cores.

The whole way in the worker, from the fields to the stored figures and checks. Beside it what the losses of all its
starts would take, once, by the quadrature in float64 that is its check: timed on a thousand of them.
"""

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from vaultlab.experiments.superposition_phases import Spec as Phases
from vaultlab.models.expectation import by_quadrature
from vaultlab.result import Ask, Result
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

CELLS, TIMED = 100, 1000
WANTED_S = 10.0


def diagram() -> tuple[float, float, Result]:
    """Wall-clock and computing seconds."""
    with TemporaryDirectory() as folder:
        runner = Runner(Store(Path(folder)))
        ask = Ask("diagram", "superposition_phases", {"features": 2, "cells": CELLS})
        begun, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        answer = runner.run(ask, lambda step: None, lambda: False)
        took, ended = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        assert isinstance(answer, Result), answer
        return took, ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime, answer


def quadrature_once() -> float:
    """Computing seconds, of all starts."""
    p = torch.logspace(-2, 0, TIMED, dtype=torch.float64)
    theta = torch.randn(TIMED, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = time.process_time()
    by_quadrature(theta, p, torch.ones(TIMED, 2, dtype=p.dtype))
    return (time.process_time() - start) * CELLS**2 * Phases().seeds / TIMED


def main() -> None:
    took, computing, answer = diagram()
    found = {metric.name: metric.value for metric in answer.metrics}
    print(f"phases  {CELLS} × {CELLS} cells: {took:.1f} s (at most {WANTED_S:.0f}), computing {computing:.1f} s")
    print(f"phases  agreement {found['agreement']:.4f}, checks {'hold' if answer.sound else 'FAIL'}")
    print(f"phases  the losses of all starts, once, by quadrature: computing {quadrature_once():.1f} s")


if __name__ == "__main__":
    main()
