"""The vault's and the owner's configuration → Config.

`.vaultlab/config.toml` comes with the vault, through a sync or a clone, so it may grant nothing:

    folder = "vaultlab"                # where results go
    [defaults]                         # a field's value for every block that does not write it
    model = "smollm2-135m"

The owner's own `config.toml`, in the user's configuration folder:

    device = "cuda"                    # or cuda:1, mps, cpu, or the name of a worker below
    models = ["smollm2-135m"]          # which models notes may name; unset: every model that is here
    search = ["Ideas/**"]              # notes that may be quoted in another note's result
    templates = "templates"            # what a result note looks like
    [limits]
    time_s = 3600                      # also memory_bytes, points (of a sweep)
    [texts]
    moby = "~/texts/moby.txt"          # text files, by the names that notes use
    [workers.box]                      # a worker on another machine: what leads to it, without asking anything
    command = ["ssh", "box", "vaultlab-worker"]
"""

import difflib
import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vaultlab.errors import NoteError
from vaultlab.result import Limits
from vaultlab.vault.files import inside, replace

VAULT_FILE = ".vaultlab/config.toml"
TEMPLATE = """# What vaultlab does in this vault. This file travels with the vault, so it may grant nothing.

# The folder that results are written to. It belongs to vaultlab.
# folder = "vaultlab"

# A field's value for every block that does not write it itself.
# [defaults]
# model = "smollm2-135m"
"""
_LOCK_FILE = ".vaultlab/models.lock"
_SETTINGS = "app.json"
_VAULT_KEYS = ("folder", "defaults")
_OWNER_KEYS = ("device", "models", "search", "templates", "limits", "texts", "workers")
_WORKER = re.compile(r"(?!(?:cuda|mps|cpu)(?:\W|$))[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything configured. `folder` and `defaults` come from the vault, the rest from the owner.

    `ignored` says whether a vault-relative path is excluded in Obsidian; `problems` are sentences to show: whatever
    they are about, the rest of the configuration holds.
    """

    folder: str = "vaultlab"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    device: str | None = None
    workers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    models: tuple[str, ...] | None = None
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
    """The configuration of the vault at `root`; `owner` is the owner's folder (places.config_dir()).

    NoteError where the results folder is a link out of the vault: there is nowhere to write then.
    """
    problems: list[str] = []
    found = {**_of_owner(owner, problems), **_of_vault(root, owner, problems)}
    inside(root, found.get("folder", Config().folder))
    return Config(**found, ignored=_obsidian_ignores(root, problems), problems=tuple(problems))


def of_owner(owner: Path) -> Config:
    """The owner's part alone, where no vault is meant."""
    problems: list[str] = []
    return Config(**_of_owner(owner, problems), problems=tuple(problems))


def _of_vault(root: Path, owner: Path, problems: list[str]) -> dict[str, Any]:
    try:
        table = _toml(inside(root, VAULT_FILE), VAULT_FILE, problems)
    except NoteError as error:
        problems.append(str(error))
        return {}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in _OWNER_KEYS:
            problems.append(
                f"{VAULT_FILE} sets `{key}`, which a vault may not do: it comes with the notes, and only the owner "
                f"of a machine can allow that. If you are, write it in {owner / 'config.toml'}; here it does nothing."
            )
        elif key not in _VAULT_KEYS:
            problems.append(_unknown(key, _VAULT_KEYS, VAULT_FILE))
        elif key == "folder":
            complaint = _folder_complaint(value)
            if complaint:
                problems.append(f"In {VAULT_FILE}, `folder = {value!r}` {complaint}; `vaultlab` is used.")
            else:
                found["folder"] = unicodedata.normalize("NFC", value)
        elif not isinstance(value, dict):
            problems.append(f"In {VAULT_FILE}, `{key}` is a table: write `[{key}]` and its values below.")
        else:
            found[key] = {name: v for name, v in value.items() if _plain(v)}
            problems += [
                f"In {VAULT_FILE}, `{key}.{name}` is neither text, a number, true or false, nor a list of them; "
                "it does nothing."
                for name in value.keys() - found[key].keys()
            ]
    return found


def _of_owner(owner: Path, problems: list[str]) -> dict[str, Any]:
    path = owner / "config.toml"
    found: dict[str, Any] = {}
    for key, value in _toml(path, str(path), problems).items():
        match key, value:
            case "device", str():
                found[key] = value
            case "templates", str():
                found[key] = owner / Path(value).expanduser()
            case (("models" | "search"), list()) if all(isinstance(item, str) for item in value):
                found[key] = tuple(value)
            case "texts", dict() if all(isinstance(item, str) for item in value.values()):
                found[key] = {name: owner / Path(item).expanduser() for name, item in value.items()}
            case "limits", dict():
                found[key] = _limits(value, path, problems)
            case "workers", dict():
                found[key] = _workers(value, path, problems)
            case _ if key in _OWNER_KEYS:
                problems.append(f"In {path}, `{key} = {value!r}` is not of the right kind; it does nothing.")
            case _:
                problems.append(_unknown(key, _OWNER_KEYS, str(path)))
    return found


def _limits(table: Mapping[str, Any], path: Path, problems: list[str]) -> Limits:
    kinds = {name: type(usual) for name, usual in asdict(Limits()).items()}
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name not in kinds:
            problems.append(_unknown(name, kinds, f"[limits] of {path}"))
        elif isinstance(value, bool) or not isinstance(value, (int, kinds[name])) or not value > 0:
            problems.append(f"In {path}, `limits.{name} = {value!r}` is no positive number; the usual limit holds.")
        else:
            found[name] = kinds[name](value)
    return Limits(**found)


def _workers(table: Mapping[str, Any], path: Path, problems: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, value in table.items():
        command = value.get("command") if isinstance(value, dict) and len(value) == 1 else None
        if not _WORKER.fullmatch(name):
            problems.append(f"In {path}, `{name}` is no name for a worker: letters and digits, and no device's name.")
        elif not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
            problems.append(
                f"In {path}, `workers.{name}` has to say its command and nothing else, word for word: "
                f'`command = ["ssh", "{name}", "vaultlab-worker"]`; it does nothing.'
            )
        else:
            found[name] = tuple(command)
    return found


def _toml(path: Path, name: str, problems: list[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{name} could not be read ({error}); it is as if it were not there.")
        return {}


def _unknown(key: str, known: Collection[str], where: str) -> str:
    near = difflib.get_close_matches(key, known, 1)
    mend = f"did you mean `{near[0]}`?" if near else f"it may have {', '.join(known)}."
    return f"`{key}` means nothing in {where}: {mend}"


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float) or (isinstance(value, list) and all(map(_plain, value)))


def _folder_complaint(folder: object) -> str:
    if not isinstance(folder, str) or not folder.strip():
        return "is no folder's name"
    if folder.startswith("/") or "\\" in folder or ":" in folder:
        return "must be a path within the vault, written with `/`"
    parts = folder.split("/")
    if any(part in ("", "..") or part.startswith(".") for part in parts):
        return "may have no `..` and no hidden or empty part"
    if set(folder) & set('[]#^|*?"<>') or not folder.isprintable() or any(part != part.strip() for part in parts):
        return "has characters that a link cannot have"
    return ""


def _obsidian_ignores(root: Path, problems: list[str]) -> Callable[[str], bool]:
    """What the author excluded in Obsidian: a path's beginning, or a /regular expression/."""
    settings = obsidian_folder(root) / _SETTINGS
    try:
        listed = json.loads(settings.read_bytes()).get("userIgnoreFilters") or [] if settings.is_file() else []
    except (OSError, ValueError, AttributeError) as error:
        problems.append(f"Obsidian's list of excluded files could not be read ({error}); none is excluded.")
        return lambda path: False
    rules = []
    for rule in listed:
        text = unicodedata.normalize("NFC", str(rule))
        try:
            if len(text) > 2 and text[0] == text[-1] == "/":
                rules.append(re.compile(text[1:-1]))
            elif text:
                rules.append(re.compile("^" + re.escape(text), re.IGNORECASE))
        except re.error as error:
            problems.append(f"Obsidian's rule of excluded files `{text}` could not be understood: {error}.")
    return lambda path: any(rule.search(unicodedata.normalize("NFC", path)) for rule in rules)


def obsidian_folder(root: Path) -> Path:
    """`.obsidian`, or the folder that its author uses in its place: its name starts with a dot too."""
    usual = root / ".obsidian"
    with suppress(OSError):
        for settings in (usual / _SETTINGS, *sorted(root.glob(f".*/{_SETTINGS}"))):
            if settings.is_file():
                return settings.parent
    return usual


def read_lock(root: Path) -> dict[str, Locked]:
    """`.vaultlab/models.lock`: model name → what it was. NoteError if it cannot be read."""
    path = inside(root, _LOCK_FILE)
    try:
        return {name: Locked(**entry) for name, entry in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        mend = "Take it back from a backup or another machine; deleting it forgets which weights the names stood for."
        raise NoteError(f"{_LOCK_FILE} could not be read ({error}).", mend) from error


def write_lock(root: Path, models: Mapping[str, Locked]) -> bool:
    """Write the lock; False where it already says so."""
    text = json.dumps({name: asdict(models[name]) for name in sorted(models)}, indent=2, ensure_ascii=False)
    return replace(inside(root, _LOCK_FILE), (text + "\n").encode())
