"""The door to a worker: start it, ask, follow, cancel, time out, start again. JSON lines over pipes, a process group each."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from vaultlab.result import Answer, Ask, Plan, Progress


class Lab:
    """A worker, started when it is first needed and again after it died. Its methods may be called from several threads."""

    def __init__(self, command: Sequence[str] | None = None, device: str | None = None) -> None:
        self.command = command
        self.device = device

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, ask: Ask, progress: Callable[[Progress], None] | None = None) -> Answer:
        """Run it and wait. Whatever happens to the worker, an Answer comes back; Ctrl-C cancels the run, then is raised."""
        raise NotImplementedError

    def cancel(self, id: str) -> None:
        """Cancel the runs of this Ask's id, from another thread: a flag, then SIGTERM, then SIGKILL to the worker's group."""
        raise NotImplementedError

    def plan(self, ask: Ask) -> Plan:
        """What a run would be, without running it; answered while another run computes. RunError if no worker can start."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """What the worker has: {"vaultlab": version, "experiments": {name: entry}}, as `Catalogue` keeps it."""
        raise NotImplementedError

    def models(
        self, action: str, progress: Callable[[Progress], None] | None = None, **arguments: Any
    ) -> list[dict[str, Any]]:
        """`list`, `pull` (name), `add` (name, path), `remove` (name), `find` (word): the models it is about. RunError, NoteError."""
        raise NotImplementedError

    def doctor(self) -> list[dict[str, Any]]:
        """Findings {what, ok, detail, mend} about versions, devices, models and disk, as the worker sees them."""
        raise NotImplementedError

    def forget(self, keys: Sequence[str]) -> int:
        """Take results out of the worker's store; how many were there."""
        raise NotImplementedError

    def close(self) -> None:
        """End the worker, computing or not."""
