"""The catalogue: kept while the code is the same, and what the scribe reads from it."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.counting import EXPERIMENT
from vaultlab import catalogue, places
from vaultlab.catalogue import Entry, canonical, example_block, fenced, lab_ask, load, nearest, spread, wanted
from vaultlab.worker.asked import entry


class Describe:
    """Stands for `Lab.describe`, counting how often it is asked."""

    def __init__(self, version: int = 1) -> None:
        self.calls = 0
        self.version = version

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        known = {**asdict(entry("counting", EXPERIMENT)), "version": self.version}
        described = {"vaultlab": "0", "experiments": {"counting": known}, "broken": {"draft": "ImportError: x"}}
        return json.loads(json.dumps(described))  # type: ignore[no-any-return]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with the parts whose code makes the catalogue."""
    for part in ("experiments", "models/families"):
        (tmp_path / "package" / part).mkdir(parents=True)
    for file in ("experiments/counting.py", "models/load.py", "models/families/llama.py", "experiment.py", "lab.py"):
        (tmp_path / "package" / file).write_text("pass\n")
    monkeypatch.setattr(catalogue, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(places, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "package"


@pytest.fixture
def known() -> Entry:
    return entry("counting", EXPERIMENT)


def test_the_worker_is_asked_once(package: Path) -> None:
    describe = Describe()
    first, second = load(describe), load(describe)
    assert describe.calls == 1
    assert list(second) == ["counting"]
    assert second["counting"] == first["counting"]
    assert second.broken == {"draft": "ImportError: x"}
    assert second["counting"].fields == entry("counting", EXPERIMENT).fields


def test_nothing_of_an_entry_is_lost_on_its_way(package: Path) -> None:
    told = entry("counting", replace(EXPERIMENT, data=lambda spec, out: {}))
    assert told.interactive
    described = {"experiments": {"counting": json.loads(json.dumps(asdict(told)))}}
    for _ in range(2):  # as it was told, and as it was kept
        kept = load(lambda: described)["counting"]
        assert canonical(asdict(kept)) == canonical(asdict(told))


@pytest.mark.parametrize("file", ["experiments/counting.py", "models/families/llama.py", "experiment.py"])
@pytest.mark.parametrize("change", ["size", "time", "new", "gone"])
def test_it_is_asked_again_when_the_code_changes(package: Path, file: str, change: str) -> None:
    path = package / file
    load(Describe())
    match change:
        case "size":
            times = os.stat(path)
            path.write_text("pass # changed\n")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "time":
            os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 1))
        case "new":
            (package / "experiments" / "other.py").write_text("")
        case "gone":
            (package / "experiments" / "counting.py").unlink()
    later = Describe(version=2)
    assert load(later)["counting"].version == 2
    assert later.calls == 1


def test_other_code_does_not_matter(package: Path) -> None:
    load(Describe())
    (package / "lab.py").write_text("changed\n")
    (package / "experiments" / "notes.txt").write_text("changed\n")
    later = Describe()
    load(later)
    assert later.calls == 0


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"stamp": 1, "described": {}}'])
def test_a_damaged_copy_is_made_anew(package: Path, content: str) -> None:
    load(Describe())
    (path,) = (places.cache_dir()).iterdir()
    path.write_text(content)
    later = Describe()
    assert "counting" in load(later)
    assert later.calls == 1
    load(later)
    assert later.calls == 1


def test_a_cache_that_cannot_be_written_costs_only_time(package: Path) -> None:
    places.cache_dir().write_text("a file where a folder should be")
    describe = Describe()
    assert "counting" in load(describe)
    assert "counting" in load(describe)
    assert describe.calls == 2


# -- entries


def test_what_a_field_takes(known: Entry) -> None:
    assert {name: wanted(schema) for name, schema in known.fields.items() if name != "mode"} == {
        "n": "a whole number from 1 to 10000000",
        "rate": "a number from 0 to 1",
        "weights": "a list, each a number",
        "head": "a head, such as L17H10 or none",
        "text": "a text or none",
        "words": 'a list, such as [one, two], or where it stands, such as "[[Note#Heading]]" or none',
        "seed": "a whole number from 0",
    }
    assert wanted(known.fields["mode"]).startswith("one of fine, broken, ")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "a number above 0 and up to 1"),
        ({"type": "number", "ge": 0, "le": 1, "maximum": 0.9}, "a number from 0 to 0.9"),
        ({"type": "integer", "exclusiveMaximum": 5}, "a whole number below 5"),
        ({"anyOf": [{"type": "integer"}, {"const": "all", "type": "string"}]}, "a whole number or all"),
        ({"type": "string", "kind": "model"}, "the name of a model"),
        ({"type": "boolean"}, "true or false"),
        ({"type": "array"}, "a list"),
    ],
)
def test_what_other_fields_take(schema: dict[str, Any], words: str) -> None:
    assert wanted(schema) == words


def test_a_referred_schema_is_found(known: Entry) -> None:
    schema = {"$defs": {"M": {"enum": ["a", "b"]}}, "properties": {"m": {"$ref": "#/$defs/M", "default": "a"}}}
    other = Entry("x", 1, "", schema, (), {}, ())
    assert wanted(other.fields["m"]) == "one of a, b"


def test_what_a_stress_varies_in_words() -> None:
    fields = {
        "rate": {"type": "number", "stress": [0.003, 0.03]},
        "width": {"anyOf": [{"type": "integer"}, {"type": "null"}], "stress": [2, 10]},
        "bos": {"anyOf": [{"type": "boolean"}, {"type": "null"}], "stress": [None, True]},
        "steps": {"type": "integer"},
    }
    varied = Entry("x", 1, "", {"properties": fields}, (), {}, ())
    assert {name: spread(varied, name) for name in varied.stress} == {
        "rate": "from 0.003 to 0.03",
        "width": "from 2 to 10",
        "bos": "over none, true",
    }


def test_metrics_by_name(known: Entry) -> None:
    metric = known.metric("mean")
    assert metric is not None
    assert metric["range"] == [0.0, 1.0]
    assert known.metric("median") is None


@pytest.mark.parametrize(
    ("said", "meant"),
    [("Super-Position", "superposition"), ("superposton", "superposition"), ("kv-memory", "kv_memory"), ("zzz", None)],
)
def test_the_nearest_name(said: str, meant: str | None) -> None:
    assert nearest(said, ["superposition", "kv_memory", "attention"]) == meant


# -- blocks


def test_an_example_is_a_block_to_paste(known: Entry) -> None:
    assert example_block(known, "few") == (
        "```vaultlab\n"
        "counting: few\n"
        "title: Four numbers lie between 0 and 1\n"
        "n: 4\n"
        "expect:\n"
        "  - mean between 0 and 1\n"
        "```\n"
    )
    with pytest.raises(KeyError):
        example_block(known, "none")


@pytest.mark.parametrize(
    "value",
    ["a # b", "a: b", "[[Note#Heading]]", "95%", "no", "007", "two\nlines\n", "no end\nof line", "- x",
     "```\ncode\n```\n", "'", '"', "é·", " led", "1e-4", "", "@x", "%x", "a\ttab", [1, 2.5, "L1H2", "a, b"],
     1e-4, True, None],
)  # fmt: skip
def test_a_block_reads_back_as_what_was_written(value: Any) -> None:
    block = fenced({"counting": "id", "value": value})
    fence, _, rest = block.partition("vaultlab\n")
    body = rest.removesuffix(f"{fence}\n")
    assert fence not in body
    assert YAML(typ="safe").load(body) == {"counting": "id", "value": value}


# -- the hash of an ask


def test_order_does_not_change_what_is_asked() -> None:
    one = lab_ask("e", 1, {"a": 1, "b": [1, 2]}, ({"x": 1, "y": 2}, {"x": 2}), {"m": "0", "n": "1"}, {"t": "2"})
    two = lab_ask("e", 1, {"b": [1, 2], "a": 1}, ({"x": 2}, {"y": 2, "x": 1}), {"n": "1", "m": "0"}, {"t": "2"})
    assert one == two


def test_everything_asked_counts() -> None:
    base: dict[str, Any] = {"experiment": "e", "version": 1, "fields": {"a": [1, 2]}, "points": ({"x": 1},)}
    base |= {"models": {"m": "0"}, "texts": {"t": "0"}}
    changes = {
        "experiment": "f",
        "version": 2,
        "fields": {"a": [2, 1]},
        "points": ({"x": 2},),
        "models": {"m": "1"},
        "texts": {"t": "1"},
    }
    hashes = {lab_ask(**base)} | {lab_ask(**{**base, name: value}) for name, value in changes.items()}
    assert len(hashes) == 7


def test_the_canonical_form_is_one() -> None:
    assert canonical({"b": (1, 2), "a": "é"}) == canonical({"a": "é", "b": [1, 2]}) == '{"a":"\\u00e9","b":[1,2]}'
