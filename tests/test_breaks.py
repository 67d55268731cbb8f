"""Where a claim breaks: planted bounds are found, chance is not taken for one."""

import random

import pytest

from vaultlab.breaks import breaks


def spread(count: int, seed: int = 0) -> list[dict[str, object]]:
    draw = random.Random(seed)
    return [
        {"S": draw.uniform(0.7, 1), "rate": draw.uniform(0, 1), "bos": draw.choice([True, False, None]), "seed": at}
        for at in range(count)
    ]


def test_what_never_breaks_breaks_nowhere() -> None:
    assert breaks(spread(20), [True] * 20) == ("", "")


def test_a_planted_bound_is_found_from_either_side() -> None:
    tried = spread(50)
    below = sum(one["S"] < 0.8 for one in tried)
    said = breaks(tried, [one["S"] >= 0.8 for one in tried])
    assert said == ("where S < 0.8", f"{below} of {below} there, 0 of {50 - below} elsewhere")
    assert breaks(tried, [one["S"] <= 0.8 for one in tried]).where == "where S ≥ 0.8"


def test_two_bounds_and_a_word() -> None:
    tried = spread(80)
    held = [one["S"] >= 0.8 and one["rate"] < 0.7 for one in tried]
    said = breaks(tried, held)
    assert set(said.where.removeprefix("where ").split(" or ")) == {"S < 0.8", "rate ≥ 0.7"}
    assert said.counts == f"{held.count(False)} of {held.count(False)} there, 0 of {held.count(True)} elsewhere"
    assert breaks(tried, [one["bos"] is not None for one in tried]).where == "where bos is none"


def test_a_bound_need_not_be_sharp() -> None:
    tried = spread(60)
    held = [one["S"] >= 0.8 for one in tried]
    strays = [at for at, one in enumerate(held) if one][:2]
    for at in strays:
        held[at] = False
    assert breaks(tried, held).counts.endswith(f", 2 of {sum(one['S'] >= 0.8 for one in tried)} elsewhere")


def test_a_seed_is_no_place() -> None:
    tried = [{"seed": at, "S": 0.9} for at in range(20)]
    assert breaks(tried, [at >= 10 for at in range(20)]) == ("at no value in particular", "")


def test_chance_is_seldom_taken_for_a_bound() -> None:
    """Broken and held at random, 40 times over: a twentieth would be two."""
    draw = random.Random(5)
    named = 0
    for trial in range(40):
        held = [draw.random() < 0.7 for _ in range(40)]
        named += breaks(spread(40, trial), held).where != "at no value in particular"
    assert named <= 6


@pytest.mark.parametrize(
    ("values", "broken", "words"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8] * 2, 3, "n < 3"),
        ([0.001, 0.002, 0.003, 0.01, 0.02, 0.03] * 3, 0.01, "n < 0.007"),
        ([0.70001, 0.70002, 0.70003, 0.70004] * 5, 0.70003, "n < 0.70003"),
        ([-3, -2, -1, 0, 1, 2] * 3, 0, "n < 0"),
    ],
)
def test_the_bound_has_no_more_digits_than_it_needs(values: list[float], broken: float, words: str) -> None:
    said = breaks([{"n": value} for value in values], [value >= broken for value in values])
    assert said.where == f"where {words}"
