"""Which files of a vault are notes."""

import os
import re
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vaultlab.errors import VaultError
from vaultlab.vault.files import Stat, stat_of

_CONFLICT = re.compile(r"\.sync-conflict-\d{8}-\d{6}|\([^)]*conflicted copy[^)]*\)|\(case conflict", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A Markdown file of the vault: its vault-relative path with `/`, as it is on the disk, and what stat says."""

    path: str
    stat: Stat


def same_name(path: str) -> str:
    """A path in the form in which paths are compared."""
    return unicodedata.normalize("NFC", path).casefold()


def find(root: Path, folder: str, ignored: Callable[[str], bool]) -> tuple[list[Found], dict[str, str]]:
    """Every note of the vault and every page in the results folder; and path → sentence for what cannot be looked at.

    Hidden folders (`.obsidian`, `.trash`), links, excluded files, sync-conflict copies and the folders within the
    results folder are passed over.
    """
    found: list[Found] = []
    problems: dict[str, str] = {}
    own = same_name(folder)
    waiting = [""]
    while waiting:
        base = waiting.pop()
        in_own = same_name(base.rstrip("/")) == own
        try:
            entries = list(os.scandir(f"{root}/{base}"))  # a Path for each would take as long as the scan
        except FileNotFoundError:
            if not base:
                raise VaultError(f"There is no vault at {root}.", "Check the path.") from None
            continue
        except OSError as error:
            problems[base.rstrip("/") or "."] = f"This folder could not be opened: {error.strerror}."
            continue
        for entry in entries:
            path = base + entry.name
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                if not in_own:
                    waiting.append(path + "/")
            elif entry.name[-3:].lower() == ".md" and entry.is_file(follow_symlinks=False):
                if not path.isprintable() and not _is_text(path):
                    problems[ascii(path)[1:-1]] = "The name of this file is not UTF-8; rename it."
                elif not _CONFLICT.search(entry.name) and (in_own or not ignored(path)):
                    with suppress(FileNotFoundError):
                        found.append(Found(path, stat_of(entry.stat(follow_symlinks=False))))
    return found, problems


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
