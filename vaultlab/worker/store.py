"""Key → what a run left: tensors, and under a look what was measured and drawn. Whole or absent; no pickle anywhere.

A cache: it may be thrown away at any time. `KEY/out/` is what `compute` left, `KEY/views/LOOK/` the metrics, checks and
figures, or why that Ask cannot work. Each is written beside, flushed, then renamed into place; a manifest holds the
hash of every file, and an entry that does not match it is removed and taken for absent.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from vaultlab.errors import RunError
from vaultlab.result import Failure, Figure, Result, decode, encode

BOUND_BYTES = 20 * 10**9
_MANIFEST = "manifest.json"
_ABANDONED_S = 3600.0
_TURNS = 5
_KEY = re.compile(r"[0-9a-f]{64}")


class Store:
    """The results of this machine's user, at most `bound_bytes` of them, the least recently used going first.

    Several workers may share one. What cannot be written for want of room raises RunError.
    """

    def __init__(self, root: Path, bound_bytes: int = BOUND_BYTES) -> None:
        self.root = root
        self.bound_bytes = bound_bytes
        self._used: int | None = None

    def out(self, key: str, kind: type[Any]) -> tuple[Any, dict[str, Any]] | None:
        """What `compute` left, as `kind` (an experiment's Out), with its provenance; None if absent."""
        folder = self.root / key / "out"
        files = self._read(folder)
        try:
            if files is not None:
                facts = json.loads(files["facts.json"])
                values = {name: _settled(value) for name, value in facts["values"].items()}
                return kind(**values, **load(files["tensors.safetensors"])), facts["provenance"]
        except (ValueError, KeyError, TypeError, SafetensorError):
            _remove(folder)
        return None

    def put_out(self, key: str, out: Any, provenance: Mapping[str, Any]) -> None:
        """Keep what `compute` left: tensors and plain values. What was drawn of an earlier one goes."""
        fields = out._asdict()
        tensors = {name: value for name, value in fields.items() if isinstance(value, torch.Tensor)}
        facts = {"values": {name: fields[name] for name in fields if name not in tensors}, "provenance": provenance}
        _remove(self.root / key / "views")
        self._write(self.root / key / "out", {"facts.json": _json(facts), "tensors.safetensors": save(tensors)})

    def view(self, key: str, look: str) -> Result | Failure | None:
        """What was measured and drawn by this look, or the failure that the Ask ends in each time; None if absent."""
        folder = self.root / key / "views" / look
        files = self._read(folder)
        try:
            if files is not None:
                facts = json.loads(files["facts.json"])
                if "failure" in facts:
                    failure: Failure = decode(Failure, facts["failure"])
                    return failure
                figures = {f["name"]: Figure(f["kind"], files[f["file"]], f["alt"]) for f in facts["figures"]}
                result: Result = decode(Result, facts["result"])
                return replace(result, figures=figures)
        except (ValueError, KeyError, TypeError):
            _remove(folder)
        return None

    def put_view(self, key: str, look: str, view: Result | Failure) -> None:
        """Keep what was measured and drawn. Other looks, but for `LOOK-…`, go: they can be drawn from the tensors."""
        files: dict[str, bytes] = {}
        if isinstance(view, Failure):
            facts: dict[str, Any] = {"failure": encode(view)}
        else:
            drawn = [(f"{name}.{figure.kind}", name, figure) for name, figure in view.figures.items()]
            files = {file: figure.content for file, _, figure in drawn}
            figures = [{"file": file, "name": name, "kind": f.kind, "alt": f.alt} for file, name, f in drawn]
            facts = {"result": encode(replace(view, figures={})), "figures": figures}
        for other in (self.root / key / "views").glob("*"):
            if other.name.partition("-")[0] != look.partition("-")[0]:
                _remove(other)
        # Not waited for: each file costs as long as drawing it, and what a power cut spoils is found and drawn anew.
        self._write(self.root / key / "views" / look, {"facts.json": _json(facts), **files}, lasting=False)

    def data(self, key: str) -> dict[str, Any] | None:
        """What an interactive figure of this result is drawn from, under whatever look; None if absent.

        `key` may come from a note: one that is none leads nowhere.
        """
        looks = sorted((self.root / key / "views").glob("*")) if _KEY.fullmatch(key) else []
        for look in looks:
            view = self.view(key, look.name)
            if isinstance(view, Result) and view.data:
                return dict(view.data)
        return None

    def has(self, key: str) -> bool:
        """Whether what `compute` leaves is there."""
        return (self.root / key / "out" / _MANIFEST).is_file()

    def forget(self, keys: Sequence[str]) -> int:
        """Remove the entries of these keys; how many there were."""
        there = [self.root / key for key in keys if (self.root / key).is_dir()]
        for entry in there:
            _remove(entry)
        self._used = None
        return len(there)

    def used_bytes(self) -> int:
        """What the store takes on disk."""
        return _size(self.root)

    def _read(self, folder: Path) -> dict[str, bytes] | None:
        try:
            manifest = json.loads((folder / _MANIFEST).read_bytes())
            files = {name: (folder / name).read_bytes() for name in manifest}
            if any(_sha256(content) != manifest[name] for name, content in files.items()):
                raise ValueError("the files are not those that were written")
            os.utime(self._entry(folder))
        except FileNotFoundError:
            if not folder.is_dir():
                return None
            _remove(folder)
        except (ValueError, OSError, AttributeError):
            _remove(folder)
        else:
            return files
        return None

    def _write(self, folder: Path, files: Mapping[str, bytes], *, lasting: bool = True) -> None:
        manifest = _json({name: _sha256(content) for name, content in files.items()})
        beside = self.root / f".{secrets.token_hex(8)}"
        try:
            beside.mkdir(parents=True)
            for name, content in {**files, _MANIFEST: manifest}.items():
                with (beside / name).open("xb") as file:
                    file.write(content)
                    if lasting:
                        file.flush()
                        os.fsync(file.fileno())
            _place(beside, folder, lasting=lasting)
            self._bound(sum(map(len, files.values())), keep=self._entry(folder))
        except OSError as error:
            _remove(beside)
            raise RunError(
                f"The result could not be kept in {self.root}: {error.strerror}.",
                "Make room on that disk, or the run has to be computed again each time.",
            ) from error

    def _entry(self, folder: Path) -> Path:
        return self.root / folder.relative_to(self.root).parts[0]

    def _bound(self, added: int, keep: Path) -> None:
        """Count what was added; over the bound, let the least recently used go until a tenth is free again."""
        if self._used is None:
            self._sweep_up()
            self._used = self.used_bytes()
        else:
            self._used += added
        if self._used <= self.bound_bytes:
            return
        self._used = self.used_bytes()
        for entry in sorted((e for e in self.root.iterdir() if e != keep), key=_used_at):
            if self._used <= 0.9 * self.bound_bytes:
                return
            self._used -= _size(entry)
            _remove(entry)

    def _sweep_up(self) -> None:
        """What a killed worker was writing: no one has touched it for an hour."""
        for folder in self.root.glob(".*"):
            if time.time() - _used_at(folder) > _ABANDONED_S:
                _remove(folder)


def settled(out: Any) -> Any:
    """What `compute` left as the store gives it back: tensors on the CPU, each with its own memory, lists as tuples."""
    return type(out)(*(_settled(value) for value in out))


def _settled(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, list | tuple):
        return tuple(_settled(item) for item in value)
    return value


def _place(beside: Path, folder: Path, *, lasting: bool) -> None:
    """Rename into place, what was there making way. Where another worker was faster, its entry is as good as ours."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for turn in range(_TURNS):
        _remove(folder)
        try:
            beside.rename(folder)
            break
        except OSError:
            if folder.is_dir():
                _remove(beside)
                break
            if turn == _TURNS - 1:  # else it was there a moment ago: a third worker has just made way for its own
                raise
    if not lasting:
        return
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Rename away, so that no reader meets half of it, then delete."""
    away = folder.with_name(f".{secrets.token_hex(8)}")
    try:
        folder.rename(away)
    except OSError:
        away = folder
    shutil.rmtree(away, ignore_errors=True)


def _used_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:  # another worker has just removed it
                continue
    return total


def _json(what: Any) -> bytes:
    return json.dumps(what, ensure_ascii=False).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
