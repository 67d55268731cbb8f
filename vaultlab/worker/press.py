"""The press: drawings become the bytes of files, some here and some in processes beside this one.

To lay a figure out and write it takes a fifth of a second of Python, and a block has four or five figures: for most
blocks that is half of what their author waits for. A process beside has matplotlib and no torch. What it does not bring
back, for it was killed or could not be told what to draw, is printed here, with the same bytes.

Drawings go over as pickles, from a process to its own child and nowhere else.
"""

import logging
import pickle
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Any, cast

from vaultlab.plots.style import Drawing, render
from vaultlab.result import Figure

_IDLE_S = 300
"""A process that has had nothing to print for so long ends: it takes a tenth of a gigabyte."""

_log = logging.getLogger(__name__)


class Press:
    """Prints with at most `beside` processes beside this one, which end with it."""

    def __init__(self, beside: int = 0, idle_s: int = _IDLE_S) -> None:
        self._idle_s = idle_s
        self._beside: list[_Beside | None] = [None] * beside

    def warm(self) -> None:
        """Start the processes that do not run. They are ready in a second; nothing is given to one before it is."""
        for place, one in enumerate(self._beside):
            if one is None or not one.runs():
                self._end(place)
                with suppress(OSError):
                    self._beside[place] = _Beside(self._idle_s)

    def printed(self, drawings: Mapping[str, Drawing]) -> dict[str, Figure]:
        """Each drawing as a file's bytes. Raises what `render` raises."""
        done: dict[str, Figure] = {}
        waiting = deque(drawings)

        def work(turn: Callable[[Drawing], Figure]) -> None:
            while waiting:
                with suppress(IndexError):  # another has just taken the last one
                    name = waiting.popleft()
                    done[name] = turn(drawings[name])

        def work_beside(place: int, one: _Beside) -> None:
            try:
                while waiting and not one.ready():
                    pass
                work(one.render)
            except Exception as error:
                _log.warning("what the press does not print is printed here: %r", error)
                self._end(place)

        self.warm()
        with ThreadPoolExecutor(max(1, len(self._beside))) as threads:
            for place, one in enumerate(self._beside):
                if one is not None:
                    threads.submit(work_beside, place, one)
            work(render)
        return {name: done.get(name) or render(drawing) for name, drawing in drawings.items()}

    def close(self) -> None:
        """End what runs beside."""
        for place in range(len(self._beside)):
            self._end(place)

    def _end(self, place: int) -> None:
        one, self._beside[place] = self._beside[place], None
        if one is not None:
            one.end()


class _Beside:
    def __init__(self, idle_s: int) -> None:
        command = (sys.executable, "-P", "-m", "vaultlab.worker.press", str(idle_s))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._stdin, self._stdout = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        self._ready = False

    def runs(self) -> bool:
        return self._process.poll() is None

    def ready(self) -> bool:
        """Waits a moment for its hello."""
        if not self._ready and select.select([self._stdout], [], [], 0.05)[0]:
            self._ready = bool(pickle.load(self._stdout))
        return self._ready

    def render(self, drawing: Drawing) -> Figure:
        self._stdin.write(pickle.dumps(drawing))
        self._stdin.flush()
        return cast(Figure, pickle.load(self._stdout))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """`python -m vaultlab.worker.press IDLE_S`: True when it is ready, then for each drawing on stdin its figure."""

    def say(what: Any) -> None:
        pickle.dump(what, sys.stdout.buffer)
        sys.stdout.buffer.flush()

    idle_s = int(sys.argv[1])
    say(True)
    with suppress(EOFError):
        while True:
            signal.alarm(idle_s)
            drawing = pickle.load(sys.stdin.buffer)
            signal.alarm(0)
            say(render(drawing))


if __name__ == "__main__":
    main()
