"""Heads as dots: their names stay beside them and apart."""

from itertools import combinations

import pytest
import torch
from matplotlib.text import Annotation

from vaultlab.plots.attention import Heads, draw_entropy


@pytest.mark.parametrize(
    ("entropy", "write_norm"),
    [([1.24, 1.32, 1.46, 0.7], [0.020, 0.019, 0.026, 0.004]), ([2.96, 3.04, 2.48, 0.1], [0.141, 0.137, 0.138, 0.01])],
)
def test_names_of_dots_side_by_side_do_not_run_into_each_other(entropy: list[float], write_norm: list[float]) -> None:
    none = torch.zeros(1, 4)
    heads = Heads([7], (0, 2), torch.tensor([entropy]), 3.49, none, none, none, torch.tensor([write_norm]))
    figure = draw_entropy(heads, "some text").figure
    figure.draw_without_rendering()
    names = [one for one in figure.axes[0].texts if isinstance(one, Annotation)]
    assert sorted(one.get_text() for one in names) == ["L7H0", "L7H1", "L7H2"]
    boxes = [one.get_window_extent() for one in names]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.x0 > figure.axes[0].bbox.x0 and box.x1 < figure.axes[0].bbox.x1 for box in boxes)
