"""Building: a small experiment that builds on the result of another, and can be built on.

The sum of what it is given and of what it adds.

    total = Σ given + adds

Figure: the sum.

Source: made up for these tests.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.experiment import Bench, Directions, Experiment, Quantity, ResultName
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.plots.style import Drawing, canvas
from vaultlab.result import Check, Metric

TOTAL = Quantity("total", "The sum", headline=True)

computed: list[Any] = []
"""Every Spec that was computed, in order: tests look at it, and clear it."""


class Spec(BaseSpec):
    direction: ResultName | None = None
    """The result that it builds on."""
    adds: float = 1.0
    """What is added."""


class Out(NamedTuple):
    total: Float[Tensor, " one"]


def compute(spec: Spec, bench: Bench) -> Out:
    computed.append(spec)
    given = bench.directions("direction").vectors.sum() if spec.direction is not None else torch.tensor(0.0)
    return Out((given + spec.adds).reshape(1))


def measure(spec: Spec, out: Out) -> list[Metric]:
    return [TOTAL.is_(float(out.total))]


def verify(spec: Spec, out: Out) -> list[Check]:
    return []


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    with canvas(height=2.0) as (figure, axes):
        axes[0, 0].plot(out.total.numpy())
    return {"total": Drawing(figure, "a sum")}


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(TOTAL,),
    figures={"total": "The sum."},
    examples=(),
    directions=lambda spec, out: Directions("tiny", "resid_post", (0,), out.total[None], 0),
)
