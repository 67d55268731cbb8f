"""The vault's and the owner's configuration → Config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vaultlab.result import Limits


@dataclass(frozen=True, slots=True)
class Config:
    """Everything configured. `defaults` and `looks` and `folder` come from the vault, the rest from the owner.

    `ignored` says whether a vault-relative path is excluded in Obsidian; `problems` are sentences to show.
    """

    folder: str = "vaultlab"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    looks: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    device: str | None = None
    models: tuple[str, ...] = ()
    texts: Mapping[str, Path] = field(default_factory=dict)
    search: tuple[str, ...] = ()
    templates: Path | None = None
    ignored: Callable[[str], bool] = lambda path: False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Locked:
    """A model as this vault knows it: the same name means the same weights on every machine."""

    sha256: str
    family: str
    dtype: str


def load(root: Path, owner: Path) -> Config:
    """The configuration of the vault at `root`; `owner` is the owner's folder (places.config_dir())."""
    raise NotImplementedError


def read_lock(root: Path) -> dict[str, Locked]:
    """`.vaultlab/models.lock`: model name → what it was. NoteError if it cannot be read."""
    raise NotImplementedError


def write_lock(root: Path, models: Mapping[str, Locked]) -> bool:
    """Write the lock; False where it already says so."""
    raise NotImplementedError
