"""How much memory a device has left, and sizes in words."""

import psutil
import torch

from vaultlab.errors import RunError


def check_memory(name: str, needed: int, device: torch.device) -> None:
    """Raises RunError where a device has no room for `needed` bytes of weights."""
    free = free_memory(device)
    if needed > 0.9 * free:
        raise RunError(
            f"The model `{name}` needs {size_of(needed)}, and {size_of(free)} are free on {device}.",
            "Close other programs, take a smaller model, or another device.",
        )


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return int(psutil.virtual_memory().available)


def size_of(count: int) -> str:
    """7.1 GB, 540 MB, 0.11 MB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.2g} MB"
