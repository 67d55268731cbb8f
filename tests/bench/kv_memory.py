"""The whole-model search over 100 000 tokens, against bare forward passes over the same batches; then a second block.

The bare arm runs the same batches through the model as transformers runs it (SDPA, no cache, no logits) and keeps
nothing. Both arms take turns batch by batch in one process, so that what else the machine does meets both alike; ours
has the cutting, the batch that is read again and what is kept every few seconds on top. At most 1.25 is wanted, and at
most 1.5 GB of memory over what the loaded model takes, in a process of its own for a fifth and for all of the tokens:
it should be the same. Then a block over a text that another has searched already, from its fields to its figures: under
1 s is wanted.

Where `VAULTLAB_TRANSFORMER_LENS` names a Python with transformer-lens 4 installed, a straightforward search runs there
beside it: `run_with_cache` over the same batches, all activations of the MLPs kept on the CPU, one top k at the end.
An argument is the number of tokens.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vaultlab.experiment import Bench
from vaultlab.models.entry import SMOLLM2, folder_of
from vaultlab.models.load import load
from vaultlab.models.model import Model
from vaultlab.models.search import Corpus, searched
from vaultlab.models.sentences import batches, cut
from vaultlab.result import Ask, Result
from vaultlab.texts import python_help
from vaultlab.worker.run import Runner
from vaultlab.worker.shelf import Shelf
from vaultlab.worker.store import Store

TOKENS = 100_000
SECOND = 2_000
"""Tokens of the text that the second block asks about."""

WANTED, WANTED_MB, WANTED_S = 1.25, 1500, 1.0

_PEAK = """
import psutil, sys, tempfile, resource
from pathlib import Path
from tests.bench.kv_memory import bench_of, ours
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
model = load(SMOLLM2)
for weight in model.net.parameters():
    weight.sum()  # mapped from the disk: in memory only once it is read
before = psutil.Process().memory_info().rss
ours(model, int(sys.argv[1]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print((peak - before) / 1e6)
"""

_LENS = Path(__file__).parent / "_lens.py"


def bench_of(model: Model, store: Store, progress: Callable[[], None] = lambda: None) -> Bench:
    return Bench(
        torch.device("cpu"),
        torch.float32,
        lambda name: model,
        {"text": python_help()},
        report=lambda phase, done, total: progress(),
        shared=Shelf(store, {}),
    )


def ours(model: Model, tokens: int, progress: Callable[[], None] = lambda: None) -> None:
    with TemporaryDirectory() as folder:
        bench = bench_of(model, Store(Path(folder)), progress)
        searched(bench, Corpus(model, bench.text("text"), tokens))


@contextmanager
def sdpa(model: Model) -> Iterator[Any]:
    """The model as transformers runs it, without its unembedding."""
    net: Any = model.net
    own = net.config._attn_implementation
    net.set_attn_implementation("sdpa")
    yield net.base_model
    net.set_attn_implementation(own)


def ratio(model: Model, tokens: int) -> tuple[float, float]:
    """Seconds of ours and of the bare arm. What the bare arm takes in between is no time of ours."""
    texts = [part for _, part in python_help().parts]
    todo = batches(cut(model, texts, tokens), 32)
    took = 0.0

    @torch.inference_mode()
    def bare() -> None:
        nonlocal took
        batch = next(todo, None)
        if batch is None:
            return
        with sdpa(model) as net:
            start = time.perf_counter()
            net(batch.ids, use_cache=False)
            took += time.perf_counter() - start

    start = time.perf_counter()
    ours(model, tokens, bare)  # progress is told before every batch
    mine = time.perf_counter() - start - took
    assert next(todo, None) is None, "a batch was read by one arm only"
    return mine, took


def peak_mb(tokens: int) -> float:
    done = subprocess.run([sys.executable, "-c", _PEAK, str(tokens)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def second_blocks() -> dict[str, float]:
    """Seconds of blocks over a text that one of before has searched, the model being loaded."""
    with TemporaryDirectory() as folder:
        runner = Runner(Store(Path(folder)))

        def timed(experiment: str, **fields: Any) -> float:
            ask = Ask("block", experiment, {"tokens": SECOND, **fields}, texts={"text": python_help()})
            start = time.perf_counter()
            answer = runner.run(ask, lambda step: None, lambda: False)
            assert isinstance(answer, Result), answer
            return time.perf_counter() - start

        timed("kv_memory", layer=25, key=0)
        return {
            "another memory's page": timed("kv_memory", layer=20, key=7),
            "a memory's page in another layer": timed("kv_memory", layer=3, key=700),
            "who writes a word": timed("memory_search", concept="point"),
            "a whole layer, its values put through the unembedding first": timed("kv_memory", layer=25),
            "the same layer, its values known, more triggers": timed("kv_memory", layer=25, top=16),
        }


def lens(model: Model, tokens: int) -> str:
    """The straightforward search, in the Python that has transformer-lens."""
    python = os.environ.get("VAULTLAB_TRANSFORMER_LENS")
    if not python:
        return "left out: VAULTLAB_TRANSFORMER_LENS names no Python with transformer-lens"
    texts = [part for _, part in python_help().parts]
    with TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.json"
        read = [(batch.ids.tolist(), batch.real.tolist()) for batch in batches(cut(model, texts, tokens), 32)]
        ids.write_text(json.dumps(read))
        command = [python, str(_LENS), str(folder_of(SMOLLM2)), str(ids), str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return said[-1] if said else f"ended with {done.returncode}"


def main() -> None:
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else TOKENS
    model = load(SMOLLM2)
    mine, bare = ratio(model, tokens)
    print(f"kv_memory  search of all layers, {tokens} tokens: {mine:.1f} s; bare passes {bare:.1f} s")
    print(f"kv_memory  ratio {mine / bare:.2f} (at most {WANTED})")
    little, much = peak_mb(tokens // 5), peak_mb(tokens)
    print(f"kv_memory  over the model: {little:.0f} MB at {tokens // 5} tokens, {much:.0f} MB at {tokens}", end=" ")
    print(f"(at most {WANTED_MB} MB; {much / little:.2f} ×, 1 is flat)")
    for what, seconds in second_blocks().items():
        print(f"kv_memory  then {what}: {seconds:.2f} s (at most {WANTED_S} s)")
    print(f"kv_memory  transformer-lens, activations cached: {lens(model, tokens)}")


if __name__ == "__main__":
    main()
