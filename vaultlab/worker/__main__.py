"""The process that owns a device: requests in on stdin, replies out on stdout, one JSON object a line.

A request is {"id", "do", …}, a reply {"id", "is", "body"}. Runs are computed in the order in which they came; describe,
here, plan, stored, cancel, data, forget and doctor are answered meanwhile. The end of stdin is the end of this process;
and where whoever asks is on another machine, which a beat tells, so is its silence.
"""

import json
import logging
import math
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import huggingface_hub.constants
import psutil
import torch

from vaultlab import __version__
from vaultlab.errors import NoteError, VaultlabError
from vaultlab.models.entry import Entry, entries
from vaultlab.process import BEAT_S, PROTOCOL, SILENT_BEATS, lines
from vaultlab.result import Ask, Failure, Progress, Refusal, Result, decode, encode
from vaultlab.worker.asked import IMPORTING, entry
from vaultlab.worker.course import devices
from vaultlab.worker.doctor import findings
from vaultlab.worker.press import Press
from vaultlab.worker.run import Runner

_GRACE_S = 1.0
_BESIDE = 3
"""Processes at most that print beside: a block rarely has more than five figures."""
_HALF_WRITTEN = (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError)
_NAMES = {Result: "result", Refusal: "refusal", Failure: "failure"}
_log = logging.getLogger(__name__)

Request = Mapping[str, Any]


class Worker:
    """Reads requests on a thread of its own, answers some on another, and computes on the one that calls `serve`."""

    def __init__(self, runner: Runner, requests: BufferedIOBase, out: int) -> None:
        self.runner = runner
        self._requests = requests
        self._out = out
        self._writing = threading.Lock()
        self._waiting: queue.Queue[Request | None] = queue.Queue()
        self._asked: queue.Queue[Request | None] = queue.Queue()
        self._cancelled: set[int] = set()
        self._far = False
        self._ended = threading.Event()
        self.exit_code = 1
        self._at_once: dict[str, Callable[[Request], Any]] = {
            "beat": self._beat,
            "cancel": lambda request: self._cancelled.add(request["run"]),
        }
        self._meanwhile: dict[str, Callable[[Request], Any]] = {
            "describe": self._describe,
            "plan": lambda request: encode(self.runner.plan(decode(Ask, request["ask"]))),
            "stored": lambda request: [all(self.runner.plan(decode(Ask, ask)).stored) for ask in request["asks"]],
            "here": lambda request: {"devices": devices(), "models": [model.name for model in entries()]},
            "data": lambda request: self.runner.store.data(request["key"]),
            "forget": lambda request: self.runner.store.forget(request["keys"]),
            "doctor": lambda request: findings(self.runner.store),
        }

    def serve(self) -> None:
        """Answer until stdin ends, or until the device is broken."""
        # The line end closes whatever an import has printed to stdout before it was ours.
        os.write(self._out, b"\n")
        self._reply(0, "hello", {"protocol": PROTOCOL, "vaultlab": __version__, "pid": os.getpid()})
        threads = [threading.Thread(target=act, daemon=True) for act in (self._read, self._answer)]
        for thread in threads:
            thread.start()
        while not self.runner.broken:
            try:
                request = self._waiting.get(timeout=self.runner.residents.rest())
            except queue.Empty:
                continue
            if request is None:
                for thread in threads:
                    thread.join()
                return
            self._work(request)

    def _read(self) -> None:
        try:
            for line in lines(self._requests, self._heard):
                request = json.loads(line)
                if request["do"] in self._at_once:
                    self._guarded(request, self._at_once[request["do"]])
                elif request["do"] in self._meanwhile:
                    self._asked.put(request)
                else:
                    self._waiting.put(request)
            self.exit_code = 0
        finally:
            self._ended.set()
            self._asked.put(None)
            self._waiting.put(None)
            # A run that reports in time ends by itself; a native call that does not is left no choice.
            end = threading.Timer(_GRACE_S, os._exit, (1,))
            end.daemon = True
            end.start()

    def _beat(self, request: Request) -> None:
        self._far = True
        self._heard()

    def _heard(self) -> None:
        # The signal's own way to end a process needs no Python: it works while a native call keeps the interpreter.
        if self._far:
            signal.alarm(math.ceil(SILENT_BEATS * BEAT_S))

    def _answer(self) -> None:
        while (request := self._asked.get()) is not None:
            self._guarded(request, self._meanwhile[request["do"]])

    def _work(self, request: Request) -> None:
        if request["do"] == "models":
            self._guarded(request, self._models)
            return
        id = request["id"]

        def send(progress: Progress) -> None:
            self._reply(id, "progress", encode(progress))

        def cancelled() -> bool:
            return id in self._cancelled or self._ended.is_set()

        self._reply(id, "started", None)
        answer = self.runner.run(decode(Ask, request["ask"]), send, cancelled)
        self._cancelled.discard(id)
        self._reply(id, _NAMES[type(answer)], encode(answer))

    def _guarded(self, request: Request, verb: Callable[[Request], Any]) -> None:
        try:
            self._reply(request["id"], "reply", verb(request))
        except VaultlabError as error:
            by = "author" if isinstance(error, NoteError) else "machine"
            self._reply(request["id"], "error", {"by": by, "message": error.message, "hint": error.hint})

    def _describe(self, request: Request) -> dict[str, Any]:
        """Every experiment; one whose file cannot be imported is told, and is not in the way of the others."""
        described: dict[str, Any] = {}
        broken: dict[str, str] = {}
        for name in self.runner.registry:
            try:
                described[name] = asdict(entry(name, self.runner.registry[name]))
            except _HALF_WRITTEN as error:
                _log.exception("the experiment %s cannot be used", name)
                broken[name] = f"{type(error).__name__}: {error}"
        return {"vaultlab": __version__, "experiments": described, "broken": broken}

    def _models(self, request: Request) -> list[dict[str, Any]]:
        with IMPORTING:
            from vaultlab.models import pull  # noqa: PLC0415

        name = request.get("name", "")

        def say(doing: str) -> None:
            self._reply(request["id"], "progress", encode(Progress(name, doing, 0, 1)))

        match request["action"]:
            case "list":
                return [_listed(model) for model in pull.models_list()]
            case "pull":
                return [_listed(pull.pull(name, say))]
            case "add":
                return [_listed(pull.add(name, Path(request["path"]), say))]
            case "find":
                return [asdict(found) for found in pull.find(request.get("word", ""))]
            case _:
                pull.remove(name)
                return []

    def _reply(self, id: int, kind: str, body: Any) -> None:
        line = json.dumps({"id": id, "is": kind, "body": body}, ensure_ascii=False).encode() + b"\n"
        with self._writing:
            while line:
                line = line[os.write(self._out, line) :]


def _listed(model: Entry) -> dict[str, Any]:
    return {"sha256": model.sha256(), **model.model_dump(mode="json", exclude={"files", "converter", "source_sha256"})}


def _cores() -> int:
    """Physical cores that this process may use: two threads on one core only wait for each other."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def _fatal(error: threading.ExceptHookArgs) -> None:
    """A thread that failed would leave whoever asks waiting: the whole process goes."""
    threading.__excepthook__(error)
    os._exit(1)


def main() -> None:
    """`python -m vaultlab.worker [--online]`: only getting models needs `--online`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the Lab's to decide on
    threading.excepthook = _fatal
    out = os.dup(1)
    os.dup2(2, 1)  # what anything prints from now on goes to the log
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if "--online" not in sys.argv[1:]:
        os.environ["HF_HUB_OFFLINE"] = "1"
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(_cores())
    press = Press(beside=min(_BESIDE, _cores() - 1))
    worker = Worker(Runner(press=press), cast(BufferedIOBase, sys.stdin.buffer), out)
    worker.serve()
    press.close()
    os._exit(worker.exit_code)  # to take torch down in order would take longer than most runs


if __name__ == "__main__":
    main()
