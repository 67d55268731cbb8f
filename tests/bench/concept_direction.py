"""A concept direction over all layers of smollm2-135m from 80 prompts, nulls, checks and intervals included, against
the forward passes that it cannot avoid.

The plain arm reads the same prompts in the same padded batches, and the text that the direction is laid over beside one
of them, up to the last layer's site, and does nothing with what it finds. Both arms run in turn in one process;
processor time is told, which a busy machine changes least. The ratio is that of the medians, at most 1.3 is wanted.
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from vaultlab.experiment import Bench
from vaultlab.experiments.concept_direction import BAD, GOOD, TEMPLATES, Spec, compute
from vaultlab.models.entry import SMOLLM2
from vaultlab.models.load import load
from vaultlab.models.trace import Site, right_pad, trace
from vaultlab.result import Text

WORDS, BATCH, ROUNDS, WANTED = 40, 32, 3, 1.3


def timed(arm: Callable[[], object]) -> float:
    start = time.process_time()
    arm()
    return time.process_time() - start


def arms() -> tuple[Callable[[], object], Callable[[], object]]:
    model = load(SMOLLM2)
    fields = {
        "positive": tuple(GOOD.split()[:WORDS]),
        "negative": tuple(BAD.split()[:WORDS]),
        "templates": TEMPLATES[:1],
    }
    spec = Spec(model=SMOLLM2, **fields)
    lists = {name: Text("", "", tuple(("", item) for item in items)) for name, items in fields.items()}
    bench = Bench(
        torch.device("cpu"),
        torch.float32,
        lambda name: model,
        {**lists, "text": Text("", "", (("", spec.text),))},
        batch=BATCH,
    )
    words = [*fields["positive"], *fields["negative"]]
    prompts = sorted((model.tokens(TEMPLATES[0].replace("{}", word)).ids for word in words), key=len)
    assert len(prompts) == 80
    batches = [right_pad(prompts[start : start + BATCH])[0] for start in range(0, len(prompts), BATCH)]
    batches.append(right_pad([model.tokens(spec.text).ids, prompts[0]])[0])
    last = [Site(spec.site, model.shape.layers - 1)]

    def plain() -> None:
        for ids in batches:
            trace(model, ids, last)

    return lambda: compute(spec, bench), plain


def main() -> None:
    ours, plain = arms()
    plain()
    rounds = [[timed(arm) for arm in (ours, plain)] for _ in range(ROUNDS)]
    for name, took in zip(("ours", "plain"), zip(*rounds, strict=True), strict=True):
        print(f"concept_direction  {name:5}  {median(took):6.2f} s")
    ratio = median(mine for mine, _ in rounds) / median(theirs for _, theirs in rounds)
    print(f"concept_direction  ratio {ratio:.2f} (at most {WANTED})")


if __name__ == "__main__":
    main()
