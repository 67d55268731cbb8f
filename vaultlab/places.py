"""The folders of this machine's user: where everything lives that is in no vault."""

from pathlib import Path

import platformdirs


def config_dir() -> Path:
    """What the owner of the machine decides: limits, devices, allowed models and texts, template overrides."""
    return platformdirs.user_config_path("vaultlab", appauthor=False)


def state_dir() -> Path:
    """What must not be lost: journal, index, trust, logs."""
    return platformdirs.user_state_path("vaultlab", appauthor=False)


def cache_dir() -> Path:
    """What can be made again: models, results' tensors, the catalogue of experiments."""
    return platformdirs.user_cache_path("vaultlab", appauthor=False)
