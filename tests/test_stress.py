"""What a stress tries: within what is declared, evenly, the same each time; and never what the block sweeps itself."""

from typing import Any

import pytest

from vaultlab.catalogue import Entry
from vaultlab.stress import CONTROLS, Trial, trial

FIELDS: dict[str, dict[str, Any]] = {
    "share": {"type": "number", "default": 0.9, "stress": [0.8, 0.99]},
    "rate": {"type": "number", "default": 0.01, "stress": [0.001, 0.1]},
    "top": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 8, "stress": [4, 7]},
    "bos": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "default": None, "stress": [None, True]},
    "steps": {"type": "integer", "default": 100},
    "seed": {"type": "integer", "default": 3},
}
NONSENSE = {"what": "an untrained model", "about": "training", "fields": {"steps": 1}}


def entry(*names: str, nonsense: dict[str, Any] | None = NONSENSE) -> Entry:
    return Entry("x", 1, "", {"properties": {name: FIELDS[name] for name in names}}, (), {}, (), nonsense)


def of(found: Trial, name: str) -> list[Any]:
    return [fields[name] for fields in found.varied]


def test_every_range_is_covered_evenly_and_none_is_left() -> None:
    found = trial(entry(*FIELDS), {}, (), 60)
    shares, rates = of(found, "share"), of(found, "rate")
    assert all(0.8 <= share <= 0.99 for share in shares)
    quarters = [sum(low <= share < low + 0.0475 for share in shares) for low in (0.8, 0.8475, 0.895, 0.9425)]
    assert quarters == pytest.approx([15] * 4, abs=1)
    # What spans decades is spread over the decades.
    assert sum(rate < 0.01 for rate in rates) == pytest.approx(30, abs=2)
    tops = of(found, "top")
    assert [tops.count(top) for top in range(4, 9)] == pytest.approx([12] * 5, abs=1)
    assert of(found, "bos").count(True) == pytest.approx(30, abs=2)
    pairs = {(share > 0.895, rate > 0.01) for share, rate in zip(shares[:8], rates, strict=False)}
    assert len(pairs) == 4  # all together too, from the first few on
    assert "steps" not in found.varied[0]
    assert of(found, "seed") == list(range(4, 64))


def test_the_first_of_many_are_those_of_few() -> None:
    assert trial(entry(*FIELDS), {}, (), 60).varied[:7] == trial(entry(*FIELDS), {}, (), 7).varied


@pytest.mark.parametrize(
    ("own", "low", "high"), [(0.5, 0.5, 0.99), ("50%", 0.5, 0.99), (0.995, 0.8, 0.995), (0.9, 0.8, 0.99)]
)
def test_a_range_reaches_as_far_as_the_block_itself(own: object, low: float, high: float) -> None:
    shares = of(trial(entry("share"), {"share": own}, (), 200), "share")
    assert (min(shares), max(shares)) == pytest.approx((low, high), abs=0.01)
    assert low <= min(shares)
    assert max(shares) <= high


def test_the_seed_goes_on_from_the_blocks_own() -> None:
    assert of(trial(entry("seed"), {"seed": 2**31 - 2}, (), 3), "seed") == [2**31 - 1, 0, 1]


def test_what_there_is_little_of_is_tried_once_each() -> None:
    found = trial(entry("bos", nonsense=None), {}, (), 50)
    assert sorted(of(found, "bos"), key=str) == [None, True]
    assert found.nonsense == ()


def test_what_the_block_sweeps_is_not_varied() -> None:
    found = trial(entry(*FIELDS), {}, ("share", "seed"), 10)
    assert set(found.varied[0]) == {"rate", "top", "bos"}
    assert trial(entry("share", "seed"), {}, ("share", "seed"), 10).varied == ()
    # A sweep over what makes the nonsense would take it back.
    assert trial(entry("share", "steps"), {}, ("steps",), 10).nonsense == ()


def test_the_controls_are_the_first_variations_with_the_nonsense_over_them() -> None:
    found = trial(entry("share", "steps", "seed"), {}, (), 20)
    assert found.nonsense == tuple({**fields, "steps": 1} for fields in found.varied[:CONTROLS])
