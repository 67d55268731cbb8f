"""Fields → a Spec and a key, or a Refusal that an author can act on."""

import random
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tests.counting import EXPERIMENT
from vaultlab.errors import NoteError, RunError
from vaultlab.experiment import Experiment, ModelName, Quantity
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.result import Ask, Default, Refusal, Text
from vaultlab.worker.asked import Asked, Folder, Refused, asked, entry, number

REGISTRY = {"counting": EXPERIMENT, "superposition": EXPERIMENT}


def no_models(name: str) -> str:
    raise AssertionError(name)


def ask(fields: dict[str, Any] | None = None, **more: Any) -> Ask:
    return Ask("id", "counting", fields or {}, **more)


def good(an_ask: Ask) -> Asked:
    return asked(an_ask, REGISTRY, no_models)


def refusal(an_ask: Ask) -> Refusal:
    with pytest.raises(Refused) as caught:
        asked(an_ask, REGISTRY, no_models)
    return caught.value.refusals[0]


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        ({"wieghts": [1]}, "`counting` has no field `wieghts`.", "Did you mean `weights`? It has: n, rate, "),
        ({"n": "five"}, "`n` cannot be `five`.", "It takes a whole number from 1 to 10000000."),
        ({"n": 2.5}, "`n` cannot be 2.5.", "a whole number"),
        ({"n": "5"}, "`n` cannot be `5`.", "a whole number"),
        ({"n": True}, "`n` cannot be true.", "a whole number"),
        ({"n": None}, "`n` cannot be null.", "a whole number"),
        ({"n": 0}, "`n` is 0, which is out of range.", "from 1 to 10000000"),
        ({"rate": 1.5}, "`rate` is 1.5, which is out of range.", "a number from 0 to 1"),
        ({"rate": "150%"}, "`rate` is `150%`, which is out of range.", "a number from 0 to 1"),
        ({"rate": "lots"}, "`rate` cannot be `lots`.", "a number from 0 to 1"),
        ({"rate": float("nan")}, "`rate` is NaN, which is not a number.", "a number from 0 to 1"),
        ({"rate": "NaN"}, "`rate` is `NaN`, which is not a number.", "a number"),
        ({"n": [3, 4]}, "`n` takes one value; here it is a list, [3, 4].", "A grid is a `sweep: {n: [3, 4]}`."),
        ({"rate": [0, 0.9]}, "`rate` takes one value", "`sweep: {rate: [0, 0.9]}`"),
        ({"mode": ["fine"]}, "`mode` cannot be", "one of fine, broken"),
        ({"mode": "brokn"}, "`mode` cannot be `brokn`.", "Did you mean `broken`? It takes one of fine, broken, "),
        ({"weights": 3}, "`weights` cannot be 3.", "a list, each a number"),
        ({"weights": [1, "x"]}, "`weights` cannot be `x`.", "a list, each a number"),
        ({"words": [1, 2]}, "`words` cannot be [1, 2].", "a list, such as [one, two], or where it stands"),
        ({"words": 3}, "`words` cannot be 3.", '"[[Note#Heading]]" or none'),
        ({"head": "17.10"}, "`head` cannot be `17.10`.", "a head, such as L17H10"),
        ({"head": 17.1}, "`head` is 17.1, which is a number.", "A head is written L17H10"),
        ({"n": 1, "weights": [1, 2]}, "There are 2 weights for 1 numbers.", "Change one of the fields"),
    ],
)
def test_refusals_say_what_was_there_and_the_mend(fields: dict[str, Any], message: str, hint: str) -> None:
    found = refusal(ask(fields))
    assert message in found.message
    assert hint in found.hint
    assert found.origin is None


def test_every_wrong_field_is_told() -> None:
    with pytest.raises(Refused) as caught:
        asked(ask({"n": 0, "rate": 2, "moed": "fine"}), REGISTRY, no_models)
    assert [refusal.field for refusal in caught.value.refusals] == ["n", "rate", "moed"]


def test_an_unknown_experiment_names_the_nearest() -> None:
    found = refusal(Ask("id", "super-position", {}))
    assert found.message == "There is no experiment called `super-position`."
    assert found.hint == "Did you mean `superposition`? There are: counting, superposition."


def test_another_version_than_was_asked_for_does_not_run() -> None:
    assert good(ask(version=EXPERIMENT.version)).key == good(ask()).key
    with pytest.raises(RunError, match=r"has version 1 of `counting`, and it was asked for version 2"):
        asked(ask(version=2), REGISTRY, no_models)
    with pytest.raises(RunError, match="has no experiment `counted`"):
        asked(Ask("id", "counted", {}, version=2), REGISTRY, no_models)


def test_defaults_go_to_the_fields_that_are_there_and_are_named_when_wrong() -> None:
    defaults = (Default("n", 7, "this note's properties"), Default("model", "x", "the vault"))
    assert good(ask(defaults=defaults)).runs[0].spec.n == 7
    assert good(ask({"n": 3}, defaults=defaults)).runs[0].spec.n == 3
    wrong = (Default("n", 0, "`vaultlab-n` in this note's properties"),)
    assert refusal(ask(defaults=wrong)).origin == "`vaultlab-n` in this note's properties"
    assert refusal(ask({"rate": 2}, defaults=wrong[:0])).origin is None
    assert refusal(ask({"n": -1}, defaults=wrong)).origin is None  # the block's own value is the wrong one


def test_lists_become_tuples_and_shares_numbers() -> None:
    spec = good(ask({"weights": [1, 2.5], "rate": "95%"})).runs[0].spec
    assert spec.weights == (1.0, 2.5)
    assert spec.rate == 0.95


# -- keys


def test_order_and_written_defaults_do_not_change_the_key() -> None:
    fields = {"n": 9, "rate": 0.9, "mode": "slow", "weights": [1, 2]}
    names = list(fields)
    keys = set()
    for _ in range(6):
        random.Random(len(keys)).shuffle(names)
        keys.add(good(ask({name: fields[name] for name in names})).key)
    keys.add(good(ask({**fields, "seed": 0, "head": None})).key)
    keys.add(good(ask({**fields, "rate": "90%"})).key)
    keys.add(good(Ask("other", "counting", fields, force=True, device="cpu")).key)
    assert len(keys) == 1


def test_what_matters_changes_the_key() -> None:
    base = good(ask()).key
    others = [good(ask({"n": 5})).key, good(ask({"seed": 1})).key, good(Ask("id", "superposition", {})).key]
    text = Text("Note", "77", (("Note.md", "words"),))
    others.append(good(ask(texts={"text": text})).key)
    others.append(good(ask({"text": "other words"})).key)
    assert len({base, *others}) == 6


def test_a_text_counts_by_its_content_not_by_its_name() -> None:
    one, two = (Text(name, "77", ((f"{name}.md", "words"),)) for name in "ab")
    assert (
        good(ask({"text": "[[a]]"}, texts={"text": one})).key == good(ask({"text": "[[b]]"}, texts={"text": two})).key
    )


def test_a_list_counts_by_its_items_and_each_is_one() -> None:
    def key(words: object, *items: str) -> str:
        texts = {"words": Text("", "/".join(items), tuple(("Note.md", item) for item in items))} if items else {}
        return good(ask({"words": words}, texts=texts)).key

    assert key("[[a]]", "good", "fine") == key("[[b]]", "good", "fine") != key("[[a]]", "good")
    assert key(["good", "fine"]) not in (key(["good fine"]), key("good fine"), key(["fine", "good"]), key(None))
    run = good(ask({"words": ["good", "fine"]})).runs[0]
    assert [item for _, item in run.texts["words"].parts] == ["good", "fine"]
    assert good(ask({"words": ["good", "fine"]})).summary == good(ask()).summary


def test_a_version_changes_the_key() -> None:
    newer = {"counting": Experiment(**{**vars(EXPERIMENT), "version": 2})}
    assert asked(ask(), newer, no_models).key != good(ask()).key


def test_models_count_by_their_content() -> None:
    class Spec(BaseSpec):
        model: ModelName = "a"
        """A model."""
        other: ModelName | None = None
        """Another."""

    registry = {"counting": Experiment(**{**vars(EXPERIMENT), "Spec": Spec})}
    hashes = {"a": "1", "alias": "1", "b": "2"}

    def key(fields: dict[str, Any]) -> str:
        return asked(ask(fields), registry, hashes.__getitem__).key

    assert key({}) == key({"model": "alias"}) != key({"model": "b"})
    assert key({"other": "b"}) not in (key({}), key({"model": "b"}))

    def missing(name: str) -> str:
        raise NoteError("`../x` is no model's name.", field="model")

    with pytest.raises(Refused) as caught:
        asked(ask({"other": "../x"}), registry, missing)
    assert caught.value.refusals[0].field == "model"

    def absent(name: str) -> str:
        raise RunError("The model `a` is not on this machine.", "Get it.")

    with pytest.raises(RunError):
        asked(ask(), registry, absent)


# -- sweeps


def test_points_have_the_keys_of_their_own_runs() -> None:
    points = ({"n": 2}, {"n": 3})
    swept = good(ask({"rate": 0.1}, points=points))
    assert [run.key for run in swept.runs] == [good(ask({"rate": 0.1, "n": n})).key for n in (2, 3)]
    assert swept.key == good(ask({"rate": 0.1}, points=points[::-1])).key
    assert swept.key != good(ask({"rate": 0.1}, points=points[:1])).key != swept.runs[0].key


def test_a_wrong_point_refuses_the_sweep() -> None:
    found = refusal(ask(points=({"n": 2}, {"n": 0})))
    assert (found.field, found.origin) == ("n", None)


# -- the line of parameters


@pytest.mark.parametrize(
    ("fields", "points", "line"),
    [
        ({"rate": 0.95}, (), "n=4 S=.95"),
        ({"mode": "slow", "weights": [0.5, 2], "text": "long"}, (), "n=4 S=.5 mode=slow weights=[.5,2]"),
        ({}, ({"rate": 0.0}, {"rate": 0.9}), "n=4 S=0,.9"),
        ({}, tuple({"rate": r / 10} for r in range(6)), "n=4 S=0….5"),
        ({}, ({"seed": 0}, {"seed": 3}), "n=4 S=.5 seed=0,3"),
    ],
)
def test_the_line_of_parameters(fields: dict[str, Any], points: Any, line: str) -> None:
    assert good(ask(fields, points=points)).summary == line


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.95, -0.5, 1.0, 10.0, 1e-5, 0.0, 123456.0, 7, True)] == [
        ".95", "-.5", "1", "10", "1e-05", "0", "1.235e+05", "7", "True",
    ]  # fmt: skip


# -- the folder


def test_the_folder_is_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("folder_of_tests")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "folder_of_tests", package)
    (tmp_path / "counting.py").write_text("from tests.counting import EXPERIMENT\n")
    (tmp_path / "broken.py").write_text("raise ValueError('half written')\n")
    (tmp_path / "_shared.py").write_text("")
    folder = Folder(package)
    assert list(folder) == ["broken", "counting"]
    assert "counting" in folder
    assert folder["counting"] is EXPERIMENT  # and the broken one has not been in the way
    with pytest.raises(KeyError):
        folder["missing"]


def test_the_catalogue_s_entry_is_plain_data() -> None:
    known = entry("counting", EXPERIMENT)
    assert known.title == "Counting: a small experiment that does whatever a test of the worker needs."
    assert known.metrics[1]["forced"] == {"mean": "it is what `mean` says"}
    assert known.metrics[1]["range"] == [None, None]
    assert known.of_kind("text") == ("text",)
    assert known.of_kind("list") == ("words",)
    assert known.of_kind("head") == ("head",)
    assert known.defaults["n"] == 4
    assert isinstance(known.examples[0]["expect"], list)
    assert Quantity("x", "y").range == (float("-inf"), float("inf"))
