"""What rises, and what the spread leaves open: by table, against simulated truths, and against a second evaluator."""

import math
import random
import statistics

import pytest

from vaultlab.trend import Spot, rising, student


def exact(*values: float) -> list[Spot]:
    return [Spot(value, (value, value)) for value in values]


def within(half: float, *values: float) -> list[Spot]:
    return [Spot(value, (value - half, value + half)) for value in values]


@pytest.mark.parametrize(
    ("spots", "verdict", "up", "down"),
    [
        (exact(1, 2, 3), "supported", 3, None),
        (exact(1, 1, 3), "supported", 2, None),
        (exact(1, 3, 2), "refuted", 2, (1, 2)),
        (exact(3, 1, 5, 4), "refuted", 4, (0, 1)),  # the deeper fall is the one that is told
        (exact(2, 2, 2), "refuted", 0, None),
        (exact(3, 2, 1), "refuted", 0, (0, 2)),
        (within(0.2, 1, 2, 3), "supported", 3, None),
        (within(0.2, 1, 0.9, 3), "supported", 2, None),  # a dip within the spread is no fall
        (within(0.2, 1, 0.4, 3), "refuted", 2, (0, 1)),
        (within(2, 1, 2, 3), "undecided", 0, None),
        (within(0.5, 1, 2, 1.2), "undecided", 1, None),  # it rose somewhere, and may be back where it was
        (within(0.2, 3, 3, 1), "refuted", 0, (0, 2)),
        (within(math.inf, 1, 2), "undecided", 0, None),
    ],
)
def test_by_value_and_interval(spots: list[Spot], verdict: str, up: int, down: tuple[int, int] | None) -> None:
    (found,) = rising([spots])
    assert (found.verdict, found.up, found.down) == (verdict, up, down)
    assert found.pairs == math.comb(len(spots), 2)


def seeded(*seeds: tuple[float, ...]) -> list[Spot]:
    means = [statistics.fmean(at) for at in seeds]
    return [Spot(mean, (mean, mean), at) for mean, at in zip(means, seeds, strict=True)]


@pytest.mark.parametrize(
    ("spots", "verdict"),
    [
        (seeded((1, 11, 21, 31), (2, 12.1, 22, 32.1)), "supported"),
        (seeded((1, 11, 21, 31), (2, 12, 21, 30)), "undecided"),
        (seeded((1, 11, 21, 31), (1, 11, 21, 31)), "refuted"),
        (seeded((2, 12.1, 22, 32.1), (1, 11, 21, 31)), "refuted"),
        (seeded((1, 1, 1), (1, 1, 2)), "undecided"),  # one seed of three is no trend
        (seeded((1, 1.1), (2, 2.3)), "undecided"),  # nor are two seeds a spread to rely on
    ],
)
def test_seed_by_seed(spots: list[Spot], verdict: str) -> None:
    assert rising([spots])[0].verdict == verdict


def test_what_falls_rises_in_the_mirror() -> None:
    spot = Spot(1.0, (0.5, 2.0), (0.9, 1.1))
    assert spot.mirrored == Spot(-1.0, (-2.0, -0.5), (-0.9, -1.1))
    assert rising([[spot.mirrored for spot in exact(3, 2, 1)]])[0].verdict == "supported"


def test_the_more_is_compared_the_more_it_takes() -> None:
    """Two values that differ just so, alone and among many that do not."""
    pair = within(0.2, 0.0, 0.3)
    assert rising([pair])[0].verdict == "supported"
    assert rising([[*pair, *within(0.2, *[0.15] * 20)]])[0].verdict == "undecided"
    assert [found.verdict for found in rising([pair, within(0.2, *[0.0] * 20)])] == ["undecided", "undecided"]


@pytest.mark.parametrize("kind", ["seeds", "intervals"])
@pytest.mark.parametrize(
    ("truth", "right"),
    [
        ([0.0] * 8, {"undecided"}),
        ([n / 2 for n in range(8)], {"supported"}),
        ([n / 50 for n in range(8)], {"supported", "undecided"}),
        ([0, 1, 2, 3, 3, 3, 3, 3], {"supported"}),
        ([0, 1, 2, 3, 3, 2, 1, 0], {"refuted"}),
    ],
)
def test_it_is_wrong_in_at_most_a_twentieth_of_cases(kind: str, truth: list[float], right: set[str]) -> None:
    """Eight values, of each eight runs with a spread of 0.3: 200 times over. A flat truth is never called a trend."""
    draw = random.Random(4)

    def spot(value: float) -> Spot:
        runs = tuple(draw.gauss(value, 0.3) for _ in range(8))
        mean, half = statistics.fmean(runs), 1.96 * 0.3 / math.sqrt(8)
        return Spot(mean, (mean, mean), runs) if kind == "seeds" else Spot(mean, (mean - half, mean + half))

    found = [rising([[spot(value) for value in truth]])[0].verdict for _ in range(200)]
    assert sum(one not in right for one in found) <= 18  # 10 expected at most; 18 is two and a half deviations more


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 15, 31])
@pytest.mark.parametrize("probability", [0.9, 0.975, 0.9999])
def test_students_quantile_against_its_density(freedom: int, probability: float) -> None:
    """The density integrated from the middle up to the quantile, by Simpson's rule over the angle."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    end, steps = math.atan(student(freedom, probability) / math.sqrt(freedom)), 2000
    weights = [1, *([4, 2] * (steps // 2 - 1)), 4, 1]
    area = sum(w * math.cos(end * k / steps) ** (freedom - 1) for k, w in enumerate(weights)) * end / steps / 3
    assert scale * area == pytest.approx(probability - 0.5, abs=1e-9)
