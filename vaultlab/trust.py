"""Which vaults, models and texts the owner of this machine has allowed."""

import difflib
import json
import os
import platform
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vaultlab import places
from vaultlab.errors import NoteError, RunError

MEANS = (
    "To trust this vault means: whatever its notes ask for runs on this machine by itself, with the models and texts "
    "that you allow, within your limits; notes hold no code. Trust it only if you know who writes in it."
)

_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?(?:@[\w.-]+)?")
_TOYS = "toy/"
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt", ".pth")


def model(name: str, allowed: Collection[str] | None = None) -> None:
    """NoteError unless a note may name this model: a name, no path, and on the owner's list where there is one. A toy
    is trained on this machine: it needs no leave.
    """
    if not _MODEL.fullmatch(name) or name.lower().endswith(_WEIGHTS):
        mend = "Give it a name first, `vaultlab models add NAME PATH`, and write the name here."
        raise NoteError(f"`{name}` is no model's name, and a note may not name a path.", mend, field="model")
    if allowed is not None and name not in allowed and not name.startswith(_TOYS):
        mend = "The owner can add it to `models` in the config.toml of vaultlab's configuration folder."
        raise NoteError(f"The model `{name}` is not one that this machine's owner allows.", mend, field="model")


def text_file(name: str, named: Mapping[str, Path]) -> Path:
    """The file that the owner has given this name; NoteError with the nearest. A path is no name."""
    if name in named:
        return named[name]
    near = difflib.get_close_matches(name, named, 1)
    mend = f"Did you mean `{near[0]}`?" if near else "The owner can name it under [texts] in vaultlab's config.toml."
    raise NoteError(f"No text file is called `{name}` on this machine.", mend)


def listed(path: str, globs: Collection[str]) -> bool:
    """Whether the owner lets this note be searched. `*` and `?` stay within a folder, `**` goes through folders."""
    return any(re.fullmatch(_pattern(_plain(glob)), _plain(path)) for glob in globs)


def public(path: str, frontmatter: Mapping[str, Any]) -> bool:
    """Whether a note may be quoted in another's result: no draft, not kept from publishing, not in `private/`."""
    folders = _plain(path).split("/")[:-1]
    return not ("private" in folders or _says(frontmatter, "publish", False) or _says(frontmatter, "draft", True))


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _says(frontmatter: Mapping[str, Any], key: str, answer: bool) -> bool:
    """`no` and `"false"` are text in YAML, but whoever wrote them meant it."""
    words = ("true", "yes", "on", "1") if answer else ("false", "no", "off", "0")
    return any(name.casefold() == key and str(value).strip().casefold() in words for name, value in frontmatter.items())


def _pattern(glob: str) -> str:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob))


def trusted(vault: Path) -> bool:
    """Whether the owner has trusted this vault on this machine."""
    return _named(vault) in _vaults()


def trust(vault: Path) -> None:
    """Trust this vault on this machine, from now on. RunError where that cannot be kept."""
    _keep({*_vaults(), _named(vault)})


def distrust(vault: Path) -> None:
    """Trust it no longer. RunError where that cannot be kept."""
    _keep({*_vaults()} - {_named(vault)})


def _keep(vaults: Collection[str]) -> None:
    path = places.state_dir() / "trust.json"
    temporary = path.with_name(f".trust.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(sorted(vaults), file)
        os.replace(temporary, path)
    except OSError as error:
        mend = f"Make {path.parent} writable."
        raise RunError(f"Which vaults are trusted could not be kept: {error.strerror}.", mend) from error


def _named(vault: Path) -> str:
    """This vault on this machine: a home folder may be shared by several."""
    return f"{platform.node()}:{vault.resolve()}"


def _vaults() -> list[str]:
    """Every trusted vault; none where the list cannot be read."""
    try:
        found = json.loads((places.state_dir() / "trust.json").read_bytes())
    except (OSError, ValueError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
