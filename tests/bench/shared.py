"""Five blocks over one model and one text, asked one after another, against the dearest of them alone.

The whole way in the worker, from the fields to the figures, in one process with the model loaded; each arm with a store
of its own, each block as the scribe asks it, with those behind it beside. At most 1.5 is wanted. What five blocks can
share is the passes over the text: what each measures, checks and draws is its own. So the sum of the five alone is told
too. First five heads over a sentence, where drawing is most of the work; then a layer's memories and four pages of one
memory over a longer text.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vaultlab.models.entry import SMOLLM2
from vaultlab.result import Ask, Result, Text
from vaultlab.texts import python_help
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

TOKENS = 3000
WANTED = 1.5
SENTENCE = "When Mary and John went to the store, John gave a drink to Mary."
MEMORIES: list[dict[str, Any]] = [
    {"layer": 25},
    *({"layer": 25, "key": key} for key in (1211, 1069, 3)),
    {"layer": 20, "key": 7},
]
HEADS: list[dict[str, Any]] = [{"head": head} for head in ("L16H0", "L18H8", "L0H3", "L9H1", "L29H2")]


def asks(experiment: str, text: Text, blocks: Sequence[dict[str, Any]]) -> list[Ask]:
    return [Ask(str(at), experiment, {"model": SMOLLM2, **one}, texts={"text": text}) for at, one in enumerate(blocks)]


def timed(runner: Runner, blocks: Sequence[Ask]) -> float:
    with TemporaryDirectory() as folder:
        runner.store = Store(Path(folder))
        start = time.perf_counter()
        for at, ask in enumerate(blocks):
            answer = runner.run(replace(ask, beside=tuple(blocks[at + 1 :])), lambda step: None, lambda: False)
            assert isinstance(answer, Result), answer
        return time.perf_counter() - start


def compare(what: str, runner: Runner, blocks: Sequence[Ask]) -> None:
    alone = [timed(runner, [ask]) for ask in blocks]
    shared = timed(runner, blocks)
    print(f"shared  {what}: the dearest alone {max(alone):.1f} s, five {shared:.1f} s, each alone {sum(alone):.1f} s")
    print(f"shared  {what}: ratio {shared / max(alone):.2f} (at most {WANTED})")


def main() -> None:
    with TemporaryDirectory() as folder:
        runner = Runner(Store(Path(folder)))
        sentence = Text("sentence", "0", (("", SENTENCE),))
        heads = asks("attention", sentence, HEADS)
        timed(runner, heads[:1])  # loads the model
        compare("five heads over a sentence", runner, heads)
        pages = [{"tokens": TOKENS, **one} for one in MEMORIES]
        compare(f"memories over {TOKENS} tokens", runner, asks("kv_memory", python_help(), pages))


if __name__ == "__main__":
    main()
