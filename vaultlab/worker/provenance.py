"""What a result was computed and drawn with: written beside it, and never a reason to compute it again."""

import datetime
import hashlib
import importlib.metadata
import inspect
import platform
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import torch

from vaultlab import __version__, plots
from vaultlab.experiment import Experiment
from vaultlab.models.entry import read_entry
from vaultlab.worker.asked import Run
from vaultlab.worker.course import device_name


def provenance(device: torch.device, run: Run) -> dict[str, Any]:
    """Versions, device, the moment, and the content of what was read."""
    return {
        "vaultlab": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers")},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "computed": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "models": {getattr(run.spec, name): _model(getattr(run.spec, name)) for name in run.models},
        "texts": {name: {"name": text.name, "sha256": text.sha256} for name, text in run.texts.items()},
        **({"given": {name: one.key for name, one in run.given.items()}} if run.given else {}),
        **({"seed": run.spec.seed} if hasattr(run.spec, "seed") else {}),
    }


@cache  # ten milliseconds each, for every point of a sweep
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _model(name: str) -> dict[str, str]:
    entry = read_entry(name)
    return {"family": entry.family, "dtype": entry.dtype, "sha256": entry.sha256()}


def look(experiment: Experiment) -> str:
    """What measuring and drawing depend on beside the tensors: the experiment's file, the house style, matplotlib."""
    style = sorted(path for folder in plots.__path__ for path in Path(folder).glob("*.py"))
    source = inspect.getsourcefile(experiment.draw)
    own = (Path(source),) if source else ()
    return hashlib.sha256(f"{_source_hash(*own, *style)}{matplotlib.__version__}".encode()).hexdigest()[:16]


@cache  # of the code as it was imported: an edit afterwards is seen by the next worker
def _source_hash(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
