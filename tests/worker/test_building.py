"""A result that builds on another block's: what it is given, its key, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests import building, counting
from vaultlab.result import Answer, Ask, Refusal, Result
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

UPSTREAM = Ask("one", "building", {"adds": 2.0}, device="cpu")
ASK = Ask("two", "building", {"direction": "[[vaultlab/one]]"}, device="cpu", given={"direction": UPSTREAM})


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    building.computed.clear()
    return Runner(Store(tmp_path), {"building": building.EXPERIMENT, "counting": counting.EXPERIMENT})


def run(runner: Runner, ask: Ask) -> Answer:
    return runner.run(ask, lambda progress: None, lambda: False)


def total(runner: Runner, ask: Ask) -> float:
    answer = run(runner, ask)
    assert isinstance(answer, Result), answer
    value = answer.metrics[0].value
    assert isinstance(value, float)
    return value


def key(runner: Runner, ask: Ask) -> str:
    plan = runner.plan(ask)
    assert not plan.problems, plan.problems
    return plan.key


def test_it_is_given_what_the_other_has_found(runner: Runner) -> None:
    assert total(runner, ASK) == 3.0
    assert [spec.adds for spec in building.computed] == [2.0, 1.0]


def test_what_is_stored_is_not_computed_for_it_again(runner: Runner) -> None:
    assert total(runner, UPSTREAM) == 2.0
    assert total(runner, ASK) == 3.0
    assert total(runner, UPSTREAM) == 2.0
    assert len(building.computed) == 2


def test_what_has_left_the_store_is_computed_again(runner: Runner) -> None:
    before = key(runner, UPSTREAM)
    assert total(runner, ASK) == 3.0
    runner.store.forget([before, key(runner, ASK)])
    assert total(runner, ASK) == 3.0
    assert len(building.computed) == 4


def test_the_key_is_of_what_it_builds_on_and_not_of_its_name(runner: Runner) -> None:
    other = replace(ASK, given={"direction": replace(UPSTREAM, fields={"adds": 5.0})})
    assert key(runner, other) != key(runner, ASK)
    assert total(runner, other) == 6.0
    renamed = replace(
        ASK, fields={"direction": "[[vaultlab/uno]]"}, given={"direction": replace(UPSTREAM, id="uno", force=True)}
    )
    assert key(runner, renamed) == key(runner, ASK)


def test_a_chain_is_computed_from_its_beginning(runner: Runner) -> None:
    third = replace(ASK, id="three", fields={"direction": "[[vaultlab/two]]", "adds": 10.0}, given={"direction": ASK})
    assert total(runner, third) == 13.0
    assert [spec.adds for spec in building.computed] == [2.0, 1.0, 10.0]


def test_its_provenance_names_what_it_builds_on(runner: Runner) -> None:
    answer = run(runner, ASK)
    assert isinstance(answer, Result)
    assert answer.provenance["given"] == {"direction": key(runner, UPSTREAM)}


def test_points_of_a_sweep_build_on_the_same(runner: Runner) -> None:
    answer = run(runner, replace(ASK, points=({"adds": 1.0}, {"adds": 4.0})))
    assert isinstance(answer, Result)
    assert [point.metrics[0].value for point in answer.points] == [3.0, 6.0]
    assert [spec.adds for spec in building.computed] == [2.0, 1.0, 4.0]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (replace(ASK, given={}), "takes the result of another block"),
        (replace(ASK, points=({"direction": "[[vaultlab/one]]"},)), "takes the result of another block"),
        (replace(ASK, given={"direction": replace(UPSTREAM, points=({"adds": 1.0},))}), "is a sweep"),
        (replace(ASK, given={"direction": Ask("one", "counting", {})}), "gives no direction"),
        (replace(ASK, given={"direction": replace(UPSTREAM, fields={"add": 1.0})}), "`one`: `building` has no field"),
    ],
)
def test_what_cannot_be_built_on_is_refused_at_its_field(runner: Runner, ask: Ask, said: str) -> None:
    answer = run(runner, ask)
    assert isinstance(answer, Refusal), answer
    assert said in answer.message
    assert answer.field == "direction"
    assert not building.computed
