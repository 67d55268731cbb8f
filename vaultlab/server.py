"""The daemon's face on this machine: HTTP on 127.0.0.1, signed both ways, for the plugin and the command line."""

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import uvicorn
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from vaultlab import openapi
from vaultlab.errors import NoteError, VaultError, VaultlabError
from vaultlab.gate import Gate, Refused, one_value, refusal, signed
from vaultlab.pairing import COMMAND_LINE, Asked, Pairings
from vaultlab.protocol import ENDPOINTS, PARAMS, Endpoint, Events, EventsAsk, Verbs

CONNECTED_S = 45
"""A plugin that has polled so lately makes the edits in authors' notes."""

_log = logging.getLogger(__name__)


class Face:
    """The ASGI application. `polled` is when a plugin last asked for events."""

    def __init__(self, verbs: Verbs, gate: Gate, awake: Callable[[], float]) -> None:
        self.polled = -math.inf
        self._verbs = verbs
        self._gate = gate
        self._awake = awake
        self._routes = [(Route(endpoint.path, _nowhere), endpoint) for endpoint in ENDPOINTS]
        self._document = openapi.document()
        self._changed = asyncio.Event()
        self._stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(ClientDisconnect):
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    def wake(self) -> None:
        """Every poll looks for events again. On the server's own thread."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Polls wait no longer. On the server's own thread."""
        self._stopping = True
        self.wake()

    async def _answer(self, request: Request) -> Response:
        try:
            asked, key, paired = await self._gate.admit(request)
        except Refused as refused:
            _log.warning("refused %.10r %.100r: %s", request.method, request.url.path, refused.why)
            return refusal(refused)
        try:
            return signed(asked, key, 200, paired or await self._done(asked, request))
        except Refused as refused:
            _log.info("%s %s: %s", asked.method, asked.target, refused.why)
            response = signed(asked, key, refused.status, refused.problem)
            response.headers.update({"Allow": refused.allow} if refused.allow else {})
            return response

    async def _done(self, asked: Asked, request: Request) -> BaseModel:
        """What the daemon's verb says; Refused with its status where it says no."""
        endpoint, words = self._meant(request)
        try:
            query, body = _query(endpoint, request), _said(endpoint, asked, request)
        except ValidationError as error:
            raise Refused(400, "not as the protocol says", **_not_as_said(error)) from error
        if endpoint.verb == "openapi":
            return self._document
        if isinstance(query, EventsAsk):
            return await self._events(query, asked.device != COMMAND_LINE)
        answer = await self._verb(endpoint.verb, *words, *([body] if body else []))
        if answer is None:
            raise Refused(404, "unknown", f"The daemon knows nothing of {asked.target}.")
        return answer

    async def _verb(self, name: str, *words: object) -> BaseModel | None:
        try:
            return cast(BaseModel | None, await run_in_threadpool(getattr(self._verbs, name), *words))
        except VaultlabError as error:
            line, field = (error.line, error.field) if isinstance(error, NoteError) else (None, None)
            status, hint = _status(error), error.hint
            # Its own words may quote the note, and `why` goes into the log.
            why = "a note says no" if isinstance(error, NoteError) else error.message
            raise Refused(status, why, error.message, hint=hint, line=line, field=field) from error
        except Exception as error:  # a fault of ours must neither end the daemon nor leave the plugin waiting
            _log.exception("%s failed", name)
            said = "The daemon could not answer: a fault of its own."
            raise Refused(500, "a fault of ours", said, hint="Its log says more.") from error

    def _meant(self, request: Request) -> tuple[Endpoint, list[str]]:
        """The endpoint, and what stands in its path."""
        refused = Refused(404, "no such endpoint", "The daemon has no such endpoint.")
        if request.scope["raw_path"].decode("ascii") != request.scope["path"]:
            raise refused  # nothing that we name needs an escape
        for route, endpoint in self._routes:
            match, found = route.matches(request.scope)
            params: dict[str, str] = found.get("path_params", {})
            if match is Match.NONE or not all(PARAMS[name].fullmatch(value) for name, value in params.items()):
                continue
            if request.method == endpoint.method:
                return endpoint, list(params.values())
            refused = Refused(405, "another method", "Not with this method.")
            refused.allow = endpoint.method
        raise refused

    async def _events(self, asked: EventsAsk, plugin: bool) -> BaseModel:
        end = asyncio.get_running_loop().time() + asked.wait
        while True:
            if plugin:
                self.polled = self._awake()
            changed = self._changed  # taken before we look: what happens in between is not missed
            found = cast(Events, await self._verb("events", asked.after))
            left = end - asyncio.get_running_loop().time()
            if found.events or found.missed or left <= 0 or self._stopping:
                return found
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)


def _status(error: VaultlabError) -> int:
    match error:
        case NoteError():
            return 422
        case VaultError():
            return 409
        case _:
            return 503


def _said(endpoint: Endpoint, asked: Asked, request: Request) -> BaseModel | None:
    """The request's body, checked."""
    if endpoint.body is None:
        if asked.body:
            raise Refused(400, "a body", f"{asked.method} {endpoint.path} takes no body.")
        return None
    kind = one_value(request, "content-type").lower().replace(" ", "")
    if kind not in ("application/json", "application/json;charset=utf-8"):
        raise Refused(415, "not JSON", "A request's body is JSON: Content-Type: application/json.")
    return endpoint.body.model_validate_json(asked.body)


def _query(endpoint: Endpoint, request: Request) -> BaseModel | None:
    """The request's query, checked."""
    text = request.scope["query_string"].decode("ascii")
    pairs = [tuple(one.split("=", 1)) for one in text.split("&") if text]
    words = {pair[0]: pair[-1] for pair in pairs}
    if len(words) < len(pairs) or any(len(pair) < 2 for pair in pairs) or (pairs and not endpoint.query):
        raise Refused(400, "the query", f"The query of {endpoint.path} cannot be read.")
    return endpoint.query.model_validate_strings(words) if endpoint.query else None


def _not_as_said(error: ValidationError) -> dict[str, str]:
    """The first thing wrong, without what was sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    mend = "Update the plugin and vaultlab to the same version."
    return {"said": f"{where} is not as the protocol says: {first['msg']}.", "hint": mend}


def _nowhere() -> None:
    """Routes only match here; what answers is the endpoint's verb."""


class Served:
    """A server that is running, on `port`."""

    def __init__(
        self, verbs: Verbs, pairings: Pairings, clock: Callable[[], float], awake: Callable[[], float]
    ) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._awake = awake
        self._face = Face(verbs, Gate(pairings, self.port, clock), awake)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._face,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                http="h11",
                proxy_headers=False,
                server_header=False,
                date_header=False,
                limit_concurrency=64,
                timeout_graceful_shutdown=5,
            )
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="vaultlab server", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Something has happened: whoever waits for events is answered. From any thread."""
        with suppress(RuntimeError):  # stopped in the meantime
            self._loop.call_soon_threadsafe(self._face.wake)

    def connected(self) -> bool:
        """Whether a plugin has polled within 45 s, so that it makes the edits in authors' notes."""
        return self._awake() - self._face.polled < CONNECTED_S

    def stop(self) -> None:
        """Answer whoever still waits, and close the port."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._face.stop)
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._server.serve([self._socket]))


def serve(
    verbs: Verbs,
    pairings: Pairings,
    clock: Callable[[], float] = time.time,
    awake: Callable[[], float] = time.monotonic,
) -> Served:
    """Answer on a port of the system's choice, on a thread of its own. `clock` in seconds since the epoch; `awake`
    stands still while the machine sleeps, as a plugin does that is there."""
    return Served(verbs, pairings, clock, awake)
