"""What crosses the wall comes out as it went in, by way of JSON that any reader accepts."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaultlab.result import (
    Answer,
    Ask,
    Check,
    Default,
    Failure,
    Figure,
    Metric,
    Point,
    Refusal,
    Result,
    Text,
    decode,
    encode,
)


def across(what: Any) -> Any:
    line = json.dumps(encode(what), allow_nan=False)
    return decode(type(what), json.loads(line))


numbers = st.floats(width=64)
metrics = st.builds(
    Metric,
    st.text(min_size=1),
    st.one_of(numbers, st.lists(numbers).map(tuple)),
    interval=st.none() | st.tuples(numbers, numbers),
    null=st.none() | numbers,
    seeds=st.none() | st.lists(numbers, min_size=1).map(tuple),
)
figures = st.builds(Figure, st.sampled_from(["svg", "png"]), st.binary(), st.text())


@given(st.lists(metrics, max_size=3).map(tuple), st.dictionaries(st.text(), figures, max_size=2))
def test_a_result_comes_out_as_it_went_in(found: tuple[Metric, ...], drawn: dict[str, Figure]) -> None:
    checks = (Check("sum", math.nan, 1e-5), Check("mean", math.inf, 1.0, "help"))
    result = Result("id", "key", True, found, checks, drawn, points=(Point({"n": 5}, "k", False, found, checks),))
    assert repr(across(result)) == repr(result)  # repr, for a NaN is not equal to itself


@pytest.mark.parametrize(
    "answer",
    [Refusal("id", "message", "hint", "field", "origin"), Failure("id", "environment", "message")],
)
def test_other_answers_too(answer: Answer) -> None:
    assert across(answer) == answer


def test_an_ask_keeps_its_values_as_plain_data() -> None:
    ask = Ask(
        "id",
        "superposition",
        {"heads": ["L1H2"], "sparsity": 0.95, "text": "é\n"},
        (Default("model", "tiny", "the note"),),
        {"text": Text("Note", "00", (("Note.md", "é"),))},
        ({"seed": 1},),
    )
    assert across(ask) == ask


def test_a_broken_answer_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="key"):
        decode(Result, {"id": "id"})
