"""Points that are computed as one batch stand together, and what they take once counts once."""

from dataclasses import replace

import pytest

from vaultlab.experiments.superposition import EXPERIMENT
from vaultlab.result import Ask
from vaultlab.worker.asked import Asked, asked
from vaultlab.worker.batches import costs, in_batches, takes
from vaultlab.worker.limits import estimates


def grid(*, together: bool = True) -> Asked:
    """Four sparsities of three sizes, the size moving faster: no two that follow each other are of one batch."""
    points = tuple({"sparsity": sparsity, "features": n} for sparsity in (0.0, 0.5, 0.9, 0.99) for n in (5, 6, 7))
    experiment = EXPERIMENT if together else replace(EXPERIMENT, together=None)
    return asked(Ask("grid", "superposition", {}, points=points), {"superposition": experiment}, lambda name: "")


def test_points_of_a_batch_come_one_after_another_however_the_sweep_is_written() -> None:
    it = grid()
    sizes = [run.spec.features for run in in_batches(it, it.runs)]
    assert sizes == [5] * 4 + [6] * 4 + [7] * 4
    assert {run.key for run in in_batches(it, it.runs)} == {run.key for run in it.runs}


def test_what_a_batch_takes_once_counts_once() -> None:
    it = grid()
    runs = in_batches(it, it.runs)
    found = estimates(it, runs)
    once = found[0].once
    assert once > 0
    assert takes(costs(it, runs, found)) == pytest.approx(sum(need.seconds for need in found) - 9 * once)
    assert takes(costs(it, it.runs, estimates(it, it.runs))) == pytest.approx(sum(need.seconds for need in found))
    assert takes([]) == 0


def test_points_that_are_computed_one_by_one_save_nothing() -> None:
    it = grid(together=False)
    found = estimates(it, it.runs)
    assert in_batches(it, it.runs) == list(it.runs)
    assert takes(costs(it, it.runs, found)) == pytest.approx(sum(need.seconds for need in found))
