"""Claims: what a sentence may say, and what must be refused before anything runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.claims import check, parse
from vaultlab.errors import NoteError

KNOWN = {"dimensionality": {}, "loss": {}, "norm": {}, "represented": {}}


@pytest.mark.parametrize(
    ("sentence", "mend"),
    [
        ("loss below 0.1", "`<` where it says `below`"),
        ("loss == 0.1", "`=` where it says `==`"),
        ("loss is 0.1", "`=` where it says `is`"),
        ("evry loss < 1", "`every` where it says `evry`"),
        ("loss betwen 1 and 2", "`between` where it says `betwen`"),
        ("loss increases with hidden", "`rises` where it says `increases`"),
        ("average of loss < 1", "`mean` where it says `average`"),
        ("loss", "A claim reads like"),
        ("", "A claim reads like"),
        ("loss < nan", "A claim reads like"),
        ("loss < 1e9999", "A claim reads like"),
        ("loss < 0.1 in 90% of runs", "A claim reads like"),
        ("loss between 2 and 1", "between 1 and 2"),
        ("loss < 1 +- 0.1", "Use it with `=`"),
        ("loss = 1 +- -0.1", r"\+- 0.1"),
        ("loss = 40% +- 2", "both with %"),
        ("loss between 1 and 2%", "both with %"),
        ("loss < 1 in 90 of seeds", "in 90% of seeds"),
        ("loss < 1 in 120% of seeds", "up to 100%"),
        ("loss < 1 in 0% of seeds", "above 0%"),
        ("loss rises", "A claim reads like"),
        ("loss rises with n in 90% of seeds", "A claim reads like"),
    ],
)
def test_what_cannot_be_read_says_how_to_write_it(sentence, mend):
    with pytest.raises(NoteError, match=mend) as caught:
        parse(sentence)
    assert caught.value.field == "expect"


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(NoteError, match="Did you mean `represented`"):
        check(parse("reprsented = 5"), KNOWN)
    with pytest.raises(NoteError, match="The metrics are dimensionality, loss, norm, represented"):
        check(parse("zzz = 5"), KNOWN)


@pytest.mark.parametrize(
    ("claim", "points", "mend"),
    [
        ("loss rises with hidden", (), "Add `sweep: {hidden: "),
        ("loss rises with hiden", ({"hidden": 1}, {"hidden": 2}), "Did you mean `hidden`"),
        ("loss falls with model", ({"model": "a"}, {"model": "b"}), "no order"),
        ("loss falls with n", ({"n": 1, "m": 1}, {"n": 1, "m": 2}), "only one value of `n`"),
    ],
)
def test_a_trend_along_what_is_not_swept_is_refused_before_anything_runs(claim, points, mend):
    with pytest.raises(NoteError, match=mend):
        check(parse(claim), KNOWN, points)


def test_a_trend_along_what_is_swept_can_be_judged():
    check(parse("any loss rises with n"), KNOWN, ({"n": 1}, {"n": "20%"}))
    check(parse("loss rises with n"), KNOWN)  # what is swept is not known here


@given(st.text(max_size=60))
def test_no_sentence_breaks_the_parser(sentence):
    try:
        claim = parse(sentence)
    except NoteError:
        return
    assert (claim.range is None) != (claim.trend is None)
