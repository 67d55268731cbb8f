"""The door to a worker: whatever the process behind it does, an Answer comes, and the next Ask gets a worker."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vaultlab import lab as lab_module
from vaultlab import places, process
from vaultlab.errors import NoteError, RunError
from vaultlab.lab import Lab
from vaultlab.result import Answer, Ask, Failure, Limits, Progress, Refusal, Result

STANDIN = (sys.executable, "-S", str(Path(__file__).parent / "standin_worker.py"))


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(places, "state_dir", lambda: tmp_path / "state")
    monkeypatch.setattr(lab_module, "FLAG_S", 0.2)
    monkeypatch.setattr(lab_module, "TERM_S", 0.2)
    monkeypatch.setattr(lab_module, "OVERTIME_S", 0.2)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(STANDIN) as opened:
        yield opened


def an_ask(*acts: str, id: str = "id", limits: Limits = Limits(), force: bool = False, **fields: Any) -> Ask:  # noqa: B008
    return Ask(id, "experiment", {"acts": list(acts), **fields}, limits=limits, force=force)


def works(lab: Lab) -> bool:
    return isinstance(lab.ask(an_ask(id="next")), Result)


def failure(answer: Answer) -> Failure:
    assert isinstance(answer, Failure), answer
    return answer


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return not Path("/proc/self").exists()
        return False
    return state != "Z"


def pid_of(lab: Lab) -> int:
    answer = lab.ask(an_ask("where"))
    assert isinstance(answer, Result)
    return int(answer.summary.split()[0])


# -- what goes well


def test_an_ask_is_answered_and_followed(lab: Lab) -> None:
    seen: list[Progress] = []
    assert isinstance(lab.ask(an_ask("progress", "progress"), seen.append), Result)
    assert seen == [Progress("id", "working", 1, 2)] * 2


def test_one_worker_serves_many_asks(lab: Lab) -> None:
    assert len({pid_of(lab) for _ in range(3)}) == 1


def test_nothing_starts_before_it_is_needed() -> None:
    with Lab(("/nowhere/worker",)):
        pass


def test_printed_lines_do_not_disturb(lab: Lab) -> None:
    assert isinstance(lab.ask(an_ask("garbage", "giant", "garbage")), Result)


def test_plan_describe_forget_doctor(lab: Lab) -> None:
    assert lab.plan(an_ask()).key == "k"
    assert lab.describe() == {"vaultlab": "0", "experiments": {}}
    assert lab.forget(["a", "b"]) == 2
    lab.doctor()


def test_a_plan_is_answered_while_a_run_computes(lab: Lab) -> None:
    thread = threading.Thread(target=lab.ask, args=(an_ask("wait"),))
    thread.start()
    assert lab.plan(an_ask()).key == "k"
    assert thread.is_alive()
    lab.cancel("id")
    thread.join(5)


def test_models_have_a_process_of_their_own_that_may_go_online(lab: Lab) -> None:
    seen: list[Progress] = []
    assert lab.models("list", seen.append) == [{"name": "m", "args": ["--online"]}]
    assert [step.phase for step in seen] == ["fetching"]
    with pytest.raises(NoteError, match="no such model pull it"):
        lab.models("find", word="x")
    with pytest.raises(RunError, match="no such model pull it"):
        lab.models("remove", name="x")


@pytest.mark.parametrize(
    ("device", "seen", "own", "sees"),
    [
        (None, None, None, None),
        ("cpu", None, "cpu", None),
        ("cuda", "2,3", "cuda", "2,3"),
        ("cuda:1", None, "cuda", "1"),
        ("cuda:1", "2,3", "cuda", "3"),
        ("cuda:5", "2,3", "cuda:5", "2,3"),
        ("cuda:0", "", "cuda:0", ""),
    ],
)
def test_a_gpu_s_worker_sees_no_other(
    monkeypatch: pytest.MonkeyPatch, device: str | None, seen: str | None, own: str | None, sees: str | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    with Lab(STANDIN, device=device) as lab:
        answer = lab.ask(an_ask("device"))
    assert isinstance(answer, Result)
    assert json.loads(answer.summary) == [own, sees]


# -- deaths


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (["exit"], "it ended with exit code 3."),
        (["progress", "exit"], "it ended with exit code 3."),
        (["kill"], "memory ran out"),
        (["segv"], "segmentation fault"),
        (["half"], "exit code 0"),
        (["close"], ""),
    ],
)
def test_a_death_is_told_and_the_next_ask_is_served(lab: Lab, acts: list[str], said: str) -> None:
    before = time.monotonic()
    answer = failure(lab.ask(an_ask(*acts)))
    assert time.monotonic() - before < 5  # a bound on waiting for ever, not on speed
    assert answer.kind == "environment"
    assert "The worker died during this run" in answer.message
    assert said in answer.message
    assert ("Its last words: RuntimeError: the disk is on fire." in answer.hint) == ("exit" in acts)
    assert works(lab)


def test_a_death_between_runs_is_not_the_next_one_s(lab: Lab) -> None:
    os.kill(pid_of(lab), signal.SIGKILL)
    assert works(lab)
    assert works(lab)


def test_a_death_before_the_run_began_is_tried_again(lab: Lab) -> None:
    answer = failure(lab.ask(an_ask(early="exit")))
    assert "exit code 3" in answer.message
    assert works(lab)


def test_two_deaths_on_one_ask_are_enough(lab: Lab) -> None:
    assert "died" in failure(lab.ask(an_ask("kill"))).message
    assert "2 times" in failure(lab.ask(an_ask("kill", id="other"))).message  # whoever asks
    pid = pid_of(lab)
    assert "2 times" in failure(lab.ask(an_ask("kill"))).message
    assert pid_of(lab) == pid  # not even tried
    assert "2 times" in failure(lab.ask(an_ask("kill", force=True))).message
    assert pid_of(lab) != pid  # tried, for its author insists
    assert "died" in failure(lab.ask(an_ask("kill", n=2))).message


def test_a_death_with_others_beside_is_not_held_against_the_run(lab: Lab) -> None:
    """What was read for them may have been too much: it runs once more alone, and only that would count."""
    ask = replace(an_ask("alone"), beside=(an_ask(id="other"),))
    for _ in range(3):
        assert isinstance(lab.ask(ask), Result)
    assert lab.deaths(ask) == 0
    deadly = replace(an_ask("kill"), beside=(an_ask(id="other"),))
    assert "died" in failure(lab.ask(deadly)).message
    assert (lab.deaths(deadly), lab.deaths(an_ask("kill"))) == (1, 1)


def test_a_run_that_waits_behind_a_death_is_served(lab: Lab) -> None:
    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(lab.ask(an_ask("nap", "kill"))))
    first.start()
    second = lab.ask(an_ask(id="second"))
    first.join()
    assert isinstance(second, Result)
    assert isinstance(answers[0], Failure)


def test_a_worker_that_cannot_start_says_why() -> None:
    with Lab((*STANDIN, "fail")) as lab:
        answer = failure(lab.ask(an_ask()))
        assert "could not start" in answer.message
        assert "No module named 'torch'" in answer.hint
        with pytest.raises(RunError, match="No module named 'torch'"):
            lab.describe()


def test_a_command_that_is_not_there() -> None:
    with Lab(("/nowhere/worker",)) as lab:
        assert "could not be started" in failure(lab.ask(an_ask())).message
        with pytest.raises(RunError, match="could not be started"):
            lab.plan(an_ask())


def test_a_worker_of_another_version() -> None:
    with Lab((*STANDIN, "old")) as lab:
        assert "another version" in failure(lab.ask(an_ask())).message


def test_a_worker_that_never_says_hello(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_module, "START_S", 0.2)
    with Lab((*STANDIN, "mute")) as lab:
        assert "could not start" in failure(lab.ask(an_ask())).message


def test_an_answer_that_is_none(lab: Lab) -> None:
    assert "could not be read" in failure(lab.ask(an_ask("nonsense"))).message
    assert works(lab)


def test_a_line_without_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LINE_BYTES", 2**22)
    assert "line without an end" in failure(lab.ask(an_ask("endless"))).message
    assert works(lab)


def test_a_plan_survives_the_death_of_a_run(lab: Lab) -> None:
    thread = threading.Thread(target=lab.ask, args=(an_ask("nap", "kill"),))
    thread.start()
    assert lab.plan(an_ask()).key == "k"
    thread.join()
    with pytest.raises(RunError, match="exit code 3"):
        lab.plan(an_ask(plan="exit"))


# -- cancelling


def cancelled_after(lab: Lab, ask: Ask) -> tuple[Failure, float]:
    threading.Timer(0.3, lab.cancel, (ask.id,)).start()
    before = time.monotonic()
    return failure(lab.ask(ask)), time.monotonic() - before


def test_the_flag_is_enough_for_a_run_that_looks(lab: Lab) -> None:
    pid = pid_of(lab)
    answer, _ = cancelled_after(lab, an_ask("wait"))
    assert (answer.kind, answer.message) == ("cancelled", "cancelled by the flag")
    assert pid_of(lab) == pid


@pytest.mark.parametrize("acts", [["hang"], ["deaf", "hang"], ["child", "deaf", "hang"]])
def test_what_does_not_look_is_ended_and_the_device_free(lab: Lab, acts: list[str]) -> None:
    pid = pid_of(lab)
    answer, took_s = cancelled_after(lab, an_ask(*acts))
    assert answer.kind == "cancelled"
    assert took_s < 5
    assert not alive(pid)
    said = (places.state_dir() / "logs" / "worker.log").read_text()
    for line in said.splitlines():
        assert eventually(lambda line=line: not alive(int(line.split()[1])))  # the whole group
    assert works(lab)
    assert lab.ask(an_ask(*acts[:-1])) != answer  # and no death was counted against it


def test_a_run_that_waits_is_cancelled_without_harm_to_the_other(lab: Lab) -> None:
    answers: list[Answer] = []
    started = threading.Event()
    first = an_ask("progress", "nap", "nap", id="first")
    thread = threading.Thread(target=lambda: answers.append(lab.ask(first, lambda step: started.set())))
    thread.start()
    assert started.wait(5)
    threading.Timer(0.1, lab.cancel, ("second",)).start()
    assert failure(lab.ask(an_ask("hang", id="second"))).kind == "cancelled"
    thread.join()
    assert isinstance(answers[0], Result)


def test_cancelling_what_is_not_there_does_nothing(lab: Lab) -> None:
    lab.cancel("nobody")
    assert works(lab)


def test_ctrl_c_ends_the_run_and_is_raised(lab: Lab) -> None:
    pid = pid_of(lab)
    # Started in the background by a shell, this process would have been told to ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            lab.ask(an_ask("hang"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not alive(pid)
    assert works(lab)


def test_an_error_of_the_one_who_follows_ends_the_run(lab: Lab) -> None:
    def broken(step: Progress) -> None:
        raise ZeroDivisionError

    pid = pid_of(lab)
    with pytest.raises(ZeroDivisionError):
        lab.ask(an_ask("progress", "hang"), broken)
    assert not alive(pid)


def test_time_is_up_also_for_a_run_that_does_not_look(lab: Lab) -> None:
    answer = failure(lab.ask(an_ask("hang", limits=Limits(time_s=0.2))))
    assert answer.kind == "environment"
    assert "how long a run may take" in answer.message
    assert works(lab)


# -- ends


def test_closing_ends_even_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_S", 0.2)
    lab = Lab(STANDIN)
    pid = pid_of(lab)
    thread = threading.Thread(target=lab.ask, args=(an_ask("deaf", "hang"),))
    thread.start()
    time.sleep(0.2)
    lab.close()
    assert not alive(pid)
    thread.join(5)
    assert not thread.is_alive()


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal\nfrom vaultlab.lab import Lab\nfrom vaultlab.result import Ask\n"
        f"lab = Lab({STANDIN!r})\n"
        "print(lab.ask(Ask('id', 'e', {'acts': ['where']})).summary, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    pid = int(done.stdout.split()[0])
    assert done.returncode == -signal.SIGKILL
    assert eventually(lambda: not alive(pid))


def test_the_log_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOG_BYTES", 10)
    logs = places.state_dir() / "logs"
    for _ in range(2):
        with Lab(STANDIN) as lab:
            lab.ask(an_ask("exit"))
    assert (logs / "worker.log").read_text() == (logs / "worker.1.log").read_text()


def test_a_real_worker_refuses_computes_and_keeps() -> None:
    fields = {"features": 3, "hidden": 2, "steps": 20, "seeds": 2}
    with Lab(device="cpu") as lab:
        refused = lab.ask(Ask("id", "superpositoin", {}))
        assert isinstance(refused, Refusal)
        assert "`superposition`" in refused.hint
        seen: list[Progress] = []
        first = lab.ask(Ask("id", "superposition", fields), seen.append)
        assert isinstance(first, Result)
        assert first.provenance["device"] == "cpu"
        assert seen
        again = lab.ask(Ask("id", "superposition", fields))
        assert isinstance(again, Result)
        assert again.cached
        assert again.figures == first.figures
        other = Ask("id", "superposition", {**fields, "seed": 1})
        assert lab.stored([Ask("id", "superposition", fields), other]) == [True, False]
        assert lab.forget([first.key]) == 1
        assert {finding["what"] for finding in lab.doctor()} >= {"vaultlab", "packages", "models", "store"}


@pytest.mark.long
def test_a_real_worker_is_cancelled_killed_and_describes_meanwhile() -> None:
    slow = Ask("slow", "superposition", {"features": 200, "hidden": 20, "steps": 100_000})
    with Lab(device="cpu") as lab:
        started = threading.Event()
        answers: list[Answer] = []
        thread = threading.Thread(target=lambda: answers.append(lab.ask(slow, lambda step: started.set())))
        thread.start()
        assert started.wait(120)
        assert "superposition" in lab.describe()["experiments"]
        assert lab.stored([slow]) == [False]
        lab.cancel("slow")
        thread.join(10)
        assert failure(answers[0]).kind == "cancelled"
        assert isinstance(lab.ask(Ask("id", "superposition", {"steps": 10, "seeds": 1})), Result)


def test_a_worker_imports_nothing_from_the_folder_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be a vault, with whatever its authors have put there."""
    for module in ("json", "torch", "matplotlib"):
        (tmp_path / f"{module}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    with Lab() as lab:
        assert "cpu" in lab.here()["devices"]
    assert not (tmp_path / "imported").exists()
