"""The document that the daemon serves, held against the daemon: schemathesis asks all that it says may be asked, and
what it says may not."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from requests.auth import AuthBase

from tests.http_client import Client, pair
from tests.test_daemon import Alive
from tests.test_pipeline import NOTE
from vaultlab import desk, openapi, trust
from vaultlab.pairing import Pairings
from vaultlab.service import serving
from vaultlab.vault.journal import home

pytestmark = pytest.mark.long

DOCUMENT = openapi.document().model_dump()


def unsigned(document: dict[str, Any]) -> dict[str, Any]:
    """The document without the headers that sign: those are put on every request as it goes."""
    plain = copy.deepcopy(document)
    for methods in plain["paths"].values():
        for operation in methods.values():
            operation["parameters"] = [one for one in operation["parameters"] if "$ref" not in one]
    del plain["components"]["parameters"]
    return plain


# What is said as the document has it is done, or its author has to do something first.
fine = {"checks": {"positive_data_acceptance": {"expected-statuses": ["200", "404", "409", "422"]}}}
asked = schemathesis.openapi.from_dict(unsigned(DOCUMENT), config=schemathesis.Config.from_dict(fine))
asked = asked.exclude(path="/v1/pair")  # signed with a code, not with a key
strange = schemathesis.openapi.from_dict(DOCUMENT)
often = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


class Signed(AuthBase):
    """Signs each request as it goes over the wire."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        content = request.body or b""
        body = content.encode() if isinstance(content, str) else content
        headers = self.client.headers(str(request.method), request.path_url, body)
        headers.pop("Content-Type", None)
        request.headers.update(headers)
        return request


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Client]]:
    folder: Path = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STATE", "CACHE", "CONFIG"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
        patch.setattr(desk, "SAVED_S", 0.0)
        (folder / "vault").mkdir()
        alive = Alive(folder / "vault", folder / "config")
        trust.trust(alive.root)
        worker = desk.Worker(lambda: {"devices": ["cpu"], "models": ["tiny"]}, lambda key: {"by head": [1]})
        with serving(alive.daemon, worker) as server:
            client, _ = pair(server.port, Pairings(home(alive.root)).offer(time.time()))
            assert client
            alive.save("Note.md", NOTE)
            alive.settle()  # there are events: nobody who asks for them has to wait
            yield f"http://127.0.0.1:{server.port}", client
        alive.jobs.close()


@asked.parametrize()
@often
def test_it_answers_as_its_document_says(case: schemathesis.Case, served: tuple[str, Client]) -> None:
    base, client = served
    with requests.Session() as session:
        session.auth = Signed(client)
        case.call_and_validate(base_url=base, session=session)


@strange.parametrize()
@often
def test_whoever_cannot_sign_is_refused_as_its_document_says(
    case: schemathesis.Case, served: tuple[str, Client]
) -> None:
    base, _ = served
    answer = case.call(base_url=base)
    assert answer.status_code in (400, 401, 403, 408, 413, 426), urlsplit(answer.url)
    checks = [schemathesis.checks.response_schema_conformance, schemathesis.checks.content_type_conformance]
    case.validate_response(answer, checks=checks)
