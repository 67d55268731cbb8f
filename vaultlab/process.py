"""A process that speaks JSON lines, in a process group of its own; what it says on stderr goes to a log.

It may be the near end of a line to another machine, such as ssh. No signal and no variable goes over such a line, and
when it breaks nobody is told: so both ends listen for a beat.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, Any, cast

from vaultlab import places
from vaultlab.errors import RunError

PROTOCOL = 2
LINE_BYTES = 256 * 2**20
BEAT_S = 5.0
SILENT_BEATS = 6
"""After so many beats without a byte from the other machine, the line to it counts as broken; and so it does there."""
LOG_BYTES = 2**20
CLOSE_S = 3.0
_PIECE_BYTES = 2**16
_LINE_FAILED = 255
"""How ssh ends when it was the line that failed, or a signal ended what ran at the other end: it does not say which."""
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
    """How a process ended: `cause` in words, `said` the last line of its stderr.

    `lost`: as far as can be told from here it was the line to another machine that broke, not what ran there.
    """

    cause: str
    said: str
    before_hello: bool
    lost: bool = False

    @property
    def why(self) -> str:
        """The cause, and what ssh has said of it."""
        return f"{self.cause}: {self.said}" if self.said else self.cause


class Endless(Exception):
    """A line longer than any message."""


class Process:
    """Started at once. `deliver` gets every message in order and the Death last, on the thread that reads.

    `far`: what runs is on another machine, and `command` the line to it. `environment` is added to this process's.
    `ending`: it was told to end.
    """

    def __init__(
        self,
        command: Sequence[str],
        deliver: Callable[["Process", dict[str, Any] | Death], None],
        *,
        far: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.began = time.monotonic()
        self.greeted = False
        self.dead = False
        self._far = far
        self._fault = self._silence = ""
        self.ending = False
        self._unheard = 0
        self._over = threading.Event()
        self._deliver = deliver
        self._outbox: queue.Queue[bytes | None] = queue.Queue()
        self._log = logs() / "worker.log"
        with _appending(self._log) as log:
            self._log_start = log.tell() if log else 0
            try:
                self._popen = subprocess.Popen(
                    list(command),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log or subprocess.DEVNULL,
                    env={**os.environ, **(environment or {})},
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
        if far:
            threading.Thread(target=self._beat, daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Never waits, and never fails: a process that is dead has said so to `deliver`."""
        self._outbox.put(json.dumps(message).encode() + b"\n")

    def kill(self, term_s: float, silence: str = "") -> None:
        """SIGTERM to the whole group, SIGKILL after `term_s`; back when it is dead and its death delivered.

        `silence` says what it has not said: then it is killed because it is lost.
        """
        self._silence = self._silence or silence
        self.ending = True
        self._signal(signal.SIGTERM)
        self._reader.join(term_s)
        if self._reader.is_alive():
            self._signal(signal.SIGKILL)
            self._reader.join()

    def close(self) -> None:
        """Let it end by itself, for its stdin ends; then see that it does."""
        self.ending = True
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

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            if self.greeted and self._unheard >= SILENT_BEATS:
                self.kill(0.0, f"nothing was heard from it for {SILENT_BEATS * BEAT_S:.0f} s")
                return
            self._unheard += 1  # counted, not timed: this machine may have slept
            self.send({"id": 0, "do": "beat"})

    def _heard(self) -> None:
        self._unheard = 0

    def _read(self) -> None:
        with cast(BufferedIOBase, self._popen.stdout) as stdout:
            try:
                for line in lines(stdout, self._heard):
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
            except Endless:
                self._fault = "it sent a line without an end"
        self._end()

    def _end(self) -> None:
        # The group outlives its leader where a child holds on; a leader may outlive its pipe.
        if not self._fault:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(0.5)
        self._signal(signal.SIGKILL)
        code = self._popen.wait()
        self.dead = True
        self._over.set()
        self._outbox.put(None)
        broke = code == _LINE_FAILED and self._far and not self.ending
        if self._fault or self._silence:
            cause = self._fault or self._silence
        elif broke:
            cause = "the line to it broke"
        elif code < 0:
            cause = _KILLED.get(signal.Signals(-code), f"it was ended by {signal.Signals(-code).name}")
        else:
            cause = f"it ended with exit code {code}"
        lost = self._far and not self._fault and (broke or bool(self._silence))
        said = "" if self._silence else self._last_words()
        self._deliver(self, Death(cause, said, not self.greeted, lost))

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - 4096) if end >= self._log_start else 0)
                lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
        except OSError:
            return ""
        return next((line[:300] for line in reversed(lines) if line), "")


def lines(stream: BufferedIOBase, heard: Callable[[], None]) -> Iterator[bytes]:
    """The lines that come in, without a last one that was cut; `heard` is called for every piece, however small.

    Endless where that line never ends.
    """
    held = bytearray()
    while piece := stream.read1(_PIECE_BYTES):
        heard()
        *ended, rest = piece.split(b"\n")
        for end in ended:
            yield bytes(held + end)
            held.clear()
        held += rest
        if len(held) > LINE_BYTES:
            raise Endless


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
