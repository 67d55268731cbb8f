"""Who may ask the daemon, over real sockets on loopback: strangers, pages and replays learn nothing."""

import json
import logging
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from tests import served
from tests.http_client import Client, pair
from tests.served import RUN, Clock
from vaultlab import gate
from vaultlab.gate import BODY_BYTES, SKEW_MS
from vaultlab.pairing import COMMAND_LINE, TRIES

standing, house, build = served.standing, served.house, served.build


# Strangers


def refused(house, reply, status=401):
    """A refusal: not a word more than that, unsigned, and no verb was asked."""
    assert (reply.status, reply.signed, house.daemon.said) == (status, False, [])
    assert reply.json == {"message": "Refused.", "hint": "", "line": None, "field": None}
    assert {name.lower() for name in reply.headers} == {
        "cache-control",
        "x-content-type-options",
        "content-length",
        "content-type",
        "connection",
    }


def late(house, reply, apart):
    """Whoever has proved the key is told that a clock is wrong, and no verb was asked."""
    assert (reply.status, reply.signed, house.daemon.said) == (401, True, [])
    said = f"The clock of this device and the daemon's are {apart} apart."
    assert reply.json == {"message": said, "hint": "Set whichever is wrong.", "line": None, "field": None}


ENDPOINTS = [
    ("GET", "/v1/hello"),
    ("GET", "/v1/openapi.json"),
    ("POST", "/v1/plan"),
    ("POST", "/v1/pair"),
    ("GET", "/v1/nothing"),
    ("PATCH", "/"),
    ("OPTIONS", "/v1/hello"),
    ("GET", "/v1/../../etc/passwd"),
]


@pytest.mark.parametrize(("method", "target"), ENDPOINTS)
def test_who_does_not_sign_learns_nothing_not_even_what_there_is(house, method, target):
    headers = {"Host": f"127.0.0.1:{house.port}"}
    refused(house, house.client.send(method, target, b"", headers))


@pytest.mark.parametrize(("method", "target"), ENDPOINTS)
def test_who_signs_with_another_key_learns_nothing(house, method, target):
    refused(house, replace(house.client, key=bytes(32)).ask(method, target))


@pytest.mark.parametrize(("method", "target"), ENDPOINTS)
def test_a_device_that_is_not_paired_learns_nothing(house, method, target):
    refused(house, replace(house.client, device="12" * 16).ask(method, target))


@pytest.mark.parametrize("name", ["Protocol", "Device", "Time", "Nonce", "Mac"])
def test_a_header_that_lacks_is_twice_or_malformed_is_refused(house, name):
    for value in (None, "", "x", "é"):
        refused(house, house.client.ask("GET", "/v1/hello", **{f"X_Vaultlab_{name}": value}))
    headers = house.client.headers("GET", "/v1/hello")
    headers[f"x-vaultlab-{name.lower()}"] = headers[f"X-Vaultlab-{name}"]
    refused(house, house.client.send("GET", "/v1/hello", b"", headers))


def test_a_request_that_was_forged_on_its_way_is_refused(house):
    body = json.dumps({"path": "a.md", "text": ""}).encode()
    headers = house.client.headers("POST", "/v1/plan", body)
    refused(house, house.client.send("POST", "/v1/plan", body.replace(b"a.md", b"b.md"), headers))
    refused(house, house.client.send("POST", "/v1/runs", body, headers))
    refused(house, house.client.send("PUT", "/v1/plan", body, headers))
    refused(house, house.client.send("POST", "/v1/plan?x=1", body, headers))
    refused(house, house.client.send("POST", "/v1/plan", body, {**headers, "X-Vaultlab-Nonce": "0" * 32}))
    later = str(int(headers["X-Vaultlab-Time"]) + 1)
    refused(house, house.client.send("POST", "/v1/plan", body, {**headers, "X-Vaultlab-Time": later}))
    assert house.client.send("POST", "/v1/plan", body, headers).status == 200, "as it was signed, it is good"


def test_a_request_is_good_once(house):
    headers = house.client.headers("DELETE", "/v1/runs/r1")
    assert house.client.send("DELETE", "/v1/runs/r1", b"", headers).status == 200
    house.daemon.said.clear()
    for _ in range(2):
        refused(house, house.client.send("DELETE", "/v1/runs/r1", b"", headers))


def test_of_a_request_replayed_at_once_many_times_one_is_taken(house):
    headers, found = house.client.headers("DELETE", "/v1/runs/r1"), []

    def send():
        found.append(house.client.send("DELETE", "/v1/runs/r1", b"", headers).status)

    threads = [threading.Thread(target=send) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200, *[401] * 11]


def test_two_devices_may_draw_the_same_nonce(house):
    own = Client(house.port, COMMAND_LINE, house.pairings.own_key(time.time()), nonce="77" * 16)
    assert own.ask("GET", "/v1/hello").status == 200
    assert replace(house.client, nonce="77" * 16).ask("GET", "/v1/hello").status == 200


def test_an_answer_is_no_request(house):
    """The signature that the daemon gave to an answer is sent back to it as that of a request."""
    asked = house.client.headers("POST", "/v1/edits/e1", b'{"outcome": "applied"}')
    answer = house.client.send("POST", "/v1/edits/e1", b'{"outcome": "applied"}', asked)
    assert answer.signed
    house.daemon.said.clear()
    for body in (answer.body, b'{"outcome": "applied"}', b""):
        for nonce in (asked["X-Vaultlab-Nonce"], secrets.token_hex(16)):
            forged = {**asked, "X-Vaultlab-Nonce": nonce, "X-Vaultlab-Mac": answer.headers["x-vaultlab-mac"]}
            refused(house, house.client.send("POST", "/v1/edits/e1", body, forged))


def test_an_answer_to_one_request_is_none_to_another(house):
    one, other = (replace(house.client, nonce=secrets.token_hex(16)) for _ in range(2))
    first, second = one.ask("GET", "/v1/hello"), other.ask("GET", "/v1/hello")
    assert first.body == second.body
    assert first.headers["x-vaultlab-mac"] != second.headers["x-vaultlab-mac"]


@pytest.mark.parametrize(
    ("ahead_ms", "apart"),
    [(-SKEW_MS - 1, "60 s"), (SKEW_MS + 1, "60 s"), (-95_000, "2 min"), (170_000, "3 min"), (-(10**9), "16667 min")],
)
def test_a_clock_that_is_too_far_off_is_refused_and_told_to_who_has_the_key(build, ahead_ms, apart):
    clock = Clock()
    house = build(clock)
    clock.now += 200
    client = replace(house.client, time_ms=int(clock.now * 1000) + ahead_ms)
    late(house, client.ask("GET", "/v1/hello"), apart)
    for stranger in (replace(client, key=bytes(32)), replace(client, device="12" * 16)):
        refused(house, stranger.ask("GET", "/v1/hello"))
    near = (SKEW_MS - 1) * (1 if ahead_ms > 0 else -1)
    assert replace(client, time_ms=int(clock.now * 1000) + near).ask("GET", "/v1/hello").status == 200


@pytest.mark.parametrize("later_s", [0, 59, 61, 119, 121, 3600])
@pytest.mark.parametrize("ahead_ms", [0, SKEW_MS])
def test_a_replay_is_refused_however_long_one_waits(build, later_s, ahead_ms):
    clock = Clock()
    house = build(clock)
    headers = replace(house.client, time_ms=int(clock.now * 1000) + ahead_ms).headers("GET", "/v1/hello")
    assert house.client.send("GET", "/v1/hello", b"", headers).status == 200
    house.daemon.said.clear()
    clock.now += later_s
    assert replace(house.client, time_ms=int(clock.now * 1000)).ask("GET", "/v1/hello").status == 200
    house.daemon.said.clear()
    reply, apart_s = house.client.send("GET", "/v1/hello", b"", headers), round(later_s - ahead_ms / 1000)
    if apart_s * 1000 <= SKEW_MS:
        refused(house, reply)
    else:
        late(house, reply, f"{apart_s} s" if apart_s < 90 else f"{round(apart_s / 60)} min")


def test_nonces_are_forgotten_when_their_time_has_passed(build):
    clock = Clock()
    house = build(clock)
    for _ in range(5):
        assert replace(house.client, time_ms=int(clock.now * 1000)).ask("GET", "/v1/hello").status == 200
        clock.now += 200
    assert len(house.server._face._gate._nonces) == 1


def test_a_request_to_a_daemon_that_has_died_is_none_to_the_next(build):
    clock = Clock()
    house = build(clock)
    headers = replace(house.client, time_ms=int(clock.now * 1000)).headers("DELETE", "/v1/runs/r1")
    assert house.client.send("DELETE", "/v1/runs/r1", b"", headers).status == 200
    house.server.stop()
    clock.now += 1
    later = build(clock)
    assert later.pairings.key(house.client.device), "it knows the device"
    there = replace(house.client, port=later.port)
    late(later, there.send("DELETE", "/v1/runs/r1", b"", {**headers, "Host": f"127.0.0.1:{later.port}"}), "1 s")
    assert replace(there, time_ms=int(clock.now * 1000)).ask("DELETE", "/v1/runs/r1").signed


# Pages


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{port}", "127.0.0.1:{port}.evil.example", "127.0.0.1:{port}, evil.example"),
        *("127.0.0.1", "127.0.0.1:1", "[::1]:{port}", "0.0.0.0:{port}", "127.1:{port}", "LOCALHOST.:{port}"),
        *("", "user@127.0.0.1:{port}"),
    ],
)
def test_another_host_is_refused_however_well_it_signs(house, host):
    refused(house, house.client.ask("GET", "/v1/hello", Host=host.format(port=house.port)), 403)


def test_two_hosts_are_refused(house):
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as wire:
        host = f"Host: 127.0.0.1:{house.port}\r\n"
        wire.sendall(f"GET /v1/hello HTTP/1.1\r\n{host}{host}\r\n".encode())
        assert wire.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
    assert house.daemon.said == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_hosts_that_are_meant(house, host):
    assert house.client.ask("GET", "/v1/hello", Host=f"{host}:{house.port}").status == 200


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "null",
            "https://evil.example",
            "http://localhost:8080",
            "https://localhost",
            "http://localhost.evil.example",
        ),
        *("app://obsidian.md.evil.example", "app://obsidian.md, https://evil.example", "APP://OBSIDIAN.MD", "file://"),
        "",
    ],
)
def test_another_origin_is_refused_however_well_it_signs(house, origin):
    refused(house, house.client.ask("GET", "/v1/hello", Origin=origin), 403)


@pytest.mark.parametrize("origin", ["app://obsidian.md", "capacitor://localhost", "http://localhost"])
def test_the_origins_that_are_meant(house, origin):
    reply = house.client.ask("GET", "/v1/hello", Origin=origin)
    assert (reply.status, reply.signed) == (200, True)
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(("version", "side"), [("0", "plugin in Obsidian"), ("2", "vaultlab on this machine")])
def test_another_protocol_is_told_which_side_to_update(house, version, side):
    reply = house.client.ask("GET", "/v1/hello", X_Vaultlab_Protocol=version)
    assert (reply.status, house.daemon.said) == (426, [])
    assert f"version {version} of the protocol, the daemon 1" in reply.json["message"]
    assert f"Update the {side}" in reply.json["hint"] or f"Update {side}" in reply.json["hint"]


# Bodies


@pytest.mark.parametrize(
    ("target", "body", "where"),
    [
        ("/v1/plan", b"", "the body"),
        ("/v1/plan", b"{", "the body"),
        ("/v1/plan", b"\xff\xfe{}", "the body"),
        ("/v1/plan", b'{"path": "a.md", "text": "\\ud800"}', "the body"),
        ("/v1/plan", b"[" * 100_000, "the body"),
        ("/v1/plan", b"[]", "the body"),
        ("/v1/plan", b"null", "the body"),
        ("/v1/plan", {"path": "a.md"}, "text"),
        ("/v1/plan", {"path": "a.md", "text": 1}, "text"),
        ("/v1/plan", {"path": "a.md", "text": "", "code": "print()"}, "code"),
        ("/v1/runs", {**RUN, "block_sha256": "ab"}, "block_sha256"),
        ("/v1/runs", {**RUN, "id": "../x"}, "id"),
        ("/v1/runs", {**RUN, "arguments": ["--device", "cuda"]}, "arguments"),
        ("/v1/runs", {**RUN, "model": "../weights"}, "model"),
        ("/v1/edits/e1", {"outcome": "eaten"}, "outcome"),
    ],
)
def test_a_body_that_is_not_as_the_protocol_says(house, target, body, where):
    reply = house.client.ask("POST", target, body, Content_Type="application/json")
    assert (reply.status, reply.signed, house.daemon.said) == (400, True, [])
    assert reply.json["message"].startswith(f"{where} is not as the protocol says: ")


PATHS = [
    *(
        "/etc/passwd.md",
        "../a.md",
        "a/../../b.md",
        "a/..",
        "..",
        "",
        ".",
        "/",
        "a//b.md",
        "a/./b.md",
        "./a.md",
        "a.txt",
    ),
    *(".obsidian/plugins/x.md", ".vaultlab/a.md", "a/.trash/b.md", ".md", "a/.md", "a.md/", "~/../a.md"),
    *("..\\a.md", "a\\..\\..\\b.md", "\\a.md", "\\\\box\\share\\a.md", "C:\\a.md"),
    *("a.md\0.txt", "a\0/../b.md", "a.md\n", "\u202e/../a.md", "x" * 1001 + ".md"),
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_vault_or_to_what_is_hidden_there(house, path):
    for target, body in (("/v1/plan", {"path": path, "text": ""}), ("/v1/runs", {**RUN, "path": path})):
        reply = house.client.ask("POST", target, body)
        assert (reply.status, reply.signed, house.daemon.said) == (400, True, [])
        assert reply.json["message"].startswith("path is not")


@pytest.mark.parametrize(
    "path", ["%2e%2e/a.md", "%2e%2e%2fa.md", "%252e%252e/a.md", "\uff0e\uff0e/a.md", "\uff0f..a.md"]
)
def test_nothing_in_a_path_is_decoded(house, path):
    reply = house.client.ask("POST", "/v1/plan", {"path": path, "text": ""})
    assert (reply.status, house.daemon.said) == (200, [("plan", path, "")]), "a strange name, but a name"


@pytest.mark.parametrize(
    "target",
    [
        *("/v1/runs/r1/artifacts/..", "/v1/runs/r1/artifacts/../weights", "/v1/runs/r1/artifacts/%2e%2e"),
        *("/v1/runs/r1/artifacts/..%2f..%2fpasswd", "/v1/runs/r1/artifacts/%252e%252e", "/v1/runs/r1/artifacts/..%5c"),
        *("/v1/runs/r1/artifacts/%c0%ae%c0%ae", "/v1/runs/r1/artifacts/a%00", "/v1/runs/r1/artifacts/.x"),
        *("/v1/runs/r1/artifacts/a/b", "/v1/runs/r1/artifacts/weights.svg", "/v1/runs/%72%31/artifacts/weights"),
        *("/v1/runs/../runs/r1/artifacts/weights", "/v1/runs//artifacts/weights", "//v1/hello", "/v1/hello/", "/"),
        *("/v1/hello/../hello", "/V1/HELLO", "/v1/hell%6f", "/v1/hello;x=1", "http://127.0.0.1/v1/hello"),
        f"/v1/runs/{'x' * 65}/artifacts/weights",
    ],
)
def test_no_target_escapes_in_any_encoding(house, target):
    reply = house.client.ask("GET", target)
    assert (reply.status, reply.signed, house.daemon.said) == (404, True, [])


@pytest.mark.parametrize(
    ("method", "target"), [("POST", "/v1/hello"), ("HEAD", "/v1/hello"), ("PUT", "/v1/plan"), ("GET", "/v1/runs/r1")]
)
def test_another_method_is_none(house, method, target):
    reply = house.client.ask(method, target)
    assert (reply.status, house.daemon.said) == (405, [])
    assert method not in reply.headers["allow"].split(", ")


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json; charset=utf-16"],
)
def test_json_only(house, kind):
    said, spelt = {"path": "a.md", "text": ""}, "Application/JSON; charset=UTF-8"
    reply = house.client.ask("POST", "/v1/plan", said, Content_Type=kind)
    assert (reply.status, reply.signed, house.daemon.said) == (415, True, [])
    assert house.client.ask("POST", "/v1/plan", said, Content_Type=spelt).status == 200


def test_a_body_where_there_is_none(house):
    assert house.client.ask("GET", "/v1/hello", {"a": 1}).status == 400
    assert house.daemon.said == []


def test_a_body_of_one_mebibyte_and_no_byte_more(house):
    frame = len(json.dumps({"path": "a.md", "text": ""}))
    assert house.client.ask("POST", "/v1/plan", {"path": "a.md", "text": "x" * (BODY_BYTES - frame)}).status == 200
    house.daemon.said.clear()
    with suppress(ConnectionResetError, BrokenPipeError):  # it need not hear the rest before it closes the door
        assert (
            house.client.ask("POST", "/v1/plan", {"path": "a.md", "text": "x" * (BODY_BYTES - frame + 1)}).status == 413
        )
    assert house.daemon.said == []


def test_a_length_that_is_announced_is_not_waited_for(house):
    headers = {**house.client.headers("POST", "/v1/plan"), "Content-Length": str(10**15)}
    assert house.client.send("POST", "/v1/plan", b"", headers).status == 413


def test_a_body_that_never_comes_is_not_waited_for(house, monkeypatch):
    monkeypatch.setattr(gate, "_BODY_S", 0.1)
    headers = {**house.client.headers("POST", "/v1/plan"), "Content-Length": "10"}
    refused_with = house.client.send("POST", "/v1/plan", b"", headers)
    assert (refused_with.status, house.daemon.said) == (408, [])


def test_a_body_in_chunks_has_the_same_bound(house):
    with socket.create_connection(("127.0.0.1", house.port), timeout=10) as wire:
        headers = {**house.client.headers("POST", "/v1/plan", b"x"), "Transfer-Encoding": "chunked"}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        wire.sendall(f"POST /v1/plan HTTP/1.1\r\n{head}\r\n".encode())
        with suppress(ConnectionResetError, BrokenPipeError):  # it may have closed the door already
            for _ in range(64):
                wire.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            assert wire.recv(100).startswith(b"HTTP/1.1 413")
    assert house.daemon.said == []


@pytest.mark.parametrize(
    "sent", [bytes(4), b"GET /\xff HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/9.9\r\n\r\n", b"x" * 200_000]
)
def test_what_is_no_http_is_no_request(house, sent):
    wire = socket.create_connection(("127.0.0.1", house.port), timeout=10)
    with wire, suppress(OSError):
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        assert wire.recv(1000)[9:12] in (b"400", b"403", b"")
    assert house.client.ask("GET", "/v1/hello").status == 200


@pytest.mark.parametrize(
    "query",
    [
        *("wait=26", "wait=-1", "wait=x", "wait=1.5", "wait=1&wait=2", "wait", "&"),
        *("after=", "after=7", f"after={16 * '0'}.01", "after=%31", "path=/etc"),
    ],
)
def test_a_query_that_is_not_as_the_protocol_says(house, query):
    reply = house.client.ask("GET", f"/v1/events?{query}")
    assert (reply.status, reply.signed) == (400, True)


def test_a_query_where_there_is_none(house):
    assert house.client.ask("GET", "/v1/hello?x=1").status == 400
    assert house.daemon.said == []


# Pairing


def test_pairing_over_the_wire(house):
    client, reply = pair(house.port, house.pairings.offer(time.time()), "Obsidian on my desk")
    assert client
    assert reply.signed
    assert house.pairings.devices()[client.device] == "Obsidian on my desk"
    assert client.ask("GET", "/v1/hello").signed
    assert house.client.ask("GET", "/v1/hello").signed, "who was paired before still is"


def test_a_code_is_good_once_over_the_wire(house):
    code = house.pairings.offer(time.time())
    assert pair(house.port, code)[0]
    client, reply = pair(house.port, code)
    assert client is None
    refused(house, reply)


@pytest.mark.parametrize("ahead_s", [-3600, 100, 3600])
def test_a_code_pairs_a_device_whose_clock_is_wrong_and_then_it_is_told(house, ahead_s):
    client, reply = pair(house.port, house.pairings.offer(time.time()), time_ms=int((time.time() + ahead_s) * 1000))
    assert client
    assert reply.signed
    house.daemon.said.clear()
    wrong = replace(client, time_ms=int((time.time() + ahead_s) * 1000))
    late(house, wrong.ask("GET", "/v1/hello"), "2 min" if ahead_s == 100 else "60 min")


def test_a_code_cannot_be_tried_out(house):
    code = house.pairings.offer(time.time())
    for _ in range(TRIES):
        client, reply = pair(house.port, "A" * 26)
        assert client is None
        refused(house, reply)
    client, reply = pair(house.port, code)
    assert client is None, "after so many wrong tries the right code is void as well"
    refused(house, reply)


@pytest.mark.parametrize("name", ["", "x" * 65, "a\nb", "\0"])
def test_a_name_that_is_none_pairs_nobody_and_leaves_the_code(house, name):
    code = house.pairings.offer(time.time())
    refused(house, pair(house.port, code, name)[1])
    assert pair(house.port, code)[0]


def test_the_code_and_the_keys_never_cross(house, caplog):
    with caplog.at_level(logging.DEBUG):
        code = house.pairings.offer(time.time())
        client, reply = pair(house.port, code)
        said = client.ask("GET", "/v1/hello").body + reply.body + caplog.text.encode()
    assert client.key.hex().encode() not in said
    assert code.encode() not in said


def test_a_key_that_was_taken_away_is_none(house, tmp_path):
    client, _ = pair(house.port, house.pairings.offer(time.time()))
    path = house.pairings._path
    book = json.loads(path.read_bytes())
    del book["devices"][client.device]
    path.write_text(json.dumps(book))
    refused(house, client.ask("GET", "/v1/hello"))


def test_a_stranger_on_the_port_cannot_answer(house):
    """Someone else has taken the port: whatever they send back, they cannot sign it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def squat():
        wire, _ = listener.accept()
        with wire:
            heard = wire.recv(65536)
            mac = next(line for line in heard.split(b"\r\n") if line.lower().startswith(b"x-vaultlab-mac"))
            wire.sendall(b"HTTP/1.1 200 OK\r\n" + mac + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    thread = threading.Thread(target=squat)
    thread.start()
    reply = replace(house.client, port=listener.getsockname()[1]).ask("GET", "/v1/hello")
    thread.join()
    listener.close()
    assert (reply.status, reply.signed) == (200, False)
