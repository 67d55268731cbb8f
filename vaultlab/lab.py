"""The door to a worker: start it, ask, follow, cancel, time out, start again.

Requests and replies are JSON lines over the pipes of a process with its own process group; `worker/__main__.py` has
their form. That the pipe ends is how a death is noticed. A worker may be on another machine, at the end of a line that
can break: then it is waited for and asked again.
"""

import hashlib
import itertools
import json
import logging
import os
import queue
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self, cast

from vaultlab.absence import Absence
from vaultlab.endings import LOG_HINT, cancelled, died, from_afar, overdue, quarantined
from vaultlab.errors import NoteError, RunError
from vaultlab.process import Death, Process
from vaultlab.result import Answer, Ask, Failure, Plan, Progress, Refusal, Result, decode, encode, without_texts

FLAG_S = 1.5
"""How long a cancelled run may take to notice its flag, before SIGTERM."""
TERM_S = 0.5
"""How long SIGTERM may take, before SIGKILL."""
OVERTIME_S = 10.0
"""How long after its limit of time a run may still stop by itself."""
START_S = 180.0
"""How long a worker may take to say hello: a cold disk and a far machine included."""
_DEATHS = 2
_CUTS = 5
"""So often the line may break during one Ask: from here it looks the same when it is the Ask that ends the worker."""
_ANSWERS: dict[str, type[Any]] = {"result": Result, "refusal": Refusal, "failure": Failure}
_log = logging.getLogger(__name__)


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
    """A worker, started when it is first needed and again after it died. Several threads may use one Lab.

    `far` is the name of one on another machine, to which `command` leads: it chooses its device itself. `patient`:
    that one is waited for, however long it does not answer.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        device: str | None = None,
        *,
        far: str = "",
        patient: bool = False,
    ) -> None:
        # -P: else the folder in which somebody types, often a vault, is where Python looks for modules first
        self.command = tuple(command or (sys.executable, "-P", "-m", "vaultlab.worker"))
        self.device, self._environment = _alone_on(device)
        self.far = far
        self._absence = Absence(far, patient)
        self._process: Process | None = None
        self._calls: dict[int, _Call] = {}
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._deaths: Counter[str] = Counter()
        self._cuts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, ask: Ask, progress: Callable[[Progress], None] | None = None) -> Answer:
        """Run it and wait. Whatever happens to the worker, an Answer comes; Ctrl-C ends the run, then is raised."""
        ask = replace(ask, device=self.device)
        name = _fingerprint(ask)
        if self._deaths[name] >= _DEATHS and not ask.force:
            return quarantined(ask, _DEATHS)
        idle_deaths = 0
        while True:
            if not self._absence.wait(ask.id, partial(_tell, ask, progress)):
                return cancelled(ask)
            try:
                call = self._send("run", {"ask": encode(ask)}, ask=ask)
                answer = self._follow(call, progress)
            except RunError as error:
                return Failure(ask.id, "environment", error.message, error.hint)
            if not isinstance(answer, Death):
                return self._read_here(cast(Answer, answer))
            if call.stop is not None:
                return _stopped(ask, call)
            if answer.before_hello and not answer.lost:
                return Failure(ask.id, "environment", f"{self._name} could not start: {answer.cause}.", answer.said)
            if call.started is not None and ask.beside and not answer.lost:
                ask = replace(ask, beside=())  # what it read for others may have been too much: once more, alone
                continue
            if call.started is not None:
                self._count(name, answer)
                if self._deaths[name] >= _DEATHS:
                    return quarantined(ask, _DEATHS)
            if not answer.lost:
                idle_deaths += 1
                if call.started is not None or idle_deaths == _DEATHS:
                    return died(ask, self._name, answer.cause, answer.said)

    def _read_here(self, answer: Answer) -> Answer:
        if not self.far or not isinstance(answer, Failure) or answer.kind != "environment":
            return answer
        message, hint = from_afar(self.far, answer.message, answer.hint)
        return replace(answer, message=message, hint=hint)

    def _count(self, name: str, death: Death) -> None:
        """Against the Ask during which it happened."""
        self._cuts[name] += death.lost
        if not death.lost or self._cuts[name] == _CUTS:
            self._deaths[name] += 1 if not death.lost else _DEATHS

    def cancel(self, id: str) -> None:
        """Cancel the runs of this Ask's id, from any thread: a flag, then SIGTERM, then SIGKILL to the whole group."""
        with self._lock:
            for call in self._calls.values():
                if call.ask is not None and call.ask.id == id:
                    self._stop(call)
        self._absence.stop(id)

    def deaths(self, ask: Ask) -> int:
        """How often this Ask has taken the worker down."""
        return self._deaths[_fingerprint(replace(ask, device=self.device))]

    def plan(self, ask: Ask) -> Plan:
        """What a run would be, without running it; answered while another run computes. RunError without a worker."""
        ask = replace(ask, device=self.device)
        plan: Plan = decode(Plan, self._request("plan", ask=encode(ask)))
        return plan

    def stored(self, asks: Sequence[Ask]) -> list[bool]:
        """Of each whether all its results are in the store, without running one. RunError without a worker."""
        bare = [encode(replace(without_texts(ask), device=self.device)) for ask in asks]
        found: list[bool] = self._request("stored", asks=bare)
        return found

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
        self._must_be_there()
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

    @property
    def _name(self) -> str:
        return f"The worker `{self.far}`" if self.far else "The worker"

    def _must_be_there(self) -> None:
        """RunError where it has just not answered: nobody but an Ask waits for it."""
        if self._absence.given_up or self._absence.due_s:
            raise self._gone()

    def _gone(self) -> RunError:
        return RunError(
            f"{self._name} does not answer: {self._absence.why}.",
            f"See that its machine is on, and that this starts it without asking anything: {shlex.join(self.command)}",
        )

    def _start(self, command: Sequence[str]) -> Process:
        return Process(command, self._deliver, far=bool(self.far), environment=self._environment)

    def _send(
        self, do: str, arguments: Mapping[str, Any], *, ask: Ask | None = None, process: Process | None = None
    ) -> _Call:
        with self._lock:
            if process is None:
                if self._process is None or self._process.dead:
                    self._must_be_there()
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
                if not process.ending or message.lost:
                    _log.warning("%s has ended: %s", self._name, message.cause)
                if message.lost:
                    self._absence.missed(message.why)
                calls = [call for call in self._calls.values() if call.process is process]
            else:
                self._absence.answered()
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
            if message.lost:
                raise self._gone()
            if message.before_hello or process is not None:
                break
        raise RunError(f"{self._name} could not answer: {message.cause}.", message.said or LOG_HINT)

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
                    return _opened(kind, body, self.far)
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
        call.process.kill(TERM_S, "" if call.process.greeted else f"it said nothing for {START_S:.0f} s")

    def _stop(self, call: _Call) -> None:
        if call.stop is None:
            call.stop = time.monotonic()
            call.process.send({"id": 0, "do": "cancel", "run": call.id})
        call.inbox.put(None)

    def _behind_another(self, call: _Call) -> bool:
        with self._lock:
            others = [other for other in self._calls.values() if other.process is call.process and other is not call]
        return any(other.started is not None for other in others)


def _opened(kind: str, body: Any, far: str) -> Any:
    if kind in _ANSWERS:
        try:
            return decode(_ANSWERS[kind], body)
        except ValueError as error:
            hint = "Install the same version of vaultlab where the worker runs."
            raise RunError("The worker's answer could not be read.", hint) from error
    if kind == "error":
        said = from_afar(far, body["message"], body["hint"]) if far else (body["message"], body["hint"])
        raise (NoteError if body["by"] == "author" else RunError)(*said)
    return body


def _fingerprint(ask: Ask) -> str:
    """What of an Ask could take a worker down: everything but who asks and how long it may take."""
    asked = encode(replace(ask, id="", force=False, limits=type(ask.limits)(), beside=()))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _stopped(ask: Ask, call: _Call) -> Failure:
    late = call.started is not None and call.stop is not None and call.stop - call.started >= ask.limits.time_s
    return overdue(ask) if late else cancelled(ask)


def _tell(ask: Ask, progress: Callable[[Progress], None] | None, waiting: str) -> None:
    if progress is not None:
        progress(Progress(ask.id, waiting, 0, 0))


def _alone_on(device: str | None) -> tuple[str | None, dict[str, str]]:
    """One GPU's worker sees no other, so that it takes nothing of theirs: what it calls its own, and how."""
    kind, _, number = (device or "").partition(":")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if kind != "cuda" or not number.isdecimal() or seen == "":
        return device, {}
    names = seen.split(",") if seen else []
    if names and int(number) >= len(names):
        return device, {}
    return "cuda", {"CUDA_VISIBLE_DEVICES": names[int(number)] if names else number}
