"""Models that stay loaded, and runs that read one."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from tests import counting
from tests.tiny import tiny_model
from vaultlab import models
from vaultlab.experiment import Bench, Experiment, ModelName, Needs
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.family import Shape
from vaultlab.models.pull import add, remove
from vaultlab.result import Ask, Check, Failure, Limits, Metric, Refusal, Result
from vaultlab.worker.asked import entry
from vaultlab.worker.residents import IDLE_S, Residents
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, seed in (("one", 0), ("two", 1)):
        install(name, seed, tmp_path)


def install(name: str, seed: int, tmp_path: Path) -> None:
    model = tiny_model("gpt2", seed=seed)
    folder = tmp_path / f"{name}{seed}"
    model.net.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    add(name, folder)


class Spec(BaseSpec):
    model: ModelName = "one"
    """Whose weights are summed."""


class Out(NamedTuple):
    total: torch.Tensor
    batch: int


def compute(spec: Spec, bench: Bench) -> Out:
    model = bench.model(spec.model)
    return Out(torch.stack([weight.sum() for weight in model.net.parameters()]).sum(), bench.batch)


def needs(spec: Spec, shape: Shape | None) -> Needs:
    assert shape is not None
    return Needs(shape.bytes, 0.1)


SUMMING = Experiment(
    **{
        **vars(counting.EXPERIMENT),
        "Spec": Spec,
        "Out": Out,
        "compute": compute,
        "measure": lambda spec, out: [Metric("mean", float(out.total))],
        "verify": lambda spec, out: [Check("it is a number", 0.0, 1.0)],
        "draw": lambda spec, out: {},
        "needs": needs,
        "data": None,
    }
)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Store(tmp_path / "store"), {"summing": SUMMING})


def run(runner: Runner, **fields: Any) -> Any:
    return runner.run(Ask("id", "summing", fields, device="cpu"), lambda step: None, lambda: False)


def test_a_model_is_loaded_once() -> None:
    residents = Residents()
    assert residents.get("one", CPU) is residents.get("one", CPU)
    assert residents.get("two", CPU) is not residents.get("one", CPU)


def test_another_model_under_the_name_is_loaded(tmp_path: Path) -> None:
    residents = Residents()
    before = residents.get("one", CPU)
    remove("one")
    install("one", 7, tmp_path)
    after = residents.get("one", CPU)
    assert after.sha256 != before.sha256
    assert residents.get("one", CPU) is after


def test_the_least_recently_used_makes_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    residents = Residents()
    one, two = residents.get("one", CPU), residents.get("two", CPU)
    assert residents.get("one", CPU) is one
    install("three", 3, tmp_path)
    free = iter([one.shape.bytes, 2 * one.shape.bytes])
    monkeypatch.setattr("vaultlab.worker.residents.free_memory", lambda device: next(free, 10**12))
    residents.get("three", CPU)
    assert residents.get("one", CPU) is one
    assert residents.get("two", CPU) is not two


def test_idle_models_are_let_go() -> None:
    residents = Residents()
    one = residents.get("one", CPU)
    residents.evict(3600.0)
    assert residents.get("one", CPU) is one
    residents.evict()
    assert residents.get("one", CPU) is not one


def test_a_model_that_nobody_asks_for_goes_after_five_minutes() -> None:
    now = 1000.0
    residents = Residents(lambda: now)
    assert residents.rest() is None
    one = residents.get("one", CPU)
    now += 100
    two = residents.get("two", CPU)
    assert residents.rest() == IDLE_S - 100
    now += IDLE_S - 101
    assert residents.rest() == 1
    assert residents.get("one", CPU) is one
    now += 101
    assert residents.rest() == IDLE_S - 101, "two is gone, one was asked for since"
    assert residents.get("two", CPU) is not two
    now += IDLE_S
    assert residents.rest() is None
    assert residents.get("one", CPU) is not one


def test_a_run_records_the_model_it_read(runner: Runner) -> None:
    found = run(runner)
    assert isinstance(found, Result), found
    assert found.summary == "one"
    assert found.provenance["models"]["one"]["dtype"] == "float32"
    assert found.provenance["models"]["one"]["sha256"] == runner.residents.get("one", CPU).sha256
    assert (found.provenance["dtype"], found.provenance["batch"]) == ("float32", 32)
    assert runner.plan(Ask("id", "summing", {"model": "two"})).needs_bytes == tiny_model("gpt2").shape.bytes


def test_the_content_is_the_key_not_the_name(runner: Runner, tmp_path: Path) -> None:
    first = run(runner)
    install("twin", 0, tmp_path)
    twin = run(runner, model="twin")
    assert twin.key == first.key
    assert twin.cached
    remove("one")
    install("one", 5, tmp_path)
    other = run(runner)
    assert other.key != first.key
    assert other.metrics != first.metrics
    assert not other.cached


def test_a_new_version_of_what_reads_models_outdates_what_was_read(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.registry = {"summing": SUMMING, "counting": counting.EXPERIMENT}
    counted = runner.plan(Ask("id", "counting", {})).key
    before = run(runner)
    monkeypatch.setattr(models, "VERSION", models.VERSION + 1)
    after = run(runner)
    assert not after.cached
    assert after.key != before.key
    assert entry("summing", SUMMING).version == SUMMING.version + models.VERSION
    assert runner.plan(Ask("id", "counting", {})).key == counted, "it reads none"


def test_a_model_that_is_not_here_says_how_to_get_it(runner: Runner) -> None:
    missing = run(runner, model="three")
    assert isinstance(missing, Failure)
    assert missing.kind == "environment"
    assert "vaultlab models pull three" in missing.hint
    assert "not on this machine" in runner.plan(Ask("id", "summing", {"model": "three"})).problems[0].message
    outside = run(runner, model="../../etc")
    assert isinstance(outside, Refusal)
    assert outside.field == "model"


def test_a_model_over_the_owner_s_limit_is_refused(runner: Runner) -> None:
    ask = replace(Ask("id", "summing", {}, device="cpu"), limits=Limits(memory_bytes=1000))
    answer = runner.run(ask, lambda step: None, lambda: False)
    assert isinstance(answer, Refusal)
    assert "a run may take 0.001 MB" in answer.message
