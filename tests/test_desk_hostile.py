"""The real daemon behind the real door: what strangers, pages, replays, paths and hostile notes get out of it."""

import base64
import json
import os
import re
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from tests import faced as bench
from tests.faced import Faced, Plugin
from tests.http_client import Reply
from tests.notes.corpus import cases
from tests.test_pipeline import NOTE
from vaultlab import trust
from vaultlab.desk import Desk, Worker
from vaultlab.gate import BODY_BYTES
from vaultlab.notes.parse import parse
from vaultlab.pairing import COMMAND_LINE
from vaultlab.protocol import ENDPOINTS, Edit, PlanAsk
from vaultlab.vault.journal import Journal

alive, faced, plugin = bench.alive, bench.faced, bench.plugin
SECRET = "the secret of the house"
BODIES: dict[str, Any] = {
    "pair": {"name": "x"},
    "plan": {"path": "Note.md", "text": NOTE},
    "run": {"path": "Note.md", "id": "two", "block_sha256": "0" * 64},
    "edit": {"outcome": "taken"},
    "trust": {"trusted": False},
}
VERBS = [
    (one.method, re.sub(r"{(\w+)}", "two", one.path), BODIES.get(one.verb))
    for one in ENDPOINTS
    if one.verb != "openapi"
]


def nothing_learnt(faced: Faced, reply: Reply) -> None:
    assert not reply.signed
    assert reply.status in (401, 403)
    assert reply.json == {"message": "Refused.", "hint": "", "line": None, "field": None}
    assert trust.trusted(faced.alive.root), "nor done"
    assert faced.alive.queued == []


@pytest.mark.parametrize(("method", "target", "body"), VERBS)
def test_every_word_of_the_protocol_is_shut_to_strangers(
    faced: Faced, plugin: Plugin, method: str, target: str, body: object
) -> None:
    faced.alive.write("Note.md", NOTE)
    own, key = plugin.client, bytes(32)
    content = json.dumps(body).encode() if body else b""
    host = {"Host": f"127.0.0.1:{own.port}"}
    nothing_learnt(faced, own.send(method, target, content, host))
    for stranger in (replace(own, key=key), replace(own, device=COMMAND_LINE), replace(own, device="12" * 16)):
        nothing_learnt(faced, stranger.ask(method, target, body))
    for name, value in (
        ("Host", "evil.example"),
        ("Host", f"evil.example:{own.port}"),
        ("Origin", "https://evil.example"),
    ):
        nothing_learnt(faced, own.ask(method, target, body, **{name: value}))


def test_a_request_that_is_replayed_many_times_is_one_run(faced: Faced, plugin: Plugin) -> None:
    faced.alive.write("Note.md", NOTE)
    (block,) = plugin.plan("Note.md", NOTE)["blocks"]
    body = json.dumps({"path": "Note.md", "id": "two", "block_sha256": block["sha256"]}).encode()
    headers, found = plugin.client.headers("POST", "/v1/runs", body), []
    threads = [
        threading.Thread(target=lambda: found.append(plugin.client.send("POST", "/v1/runs", body, headers).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200, *[401] * 7]
    faced.alive.settle()
    assert faced.alive.ran == ["two"]
    assert plugin.client.send("POST", "/v1/runs", body, headers).status == 401, "nor when it has ended"
    for forged in (body.replace(b"two", b"owt"), body + b" "):
        assert plugin.client.send("POST", "/v1/runs", forged, headers).status == 401


@pytest.mark.parametrize("option", [socket.SO_REUSEADDR, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_nobody_can_sit_down_on_the_daemons_port(faced: Faced, option: int, host: str) -> None:
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, option, 1)
        with pytest.raises(OSError, match="in use"):  # where it may be bound, it may not be listened on
            _ = squatter.bind((host, faced.server.port)), squatter.listen()


def test_what_is_said_in_the_vault_holds_no_secret(faced: Faced, plugin: Plugin) -> None:
    said = bench.presence_file(faced.alive.root).read_text()
    assert set(json.loads(said)) == {"protocol", "port", "pid", "machine", "since", "beat"}
    assert plugin.client.device not in said
    assert plugin.client.key.hex() not in said


# Paths

ESCAPES = [
    *("../outside/Note.md", "a/../../outside/Note.md", "/etc/passwd.md", "//etc/x.md", "./Note.md", "a//b.md", ".md"),
    *("..\\outside\\Note.md", "C:\\x.md", "a\\b.md", "%2e%2e/outside/Note.md", "..%2foutside%2fNote.md"),
    *(".obsidian/x.md", "a/.hidden.md", ".trash/x.md", "a\0.md", "a\n.md", "Note.md/", "Note.md\n", "Note", "", " "),
    *("\uff0e\uff0e/outside/Note.md", "\u2024\u2024/outside/Note.md", "..\u2215outside/Note.md", "C:/x.md", "~/x.md"),
    *("a" * 300 + ".md", "ä" * 200 + ".md", "a/" * 400 + "a.md", "a" * 2000 + ".md", "Note.md\u202e"),
]


NO_ARTIFACTS = [
    *("../x", "..", "a/../b", "%2e%2e", "..%2f..%2fsecret", "two%00", "two\\..", "TWO", "-two", "two.svg", ""),
    *("two/artifacts/../../secret", "two/artifacts/%2e%2e%2fsecret", "two/artifacts/plot.svg", "two/artifacts/Plot"),
    *("two/artifacts/plot/../plot", "two/artifacts/..", "two//artifacts/plot", "two/artifacts/plot?x=1"),
]


def test_no_path_leads_out_of_the_vault(faced: Faced, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaultlab.desk.SAVED_S", 0.0)
    outside = faced.alive.root.parent / "outside"
    outside.mkdir()
    (outside / "Note.md").write_text(NOTE.replace("A claim.", SECRET))
    (block,) = plugin.plan("Note.md", NOTE)["blocks"]
    for path in ESCAPES:
        planned = plugin.ask("POST", "/v1/plan", {"path": path, "text": NOTE})
        assert planned.status in (200, 400, 422), path
        run = plugin.ask("POST", "/v1/runs", {"path": path, "id": "two", "block_sha256": block["sha256"]})
        assert run.status in (400, 409, 422), path
        assert SECRET.encode() not in planned.body + run.body, path
    assert faced.alive.queued == []
    assert not [path for path in faced.alive.root.rglob("*") if path.suffix == ".md"]


def test_no_artifact_leads_out_of_its_results(faced: Faced, plugin: Plugin) -> None:
    faced.alive.save("Note.md", NOTE)
    faced.alive.settle()
    (faced.alive.root.parent / "secret.svg").write_text(SECRET)
    assert plugin.ask("GET", "/v1/blocks/two/artifacts/plot").status == 200
    for words in NO_ARTIFACTS:
        reply = plugin.ask("GET", f"/v1/blocks/{words}")
        assert reply.status in (400, 404), words
        assert SECRET.encode() not in reply.body, words


def test_a_result_note_that_a_stranger_wrote_leads_nowhere(faced: Faced, plugin: Plugin) -> None:
    """Results come with a synced vault: neither its figures nor its key may open another file."""
    alive = faced.alive
    alive.save("Note.md", NOTE)
    alive.settle()
    secret = alive.root.parent / "two.secret.svg"
    secret.write_text(SECRET)
    page = alive.page()
    hostile = page.replace("figures/two.plot.svg", "../../two.secret.svg")
    hostile = re.sub(r'lab_key: "[^"]*"', 'lab_key: "../../../../etc"', hostile)
    (alive.root / "vaultlab/two.md").write_text(hostile)
    for name in ("plot", "secret"):
        assert plugin.ask("GET", f"/v1/blocks/two/artifacts/{name}").status == 404
    last = plugin.plan("Note.md", NOTE)["blocks"][0]["last"]
    assert last["figures"] == {}
    # Nor may a link in the place of what is ours.
    (alive.root / "vaultlab/two.md").write_text(page)
    figure = alive.root / "vaultlab/figures/two.plot.svg"
    figure.unlink()
    figure.symlink_to(secret)
    reply = plugin.ask("GET", "/v1/blocks/two/artifacts/plot")
    assert reply.status in (404, 422)
    assert SECRET.encode() not in base64.b64decode(reply.json.get("content", "")) + reply.body
    (alive.root / "vaultlab/two.md").unlink()
    os.symlink(secret, alive.root / "vaultlab/two.md")
    for target in ("/v1/blocks/two/artifacts/plot", "/v1/blocks/two/artifacts/data"):
        assert plugin.ask("GET", target).status in (404, 422)
    assert plugin.ask("POST", "/v1/plan", {"path": "Note.md", "text": NOTE}).status in (200, 422)


# Bodies


@pytest.mark.parametrize(("method", "target", "body"), [one for one in VERBS if one[2] and "pair" not in one[1]])
def test_a_body_that_is_not_as_the_protocol_says_is_told_so(
    faced: Faced, plugin: Plugin, method: str, target: str, body: dict[str, Any]
) -> None:
    wrong: list[bytes] = [b"", b"{", b"[]", b"null", b"\xff", b'{"a": NaN}', b"{}", b"[" * 50_000]
    wrong += [json.dumps({**body, name: value}).encode() for name in body for value in (None, 5, [], {"a": 1}, 1.5)]
    wrong += [json.dumps({**body, "extra": 1}).encode(), json.dumps(body).encode() + b"x"]
    for content in wrong:
        reply = plugin.ask(method, target, content) if content else plugin.client.ask(method, target, b" ")
        assert (reply.status, reply.signed) == (400, True), content[:40]
    assert trust.trusted(faced.alive.root)


def test_a_body_that_is_too_large_is_not_read(faced: Faced, plugin: Plugin) -> None:
    text = "x" * (BODY_BYTES - 100)
    assert plugin.ask("POST", "/v1/plan", {"path": "a.md", "text": text}).status == 200
    with suppress(ConnectionError):  # the door shuts while it is still coming
        reply = plugin.client.ask("POST", "/v1/plan", {"path": "a.md", "text": text + "x" * 100})
        assert (reply.status, reply.signed) == (413, False)
    assert plugin.said("GET", "/v1/hello")


# Notes


def test_of_every_note_of_the_corpus_the_plan_and_its_edits_are_the_splices_own(faced: Faced) -> None:
    """What a plugin is given to insert makes the very note that the splice makes."""
    desk = Desk(faced.alive.daemon, Worker(lambda: {}, lambda key: None))
    journal, seen = Journal(faced.alive.root), 0
    for case in cases():
        head = "" if case.note.startswith(("---", "\ufeff")) else "---\ntags: [experiment]\n---\n"
        text = head + case.note
        planned = desk.plan(PlanAsk(path="Case.md", text=text))
        assert len(planned.blocks) == len(parse(text).blocks), case.title
        if not planned.takes_part or planned.problems or case.after is None:
            continue
        ids = [block.id for block in planned.blocks]
        for id in filter(None, ids):
            journal.owe(id, "Case.md")
        for _ in ids:  # one after the other, as each makes the text another one
            edit = next((one.edit for one in desk.plan(PlanAsk(path="Case.md", text=text)).blocks if one.edit), None)
            text = applied(edit, text) if edit else text
            seen += edit is not None
        for id in filter(None, ids):
            journal.paid(id)
        if all(block.id for block in parse(case.note).blocks):  # the corpus calls one without an id `auto`
            assert text == head + case.after, case.title
    assert seen > 20


def applied(edit: Edit, text: str) -> str:
    return bench.made(edit.model_dump(), text)


def test_a_plugin_that_asks_much_at_once_holds_nobody_up(faced: Faced, plugin: Plugin) -> None:
    """Plans beside polls that wait: all are answered."""
    found: list[int] = []

    def plan(number: int) -> None:
        text = NOTE.replace("number: 1", f"number: {number}")
        found.append(plugin.ask("POST", "/v1/plan", {"path": "Note.md", "text": text}).status)

    def poll() -> None:
        found.append(plugin.ask("GET", f"/v1/events?after={faced_last}&wait=20").status)

    faced_last = plugin.said("GET", "/v1/hello")["last"]
    threads = [threading.Thread(target=poll) for _ in range(4)]
    threads += [threading.Thread(target=plan, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    begun = time.monotonic()
    while sum(status == 200 for status in found) < 8:
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    faced.alive.save("Note.md", NOTE)
    faced.alive.after(3)
    for thread in threads:
        thread.join(60)
    assert found == [200] * 12
