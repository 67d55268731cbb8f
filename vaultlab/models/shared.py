"""What many runs ask for alike: whoever comes first computes it, the others find it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

Found = TypeVar("Found")

Keep = Callable[[Callable[[], Found]], None]
"""Called where the work could be taken up again, at least every few seconds: its argument gives what there is so far,
and is called only where that is kept now."""


class Shared(Protocol):
    """Gives what is asked for, from a store or from `work`.

    `what` says all that decides what comes out, as plain data; of a model or text its content's hash. `kind` is a
    NamedTuple of tensors and plain values. `work` is given what an earlier try had come to, or None, and ends it.
    """

    def __call__(
        self, what: Mapping[str, Any], kind: type[Found], work: Callable[[Found | None, Keep[Found]], Found]
    ) -> Found: ...


def unshared(what: Mapping[str, Any], kind: type[Found], work: Callable[[Found | None, Keep[Found]], Found]) -> Found:
    """Where there is no store: everyone works alone."""
    return work(None, lambda found: None)
