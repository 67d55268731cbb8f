"""Ten toy models, one a sparsity: our training against the plain autograd loop of 10 000 steps.

First with the same steps: same model, draws, optimiser and schedule; the final losses must agree within 2 %. Then as
the loop's final losses can be reached: by the shortest of some courses, with whatever learning rate, that ends at none
of the ten sparsities more than 1 % above them, on the same fresh vectors. Each arm alone in the process at its own best
number of threads. Prints the times and their ratios: at most one third, and five times as soon at least, are wanted.
"""

import math
import time
from collections.abc import Callable

import torch

from vaultlab.experiment import Bench
from vaultlab.models.autoencoder import Course, Toy, train
from vaultlab.models.sparse import fresh

SPARSITIES = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99]
TOY = Toy(features=5, hidden=2, importance=0.9, relu=True)
COURSE = Course(steps=10_000, batch=1024, learning_rate=0.01, seeds=1, seed=0)
BENCH = Bench(torch.device("cpu"), torch.float32, lambda name: None)  # type: ignore[arg-type, return-value]
WANTED, SOONER = 1 / 3, 5
SHORTER = [(500, 0.03), (1000, 0.03), (1500, 0.02), (2000, 0.02), (3000, 0.02), (5000, 0.01)]
"""Steps and learning rate of courses to the same end, shortest first."""


def ours(course: Course) -> torch.Tensor:
    trained = train(TOY, course, SPARSITIES, BENCH.device, BENCH.generator, BENCH.progress)
    return trained.theta[:, 0]


def plain(course: Course) -> torch.Tensor:
    return by_autograd(TOY, course, SPARSITIES)


def by_autograd(toy: Toy, course: Course, sparsities: list[float]) -> torch.Tensor:
    """What one would write down first: einsum, autograd, AdamW, a scheduler; all models as one batch."""
    start = train(
        toy, course._replace(steps=1, learning_rate=1e-30), sparsities, BENCH.device, BENCH.generator, BENCH.progress
    )
    W = start.theta[:, 0, :, :-1].clone().requires_grad_()
    b = start.theta[:, 0, :, -1].clone().requires_grad_()
    S, importances = torch.tensor(sparsities)[:, None], toy.importances().float()
    optimizer = torch.optim.AdamW([W, b], lr=course.learning_rate, weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: (1 + math.cos(math.pi * t / course.steps)) / 2)
    generator = BENCH.generator("toy", course.seed, "batches")
    for _ in range(course.steps):
        uniform = torch.rand(toy.features, course.batch, generator=generator).T[:, None]
        x = torch.relu(uniform - S) / (1 - S)
        hidden = torch.einsum("bif,ifh->bih", x, W)
        out = torch.relu(torch.einsum("bih,ifh->bif", hidden, W) + b)
        loss = (importances * (x - out) ** 2).mean(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return torch.cat([W, b[..., None]], dim=-1).detach()


def timed(arm: Callable[[Course], torch.Tensor], threads: int, course: Course) -> tuple[float, torch.Tensor]:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    theta = arm(course)
    return time.perf_counter() - start, theta


def best_threads(arm: Callable[[Course], torch.Tensor], most: int) -> int:
    """By a tenth of the work."""
    counts = sorted({1, 2, most})
    trial = COURSE._replace(steps=COURSE.steps // 10)
    return min(counts, key=lambda count: min(timed(arm, count, trial)[0] for _ in range(2)))


def losses(theta: torch.Tensor) -> list[float]:
    out = []
    for point, sparsity in enumerate(SPARSITIES):
        x, weight = fresh(TOY.law, sparsity, BENCH.generator("bench", "fresh"), 2**16)
        W, b = theta[point, :, :-1].double(), theta[point, :, -1].double()
        error = torch.relu(x @ W @ W.T + b) - x
        out.append(float((error**2 @ TOY.importances() * weight).mean()))
    return out


def reached(final: list[float], threads: int) -> tuple[float, Course, float] | None:
    """The shortest course that ends within 1 % of these losses or under them: its time, itself, the most above them."""
    for steps, rate in SHORTER:
        course = COURSE._replace(steps=steps, learning_rate=rate)
        took, theta = timed(ours, threads, course)
        above = max(ours_ / plain_ - 1 for ours_, plain_ in zip(losses(theta), final, strict=True))
        if above <= 0.01:
            return took, course, above
    return None


def main() -> None:
    most = torch.get_num_threads()
    seconds, final, threads_of = {}, {}, {}
    for arm in (ours, plain):
        threads = threads_of[arm] = best_threads(arm, most)
        took, theta = timed(arm, threads, COURSE)
        seconds[arm], final[arm] = took, losses(theta)
        print(f"superposition  {arm.__name__:5}  {took:6.2f} s  {threads} thread{'s' * (threads > 1)}")
    soon = reached(final[plain], threads_of[ours])
    apart = max(abs(a - b) / b for a, b in zip(final[ours], final[plain], strict=True))
    ratio = seconds[ours] / seconds[plain]
    print(f"superposition  ratio {ratio:.3f} (at most {WANTED:.3f})   losses apart {apart:.2%} (at most 2 %)")
    if soon is None:
        print("superposition  no shorter course ends where the plain loop does")
    else:
        took, course, above = soon
        print(
            f"superposition  there in {took:.2f} s, {course.steps} steps at {course.learning_rate}, {above:+.2%} above"
        )
        print(f"superposition  {seconds[plain] / took:.1f} times as soon (at least {SOONER})")


if __name__ == "__main__":
    main()
