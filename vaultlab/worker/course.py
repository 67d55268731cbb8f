"""The course of one Ask: what it reports, what stops it, what it takes. And the device that it runs on."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from vaultlab.errors import RunError
from vaultlab.result import Ask, Progress

_EVERY_S = 0.1
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
"""On the CPU; on a GPU, outside of torch's own memory too; in cuBLAS and cuDNN."""


class Stopped(Exception):
    """Raised out of `Bench.progress`: the run was cancelled, or its time is over. `why` is `cancelled` or `time`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Course:
    """Passes progress on, at most ten times a second, and stops the run that is cancelled or over its time."""

    def __init__(
        self, ask: Ask, device: torch.device, send: Callable[[Progress], None], cancelled: Callable[[], bool]
    ) -> None:
        self.ask = ask
        self.device = device
        self.prefix = ""
        self.rest_s: float | None = 0.0
        """How long what comes behind the run under way will take; None where nobody can say yet."""
        self._send = send
        self._cancelled = cancelled
        self._began = self._phase_began = self._sent = time.monotonic()
        self._phase = ""

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def report(self, phase: str, done: int, total: int) -> None:
        """What `Bench.progress` calls. Raises Stopped."""
        if self._cancelled():
            raise Stopped("cancelled")
        if self.elapsed_s > self.ask.limits.time_s:
            raise Stopped("time")
        phase, now = self.prefix + phase, time.monotonic()
        if phase != self._phase:
            self._phase, self._phase_began = phase, now
        elif now - self._sent < _EVERY_S and done < total:
            return
        self._sent = now
        elapsed = now - self._phase_began
        eta_s = elapsed / done * (total - done) if done and elapsed > 0 else None
        eta_s = eta_s + self.rest_s if eta_s is not None and self.rest_s is not None else None
        self._send(Progress(self.ask.id, phase, done, total, eta_s, used_memory(self.device)))


def choose(wanted: str | None) -> torch.device:
    """The device asked for, else the best one here. RunError where this machine has it not."""
    here = devices()
    if wanted is None:
        return torch.device(here[0])
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    there = device is not None and device.type in [torch.device(name).type for name in here]
    if device is None or not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        only = os.environ.get("CUDA_VISIBLE_DEVICES")
        alone = "" if only is None else f" (with CUDA_VISIBLE_DEVICES={only})"
        raise RunError(f"This machine has no device called `{wanted}`{alone}.", f"It has: {', '.join(here)}.")
    return device


def devices() -> tuple[str, ...]:
    """What this machine can compute on, best first."""
    cuda = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) if torch.cuda.is_available() else ()
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*cuda, *mps, "cpu")


def device_name(device: torch.device) -> str:
    """The device as a reader knows it: `cuda (NVIDIA A100)`, `cpu`."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def used_memory(device: torch.device) -> int:
    """Bytes that this process has taken now: on a GPU its tensors, else its resident memory."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def watch_peak(device: torch.device) -> None:
    """From now on `peak_memory` counts anew, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # a container may forbid it; then the peak is the process's
            return


def peak_memory(device: torch.device) -> int:
    """Most bytes taken since `watch_peak`; elsewhere than on Linux and CUDA, what is taken now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return used_memory(device)


def short_of_memory(error: BaseException) -> bool:
    """Whether this is the machine's memory running out, in any of the ways in which torch says so."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def device_broken(error: BaseException) -> bool:
    """A CUDA fault: this process cannot use the device again."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
