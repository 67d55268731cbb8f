"""Counting: a small experiment that does whatever a test of the worker needs.

The mean of n numbers that depend on the seed alone.

    mean = (1/n) Σ u_i,    u_i ~ U[0, 1]

Figure: the numbers, in the order in which they were drawn.

Source: made up for these tests.
"""

import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Example, Experiment, ListName, Needs, Quantity, Share, TextName
from vaultlab.experiment import Head as HeadName
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.family import Shape
from vaultlab.plots.style import Drawing, canvas
from vaultlab.result import Check, Metric

Mode = Literal["fine", "broken", "memory", "half", "slow", "wrong", "refused", "stuck", "disk", "hungry"]

MEAN = Quantity("mean", "The mean of the numbers", range=(0.0, 1.0), headline=True)
NUMBERS = Quantity("numbers", "The numbers", unit="parts", forced={"mean": "it is what `mean` says"})

computed: list[Any] = []
"""Every Spec that was computed, in order: tests look at it, and clear it."""


class Spec(BaseSpec):
    n: int = Field(4, ge=1, le=10_000_000, json_schema_extra={"symbol": "n"})
    """How many numbers."""
    rate: Share = Field(0.5, json_schema_extra={"symbol": "S"})
    """A share that does nothing."""
    mode: Mode = "fine"
    """What happens."""
    weights: tuple[float, ...] = ()
    """A list that does nothing."""
    head: HeadName | None = None
    """A head that does nothing."""
    text: TextName | None = "nothing"
    """A text; its first letters are kept. Only what reads none can run together."""
    words: ListName | None = None
    """A list that may stand in a note; its items are kept."""
    seed: int = Field(0, ge=0)
    """What the numbers depend on."""

    @model_validator(mode="after")
    def _few(self) -> "Spec":
        if len(self.weights) > self.n:
            raise ValueError(f"there are {len(self.weights)} weights for {self.n} numbers")
        return self


class Out(NamedTuple):
    numbers: Float[Tensor, " n"]
    names: Any
    batch: int


def compute(spec: Spec, bench: Bench) -> Out:
    computed.append(spec)
    print("printed by an experiment", end="")
    text = bench.text("text").parts[0][1] if spec.text is not None else ""
    match spec.mode:
        case "broken":
            raise ValueError("shapes do not fit")
        case "memory":
            raise MemoryError
        case "half" if bench.batch > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        case "refused":
            raise NoteError("`seed` is not one token.", "Choose another.", field="seed")
        case "disk":
            raise OSError(28, "No space left on device")
        case "slow":
            for done in range(10_000):
                bench.progress(done, 10_000, "counting")
                time.sleep(0.01)
        case "hungry":
            taken = torch.empty(bench.batch * spec.n * 2**20, dtype=torch.uint8)
            bench.progress(0, len(taken), "counting")
        case "stuck":
            time.sleep(60)
    bench.progress(spec.n, spec.n, "counting")
    numbers = torch.rand(spec.n, generator=bench.generator("numbers", spec.seed))
    return Out(numbers, [text[:3], ["a", 1, None]], bench.batch)


def together(specs: list[Spec], bench: Bench) -> Iterator[Out]:
    for spec in specs:
        yield compute(spec, bench)


def measure(spec: Spec, out: Out) -> list[Metric]:
    return [MEAN.is_(float(out.numbers.mean())), NUMBERS.is_(tuple(out.numbers[:8].tolist()))]


def verify(spec: Spec, out: Out) -> list[Check]:
    residual = abs(float(out.numbers.sum()) / spec.n - float(out.numbers.mean()))
    return [Check("sum over n is the mean", residual + (spec.mode == "wrong"), 1e-5)]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    with canvas(height=2.0) as (figure, axes):
        axes[0, 0].plot(out.numbers[:100].numpy())
    return {"numbers": Drawing(figure, f"{spec.n} numbers")}


def needs(spec: Spec, shape: Shape | None) -> Needs:
    return Needs(4 * spec.n, 1e-6 * spec.n)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(MEAN, NUMBERS),
    figures={"numbers": "The numbers as drawn."},
    examples=(Example("few", "Four numbers lie between 0 and 1", {"n": 4}, ("mean between 0 and 1",)),),
    needs=needs,
    data=lambda spec, out: {"names": out.names},
)
