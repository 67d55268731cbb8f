"""The toys by name. A name stands for the recipe by which `toys` trains it, and is known without training it."""

import hashlib

RECIPE = 1
"""Raise it when training would give another model: it is part of every toy's hash."""

NAMES = ("toy/attn-only-1l", "toy/attn-only-2l", "toy/decline")


def sha256(name: str) -> str:
    """A toy's content is its recipe's: another machine adds up in another order, and trains it to other last digits."""
    return hashlib.sha256(f"{name} {RECIPE}".encode()).hexdigest()
