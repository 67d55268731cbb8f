"""n = 200 features in m = 20 dimensions at 8 sparsities, 3 000 steps: the whole of `superposition_geometry`.

Training at the experiment's own batch, then the examination, the metrics, the checks and the figures; one process, at
its own best number of threads. At most 30 s are wanted. Beside it stand the multiplications that a step cannot do
without and the rate at which the processor did them, against its rate in one large product: which says what the limit
is, on a machine that is busy with other things too.
"""

import time

import torch

from vaultlab.experiment import Bench
from vaultlab.experiments.superposition_geometry import Spec, compute, draw, measure, verify
from vaultlab.plots.style import render

SPEC = Spec(features=200, hidden=20, sparsity=0.96, points=8, seeds=1, steps=3000)
BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: None)  # type: ignore[arg-type, return-value]
WANTED_S = 30.0


def multiplications(spec: Spec) -> float:
    """Of a run's training: five products of features × (hidden + 1) × batch a step and model."""
    return 5.0 * spec.features * (spec.hidden + 1) * spec.batch * spec.points * spec.seeds * spec.steps


def best_rate() -> float:
    """Multiplications a second of processor in products of 1024 × 1024 by 1024 × 1024."""
    a = torch.rand(1024, 1024, generator=BENCH.generator("rate"))
    seconds = []
    for _ in range(8):
        start = time.process_time()
        a @ a
        seconds.append(time.process_time() - start)
    return 1024.0**3 / min(seconds)


def best_threads(most: int) -> int:
    """By a thirtieth of the work."""
    trial = SPEC.model_copy(update={"steps": SPEC.steps // 30})
    seconds = {}
    for count in sorted({1, most}):
        torch.set_num_threads(count)
        start = time.perf_counter()
        compute(trial, BENCH)
        seconds[count] = time.perf_counter() - start
    return min(seconds, key=lambda count: seconds[count])


def main() -> None:
    torch.set_num_threads(threads := best_threads(torch.get_num_threads()))
    start, busy = time.perf_counter(), time.process_time()
    out = compute(SPEC, BENCH)
    computed, work = time.process_time() - busy, multiplications(SPEC)
    numbers = {metric.name: metric.value for metric in measure(SPEC, out)}
    assert all(check.ok for check in verify(SPEC, out))
    for drawing in draw(SPEC, out).values():
        render(drawing)
    took, busy = time.perf_counter() - start, time.process_time() - busy
    print(
        f"superposition_geometry  {took:6.2f} s, {busy:.2f} s of processor (at most {WANTED_S:.0f} s)  {threads} "
        f"thread{'s' * (threads > 1)}, batch {SPEC.batch}; at ½ {numbers['at_half']:.0%}"
    )
    print(
        f"superposition_geometry  compute {computed:.2f} s of processor for {work / 1e9:.0f}·10⁹ multiplications: "
        f"{work / computed / best_rate():.0%} of the rate of one large product"
    )


if __name__ == "__main__":
    main()
