"""Adversarial attacks on superposition: are features that share dimensions easier to disturb?

Toy models x′ = ReLU(W Wᵀ x + b) are trained (see `superposition`) from features that are always there to features
that are nearly always absent. Each is then attacked: inputs x that are not empty, drawn by the law it was trained on,
are changed by the worst δ of length ε that can be found, and the answer moves:

    damage           Σ I_i (x′_i(x + δ) − x′_i(x))²        vulnerability = mean over inputs of max_δ damage/ε²

A feature with a dimension of its own has a vulnerability of 1: its output moves as far as its input. In superposition
an attack can push a little along every feature that overlaps with one's direction, and their pushes add up. What is
known in closed form, with D the importances of the outputs above 0:

    small attacks    λ_max(W Wᵀ D W Wᵀ)      any input, as long as no ReLU opens or shuts
    any attack       ≤ λ_max(W Wᵀ I W Wᵀ)    since ReLU never makes two numbers more different

Once superposition has formed the models are more than three times as vulnerable as the dense one. Between its steps
vulnerability need not rise; nothing is claimed of that.

How to read the figures. In `vulnerability` every point is a model, further right the more features a dimension has; a
feature with its own dimension would lie on the dashed line, the small dots are the other seeds. In `by_sparsity` are
the same models by sparsity: the worst attack, the closed form of small ones, and random changes of the same length,
which do next to nothing. In `attack` is the most vulnerable input of the sparsest model: what was changed, and how far
the answer moved.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "Superposition and Adversarial Examples",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.attack import Target, rows, small, worst, worst_of
from vaultlab.models.autoencoder import Course, Toy, train
from vaultlab.models.family import Shape
from vaultlab.models.sparse import present
from vaultlab.plots.style import GREY, PALETTE, SHADES, Drawing, canvas, colour_bar, log_axis
from vaultlab.plots.vectors import feature_axis
from vaultlab.result import Check, Metric

RANDOM = 8
"""Random directions that an input is changed along, beside the worst."""

TINY = 1e-7
"""The size of an attack that opens or shuts no ReLU but by the rarest chance."""


class Spec(BaseSpec):
    features: int = Field(20, ge=2, le=128, json_schema_extra={"symbol": "n"})
    """How many features the data has."""

    hidden: int = Field(5, ge=1, le=64, json_schema_extra={"symbol": "m"})
    """How many dimensions the layer has for them."""

    sparsity: Share = Field(0.99, gt=0, le=0.999, json_schema_extra={"symbol": "S", "stress": [0.95, 0.99]})
    """How often a feature is absent at the sparse end, 0.99 or 99%; at the other end it is never absent."""

    points: int = Field(9, ge=2, le=16)
    """How many sparsities, the ends included, each making features rarer by the same factor."""

    importance: float = Field(1.0, gt=0, le=1, json_schema_extra={"symbol": "r"})
    """How much a feature counts beside the one before it: feature i has importance r^(i−1). 1: all count alike."""

    size: float = Field(0.1, gt=0, le=1, json_schema_extra={"symbol": "ε", "stress": [0.03, 0.3]})
    """The length of an attack, in units of the data."""

    inputs: int = Field(256, ge=16, le=2048)
    """How many inputs of each model are attacked."""

    steps: int = Field(2000, ge=1, le=100_000)
    """Training steps."""

    batch: int = Field(512, ge=16, le=65_536)
    """Vectors in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=1, json_schema_extra={"stress": [0.003, 0.03]})
    """Adam's learning rate at the start; it falls to 0 along a half cosine."""

    seeds: int = Field(4, ge=1, le=32)
    """How many models to train at every sparsity, from different first weights on the same vectors."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind. `damage` is that of the worst attack by ε², `gain` that of a small one in closed
    form, `random` the mean of random changes; `shown` is one attack: input, change, answer before and after."""

    sparsities: tuple[float, ...]
    loss: Float[Tensor, "points seeds"]
    features_per_dimension: Float[Tensor, "points seeds"]
    damage: Float[Tensor, "points seeds inputs"]
    gain: Float[Tensor, "points seeds inputs"]
    random: Float[Tensor, "points seeds"]
    ceiling: Float[Tensor, "points seeds"]
    shown: Float[Tensor, "4 features"]
    small_residual: Float[Tensor, ""]
    random_residual: Float[Tensor, ""]
    size_residual: Float[Tensor, ""]


def sparsities_of(spec: Spec) -> tuple[float, ...]:
    """From 0 on; 1 − S falls by the same factor each time."""
    return tuple(1 - (1 - spec.sparsity) ** (k / (spec.points - 1)) for k in range(spec.points))


def compute(spec: Spec, bench: Bench) -> Out:
    """Train all sparsities as one batch, then attack in float64 on the CPU."""
    toy, sparsities = Toy(spec.features, spec.hidden, spec.importance, relu=True), sparsities_of(spec)
    course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed)
    done = train(toy, course, sparsities, bench.device, bench.generator, bench.progress)
    theta, loss = done.theta.cpu().double(), done.curve[-1].cpu().double()
    best = int(loss[-1].argmin())
    found = []
    for point, sparsity in enumerate(sparsities):
        bench.progress(point, len(sparsities), "attacking")
        target = Target(theta[point, ..., :-1], theta[point, ..., -1], toy.importances())
        found.append(_attacked(spec, bench, target, sparsity, best))
    numbers = {name: torch.stack([one[name] for one in found]) for name in found[0] if name != "shown"}
    residuals = {name: numbers.pop(name).amax() for name in list(numbers) if name.endswith("_residual")}
    W = theta[..., :-1]
    return Out(
        sparsities=sparsities,
        loss=loss,
        features_per_dimension=W.square().sum((-2, -1)) / spec.hidden,
        shown=found[-1]["shown"],
        **numbers,
        **residuals,
    )


def _attacked(spec: Spec, bench: Bench, target: Target, sparsity: float, best: int) -> dict[str, Tensor]:
    """All seeds of one sparsity; the same uniform draws at every sparsity."""
    draws = torch.rand(
        spec.inputs, 2 * spec.features + 1, generator=bench.generator("inputs", spec.seed), dtype=torch.float64
    )
    x = present(draws, 1 - sparsity)
    before = target.before(x.expand(spec.seeds, -1, -1))
    gain, direction = small(target, before)
    sideways = _directions(spec, bench, "starts", before), _directions(spec, bench, "random", before)
    from_row, from_random = (worst_of(target, before, some, spec.size) for some in (rows(target), sideways[0]))
    attack = worst(target, before, (direction, -direction, from_row, from_random), spec.size)
    damage = target.damage(before, attack) / spec.size**2
    random = torch.stack([target.damage(before, spec.size * one) for one in sideways[1]]) / spec.size**2
    most = int(damage[best].argmax())
    answers = [
        (before[best, most] + (change @ target.W[best]) @ target.W[best].T).relu()
        for change in (0 * x[0], attack[best, most])
    ]
    return {
        "damage": damage,
        "gain": gain,
        "random": random.mean((0, -1)),
        "ceiling": target.ceiling(),
        "shown": torch.stack([x[most], attack[best, most], *answers]),
        "small_residual": _small_residual(target, before, gain, direction),
        "random_residual": ((random.amax(0) - damage) / (damage + 1e-9)).amax(),
        "size_residual": (attack.norm(dim=-1) / spec.size - 1).abs().max(),
    }


def _directions(spec: Spec, bench: Bench, name: str, like: Tensor) -> Tensor:
    noise = torch.randn(RANDOM, *like.shape, generator=bench.generator(name, spec.seed), dtype=like.dtype)
    return torch.nn.functional.normalize(noise, dim=-1)


def _small_residual(target: Target, before: Tensor, gain: Tensor, direction: Tensor) -> Tensor:
    """How far tiny attacks along the closed form's direction miss its gain, where no output is so near 0 that they
    open or shut it."""
    reach = 10 * TINY * (target.W @ target.W.mT).norm(dim=-1)[..., None, :]
    clear = (before.abs() > reach).all(-1)
    off = (target.damage(before, TINY * direction) / TINY**2 - gain).abs().where(clear, 0)
    return off.max() / (gain.max() + 1e-12)


VULNERABILITY_RATIO = Quantity(
    "vulnerability_ratio",
    "The vulnerability of the sparsest model by that of the dense one.",
    unit="×",
    range=(0, math.inf),
    headline=True,
)
DENSE_VULNERABILITY = Quantity(
    "dense_vulnerability",
    "Mean over inputs of the worst damage by ε², features never absent; interval: 95%, over inputs; null: 1, what a "
    "dimension of its own has.",
    range=(0, math.inf),
    headline=True,
)
SPARSE_VULNERABILITY = Quantity(
    "sparse_vulnerability",
    "The same of the sparsest model.",
    range=(0, math.inf),
    headline=True,
)
VULNERABILITY = Quantity(
    "vulnerability",
    "Mean over inputs of the worst damage by ε², at every sparsity from 0 on; null: random changes of the same length, "
    "their mean at the sparse end.",
    range=(0, math.inf),
)
SMALL_VULNERABILITY = Quantity(
    "small_vulnerability",
    "The same of attacks too small to open or shut a ReLU, in closed form.",
    range=(0, math.inf),
)
FEATURES_PER_DIMENSION = Quantity(
    "features_per_dimension",
    "‖W‖²_F/m at every sparsity: features, each counted with its squared norm, by the layer's dimensions.",
    range=(0, math.inf),
)


def _best(out: Out) -> int:
    """The seed with the lowest loss at the sparse end, whose numbers are given at every sparsity."""
    return int(out.loss[-1].argmin())


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of one seed at all sparsities; `seeds` has them for every seed."""
    best, mean = _best(out), out.damage.mean(-1)
    error = 1.96 * out.damage[:, best].std(-1) / math.sqrt(spec.inputs)

    def end(quantity: Quantity, point: int) -> Metric:
        value, reach = float(mean[point, best]), float(error[point])
        interval = (max(0.0, value - reach), value + reach)
        return quantity.is_(value, interval=interval, null=1.0, n=spec.inputs, seeds=tuple(mean[point].tolist()))

    def along(quantity: Quantity, values: Tensor, null: float | None = None) -> Metric:
        each = tuple(tuple(row) for row in values.T.tolist())
        return quantity.is_(each[best], null=null, n=spec.seeds, seeds=each)

    ratio = mean[-1] / mean[0].clamp(min=1e-12)
    return [
        VULNERABILITY_RATIO.is_(float(ratio[best]), null=1.0, n=spec.seeds, seeds=tuple(ratio.tolist())),
        end(DENSE_VULNERABILITY, 0),
        end(SPARSE_VULNERABILITY, -1),
        along(VULNERABILITY, mean, float(out.random[-1, best])),
        along(SMALL_VULNERABILITY, out.gain.mean(-1)),
        along(FEATURES_PER_DIMENSION, out.features_per_dimension),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """What no attack passes, what a small one does exactly, and that the worst one found deserves its name."""
    return [
        Check(
            "no attack passes the ceiling",
            float((out.damage - out.ceiling[..., None]).max() / out.ceiling.max().clamp(min=1e-12)),
            1e-9,
            "the largest damage by ε², over all inputs, against λ_max(W Wᵀ I W Wᵀ); the residual is the excess",
        ),
        Check(
            "a small attack does its closed form",
            float(out.small_residual),
            1e-4,
            "attacks of length 10⁻⁷ along the eigenvector, where they open or shut no ReLU; relative",
        ),
        Check(
            "no random change does more than the attack",
            float(out.random_residual),
            0.05,
            f"{RANDOM} as long for every input; by how much one did, as a share: the worst attack is found by search",
        ),
        Check("attacks have length ε", float(out.size_residual), 1e-9, "relative, the worst of all inputs"),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {
        "vulnerability": _draw_vulnerability(spec, out),
        "by_sparsity": _draw_by_sparsity(spec, out),
        "attack": _draw_attack(spec, out),
    }


def _rarities(out: Out) -> NDArray[np.float64]:
    """1/(1 − S): one in how many inputs has a feature."""
    return 1 / (1 - np.array(out.sparsities))


RARITY = "1/(1 − S), log scale"


def _draw_vulnerability(spec: Spec, out: Out) -> Drawing:
    best, mean, rarity = _best(out), out.damage.mean(-1), _rarities(out)
    shades = ScalarMappable(LogNorm(1, rarity[-1]), SHADES)
    order = out.features_per_dimension[:, best].argsort()
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        closed = out.gain.mean(-1)
        ax.plot(
            out.features_per_dimension[order, best],
            closed[order, best],
            color=GREY,
            linewidth=1.2,
            label="small attacks, closed form",
        )
        for point, colour in enumerate(shades.to_rgba(rarity)):
            for seed in range(spec.seeds):
                size = 9 if seed == best else 3
                ax.plot(out.features_per_dimension[point, seed], mean[point, seed], "o", color=colour, markersize=size)
        ax.axhline(1, color=GREY, linestyle="--", linewidth=1.2, label="a dimension each")
        colour_bar(ax, shades, RARITY)
        ticks = [10**power for power in range(4) if 10**power <= 1.001 * rarity[-1]]
        assert shades.colorbar is not None
        shades.colorbar.set_ticks(ticks, labels=[str(tick) for tick in ticks])  # by itself it would write mathtext
        ax.set(xlabel="features per dimension ‖W‖²/m", ylabel="vulnerability")
        ax.set(xlim=(0, 1.05 * float(out.features_per_dimension.max())), ylim=(0, 1.1 * float(mean.max())))
        figure.legend(loc="outside upper center", ncols=2)
    values = ", ".join(f"{float(value):.3g}" for value in mean[:, best])
    per = ", ".join(f"{float(value):.3g}" for value in out.features_per_dimension[:, best])
    return Drawing(
        figure,
        f"Vulnerability to attacks of length {spec.size:g} against features per dimension, at {spec.points} "
        f"sparsities: {values} at {per} features per dimension. A feature with a dimension of its own has 1.",
    )


def _draw_by_sparsity(spec: Spec, out: Out) -> Drawing:
    best, rarity = _best(out), _rarities(out)
    damage = out.damage[:, best]
    low, high = damage.quantile(torch.tensor([0.05, 0.95], dtype=damage.dtype), dim=-1)
    with canvas(2, 1, height=5.2, sharex=True, gridspec_kw={"height_ratios": [3, 2]}) as (figure, axes):
        ax = axes[0, 0]
        ax.fill_between(rarity, low, high, color=PALETTE[0], alpha=0.2, linewidth=0, label="90% of inputs")
        ax.plot(rarity, damage.mean(-1), "o-", color=PALETTE[0], label="worst attack")
        ax.plot(rarity, out.gain[:, best].mean(-1), "--", color=PALETTE[1], label="small, closed form")
        ax.plot(rarity, out.random[:, best], ":", color=PALETTE[2], label="random change")
        ax.axhline(1, color=GREY, linestyle="--", linewidth=1)
        ax.set(ylabel="vulnerability", ylim=(0, 1.1 * max(1.0, float(high.max()))))
        axes[1, 0].plot(rarity, out.features_per_dimension[:, best], "o-", color=PALETTE[0])
        axes[1, 0].set(
            ylabel="features\nper dimension",
            xlabel=RARITY,
            ylim=(0, 1.15 * float(out.features_per_dimension[:, best].max())),
        )
        log_axis(axes[1, 0], "x")
        figure.legend(loc="outside upper center", ncols=2)
    ends = [f"{float(damage[point].mean()):.3g}" for point in (0, -1)]
    return Drawing(
        figure,
        f"Vulnerability against how rare features are: {ends[0]} where they are always there, {ends[1]} where one in "
        f"{rarity[-1]:.0f} inputs has one; random changes as long do {float(out.random[-1, best]):.2g} there.",
    )


def _draw_attack(spec: Spec, out: Out) -> Drawing:
    x, change, before, after = out.shown.numpy()
    place = np.arange(1, len(x) + 1)
    with canvas(2, 1, height=5.0, sharex=True) as (figure, axes):
        panels = ((x, x + change, "input x", ("as it was", "attacked")), (before, after, "answer x′", (None, None)))
        for ax, (first, second, label, names) in zip(axes[:, 0], panels, strict=True):
            ax.bar(place - 0.2, first, width=0.4, color=PALETTE[0], label=names[0])
            ax.bar(place + 0.2, second, width=0.4, color=PALETTE[1], label=names[1])
            ax.axhline(0, color=GREY, linewidth=0.8)
            ax.set_ylabel(label)
            feature_axis(ax, len(x))
        axes[0, 0].set_xlabel("")
        moved = float(np.linalg.norm(after - before))
        axes[0, 0].set_title(f"changed by {spec.size:g} in all, the answer moves by {moved:.2g}")
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"The most vulnerable of {spec.inputs} inputs of the sparsest model, before and after an attack of length "
        f"{spec.size:g}: the answer moves by {moved:.3g}, no single input by more than {np.abs(change).max():.2g}.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """Training as in `superposition` at every sparsity, then the ascents."""
    del shape
    n, m, models = spec.features, spec.hidden, spec.points * spec.seeds
    vectors = models * n * spec.batch
    training = spec.steps * (1e-4 + vectors * (min(2 * n, 5 * m) / 2e10 + 2e-9))
    attacking = models * spec.inputs * (100 * n * (4 * m / 2e10 + 2e-8) + m**3 * 1e-8 + 1e-5)
    return Needs(12 * vectors + 8 * spec.seeds * spec.inputs * (RANDOM + 10) * n, 1 + training + attacking)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        VULNERABILITY_RATIO,
        DENSE_VULNERABILITY,
        SPARSE_VULNERABILITY,
        VULNERABILITY,
        SMALL_VULNERABILITY,
        FEATURES_PER_DIMENSION,
    ),
    figures={
        "vulnerability": "How far the worst attack moves the answer, against features per dimension.",
        "by_sparsity": "The same by sparsity, beside small attacks in closed form and random changes.",
        "attack": "One attack: the input, the change and how far the answer moved.",
    },
    examples=(
        Example(
            "superposition-is-vulnerable",
            "Models in superposition are more than three times as vulnerable as the dense one",
            {"features": 20, "hidden": 5},
            (
                "vulnerability_ratio > 3 in 90% of seeds",
                "dense_vulnerability = 1.00 +- 0.1",
                "max of features_per_dimension > 4",
            ),
        ),
        Example(
            "a-dimension-each",
            "Features with a dimension each are as vulnerable sparse as dense",
            {"features": 4, "hidden": 4, "points": 3},
            ("vulnerability_ratio < 1.3", "max of features_per_dimension < 1.15"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("untrained models", "what superposition does", {"steps": 1}),
)
