"""The edits that a plugin is to make: each rule that keeps a block to one embed, one by one."""

import hashlib

import pytest

from vaultlab.errors import VaultError
from vaultlab.notes.splice import Edit as Splice
from vaultlab.offers import PAUSE_S, TAKEN_S, UNSAVED_S, Offers
from vaultlab.protocol import Edit, Outcome

TEXT, OTHER = "A note.\n", "Another.\n"
SPLICE = Splice(0, "![[vaultlab/two#^result]]\n")


class Bench:
    """Offers with a clock and a connection of the test's own; `told` are those that were told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.there = True
        self.told: list[Edit] = []
        self.offers = Offers(lambda edit, block: self.told.append(edit), lambda: self.there, lambda: self.now)

    def offer(self, text: str = TEXT, path: str = "Note.md") -> None:
        self.offers.offer("two", path, text, sha(text), SPLICE)

    def plan(self, text: str = TEXT) -> Edit | None:
        return self.offers.plan("two", "Note.md", text, sha(text), SPLICE)

    def say(self, outcome: str) -> None:
        self.offers.heard("two", Outcome.model_validate({"outcome": outcome}))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_same_edit_is_told_once(bench: Bench) -> None:
    for _ in range(5):
        bench.offer()
        bench.now += 100
    assert [edit.base_sha256 for edit in bench.told] == [sha(TEXT)]
    assert bench.plan() == bench.told[0], "a plan of the same text finds it"
    bench.offer(OTHER)
    bench.offer(OTHER, "Moved.md")
    assert [edit.path for edit in bench.told] == ["Note.md", "Note.md", "Moved.md"]
    assert len({edit.id for edit in bench.told}) == 3


def test_an_older_edit_is_not_on_offer_any_more(bench: Bench) -> None:
    bench.offer()
    bench.offer(OTHER)
    assert bench.offers.block_of(bench.told[0].id) is None
    assert bench.offers.block_of(bench.told[1].id) == "two"


def test_a_plan_of_the_editors_text_is_not_overtaken_by_the_disks(bench: Bench) -> None:
    edit = bench.plan(OTHER)
    assert edit
    bench.now += PAUSE_S - 1
    bench.offer()
    assert bench.offers.block_of(edit.id) == "two"
    bench.now += 2
    bench.offer()
    assert [edit.base_sha256 for edit in bench.told] == [sha(TEXT)]


def test_an_edit_is_taken_once_and_nobody_else_gets_one_meanwhile(bench: Bench) -> None:
    bench.offer()
    bench.say("taken")
    with pytest.raises(VaultError):
        bench.say("taken")
    bench.offer(OTHER)
    assert bench.plan(OTHER) is None
    assert len(bench.told) == 1
    bench.now += TAKEN_S
    bench.offer(OTHER)
    assert len(bench.told) == 2, "nothing was heard of it"
    bench.say("taken")


def test_an_edit_that_was_taken_may_be_in_an_unsaved_text_though_the_plugin_is_gone(bench: Bench) -> None:
    bench.offer()
    bench.there = False
    assert not bench.offers.theirs("two"), "nobody took it"
    bench.there = True
    bench.say("taken")
    bench.there = False
    bench.now = TAKEN_S
    bench.offer(OTHER)
    bench.now = UNSAVED_S - 1
    assert bench.offers.theirs("two"), "also when another was offered since"
    assert not bench.offers.theirs("other")
    bench.now = UNSAVED_S + 1
    assert not bench.offers.theirs("two")


@pytest.mark.parametrize("outcome", ["deferred", "conflict"])
def test_what_is_given_back_comes_again_after_a_pause(bench: Bench, outcome: str) -> None:
    bench.offer()
    bench.say("taken")
    bench.say(outcome)
    bench.there = False
    assert not bench.offers.theirs("two"), "it was not made"
    with pytest.raises(VaultError):
        bench.say("taken")
    bench.offer()
    assert len(bench.told) == 1
    bench.now += PAUSE_S
    bench.offer()
    assert len(bench.told) == 2


def test_what_is_given_back_can_be_planned_at_once(bench: Bench) -> None:
    bench.offer()
    bench.say("conflict")
    planned = bench.plan(OTHER)
    assert planned
    bench.say("taken")


def test_what_was_applied_is_no_offer_any_more(bench: Bench) -> None:
    bench.offer()
    bench.say("taken")
    bench.say("applied")
    assert bench.offers.block_of(bench.told[0].id) is None
    bench.there = False
    assert not bench.offers.theirs("two")
