"""The real worker process, with the small experiment of these tests in its folder."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_model
from vaultlab import places
from vaultlab.lab import Lab
from vaultlab.result import Answer, Ask, Failure, Progress, Result

SCRIPT = """
import resource, sys
from pathlib import Path
print("printed by an import", end="", flush=True)
from tests.counting import EXPERIMENT
from vaultlab.worker import __main__ as worker
from vaultlab.worker.store import Store
class Registry(dict):
    def __getitem__(self, name):
        if name == "broken":
            raise ImportError("half written")
        return EXPERIMENT
vm = {line.split(":")[0]: line.split()[1] for line in open("/proc/self/status") if line.startswith("Vm")}
limit = int(vm["VmData"]) * 1024 + 1500 * 2**20  # so much a run of these tests may take
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
run = worker.Runner
worker.Runner = lambda press: run(Store(Path(sys.argv[1])), Registry(counting=None, broken=None), press)
worker.main()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("worker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "state_dir", lambda: folder / "state")
        patch.setenv("PYTHONPATH", str(Path.cwd()))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with Lab((sys.executable, "-c", SCRIPT, str(folder / "store")), device="cpu") as opened:
            opened.describe()
            yield opened


def start(lab: Lab, fields: dict[str, Any], id: str) -> tuple[threading.Thread, list[Answer]]:
    answers: list[Answer] = []
    started = threading.Event()
    ask = Ask(id, "counting", fields)
    thread = threading.Thread(target=lambda: answers.append(lab.ask(ask, lambda step: started.set())))
    thread.start()
    assert started.wait(60)
    return thread, answers


def pid(lab: Lab) -> int:
    assert lab._process is not None
    return lab._process._popen.pid


def test_what_is_printed_goes_to_the_log(lab: Lab) -> None:
    assert isinstance(lab.ask(Ask("id", "counting", {"n": 3})), Result)
    assert "printed by an experiment" in (places.state_dir() / "logs" / "worker.log").read_text()


def test_a_broken_experiment_is_told_beside_the_others(lab: Lab) -> None:
    described = lab.describe()
    assert list(described["experiments"]) == ["counting"]
    assert described["broken"] == {"broken": "ImportError: half written"}


def test_it_answers_while_it_computes_and_stops_when_told(lab: Lab) -> None:
    before = pid(lab)
    thread, answers = start(lab, {"mode": "slow"}, "slow")
    assert lab.plan(Ask("id", "counting", {"n": 7})).summary == "n=7 S=.5"
    assert lab.describe()["experiments"]["counting"]["version"] == 1
    assert {finding["what"] for finding in lab.doctor()} >= {"packages", "store"}
    os.kill(before, signal.SIGINT)
    assert thread.is_alive()
    lab.cancel("slow")
    thread.join(60)
    assert isinstance(answers[0], Failure)
    assert answers[0].kind == "cancelled"
    assert pid(lab) == before


def test_short_of_memory_it_goes_on_with_half_or_says_what_to_change(lab: Lab) -> None:
    before = pid(lab)
    found = lab.ask(Ask("id", "counting", {"mode": "hungry", "n": 64}))
    assert isinstance(found, Result), found
    too_much = lab.ask(Ask("id", "counting", {"mode": "hungry", "n": 200}))
    assert isinstance(too_much, Failure)
    assert too_much.kind == "environment"
    said = r"not with half the batch either: at most .* were taken, for an estimated .* and .* are free\."
    assert re.search(said, too_much.message)
    assert "smaller numbers" in too_much.hint
    assert isinstance(lab.ask(Ask("id", "counting", {"mode": "hungry", "n": 65}, force=True)), Result)
    assert pid(lab) == before, "nothing of it has cost the worker"
    log = (places.state_dir() / "logs" / "worker.log").read_text()
    assert "out of memory with batches of 32" in log
    assert "out of memory with batches of 16" in log


def test_a_native_call_is_cancelled_by_force(lab: Lab) -> None:
    before = pid(lab)
    thread, answers = start(lab, {"mode": "stuck"}, "stuck")
    lab.cancel("stuck")
    thread.join(60)
    assert isinstance(answers[0], Failure)
    assert answers[0].kind == "cancelled"
    assert isinstance(lab.ask(Ask("id", "counting", {"n": 4})), Result)
    assert pid(lab) != before


def test_runs_wait_for_their_turn(lab: Lab) -> None:
    thread, answers = start(lab, {"mode": "slow", "n": 2}, "first")
    second: list[Answer] = []
    waiting = threading.Thread(target=lambda: second.append(lab.ask(Ask("second", "counting", {"n": 9}))))
    waiting.start()
    lab.cancel("first")
    thread.join(60)
    waiting.join(60)
    assert isinstance(answers[0], Failure)
    assert isinstance(second[0], Result)


def test_a_model_comes_in(lab: Lab, tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    model.net.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    seen: list[Progress] = []
    (added,) = lab.models("add", seen.append, name="mine", path=str(tmp_path))
    assert (added["name"], added["family"], added["dtype"]) == ("mine", "gpt2", "float32")
    assert len(added["sha256"]) == 64
    assert "verifying mine" in [step.phase for step in seen]


def test_it_is_there_before_transformers_is_imported() -> None:
    """Which takes longer than the rest of its start; a run without a model, or one that is stored, never needs it."""
    modules = "vaultlab.worker.__main__, vaultlab.experiments.superposition, vaultlab.experiments.attention"
    found = [sys.executable, "-c", f"import sys, {modules}; sys.exit('transformers' in sys.modules)"]
    assert subprocess.run(found).returncode == 0


_LATE = """
import threading, torch
from vaultlab.errors import RunError
from vaultlab.worker.asked import Folder
from vaultlab.worker.residents import Residents

found = []

def get():
    try:
        Residents().get("nobody-has-this", torch.device("cpu"))
    except Exception as error:
        found.append(type(error))

def look():
    try:
        found.append(type(Folder()["steering"]).__name__)
    except Exception as error:
        found.append(type(error))

threads = [threading.Thread(target=act) for act in (get, look)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(found, key=str) == sorted([RunError, "Experiment"], key=str), found
"""


def test_two_threads_that_import_transformers_do_not_meet_in_the_middle() -> None:
    subprocess.run([sys.executable, "-c", _LATE], check=True)
