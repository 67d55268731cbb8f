"""Sweeps: ranges and grids."""

import pytest

from vaultlab.notes.sweep import expand, span


def test_a_range_has_both_its_ends() -> None:
    assert span("0..9") == tuple(range(10))
    assert span(" -2 .. -1 ") == (-2, -1)
    assert span("3..3") == (3,)


@pytest.mark.parametrize("text", ["9..0", "0..10000", "0...3", "1..", "a..b", "0.5..1", "", "1" * 19 + "..2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match=r"range|values"):
        span(text)


def test_a_grid_in_the_order_of_its_fields() -> None:
    assert expand({"b": (1, 2), "a": ("x", "y")}) == (
        {"b": 1, "a": "x"},
        {"b": 1, "a": "y"},
        {"b": 2, "a": "x"},
        {"b": 2, "a": "y"},
    )
    assert list(expand({"b": (1,), "a": (2,)})[0]) == ["b", "a"]


def test_no_sweep_has_no_points() -> None:
    assert expand({}) == ()
    assert expand({"a": ()}) == ()
