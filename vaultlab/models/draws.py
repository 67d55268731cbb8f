"""Randomness that depends on what is named, and on nothing else."""

import hashlib
from typing import Protocol

import torch


class Draws(Protocol):
    """Gives a fresh generator for a name: the same name, the same draws."""

    def __call__(self, *entropy: int | str) -> torch.Generator: ...


def draws(*entropy: int | str) -> torch.Generator:
    """A fresh generator on the CPU, whatever the device, for these words and numbers."""
    digest = hashlib.sha256("/".join(map(str, entropy)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
