import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter

from tests import counting
from vaultlab.plots.style import Drawing, canvas, heat, log_axis, render, tiles, token_axis
from vaultlab.result import Ask, Figure, Result
from vaultlab.worker import press as module
from vaultlab.worker.press import Press
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

PATIENCE_S = 60.0


@pytest.fixture
def press() -> Iterator[Press]:
    press = Press(beside=2)
    yield press
    press.close()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this process prints itself, by its alt text; it takes longer over each than one beside it."""
    printed: list[str] = []

    def slow(drawing: Drawing) -> Figure:
        printed.append(drawing.alt)
        time.sleep(0.5)
        return render(drawing)

    monkeypatch.setattr(module, "render", slow)
    return printed


def drawings() -> Mapping[str, Drawing]:
    """Curves on a logarithmic axis, a heat map of tokens, one so fine that it is a PNG, many small ones."""
    dice = np.random.default_rng(0)
    with canvas(1, 2) as (curves, axes):
        axes[0, 0].plot(np.arange(1, 9), 10.0 ** np.arange(8), label="loss")
        log_axis(axes[0, 0], "y")
        axes[0, 0].legend()
        axes[0, 1].scatter(*dice.normal(size=(2, 40)))
    with canvas() as (tokens, axes):
        heat(axes[0, 0], dice.normal(size=(7, 7)), "attention")
        token_axis(axes[0, 0], "x", [" the", "\n", "中", "cat", " sat", "$x$", "."])
    with canvas() as (crowd, axes):
        heat(axes[0, 0], dice.random((720, 720)), "weight")
    many = tiles(dice.random((3, 4, 9, 9)), "probability", rows=list("abc"), cols=list("0123"))
    figures = {"curves": curves, "tokens": tokens, "crowd": crowd, "many": many}
    return {name: Drawing(figure, name) for name, figure in figures.items()}


WANTED = {name: render(drawing) for name, drawing in drawings().items()}


def beside() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


def wait(until: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < end
        time.sleep(0.02)


def mostly_beside(press: Press, here: list[str]) -> bool:
    here.clear()
    assert list(press.printed(drawings()).items()) == list(WANTED.items())
    return len(here) == 1


def test_most_is_printed_beside_with_the_same_bytes(press: Press, here: list[str]) -> None:
    assert {figure.kind for figure in WANTED.values()} == {"svg", "png"}
    wait(lambda: mostly_beside(press, here))
    assert len(beside()) == 2


def test_nobody_waits_for_a_process_that_is_not_ready(here: list[str]) -> None:
    press = Press(beside=1)
    one = {"tokens": drawings()["tokens"]}
    assert press.printed(one) == {"tokens": WANTED["tokens"]}
    assert here == ["tokens"]
    press.close()
    assert beside() == []


def test_without_one_beside_all_is_printed_here(here: list[str]) -> None:
    assert Press().printed(drawings()) == WANTED
    assert here == list(WANTED)
    assert beside() == []


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_a_killed_process_does_not_bring_is_printed_here(press: Press, here: list[str], when: str) -> None:
    wait(lambda: mostly_beside(press, here))
    first = beside()
    if when == "meanwhile":
        for one in first:
            one.suspend()  # each is given a figure, and dies over it when the others are printed
        threading.Timer(3, lambda: [one.kill() for one in first]).start()
    else:
        for one in first:
            one.kill()
        wait(lambda: not set(first) & set(beside()))
    here.clear()
    assert press.printed(drawings()) == WANTED
    assert when == "before" or len(here) == len(WANTED)
    press.warm()
    assert len(beside()) == 2
    assert not set(first) & set(beside())


def test_one_that_has_nothing_to_do_ends_and_is_started_again(here: list[str]) -> None:
    press = Press(beside=1, idle_s=1)
    press.warm()
    (first,) = beside()
    wait(lambda: not first.is_running() or first.status() == psutil.STATUS_ZOMBIE)
    assert press.printed(drawings()) == WANTED
    press.warm()
    assert [one.pid for one in beside()] != [first.pid]
    press.close()


def test_it_ends_with_the_process_that_started_it() -> None:
    code = (
        "import time, psutil; from vaultlab.worker.press import Press; Press(1).warm();"
        "print(psutil.Process().children()[0].pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    wait(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_nothing_is_imported_from_the_folder_it_is_started_in(
    press: Press, here: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "matplotlib.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    wait(lambda: mostly_beside(press, here))


def test_what_cannot_be_sent_over_is_printed_here(press: Press) -> None:
    with canvas() as (figure, axes):
        axes[0, 0].plot([1, 2], [3, 4])
        axes[0, 0].xaxis.set_major_formatter(FuncFormatter(lambda x, place: f"{x:g}!"))
    drawing = Drawing(figure, "a function of its own")
    want = render(drawing)
    printed = press.printed({str(number): drawing for number in range(3)})
    assert set(printed.values()) == {want}


def test_what_cannot_be_drawn_is_raised(press: Press) -> None:
    with pytest.raises(AttributeError):
        press.printed({"broken": Drawing(cast(Canvas, None), "nothing"), **drawings()})


def test_a_run_has_the_same_result_with_a_press(press: Press, tmp_path: Path) -> None:
    def result(**more: Any) -> Result:
        runner = Runner(Store(tmp_path / str(len(more))), {"counting": counting.EXPERIMENT}, **more)
        answer = runner.run(Ask("id", "counting", {}, device="cpu"), lambda step: None, lambda: False)
        assert isinstance(answer, Result)
        return answer

    alone, pressed = result(), result(press=press)
    assert len(beside()) == 2
    assert (alone.figures, alone.metrics, alone.checks) == (pressed.figures, pressed.metrics, pressed.checks)
