"""What the daemon answers when it is asked, over real sockets, with a plain function in the worker's place."""

import base64
import json
import os
import threading

import pytest

from tests import faced as bench
from tests.faced import Faced, Plugin
from tests.test_daemon import Alive
from tests.test_lab import eventually
from tests.test_pipeline import DOUBLE, NOTE, answer
from vaultlab import trust
from vaultlab.desk import Worker
from vaultlab.result import Failure, Progress, Refusal
from vaultlab.service import serving
from vaultlab.vault.journal import Journal

alive, faced, plugin = bench.alive, bench.faced, bench.plugin


def kinds(plugin: Plugin, id: str = "two") -> list[str]:
    plugin.poll()
    return [event["kind"] for event in plugin.events if event["id"] == id]


def test_hello_says_who_is_there(faced: Faced, plugin: Plugin) -> None:
    said = plugin.said("GET", "/v1/hello")
    assert (said["vault"], said["trusted"], said["notices"]) == ("vault", True, [])
    assert said["queue"] == {"queued": 0, "running": None}
    while not said["devices"]:  # the worker is asked beside
        said = plugin.said("GET", "/v1/hello")
    assert (said["devices"], said["models"]) == (["cpu"], ["tiny"])
    assert said["last"].startswith(said["epoch"])


def test_the_catalogue_has_examples(plugin: Plugin) -> None:
    (double,) = plugin.said("GET", "/v1/experiments")["experiments"].values()
    assert double["title"] == "Twice a number."
    assert set(double["fields"]["properties"]) == set(DOUBLE.schema["properties"])
    assert set(double["examples"][0]) == {"title", "fields", "expect"}


def test_a_note_that_takes_no_part_is_told_what_would_change_that(plugin: Plugin) -> None:
    text = "---\ntitle: 𝕏\ntags: [a]\n---\n```vaultlab\ndouble: two\n```\n"
    said = plugin.plan("Note.md", text)
    edit = said["partake"]
    units = text.encode("utf-16-le")
    after = units[: 2 * edit["offset"]] + edit["insert"].encode("utf-16-le") + units[2 * edit["offset"] :]
    assert after.decode("utf-16-le") == text.replace("[a]", "[a, experiment]")
    assert plugin.plan("Note.md", NOTE)["partake"] is None


def test_a_text_that_nobody_has_saved_is_planned(plugin: Plugin) -> None:
    said = plugin.plan("Note.md", NOTE)
    assert (said["takes_part"], said["problems"]) == (True, [])
    (block,) = said["blocks"]
    assert (block["id"], block["experiment"], block["start"], block["end"]) == ("two", "double", 6, 12)
    assert (block["state"], block["why"], block["run"], block["last"]) == ("missing", "it has not run yet", None, None)
    assert block["fields"] == {"number": 1, "text": "hello"}
    assert plugin.plan("Note.md", NOTE.replace("hello", "hallo"))["blocks"][0]["sha256"] != block["sha256"]


def test_a_block_is_known_by_what_stands_in_it_wherever_it_stands(plugin: Plugin) -> None:
    top, _, rest = NOTE.partition("```vaultlab")
    body = "```vaultlab" + rest.partition("\nThe end")[0]
    quoted = top + "".join(f"> {line}\n" for line in body.splitlines())
    hashes = {
        plugin.plan("Note.md", text)["blocks"][0]["sha256"] for text in (NOTE, quoted, NOTE.replace("\n", "\r\n"))
    }
    assert len(hashes) == 1


def test_what_only_the_worker_knows_to_be_wrong_is_told_on_its_line_too(faced: Faced, plugin: Plugin) -> None:
    swept = NOTE.replace("number: 1\n", "sweep:\n  number: [1, -1]\n")
    faced.refusals.append(Refusal("two", "`number` is -1, and must be at least 0.", "Write 0 or more.", "number"))
    for text, wrong in ((NOTE, "number: 1"), (swept, "  number: [1, -1]")):
        (block,) = plugin.plan("Note.md", text)["blocks"]
        (problem,) = block["problems"]
        assert text.splitlines()[problem["line"] - 1] == wrong
        assert (block["state"], block["why"]) == ("error", "`number` is -1, and must be at least 0.")
        assert problem["hint"] == "Write 0 or more."
    faced.refusals.clear()
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["problems"] == []


def test_a_mistake_is_told_on_its_line_with_its_mend(plugin: Plugin) -> None:
    (block,) = plugin.plan("Note.md", NOTE.replace("twice =", "twise ="))["blocks"]
    assert block["state"] == "error"
    (problem,) = block["problems"]
    assert (problem["line"], problem["field"]) == (11, "expect.0")
    assert "twise" in problem["message"]


def test_a_note_that_takes_no_part_is_not_silent(plugin: Plugin) -> None:
    said = plugin.plan("Note.md", NOTE.replace("[experiment]", "[]"))
    assert not said["takes_part"]
    assert "tags: [experiment]" in said["problems"][0]["hint"]
    assert [(one["id"], one["state"]) for one in said["blocks"]] == [("two", "error")]


def test_an_open_fence_stops_the_note(plugin: Plugin) -> None:
    said = plugin.plan("Note.md", NOTE.replace("```\n\nThe end", "The end"))
    assert "not closed" in said["problems"][0]["message"]
    assert [one["state"] for one in said["blocks"]] == ["error"]


def test_a_run_from_the_button_to_the_result(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.write("Note.md", NOTE)
    plugin.poll()

    def during(ask: object, progress: object) -> None:
        progress(Progress("two", "loading tiny", 0, 1))  # type: ignore[operator]
        progress(Progress("two", "training", 1, 9, 8.0, 5))  # type: ignore[operator]

    alive.during = during
    reply = plugin.run("Note.md", NOTE)
    assert reply.status == 200
    assert (reply.json["place"], reply.json["why"]) == (1, "asked for by hand")
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["run"] == reply.json["run"]
    alive.settle()
    told = [event for event in plugin.poll() if event["id"] == "two" and event["kind"] != "edit"]
    assert [one["kind"] for one in told] == ["queued", "running", "loading", "running", "done"]
    assert {one["run"] for one in told} == {reply.json["run"]}
    assert {one["path"] for one in told} == {"Note.md"}
    assert [told[3][name] for name in ("phase", "done", "total", "eta_s", "memory_bytes")] == ["training", 1, 9, 8.0, 5]
    (block,) = plugin.plan("Note.md", NOTE)["blocks"]
    assert (block["state"], block["run"]) == ("fresh", None)
    assert block["last"] == {
        "note": "vaultlab/two.md",
        "status": "done",
        "key": block["last"]["key"],
        "verdict": "supported",
        "claims": {"twice = 2": "supported"},
        "headline": {"twice": 2.0},
        "figures": {"plot": "vaultlab/figures/two.plot.svg"},
    }


def test_by_hand_nothing_runs_but_what_is_asked_for(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    plugin.said("POST", "/v1/pace", {"by_hand": True})
    said = plugin.said("GET", "/v1/hello")
    assert (said["by_hand"], len(said["notices"])) == (True, 1)
    alive.save("Note.md", NOTE)
    alive.after(3)
    assert alive.queued == []
    assert plugin.run("Note.md", NOTE).status == 200
    alive.settle()
    assert alive.ran == ["two"]
    plugin.said("POST", "/v1/pace", {"by_hand": False})
    alive.save("Other.md", NOTE.replace("double: two", "double: three"))
    alive.after(3)
    assert alive.queued == ["three"]


def test_a_run_waits_for_the_text_that_it_was_asked_with(faced: Faced, plugin: Plugin) -> None:
    faced.alive.write("Note.md", NOTE)
    typed = NOTE.replace("number: 1", "number: 3")
    reply = plugin.run("Note.md", typed)
    assert (reply.status, faced.alive.queued) == (409, [])
    assert "Save the note" in reply.json["hint"]
    faced.alive.write("Note.md", typed)
    assert plugin.run("Note.md", typed).status == 200
    faced.alive.settle()
    assert [ask.fields["number"] for ask in faced.alive.asked] == [3]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("twice =", "twise =", "twise"),
        ("[experiment]", "[]", "takes no part"),
        ("number: 1", "number: 1\nrun: frozen", "frozen"),
    ],
)
def test_what_cannot_run_is_refused_with_its_mend(faced: Faced, plugin: Plugin, old: str, new: str, said: str) -> None:
    text = NOTE.replace(old, new)
    faced.alive.write("Note.md", text)
    reply = plugin.run("Note.md", text)
    assert (reply.status, faced.alive.queued) == (422, [])
    assert said in reply.json["message"]
    assert reply.json["hint"]


def test_a_run_that_waits_and_one_that_is_under_way_are_cancelled(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.write("Note.md", NOTE)
    plugin.poll()
    waiting = plugin.run("Note.md", NOTE).json["run"]
    assert plugin.said("DELETE", f"/v1/runs/{waiting}") == {"run": waiting, "cancelled": True}
    assert plugin.said("DELETE", f"/v1/runs/{waiting}") == {"run": waiting, "cancelled": False}
    run = plugin.run("Note.md", NOTE).json["run"]

    def during(ask: object, progress: object) -> None:
        plugin.said("DELETE", f"/v1/runs/{run}")
        progress(Progress("two", "training", 1, 9))  # type: ignore[operator]  # it has not noticed yet

    alive.during = during
    alive.settle()
    assert kinds(plugin) == ["queued", "cancelled", "queued", "running", "cancelled"]
    assert not (alive.root / "vaultlab/two.md").exists()
    for unknown in ("99", "x", "0", "9" * 40):
        assert plugin.ask("DELETE", f"/v1/runs/{unknown}").status == 404


def test_what_goes_wrong_is_told_with_its_line_and_mend(faced: Faced, plugin: Plugin) -> None:
    faced.alive.answer = lambda ask, _: Refusal(ask.id, "Too many.", "Take fewer.", "number")
    faced.alive.write("Note.md", NOTE)
    plugin.poll()
    plugin.run("Note.md", NOTE)
    faced.alive.settle()
    (failed,) = [event for event in plugin.poll() if event["kind"] == "failed"]
    assert failed["problem"] == {"message": "Too many.", "hint": "Take fewer.", "line": 8, "field": None}
    (block,) = plugin.plan("Note.md", NOTE)["blocks"]
    assert (block["state"], block["last"]["status"]) == ("failed", "failed")


def test_an_edit_of_a_fresh_block_is_told_stale_and_superseded(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    alive.settle()
    alive.daemon.changes.add("vaultlab/two.md")
    alive.after(1)
    plugin.poll()
    alive.save("Note.md", alive.read("Note.md").replace("number: 1", "number: 2"))
    alive.after(2)
    alive.save("Note.md", alive.read("Note.md").replace("number: 2", "number: 3"))
    alive.after(2)
    told = [(event["kind"], event["why"]) for event in plugin.poll() if event["id"] == "two"]
    assert told == [
        ("stale", "number 1 → 2"),
        ("queued", "number 1 → 2"),
        ("superseded", "The block asks something else now."),
        ("queued", "number 1 → 3"),
    ]


def test_who_waits_is_told_behind_whom(faced: Faced, plugin: Plugin) -> None:
    texts = {f"n{at}.md": NOTE.replace("double: two", f"double: b{at}") for at in range(3)}
    for name, text in texts.items():
        faced.alive.write(name, text)
    said = [plugin.run(name, text, f"b{at}").json for at, (name, text) in enumerate(texts.items())]
    assert [one["place"] for one in said] == [1, 2, 3]
    assert "behind 2 others" in said[2]["why"]
    plugin.poll()
    plugin.said("DELETE", f"/v1/runs/{said[0]['run']}")
    moved = [(event["id"], event["place"]) for event in plugin.poll() if event["kind"] == "queued"]
    assert moved == [("b1", 1), ("b2", 2)]


def test_figures_and_data_outlive_the_daemon(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    alive.settle()
    key = plugin.plan("Note.md", NOTE)["blocks"][0]["last"]["key"]
    faced.data[key] = {"by head": [1, 2]}
    alive.restart()
    figure = plugin.said("GET", "/v1/blocks/two/artifacts/plot")
    assert (figure["kind"], base64.b64decode(figure["content"]), figure["alt"]) == ("svg", b"<svg>1.0</svg>", "a line")
    data = plugin.said("GET", "/v1/blocks/two/artifacts/data")
    assert (data["kind"], json.loads(base64.b64decode(data["content"]))) == ("json", {"by head": [1, 2]})
    faced.data.clear()
    for unknown in ("two/artifacts/data", "two/artifacts/none", "nobody/artifacts/plot", "nobody/artifacts/data"):
        assert plugin.ask("GET", f"/v1/blocks/{unknown}").status == 404


def test_an_edit_that_is_made_and_seen_before_it_is_said_is_settled(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    plugin.poll()
    alive.settle()
    (edit,) = plugin.edits()
    assert plugin.outcome(edit, "taken") == 200
    assert plugin.outcome(edit, "taken") == 409, "once"
    alive.save("Note.md", bench.made(edit, NOTE))
    alive.after(2)
    assert Journal(alive.root).owed() == {}, "it is on the disk"
    assert plugin.outcome(edit, "applied") == 200
    assert plugin.outcome(edit, "applied") == 404
    alive.settle()
    assert alive.read("Note.md") == bench.made(edit, NOTE)


def test_an_edit_that_nobody_wants_any_more_is_not_taken(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    plugin.poll()
    alive.settle()
    (edit,) = plugin.edits()
    alive.save("Note.md", NOTE + "\n![[vaultlab/two]]\n")
    alive.after(2)
    assert plugin.outcome(edit, "taken") == 409
    assert plugin.edits() == []


def test_the_embed_comes_back_when_its_author_runs_the_very_block(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    plugin.poll()
    alive.settle()
    (edit,) = plugin.edits()
    plugin.outcome(edit, "taken")
    alive.save("Note.md", bench.made(edit, NOTE))
    plugin.outcome(edit, "applied")
    alive.save("Note.md", NOTE)
    alive.settle()
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["edit"] is None, "what was deleted stays deleted"
    assert plugin.edits() == []
    plugin.run("Note.md", NOTE)
    alive.settle()
    (again,) = plugin.edits()
    assert bench.made(again, NOTE) == bench.made(edit, NOTE)
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["edit"] == again


def test_an_environment_that_fails_is_told_and_can_be_run_again(faced: Faced, plugin: Plugin) -> None:
    faced.alive.answer = lambda ask, _: Failure(ask.id, "environment", "No memory.", "Close something.")
    plugin.poll()
    faced.alive.save("Note.md", NOTE)
    faced.alive.settle()
    assert kinds(plugin)[-1] == "failed"
    faced.alive.answer = answer
    assert plugin.run("Note.md", NOTE).status == 200
    faced.alive.settle()
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["state"] == "fresh"


def test_a_worker_that_does_not_answer_holds_up_no_plan(alive: Alive) -> None:
    trust.trust(alive.root)
    answers = threading.Event()

    def late(ask: object) -> tuple[Refusal, ...]:
        answers.wait(60)
        return (Refusal("two", "Too many."),)

    with serving(alive.daemon, Worker(lambda: {}, lambda key: None, late)) as server:
        plugin = Faced(alive, server, {}, []).pair()
        fences = NOTE.partition("A claim.")[2]
        many = NOTE + "".join(fences.replace("two", f"more-{number}") for number in range(40))
        plugin.poll()
        assert {block["state"] for block in plugin.plan("Note.md", many)["blocks"]} == {"missing"}
        answers.set()
        assert eventually(lambda: [one["path"] for one in plugin.poll() if one["kind"] == "plan"] == ["Note.md"])
        assert eventually(lambda: plugin.plan("Note.md", NOTE)["blocks"][0]["state"] == "error")


def test_a_link_out_of_the_vault_is_no_note(faced: Faced, plugin: Plugin) -> None:
    outside = faced.alive.root.parent / "outside"
    outside.mkdir()
    (outside / "Note.md").write_text(NOTE)
    (faced.alive.root / "Linked").symlink_to(outside)
    (faced.alive.root / "Link.md").symlink_to(outside / "Note.md")
    for path in ("Linked/Note.md", "Link.md"):
        for method, body in (
            ("/v1/plan", {"path": path, "text": NOTE}),
            ("/v1/runs", {"path": path, "id": "two", "block_sha256": "0" * 64}),
        ):
            reply = plugin.ask("POST", method, body)
            assert reply.status == 422, (path, method, reply.body)
            assert "outside" not in reply.body.decode()
    os.unlink(faced.alive.root / "Linked")


def test_results_are_no_notes(plugin: Plugin) -> None:
    assert plugin.ask("POST", "/v1/plan", {"path": "vaultlab/two.md", "text": NOTE}).status == 422
