"""A process that speaks JSON lines, in a process group of its own; what it says on stderr goes to a log."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

from vaultlab import places
from vaultlab.errors import RunError

PROTOCOL = 1
LINE_BYTES = 256 * 2**20
LOG_BYTES = 2**20
CLOSE_S = 3.0
_KILLED = {
    signal.SIGKILL: "it was killed, which often means that the machine's memory ran out",
    signal.SIGSEGV: "it crashed (segmentation fault)",
    signal.SIGTERM: "it was told to end",
    signal.SIGABRT: "it crashed (aborted)",
}


def logs() -> Path:
    """The folder of the logs: a worker's, and `vaultlab.log` for what went wrong on this side."""
    return places.state_dir() / "logs"


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: `cause` in words, `said` the last line of its stderr."""

    cause: str
    said: str
    before_hello: bool


class Process:
    """Started at once. `deliver` gets every message in order and the Death last, on the thread that reads."""

    def __init__(self, command: Sequence[str], deliver: Callable[["Process", dict[str, Any] | Death], None]) -> None:
        self.began = time.monotonic()
        self.greeted = False
        self.dead = False
        self._fault = ""
        self._deliver = deliver
        self._outbox: queue.Queue[bytes | None] = queue.Queue()
        self._log = logs() / "worker.log"
        # Passive: OpenMP threads that spin while another program computes slow both down a hundredfold.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        with _appending(self._log) as log:
            self._log_start = log.tell() if log else 0
            try:
                self._popen = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log or subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise RunError(
                    f"The worker `{command[0]}` could not be started: {error.strerror}.",
                    "If the command comes from your configuration, correct it there; else install vaultlab again.",
                ) from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        threading.Thread(target=self._write, daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Never waits, and never fails: a process that is dead has said so to `deliver`."""
        self._outbox.put(json.dumps(message).encode() + b"\n")

    def kill(self, term_s: float) -> None:
        """SIGTERM to the whole group, SIGKILL after `term_s`; back when it is dead and its death delivered."""
        self._signal(signal.SIGTERM)
        self._reader.join(term_s)
        if self._reader.is_alive():
            self._signal(signal.SIGKILL)
            self._reader.join()

    def close(self) -> None:
        """Let it end by itself, for its stdin ends; then see that it does."""
        self._outbox.put(None)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(CLOSE_S)
        self.kill(0.5)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, number)

    def _write(self) -> None:
        stdin = cast(IO[bytes], self._popen.stdin)
        with contextlib.suppress(OSError), stdin:
            while (line := self._outbox.get()) is not None:
                stdin.write(line)
                stdin.flush()

    def _read(self) -> None:
        stdout = cast(BufferedIOBase, self._popen.stdout)
        with stdout:
            while line := stdout.readline(LINE_BYTES):
                if not line.endswith(b"\n") and len(line) >= LINE_BYTES:
                    self._fault = "it sent a line without an end"
                    break
                message = _parsed(line)
                if message is None:
                    continue  # printed before the protocol was the worker's own
                if message["is"] == "hello":
                    if message["body"].get("protocol") != PROTOCOL:
                        self._fault = "it is of another version of vaultlab"
                        break
                    self.greeted = True
                else:
                    self._deliver(self, message)
        self._end()

    def _end(self) -> None:
        # The group outlives its leader where a child holds on; a leader may outlive its pipe.
        if not self._fault:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(0.5)
        self._signal(signal.SIGKILL)
        code = self._popen.wait()
        self.dead = True
        self._outbox.put(None)
        if self._fault:
            cause = self._fault
        elif code < 0:
            cause = _KILLED.get(signal.Signals(-code), f"it was ended by {signal.Signals(-code).name}")
        else:
            cause = f"it ended with exit code {code}"
        self._deliver(self, Death(cause, self._last_words(), not self.greeted))

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - 4096) if end >= self._log_start else 0)
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        return next((line[:300] for line in reversed(lines) if line), "")


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and {"id", "is", "body"} <= message.keys() else None


@contextlib.contextmanager
def _appending(path: Path) -> Any:
    """The log, begun anew when it is full, the full one kept beside it; None where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".1.log"))
        log = path.open("ab")
    except OSError:
        yield None
        return
    with log:
        yield log
