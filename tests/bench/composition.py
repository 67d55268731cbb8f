"""All composition scores of smollm2-135m, of every pair of 270 heads by queries, keys and values: in 20 s, two cores.

Beside it the same with transformer-lens 4, step for step as its `composition_scores` does it, but with one layer of
readers at a time: for all at once it expands both sides to every pair, 21 GB for this model. It is handed our weights,
gains folded. It knows no RoPE, so both arms have queries and keys at no distance. Each arm is a process of its own;
memory is the most that it held above what it held with the model loaded. transformer-lens is installed for this alone,
in a virtual environment whose python VAULTLAB_TRANSFORMER_LENS names; where it names none that arm is left out, and
that is said.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from torch import Tensor

from vaultlab.models.composition import factors, readers, scores
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
from vaultlab.models.model import Model

WANTED_S, WANTED_APART = 20.0, 1e-4
NAMED = "VAULTLAB_TRANSFORMER_LENS"


def ours(model: Model) -> Tensor:
    """[kind, writer, reader], heads counted layer by layer, 0 where the writer is not before the reader."""
    heads, layers = model.shape.heads, model.shape.layers
    found = torch.zeros(3, layers * heads, layers * heads)
    written: list[Tensor] = []
    for layer in range(layers):
        own = factors(readers(model, layer, torch.float32), [0])
        cols = slice(layer * heads, (layer + 1) * heads)
        for earlier, writes in enumerate(written):
            found[:, earlier * heads : (earlier + 1) * heads, cols] = scores(writes, own.reads)
        written.append(own.writes)
    return found


def theirs(model: Model) -> Tensor:
    """The same numbers by transformer-lens: the steps of its `composition_scores`, the product layer by layer."""
    Factored = importlib.import_module("transformer_lens").FactoredMatrix
    heads, layers = model.shape.heads, model.shape.layers
    found = torch.zeros(3, layers * heads, layers * heads)
    parts = [readers(model, layer, torch.float32) for layer in range(layers)]
    W_Q, W_K, W_V, W_O = (torch.cat([getattr(one, name) for one in parts]) for name in ("W_Q", "W_K", "W_V", "W_O"))
    OV, QK = Factored(W_V, W_O), Factored(W_Q, W_K.mT)
    left = OV.collapse_l()
    left_norms = left.norm(dim=(-2, -1))[:, None]
    for kind, right in enumerate((QK, QK.T, OV)):
        right = right.collapse_r()
        for start in range(heads, layers * heads, heads):
            these = right[start : start + heads]
            norms = (left[:start, None] @ these[None]).norm(dim=(-2, -1))
            found[kind, :start, start : start + heads] = norms / left_norms[:start] / these.norm(dim=(-2, -1))
    return found


ARMS: dict[str, Callable[[Model], Tensor]] = {"ours": ours, "theirs": theirs}


@torch.inference_mode()
def arm(name: str, file: str) -> None:
    """Run one arm; leave its scores in a file, and say how long and how much it took."""
    model = load(SMOLLM2)
    before = psutil.Process().memory_info().rss
    start, cpu = time.perf_counter(), time.process_time()
    found = ARMS[name](model)
    took = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    torch.save(found, file)
    print(json.dumps({**took, "bytes": max(0, most - before)}))


def started(python: str, name: str, folder: Path) -> tuple[dict[str, float], Tensor]:
    """What one arm took, in a process of its own, and its scores."""
    file = folder / f"{name}.pt"
    command = [python, "-m", "tests.bench.composition", name, str(file)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    took: dict[str, float] = json.loads(said.splitlines()[-1])
    print(
        f"composition  {name:6}  {took['seconds']:5.1f} s, {took['cpu_s']:5.1f} s of all cores, "
        f"{took['bytes'] / 1e6:,.0f} MB"
    )
    return took, torch.load(file, weights_only=True)


def main() -> None:
    with TemporaryDirectory() as scratch:
        mine, found = started(sys.executable, "ours", Path(scratch))
        print(f"composition  {torch.get_num_threads()} threads: at most {WANTED_S:.0f} s are wanted")
        python = os.environ.get(NAMED)
        if python is None:
            print(f"composition  transformer-lens left out: {NAMED} names no python that has it")
            return
        other, expected = started(python, "theirs", Path(scratch))
        apart = float((found - expected).abs().max() / expected.abs().max())
        print(
            f"composition  {mine['seconds'] / other['seconds']:.2f} × its time, "
            f"{mine['bytes'] / max(1, other['bytes']):.2f} × its memory, numbers {apart:.1e} apart "
            f"(at most {WANTED_APART:.0e})"
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        arm(sys.argv[1], sys.argv[2])
    else:
        main()
