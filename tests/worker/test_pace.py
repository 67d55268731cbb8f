"""How many points of a sweep are computed as one piece."""

import pytest

from vaultlab.worker.batches import Cost
from vaultlab.worker.pace import Pace


def pieces(estimates: list[float], runs: int, cost: float) -> list[int]:
    """The sizes of all pieces where the runs together take `cost` seconds each."""
    pace, sizes = Pace([Cost(one, one) for one in estimates], runs), []
    while sum(sizes) < runs:
        sizes.append(pace.piece())
        pace.took(sizes[-1], cost * sizes[-1])
    return sizes


@pytest.mark.parametrize(
    ("estimates", "runs", "cost", "sizes"),
    [
        ([1.0] * 5, 5, 1.0, [5]),
        ([3.0] * 10, 10, 3.0, [3, 3, 3, 1]),
        ([3.0] * 10, 10, 0.5, [3, 7]),  # faster than was thought
        ([1.0] * 30, 30, 5.0, [10, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]),  # slower
        ([100.0, 1.0, 1.0], 3, 2.0, [1, 2]),  # a single run is never cut
        ([], 12, 2.0, [1, 5, 5, 1]),  # nobody knows: one, to see
        ([], 3, 60.0, [1, 1, 1]),
    ],
)
def test_a_piece_takes_ten_seconds_at_most(estimates: list[float], runs: int, cost: float, sizes: list[int]) -> None:
    assert pieces(estimates, runs, cost) == sizes


def test_what_is_left_is_known_as_soon_as_something_was_measured() -> None:
    pace = Pace([Cost(one, one) for one in (1.0, 1.0, 4.0, 4.0)], 4)
    assert pace.rest_s(1) is None
    assert pace.rest_s(4) == 0.0
    pace.took(1, 3.0)
    assert pace.rest_s(1) == pytest.approx(3.0 * 8)
    assert pace.rest_s(3) == 0.0


def test_what_a_batch_takes_once_counts_once_in_each_piece() -> None:
    """Four seconds for a piece and a tenth for each of its runs, as was thought: sixty of them fit into ten seconds."""
    pace = Pace([Cost(4.1, 0.1)] * 200, 200)
    assert pace.piece() == 60
    pace.took(60, 10.0)
    assert pace.rest_s(60) == pytest.approx(4.1 + 79 * 0.1)
    assert pace.piece() == 60
