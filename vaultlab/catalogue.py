"""What the experiments are, without importing one: the worker's `describe`, kept in the user's cache until the code changes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Entry:
    """One experiment. `schema` is its Spec's JSON schema; metrics and examples are as `Quantity` and `Example` have them."""

    name: str
    version: int
    page: str
    schema: Mapping[str, Any]
    metrics: tuple[Mapping[str, Any], ...]
    figures: Mapping[str, str]
    examples: tuple[Mapping[str, Any], ...]

    @property
    def fields(self) -> Mapping[str, Mapping[str, Any]]:
        """Name → JSON schema of the field, in the Spec's order."""
        return self.schema["properties"]

    @property
    def title(self) -> str:
        """The first line of the manual page."""
        return self.page.strip().splitlines()[0]

    @property
    def defaults(self) -> dict[str, Any]:
        return {name: entry.get("default") for name, entry in self.fields.items()}

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The fields of this kind: `model`, `text`, `head`."""
        raise NotImplementedError

    def metric(self, name: str) -> Mapping[str, Any] | None:
        raise NotImplementedError


@dataclass(frozen=True)
class Catalogue:
    """Name → entry, for every experiment."""

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def nearest(self, name: str) -> str | None:
        """The experiment whose name is most like this one, or None."""
        raise NotImplementedError


def load(describe: Callable[[], Mapping[str, Any]]) -> Catalogue:
    """The catalogue of this very code; `describe` is called only when the kept one is of other code."""
    raise NotImplementedError


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The one of `names` that was probably meant, or None."""
    raise NotImplementedError


def example_block(entry: Entry, example: str) -> str:
    """The fenced block of an example, ready to paste."""
    raise NotImplementedError


def lab_ask(
    experiment: str,
    version: int,
    fields: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]] = (),
    models: Mapping[str, str] | None = None,
    texts: Mapping[str, str] | None = None,
) -> str:
    """The hash of what a block asks, in any order: `models` and `texts` are name or field → content hash."""
    raise NotImplementedError
