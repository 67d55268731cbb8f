"""Superposition: does a layer hold more features than it has dimensions?

A toy model squeezes n features through m hidden dimensions and reads them back:

    x′ = ReLU(W Wᵀ x + b)      loss = Σ I_i (x_i − x′_i)²      W: one row W_i per feature

Each x_i is 0 with probability S (the sparsity), else uniform in [0, 1]; feature i, counted from 1, has importance
I_i = importance^(i−1). `activation: linear` leaves the ReLU out: such a model can only keep the m most important
features. With the ReLU and enough sparsity it keeps more, as directions that share the space: superposition.

For one feature, with Ŵ_i = W_i/‖W_i‖:

    represented      ‖W_i‖ ≥ ½                        `threshold` sets another bound
    interference     Σ_{j≠i} (Ŵ_i · W_j)²             what the others write along its direction; 0 if not represented
    dimensionality   D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)²  its share of a dimension; Σ D_i never exceeds the rank of W

and for the whole layer D* = m/‖W‖²_F, the dimensions that a feature gets on average.

Several seeds train at once on the same vectors. Figures and numbers are those of the seed with the lowest loss, the
others are drawn beside it, and a claim may ask `in 90% of seeds`.

How to read the figures. In `weights` every arrow is a feature: at right angles two features do not disturb each other,
opposite ones share one dimension (a digon, D = ½), five in a plane make a pentagon (D = ⅖). In `gram` (W Wᵀ) the
diagonal says how strongly a feature comes back, all else is interference. In `dimensionality` features gather on lines
that belong to solids: ¾ tetrahedron, ⅔ triangle, ½ digon, ⅖ pentagon, ⅜ square antiprism.

Source: Nelson Elhage, Tristan Hume, Catherine Olsson, Nicholas Schiefer, Tom Henighan, Shauna Kravec, Zac
Hatfield-Dodds, Robert Lasenby, Dawn Drain, Carol Chen, Roger Grosse, Sam McCandlish, Jared Kaplan, Dario Amodei, Martin
Wattenberg, Christopher Olah (2022), "Toy Models of Superposition", sections "Demonstrating Superposition" and "The
Geometry of Superposition", https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share, alike
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.autoencoder import Course, Toy, train
from vaultlab.models.exam import CHUNK, FRESH, examine, geometry_checks, mean_loss, training_checks
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, geometry
from vaultlab.plots.style import GREY, PALETTE, SHADES, Drawing, canvas, colour_bar, heat, log_axis
from vaultlab.plots.vectors import SISTERS, feature_axis, sisters, solid_lines, vectors
from vaultlab.result import Check, Metric


class Spec(BaseSpec):
    features: int = Field(5, ge=2, le=512, json_schema_extra={"symbol": "n"})
    """How many features the data has."""

    hidden: int = Field(2, ge=1, le=256, json_schema_extra={"symbol": "m"})
    """How many dimensions the layer has for them."""

    sparsity: Share = Field(0.95, ge=0, le=0.999, json_schema_extra={"symbol": "S", "stress": [0.7, 0.99]})
    """How often a feature is absent: 0.95, or 95%."""

    importance: float = Field(1.0, gt=0, le=1, json_schema_extra={"symbol": "r"})
    """How much a feature counts beside the one before it: feature i has importance r^(i−1). 1: all count alike."""

    activation: Literal["relu", "linear"] = "relu"
    """What the output goes through: relu, or nothing (linear)."""

    steps: int = Field(3000, ge=1, le=100_000)
    """Training steps."""

    batch: int = Field(1024, ge=16, le=65_536)
    """Vectors in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=1, json_schema_extra={"stress": [0.003, 0.03]})
    """Adam's learning rate at the start; it falls to 0 along a half cosine."""

    threshold: float = Field(REPRESENTED, gt=0, le=1, json_schema_extra={"stress": [0.3, 0.7]})
    """The norm ‖W_i‖ from which a feature counts as represented."""

    seeds: int = Field(8, ge=1, le=64)
    """How many models to train, from different first weights on the same vectors."""

    seed: Seed = 0


BATCHED = ("sparsity", "threshold")
"""Models that differ in nothing but these fields train as one batch."""


class Out(NamedTuple):
    """What `compute` leaves behind; the residuals are for `verify`."""

    W: Float[Tensor, "seeds features hidden"]
    b: Float[Tensor, "seeds features"]
    loss: Float[Tensor, " seeds"]
    loss_error: Float[Tensor, " seeds"]
    curve: Float[Tensor, "steps seeds"]
    curve_at: Float[Tensor, " steps"]
    chance: Float[Tensor, ""]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]


def toy_of(spec: Spec) -> Toy:
    return Toy(spec.features, spec.hidden, spec.importance, spec.activation == "relu")


def compute(spec: Spec, bench: Bench) -> Out:
    """Train, then measure in float64 on the CPU, by the definition rather than by the way that training went."""
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Specs that differ in nothing but their sparsity, and in what counts as represented, train as one batch."""
    trained: dict[Spec, tuple[Tensor, Tensor, Sequence[int]]] = {}
    for points in alike(specs, *BATCHED):
        spec = points[0]
        course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed)
        sparsities = list(dict.fromkeys(point.sparsity for point in points))
        done = train(toy_of(spec), course, sparsities, bench.device, bench.generator, bench.progress)
        for point in points:
            at = sparsities.index(point.sparsity)
            trained[point] = (done.theta[at].cpu().double(), done.curve[:, at].cpu().double(), done.curve_at)
    for spec in specs:
        yield _measured(spec, *trained[spec], bench)


def _measured(spec: Spec, theta: Tensor, curve: Tensor, curve_at: Sequence[int], bench: Bench) -> Out:
    exam = examine(toy_of(spec), spec.sparsity, theta, curve[-1], lambda: bench.generator("toy", spec.seed, "fresh"))
    best = int(exam.loss.argmin())
    return Out(
        W=theta[..., :-1].float(),
        b=theta[..., -1].float(),
        curve=curve,
        curve_at=torch.tensor(curve_at, dtype=torch.float64),
        chance=_chance(theta[best, :, :-1], bench.generator("toy", spec.seed, "chance")),
        **exam._asdict(),
    )


def _null(spec: Spec) -> float:
    return mean_loss(toy_of(spec), spec.sparsity)


def _chance(W: Float[Tensor, "features hidden"], generator: torch.Generator) -> Float[Tensor, ""]:
    """The mean dimensionality that features of these norms have in directions drawn at random."""
    drawn = torch.randn(200, *W.shape, generator=generator, dtype=W.dtype)
    return geometry(torch.nn.functional.normalize(drawn, dim=-1) * W.norm(dim=-1, keepdim=True)).dimensionality.mean()


LOSS = Quantity(
    "loss",
    "Expected Σ I_i (x_i − x′_i)², measured on 65 536 fresh vectors; interval: 95%, from their spread; "
    "null: always answering the mean, Σ I_i (p/3 − p²/4).",
    range=(0, math.inf),
    headline=True,
)
REPRESENTED_FEATURES = Quantity(
    "represented",
    "How many features have ‖W_i‖ ≥ ½, or what `threshold` says.",
    unit="features",
    range=(0, 512),
    headline=True,
)
DIMENSIONS = Quantity(
    "dimensions_per_feature",
    "D* = m/‖W‖²_F: the layer's dimensions by its features, each counted with its squared norm.",
    unit="dimensions",
    range=(0, math.inf),
    headline=True,
)
DIMENSIONALITY = Quantity(
    "dimensionality",
    "D_i of every feature: the share of a dimension that it has for itself; "
    "null: its mean with the same norms in random directions.",
    unit="dimensions",
    range=(0, 1),
    forced={"mean": "Σ D_i is at most m whatever is trained, and m for nearly every W, so the mean is m/n"},
)
NORM = Quantity("norm", "‖W_i‖ of every feature.", range=(0, math.inf))
INTERFERENCE = Quantity(
    "interference",
    "Σ_{j≠i} (Ŵ_i · W_j)² of every represented feature, 0 for the others; "
    "null: its mean with the same norms in random directions.",
    range=(0, math.inf),
)


def _best(out: Out) -> int:
    return int(out.loss.argmin())


def _interference(spec: Spec, out: Out) -> Float[Tensor, "seeds features"]:
    """A feature that is not represented points nowhere in particular: what lies along it would be noise."""
    norm, interference, _ = geometry(out.W.double())
    return interference.where(norm >= spec.threshold, 0)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed with the lowest loss; `seeds` has them for every seed."""
    norm, _, dimensionality = geometry(out.W.double())
    best, loss, error = _best(out), float(out.loss.min()), float(out.loss_error[_best(out)])
    random = (norm**2).sum(-1, keepdim=True).sub(norm**2) / spec.hidden
    represented = norm >= spec.threshold

    def scalar(quantity: Quantity, values: Tensor, **more: object) -> Metric:
        return quantity.is_(values[best].item(), n=spec.seeds, seeds=tuple(values.tolist()), **more)

    def vector(quantity: Quantity, values: Tensor, **more: object) -> Metric:
        each = tuple(tuple(row) for row in values.tolist())
        return quantity.is_(each[best], n=spec.seeds, seeds=each, **more)

    return [
        scalar(LOSS, out.loss, interval=(loss - 1.96 * error, loss + 1.96 * error), null=_null(spec)),
        scalar(REPRESENTED_FEATURES, represented.sum(-1)),
        scalar(DIMENSIONS, spec.hidden / (norm**2).sum(-1)),
        vector(DIMENSIONALITY, dimensionality, null=float(out.chance)),
        vector(NORM, norm),
        vector(INTERFERENCE, _interference(spec, out), null=float(random.where(represented, 0)[best].mean())),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its gradient, its loss, its vectors and its geometry."""
    return [*training_checks(out), *geometry_checks(out.W.double())]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The figures of the seed whose numbers are given, the other seeds beside it. Of more than three hidden dimensions
    arrows show little: there `gram` comes first."""
    figures = {"weights": _draw_weights(spec, out)} if spec.hidden <= 3 else {}
    return figures | {
        "gram": _draw_gram(out),
        "norms": _draw_norms(spec, out),
        "dimensionality": _draw_dimensionality(out),
        "loss": _draw_loss(spec, out),
    }


def data(spec: Spec, out: Out) -> dict[str, Any]:
    """The arrows of every seed, where they can be drawn; the one whose numbers are given is shown first."""
    if spec.hidden > 3:
        return {}
    norm = geometry(out.W.double()).norm
    kept = (norm >= spec.threshold).sum(-1).tolist()
    return {
        "kind": "vectors",
        "axis": "seed",
        "values": list(range(spec.seeds)),
        "vectors": [[[round(x, 4) for x in row] for row in seed] for seed in out.W.tolist()],
        "notes": [f"{count} represented, loss {loss:.3g}" for count, loss in zip(kept, out.loss.tolist(), strict=True)],
        "chosen": _best(out),
    }


def _others(out: Out) -> list[int]:
    """The seeds that are drawn beside the best: the next ones by their loss."""
    return out.loss.argsort().tolist()[1 : SISTERS + 1]


def _range(values: Tensor) -> str:
    if not len(values):
        return "none"
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low} to {high}"


def _draw_weights(spec: Spec, out: Out) -> Drawing:
    best = _best(out)
    norm, _, dimensionality = geometry(out.W.double())
    kept = norm >= spec.threshold
    order = [best, *_others(out)]
    figure = vectors(
        [out.W[seed].numpy() for seed in order],
        [kept[seed].numpy() for seed in order],
        f"lowest loss, {float(out.loss[best]):.3g}",
    )
    count = kept.sum(-1)
    n, m = out.W.shape[1:]
    return Drawing(
        figure,
        f"The weight vectors of {n} features in {m} hidden {'dimension' if m == 1 else 'dimensions'}: "
        f"{int(count[best])} are represented, as in {int((count == count[best]).sum())} of {len(count)} seeds; norm "
        f"{_range(norm[best, kept[best]])}, dimensionality {_range(dimensionality[best, kept[best]])}"
        f"{_angles(out.W[best, kept[best]])}.",
    )


def _angles(W: Float[Tensor, "features hidden"]) -> str:
    """The angles between neighbours, where there is a plane to turn in."""
    if W.shape[1] != 2 or not 2 <= len(W) <= 8:
        return ""
    turns = torch.atan2(W[:, 1], W[:, 0]).rad2deg().sort().values
    gaps = torch.cat([turns.diff(), turns[:1] + 360 - turns[-1:]])
    return "; the angles between neighbours are " + ", ".join(f"{gap:.0f}°" for gap in gaps.tolist())


def _draw_gram(out: Out) -> Drawing:
    best = _best(out)
    W, b = out.W[best], out.b[best]
    n = len(W)
    gram = W @ W.T
    cells = torch.cat([gram, torch.full((n, 1), math.nan), b[:, None]], dim=1).numpy()
    most = float(np.nanmax(np.abs(cells)))
    with canvas(height=4.6) as (figure, axes):
        ax = axes[0, 0]
        heat(ax, cells, "W Wᵀ and b (units of the data)", limits=(-most, most))
        ax.set_aspect("equal")
        step = max(1, -(-n // 12))
        ax.set_xticks([*range(0, n, step), n + 1], [*(str(i + 1) for i in range(0, n, step)), "b"])
        ax.set_yticks(range(0, n, step), [str(i + 1) for i in range(0, n, step)])
        ax.set(xlabel="read from feature", ylabel="written to feature")
        ax.spines[:].set_visible(False)
        if n <= 8:
            for (row, col), value in np.ndenumerate(cells):
                if np.isfinite(value):
                    ink = "white" if abs(value) > 0.6 * most else "black"
                    shown = f"{round(float(value), 2) + 0:.2f}".replace("-", "−")
                    ax.text(col, row, shown, ha="center", va="center", color=ink, fontsize=11)
    off = gram - gram.diag().diag()
    return Drawing(
        figure,
        f"W Wᵀ of {n} features with the bias beside it. The diagonal is {_range(gram.diag())}, everything else "
        f"{_range(off[~torch.eye(n, dtype=torch.bool)])}, the bias {_range(b)}.",
    )


def _draw_norms(spec: Spec, out: Out) -> Drawing:
    best = _best(out)
    norm, interference = out.W[best].norm(dim=-1), _interference(spec, out)[best]
    scale = Normalize(0, max(1.0, float(interference.max())))
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        ax.bar(np.arange(1, len(norm) + 1), norm.numpy(), width=0.7, color=SHADES(scale(interference.numpy())))
        bound = "½" if spec.threshold == 0.5 else f"{spec.threshold:.3g}"
        ax.axhline(spec.threshold, color=GREY, linestyle="--", linewidth=1.2, label=f"represented from {bound} on")
        feature_axis(ax, len(norm))
        ax.set_ylabel("norm ‖Wᵢ‖")
        figure.legend(loc="outside upper center")
        colour_bar(ax, ScalarMappable(scale, SHADES), "interference")
    return Drawing(
        figure,
        f"The norms of {len(norm)} features, {_range(norm)}, coloured by interference, {_range(interference)}: "
        f"{int((norm >= spec.threshold).sum())} reach {bound} and count as represented.",
    )


def _draw_dimensionality(out: Out) -> Drawing:
    best, shares = _best(out), geometry(out.W.double()).dimensionality
    feature = np.arange(1, shares.shape[1] + 1)
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        solid_lines(ax)
        sisters(ax, [shares[seed].numpy() for seed in _others(out)])
        ax.plot(feature, shares[best].numpy(), "o", color=PALETTE[0], markersize=7, label="lowest loss")
        ax.set(ylim=(-0.04, 1.06), ylabel="dimensionality Dᵢ")
        feature_axis(ax, len(feature))
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"The dimensionality of {len(feature)} features, {_range(shares[best])} in the seed with the lowest loss, "
        f"{_range(shares)} over {len(shares)} seeds; lines at 1, ¾, ⅔, ½, ⅖ and ⅜.",
    )


def _draw_loss(spec: Spec, out: Out) -> Drawing:
    best, null = _best(out), _null(spec)
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        for place, seed in enumerate(_others(out)):
            label = "other seeds" if place == 0 else None
            ax.plot(out.curve_at, out.curve[:, seed], color=PALETTE[1], linewidth=1, label=label)
        ax.plot(out.curve_at, out.curve[:, best], color=PALETTE[0], label="lowest loss")
        ax.axhline(null, color=GREY, linestyle="--", linewidth=1, label="always the mean")
        log_axis(ax, "y")
        ax.set(xlabel="training step", ylabel="loss (log scale)")
        figure.legend(loc="outside upper center", ncols=3)
    return Drawing(
        figure,
        f"The loss of {out.curve.shape[1]} seeds over {spec.steps} steps: from {_range(out.curve[0])} down to "
        f"{_range(out.loss)}; always answering the mean would give {null:.3g}.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """By the multiplications of a step, at twenty billion a second, and the passes over its vectors' errors; then the
    exam. What a step takes beside is taken once by a batch, and a sweep draws its figures once."""
    del shape
    n, m, vectors = spec.features, spec.hidden, spec.seeds * spec.features * spec.batch
    training = spec.steps * vectors * (min(2 * n, 5 * m) / 2e10 + 2e-9)
    exam = 0.02 + 3e-8 * FRESH * n * spec.seeds
    measured = 8 * n * (3 * FRESH + 4 * CHUNK * spec.seeds)
    once = 1 + spec.steps * 2e-4
    return Needs(8 * vectors + measured, once + training + exam, once)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    data=data,
    metrics=(LOSS, REPRESENTED_FEATURES, DIMENSIONS, DIMENSIONALITY, NORM, INTERFERENCE),
    figures={
        "weights": "Every feature's weight vector, for up to three hidden dimensions.",
        "gram": "W Wᵀ and the bias: what is read from one feature and written to another.",
        "norms": "The norm of every feature's weights, coloured by interference.",
        "dimensionality": "The share of a dimension that every feature has, with the lines of the regular solids.",
        "loss": "The loss of every seed over training.",
    },
    examples=(
        Example(
            "pentagon",
            "Five sparse features fit in two dimensions, as a pentagon",
            {"features": 5, "hidden": 2, "sparsity": 0.95, "seeds": 16},
            (
                "represented = 5 in 90% of seeds",
                "every dimensionality = 0.40 +- 0.02",
                "every interference between 1.8 and 2.1",
                "loss < 0.01",
            ),
        ),
        Example(
            "digon",
            "Two sparse features share one dimension as opposites, half of it each",
            {"features": 2, "hidden": 1, "sparsity": 0.9},
            ("represented = 2", "every dimensionality = 0.50 +- 0.01", "every interference = 1.0 +- 0.05"),
        ),
        Example(
            "three-pairs",
            "Six sparse features fill three dimensions as three pairs of opposites",
            {"features": 6, "hidden": 3, "sparsity": 0.9},
            ("represented = 6 in 90% of seeds", "every dimensionality = 0.50 +- 0.01"),
        ),
        Example(
            "square-antiprism",
            "Eight sparse features in three dimensions: a square antiprism, nearly three eighths each",
            {"features": 8, "hidden": 3, "sparsity": 0.95},
            ("represented = 8 in 90% of seeds", "every dimensionality = 0.37 +- 0.01"),
        ),
        Example(
            "dense",
            "Features that are never absent are not superposed: only the two most important are kept",
            {"features": 5, "hidden": 2, "sparsity": 0, "importance": 0.7},
            ("represented = 2 in 90% of seeds", "every interference < 0.01", "max dimensionality = 1.00 +- 0.01"),
        ),
        Example(
            "linear",
            "Without the ReLU there is no superposition, however sparse the features",
            {"features": 5, "hidden": 2, "sparsity": 0.95, "importance": 0.7, "activation": "linear"},
            ("represented = 2 in 90% of seeds", "every interference < 0.01", "max dimensionality = 1.00 +- 0.01"),
        ),
    ),
    needs=needs,
    together=together,
    batched=BATCHED,
    nonsense=Nonsense("an untrained model", "training", {"steps": 1}),
)
