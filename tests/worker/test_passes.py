"""Runs that share a forward pass: fewer passes, the very same bits, and nobody's trouble is another's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import Field
from torch import Tensor

from tests import counting
from tests.tiny import TEXT, tiny_model
from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Experiment, ModelName, Reads, TextName
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.pull import add
from vaultlab.models.trace import Site, trace
from vaultlab.result import Answer, Ask, Check, Failure, Metric, Refusal, Result, Text
from vaultlab.worker import passes
from vaultlab.worker.asked import Folder, asked
from vaultlab.worker.passes import reader
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

CPU = torch.device("cpu")
ROWS = 4
WORDS = Text("words", "77", (("", TEXT),))
OTHER = Text("other", "88", (("", TEXT[::-1]),))
REAL = {name: Folder()[name] for name in Folder() if Folder()[name].reads}


class Spec(BaseSpec):
    model: ModelName = "one"
    """What reads."""
    text: TextName = "words"
    """What is read."""
    layer: int = Field(2, ge=0)
    """Where the numbers come from."""
    tokens: int = 12
    """Tokens in each of the rows."""
    mode: str = "fine"
    """What happens."""


class Out(NamedTuple):
    stream: Tensor
    pattern: Tensor
    batch: int


def reads(spec: Spec, shape: Shape) -> Reads | None:
    if spec.mode == "silent":
        return None
    return Reads((spec.tokens,), (Site("resid_post", spec.layer), Site("pattern", spec.layer)))


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The stream and the patterns behind a layer, row by row."""
    model = bench.model(spec.model)
    ids = model.tokens(bench.text("text").parts[0][1]).ids[: ROWS * spec.tokens].view(ROWS, -1)
    found = []
    for done, row in enumerate(ids):
        bench.progress(done, ROWS, "reading")
        one = bench.trace(model, row[None], (Site("resid_post", spec.layer), Site("pattern", spec.layer)))
        found.append([value.clone() for value in one.values()])
        if "careless" in spec.mode:
            for value in one.values():
                value.zero_()
        if spec.mode == "broken" and done == 1:
            raise ValueError("shapes do not fit")
        if spec.mode == "refused" and done == 1:
            raise NoteError("Nothing wakes.", "Take another text.", field="text")
    return Out(*(torch.cat(values) for values in zip(*found, strict=True)), bench.batch)


GAZING = Experiment(
    **{
        **vars(counting.EXPERIMENT),
        "Spec": Spec,
        "Out": Out,
        "compute": compute,
        "measure": lambda spec, out: [Metric("mean", float(out.stream.mean()))],
        "verify": lambda spec, out: [Check("it is a number", 0.0, 1.0)],
        "draw": lambda spec, out: {},
        "needs": None,
        "data": None,
        "reads": reads,
    }
)


@pytest.fixture(scope="module", autouse=True)
def _models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("passes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for name, family in (("one", "llama"), ("two", "gpt2")):
            model = tiny_model(family)
            model.net.save_pretrained(folder / name)
            model.tokenizer.save_pretrained(folder / name)
            add(name, folder / name)
        yield


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(Store(tmp_path), {"gazing": GAZING, **REAL})


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[set[Site]]:
    """The sites of every pass that is made, in order."""
    made: list[set[Site]] = []

    def counted(model: Model, ids: Tensor, sites: set[Site]) -> dict[Site, Tensor]:
        made.append(set(sites))
        return trace(model, ids, sites)

    monkeypatch.setattr(passes, "trace", counted)
    return made


def an_ask(
    beside: tuple[Ask, ...] = (), text: Text = WORDS, points: tuple[dict[str, Any], ...] = (), **fields: Any
) -> Ask:
    return Ask("id", "gazing", fields, texts={"text": text}, points=points, device="cpu", beside=beside)


def run(runner: Runner, ask: Ask, cancelled: Callable[[], bool] = lambda: False) -> Answer:
    return runner.run(ask, lambda step: None, cancelled)


def one_after_another(runner: Runner, asks: list[Ask]) -> list[Answer]:
    """As the scribe asks: with each of them those behind it, without their text."""
    bare = [replace(ask, texts={"text": replace(ask.texts["text"], parts=())}) for ask in asks]
    return [run(runner, replace(ask, beside=tuple(bare[at + 1 :]))) for at, ask in enumerate(asks)]


def out(runner: Runner, answer: Answer) -> Out:
    assert isinstance(answer, Result), answer
    found = runner.store.out(answer.key, Out)
    assert found is not None
    return found[0]


def same_as_alone(runner: Runner, tmp_path: Path, asks: list[Ask], answers: list[Answer]) -> None:
    """Bit for bit."""
    for ask, answer in zip(asks, answers, strict=True):
        alone = Runner(Store(tmp_path / "alone"), runner.registry)
        expected, got = out(alone, run(alone, ask)), out(runner, answer)
        assert torch.equal(got.stream, expected.stream)
        assert torch.equal(got.pattern, expected.pattern)
        assert got.batch == expected.batch


@pytest.mark.parametrize("layers", [(0, 1, 2), (2, 1, 0), (1, 2, 1)])
def test_blocks_over_one_text_share_each_pass(
    runner: Runner, tmp_path: Path, traced: list[set[Site]], layers: tuple[int, ...]
) -> None:
    asks = [an_ask(layer=layer) for layer in layers]
    answers = one_after_another(runner, asks)
    assert len(traced) == ROWS
    assert runner.residents.passes.bytes == 0
    same_as_alone(runner, tmp_path, asks, answers)


def test_what_is_not_the_very_same_tokens_is_read_anew(runner: Runner, tmp_path: Path, traced: list[set[Site]]) -> None:
    asks = [
        an_ask(),
        an_ask(tokens=6),
        an_ask(text=OTHER),
        an_ask(model="two"),
        an_ask(mode="silent"),
    ]
    answers = one_after_another(runner, asks)
    assert len(traced) == 5 * ROWS
    assert all(len(sites) == 2 for sites in traced)
    same_as_alone(runner, tmp_path, asks, answers)


def test_the_points_of_a_sweep_share_too(runner: Runner, tmp_path: Path, traced: list[set[Site]]) -> None:
    swept = run(runner, an_ask(points=({"layer": 0}, {"layer": 2}, {"layer": 1})))
    assert isinstance(swept, Result)
    assert len(traced) == ROWS
    asks = [an_ask(layer=layer) for layer in (0, 2, 1)]
    same_as_alone(runner, tmp_path, asks, [run(runner, ask) for ask in asks])


def test_nothing_is_read_for_what_is_stored(runner: Runner, traced: list[set[Site]]) -> None:
    run(runner, an_ask(layer=2))
    traced.clear()
    one_after_another(runner, [an_ask(layer=0), an_ask(layer=2)])
    assert [len(sites) for sites in traced] == [2] * ROWS


def test_a_run_may_write_over_what_it_was_given(runner: Runner, tmp_path: Path) -> None:
    careless = [an_ask(layer=1, mode="careless"), an_ask(layer=1, mode="careless again"), an_ask(layer=1)]
    answers = one_after_another(runner, careless)
    same_as_alone(runner, tmp_path, careless, answers)


def test_a_cancelled_one_leaves_what_it_has_read_to_the_others(
    runner: Runner, tmp_path: Path, traced: list[set[Site]]
) -> None:
    asks = [an_ask(layer=1), an_ask(layer=2)]
    stopped = run(runner, replace(asks[0], beside=(asks[1],)), lambda: len(traced) == 3)
    assert isinstance(stopped, Failure)
    assert stopped.kind == "cancelled"
    answer = run(runner, asks[1])
    assert [len(sites) for sites in traced] == [4, 4, 4, 2]
    same_as_alone(runner, tmp_path, asks[1:], [answer])


@pytest.mark.parametrize("mode", ["broken", "refused"])
def test_what_ails_one_is_not_the_others(runner: Runner, tmp_path: Path, traced: list[set[Site]], mode: str) -> None:
    asks = [an_ask(mode=mode), an_ask(layer=1), an_ask(layer=0)]
    first, *answers = one_after_another(runner, asks)
    assert isinstance(first, Failure | Refusal)
    assert len(traced) == ROWS
    same_as_alone(runner, tmp_path, asks[1:], answers)


def test_one_that_cannot_run_is_in_nobody_s_way(runner: Runner, tmp_path: Path, traced: list[set[Site]]) -> None:
    asks = [
        an_ask(layer=1),
        an_ask(layer=99),
        an_ask(mode=3),
        an_ask(model="three"),
        Ask("id", "nothing", {}, texts={"text": WORDS}),
        an_ask(layer=0),
    ]
    first, *others, last = one_after_another(runner, asks)
    assert [type(answer) for answer in others] == [Refusal, Refusal, Failure, Refusal]
    same_as_alone(runner, tmp_path, [asks[0], asks[-1]], [first, last])
    assert all(site.layer != 99 for sites in traced[:ROWS] for site in sites)


def test_what_does_not_fit_in_is_read_by_each(
    runner: Runner, tmp_path: Path, traced: list[set[Site]], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = 12 * 48 * 4 + 4 * 12 * 12 * 4  # one row's stream and pattern
    monkeypatch.setattr(passes, "free_memory", lambda device: 4 * room)
    asks = [an_ask(layer=1), an_ask(layer=2)]
    answers = one_after_another(runner, asks)
    assert [len(sites) for sites in traced] == [4, 4, 2, 2, 2, 2, 2]  # the second row is one too many
    assert runner.residents.passes.bytes == 0
    same_as_alone(runner, tmp_path, asks, answers)


def test_where_memory_runs_out_a_run_is_first_tried_alone(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(model: Model, ids: Tensor, sites: set[Site]) -> dict[Site, Tensor]:
        if len(sites) > 2:
            raise MemoryError
        return trace(model, ids, sites)

    monkeypatch.setattr(passes, "trace", short)
    asks = [an_ask(layer=1), an_ask(layer=2)]
    answers = one_after_another(runner, asks)
    monkeypatch.undo()
    same_as_alone(runner, tmp_path, asks, answers)  # its batch too
    monkeypatch.setattr(passes, "trace", lambda model, ids, sites: short(model, ids, {*sites, Site("final")}))
    assert isinstance(run(runner, an_ask(layer=0)), Failure)


def test_what_nobody_reads_any_more_is_let_go(runner: Runner) -> None:
    kept = runner.residents.passes
    run(runner, an_ask((an_ask(layer=0),)))
    assert kept.bytes == ROWS * (12 * 48 + 4 * 12 * 12) * 4
    run(runner, an_ask(layer=1))
    assert kept.bytes == 0
    run(runner, an_ask((an_ask(layer=0),), tokens=6))
    assert kept.bytes == 0
    run(runner, an_ask((an_ask(layer=0, tokens=5),), tokens=5))
    assert kept.bytes > 0
    runner.residents.evict()
    assert kept.bytes == 0


# -- the experiments that share


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("model", ["one", "two"])
def test_what_an_experiment_promises_to_read_is_what_it_reads(
    runner: Runner, traced: list[set[Site]], name: str, model: str
) -> None:
    text = Text("text", "99", (("", TEXT + TEXT.replace("cat", "cow") + TEXT.replace("the", "a")),))
    ask = Ask("id", name, {"model": model}, texts={"text": text}, device="cpu")
    it = asked(ask, runner.registry, lambda one: "0")
    promised = reader(it, it.runs[0])
    answer = run(runner, ask)
    assert isinstance(answer, Result), answer
    assert promised is not None
    assert set().union(*traced) == promised.sites
    if "layer" in REAL[name].Spec.model_fields:
        traced.clear()
        points = ({"layer": 1}, {"layer": 0})
        swept = run(runner, replace(ask, points=points))
        assert isinstance(swept, Result), swept
        each = [reader(it, one) for one in asked(replace(ask, points=points), runner.registry, lambda one: "0").runs]
        both = set().union(*(one.sites for one in each if one))
        assert traced
        assert all(sites == both for sites in traced), "the second point has made a pass of its own"


def test_different_experiments_share_a_pass_too(runner: Runner, tmp_path: Path, traced: list[set[Site]]) -> None:
    attention, lens = (
        Ask("id", name, {"model": "one"}, texts={"text": WORDS}, device="cpu") for name in ("attention", "logit_lens")
    )
    run(runner, replace(attention, beside=(lens,)))
    shared = run(runner, lens)
    assert len(traced) == 1
    alone = run(Runner(Store(tmp_path / "alone"), runner.registry), lens)
    assert isinstance(shared, Result), shared
    assert isinstance(alone, Result), alone
    assert (shared.metrics, shared.figures) == (alone.metrics, alone.figures)
