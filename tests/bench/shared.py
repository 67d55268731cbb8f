"""Five blocks over one model and one text, asked one after another, against the dearest of them alone.

At most 1.5 is wanted. What five blocks can share is the worker's start, the loaded model and the passes over the text:
what each measures, checks and draws is its own. First as an author meets it: a note with one block and one with five,
both rendered from the command line. Then in the worker alone, from the fields to the figures, with the model loaded;
each arm with a store of its own and a process beside that prints figures, each block as the scribe asks it, with those
behind it beside, and the sum of the five alone told too. The five are those of the attention laboratory that read a
text; five heads of one experiment, where drawing is most of the work; and a layer's memories with four pages of one
memory over a longer text.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from vaultlab.models.entry import SMOLLM2
from vaultlab.result import Ask, Result, Text
from vaultlab.texts import python_help
from vaultlab.worker.press import Press
from vaultlab.worker.run import Runner
from vaultlab.worker.store import Store

TOKENS = 3000
ROUNDS = 5
WANTED = 1.5
SENTENCE = "When Mary and John went to the store, John gave a drink to Mary."
Block = tuple[str, dict[str, Any]]
"""An experiment and its fields."""

LOOKS: list[Block] = [
    (one, {}) for one in ("attention", "virtual_heads", "residual_stream", "logit_attribution", "logit_lens")
]
HEADS: list[Block] = [("attention", {"head": head}) for head in ("L16H0", "L18H8", "L0H3", "L9H1", "L29H2")]
MEMORIES: list[Block] = [
    ("kv_memory", {"tokens": TOKENS, "layer": layer, **key})
    for layer, key in ((25, {}), (25, {"key": 1211}), (25, {"key": 1069}), (25, {"key": 3}), (20, {"key": 7}))
]


def rendered(blocks: Sequence[Block]) -> float:
    """Seconds in which `vaultlab render` computes a note of such blocks over SENTENCE, nothing stored."""
    with TemporaryDirectory() as folder:
        note = "---\ntags: [experiment]\n---\n"
        for at, (experiment, fields) in enumerate(blocks):
            lines = "".join(f"{name}: {value}\n" for name, value in fields.items())
            note += f"\n```vaultlab\n{experiment}: block-{at}\n{lines}text: {SENTENCE}\n```\n"
        (Path(folder) / "Note.md").write_text(note, encoding="utf-8")
        start = time.perf_counter()
        command = [sys.executable, "-m", "vaultlab", "render", folder, "--force"]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def from_the_command_line(what: str, blocks: Sequence[Block]) -> None:
    """In turn, so that a slow minute of the machine is one of both."""
    dearest = max(blocks, key=lambda block: rendered([block]))
    rounds = [(rendered([dearest]), rendered(blocks)) for _ in range(ROUNDS)]
    alone, five = (median(took) for took in zip(*rounds, strict=True))
    print(f"shared  {what} from the command line: the dearest alone {alone:.1f} s, five {five:.1f} s")
    print(f"shared  {what} from the command line: ratio {five / alone:.2f} (at most {WANTED})")


def asks(blocks: Sequence[Block], text: Text) -> list[Ask]:
    return [
        Ask(str(at), experiment, {"model": SMOLLM2, **fields}, texts={"text": text})
        for at, (experiment, fields) in enumerate(blocks)
    ]


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
    from_the_command_line("five looks at a sentence", LOOKS)
    from_the_command_line("five heads over a sentence", HEADS)
    with TemporaryDirectory() as folder:
        press = Press(beside=1)
        runner = Runner(Store(Path(folder)), press=press)
        sentence = Text("sentence", "0", (("", SENTENCE),))
        timed(runner, asks(LOOKS, sentence))  # loads the model, imports what they draw with
        compare("five looks at a sentence", runner, asks(LOOKS, sentence))
        compare("five heads over a sentence", runner, asks(HEADS, sentence))
        compare(f"memories over {TOKENS} tokens", runner, asks(MEMORIES, python_help()))
        press.close()


if __name__ == "__main__":
    main()
