"""The protocol: edits as an editor counts, the file that says a daemon is there, and the document that is committed."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import served
from vaultlab import openapi, protocol, survey
from vaultlab.notes.splice import Edit, apply
from vaultlab.protocol import ENDPOINTS, HEADERS, PARAMS, Verbs, as_edit, presence, presence_name

standing, house = served.standing, served.house
COMMITTED = Path(openapi.__file__).with_name("openapi.json")


def test_the_committed_document_is_that_of_the_declarations():
    """VAULTLAB_WRITE_OPENAPI=1 writes it anew."""
    written = json.dumps(openapi.document().model_dump(), indent=1, ensure_ascii=False) + "\n"
    if os.environ.get("VAULTLAB_WRITE_OPENAPI"):
        COMMITTED.write_text(written, encoding="utf-8")
    assert COMMITTED.read_text(encoding="utf-8") == written


def test_the_document_that_is_served_is_the_committed_one(house):
    reply = house.client.ask("GET", "/v1/openapi.json")
    assert (reply.status, reply.signed) == (200, True)
    assert reply.json == json.loads(COMMITTED.read_bytes())


def test_the_document_has_every_endpoint_every_header_and_no_loose_end():
    document = openapi.document().model_dump()
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert {one["name"] for one in document["components"]["parameters"].values()} == set(HEADERS.values())
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for step in reference.split("/"):
            found = found[step]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = [one["name"] for one in operation["parameters"] if one.get("in") == "path"]
            assert named == re.findall(r"{(\w+)}", path)
            assert operation["summary"]


def test_everything_that_is_asked_is_closed():
    document = openapi.document().model_dump()
    shapes = document["components"]["schemas"]
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    asked = [one["requestBody"] for one in operations if "requestBody" in one]
    assert len(asked) == 6
    for body in asked:
        name = body["content"]["application/json"]["schema"]["$ref"].split("/")[-1]
        assert shapes[name]["additionalProperties"] is False


def test_every_verb_has_its_endpoint():
    ours = {"pair", "openapi"}
    assert {field.name for field in dataclasses.fields(Verbs)} == {endpoint.verb for endpoint in ENDPOINTS} - ours
    assert {name for endpoint in ENDPOINTS for name in re.findall(r"{(\w+)}", endpoint.path)} == set(PARAMS)


def test_the_states_of_a_block_are_those_of_the_survey():
    assert get_args(protocol.State) == get_args(survey.State)


@given(st.text(), st.text(), st.data())
def test_an_edit_counts_as_an_editor_does(text, insert, data):
    splice = Edit(data.draw(st.integers(0, len(text))), insert)
    digest = hashlib.sha256(text.encode()).hexdigest()
    edit = as_edit("e1", "a.md", text, digest, splice)
    units = text.encode("utf-16-le")
    made = units[: 2 * edit.offset] + edit.insert.encode("utf-16-le") + units[2 * edit.offset :]
    assert made.decode("utf-16-le") == apply(text, splice)


def test_an_astral_letter_counts_twice():
    assert as_edit("e1", "a.md", "𝔸b", "0" * 64, Edit(1, "x")).offset == 2


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("desk", "daemon-desk.json"),
        ("Bücher.local", "daemon-b-cher-local.json"),
        ("../../etc", "daemon-etc.json"),
        ("a/b\0", "daemon-a-b.json"),
        ("", "daemon-machine.json"),
    ],
)
def test_presence_has_a_name_that_stays_in_its_folder(machine, name):
    assert presence_name(machine) == name


def test_presence_says_where_and_nothing_secret():
    assert presence(4711, "desk", 1_700_000_000, 1_800_000_000, pid=7) == {
        "protocol": 1,
        "port": 4711,
        "pid": 7,
        "machine": "desk",
        "since": 1_700_000_000,
        "beat": 1_800_000_000,
    }
