"""The logit lens of smollm2-135m over 512 tokens, checks included, against one forward pass and the unembeddings that
it cannot avoid: every layer's stream through W_U.

The plain arm runs transformers' own model once and multiplies as many streams with W_U as the lens reads, and does
nothing with the logits. Both arms run in turn in one process, at the same number of threads; the ratio is that of the
median times, at most 1.5 is wanted.
"""

import pydoc_data.topics
import time
from collections.abc import Callable
from statistics import median

import torch

from vaultlab.experiment import Bench
from vaultlab.experiments.logit_lens import CHUNK, Spec, compute
from vaultlab.models import parts
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
from vaultlab.result import Text

TOKENS, ROUNDS, WANTED = 512, 3, 1.5
TEXT = pydoc_data.topics.topics["class"] + pydoc_data.topics.topics["calls"]


def timed(arm: Callable[[], object]) -> float:
    start = time.perf_counter()
    arm()
    return time.perf_counter() - start


def arms() -> tuple[Callable[[], object], Callable[[], object]]:
    model = load(SMOLLM2)
    spec = Spec(model=SMOLLM2, text=TEXT, tokens=TOKENS)
    texts = {"text": Text("", "", (("", TEXT),))}
    bench = Bench(torch.device("cpu"), torch.float32, lambda name: model, texts)
    ids = model.tokens(TEXT).ids[None, :TOKENS]
    streams = torch.randn(model.shape.layers, TOKENS, model.shape.d_model, generator=torch.Generator().manual_seed(0))
    W_U = parts.unembedding(model).W_U

    @torch.inference_mode()
    def plain() -> None:
        model.net(ids, use_cache=False)  # unembeds the last stream itself
        for stream in streams:
            for some in stream.split(CHUNK):
                some @ W_U

    return lambda: compute(spec, bench), plain


def main() -> None:
    ours, plain = arms()
    rounds = [[timed(arm) for arm in (ours, plain)] for _ in range(ROUNDS)]
    for name, took in zip(("ours", "plain"), zip(*rounds, strict=True), strict=True):
        print(f"logit_lens  {name:5}  {median(took):6.2f} s")
    ratio = median(mine for mine, _ in rounds) / median(theirs for _, theirs in rounds)
    print(f"logit_lens  ratio {ratio:.2f} (at most {WANTED})")


if __name__ == "__main__":
    main()
