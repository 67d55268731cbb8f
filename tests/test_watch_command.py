"""`watch`, `status`, `stop`, and a render while a daemon lives."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.faced import Plugin, made, presence_file
from tests.http_client import pair
from tests.test_cli import NOTE as REAL
from tests.test_cli import Typed
from tests.test_daemon import Alive, alive, answer, serving
from tests.test_pipeline import NOTE
from vaultlab import trust
from vaultlab.commands.watch import ask_for_trust, handed_over, pairings_of
from vaultlab.desk import Worker
from vaultlab.errors import NoteError, RunError
from vaultlab.pipeline import Selection
from vaultlab.result import Failure
from vaultlab.service import serving as serving_face
from vaultlab.vault import presence

__all__ = ["alive"]  # the fixture


def test_a_vault_that_nobody_trusts_is_not_watched(alive: Alive) -> None:
    shown = Typed("watch", alive.root)
    assert f"vaultlab watch {alive.root} --trust" in str(shown.error)
    assert not trust.trusted(alive.root)
    assert presence.present(alive.root) is None


def test_without_a_terminal_a_plugin_can_be_asked_whether_a_vault_is_trusted(alive: Alive) -> None:
    pairings = pairings_of(alive.root)
    pairings.own_key(0.0)
    with pytest.raises(NoteError, match="not trusted"):
        ask_for_trust(alive.root, False)
    with serving_face(alive.daemon, Worker(lambda: {}, lambda key: None)) as server:
        client, _ = pair(server.port, pairings.offer(time.time()))
    assert client
    ask_for_trust(alive.root, False)
    assert not trust.trusted(alive.root), "it is watched, and nothing in it runs"


def test_without_a_daemon_status_and_stop_say_so(alive: Alive) -> None:
    assert f"vaultlab watch {alive.root}" in Typed("status", alive.root).out
    assert "No daemon" in Typed("stop", alive.root).out
    assert Typed("status", alive.root, "--json").json == {"daemon": None, "jobs": []}


def test_status_names_what_is_queued_and_why(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(3)
    shown = Typed("status", alive.root).out
    assert "two  queued: it has not run yet  Note.md" in shown
    (job,) = Typed("status", alive.root, "--json").json["jobs"]
    assert (job["block"], job["state"]) == ("two", "queued")


def test_status_tells_what_runs_and_how_far_it_is(alive: Alive) -> None:
    alive.save("Note.md", NOTE)
    alive.after(3)
    alive.jobs.take("daemon", 60)
    with presence.attend(alive.root):
        presence.say(
            alive.root,
            {
                "since": 0,
                "scans": "It is scanned.",
                "restraint": "The other has it.",
                "held": 60,
                "progress": "training 3 of 9",
            },
        )
        shown = Typed("status", alive.root).out
    assert f"Process {os.getpid()} watches" in shown
    assert "It is scanned." in shown
    assert "The other has it." in shown
    assert "60 blocks wait" in shown
    assert "two  training 3 of 9  since" in shown


def test_a_render_while_a_daemon_lives_hands_its_work_over(alive: Alive) -> None:
    alive.write("Note.md", NOTE.replace("number: 1", "number: 1\nrun: manual"))
    alive.write("Wrong.md", NOTE.replace("double: two", "double: wrong").replace("twice =", "twise ="))
    alive.write("Bad.md", NOTE.replace("double: two", "double: bad"))
    alive.answer = lambda ask, p: Failure(ask.id, "environment", "No memory.") if ask.id == "bad" else answer(ask)
    for path in alive.root.glob("*.md"):
        os.utime(path, (1e9, 1e9))
    with presence.attend(alive.root), serving(alive):
        outcomes = {outcome.item.id: outcome for outcome in handed_over(alive.look, Selection())}
        assert set(alive.ran) == {"two", "bad"}
        assert outcomes["two"].verdict == "supported"
        assert "twise" in outcomes["wrong"].problem
        assert outcomes["bad"].problem == "No memory."
        (again,) = handed_over(alive.look, Selection(id="two", force=True))
        assert again.verdict == "supported"
        assert [ask.id for ask in alive.asked if ask.force] == ["two"]
        assert list(handed_over(alive.look, Selection(note="Nowhere*"))) == []
    assert alive.read("Note.md").count("![[vaultlab/two#^result]]") == 1


def test_a_daemon_that_ends_before_it_answers_is_not_waited_for(alive: Alive) -> None:
    alive.write("Note.md", NOTE)
    attending, leave = threading.Event(), threading.Event()

    def attend() -> None:
        with presence.attend(alive.root):
            attending.set()
            leave.wait(20)

    other = threading.Thread(target=attend)
    other.start()
    attending.wait(20)
    threading.Timer(0.3, leave.set).start()
    with pytest.raises(RunError, match="does not answer"):
        list(handed_over(alive.look, Selection()))
    other.join()


@pytest.mark.long
def test_a_real_daemon_with_a_real_worker(alive: Alive) -> None:
    shown = subprocess.Popen(
        [sys.executable, "-c", "from vaultlab.cli import main; main()", "watch", str(alive.root), "--trust"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(lambda: (presence.present(alive.root) or {}).get("since"))
        assert Typed("watch", alive.root, "--trust").code != 0
        port = json.loads(presence_file(alive.root).read_bytes())["port"]
        client, _ = pair(port, Typed("pair", alive.root).out.split()[0])
        assert client
        plugin = Plugin(client)
        plugin.poll()
        assert set(plugin.said("GET", "/v1/experiments")["experiments"]) >= {"superposition", "attention", "kv_memory"}
        _wait(lambda: plugin.said("GET", "/v1/hello")["devices"])
        alive.write("Note.md", REAL)
        _wait(lambda: "done" in [event["kind"] for event in plugin.poll(20) + plugin.events])
        last = plugin.plan("Note.md", REAL)["blocks"][0]["last"]
        for name in last["figures"]:
            assert plugin.said("GET", f"/v1/blocks/two/artifacts/{name}")["alt"]
        data = plugin.said("GET", "/v1/blocks/two/artifacts/data")
        assert json.loads(base64.b64decode(data["content"])), (
            "what an interactive figure is drawn from, as the store has it"
        )
        assert plugin.ask("GET", "/v1/blocks/two/artifacts/none").status == 404
        (edit,) = [event["edit"] for event in plugin.events if event["edit"]]
        assert alive.read("Note.md") == REAL, "the plugin is there, so the edit is its own"
        assert plugin.outcome(edit, "taken") == 200
        alive.write("Note.md", made(edit, REAL))
        assert plugin.outcome(edit, "applied") == 200
        rendered = Typed("render", alive.root, "--id", "two", "--force")
        assert "✓ two" in rendered.out
        assert "This vault is being watched" in rendered.out
        assert Typed("check", alive.root).code == 0
        assert Typed("accept", "two", "--vault", alive.root).code == 0, "beside the daemon"
        assert "Stopped" in Typed("stop", alive.root).out
        out, _ = shown.communicate(timeout=20)
    finally:
        shown.kill()
        shown.wait()
    assert shown.returncode == 0
    assert "✓ two" in out
    assert "Traceback" not in out
    assert not list((alive.root / ".vaultlab").glob("daemon-*")), "it has said that it is gone"
    log = next((alive.root.parent / "state").rglob("daemon.log")).read_text()
    assert any((said := json.loads(line))["what"] == "ended" and said["block"] == "two" for line in log.splitlines())


@pytest.mark.long
def test_after_kill_9_the_next_daemon_goes_on(alive: Alive) -> None:
    slow = REAL.replace("steps: 200", "steps: 60000")
    command = [sys.executable, "-c", "from vaultlab.cli import main; main()", "watch", str(alive.root), "--trust"]
    alive.write("Note.md", slow)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait(lambda: (presence.present(alive.root) or {}).get("progress"))
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert presence.present(alive.root) is None
    assert "two" in Typed("status", alive.root).out
    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    _wait(lambda: (presence.present(alive.root) or {}).get("progress"))
    second.send_signal(signal.SIGINT)
    out, _ = second.communicate(timeout=20)
    assert "stays in the queue" in out
    assert alive.read("Note.md") == slow
    assert not (alive.root / "vaultlab").exists()


def _wait(until: object, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not until():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.1)
