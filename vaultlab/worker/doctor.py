"""What this machine has for running experiments, each finding with its mend."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import TypedDict

import torch

from vaultlab import __version__, places
from vaultlab.models.device import free_memory, size_of
from vaultlab.models.entry import SMOLLM2, entries
from vaultlab.worker.course import device_name, devices
from vaultlab.worker.store import Store

_PACKAGES = ("torch", "transformers", "safetensors", "matplotlib", "pydantic")
_ROOM_BYTES = 2 * 10**9


class Finding(TypedDict):
    """`mend` is empty where all is well."""

    what: str
    ok: bool
    detail: str
    mend: str


def findings(store: Store) -> list[Finding]:
    """Versions, devices, models, disk and permissions."""
    return [*_versions(), *_devices(), _models(), *_disk(store)]


def _versions() -> list[Finding]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return [
        _fine("vaultlab", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}"),
        _fine("packages", packages),
    ]


def _devices() -> list[Finding]:
    found = [
        _fine(f"device {name}", f"{device_name(device)}, {size_of(free_memory(device))} free")
        for name in devices()
        for device in [torch.device(name)]
    ]
    gpu = shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()
    if gpu and not torch.cuda.is_available():
        if torch.version.cuda is None:
            detail = f"GPU present, CPU torch: torch {torch.__version__} was built without CUDA."
            mend = "Install the CUDA build of torch into this environment: the README says how."
        else:
            detail = f"GPU present, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it."
            mend = "Update the GPU's driver, or install the build of torch that fits it."
        found.append({"what": "GPU", "ok": False, "detail": detail, "mend": mend})
    return found


def _models() -> Finding:
    here = [f"{entry.name} ({size_of(entry.bytes)}, {entry.dtype})" for entry in entries()]
    if here:
        return _fine("models", ", ".join(here))
    return {
        "what": "models",
        "ok": False,
        "detail": "No language model is on this machine; experiments on toy models work without.",
        "mend": f"Get a small one: `vaultlab models pull {SMOLLM2}`.",
    }


def _disk(store: Store) -> list[Finding]:
    found: list[Finding] = [
        _fine("store", f"{size_of(store.used_bytes())} of {size_of(store.bound_bytes)} used, in {store.root}")
    ]
    for what, folder in (("cache", places.cache_dir()), ("state", places.state_dir()), ("config", places.config_dir())):
        stands = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(stands, os.W_OK):
            mend = f"Give yourself the right to write there: `chmod u+w {stands}`."
            found.append({"what": f"{what} folder", "ok": False, "detail": f"{stands} is not writable.", "mend": mend})
        elif what == "cache" and (free := shutil.disk_usage(stands).free) < _ROOM_BYTES:
            mend = "Make room there, or point XDG_CACHE_HOME to another disk."
            found.append({"what": "disk", "ok": False, "detail": f"{size_of(free)} free at {stands}.", "mend": mend})
        else:
            found.append(_fine(f"{what} folder", str(folder)))
    return found


def _fine(what: str, detail: str) -> Finding:
    return {"what": what, "ok": True, "detail": detail, "mend": ""}
