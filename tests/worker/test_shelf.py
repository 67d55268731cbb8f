"""What runs ask for alike: computed once, kept in pieces, taken up again after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from vaultlab.worker import shelf as module
from vaultlab.worker.shelf import PIECE_S, Shelf
from vaultlab.worker.store import Store


class Count(NamedTuple):
    """How far somebody has counted, and the numbers."""

    upto: int
    numbers: Tensor


WHAT = {"of": "numbers", "model": "m", "tokens": 10, "bos": None}


class Counter:
    """Counts to ten, a second each; gives up before `ends`."""

    def __init__(self, ends: int = 99, step_s: float = 1.0) -> None:
        self.now = 0.0
        self.ends = ends
        self.step_s = step_s
        self.begun: list[int] = []

    def __call__(self, begun, keep):
        self.begun.append(begun.upto if begun else 0)
        count = begun or Count(0, torch.zeros(0))
        while count.upto < 10:
            if count.upto == self.ends:
                raise KeyboardInterrupt
            self.now += self.step_s
            count = Count(count.upto + 1, torch.cat([count.numbers, torch.tensor([float(count.upto)])]))
            keep(lambda count=count: count)
        return count


def counted(store, counter, what=WHAT):
    shelf = Shelf(store, {"device": "cpu"}, lambda: counter.now)
    return shelf(what, Count, counter), shelf.used["numbers"]


def test_whoever_comes_second_finds_it(tmp_path: Path) -> None:
    store, counter = Store(tmp_path), Counter()
    first, facts = counted(store, counter)
    again, also = counted(store, counter)
    assert counter.begun == [0]
    assert first.numbers.tolist() == again.numbers.tolist() == list(map(float, range(10)))
    assert facts == also
    assert (facts["seconds"], facts["device"], len(facts["sha256"])) == (10.0, "cpu", 64)
    assert len([one for one in store.root.iterdir() if one.name[0] != "."]) == 1, "the pieces are gone"


def test_another_question_is_another_answer(tmp_path: Path) -> None:
    store, counter = Store(tmp_path), Counter()
    for what in (WHAT, {**WHAT, "tokens": 11}, {**WHAT, "bos": True}, {**WHAT, "model": "n"}):
        counted(store, counter, what)
    assert counter.begun == [0, 0, 0, 0]
    counted(store, counter, dict(reversed(WHAT.items())))
    assert len(counter.begun) == 4, "the order in which it is asked is nothing"


def test_what_was_broken_off_goes_on_from_its_last_piece(tmp_path: Path) -> None:
    store, counter = Store(tmp_path), Counter(ends=9, step_s=3.0)
    with pytest.raises(KeyboardInterrupt):
        counted(store, counter)
    counter.ends = 99
    found, facts = counted(store, counter)
    assert counter.begun == [0, 9]
    assert found.numbers.tolist() == list(map(float, range(10)))
    assert facts["seconds"] == 30.0, "both tries together"


@pytest.mark.parametrize("which", [0, 1])
def test_a_piece_that_is_damaged_leaves_the_one_before(tmp_path: Path, which: int) -> None:
    store, counter = Store(tmp_path), Counter(ends=9, step_s=4.0)
    with pytest.raises(KeyboardInterrupt):
        counted(store, counter)
    pieces = sorted(tmp_path.glob("*/out/facts.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(pieces) == 2
    pieces[which].write_text("{")
    counter.ends = 99
    found, _ = counted(store, counter)
    assert counter.begun == [0, (8, 6)[which]]
    assert found.upto == 10


def test_what_cannot_be_kept_is_computed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    found, _ = counted(Store(tmp_path / "store"), Counter())
    assert found.upto == 10


_KILLED = """
import sys, time, torch
from pathlib import Path
from tests.worker.test_shelf import WHAT, Count
from vaultlab.worker import shelf
from vaultlab.worker.store import Store
shelf.PIECE_S = 0.3
def work(begun, keep):
    count = begun or Count(0, torch.zeros(0))
    print("from", count.upto, flush=True)
    for upto in range(count.upto, 100_000):
        count = Count(upto + 1, torch.arange(upto + 1.0)[-1000:])
        print(count.upto, flush=True)
        keep(lambda: count)
        time.sleep(0.01)
    return count
shelf.Shelf(Store(Path(sys.argv[1])), {})(WHAT, Count, work)
"""


@pytest.mark.long
def test_a_kill_loses_no_more_than_a_piece(tmp_path: Path) -> None:
    assert PIECE_S < 10
    last = 0
    for kill in range(4):
        run = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        assert run.stdout is not None
        began = int(run.stdout.readline().split()[1])
        assert began > 0 or kill == 0
        assert last - began <= 0.3 / 0.01 + 5
        end = time.monotonic() + 0.7 + 0.11 * kill
        while time.monotonic() < end or last - began < 60:
            last = int(run.stdout.readline())
        os.kill(run.pid, signal.SIGKILL)
        for line in run.communicate()[0].split():
            last = int(line)
    assert module.PIECE_S == PIECE_S
