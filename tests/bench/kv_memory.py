"""One layer's memories over 20 000 tokens, values and checks included, against a bare forward pass up to that layer.

The bare arm runs the same batches up to the same activation and keeps nothing: no logits, no triggers, no values. Both
arms run in turn in one process, each at its own best number of threads, and count with their fastest round; at most 1.3
is wanted. Then the peak memory of a process that reads 10 000 tokens and of one that reads 40 000: it should be the
same.
"""

import subprocess
import sys
import time
from collections.abc import Callable

import torch

from vaultlab.experiment import Bench
from vaultlab.experiments.kv_memory import Spec, compute, default_layer
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import Model, load
from vaultlab.models.sentences import batches, cut
from vaultlab.models.trace import Site, trace
from vaultlab.texts import python_help

TOKENS, TRIAL, ROUNDS = 20_000, 2_000, 3
WANTED = 1.3

_PEAK = """
import resource, sys
from tests.bench.kv_memory import bench_of
from vaultlab.experiments.kv_memory import Spec, compute
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
compute(Spec(tokens=int(sys.argv[1]), layer=0), bench_of(load(SMOLLM2)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3))
"""
"""At layer 0, where little else takes memory, and little time."""


def bench_of(model: Model) -> Bench:
    return Bench(torch.device("cpu"), torch.float32, lambda name: model, {"text": python_help()})


def arms(model: Model) -> dict[str, Callable[[int], object]]:
    layer, bench = default_layer(model.shape.layers), bench_of(model)
    texts = [part for _, part in python_help().parts]

    def bare(tokens: int) -> None:
        for batch in batches(cut(model, texts, tokens), bench.batch):
            trace(model, batch.ids, [Site("m", layer)])

    return {"ours": lambda tokens: compute(Spec(tokens=tokens), bench), "bare": bare}


def timed(arm: Callable[[int], object], threads: int, tokens: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    arm(tokens)
    return time.perf_counter() - start


def best_threads(arm: Callable[[int], object], most: int) -> int:
    return min(sorted({1, most}), key=lambda count: min(timed(arm, count, TRIAL) for _ in range(2)))


def peak_mb(tokens: int) -> float:
    done = subprocess.run([sys.executable, "-c", _PEAK, str(tokens)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    both = arms(load(SMOLLM2))
    most = torch.get_num_threads()
    threads = {name: best_threads(arm, most) for name, arm in both.items()}
    rounds = [{name: timed(arm, threads[name], TOKENS) for name, arm in both.items()} for _ in range(ROUNDS)]
    best = {name: min(one[name] for one in rounds) for name in both}
    for name, took in best.items():
        print(f"kv_memory  {name}  {took:6.1f} s  {threads[name]} thread{'s' * (threads[name] > 1)}")
    print(f"kv_memory  ratio {best['ours'] / best['bare']:.2f} (at most {WANTED})")
    little, much = peak_mb(10_000), peak_mb(40_000)
    print(
        f"kv_memory  peak {little:.0f} MB at 10 000 tokens, {much:.0f} MB at 40 000 ({much / little:.2f} ×, 1 is flat)"
    )


if __name__ == "__main__":
    main()
