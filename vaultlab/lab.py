"""The door to a worker: start it, ask, follow, cancel, time out, start again.

Requests and replies are JSON lines over the pipes of a process with its own process group; `worker/__main__.py` has
their form. That the pipe ends is how a death is noticed.
"""

import hashlib
import itertools
import json
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, cast

from vaultlab.errors import NoteError, RunError
from vaultlab.process import Death, Process
from vaultlab.result import Answer, Ask, Failure, Plan, Progress, Refusal, Result, decode, encode

FLAG_S = 1.5
"""How long a cancelled run may take to notice its flag, before SIGTERM."""
TERM_S = 0.5
"""How long SIGTERM may take, before SIGKILL."""
OVERTIME_S = 10.0
"""How long after its limit of time a run may still stop by itself."""
START_S = 180.0
"""How long a worker may take to say hello: a cold disk and a far machine included."""
_DEATHS = 2
_ANSWERS: dict[str, type[Any]] = {"result": Result, "refusal": Refusal, "failure": Failure}
_LOG_HINT = "`vaultlab doctor` says where the log is; run the block again, for the next run gets a new worker."


@dataclass(eq=False)
class _Call:
    """A request on its way: what comes back for it, in order, and None as a nudge to look at `stop`."""

    process: Process
    id: int
    ask: Ask | None = None
    inbox: "queue.Queue[dict[str, Any] | Death | None]" = field(default_factory=queue.Queue)
    started: float | None = None
    stop: float | None = None


class Lab:
    """A worker, started when it is first needed and again after it died. Several threads may use one Lab."""

    def __init__(self, command: Sequence[str] | None = None, device: str | None = None) -> None:
        self.command = tuple(command or (sys.executable, "-m", "vaultlab.worker"))
        self.device = device
        self._process: Process | None = None
        self._calls: dict[int, _Call] = {}
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._deaths: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, ask: Ask, progress: Callable[[Progress], None] | None = None) -> Answer:
        """Run it and wait. Whatever happens to the worker, an Answer comes; Ctrl-C ends the run, then is raised."""
        ask = replace(ask, device=ask.device or self.device)
        name = _fingerprint(ask)
        if self._deaths[name] >= _DEATHS and not ask.force:
            return _quarantined(ask)
        for _ in range(_DEATHS):
            try:
                call = self._send("run", {"ask": encode(ask)}, ask=ask)
                answer = self._follow(call, progress)
            except RunError as error:
                return Failure(ask.id, "environment", error.message, error.hint)
            if not isinstance(answer, Death):
                return cast(Answer, answer)
            if call.stop is not None:
                return _stopped(ask, call)
            if answer.before_hello:
                return Failure(ask.id, "environment", f"The worker could not start: {answer.cause}.", answer.said)
            if call.started is not None:
                self._deaths[name] += 1
                return _quarantined(ask) if self._deaths[name] >= _DEATHS else _died(ask, answer)
        return _died(ask, answer)

    def cancel(self, id: str) -> None:
        """Cancel the runs of this Ask's id, from any thread: a flag, then SIGTERM, then SIGKILL to the whole group."""
        with self._lock:
            for call in self._calls.values():
                if call.ask is not None and call.ask.id == id:
                    self._stop(call)

    def deaths(self, ask: Ask) -> int:
        """How often this Ask has taken the worker down."""
        return self._deaths[_fingerprint(replace(ask, device=ask.device or self.device))]

    def plan(self, ask: Ask) -> Plan:
        """What a run would be, without running it; answered while another run computes. RunError without a worker."""
        ask = replace(ask, device=ask.device or self.device)
        plan: Plan = decode(Plan, self._request("plan", ask=encode(ask)))
        return plan

    def describe(self) -> dict[str, Any]:
        """What the worker has: `vaultlab`, `experiments` {name: entry}, `broken` {name: why}. RunError without one."""
        described: dict[str, Any] = self._request("describe")
        return described

    def models(
        self, action: str, progress: Callable[[Progress], None] | None = None, **arguments: Any
    ) -> list[dict[str, Any]]:
        """`list`, `pull` and `remove` (name), `add` (name, path), `find` (word) → the models that it is about.

        Goes to a process of its own, the only one that may go online. RunError, NoteError with the mend.
        """
        process = self._start((*self.command, "--online"))
        try:
            reply: list[dict[str, Any]] = self._reply_to(process, "models", progress, action=action, **arguments)
            return reply
        finally:
            process.close()

    def doctor(self) -> list[dict[str, Any]]:
        """Findings {what, ok, detail, mend} about versions, devices, models and disk. RunError without a worker."""
        found: list[dict[str, Any]] = self._request("doctor")
        return found

    def here(self) -> dict[str, list[str]]:
        """The names of its `devices`, best first, and of its `models`. RunError without a worker."""
        found: dict[str, list[str]] = self._request("here")
        return found

    def data(self, key: str) -> dict[str, Any] | None:
        """What an interactive figure of the result with this key is drawn from; None where the store has none.
        RunError without a worker."""
        found: dict[str, Any] | None = self._request("data", key=key)
        return found

    def forget(self, keys: Sequence[str]) -> int:
        """Take results out of the worker's store; how many were there. RunError without a worker."""
        return int(self._request("forget", keys=list(keys)))

    def close(self) -> None:
        """End the worker, computing or not."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.close()

    # -- requests

    def _start(self, command: Sequence[str]) -> Process:
        return Process(command, self._deliver)

    def _send(
        self, do: str, arguments: Mapping[str, Any], *, ask: Ask | None = None, process: Process | None = None
    ) -> _Call:
        with self._lock:
            if process is None:
                if self._process is None or self._process.dead:
                    self._process = self._start(self.command)
                process = self._process
            call = _Call(process, next(self._ids), ask)
            self._calls[call.id] = call
        process.send({"id": call.id, "do": do, **arguments})
        return call

    def _deliver(self, process: Process, message: dict[str, Any] | Death) -> None:
        """Called by the process's reader, in order: a reply to its call, a death to all calls of that process."""
        with self._lock:
            if isinstance(message, Death):
                calls = [call for call in self._calls.values() if call.process is process]
            else:
                calls = [call for call in (self._calls.get(message.get("id", 0)),) if call is not None]
        for call in calls:
            call.inbox.put(message)

    def _request(self, do: str, **arguments: Any) -> Any:
        return self._reply_to(None, do, None, **arguments)

    def _reply_to(
        self, process: Process | None, do: str, progress: Callable[[Progress], None] | None, **arguments: Any
    ) -> Any:
        for _ in range(_DEATHS):  # a run beside may have taken the worker with it
            call = self._send(do, arguments, process=process)
            message = self._follow(call, progress)
            if not isinstance(message, Death):
                return message
            if message.before_hello or process is not None:
                break
        raise RunError(f"The worker could not answer: {message.cause}.", message.said or _LOG_HINT)

    # -- following a call

    def _follow(self, call: _Call, progress: Callable[[Progress], None] | None) -> Any:
        """The Answer, the reply's body, or the Death that ended it."""
        ended = False
        try:
            while True:
                message = self._next(call)
                if message is None:
                    ended = True
                    return _stopped(call.ask, call) if call.ask else None
                if isinstance(message, Death):
                    ended = True
                    return message
                kind, body = message["is"], message["body"]
                if kind == "started":
                    call.started = time.monotonic()
                elif kind == "progress":
                    if progress is not None:
                        progress(decode(Progress, body))
                else:
                    ended = True
                    return _opened(kind, body)
        finally:
            if not ended:  # Ctrl-C, or `progress` raised: the device must be free before that goes on its way
                self._stop(call)
                while isinstance(message := self._next(call), dict) and message["is"] in ("started", "progress"):
                    pass
            with self._lock:
                self._calls.pop(call.id, None)

    def _next(self, call: _Call) -> dict[str, Any] | Death | None:
        """What comes next for the call. None: it waited behind another run and was cancelled before its turn."""
        while True:
            if call.stop is not None and call.started is None and self._behind_another(call):
                return None
            deadline = self._deadline(call)
            try:
                message = call.inbox.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._overdue(call)
                continue
            if message is not None:
                return message

    def _deadline(self, call: _Call) -> float | None:
        if call.stop is not None:
            return call.stop + FLAG_S
        if not call.process.greeted:
            return call.process.began + START_S
        if call.ask is None:
            return None
        return None if call.started is None else call.started + call.ask.limits.time_s + OVERTIME_S

    def _overdue(self, call: _Call) -> None:
        """The worker has not done by itself what it should have: it goes, and its death ends the call."""
        if call.stop is None and call.process.greeted and call.started is not None:
            call.stop = time.monotonic()
        call.process.kill(TERM_S)

    def _stop(self, call: _Call) -> None:
        if call.stop is None:
            call.stop = time.monotonic()
            call.process.send({"id": 0, "do": "cancel", "run": call.id})
        call.inbox.put(None)

    def _behind_another(self, call: _Call) -> bool:
        with self._lock:
            others = [other for other in self._calls.values() if other.process is call.process and other is not call]
        return any(other.started is not None for other in others)


def _opened(kind: str, body: Any) -> Any:
    if kind in _ANSWERS:
        try:
            return decode(_ANSWERS[kind], body)
        except ValueError as error:
            hint = "Install the same version of vaultlab where the worker runs."
            raise RunError("The worker's answer could not be read.", hint) from error
    if kind == "error":
        raise (NoteError if body["by"] == "author" else RunError)(body["message"], body["hint"])
    return body


def _fingerprint(ask: Ask) -> str:
    """What of an Ask could take a worker down: everything but who asks and how long it may take."""
    asked = encode(replace(ask, id="", force=False, limits=type(ask.limits)()))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _stopped(ask: Ask, call: _Call) -> Failure:
    overtime = call.started is not None and call.stop is not None and call.stop - call.started >= ask.limits.time_s
    if overtime:
        return Failure(
            ask.id,
            "environment",
            f"The run was stopped: it had not ended after {ask.limits.time_s:.0f} s, which is how long a run may take.",
            "Take smaller numbers in the block. The owner of the machine sets the limit.",
        )
    return Failure(ask.id, "cancelled", "The run was cancelled.", "Run the block again to go on with it.")


def _died(ask: Ask, death: Death) -> Failure:
    said = f" Its last words: {death.said}" if death.said else ""
    return Failure(ask.id, "environment", f"The worker died during this run: {death.cause}.{said}", _LOG_HINT)


def _quarantined(ask: Ask) -> Failure:
    return Failure(
        ask.id,
        "environment",
        f"This run of `{ask.experiment}` has taken the worker down {_DEATHS} times; it is not tried again by itself.",
        "Change the block, or insist with `--id ID --force`. `vaultlab doctor` says where the log is.",
    )
