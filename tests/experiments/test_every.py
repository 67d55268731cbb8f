"""Every file in the folder of experiments is held to the same things.

`make golden` writes `tests/golden.json` anew, once the versions of the experiments whose numbers moved are raised.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from vaultlab import claims, verdicts
from vaultlab.catalogue import Entry, is_number, wanted
from vaultlab.experiment import Example, Experiment, Spec
from vaultlab.models.load import read_shape
from vaultlab.result import Ask, Point, Result, Text, encode
from vaultlab.texts import python_help
from vaultlab.worker.asked import Folder, entry
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

GOLDEN = Path(__file__).parents[1] / "golden.json"
LONG_S = 10.0
OUT_BYTES = 50 * 10**6
FIGURE_BYTES = 10**6

FOLDER = Folder()
_SCRATCH = TemporaryDirectory()


def _standing() -> dict[str, Experiment]:
    standing = {}
    for name in FOLDER:
        try:
            standing[name] = FOLDER[name]
        except Exception:  # test_every_file_is_an_experiment says what is wrong; the others are tested all the same
            continue
    return standing


EXPERIMENTS = _standing()
each_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


def _model(name: str, example: Example) -> str | None:
    """The model that an example asks about."""
    known = entry(name, EXPERIMENTS[name])
    values = {**known.defaults, **example.fields}
    return next((values[field] for field in known.of_kind("model") if values[field]), None)


def _marks(name: str, example: Example) -> list[pytest.MarkDecorator]:
    """An example with a model needs that model; one that takes long is long."""
    experiment = EXPERIMENTS[name]
    if _model(name, example):
        return [pytest.mark.model]
    spec = experiment.Spec.model_validate_json(json.dumps(example.fields))
    seconds = experiment.needs(spec, None).seconds if experiment.needs else 0.0
    return [pytest.mark.long] if seconds > LONG_S else []


def _reads_help(name: str, example: Example) -> list[str]:
    """The text fields for which the scribe would send Python's help texts."""
    known = entry(name, EXPERIMENTS[name])
    values = {field: example.fields.get(field, known.fields[field].get("default")) for field in known.of_kind("text")}
    return [field for field, value in values.items() if value == "python-help"]


each_example = pytest.mark.parametrize(
    ("name", "example"),
    [
        pytest.param(name, example, id=f"{name}-{example.id}", marks=_marks(name, example))
        for name, experiment in EXPERIMENTS.items()
        for example in experiment.examples
    ],
)


each_fixed_example = pytest.mark.parametrize(
    ("name", "example"),
    [
        pytest.param(name, example, id=f"{name}-{example.id}", marks=_marks(name, example))
        for name, experiment in EXPERIMENTS.items()
        for example in experiment.examples
        if not _reads_help(name, example)
    ],
)
"""Those whose numbers are the same everywhere: every Python has its own help texts."""


def an_ask(name: str, example: Example, **more: Any) -> Ask:
    texts = {
        field: Text(field, hashlib.sha256(text.encode()).hexdigest(), ((field, text),))
        for field, text in example.texts.items()
    }
    texts |= {field: python_help() for field in _reads_help(name, example)}
    return Ask(example.id, name, example.fields, texts=texts, device="cpu", **more)


@cache
def _runner() -> Runner:
    return Runner(Store(Path(_SCRATCH.name) / "store"), FOLDER)


@cache
def _ran(name: str, id: str) -> Result:
    example = next(example for example in EXPERIMENTS[name].examples if example.id == id)
    answer = _runner().run(an_ask(name, example), lambda step: None, lambda: False)
    assert isinstance(answer, Result), answer
    return answer


def _known(name: str) -> Mapping[str, Mapping[str, str]]:
    return {quantity.name: quantity.forced for quantity in EXPERIMENTS[name].metrics}


def _cheapest(name: str) -> Example:
    experiment = EXPERIMENTS[name]

    def seconds(example: Example) -> float:
        spec = experiment.Spec.model_validate_json(json.dumps(example.fields))
        model = _model(name, example)
        return experiment.needs(spec, read_shape(model) if model else None).seconds if experiment.needs else 0.0

    bare = [example for example in experiment.examples if _model(name, example) is None]
    return min(bare or experiment.examples, key=seconds)


def _with_model(need: Callable[[Iterable[bool]], bool]) -> pytest.MarkDecorator:
    """One test an experiment, with its mark where `need` (any or all) of its examples ask about a model."""
    wants = {name: need(_model(name, one) is not None for one in EXPERIMENTS[name].examples) for name in EXPERIMENTS}
    marks = {name: [pytest.mark.model] if wants_it else [] for name, wants_it in wants.items()}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in EXPERIMENTS])


# -- the file


@pytest.mark.parametrize("name", FOLDER)
def test_every_file_is_an_experiment(name: str) -> None:
    assert isinstance(FOLDER[name], Experiment)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)


@each_experiment
def test_the_page_has_its_parts(name: str) -> None:
    page = entry(name, EXPERIMENTS[name]).page
    first = page.splitlines()[0]
    assert 20 < len(first) <= 120
    assert first[-1] in ".?!"
    assert re.search(r"^ {4,}\S.*[=≤≥∝]", page, re.MULTILINE), "a formula, indented, on lines of its own"
    assert re.search(r"figure", page, re.IGNORECASE), "how to read the figure"
    source = page.partition("Source")[2]
    assert re.search(r"\b(19|20)\d\d\b", source), "the source with its year"
    assert re.search(r"https://\S+", source), "the source's address"


@each_experiment
def test_every_field_is_documented_with_default_and_range(name: str) -> None:
    known = entry(name, EXPERIMENTS[name])
    assert known.schema["additionalProperties"] is False
    for field, schema in known.fields.items():
        assert len(schema.get("description", "")) > 10, f"{field} has no docstring"
        assert "default" in schema, f"{field} has no default"
        takes = wanted(schema)
        if takes.startswith(("a number", "a whole number")):
            assert re.search(r" (from|above) ", takes), f"{field}: {takes}"
            # how many layers there are is the model's to say
            assert re.search(r" (to|up to|below) ", takes) or field in ("layer", "seed"), f"{field}: {takes}"
        assert "a word or text" not in takes or "pattern" in json.dumps(schema), f"{field} takes any text at all"


@each_experiment
def test_the_spec_is_closed_frozen_and_strict(name: str) -> None:
    spec = EXPERIMENTS[name].Spec
    assert issubclass(spec, Spec)
    config = {key: spec.model_config.get(key) for key in ("extra", "frozen", "strict", "allow_inf_nan")}
    assert config == {"extra": "forbid", "frozen": True, "strict": True, "allow_inf_nan": False}


@each_experiment
def test_metrics_and_figures_are_declared_well(name: str) -> None:
    experiment = EXPERIMENTS[name]
    names = [quantity.name for quantity in experiment.metrics]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", each) for each in names)
    assert all(len(quantity.help) > 10 for quantity in experiment.metrics)
    assert 1 <= sum(quantity.headline for quantity in experiment.metrics) <= 3
    assert all(len(said) > 10 for said in experiment.figures.values())
    for quantity in experiment.metrics:
        assert set(quantity.forced) <= {"every", "any", "max", "min", "mean"}


@each_experiment
def test_examples_can_be_pasted(name: str) -> None:
    experiment = EXPERIMENTS[name]
    ids = [example.id for example in experiment.examples]
    assert ids
    assert len(set(ids)) == len(ids)
    for example in experiment.examples:
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", example.id)
        assert example.expect, "an example states a known answer"
        experiment.Spec.model_validate_json(json.dumps(example.fields))
        for sentence in example.expect:
            claims.check(claims.parse(sentence), _known(name))


@each_experiment
def test_randomness_comes_from_the_bench(name: str) -> None:
    """No call of torch's or numpy's own generator: draws depend on the spec and the seed alone."""
    source = Path(str(sys.modules[EXPERIMENTS[name].compute.__module__].__file__)).read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            drawn = re.fullmatch(r"torch\.(rand|randn|randint|randperm|normal|bernoulli|multinomial)(_like)?", called)
            assert not (drawn and "generator" not in {keyword.arg for keyword in node.keywords}), called
            assert not called.startswith(("np.random.", "numpy.random.", "torch.manual_seed", "torch.seed")), called
        assert not (isinstance(node, ast.Import) and "random" in [alias.name for alias in node.names])


@each_experiment
def test_what_a_stress_varies_can_be_asked_for(name: str) -> None:
    """Both ends of every range, every other value, and the nonsense, laid over each example."""
    experiment, known = EXPERIMENTS[name], entry(name, EXPERIMENTS[name])
    tried = [{field: value} for field, values in known.stress.items() for value in values]
    tried += [known.nonsense["fields"]] if known.nonsense else []
    for example in experiment.examples:
        for fields in tried:
            experiment.Spec.model_validate_json(json.dumps({**example.fields, **fields}))
    for field, values in known.stress.items():
        assert field != "seed", "it is varied by itself"
        numbers = is_number(known.fields[field])
        assert values[0] < values[1] if numbers else len(set(values)) > 1, field
        assert len(values) == 2 or not numbers, field


# -- what comes out


@each_example
def test_an_example_gives_its_known_answer(name: str, example: Example) -> None:
    result = _ran(name, example.id)
    assert result.checks
    assert [check for check in result.checks if not check.ok] == []
    for sentence in example.expect:
        judged = verdicts.judge(claims.parse(sentence), result, _known(name))
        assert judged.verdict == "supported", judged
        assert judged.note == "", judged


@each_example
def test_what_is_measured_and_drawn_is_what_was_declared(name: str, example: Example) -> None:
    experiment, result = EXPERIMENTS[name], _ran(name, example.id)
    declared = {quantity.name: quantity for quantity in experiment.metrics}
    assert [metric.name for metric in result.metrics] == [each for each in declared if each in _values(result)]
    for metric in result.metrics:
        quantity = declared[metric.name]
        assert (metric.unit, metric.headline) == (quantity.unit, quantity.headline)
        for value in metric.value if isinstance(metric.value, tuple) else (metric.value,):
            assert quantity.range[0] <= value <= quantity.range[1], metric
    assert list(result.figures) == [figure for figure in experiment.figures if figure in result.figures]
    for figure in result.figures.values():
        assert len(figure.content) <= FIGURE_BYTES
        assert len(figure.alt) > 10
    kept = _runner().store.root / result.key / "out" / "tensors.safetensors"
    assert kept.stat().st_size <= OUT_BYTES


@_with_model(any)
@pytest.mark.long
def test_every_metric_and_figure_comes_out_of_some_example(name: str) -> None:
    experiment = EXPERIMENTS[name]
    results = [_ran(name, example.id) for example in experiment.examples]
    assert {each for result in results for each in _values(result)} == {q.name for q in experiment.metrics}
    assert {each for result in results for each in result.figures} == set(experiment.figures)


@each_fixed_example
def test_the_numbers_are_those_of_this_version(name: str, example: Example) -> None:
    """A number that moves needs a new version, else results in vaults would be silently stale."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    version, numbers = EXPERIMENTS[name].version, _values(_ran(name, example.id))
    kept = golden.get(name, {"version": None, "examples": {}})
    if kept["version"] == version and example.id in kept["examples"]:
        moved = {each: (numbers.get(each), was) for each, was in kept["examples"][example.id].items()
                 if numbers.get(each) != pytest.approx(was, rel=5e-3, abs=1e-4, nan_ok=True)}  # fmt: skip
        assert moved == {}, f"the numbers of {name} moved (now, before): raise its version, then `make golden`"
        assert set(numbers) == set(kept["examples"][example.id])
        return
    assert os.environ.get("VAULTLAB_WRITE_GOLDEN"), "these numbers are not in tests/golden.json: `make golden`"
    if kept["version"] != version:
        kept = {"version": version, "examples": {}}
    kept["examples"][example.id] = {each: _three_digits(value) for each, value in numbers.items()}
    golden[name] = kept
    GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _values(result: Result) -> dict[str, Any]:
    """A vector as its least, middle and largest number: features may come in another order on another machine."""
    values = {metric.name: metric.value for metric in result.metrics}
    return {
        name: [min(value), median(value), max(value)] if isinstance(value, tuple) and value else value
        for name, value in values.items()
    }


def _values_of(found: Result | Point) -> dict[str, Any]:
    """One number a metric: of a vector its median."""
    return {m.name: median(m.value) if isinstance(m.value, tuple) else m.value for m in found.metrics if m.value != ()}


def _three_digits(value: Any) -> Any:
    return [_three_digits(each) for each in value] if isinstance(value, list | tuple) else float(f"{value:.3g}")


# -- the same spec, the same bytes


_AGAIN = """
import json, sys, torch
from pathlib import Path
from vaultlab.result import Ask, decode
from tests.experiments.test_every import fingerprint
from vaultlab.worker.press import Press
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store
torch.set_num_threads(int(sys.argv[2]))
runner, asks = Runner(Store(Path(sys.argv[1])), press=Press(beside=1)), json.loads(sys.stdin.read())
answers = {name: runner.run(decode(Ask, ask), lambda step: None, lambda: False) for name, ask in asks.items()}
print(json.dumps({name: fingerprint(answer) for name, answer in answers.items()}))
"""


@cache
def _elsewhere(names: tuple[str, ...]) -> Mapping[str, str]:
    """The fingerprints that one other process finds of the cheapest examples of these experiments."""
    asks = {name: an_ask(name, _cheapest(name)) for name in names}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _AGAIN,
            str(Path(_SCRATCH.name) / f"elsewhere-{names[0]}"),
            str(torch.get_num_threads()),
        ],
        input=json.dumps({name: encode(ask) for name, ask in asks.items()}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def fingerprint(answer: Any) -> str:
    """The numbers and figures of a Result, and nothing of when and how long."""
    assert isinstance(answer, Result), answer
    body = {name: value for name, value in encode(answer).items() if name not in ("provenance", "cached")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _with_a_model(name: str) -> bool:
    return _model(name, _cheapest(name)) is not None


@_with_model(all)
def test_the_same_spec_gives_the_same_bytes(name: str) -> None:
    """In another process, where other runs went before, and whose press prints beside it; with a model, which takes
    long, in one of its own."""
    together = [name] if _with_a_model(name) else [one for one in EXPERIMENTS if not _with_a_model(one)]
    assert _elsewhere(tuple(together))[name] == fingerprint(_ran(name, _cheapest(name).id))


TOGETHER = {
    "computing_in_superposition": ("two-neurons-each", ({"sparsity": 0.0}, {"sparsity": 0.8})),
    "feature_properties": ("sparse-toy", ({"sparsity": 0.8}, {"sparsity": 0.95})),
    "privileged_basis": ("relu-layer", ({"sparsity": 0.4}, {"sparsity": 0.5})),
    "superposition_learning": ("dense-pairs-stay-merged", ({"sparsity": 0.6}, {"sparsity": 0.7})),
    "superposition_correlated": ("fire-together", ({"sparsity": 0.85}, {"sparsity": 0.95})),
    "superposition_geometry": ("digons-then-more", ({"points": 2}, {"sparsity": 0.75, "points": 2})),
    "superposition": ("digon", ({"sparsity": 0.8}, {"sparsity": 0.9}, {"sparsity": 0.95})),
}
"""For each experiment with a `together`: points over an example that it computes as one batch."""


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if EXPERIMENTS[name].together])
def test_points_computed_together_are_those_computed_alone(name: str, tmp_path: Path) -> None:
    id, points = TOGETHER[name]
    example = next(example for example in EXPERIMENTS[name].examples if example.id == id)
    ask = an_ask(name, example, points=points)
    swept = Runner(Store(tmp_path), FOLDER).run(ask, lambda step: None, lambda: False)
    assert isinstance(swept, Result), swept
    for point in swept.points:
        changed = Example(example.id, "", {**example.fields, **point.fields}, (), example.texts)
        alone = _runner().run(an_ask(name, changed), lambda step: None, lambda: False)
        assert isinstance(alone, Result), alone
        # a batch adds in another order, and training carries that on
        assert _values_of(point) == pytest.approx(_values_of(alone), rel=1e-2, abs=1e-3)


def test_an_entry_says_what_the_experiment_says() -> None:
    for name, experiment in EXPERIMENTS.items():
        known: Entry = entry(name, experiment)
        assert json.loads(json.dumps(known.schema)) == known.schema
        assert [metric["name"] for metric in known.metrics] == [quantity.name for quantity in experiment.metrics]
