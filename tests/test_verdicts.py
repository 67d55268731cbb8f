"""Verdicts by table and against a second evaluator; over sweeps, where what the spread allows decides."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaultlab.claims import parse
from vaultlab.errors import NoteError
from vaultlab.result import Check, Judgement, Metric, Point, Result
from vaultlab.verdicts import acceptance, judge, unaccepted, worst

KNOWN = {
    "loss": {},
    "represented": {},
    "dimensionality": {"mean": "the mean dimensionality is hidden/features"},
    "norm": {"every": "the norms are made 1"},
}


def result(*metrics, checks=(), points=()):
    return Result("id", "key", False, tuple(metrics), tuple(checks), {}, points=tuple(points))


def sweep(field, values, name="loss", **more):
    return result(points=[Point({field: at}, f"k{at}", False, (Metric(name, v, **more),), ()) for at, v in values])


def verdict(claim, *metrics, **more):
    return judge(parse(claim), result(*metrics, **more), KNOWN).verdict


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        ("loss = 0.40", 0.405, "supported"),
        ("loss = 0.40", 0.395, "supported"),
        ("loss = 0.40", 0.4051, "refuted"),
        ("loss = 0.4", 0.44, "supported"),
        ("loss = 5", 5, "supported"),
        ("loss = 5", 6, "refuted"),
        ("loss = 1e-4", 1.4e-4, "supported"),
        ("loss = 1e-4", 1.6e-4, "refuted"),
        ("loss != 0.40", 0.404, "refuted"),
        ("loss != 0.40", 0.41, "supported"),
        ("loss = 95%", 0.954, "supported"),
        ("loss = 95%", 0.956, "refuted"),
        ("loss = 95.0%", 0.954, "refuted"),
        ("loss = 40% +- 2%", 0.42, "supported"),
        ("loss = 0.40 ± 0.02", 0.42, "supported"),
        ("loss=0.40+-0.02", 0.4201, "refuted"),
        ("loss < 1", 1, "refuted"),
        ("loss < 1", math.nextafter(1, 0), "supported"),
        ("loss <= 1", 1, "supported"),
        ("loss ≤ 1", math.nextafter(1, 2), "refuted"),
        ("loss > -1", -1, "refuted"),
        ("loss > −1", 0, "supported"),
        ("loss >= -1", -1, "supported"),
        ("loss > 5", math.inf, "supported"),
        ("loss between 0.1 and 0.3", 0.3, "supported"),
        ("loss between 10% and 30%", 0.31, "refuted"),
        ("  loss   <  .5 ", 0.4, "supported"),
    ],
)
def test_one_number(claim, value, expected):
    assert verdict(claim, Metric("loss", value)) == expected


@pytest.mark.parametrize(
    ("claim", "interval", "expected"),
    [
        ("loss < 1", (0.5, 0.9), "supported"),
        ("loss < 1", (0.5, 1.0), "undecided"),
        ("loss < 1", (1.0, 1.2), "refuted"),
        ("loss between 0 and 1", (-0.5, 0.5), "undecided"),
        ("loss between 0 and 1", (-0.5, 1.5), "undecided"),
        ("loss != 0.5", (0.4, 0.44), "supported"),
        ("loss != 0.5", (0.46, 0.54), "refuted"),
        ("loss != 0.5", (0.4, 0.46), "undecided"),
    ],
)
def test_an_interval_must_pass_whole(claim, interval, expected):
    """The value alone would pass or fail: it is the interval that decides."""
    assert verdict(claim, Metric("loss", sum(interval) / 2, interval=interval)) == expected


def test_a_vector_needs_an_aggregate():
    vector = Metric("dimensionality", (0.3, 0.4, 0.5))
    assert verdict("every dimensionality <= 0.5", vector) == "supported"
    assert verdict("every dimensionality < 0.5", vector) == "refuted"
    assert verdict("any of dimensionality < 0.31", vector) == "supported"
    assert verdict("max of dimensionality = 0.50", vector) == "supported"
    assert verdict("min dimensionality = 0.30", vector) == "supported"
    assert verdict("mean of dimensionality = 0.40", vector) == "supported"
    with pytest.raises(NoteError, match="every dimensionality < 1"):
        verdict("dimensionality < 1", vector)


def test_a_share_counts_seeds():
    seeds = (5, 5, 5, 4, 5, 5, 5, 5, 5, 5)
    metric = Metric("represented", 5, seeds=seeds, interval=(4.6, 5.0))
    said = judge(parse("represented = 5 in 90% of seeds"), result(metric), KNOWN)
    assert (said.verdict, said.why) == ("supported", "9 of 10 seeds")
    assert verdict("represented = 5 in 91% of seeds", metric) == "refuted"
    # 0.7 × 10 is 7.000000000000001 in floats: seven of ten seeds must still be 70 %.
    ten = Metric("represented", 5, seeds=(5,) * 7 + (4,) * 3)
    assert verdict("represented = 5 in 70% of seeds", ten) == "supported"
    vectors = Metric("dimensionality", (0.4, 0.4), seeds=((0.4, 0.4), (0.4, 0.9)))
    assert verdict("every dimensionality = 0.40 in 50% of seeds", vectors) == "supported"
    assert verdict("every dimensionality = 0.40 in 51% of seeds", vectors) == "refuted"
    assert verdict("any dimensionality = 0.40 in 100% of seeds", vectors) == "supported"
    with pytest.raises(NoteError, match="no seeds"):
        verdict("represented = 5 in 90% of seeds", Metric("represented", 5))


def test_undecided_where_the_run_cannot_be_believed():
    bad = Check("memories sum to the output", 0.1, 0.01)
    said = judge(parse("loss < 1"), result(Metric("loss", 0.5), checks=[bad]), KNOWN)
    assert said.verdict == "undecided"
    assert "memories sum to the output" in said.why
    assert verdict("loss < 1", Metric("loss", 0.5), checks=[Check("x", math.nan, 1.0)]) == "undecided"
    assert verdict("loss < 1", Metric("loss", math.nan)) == "undecided"
    assert verdict("loss != 1", Metric("loss", math.nan)) == "undecided"
    assert verdict("loss < 1", Metric("loss", 0.5, interval=(0.4, math.nan))) == "undecided"
    assert verdict("any loss < 1", Metric("loss", (0.5, math.nan))) == "undecided"
    assert verdict("loss < 1 in 50% of seeds", Metric("loss", 0.5, seeds=(0.5, math.nan))) == "undecided"
    assert verdict("every loss < 1", Metric("loss", ())) == "undecided"
    assert verdict("loss < 1") == "undecided"
    point = Point({"n": 1}, "k", False, (Metric("loss", 0.5),), (bad,))
    assert verdict("loss < 1", points=[point]) == "undecided"


def test_over_a_sweep():
    swept = sweep("hidden", [(1, 0.5), (2, 0.2), (3, 0.05)])
    said = {
        claim: judge(parse(claim), swept, KNOWN)
        for claim in ("loss < 1", "loss < 0.3", "any loss < 0.1", "max of loss = 0.50", "mean of loss = 0.25")
    }
    assert [j.verdict for j in said.values()] == ["supported", "refuted", "supported", "supported", "supported"]
    assert said["loss < 0.3"].why == "0.5 at hidden 1"
    seeds = result(
        points=[Point({"n": n}, "k", False, (Metric("loss", 0, seeds=s),), ()) for n, s in [(1, (0, 0)), (2, (0, 9))]]
    )
    assert judge(parse("loss < 1 in 50% of seeds"), seeds, KNOWN).verdict == "supported"
    assert judge(parse("loss < 1 in 90% of seeds"), seeds, KNOWN).why == "1 of 2 seeds at n 2"
    assert judge(parse("any loss < 1 in 90% of seeds"), seeds, KNOWN).verdict == "supported"
    with pytest.raises(NoteError, match="does not go with seeds"):
        judge(parse("max of loss < 1 in 90% of seeds"), seeds, KNOWN)


@pytest.mark.parametrize(
    ("values", "rises", "falls"),
    [
        ([(1, 1.0), (2, 2.0), (3, 2.0)], "supported", "refuted"),
        ([(3, 1.0), (1, 3.0), (2, 2.0)], "refuted", "supported"),
        ([(1, 1.0), (2, 3.0), (3, 2.0)], "refuted", "refuted"),
        ([(1, 1.0), (2, 1.0)], "refuted", "refuted"),
        ([("9%", 1.0), ("50%", 2.0)], "supported", "refuted"),
        ([(1, 1.0), (2, math.nan)], "undecided", "undecided"),
    ],
)
def test_trends(values, rises, falls):
    swept = sweep("hidden", values)
    assert judge(parse("loss rises with hidden"), swept, KNOWN).verdict == rises
    assert judge(parse("loss falls with hidden"), swept, KNOWN).verdict == falls


@pytest.mark.parametrize(
    ("claim", "values", "expected", "why"),
    [
        ("loss rises with n", [1, 2, 2], "supported", "1 at n 0, 2 at n 2; 2 of 3 pairs rise, none falls"),
        ("loss falls with n", [3, 2, 0], "supported", "3 at n 0, 0 at n 2; 3 of 3 pairs fall, none rises"),
        ("loss rises with n", [1, 3, 2], "refuted", "3 at n 1, but 2 at n 2"),
        ("loss falls with n", [3, 1, 2.5], "refuted", "1 at n 1, but 2.5 at n 2"),
        ("loss rises with n", [2, 2, 2], "refuted", "2 at n 0, 2 at n 2; no pair of values rises"),
    ],
)
def test_a_trend_says_what_decided(claim, values, expected, why):
    said = judge(parse(claim), sweep("n", list(enumerate(values))), KNOWN)
    assert (said.verdict, said.why) == (expected, why)


def point(fields, value, **more):
    return Point(fields, "k", False, (Metric("loss", value, **more),), ())


def test_a_trend_beyond_the_intervals():
    near = result(points=[point({"n": 1}, 1, interval=(0.2, 1.8)), point({"n": 2}, 2, interval=(1.2, 2.8))])
    far = result(points=[point({"n": 1}, 1, interval=(0.5, 1.5)), point({"n": 2}, 2, interval=(1.5, 2.5))])
    said = judge(parse("loss rises with n"), near, KNOWN)
    assert (said.verdict, said.why) == (
        "undecided",
        "1 (0.2 to 1.8) at n 1, 2 (1.2 to 2.8) at n 2; the spread allows both",
    )
    assert judge(parse("loss rises with n"), far, KNOWN).verdict == "supported"
    assert judge(parse("loss falls with n"), far, KNOWN).verdict == "refuted"


def test_a_trend_seed_by_seed():
    """Each seed rises by about one, from where it began: the seeds lie far apart, their differences do not."""
    paired = [point({"n": n}, 0, seeds=tuple(10 * s + n + 0.1 * (s % 2) * n for s in range(6))) for n in (1, 2, 3)]
    said = judge(parse("loss rises with n"), result(points=paired), KNOWN)
    assert said.verdict == "supported"
    assert said.why.endswith("(means of 6 seeds); 3 of 3 pairs rise, none falls")
    # the same numbers, each point's seeds in another order: what is left is their spread
    mixed = [
        replace(p, metrics=(replace(m, seeds=m.seeds[at:] + m.seeds[:at]),))
        for at, p in enumerate(paired)
        for m in p.metrics
    ]
    assert judge(parse("loss rises with n"), result(points=mixed), KNOWN).verdict == "undecided"
    # a different number of seeds at each point cannot be paired; there is no interval either: the numbers as they are
    few = [point({"n": 1}, 1, seeds=(1, 2)), point({"n": 2}, 2, seeds=(2, 2, 3))]
    assert judge(parse("loss rises with n"), result(points=few), KNOWN).verdict == "supported"
    unknown = [point({"n": 1}, 1, seeds=(1, 2)), point({"n": 2}, 2, seeds=(2, math.nan))]
    assert judge(parse("loss rises with n"), result(points=unknown), KNOWN).verdict == "undecided"


def test_a_swept_seed_is_a_seed():
    values = {0: (1, 2, 3), 1: (11, 12.1, 13), 2: (21, 22, 23.1), 3: (31, 32.1, 33.1)}
    points = [point({"seed": s, "n": n}, v) for s, along in values.items() for n, v in enumerate(along)]
    said = judge(parse("loss rises with n"), result(points=points), KNOWN)
    assert said.verdict == "supported"
    assert "means of 4 seeds" in said.why
    points[0] = point({"seed": 0, "n": 0}, 9)
    assert judge(parse("loss rises with n"), result(points=points), KNOWN).verdict == "undecided"


def test_a_trend_with_several_fields_holds_for_every_combination_or_any():
    grid = [point({"n": n, "m": m}, n + 100 * m) for n, m in itertools.product((1, 2), (1, 2))]
    assert judge(parse("loss rises with n"), result(points=grid), KNOWN).verdict == "supported"
    grid[0] = point({"n": 1, "m": 1}, 500)
    said = judge(parse("loss rises with n"), result(points=grid), KNOWN)
    assert (said.verdict, said.why) == ("refuted", "500 at n 1, m 1, but 102 at n 2, m 1")
    assert judge(parse("every loss rises with n"), result(points=grid), KNOWN).verdict == "refuted"
    assert judge(parse("any loss rises with n"), result(points=grid), KNOWN).verdict == "supported"
    grid[2] = point({"n": 2, "m": 1}, 102)
    grid[3] = point({"n": 2, "m": 2}, 0)
    assert judge(parse("any loss rises with n"), result(points=grid), KNOWN).verdict == "refuted"


def test_a_trend_of_a_vector_is_of_one_number_of_it():
    vectors = sweep("hidden", [(1, (1.0, 5.0)), (2, (0.0, 6.0))])
    assert judge(parse("max of loss rises with hidden"), vectors, KNOWN).verdict == "supported"
    assert judge(parse("min of loss rises with hidden"), vectors, KNOWN).verdict == "refuted"
    assert judge(parse("mean of loss rises with hidden"), vectors, KNOWN).verdict == "refuted"
    seeds = ((0.0, 5.0), (1.0, 4.0), (0.0, 4.5))
    steps = [point({"n": n}, seeds[0], seeds=tuple(tuple(x + n for x in seed) for seed in seeds)) for n in (1, 2)]
    assert judge(parse("max of loss rises with n"), result(points=steps), KNOWN).verdict == "supported"


@pytest.mark.parametrize(
    ("claim", "swept", "match"),
    [
        ("loss rises with n", result(Metric("loss", 1)), "Add `sweep: {n: "),
        ("loss rises with hiden", sweep("hidden", [(1, 1), (2, 2)]), "Did you mean `hidden`"),
        ("loss rises with zzz", sweep("hidden", [(1, 1), (2, 2)]), "It sweeps hidden"),
        ("loss rises with model", sweep("model", [("a", 1), ("b", 2)]), "no order"),
        ("loss rises with tied", sweep("tied", [(False, 1), (True, 2)]), "no order"),
        ("loss rises with n", sweep("n", [(1, 1)]), "only one value"),
        ("loss rises with n", sweep("n", [(1, (1, 2)), (2, (3, 4))]), "`max of loss rises with n`; or min of, mean of"),
        ("every loss rises with n", sweep("n", [(1, (1, 2)), (2, (3, 4))]), "`max of loss rises with n`"),
    ],
)
def test_trends_refused(claim, swept, match):
    with pytest.raises(NoteError, match=match):
        judge(parse(claim), swept, KNOWN)


def test_empty_claims_are_pointed_out():
    vector = Metric("dimensionality", (0.3, 0.5))
    empty = judge(parse("mean of dimensionality = 0.40"), result(vector), KNOWN)
    assert empty.verdict == "supported"
    assert "empty" in empty.note
    assert "hidden/features" in empty.note
    assert judge(parse("max of dimensionality = 0.50"), result(vector), KNOWN).note == ""
    assert "empty" in judge(parse("norm = 1"), result(Metric("norm", 1)), KNOWN).note


def test_a_whole_number_that_rounds_is_pointed_out():
    said = judge(parse("loss = 0"), result(Metric("loss", 0.3)), KNOWN)
    assert said.verdict == "supported"
    assert "from -0.5 to 0.5" in said.note
    for claim, value in [("loss = 0", 0), ("loss = 0.0", 0.03), ("loss < 5", 4.5), ("loss = 0 +- 1", 0.3)]:
        assert judge(parse(claim), result(Metric("loss", value)), KNOWN).note == ""


def test_worst_and_accepted():
    a, b, c = (Judgement(n, v, "") for n, v in [("a: b", "supported"), ("b", "undecided"), ("c", "refuted")])
    assert worst([]) is None
    assert worst([a]) == "supported"
    assert worst([a, b]) == "undecided"
    assert worst([c, b, a]) == "refuted"
    assert unaccepted([a, b, c], []) == [b, c]
    assert unaccepted([a, b, c], [acceptance(c)]) == [b]
    assert unaccepted([a, b, c], ["c: undecided", "b: undecided"]) == [c]
    assert unaccepted([a], ["a: b: refuted"]) == [a]  # it holds now: the finding has changed


# The second evaluator: exact fractions, every number of the span one by one.

OPS = {
    "=": lambda x, v, tol: abs(x - v) <= tol,
    "!=": lambda x, v, tol: abs(x - v) > tol,
    "<": lambda x, v, tol: x < v,
    "<=": lambda x, v, tol: x <= v,
    ">": lambda x, v, tol: x > v,
    ">=": lambda x, v, tol: x >= v,
}
AGGREGATES = {"every": all, "any": any}
FOLDS = {"max": max, "min": min, "mean": lambda xs: sum(xs) / len(xs)}
eighths = st.integers(-16, 16).map(lambda n: n / 8)


@given(
    op=st.sampled_from(sorted(OPS)),
    target=st.integers(-10, 10),
    tolerance=st.none() | st.sampled_from(["0", "0.25", "1.5"]),
    aggregate=st.sampled_from(["", "every ", "any of ", "max ", "min of ", "mean of "]),
    points=st.lists(st.lists(eighths, min_size=1, max_size=4), min_size=1, max_size=4),
)
def test_vectors_and_sweeps_against_the_second_evaluator(op, target, tolerance, aggregate, points):
    assume(tolerance is None or op in ("=", "!="))
    tol = Fraction(1, 2) if tolerance is None else Fraction(tolerance)
    word = aggregate.split(" ")[0]
    if not word:
        points = [[values[0]] for values in points]
    pooled = [Fraction(x) for values in points for x in values]

    def passes(x):
        return OPS[op](x, Fraction(target), tol)

    if word in FOLDS:
        expected = passes(FOLDS[word](pooled))
    else:
        expected = AGGREGATES[word or "every"](passes(x) for x in pooled)
    if word == "mean":  # it is not exact in floats: keep away from the very edge
        mean = FOLDS["mean"](pooled)
        assume(mean != target and abs(abs(mean - target) - tol) > 1e-9)
    found = result(
        points=[
            Point({"n": n}, "k", False, (Metric("loss", tuple(v) if word else v[0]),), ()) for n, v in enumerate(points)
        ]
    )
    claim = f"{aggregate}loss {op} {target}" + (f" +- {tolerance}" if tolerance else "")
    assert judge(parse(claim), found, KNOWN).verdict == ("supported" if expected else "refuted")


@given(
    op=st.sampled_from(sorted(OPS)),
    target=st.integers(-2, 2),
    ends=st.lists(eighths, min_size=2, max_size=2).map(sorted),
)
def test_intervals_against_the_second_evaluator(op, target, ends):
    """Every 32nd of the interval, ends included, is fine enough: the edges of the claim lie on halves."""
    low, high = ends
    steps = int((high - low) * 32)
    held = {OPS[op](Fraction(low) + Fraction(i, 32), target, Fraction(1, 2)) for i in range(steps + 1)}
    expected = {(True,): "supported", (False,): "refuted"}.get(tuple(held), "undecided")
    assert verdict(f"loss {op} {target}", Metric("loss", low, interval=(low, high))) == expected


@given(
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    percent=st.integers(1, 100),
)
def test_shares_against_the_second_evaluator(seeds, percent):
    expected = 100 * seeds.count(2) >= percent * len(seeds)
    metric = Metric("represented", seeds[0], seeds=tuple(seeds))
    said = verdict(f"represented = 2 in {percent}% of seeds", metric)
    assert said == ("supported" if expected else "refuted")
