"""All heads of smollm2-135m over 128 tokens, checks included, against one eager forward pass of
transformers' own model.

The eager arm gives the plain patterns of all layers (`output_attentions`) and nothing else. Both arms run in turn in
one process, each at its own best number of threads; the ratio is that of the median times, at most 1.5 is wanted. Then
the figure of all heads: at most 1 s and 1 MB.
"""

import pydoc_data.topics
import time
from collections.abc import Callable
from statistics import median

import torch
from transformers import AutoModelForCausalLM

from vaultlab.experiment import Bench
from vaultlab.experiments.attention import Out, Spec, compute, draw
from vaultlab.models.entry import SMOLLM2, folder_of
from vaultlab.models.load import load
from vaultlab.plots.style import render
from vaultlab.result import Text

TOKENS, ROUNDS = 128, 15
WANTED, WANTED_S, WANTED_BYTES = 1.5, 1.0, 1_000_000
TEXT = pydoc_data.topics.topics["class"]


def timed(arm: Callable[[], object], threads: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    arm()
    return time.perf_counter() - start


def best_threads(arm: Callable[[], object], most: int) -> int:
    return min(sorted({1, most}), key=lambda count: min(timed(arm, count) for _ in range(4)))


def arms() -> tuple[Callable[[], Out], Callable[[], object]]:
    model = load(SMOLLM2)
    spec = Spec(model=SMOLLM2, text=TEXT, tokens=TOKENS)
    texts = {"text": Text("", "", (("", TEXT),))}
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, texts)
    eager = AutoModelForCausalLM.from_pretrained(
        folder_of(SMOLLM2), dtype=model.dtype, attn_implementation="eager", local_files_only=True
    ).eval()
    ids = model.tokens(TEXT).ids[None, :TOKENS]

    @torch.inference_mode()
    def plain() -> object:
        return eager(ids, output_attentions=True, use_cache=False)

    return lambda: compute(spec, bench), plain


def main() -> None:
    most = torch.get_num_threads()
    ours, plain = arms()
    threads = [best_threads(arm, most) for arm in (ours, plain)]
    rounds = [[timed(arm, count) for arm, count in zip((ours, plain), threads, strict=True)] for _ in range(ROUNDS)]
    for name, took, count in zip(("ours", "eager"), zip(*rounds, strict=True), threads, strict=True):
        print(f"attention  {name:5}  {median(took):6.3f} s  {count} thread{'s' * (count > 1)}")
    ratio = median(mine for mine, _ in rounds) / median(theirs for _, theirs in rounds)
    print(f"attention  ratio {ratio:.2f} (at most {WANTED})")
    out = ours()
    start = time.perf_counter()
    size = len(render(draw(Spec(model=SMOLLM2, text=TEXT), out)["patterns"]).content)
    took_s = time.perf_counter() - start
    print(f"attention  all four figures drawn, that of 270 heads rendered: {took_s:.2f} s (at most {WANTED_S:.0f} s)")
    print(f"attention  its size {size / 1e6:.2f} MB (at most {WANTED_BYTES / 1e6:.0f} MB)")


if __name__ == "__main__":
    main()
