"""A worker on another machine: it is asked over a line that no signal and no variable goes over, and that breaks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.test_cli import NOTE, Typed
from tests.test_lab import alive, an_ask, eventually, failure
from vaultlab import absence, endings, process
from vaultlab import lab as lab_module
from vaultlab.catalogue import Catalogue, Entry
from vaultlab.commands.bench import answers
from vaultlab.commands.words import lab_on
from vaultlab.errors import NoteError, RunError
from vaultlab.lab import Lab
from vaultlab.result import Answer, Ask, Progress, Result
from vaultlab.vault import presence

TESTS = Path(__file__).parent
WORKER = (sys.executable, "-S", str(TESTS / "standin_worker.py"))


class Box:
    """The other machine: the line to it, and what runs there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def command(self, *worker: str) -> tuple[str, ...]:
        return (sys.executable, "-S", str(TESTS / "standin_ssh.py"), str(self.folder), "box", *(worker or WORKER))

    def line(self, how: str) -> None:
        beside = self.folder / "beside"
        beside.write_text(how)
        beside.replace(self.folder / "line")

    def mend(self) -> None:
        (self.folder / "line").unlink(missing_ok=True)

    @property
    def pids(self) -> list[int]:
        """What was started there, oldest first."""
        return [int(pid) for pid in (self.folder / "pids").read_text().split()]


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setattr(lab_module, "FLAG_S", 0.2)
    monkeypatch.setattr(lab_module, "TERM_S", 0.2)
    monkeypatch.setattr(absence, "FIRST_S", 0.01)
    monkeypatch.setattr(process, "BEAT_S", 0.1)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    there = Box(tmp_path / "box")
    yield there
    there.mend()  # what still hangs is let go


@pytest.fixture
def lab(box: Box) -> Iterator[Lab]:
    with Lab(box.command(), far="box", patient=True) as opened:
        yield opened


def summary(answer: Answer) -> str:
    assert isinstance(answer, Result), answer
    return answer.summary


# -- what goes well


def test_it_is_asked_like_one_that_is_here_and_is_elsewhere(lab: Lab, box: Box) -> None:
    seen: list[Progress] = []
    assert summary(lab.ask(an_ask("progress", "where"), seen.append)).endswith(f" {box.folder / 'home'}")
    assert seen == [Progress("id", "working", 1, 2)]
    assert lab.plan(an_ask()).key == "k"
    assert lab.models("list") == [{"name": "m", "args": ["--online"]}]
    assert len(box.pids) == 2


def test_it_ends_when_its_line_is_closed(lab: Lab, box: Box) -> None:
    lab.ask(an_ask())
    lab.close()
    assert eventually(lambda: not alive(box.pids[0]))


# -- what is not there


def test_one_that_never_answered_is_not_waited_for(box: Box) -> None:
    box.line("refused")
    with Lab(box.command(), far="box") as lab:
        said = failure(lab.ask(an_ask()))
        assert "The worker `box` does not answer" in said.message
        assert "Connection refused" in said.message
        assert "standin_ssh.py" in said.hint
        box.mend()
        assert failure(lab.ask(an_ask())) == said, "the next block does not try again"
        with pytest.raises(RunError, match="does not answer"):
            lab.describe()
    assert not (box.folder / "pids").exists()


def test_a_patient_one_waits_and_says_so(lab: Lab, box: Box) -> None:
    box.line("refused")
    seen: list[str] = []

    def told(step: Progress) -> None:
        seen.append(step.phase)
        if len(seen) == 3:
            box.mend()

    assert isinstance(lab.ask(an_ask(), told), Result)
    assert len(seen) == 3
    assert "waiting for box (the line to it broke: ssh: connect to host box port 22: Connection refused)" in seen[0]


def test_nothing_but_a_run_waits_for_it(lab: Lab, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "FIRST_S", 60.0)
    box.line("refused")
    with pytest.raises(RunError, match="Connection refused"):
        lab.plan(an_ask())
    box.mend()
    with pytest.raises(RunError, match="does not answer"):
        lab.plan(an_ask())
    with pytest.raises(RunError, match="does not answer"):
        lab.models("list")
    assert not (box.folder / "pids").exists()


def test_who_waits_can_be_cancelled(lab: Lab, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "FIRST_S", 60.0)
    box.line("refused")

    def told(step: Progress) -> None:
        threading.Timer(0.2, lab.cancel, ("id",)).start()

    assert failure(lab.ask(an_ask(), told)).kind == "cancelled"


def test_the_pauses_grow_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "FIRST_S", 1.0)
    now = 100.0
    monkeypatch.setattr(absence.time, "monotonic", lambda: now)
    away = absence.Absence("box", patient=True)
    pauses = []
    for _ in range(9):
        away.missed("it broke")
        pauses.append(away.due_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    away.answered()
    assert away.due_s == 0
    away.missed("it broke")
    assert away.due_s == 1
    assert not away.given_up


def test_without_patience_one_that_was_there_is_tried_a_few_times() -> None:
    away = absence.Absence("box", patient=False)
    away.answered()
    for _ in range(absence.TRIES):
        away.missed("it broke")
        assert not away.given_up
    away.missed("it broke")
    assert away.given_up


def test_what_waiting_cannot_mend_is_said_at_once(box: Box) -> None:
    with Lab(box.command("vaultlab-worker-that-is-not-there"), far="box", patient=True) as lab:
        said = failure(lab.ask(an_ask()))
    assert said.message == "The worker `box` could not start: it ended with exit code 127."
    assert "not found" in said.hint


def test_one_of_another_version_is_not_waited_for(box: Box) -> None:
    with Lab(box.command(*WORKER, "old"), far="box", patient=True) as lab:
        assert "another version of vaultlab" in failure(lab.ask(an_ask())).message


# -- a line that breaks


def test_a_line_that_hangs_is_noticed_and_the_run_asked_again(lab: Lab, box: Box) -> None:
    seen: list[str] = []

    def told(step: Progress) -> None:
        seen.append(step.phase)
        if step.phase == "working":
            if len(seen) == 1:
                box.line("hung")
        else:
            box.mend()

    assert isinstance(lab.ask(an_ask("progress", "nap", "nap"), told), Result)
    assert [phase.split(",")[0] for phase in seen] == [
        "working",
        "waiting for box (nothing was heard from it for 1 s)",
        "working",
    ]
    assert lab.deaths(an_ask("progress", "nap", "nap")) == 0


def test_a_line_that_hangs_from_the_beginning(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab_module, "START_S", 0.5)
    box.line("hung")
    with Lab(box.command(), far="box") as lab:
        assert "it said nothing for 0 s" in failure(lab.ask(an_ask())).message


def test_a_line_cut_in_the_middle_of_an_answer(lab: Lab, box: Box) -> None:
    lab.ask(an_ask())
    box.line("cut 100000")
    assert summary(lab.ask(an_ask("big"))) == "big " * 100_000
    assert len(box.pids) == 2
    assert lab.deaths(an_ask("big")) == 0


def test_an_answer_that_takes_longer_than_a_beat_is_no_silence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BEAT_S", 0.01)
    monkeypatch.setattr(process, "SILENT_BEATS", 200)
    for _ in range(5):
        assert summary(lab.ask(an_ask("big"))) == "big " * 100_000


def test_what_ends_the_worker_each_time_is_given_up(lab: Lab, box: Box) -> None:
    said = failure(lab.ask(an_ask("kill")))
    assert "has taken the worker down" in said.message
    assert len(box.pids) == 5, "it looks like a line that breaks, so it is tried oftener"
    assert lab.deaths(an_ask("kill")) == 2
    assert failure(lab.ask(an_ask("kill"))) == said
    assert isinstance(lab.ask(an_ask()), Result)


def test_a_death_that_is_told_is_one(lab: Lab) -> None:
    said = failure(lab.ask(an_ask("exit")))
    assert "it ended with exit code 3" in said.message
    assert "Its last words: RuntimeError: the disk is on fire" in said.hint
    assert said.message.startswith("The worker `box` died during this run")
    assert lab.deaths(an_ask("exit")) == 1


@pytest.mark.parametrize("acts", [["wait"], ["deaf", "hang"]])
def test_cancel_reaches_where_no_signal_does(lab: Lab, box: Box, acts: list[str]) -> None:
    started = threading.Event()
    threading.Thread(target=lambda: (started.wait(60), lab.cancel("id"))).start()
    assert failure(lab.ask(an_ask("progress", *acts), lambda step: started.set())).kind == "cancelled"
    if acts == ["wait"]:
        assert alive(box.pids[0])
    else:
        assert eventually(lambda: not alive(box.pids[0]))
    assert isinstance(lab.ask(an_ask()), Result)
    assert lab._absence.why == "", "we ended it ourselves: the line is sound"


def test_cancel_over_a_line_that_hangs(lab: Lab, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SILENT_BEATS", 10**6)

    def told(step: Progress) -> None:
        box.line("hung")
        threading.Timer(0.2, lab.cancel, ("id",)).start()

    assert failure(lab.ask(an_ask("progress", "wait"), told)).kind == "cancelled"


def test_a_stop_of_this_machine_is_no_silence(lab: Lab, box: Box) -> None:
    """Frozen, or asleep with its lid closed: it was not the other one that said nothing."""
    pid = os.fork()
    if pid == 0:
        try:
            ok = isinstance(lab.ask(an_ask("where")), Result)
            time.sleep(1.5)
            before = box.pids
            ok &= isinstance(lab.ask(an_ask("where")), Result) and box.pids == before
        finally:
            os._exit(0 if ok else 1)
    assert eventually(lambda: (box.folder / "pids").exists())
    time.sleep(0.3)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.0)
    os.kill(pid, signal.SIGCONT)
    assert os.waitpid(pid, 0)[1] == 0


# -- the words that are typed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "vaultlab"
    folder.mkdir(parents=True)
    return folder / "config.toml"


def names(config: Path, box: Box, *worker: str, more: str = "") -> None:
    command = ", ".join(map(json.dumps, box.command(*worker)))
    config.write_text(f"{more}\n[workers.box]\ncommand = [{command}]\n")


def test_its_models_are_its_own(config: Path, box: Box) -> None:
    names(config, box)
    assert Typed("models", "list", "--device", "box", "--json").json == [{"name": "m", "args": ["--online"]}]
    with pytest.raises(NoteError, match="On `box`: no such model"):
        raise Typed("models", "find", "x", "--device", "box").error
    names(config, box, more='device = "box"')
    assert Typed("models", "list", "--json").json == [{"name": "m", "args": ["--online"]}], "as the owner says"


def test_a_command_that_a_message_names_is_typed_here() -> None:
    said = endings.from_afar("box", "It is not on this machine.", "Get it: `vaultlab models pull m`. On it: `n`.")
    assert said == (
        "On `box`: It is not on this machine.",
        "Get it: `vaultlab models pull m --device box`. On it: `n`.",
    )


def test_a_path_is_one_of_the_other_machine(config: Path, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Lab, "models", lambda self, action, progress, **more: asked.append(more["path"]) or [])
    names(config, box)
    Typed("models", "add", "mine", "there/model", "--device", "box")
    Typed("models", "add", "mine", "here/model")
    assert asked == ["there/model", str(Path("here/model").resolve())]


def test_no_such_device(config: Path, box: Box) -> None:
    names(config, box)
    for typed, said in (("bxo", "Did you mean `box`?"), ("quantum", str(config))):
        with pytest.raises(NoteError, match=f"no device and no worker called `{typed}`") as error:
            lab_on(typed)
        assert said in error.value.hint
    for device in (None, "cpu", "mps", "cuda", "cuda:1"):
        assert not lab_on(device).far
    assert lab_on("box").command == box.command()


def test_the_command_line_goes_before_the_configuration(config: Path, box: Box) -> None:
    names(config, box, more='device = "box"')
    assert lab_on(None).far == "box"
    assert lab_on("cpu").device == "cpu"


def test_doctor_says_who_answers_and_as_what(config: Path, box: Box) -> None:
    known = Catalogue({name: Entry(name, 3, "", {}, (), {}, ()) for name in ("near", "far")})
    fine = answers("box", box.command(), Catalogue())
    assert fine == {"what": "worker box", "ok": True, "detail": "vaultlab 0, cuda:0, cpu", "mend": ""}
    other = answers("box", box.command(), known)
    assert not other["ok"]
    assert "vaultlab 0 has other versions of: near, far" in other["detail"]
    box.line("refused")
    refused = answers("box", box.command(), Catalogue())
    assert not refused["ok"]
    assert "does not answer" in refused["detail"]
    assert "Connection refused" in refused["detail"]
    names(config, box)
    alone = cast(list[dict[str, Any]], Typed("doctor", "--device", "box", "--json").json)
    assert [one["what"] for one in alone] == ["worker", "logs"]


# -- a real worker


@pytest.mark.long
def test_a_real_one_computes_there_what_is_written_here(config: Path, box: Box, tmp_path: Path) -> None:
    names(config, box, sys.executable, "-m", "vaultlab.worker", more='device = "box"')
    root = tmp_path / "vault"
    (root / ".vaultlab").mkdir(parents=True)
    (root / "Note.md").write_text(NOTE)
    os.utime(root / "Note.md", (1e9, 1e9))
    assert "✓ two" in Typed("render", root).out
    assert list((root / "vaultlab" / "figures").glob("two.*.svg"))
    there = box.folder / "home" / ".cache" / "vaultlab"
    assert list((there / "store").glob("*/out")), "its store is there"
    assert not (tmp_path / "cache" / "vaultlab" / "store").exists()
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in (process.logs() / "worker.log").read_text()
    found = {one["what"]: one for one in cast(list[dict[str, Any]], Typed("doctor", "--json").json)}
    assert found["worker box"]["ok"], found
    with lab_on(None) as lab:
        newer = failure(lab.ask(Ask("id", "superposition", {}, version=999)))
        assert "version 999" in newer.message
        assert "same version of vaultlab" in newer.hint
        gone = failure(lab.ask(Ask("id", "sooperposition", {}, version=1)))
        assert "has no experiment `sooperposition`" in gone.message
        missing = failure(lab.ask(Ask("id", "attention", {"model": "nowhere"})))
        assert missing.message.startswith("On `box`: ")
        assert "`vaultlab models pull nowhere --device box`" in missing.hint


GRIPPED = """
import re, sys
from tests.counting import EXPERIMENT
from tests import counting
from vaultlab import process
process.BEAT_S, process.SILENT_BEATS = 0.1, 5
from vaultlab.worker import __main__ as worker
def grip(*given):
    print("gripped", file=sys.stderr, flush=True)
    re.match("(a+)+$", "a" * 60 + "b")  # a native call that lets no other thread of Python by
counting.Bench.text = grip
run = worker.Runner
worker.Runner = lambda press: run(registry={"counting": EXPERIMENT}, press=press)
worker.main()
"""


@pytest.mark.long
@pytest.mark.parametrize("line", ["hung", "closed"])
def test_a_native_call_there_ends_with_the_line(box: Box, tmp_path: Path, line: str) -> None:
    script = tmp_path / "gripped.py"
    script.write_text(GRIPPED)
    with Lab(box.command(sys.executable, str(script)), far="box") as lab:
        thread = threading.Thread(target=lab.ask, args=(Ask("id", "counting", {}),))
        thread.start()
        log = process.logs() / "worker.log"
        assert eventually(lambda: log.exists() and "gripped" in log.read_text(), 60)
        if line == "hung":
            box.line("hung")
        else:
            lab.cancel("id")
        assert eventually(lambda: not alive(box.pids[0]), 60)
        lab.cancel("id")
        box.mend()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.long
def test_a_daemon_waits_for_its_machine_and_leaves_the_notes_alone(config: Path, box: Box, tmp_path: Path) -> None:
    names(config, box, sys.executable, "-m", "vaultlab.worker", more='device = "box"')
    root = tmp_path / "vault"
    (root / ".vaultlab").mkdir(parents=True)
    (root / "Note.md").write_text(NOTE)
    box.line("refused")

    def said() -> str:
        return str((presence.present(root) or {}).get("progress", ""))

    watching = [sys.executable, "-m", "vaultlab", "watch", str(root), "--trust"]
    daemon = subprocess.Popen(watching, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert eventually(lambda: "waiting for box" in said(), 120)
        assert "Connection refused" in Typed("status", root).out
        assert (root / "Note.md").read_text() == NOTE
        assert not (root / "vaultlab").exists(), "nothing is written of what may be there in a moment"
        box.mend()
        assert eventually(lambda: "![[vaultlab/two#^result]]" in (root / "Note.md").read_text(), 120)
        assert eventually(lambda: not said())
        box.line("refused")
        (root / "Note.md").write_text((root / "Note.md").read_text().replace("steps: 200", "steps: 201"))
        os.kill(box.pids[-1], signal.SIGKILL)
        assert eventually(lambda: "waiting for box" in said(), 120)
        assert "Stopped" in Typed("stop", root).out, "also while it waits"
        out, _ = daemon.communicate(timeout=60)
    finally:
        daemon.kill()
        daemon.wait()
    assert daemon.returncode == 0
    assert "✓ two" in out
    assert "Traceback" not in out
    assert "two" in Typed("status", root).out, "what was still to run stays in the queue"
