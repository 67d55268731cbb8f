"""A name → a model. The only place that loads weights, and never from the network."""

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from vaultlab.errors import RunError
from vaultlab.models import families, pattern, toys
from vaultlab.models.device import check_memory
from vaultlab.models.entry import Entry, check_files, corrupt, folder_of, read_entry
from vaultlab.models.family import Family, Shape
from vaultlab.models.model import Model

logging.disable_progress_bar()

FAMILIES: dict[str, Family] = {
    model_type: module.FAMILY
    for info in pkgutil.iter_modules(families.__path__, f"{families.__name__}.")
    for module in [importlib.import_module(info.name)]
    for model_type in module.FAMILY.model_types
}
"""transformers' `model_type` → how it is read. A family is a file in `families/`; nothing lists them by hand."""


@torch.inference_mode(False)  # within an experiment's inference too: what others load, gradients must pass through
def load(name: str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Model:
    """A model that this machine has, its weights mapped from disk. `dtype` is the entry's own unless given.

    Raises RunError where it is not here, damaged, of a family that is not known, or larger than the free memory.
    """
    entry = read_entry(name)
    folder = folder_of(name)
    kind = dtype or getattr(torch, entry.dtype)
    place = torch.device(device)
    check_files(entry, folder)
    shape = _entry_shape(entry, folder)
    check_memory(name, entry.parameters * kind.itemsize, place)
    net = open_net(folder, kind).to(place)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return assemble(name, entry.sha256(str(kind).removeprefix("torch.")), net, tokenizer, shape)


def read_shape(name: str) -> Shape:
    """A model's measures, without its weights; a toy need not be trained for that. Raises RunError as `load` does."""
    if name in toys.TOYS:
        count = toys.parameters(toys.TOYS[name])
        return replace(shape_of(toys.TOYS[name]), parameters=count, bytes=4 * count)
    return _entry_shape(read_entry(name), folder_of(name))


def assemble(name: str, sha256: str, net: nn.Module, tokenizer: Any, shape: Shape | None = None) -> Model:
    """A model from a transformers net in memory, which from now on runs our attention and takes no gradients."""
    module: Any = net
    module.eval().requires_grad_(False)
    module.set_attn_implementation(pattern.NAME)
    weights = list(module.parameters())
    if shape is None:
        count = sum(weight.numel() for weight in weights)
        shape = replace(shape_of(module.config), parameters=count, bytes=count * weights[0].element_size())
    return Model(name, sha256, weights[0].dtype, shape, net, tokenizer, family_of(module.config.model_type))


def open_net(folder: Path, dtype: torch.dtype, **more: Any) -> nn.Module:
    """The net in a folder of safetensors, on the CPU. Nothing is downloaded, no code of the folder runs."""
    net: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False, **more
    )
    return net


def family_of(model_type: str) -> Family:
    """How this `model_type` is read. Raises RunError with the list of those that are known."""
    try:
        return FAMILIES[model_type]
    except KeyError:
        raise RunError(
            f"Models of the kind `{model_type}` are not known to vaultlab.",
            f"It reads these: {', '.join(sorted(FAMILIES))}.",
        ) from None


def shape_of(config: Any) -> Shape:
    """The measures that a transformers config states, parameters and bytes left at 0.

    Raises RunError as `family_of` does, and where this one model has something that its family's file cannot handle.
    """
    shape = family_of(config.model_type).shape(config)
    if isinstance(shape, str):
        raise RunError(f"This `{config.model_type}` model cannot be read: {shape}.", "Choose another model.")
    return shape


def _entry_shape(entry: Entry, folder: Path) -> Shape:
    family_of(entry.model_type)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise corrupt(entry.name, "its config cannot be read") from error
    return replace(shape_of(config), parameters=entry.parameters, bytes=entry.bytes)
