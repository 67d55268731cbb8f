"""The daemon's face, over real sockets on loopback: what it answers to those who are paired, and nothing to others."""

import http.client
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from tests import served
from tests.http_client import Client
from tests.served import RUN, Clock, Daemon
from vaultlab.errors import NoteError, RunError, VaultError
from vaultlab.pairing import COMMAND_LINE, Pairings
from vaultlab.server import CONNECTED_S, serve

standing, house, build = served.standing, served.house, served.build


@pytest.mark.parametrize(
    ("method", "target", "body", "heard"),
    [
        ("GET", "/v1/hello", None, ("hello",)),
        ("GET", "/v1/experiments", None, ("experiments",)),
        ("POST", "/v1/plan", {"path": "Ä/ü.md", "text": "# 𝔸\r\n"}, ("plan", "Ä/ü.md", "# 𝔸\r\n")),
        ("POST", "/v1/runs", RUN, ("run", *RUN.values())),
        ("DELETE", "/v1/runs/r1", None, ("cancel", "r1")),
        ("POST", "/v1/edits/e1", {"outcome": "conflict"}, ("edit", "e1", "conflict")),
        ("GET", "/v1/blocks/pentagon/artifacts/weights", None, ("artifact", "pentagon", "weights")),
        ("POST", "/v1/trust", {"trusted": True}, ("trust", True)),
        ("POST", "/v1/pace", {"by_hand": True}, ("pace", True)),
    ],
)
def test_every_verb_is_asked_and_its_answer_signed(house, method, target, body, heard):
    reply = house.client.ask(method, target, body)
    assert (reply.status, reply.signed, house.daemon.said) == (200, True, [heard])
    assert reply.headers["content-type"] == "application/json"
    assert not [name for name in reply.headers if name.lower().startswith("access-control") or name.lower() == "server"]


def test_it_listens_on_this_machine_only(house):
    host, port = house.server._socket.getsockname()
    assert (host, port) == ("127.0.0.1", house.port)


def test_a_keyed_command_line_needs_no_code(house):
    key = house.pairings.own_key(time.time())
    assert Client(house.port, COMMAND_LINE, key).ask("GET", "/v1/hello").signed


def test_a_kept_connection_serves_many_requests(house):
    connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=10)
    for _ in range(3):
        connection.putrequest("GET", "/v1/hello", skip_host=True)
        for name, value in house.client.headers("GET", "/v1/hello").items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
    connection.close()


# What the daemon says no to


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoteError("No.", "Mend it.", field="id", line=3), 422),
        (VaultError("It changed.", "Save it."), 409),
        (RunError("Full.", "Make room."), 503),
    ],
)
def test_an_error_of_the_daemons_is_a_sentence_with_its_mend(house, error, status):
    house.daemon.raises = error
    reply = house.client.ask("POST", "/v1/runs", RUN)
    assert (reply.status, reply.signed) == (status, True)
    assert (reply.json["message"], reply.json["hint"]) == (error.message, error.hint)
    assert (reply.json["line"], reply.json["field"]) == ((3, "id") if status == 422 else (None, None))


def test_a_fault_of_ours_is_logged_and_not_told(house, caplog):
    house.daemon.raises = ZeroDivisionError("a secret")
    reply = house.client.ask("POST", "/v1/runs", RUN)
    assert (reply.status, reply.signed) == (500, True)
    assert b"secret" not in reply.body
    assert "a secret" in caplog.text
    house.daemon.raises = None
    assert house.client.ask("POST", "/v1/runs", RUN).status == 200


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("DELETE", "/v1/runs/r2", None),
        ("POST", "/v1/edits/e2", {"outcome": "applied"}),
        ("GET", "/v1/blocks/pentagon/artifacts/none", None),
    ],
)
def test_what_the_daemon_does_not_know(house, method, target, body):
    reply = house.client.ask(method, target, body)
    assert (reply.status, reply.signed) == (404, True)


def test_refusals_are_logged_with_their_reason_on_one_line(house, caplog):
    house.client.ask("GET", "/v1/%0aforged", Host="evil.example")
    replace(house.client, key=bytes(32)).ask("GET", "/v1/hello")
    lines = [record.getMessage() for record in caplog.records if record.name == "vaultlab.server"]
    assert [line.split(": ")[-1] for line in lines] == ["another host was meant", "signed with no key that is paired"]
    assert not any("\n" in line for line in lines)


# Events


def test_a_poll_is_answered_as_soon_as_something_happens(house):
    feed = house.daemon.feed
    timer = threading.Timer(0.2, feed.tell, ("running",), {"run": "r1", "done": 3, "total": 9})
    timer.start()
    begun = time.monotonic()
    reply = house.client.ask("GET", f"/v1/events?after={feed.last}&wait=20")
    took = time.monotonic() - begun
    timer.join()
    assert reply.signed
    assert [(one["number"], one["run"], one["done"]) for one in reply.json["events"]] == [(feed.last, "r1", 3)]
    assert 0.15 < took < 10


def test_what_has_happened_is_told_at_once_and_once(house):
    feed = house.daemon.feed
    start = feed.last
    for done in (1, 2, 3):
        feed.tell("running", run="r1", done=done)
    said = house.client.ask("GET", f"/v1/events?after={start}&wait=20").json
    assert [one["done"] for one in said["events"]] == [1, 2, 3]
    assert house.client.ask("GET", f"/v1/events?after={said['last']}&wait=0").json["events"] == []


def test_a_number_of_another_epoch_is_not_waited_with(house):
    said = house.client.ask("GET", f"/v1/events?after={16 * 'f'}.9&wait=20").json
    assert (said["missed"], said["last"]) == (True, house.daemon.feed.last)


def test_a_poll_ends_when_its_time_is_up(house):
    last = house.daemon.feed.last
    begun = time.monotonic()
    said = house.client.ask("GET", f"/v1/events?after={last}&wait=1").json
    assert said == {"last": last, "missed": False, "events": []}
    assert time.monotonic() - begun >= 0.99


def test_no_event_is_lost_between_polls(house):
    """Someone polls while events pour in: each is told once, in order."""
    feed, found = house.daemon.feed, []
    last = feed.last
    pouring = threading.Thread(target=lambda: [feed.tell("running", done=done) for done in range(300)])
    pouring.start()
    while len(found) < 300:
        said = house.client.ask("GET", f"/v1/events?after={last}&wait=20").json
        assert said["events"], "twenty seconds without an event"
        last = said["last"]
        found += [one["done"] for one in said["events"]]
    pouring.join()
    assert found == list(range(300))


def test_an_event_that_happens_while_the_server_looks_is_not_slept_over(tmp_path):
    daemon, pairings = Daemon(), Pairings(tmp_path)
    begin = daemon.feed.last

    def looked_too_early(number):
        found = daemon.feed.after(number)
        if daemon.feed.last == begin:
            daemon.feed.tell("running", run="r1")
        return found

    server = serve(replace(daemon.verbs, events=looked_too_early), pairings)
    daemon.feed.wake = server.wake
    client = Client(server.port, COMMAND_LINE, pairings.own_key(time.time()))
    begun = time.monotonic()
    said = client.ask("GET", f"/v1/events?after={begin}&wait=20").json
    server.stop()
    assert [event["run"] for event in said["events"]] == ["r1"]
    assert time.monotonic() - begun < 15


def test_polls_do_not_hold_up_other_requests(house):
    feed = house.daemon.feed
    poll = ("GET", f"/v1/events?after={feed.last}&wait=20")
    threads = [threading.Thread(target=house.client.ask, args=poll) for _ in range(48)]
    for thread in threads:
        thread.start()
    assert house.client.ask("GET", "/v1/hello").status == 200
    assert any(thread.is_alive() for thread in threads), "they wait, and it was answered all the same"
    feed.tell("running", run="r1")
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def test_a_plugin_is_connected_while_it_polls(build):
    clock = Clock()
    house = build(clock)

    def client(of):
        return replace(of, time_ms=int(clock.now * 1000))

    assert not house.server.connected()
    client(house.client).ask("GET", "/v1/hello")
    own = Client(house.port, COMMAND_LINE, house.pairings.own_key(clock.now))
    assert client(own).ask("GET", "/v1/events").status == 200
    assert not house.server.connected(), "the command line cannot make edits in an editor"
    client(house.client).ask("GET", "/v1/events")
    clock.now += CONNECTED_S - 1
    assert house.server.connected()
    clock.now += 2
    assert not house.server.connected()


# Beginning and end


def test_it_stops_within_seconds_and_answers_who_waits(build):
    house, found = build(), []
    poll = f"/v1/events?after={house.daemon.feed.last}&wait=25"
    waiting = threading.Thread(target=lambda: found.append(house.client.ask("GET", poll)))
    waiting.start()
    time.sleep(0.3)
    begun = time.monotonic()
    house.server.stop()
    waiting.join(10)
    assert time.monotonic() - begun < 10
    assert [(reply.status, reply.signed) for reply in found] == [(200, True)]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", house.port), timeout=5)
    house.server.stop()
    house.server.wake()


def test_a_connection_left_open_does_not_hold_up_the_end(build):
    house = build()
    with socket.create_connection(("127.0.0.1", house.port)) as wire:
        wire.sendall(b"POST /v1/plan HTTP/1.1\r\n")
        begun = time.monotonic()
        house.server.stop()
        assert time.monotonic() - begun < 10


def test_the_command_line_starts_without_it():
    code = "import sys, vaultlab.cli; print({'starlette', 'uvicorn', 'anyio'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"
