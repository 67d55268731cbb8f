"""Arcs over a text: what is drawn, what is summed up, and how much of the whole it is."""

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Arc

from vaultlab.plots.arcs import NAMED, arcs


def drawn(figure: Canvas) -> dict[tuple[float, float], float]:
    """From where to where each arc leads, and how thick it is."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Arc)]
    return {(one.center[0] - one.width / 2, one.center[0] + one.width / 2): float(one.get_linewidth()) for one in found}


def given(count: int, **cells: float) -> np.ndarray:
    values = np.full((count, count), np.nan, np.float32)
    for place, value in cells.items():
        query, key = place.removeprefix("q").split("k")
        values[int(query), int(key)] = value
    return values


def test_an_arc_leads_from_the_key_to_the_query_and_is_as_thick_as_what_is_given() -> None:
    figure, share = arcs("abcd", given(4, q3k0=2.0, q2k1=1.0), "")
    lines = drawn(figure)
    assert set(lines) == {(0.0, 3.0), (1.0, 2.0)}
    assert lines[0.0, 3.0] > lines[1.0, 2.0]
    assert share == 1.0


def test_what_is_faint_is_left_out_and_counted() -> None:
    figure, share = arcs("abc", given(3, q1k0=0.98, q2k1=0.02), "")
    assert set(drawn(figure)) == {(0.0, 1.0)}
    assert share == pytest.approx(0.98)


def test_what_a_token_gives_itself_is_a_dot_and_said() -> None:
    figure, share = arcs("ab", given(2, q1k1=1.0), "")
    assert not drawn(figure)
    assert share == 1.0
    assert "a dot" in figure.axes[0].get_xlabel()


def test_of_a_long_text_the_last_tokens() -> None:
    count = NAMED + 10
    figure, share = arcs("x" * count, given(count, q5k0=1.0, **{f"q{count - 1}k{count - 2}": 1.0}), "")
    assert set(drawn(figure)) == {(NAMED - 2.0, NAMED - 1.0)}
    assert share == 0.5


def test_where_nothing_moves_nothing_is_drawn() -> None:
    figure, share = arcs("ab", given(2), "")
    assert not drawn(figure)
    assert share == 0.0
