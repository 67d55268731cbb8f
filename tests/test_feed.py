"""The feed: every event once and in order, or it says that some are missed."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vaultlab.feed import KEPT, Feed


def dones(said):
    return [event.done for event in said.events]


def test_what_has_happened_since():
    feed = Feed()
    start = feed.last
    for done in range(3):
        assert feed.tell("running", done=done).number == feed.last
    assert dones(feed.after(None)) == dones(feed.after(start)) == [0, 1, 2]
    assert dones(feed.after(f"{feed.epoch}.2")) == [2]
    assert dones(feed.after(feed.last)) == []
    assert not feed.after(start).missed


def test_another_daemons_numbers_are_not_ours():
    old, new = Feed(), Feed()
    old.tell("running", done=7)
    new.tell("running", done=8)
    said = new.after(old.last)
    assert (said.missed, dones(said), said.last) == (True, [8], new.last)


def test_a_number_from_the_future_is_none():
    feed = Feed()
    feed.tell("running", done=1)
    assert feed.after(f"{feed.epoch}.2").missed


@pytest.mark.parametrize(("seen", "missed"), [(0, True), (4, True), (5, False), (KEPT + 5, False)])
def test_what_is_too_long_ago_is_missed_and_the_rest_is_told(seen, missed):
    feed = Feed()
    for done in range(KEPT + 5):
        feed.tell("running", done=done)
    said = feed.after(f"{feed.epoch}.{seen}")
    assert said.missed == missed
    assert dones(said) == list(range(max(seen, 5), KEPT + 5))
    assert feed.after(None).missed


def test_an_event_that_is_none_takes_no_number():
    feed = Feed()
    before = feed.last
    with pytest.raises(ValidationError):
        feed.tell("running", done="many")
    assert feed.last == before


def test_who_waits_is_woken_when_the_event_is_there():
    feed, seen = Feed(), []
    feed.wake = lambda: seen.append(dones(feed.after(None)))
    feed.tell("running", done=1)
    assert seen == [[1]]


@given(st.lists(st.integers(1, 4), max_size=20), st.data())
def test_however_one_polls_each_is_told_once(bursts, data):
    feed, found, done = Feed(), [], 0
    last = feed.last
    for burst in bursts:
        for _ in range(burst):
            feed.tell("running", done=done)
            done += 1
        if data.draw(st.booleans()):
            said = feed.after(last)
            last, found = said.last, found + dones(said)
    assert found + dones(feed.after(last)) == list(range(done))


def test_many_tell_at_once():
    feed = Feed()
    threads = [threading.Thread(target=lambda: [feed.tell("running") for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.number for event in feed.after(None).events] == [f"{feed.epoch}.{n}" for n in range(1, 801)]
