"""A sweep of 1 000 models on the way that a block goes: at most 60 s are wanted, all included.

A note with a block of 1 000 sparsities, 5 → 2 models with a batch of 256 and 4 000 steps, rendered in a vault of its
own with a store and a catalogue of its own: the worker started, planned, trained as batches, examined, stored, drawn
and written. Then rendered again, where all is stored. The plain way beside it is one autograd loop a model, timed on
one of them. Prints wall-clock seconds and those that all processes together were computing, which other work on the
machine lengthens less.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tests.bench.superposition import by_autograd
from vaultlab.models.autoencoder import Course, Toy

POINTS, STEPS, BATCH = 1000, 4000, 256
WANTED_S = 60.0
TOY = Toy(features=5, hidden=2, importance=1.0, relu=True)
COURSE = Course(steps=STEPS, batch=BATCH, learning_rate=0.01, seeds=1, seed=0)

NOTE = """---
tags: [experiment]
---
```vaultlab
superposition: many
features: 5
hidden: 2
batch: {batch}
steps: {steps}
seeds: 1
sweep:
  sparsity: [{values}]
expect:
  - max of loss < 1
```
"""


def render(folder: Path) -> tuple[float, float]:
    """Wall-clock and computing seconds of `vaultlab render`, the worker's among them."""
    homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("STATE", "CONFIG", "CACHE")}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "vaultlab", "render", str(folder / "vault"), "--id", "many"],
        check=True,
        env={**os.environ, **homes},
        stdout=subprocess.DEVNULL,
    )
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        values = ", ".join(f"{0.99 * point / POINTS:.5f}" for point in range(POINTS))
        (folder / "vault").mkdir()
        (folder / "vault" / "Many.md").write_text(NOTE.format(batch=BATCH, steps=STEPS, values=values))
        for what in ("new", "stored"):
            wall, computing = render(folder)
            print(f"sweep  {POINTS} models, {what}: {wall:.1f} s (at most {WANTED_S:.0f}), computing {computing:.1f} s")
    torch.set_num_threads(1)
    start = time.process_time()
    by_autograd(TOY, COURSE, [0.9])
    alone = time.process_time() - start
    print(f"sweep  the plain loop computes {alone:.1f} s for one model, {alone * POINTS / 60:.0f} minutes for all")


if __name__ == "__main__":
    main()
