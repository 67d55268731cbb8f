"""Who may ask the daemon, and the signature of every answer.

A stranger on this machine or in a browser's page learns nothing here: whoever cannot sign is refused in the same words
whatever was asked.
"""

import asyncio
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from vaultlab.errors import RunError
from vaultlab.pairing import Asked, Pairings
from vaultlab.protocol import HEADERS, PROTOCOL, PairAsk, Paired, Problem

BODY_BYTES = 1 << 20
SKEW_MS = 60_000
"""How far the clock of whoever asks may be from ours; so long a nonce is remembered on either side."""

ORIGINS = ("app://obsidian.md", "capacitor://localhost", "http://localhost")

_BODY_S = 10
_FORMS = {
    "protocol": re.compile(str(PROTOCOL)),
    "device": re.compile(r"[0-9a-f]{32}"),
    "time": re.compile(r"[1-9][0-9]{12}"),
    "nonce": re.compile(r"[0-9a-f]{32}"),
    "mac": re.compile(r"[0-9a-f]{64}"),
}
_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that goes no further. `why` is for the log alone, `problem` for whoever asked; `allow` says the method
    that there is, where it was asked with another; `proven` is the key of who has signed all the same."""

    allow = ""
    proven: tuple[Asked, bytes] | None = None

    def __init__(self, status: int, why: str, said: str = "Refused.", **more: Any) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.problem = Problem(message=said, **more)


class Gate:
    """What a request has to get through. `port` is the one that it has to mean; `clock` in seconds since the epoch."""

    def __init__(self, pairings: Pairings, port: int, clock: Callable[[], float]) -> None:
        self._pairings = pairings
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._clock = clock
        self._started_ms = self._now_ms()
        self._nonces: dict[tuple[str, str], int] = {}

    async def admit(self, request: Request) -> tuple[Asked, bytes, Paired | None]:
        """The request, the key to sign its answer with, and that answer if it asked to be paired. Refused if it is not
        signed, for another host, from a foreign page, too large, too late or a second time."""
        self._from_here(request)
        asked, mac = await _heard(request)
        if (asked.method, asked.target) == ("POST", "/v1/pair"):
            return asked, *await self._paired(asked, mac)  # whatever its time: a code is good once
        key = self._known(asked, mac)
        self._in_time(asked, key)
        self._once(asked)
        return asked, key, None

    def _from_here(self, request: Request) -> None:
        """Neither a page whose name was made to lead here (DNS rebinding) nor a page of another origin."""
        if one_value(request, "host") not in self._hosts:
            raise Refused(403, "another host was meant")
        origins = request.headers.getlist("origin")
        if origins and (len(origins) > 1 or origins[0] not in ORIGINS):
            raise Refused(403, "a page of another origin asked")
        theirs = one_value(request, HEADERS["protocol"])
        if theirs != str(PROTOCOL) and re.fullmatch(r"[0-9]{1,4}", theirs):
            raise Refused(426, "another version of the protocol", **_which_to_update(int(theirs)))

    def _known(self, asked: Asked, mac: str) -> bytes:
        """The key that the request is signed with."""
        try:
            key = self._pairings.key(asked.device)
        except RunError as error:
            raise Refused(401, str(error)) from error
        # For a device that nobody knows the same is reckoned: how long a refusal takes says nothing.
        proven = hmac.compare_digest(asked.mac(key or secrets.token_bytes(32)), mac)
        if key is None or not proven:
            raise Refused(401, "signed with no key that is paired")
        return key

    def _in_time(self, asked: Asked, key: bytes) -> None:
        """Whoever signs as they must is told that a clock is wrong: with a key that is good nothing else would say."""
        now = self._now_ms()
        # A request from before our start is refused too: we cannot know whether it was taken then.
        if max(now - SKEW_MS, self._started_ms) <= int(asked.time) <= now + SKEW_MS:
            return
        seconds = round(abs(now - int(asked.time)) / 1000)
        apart = f"{seconds} s" if seconds < 90 else f"{round(seconds / 60)} min"
        said = f"The clock of this device and the daemon's are {apart} apart."
        refused = Refused(401, "its time is not ours", said, hint="Set whichever is wrong.")
        refused.proven = asked, key
        raise refused

    def _once(self, asked: Asked) -> None:
        now = self._now_ms()
        while self._nonces and next(iter(self._nonces.values())) < now - 2 * SKEW_MS:
            del self._nonces[next(iter(self._nonces))]
        if (asked.device, asked.nonce) in self._nonces:
            raise Refused(401, "a request that was made before")
        self._nonces[asked.device, asked.nonce] = now

    async def _paired(self, asked: Asked, mac: str) -> tuple[bytes, Paired]:
        """Whatever is wrong with an asking to be paired, the refusal is the same."""
        try:
            name = PairAsk.model_validate_json(asked.body).name
            found = await run_in_threadpool(self._pairings.pair, asked, mac, name, self._clock())
            key = self._pairings.key(found[0]) if found else None
        except (ValidationError, RunError) as error:
            raise Refused(401, f"no pairing: {type(error).__name__}") from error
        if not found or not key:
            raise Refused(401, "no pairing: signed with no code that is on offer")
        _log.info("paired %r", name)
        return key, Paired(device=found[0], nonce=found[1])

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _which_to_update(theirs: int) -> dict[str, str]:
    older = theirs < PROTOCOL
    mend = "Update the plugin in Obsidian." if older else "Update vaultlab on this machine, then start its daemon anew."
    return {"said": f"The plugin speaks version {theirs} of the protocol, the daemon {PROTOCOL}.", "hint": mend}


async def _heard(request: Request) -> tuple[Asked, str]:
    """The request as it was signed, and its signature, every word in the form it must have."""
    said = {name: one_value(request, HEADERS[name]) for name in _FORMS}
    if not all(form.fullmatch(said[name]) for name, form in _FORMS.items()):
        raise Refused(401, "not signed")
    path, query = request.scope["raw_path"].decode("ascii"), request.scope["query_string"].decode("ascii")
    target = f"{path}?{query}" if query else path
    body = await _body(request)
    return Asked(request.method, target, said["device"], said["time"], said["nonce"], body), said["mac"]


def one_value(request: Request, header: str) -> str:
    """A header's value; nothing where it is there twice."""
    values = request.headers.getlist(header)
    return values[0] if len(values) == 1 else ""


async def _body(request: Request) -> bytes:
    too_large = Refused(413, "too large", "A request has at most 1 MiB.")
    if int(one_value(request, "content-length") or 0) > BODY_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise too_large
    except TimeoutError as error:
        raise Refused(408, "its body did not come", "The request did not come to its end.") from error
    return bytes(body)


def signed(asked: Asked, key: bytes, status: int, said: BaseModel) -> Response:
    """The answer to a request that was admitted."""
    response = _response(status, said)
    response.headers[HEADERS["mac"]] = asked.answer_mac(key, status, bytes(response.body))
    return response


def refusal(refused: Refused) -> Response:
    """The answer to who is not let in, as a rule a stranger: what is left of the request is not read."""
    if refused.proven:
        return signed(*refused.proven, refused.status, refused.problem)
    response = _response(refused.status, refused.problem)
    response.headers["Connection"] = "close"
    return response


def _response(status: int, said: BaseModel) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(said.model_dump_json(), status, headers, media_type="application/json")
