"""Groups in cells of their own."""

import numpy as np
import pytest

from vaultlab.plots.clusters import _cells


@pytest.mark.parametrize("sizes", [[], [2] * 20, [60], [42, 5], [13, 13, 13, 1, 1, 2], [512]])
def test_groups_are_drawn_without_overlap(sizes):
    cells, side = _cells(sizes)
    taken = np.zeros((side, side), dtype=int)
    for x, y, span in cells:
        taken[int(y) : int(y) + span, int(x) : int(x) + span] += 1
    assert taken.max(initial=0) <= 1
    assert taken.sum() == sum(span**2 for _, _, span in cells)
    assert len(cells) == len(sizes)
