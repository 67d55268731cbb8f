"""Induction scores of all 270 heads of smollm2-135m and the loss of every token, over 8 × 101 tokens, against the same
forward passes of transformers' own model with eager attention and nothing else.

Both arms run in turn in one process, each at its own best number of threads; the ratio is that of the median times, at
most 1.3 is wanted. Beside it the same scores by transformer-lens 4, in a process of its own: faster than it, with less
memory, and the same numbers to 1e-4 is wanted. It is no part of this project: VAULTLAB_TRANSFORMER_LENS names a Python
that has it, with torch and transformers.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from vaultlab.experiments.induction import Observed, observe
from vaultlab.models.draws import draws
from vaultlab.models.entry import SMOLLM2, folder_of
from vaultlab.models.induction import Repeated, repeated
from vaultlab.models.load import load
from vaultlab.models.model import Model

TEXTS, PERIOD, ROUNDS = 8, 50, 7
WANTED, ALIKE = 1.3, 1e-4
OTHER = "VAULTLAB_TRANSFORMER_LENS"

_THEIRS = """
import json, resource, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformer_lens.model_bridge import TransformerBridge
folder, given, rounds, threads = sys.argv[1], json.load(open(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
here = {"attn_implementation": "eager", "local_files_only": True}
net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **here)
tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
model = TransformerBridge.boot_transformers(folder, hf_model=net.eval(), tokenizer=tokenizer, device="cpu")
ids, start, period = torch.tensor(given["ids"]), given["start"], given["period"]
took = []
with torch.inference_mode():
    for _ in range(rounds):
        begun = time.perf_counter()
        _, cache = model.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))
        scores = [
            [cache[f"blocks.{layer}.attn.hook_pattern"].diagonal(-back, 2, 3)[..., first:].mean(-1).tolist()
             for back, first in ((1, start), (period, start), (period - 1, start + 1))]
            for layer in range(model.cfg.n_layers)
        ]
        took.append(time.perf_counter() - begun)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
print(json.dumps({"took": took, "peak": peak, "scores": scores}))
"""
"""layer, kind, text, head: every pattern is kept until the pass is over, as their cache has it."""

_OURS = """
import resource, sys
import torch
from tests.bench.induction import texts
from vaultlab.experiments.induction import observe
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
model = load(SMOLLM2)
observe(model, texts(model), 8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
"""


def texts(model: Model) -> Repeated:
    return repeated(model, TEXTS, PERIOD, draws("bench"))


def timed(arm: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    arm()
    return time.perf_counter() - start


def best_threads(arm: Callable[[], object], most: int) -> int:
    counts = sorted({1, most})
    return most if len(counts) == 1 else min(counts, key=lambda count: min(timed(arm, count) for _ in range(2)))


def theirs(text: Repeated, threads: int) -> dict[str, Any] | None:
    """What transformer-lens finds, how long it takes and how much memory; None where there is none."""
    python = os.environ.get(OTHER, sys.executable)
    known = subprocess.run([python, "-c", "import transformer_lens.model_bridge"], capture_output=True)
    if known.returncode:
        return None
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"ids": text.ids.tolist(), "start": text.start, "period": text.period}, file)
        file.flush()
        asked = [python, "-c", _THEIRS, str(folder_of(SMOLLM2)), file.name, str(ROUNDS), str(threads)]
        done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(file.name).parent)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mb() -> float:
    done = subprocess.run([sys.executable, "-c", _OURS], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    most = torch.get_num_threads()
    # Before anything is loaded here: a process begins with the peak of the one that started it.
    text = texts(load(SMOLLM2))
    other, peak = theirs(text, most), peak_mb()
    model = load(SMOLLM2)
    eager = AutoModelForCausalLM.from_pretrained(
        folder_of(SMOLLM2), dtype=model.dtype, attn_implementation="eager", local_files_only=True
    ).eval()

    @torch.inference_mode()
    def plain() -> object:
        return eager(text.ids, use_cache=False)

    def ours() -> Observed:
        return observe(model, text, TEXTS)

    threads = [best_threads(arm, most) for arm in (ours, plain)]
    rounds = [[timed(arm, count) for arm, count in zip((ours, plain), threads, strict=True)] for _ in range(ROUNDS)]
    mine, bare = (median(each) for each in zip(*rounds, strict=True))
    for name, took, count in (("ours", mine, threads[0]), ("eager", bare, threads[1])):
        print(f"induction  {name:5}  {took:6.2f} s  {count} thread{'s' * (count > 1)}")
    print(f"induction  ratio {mine / bare:.2f} (at most {WANTED})")
    if other is None:
        print(f"induction  transformer-lens 4: not compared, for no Python here has it; {OTHER} may name one")
        return
    apart = (torch.tensor(other["scores"]).permute(1, 2, 0, 3) - ours().scores).abs().max()
    print(f"induction  transformer-lens  {median(other['took']):6.2f} s, {median(other['took']) / mine:.2f} × ours")
    print(f"induction  peak memory {peak:.0f} MB, transformer-lens {other['peak']:.0f} MB")
    print(f"induction  largest difference of a score {float(apart):.1e} (at most {ALIKE:.0e})")


if __name__ == "__main__":
    main()
