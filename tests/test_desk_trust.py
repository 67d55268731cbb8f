"""Whether anything runs by itself: a vault that is not trusted, and one that another machine's daemon has."""

import json
import time

from tests import faced as bench
from tests.faced import Faced, Plugin
from tests.test_cli import Typed
from tests.test_daemon import Alive
from tests.test_pipeline import NOTE
from vaultlab import service, trust
from vaultlab.desk import Desk, Worker
from vaultlab.vault import presence
from vaultlab.vault.presence import Request

alive, faced, plugin = bench.alive, bench.faced, bench.plugin


def test_in_a_vault_that_is_not_trusted_nothing_runs_and_nothing_is_written(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    plugin.said("POST", "/v1/trust", {"trusted": False})
    said = plugin.said("GET", "/v1/hello")
    assert not said["trusted"]
    assert said["trust"] == trust.MEANS
    assert "not trusted" in said["notices"][0]
    alive.save("Note.md", NOTE)
    alive.save("Wrong.md", NOTE.replace("double: two", "double: wrong").replace("twice =", "twise ="))
    before = alive.everything()
    alive.settle()
    assert plugin.plan("Note.md", NOTE)["blocks"][0]["state"] == "missing", "it can be looked at"
    reply = plugin.run("Note.md", NOTE)
    assert reply.status == 503
    assert "not trusted" in reply.json["message"]
    alive.settle()
    assert alive.everything() == before
    plugin.said("POST", "/v1/trust", {"trusted": True})
    assert plugin.said("GET", "/v1/hello")["notices"] == []
    alive.settle()
    assert alive.ran == ["two"]
    assert (alive.root / "vaultlab/wrong.md").exists()


def test_trust_that_is_taken_back_stops_what_runs_and_what_is_queued(faced: Faced, plugin: Plugin) -> None:
    alive = faced.alive
    alive.save("Note.md", NOTE)
    alive.save("Other.md", NOTE.replace("double: two", "double: other"))
    alive.after(3)
    plugin.poll()

    def during(ask: object, progress: object) -> None:
        plugin.said("POST", "/v1/trust", {"trusted": False})
        alive.after(0.1)

    alive.during = during
    alive.settle()
    assert len(alive.ran) == 1
    assert alive.queued == []
    assert not (alive.root / "vaultlab").exists()
    ended = [event["id"] for event in plugin.poll() if event["kind"] == "cancelled"]
    assert sorted(ended) == ["other", "two"]
    alive.during = lambda ask, progress: None
    plugin.said("POST", "/v1/trust", {"trusted": True})
    alive.settle()
    assert alive.states() == {"two": "fresh", "other": "fresh"}


def test_who_asks_in_a_terminal_needs_no_trust(faced: Faced, plugin: Plugin) -> None:
    faced.alive.write("Note.md", NOTE)
    plugin.said("POST", "/v1/trust", {"trusted": False})
    faced.alive.daemon.ask_for(Request(("two",), named=True))
    faced.alive.settle()
    assert faced.alive.states() == {"two": "fresh"}


def test_on_the_second_machine_only_what_is_asked_for_runs(alive: Alive) -> None:
    trust.trust(alive.root)
    now = int(time.time())
    other = {"protocol": 1, "port": 1, "pid": 1, "machine": "desk", "since": now - 60, "beat": now}
    sign = alive.root / ".vaultlab/daemon-desk.json"
    sign.parent.mkdir()
    sign.write_text(json.dumps(other))
    alive.save("Note.md", NOTE)
    alive.save("Other.md", NOTE.replace("double: two", "double: other"))
    with service.serving(alive.daemon, Worker(lambda: {}, lambda key: None)) as server:
        plugin = Faced(alive, server, {}, []).pair()
        assert "desk" in plugin.said("GET", "/v1/hello")["notices"][0]
        alive.settle()
        assert alive.ran == []
        assert plugin.run("Note.md", NOTE).status == 200
        alive.settle()
        assert alive.ran == ["two"]
        assert any("desk" in str(sentence) for sentence in alive.told), "and it says so"


def test_when_the_other_machine_is_gone_this_one_goes_on(alive: Alive) -> None:
    trust.trust(alive.root)
    desk = Desk(alive.daemon, Worker(lambda: {}, lambda key: None))
    alive.save("Note.md", NOTE)
    alive.after(3)
    assert alive.queued == ["two"]
    desk.restrain("attic")
    alive.settle()
    assert (alive.queued, alive.ran) == ([], [])
    assert "attic" in alive.daemon.restraint
    desk.restrain("")
    alive.settle()
    assert alive.ran == ["two"]


def test_pair_wants_a_daemon_and_makes_a_code_that_is_good_once(faced: Faced) -> None:
    shown = Typed("pair", faced.alive.root)
    assert f"vaultlab watch {faced.alive.root}" in str(shown.error)
    with presence.attend(faced.alive.root):
        code = Typed("pair", faced.alive.root).out.split()[0]
    assert len(code.replace("-", "")) == 26
    client, _ = bench.pair(faced.server.port, code)
    assert client
    assert client.ask("GET", "/v1/hello").signed
    again, refused = bench.pair(faced.server.port, code)
    assert (again, refused.status) == (None, 401)
