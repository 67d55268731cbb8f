"""Correlated features: how do two features lie to each other that fire together, or never both?

Toy models (see `superposition`)

    x′ = ReLU(W Wᵀ x + b)      loss = Σ (x_i − x′_i)²

are trained on features that come in pairs, 1 with 2, 3 with 4 and so on. Each is present with the density p = 1 − S,
and `pairs` says how a pair comes:

    together       both of it or neither, each as strong as it likes
    exclusive      one of it or the other, never both (so p is at most ½)
    independent    as if there were no pairs: the control

Two opposites in one dimension disturb each other only when both are present. Features that fire together always are, so
their opposites are sought in other pairs, and within a pair vectors come to stand at right angles; features that
exclude each other never are, and as opposites cost nothing at all. With as many dimensions as pairs the losses per
dimension are known without training, p/12 being that of a pair that is taken for one feature:

                      together      exclusive     independent
    opposites across  p²/3          p²/3          p²/3
    opposites within  p/3           0             p²/3
    merged            p/12          p/3           p/3 − p²/4

So what fires together is told apart only where p < ¼; denser, it is merged, as principal components would have it. And
where features exclude each other the loss is 0 if and only if every pair is a pair of opposites. Not every seed gets
there: the sparser the features, the less there is to gain, and a model that began otherwise stays.

Of two features Ŵ_i · Ŵ_j is their cosine: orthogonal up to 0.1 either way, opposite up to −0.9, merged from 0.9 on.
Pairs of which one is not represented are none of these. What is given beside it as chance is the same of features of
the same model that are no pair. Numbers and figures are those of the seed with the lowest loss; shares of seeds are
over all of them.

How to read the figures. In `weights` the two of a pair have one colour. In `seeds` every column is a seed, the lowest
loss at the left: above the cosine within each of its pairs and between features of different pairs, below its loss,
with the arrangements that are known as lines. `gram` is W Wᵀ, pairs framed.

Source: Nelson Elhage, Tristan Hume, Catherine Olsson, Nicholas Schiefer, Tom Henighan, Shauna Kravec, Zac
Hatfield-Dodds, Robert Lasenby, Dawn Drain, Carol Chen, Roger Grosse, Sam McCandlish, Jared Kaplan, Dario Amodei, Martin
Wattenberg, Christopher Olah (2022), "Toy Models of Superposition", section "The Geometry of Superposition",
"Non-Uniform Superposition", https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.patches import Rectangle
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share, alike
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.autoencoder import Course, Toy, train
from vaultlab.models.directions import tail
from vaultlab.models.exam import CHUNK, examine, geometry_checks, losses, mean_loss, training_checks
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED
from vaultlab.models.pairing import all_cosines, arrangement_losses, arrangement_weights
from vaultlab.models.sparse import Pairs, fresh
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, heat, log_axis
from vaultlab.plots.vectors import SISTERS, vectors
from vaultlab.result import Check, Metric

ORTHOGONAL, OPPOSITE, MERGED = 0.1, -0.9, 0.9
"""Up to which cosine, either way; up to which; from which on."""

LOSSLESS = 1e-12
"""A loss that is nothing but round-off of training in float32."""

EXAMINED = 2**14
"""Fresh vectors that a loss is measured on."""

FLOOR = 1e-16
"""Losses below it are drawn there."""


class Spec(BaseSpec):
    pairs: Pairs = "together"
    """How the two of a pair come: both or neither (together), never both (exclusive), or as if they were none."""

    features: int = Field(4, ge=2, le=64, json_schema_extra={"symbol": "n"})
    """How many features there are, twice as many as pairs."""

    hidden: int = Field(2, ge=1, le=32, json_schema_extra={"symbol": "m"})
    """How many dimensions the layer has for them."""

    sparsity: Share = Field(0.9, ge=0, le=0.999, json_schema_extra={"symbol": "S", "stress": [0.85, 0.95]})
    """How often a feature is absent: 0.9, or 90%; of a pair that is never both at least half of the time."""

    steps: int = Field(2000, ge=1, le=100_000)
    """Training steps."""

    batch: int = Field(256, ge=16, le=65_536)
    """Vectors in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=1, json_schema_extra={"stress": [0.005, 0.02]})
    """Adam's learning rate at the start; it falls to 0 along a half cosine."""

    threshold: float = Field(REPRESENTED, gt=0, le=1, json_schema_extra={"stress": [0.3, 0.7]})
    """The norm ‖W_i‖ from which a feature counts as represented."""

    seeds: int = Field(24, ge=1, le=128)
    """How many models to train, from different first weights on the same vectors."""

    seed: Seed = 0

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> "Spec":
        if self.features % 2:
            raise ValueError("Features come in pairs: of an odd number one would be left over.")
        if self.pairs == "exclusive" and self.sparsity < 0.5:
            raise ValueError("Of two features that are never both present, each is absent at least half of the time.")
        return self

    @property
    def known(self) -> bool:
        """Whether there are as many dimensions as pairs: then what an arrangement costs is known."""
        return self.features == 2 * self.hidden and self.hidden > 1


class Out(NamedTuple):
    """What `compute` leaves behind; the residuals are for `verify`."""

    W: Float[Tensor, "seeds features hidden"]
    b: Float[Tensor, "seeds features"]
    loss: Float[Tensor, " seeds"]
    loss_error: Float[Tensor, " seeds"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]
    arrangement_residual: Float[Tensor, ""]


def toy_of(spec: Spec) -> Toy:
    return Toy(spec.features, spec.hidden, 1.0, True, spec.pairs)


def compute(spec: Spec, bench: Bench) -> Out:
    """Train, then measure in float64 on the CPU."""
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Specs that differ in nothing but their sparsity, and in what counts as represented, train as one batch."""
    trained: dict[Spec, tuple[Tensor, Tensor]] = {}
    for points in alike(specs, "sparsity", "threshold"):
        spec = points[0]
        course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed, looks=1)
        sparsities = list(dict.fromkeys(point.sparsity for point in points))
        done = train(toy_of(spec), course, sparsities, bench.device, bench.generator, bench.progress)
        for point in points:
            at = sparsities.index(point.sparsity)
            trained[point] = (done.theta[at].cpu().double(), done.curve[-1, at].cpu().double())
    for spec in specs:
        yield _measured(spec, *trained[spec], bench)


def _measured(spec: Spec, theta: Tensor, followed: Tensor, bench: Bench) -> Out:
    bench.progress(0, 1, "examining")
    exam = examine(
        toy_of(spec), spec.sparsity, theta, followed, lambda: bench.generator("toy", spec.seed, "fresh"), EXAMINED
    )
    return Out(
        W=theta[..., :-1].float(),
        b=theta[..., -1].float(),
        arrangement_residual=_arrangement_residual(spec, bench),
        **exam._asdict(),
    )


def _known_losses(spec: Spec) -> dict[str, float]:
    return arrangement_losses(spec.pairs, 1 - spec.sparsity, spec.hidden) if spec.known else {}


def _arrangement_residual(spec: Spec, bench: Bench) -> Tensor:
    """How far the arrangements, built as weights, are from their closed forms: on fresh vectors, in standard errors."""
    if not spec.known:
        return torch.zeros((), dtype=torch.float64)
    theta = torch.nn.functional.pad(arrangement_weights(spec.hidden), (0, 1))
    vectors = fresh(toy_of(spec).law, spec.sparsity, bench.generator("toy", spec.seed, "fresh"), EXAMINED)
    each, _ = losses(toy_of(spec), theta, vectors)
    off = each.mean(1) - torch.tensor(list(_known_losses(spec).values()), dtype=each.dtype)
    return (off.abs() / (each.std(1) / math.sqrt(EXAMINED) + 1e-12)).max()


class Look(NamedTuple):
    """Cosines within every pair, between any two that are none, and to each feature's nearest opposite of those."""

    within: Float[Tensor, "seeds pairs"]
    between: Float[Tensor, "seeds others"]
    nearest: Float[Tensor, "seeds features"]
    best: int


def look(spec: Spec, out: Out) -> Look:
    cosine = all_cosines(out.W.double(), spec.threshold)
    each = torch.arange(spec.features)
    strangers = each[:, None] // 2 != each // 2
    nearest = cosine.nan_to_num(2).where(strangers, 2).amin(-1)
    return Look(
        cosine[:, 0::2, 1::2].diagonal(dim1=-2, dim2=-1),
        cosine[:, strangers & (each[:, None] < each)],
        nearest.where(nearest < 2, math.nan),
        int(out.loss.argmin()),
    )


def _orthogonal(cosine: Tensor) -> Bool[Tensor, "..."]:
    return cosine.abs() <= ORTHOGONAL


def _opposite(cosine: Tensor) -> Bool[Tensor, "..."]:
    return cosine <= OPPOSITE


def _merged(cosine: Tensor) -> Bool[Tensor, "..."]:
    return cosine >= MERGED


LOSS = Quantity(
    "loss",
    "Expected Σ (x_i − x′_i)², measured on 16 384 fresh vectors; interval: 95%, from their spread; null: always "
    "answering the mean, n (p/3 − p²/4).",
    range=(0, math.inf),
    headline=True,
)
ORTHOGONAL_PAIRS = Quantity(
    "orthogonal",
    "The share of pairs whose vectors are orthogonal, |cos| ≤ 0.1; null: the same of features that are no pair.",
    range=(0, 1),
    headline=True,
)
OPPOSITE_PAIRS = Quantity(
    "opposite",
    "The share of pairs whose vectors are opposites, cos ≤ −0.9; null: the same of features that are no pair.",
    range=(0, 1),
    headline=True,
)
MERGED_PAIRS = Quantity(
    "merged",
    "The share of pairs that are taken for one feature, cos ≥ 0.9; null: the same of features that are no pair.",
    range=(0, 1),
)
ACROSS = Quantity(
    "opposites_across",
    "The share of features that have an opposite, cos ≤ −0.9, in another pair; null: with directions drawn at random.",
    range=(0, 1),
)
COSINE = Quantity(
    "cosine",
    "Ŵ_i · Ŵ_j within every pair of which both are represented; null: the mean between features that are no pair.",
    range=(-1, 1),
)
EXCESS = Quantity(
    "excess",
    "The loss less that of the best arrangement, as a share of always answering the mean; below 0: better than any of "
    "the three, by a bias. Only where there are as many dimensions as pairs, two at least.",
    range=(-1, math.inf),
)
REPRESENTED_FEATURES = Quantity(
    "represented",
    "How many features have ‖W_i‖ ≥ ½, or what `threshold` says.",
    unit="features",
    range=(0, 64),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed with the lowest loss; `seeds` has them for every seed."""
    seen = look(spec, out)
    best, null = seen.best, mean_loss(toy_of(spec), spec.sparsity)
    loss, error = float(out.loss[best]), 1.96 * float(out.loss_error[best])

    def scalar(quantity: Quantity, values: Tensor, null: float | None = None, **more: object) -> Metric:
        values = values.double()
        return quantity.is_(float(values[best]), null=null, n=spec.seeds, seeds=tuple(values.tolist()), **more)

    def share(quantity: Quantity, which: Any) -> Metric:
        others = which(seen.between[best]).double()
        return scalar(quantity, which(seen.within).double().mean(-1), float(others.mean()) if len(others) else None)

    cosines = tuple(tuple(one for one in row if math.isfinite(one)) for row in seen.within.tolist())
    strangers = seen.between[best][seen.between[best].isfinite()]
    known = _known_losses(spec)
    excess = (out.loss - min(known.values(), default=0.0)) / null
    metrics = [
        scalar(LOSS, out.loss, null, interval=(max(0.0, loss - error), loss + error)),
        share(ORTHOGONAL_PAIRS, _orthogonal),
        share(OPPOSITE_PAIRS, _opposite),
        share(MERGED_PAIRS, _merged),
        scalar(ACROSS, _opposite(seen.nearest).double().mean(-1), _opposites_by_chance(spec)),
        COSINE.is_(cosines[best], n=spec.seeds, seeds=cosines, null=float(strangers.mean()) if len(strangers) else None)
        if cosines[best]
        else None,
        scalar(EXCESS, excess) if known else None,
        scalar(REPRESENTED_FEATURES, (out.W.norm(dim=-1) >= spec.threshold).sum(-1)),
    ]
    return [metric for metric in metrics if metric is not None]


def _opposites_by_chance(spec: Spec) -> float:
    """How often one of n − 2 random directions is a feature's opposite."""
    one = 0.5 if spec.hidden == 1 else float(tail(torch.tensor(-OPPOSITE), spec.hidden)) / 2
    return 1 - (1 - one) ** (spec.features - 2)


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its training, its geometry, the arrangements, and what no loss at all must mean."""
    checks = [*training_checks(out), *geometry_checks(out.W.double())]
    if spec.known:
        checks.append(
            Check(
                "arrangements built as weights = their closed forms",
                float(out.arrangement_residual),
                5,
                "opposites across, opposites within and merged, on fresh vectors; in standard errors",
            )
        )
    if spec.known and spec.pairs == "exclusive":
        exact = out.loss < LOSSLESS
        furthest = look(spec, out).within[exact].nan_to_num(1).amax() if exact.any() else torch.tensor(OPPOSITE)
        checks.append(
            Check(
                "no loss, so every pair is opposite",
                float(1 + furthest),
                1 + OPPOSITE,
                f"1 + the largest cosine within a pair, of the {int(exact.sum())} seeds with a loss under {LOSSLESS:g}",
            )
        )
    return checks


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The figures of the seed whose numbers are given, the others beside it. Of more than three hidden dimensions
    arrows show little: there `seeds` comes first."""
    seen = look(spec, out)
    figures = {"weights": _draw_weights(spec, out, seen)} if spec.hidden <= 3 else {}
    return figures | {"seeds": _draw_seeds(spec, out, seen), "gram": _draw_gram(spec, out, seen)}


def data(spec: Spec, out: Out) -> dict[str, Any]:
    """The arrows of every seed, where they can be drawn; the one whose numbers are given is shown first."""
    if spec.hidden > 3:
        return {}
    seen = look(spec, out)
    return {
        "kind": "vectors",
        "axis": "seed",
        "values": list(range(spec.seeds)),
        "vectors": [[[round(x, 4) for x in row] for row in seed] for seed in out.W.tolist()],
        "notes": [
            f"{_said(within)}, loss {loss:.3g}" for within, loss in zip(seen.within, out.loss.tolist(), strict=True)
        ],
        "chosen": seen.best,
    }


def _said(within: Float[Tensor, " pairs"]) -> str:
    """What becomes of the pairs, in words."""
    kinds = {"orthogonal": _orthogonal, "opposite": _opposite, "merged": _merged}
    counts = {name: int(kind(within).sum()) for name, kind in kinds.items()}
    counts["otherwise"] = len(within) - sum(counts.values())
    return f"of {len(within)} pairs " + ", ".join(f"{count} {name}" for name, count in counts.items() if count)


def _draw_weights(spec: Spec, out: Out, seen: Look) -> Drawing:
    order = out.loss.argsort().tolist()[: SISTERS + 1]
    kept = out.W.norm(dim=-1) >= spec.threshold
    figure = vectors(
        [out.W[seed].numpy() for seed in order],
        [kept[seed].numpy() for seed in order],
        f"lowest loss, {float(out.loss[seen.best]):.3g}",
        [PALETTE[i // 2 % len(PALETTE)] for i in range(spec.features)],
    )
    others = [_said(row) for row in seen.within]
    return Drawing(
        figure,
        f"The weight vectors of {spec.features} features in {spec.hidden} hidden "
        f"{'dimension' if spec.hidden == 1 else 'dimensions'}, a colour a pair: {others[seen.best]}, as in "
        f"{others.count(others[seen.best])} of {spec.seeds} seeds.",
    )


def _draw_seeds(spec: Spec, out: Out, seen: Look) -> Drawing:
    order = out.loss.argsort()
    place, loss = np.arange(1, spec.seeds + 1), out.loss[order].clamp(min=FLOOR).numpy()
    with canvas(2, 1, height=5.8, sharex=True) as (figure, axes):
        top, below = axes[:, 0]
        for values, mark, colour, label in (
            (seen.between, "_", GREY, "no pair"),
            (seen.within, "o", PALETTE[1], "pair"),
        ):
            for column, row in enumerate(values[order].T.numpy()):
                top.plot(place, row, mark, color=colour, markersize=7, label=label if column == 0 else None)
        top.axhline(0, color=GREY, linewidth=0.6)
        top.set(ylim=(-1.1, 1.1), ylabel="cosine Ŵᵢ · Ŵⱼ", yticks=[-1, 0, 1])
        below.plot(place, loss, "o", color=PALETTE[0], label="loss")
        null = mean_loss(toy_of(spec), spec.sparsity)
        below.axhline(null, color=GREY, linestyle="--", linewidth=1.2, label="always the mean")
        for (name, known), colour in zip(_known_losses(spec).items(), (*PALETTE[2:4], PALETTE[4]), strict=False):
            if known > 0:
                below.axhline(known, color=colour, linestyle=":", linewidth=1.6, label=name)
        log_axis(below, "y")
        below.set(xlabel="seed, by its loss", ylabel="loss (log scale)", xlim=(0.4, spec.seeds + 0.6))
        step = max(1, -(-spec.seeds // 12))
        below.set_xticks(place[::step])
        figure.legend(loc="outside upper center", ncols=3)
    exact = int((out.loss < LOSSLESS).sum())
    return Drawing(
        figure,
        f"The cosine within every pair and the loss of {spec.seeds} seeds, the lowest loss first: "
        f"{_said(seen.within[seen.best])} at a loss of {float(out.loss[seen.best]):.3g}, "
        f"{_said(seen.within[int(order[-1])])} at {float(out.loss.max()):.3g}; {exact} seeds lose nothing.",
    )


def _draw_gram(spec: Spec, out: Out, seen: Look) -> Drawing:
    W = out.W[seen.best]
    gram = (W @ W.T).numpy()
    with canvas(height=4.6) as (figure, axes):
        ax = axes[0, 0]
        most = float(np.abs(gram).max())
        heat(ax, gram, "W Wᵀ (units of the data)", limits=(-most, most))
        ax.set_aspect("equal")
        for pair in range(spec.features // 2):
            corner = (2 * pair - 0.5, 2 * pair - 0.5)
            ax.add_patch(Rectangle(corner, 2, 2, fill=False, edgecolor="black", linewidth=1.6))
        step = max(1, -(-spec.features // 12))
        ticks = range(0, spec.features, step)
        ax.set_xticks(ticks, [str(i + 1) for i in ticks])
        ax.set_yticks(ticks, [str(i + 1) for i in ticks])
        ax.set(xlabel="read from feature", ylabel="written to feature")
        ax.spines[:].set_visible(False)
    within = ", ".join(f"{gram[2 * k, 2 * k + 1]:.2f}" for k in range(min(8, spec.features // 2)))
    return Drawing(
        figure,
        f"W Wᵀ of {spec.features} features, pairs framed: within pairs {within}; the diagonal is "
        f"{gram.diagonal().min():.2f} to {gram.diagonal().max():.2f}.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """As in `superposition`: the multiplications of a step and the passes over its vectors' errors."""
    del shape
    n, m, vectors = spec.features, spec.hidden, spec.seeds * spec.features * spec.batch
    seconds = spec.steps * (1e-4 + vectors * (min(2 * n, 5 * m) / 2e10 + 2e-9))
    return Needs(8 * vectors + 8 * n * (3 * EXAMINED + 4 * CHUNK * spec.seeds), 1 + seconds)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    data=data,
    metrics=(
        LOSS,
        ORTHOGONAL_PAIRS,
        OPPOSITE_PAIRS,
        MERGED_PAIRS,
        ACROSS,
        COSINE,
        EXCESS,
        REPRESENTED_FEATURES,
    ),
    figures={
        "weights": "Every feature's weight vector, a colour a pair, for up to three hidden dimensions.",
        "seeds": "The cosines within pairs and the loss of every seed, with the arrangements that are known.",
        "gram": "W Wᵀ with the pairs framed.",
    },
    examples=(
        Example(
            "fire-together",
            "Features that fire together are orthogonal, and opposites are of different pairs",
            {"pairs": "together"},
            (
                "orthogonal > 0.99 in 90% of seeds",
                "opposites_across > 0.99 in 90% of seeds",
                "opposite < 0.01 in 90% of seeds",
                "excess between -0.01 and 0.01",
            ),
        ),
        Example(
            "never-both",
            "Features that are never both present are opposites, and nothing is lost",
            {"pairs": "exclusive", "sparsity": 0.6},
            ("loss < 1e-12", "opposite > 0.99 in 60% of seeds", "every cosine < -0.99"),
        ),
        Example(
            "dense-pairs-merge",
            "Features that fire together and are often there are taken for one",
            {"pairs": "together", "sparsity": 0.6},
            ("merged > 0.99 in 70% of seeds", "excess between -0.01 and 0.01"),
        ),
        Example(
            "few-find-it",
            "Where features are rare a model may miss that opposites would cost nothing",
            {"pairs": "exclusive", "sparsity": 0.95, "features": 6, "hidden": 3},
            ("loss < 1e-12", "opposite < 0.99 in 70% of seeds"),
        ),
    ),
    needs=needs,
    together=together,
    nonsense=Nonsense("features that are no pairs", "pairs", {"pairs": "independent"}),
)
