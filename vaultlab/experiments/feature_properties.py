"""Feature properties: four ever stricter things that a representation can be, measured on weights.

The weights have one row W_i per feature: those of a toy model trained here, of a `matrix` in the block, or of a
`model`. With strengths x the layer holds h = Σ x_i W_i. Ŵ_i = W_i/‖W_i‖; a feature is *represented* if ‖W_i‖ ≥ ½ (in a
matrix or a model: half the root mean square of all norms).

    decomposable   every feature can be judged by itself, whatever others are there: for k features that are present
                   alike, h = Σ Ŵ_i, each reading Ŵ_j · h is above ½ if j is present and below if not
    linear         a feature is a direction, and its strength can be read along it: R² of Ŵ_i · h as a reading of x_i,
                   which for independent strengths is D_i = ‖W_i‖²/Σ_j (Ŵ_i · W_j)²
    superposed     features represented > rank of their rows; not superposed is the stricter property
    basis-aligned  every feature lies on one dimension: max_k |W_ik|/‖W_i‖ = 1

Any k features are told apart as long as (k − 1) μ⁻ < ½ and k μ⁺ < ½, with μ⁺ the largest cosine of two rows and −μ⁻ the
smallest, each μ at least 0.

The rule often quoted is that W is superposed where "W Wᵀ is not invertible". Taken literally it fails both ways. Of
all features' Gram (n × n) it says so also where a feature is just not represented: of [[1], [0]] nothing is
superposed. Of the Gram of the dimensions (m × m), which is W Wᵀ in papers that write features as columns, it denies it
of the pentagon, five features in two dimensions. Both readings are shown beside the right rule, with these cases.

How to read the figures. `properties` has the four as bars from 0 to 1, the dashes say what random directions would
have. In `rules` each row is one W, blue where a rule is right about it and red where it is wrong. In `apart` the shaded
numbers of features are told apart for certain. In `reading` points on the diagonal read what D_i says. In `alignment`
the features stand in order; at 1 they lie on a dimension.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "What are Features?" and "Features as
Directions", with its "Hierarchy of Feature Properties", https://transformer-circuits.pub/2022/toy_model/index.html
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Example,
    Experiment,
    Layer,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Seed,
    Share,
    alike,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.autoencoder import Course, Toy, train
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, alignment, dimensionality, geometry, rank, spectrum
from vaultlab.models.model import Model
from vaultlab.plots.ordered import ordered
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.result import Check, Metric

BATCH, LEARNING_RATE = 1024, 0.01

SAMPLE = 1024
"""Features at most of which pairs are looked at; of more, so many are drawn."""

AT_ONCE = 8
"""Features at most that are present together."""

DRAWS = 2000
"""Sets of features that are tried; where there are no more, all of them."""

MARGIN = 0.01
"""How near ½ a reading may come and still be above or below it: what is ½ but for training is neither."""

VECTORS = 2**14
"""On which readings are measured."""

Row = Annotated[tuple[float, ...], Field(min_length=1, max_length=256)]


class Spec(BaseSpec):
    matrix: tuple[Row, ...] | None = Field(None, min_length=1, max_length=256)
    """A matrix to look at, one row per feature: [[1, 0], [0.309, 0.951]]. With it, model and toy are not looked at."""

    model: ModelName | None = None
    """A model whose weights are looked at; none: a toy model trained here."""

    part: Literal["W_out", "W_in", "W_E"] = "W_out"
    """Which of the model's weights: what each neuron of an MLP writes (W_out) or, its norm folded in, reads (W_in); or
    the tokens' embeddings (W_E)."""

    layer: Layer | None = None
    """The layer of W_out or W_in, counted from 0; none: the middle one."""

    features: int = Field(5, ge=2, le=512)
    """How many features the toy model's data has."""

    hidden: int = Field(2, ge=1, le=256)
    """How many dimensions the toy model has for them."""

    sparsity: Share = Field(0.95, ge=0, le=0.999, json_schema_extra={"stress": [0.7, 0.99]})
    """How often a feature of the toy model's data is absent: 0.95, or 95%."""

    importance: float = Field(1.0, gt=0, le=1)
    """How much a feature counts beside the one before it, in the toy model's loss."""

    steps: int = Field(3000, ge=1, le=100_000)
    """Training steps of the toy model."""

    threshold: float = Field(REPRESENTED, gt=0, le=1, json_schema_extra={"stress": [0.3, 0.7]})
    """The norm ‖W_i‖ from which a feature counts as represented; in a matrix or a model as a share of the root mean
    square of all norms."""

    tolerance: float = Field(0.01, gt=0, le=0.5, json_schema_extra={"stress": [0.003, 0.03]})
    """A singular value under this share of the largest counts as 0, for every rank."""

    weights: Literal["trained", "shuffled"] = "trained"
    """The weights as they are, or as a control the same numbers in random order (shuffled)."""

    seeds: int = Field(8, ge=1, le=64)
    """How many toy models to train, from different first weights on the same vectors."""

    seed: Seed = 0

    @model_validator(mode="after")
    def _rows_alike(self) -> "Spec":
        if self.matrix is not None and len({len(row) for row in self.matrix}) > 1:
            raise ValueError("The rows of the matrix differ in length.")
        if self.matrix is not None and not any(any(row) for row in self.matrix):
            raise ValueError("The matrix is nothing but zeros.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind. `cut` is the norm from which a feature is represented; `singular` are the singular
    values of the represented rows, `singular_all` of all; `apart` is the share of sets of 1, 2 … features told apart,
    `guaranteed` up to how many that is certain; `read` and `closed` are R² and D_i of the features looked at in pairs,
    in the model with the lowest loss; `chance` has the four properties of random directions."""

    what: str
    loss: Float[Tensor, " seeds"]
    cut: Float[Tensor, " seeds"]
    norm: Float[Tensor, "seeds features"]
    linearity: Float[Tensor, "seeds features"]
    alignment: Float[Tensor, "seeds features"]
    singular: Float[Tensor, "seeds hidden"]
    singular_all: Float[Tensor, "seeds hidden"]
    apart: Float[Tensor, "seeds at_once"]
    guaranteed: Int[Tensor, " seeds"]
    read: Float[Tensor, " looked_at"]
    closed: Float[Tensor, " looked_at"]
    chance: Float[Tensor, " 4"]
    chance_apart: Float[Tensor, " at_once"]
    chance_alignment: Float[Tensor, " features"]
    rank_residual: Float[Tensor, ""]


class Given(NamedTuple):
    """The weights to look at, in float64, with the loss that each seed's model came to; 0 where nothing is trained."""

    what: str
    W: Float[Tensor, "seeds features hidden"]
    loss: Float[Tensor, " seeds"]


def compute(spec: Spec, bench: Bench) -> Out:
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Toy models that differ in nothing but their sparsity train as one batch."""
    trained: dict[Spec, Given] = {}
    for points in alike(
        [s for s in specs if s.matrix is None and s.model is None], "sparsity", "threshold", "tolerance"
    ):
        trained |= _trained(points, bench)
    for spec in specs:
        yield _looked_at(spec, trained[spec] if spec in trained else _given(spec, bench), bench)


def _trained(points: Sequence[Spec], bench: Bench) -> dict[Spec, Given]:
    spec, sparsities = points[0], list(dict.fromkeys(point.sparsity for point in points))
    toy = Toy(spec.features, spec.hidden, spec.importance, relu=True)
    course = Course(spec.steps, BATCH, LEARNING_RATE, spec.seeds, spec.seed)
    done = train(toy, course, sparsities, bench.device, bench.generator, bench.progress)
    theta, loss = done.theta.cpu().double(), done.curve[-1].cpu().double()
    found = {}
    for point in points:
        at = sparsities.index(point.sparsity)
        found[point] = Given("the toy model", theta[at, ..., :-1], loss[at])
    return found


@torch.inference_mode()
def _given(spec: Spec, bench: Bench) -> Given:
    nothing = torch.zeros(1, dtype=torch.float64)
    if spec.matrix is not None:
        return Given("the matrix", torch.tensor(spec.matrix, dtype=torch.float64)[None], nothing)
    model = bench.model(spec.model or "")
    if spec.part == "W_E":
        return Given("W_E", parts.embedding(model).W_E.cpu().double()[None], nothing)
    layer = _layer(spec, model)
    mlp = parts.mlp(model, layer)
    W = mlp.W_out if spec.part == "W_out" else mlp.folded(parts.mlp_norm(model, layer)).W_in.T
    return Given(f"{spec.part}, layer {layer}", W.cpu().double()[None], nothing)


def _layer(spec: Spec, model: Model) -> int:
    layers = model.shape.layers
    if spec.layer is not None and spec.layer >= layers:
        raise NoteError(f"{model.name} has no layer {spec.layer}.", f"Its layers are 0 to {layers - 1}.", field="layer")
    return layers // 2 if spec.layer is None else spec.layer


@torch.inference_mode()
def _looked_at(spec: Spec, given: Given, bench: Bench) -> Out:
    W = given.W
    if spec.weights == "shuffled":
        order = torch.randperm(W[0].numel(), generator=bench.generator("shuffled", spec.seed))
        W = W.flatten(1)[:, order].view_as(W)
    norm = W.norm(dim=-1)
    toy = spec.matrix is None and spec.model is None
    cut = spec.threshold * (torch.ones(len(W), dtype=W.dtype) if toy else norm.square().mean(-1).sqrt())
    represented = [one[lengths >= least] for one, lengths, least in zip(W, norm, cut, strict=True)]
    pairs = []
    for number, one in enumerate(represented):
        bench.progress(number, len(represented), "telling features apart")
        pairs.append(told_apart(_some(one, bench.generator("some", spec.seed)), bench.generator("sets", spec.seed)))
    singular = torch.stack([spectrum(one) for one in represented])
    best = _some(W[int(given.loss.argmin())], bench.generator("some", spec.seed))
    chance = _chance(len(represented[int(given.loss.argmin())]), W.shape[2], bench.generator("chance", spec.seed))
    return Out(
        what=given.what,
        loss=given.loss,
        cut=cut,
        norm=norm,
        linearity=torch.stack([dimensionality(one) for one in W]),
        alignment=alignment(W),
        singular=singular,
        singular_all=torch.stack([spectrum(one) for one in W]),
        apart=torch.stack([apart for apart, _ in pairs]),
        guaranteed=torch.tensor([sure for _, sure in pairs]),
        read=readings(best, bench.generator("strengths", spec.seed)),
        closed=geometry(best).dimensionality,
        **chance,
        rank_residual=_rank_residual(spec, _some(represented[0], bench.generator("some", spec.seed))),
    )


def _some(W: Float[Tensor, "features hidden"], generator: torch.Generator) -> Float[Tensor, "some hidden"]:
    """All of the rows, or as many as pairs are looked at, drawn at random."""
    return W if len(W) <= SAMPLE else W[torch.randperm(len(W), generator=generator)[:SAMPLE]]


def told_apart(
    W: Float[Tensor, "features hidden"], generator: torch.Generator
) -> tuple[Float[Tensor, " at_once"], int]:
    """The share of sets of 1, 2 … features in which a reading is above ½ for those present and below for all others;
    and up to how many features that is certain. There is no set of more features than there are: none fails."""
    unit = torch.nn.functional.normalize(W, dim=-1)
    gram, n = unit @ unit.T, len(W)
    shares = torch.ones(AT_ONCE, dtype=W.dtype)
    for k in range(1, min(AT_ONCE, n) + 1):
        sets = _sets(n, k, generator)
        reading = torch.stack([gram[column] for column in sets.T]).sum(0)
        present = torch.zeros(len(sets), n, dtype=torch.bool).scatter_(1, sets, True)
        right = torch.where(present, reading > 0.5 + MARGIN, reading < 0.5 - MARGIN)
        shares[k - 1] = right.all(1).double().mean()
    others = gram[~torch.eye(n, dtype=torch.bool)]
    near, opposite = (max(0.0, float(side.max())) if n > 1 else 0.0 for side in (others, -others))
    most = min(AT_ONCE, n)
    unsure = (k for k in range(1, most + 1) if max((k - 1) * opposite, k * near) >= 0.5 - MARGIN)
    return shares, next(unsure, most + 1) - 1


def _sets(n: int, k: int, generator: torch.Generator) -> Int[Tensor, "sets k"]:
    """All sets of k of n features, or as many at random as are tried."""
    if math.comb(n, k) <= DRAWS:
        return torch.tensor(list(itertools.combinations(range(n), k)))
    return torch.rand(DRAWS, n, generator=generator).topk(k, dim=1).indices


def readings(W: Float[Tensor, "features hidden"], generator: torch.Generator) -> Float[Tensor, " features"]:
    """R² of Ŵ_i · h as a reading of x_i, measured on strengths that are uniform and independent."""
    unit, n = torch.nn.functional.normalize(W, dim=-1), len(W)
    sums = torch.zeros(5, n, dtype=W.dtype)
    for _ in range(8):
        x = torch.rand(VECTORS // 8, n, generator=generator, dtype=W.dtype)
        read = (x @ W) @ unit.T
        sums += torch.stack([part.sum(0) for part in (x, read, x * x, read * read, x * read)])
    x, read, xx, rr, xr = sums / VECTORS
    together_, spread = xr - x * read, (xx - x * x) * (rr - read * read)
    return torch.where(spread > 1e-20, together_.square() / spread.clamp(min=1e-20), 0)


def _chance(count: int, m: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The same of so many random directions: the four properties, sets told apart, alignments in order."""
    draws = 20 if count <= 64 else 1
    drawn = torch.nn.functional.normalize(
        torch.randn(draws, max(count, 1), m, generator=generator, dtype=torch.float64), dim=-1
    )
    apart = torch.stack([told_apart(_some(one, generator), generator)[0] for one in drawn]).mean(0)
    aligned = alignment(drawn).sort(-1).values.mean(0)
    linear = torch.stack([dimensionality(one) for one in drawn]).mean()
    bars = torch.stack(
        [apart[1], linear, torch.tensor(min(1.0, m / max(count, 1)), dtype=torch.float64), aligned.mean()]
    )
    return {"chance": bars, "chance_apart": apart, "chance_alignment": aligned}


def _rank_residual(spec: Spec, W: Float[Tensor, "features hidden"]) -> Tensor:
    """How far apart the ranks are that W itself and its two Grams have."""
    if not len(W):
        return torch.tensor(0.0)
    large = torch.linalg.eigvalsh(W @ W.T).clamp(min=0).sqrt()
    ranks = torch.stack([rank(one, spec.tolerance) for one in (large, spectrum(W), torch.linalg.svdvals(W))])
    return (ranks.max() - ranks.min()).double()


REPRESENTED_FEATURES = Quantity(
    "represented",
    "How many features have a norm from ½ on, or what `threshold` says.",
    unit="features",
    range=(0, math.inf),
    headline=True,
)
RANK = Quantity("rank", "The rank of the represented rows.", unit="dimensions", range=(0, math.inf), headline=True)
FEATURES_PER_DIMENSION = Quantity(
    "features_per_dimension",
    "Features represented by the rank of their rows: above 1 they are superposed; null: random directions.",
    range=(0, math.inf),
    headline=True,
)
SUPERPOSED = Quantity(
    "superposed", "1 if more features are represented than the rank of their rows, else 0.", range=(0, 1)
)
LARGE_RULE = Quantity(
    "large_gram_singular",
    "1 if the Gram of all features (n × n) is not invertible, else 0: the rule taken literally, wrong where a feature "
    "is not represented.",
    range=(0, 1),
)
SMALL_RULE = Quantity(
    "small_gram_singular",
    "1 if the Gram of the dimensions (m × m) is not invertible, else 0: the rule in the other layout, wrong for any "
    "features that span the dimensions.",
    range=(0, 1),
)
PAIRS_APART = Quantity(
    "pairs_apart",
    "Share of pairs of represented features that can be told from all others while both are present; null: random "
    "directions.",
    range=(0, 1),
)
AT_ONCE_SURELY = Quantity(
    "surely_apart",
    "Up to how many features at once (8 at most) are told apart whichever they are, by the cosines alone.",
    unit="features",
    range=(0, AT_ONCE),
)
LINEARITY = Quantity(
    "linearity",
    "R² of reading a represented feature's strength along its direction, D_i; null: the mean of random directions.",
    range=(0, 1),
)
ALIGNMENT = Quantity(
    "alignment",
    "max_k |W_ik|/‖W_i‖ of every represented feature; null: the mean of random directions.",
    range=(0, 1),
)


def _best(out: Out) -> int:
    return int(out.loss.argmin())


class Rules(NamedTuple):
    """What three rules say of one W: how many features are represented, on what rank, and which Grams are singular."""

    represented: int
    rank: int
    large_singular: bool
    small_singular: bool

    @property
    def superposed(self) -> bool:
        return self.represented > self.rank


def _rules(spec: Spec, out: Out) -> list[Rules]:
    """Of every seed."""
    n, m = out.norm.shape[1], out.singular.shape[1]
    represented = (out.norm >= out.cut[:, None]).sum(-1)
    found = rank(out.singular, spec.tolerance), rank(out.singular_all, spec.tolerance)
    return [
        Rules(int(count), int(of_represented), bool(of_all < n), bool(of_all < m))
        for count, of_represented, of_all in zip(represented, *found, strict=True)
    ]


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed with the lowest loss; a matrix or a model has no seeds."""
    rules, best, kept = _rules(spec, out), _best(out), out.norm >= out.cut[:, None]
    repeated: dict[str, int] = {"n": len(rules)} if len(rules) > 1 else {}

    def scalar(quantity: Quantity, values: Sequence[float], null: float | None = None) -> Metric:
        return quantity.is_(
            float(values[best]), null=null, seeds=tuple(map(float, values)) if repeated else None, **repeated
        )

    def vector(quantity: Quantity, values: Tensor, null: Tensor) -> Metric:
        each = tuple(tuple(row[there].clamp(0, 1).tolist()) for row, there in zip(values, kept, strict=True))
        return quantity.is_(each[best], null=float(null), seeds=each if repeated else None, **repeated)

    return [
        scalar(REPRESENTED_FEATURES, [one.represented for one in rules]),
        scalar(RANK, [one.rank for one in rules]),
        scalar(FEATURES_PER_DIMENSION, [one.represented / max(one.rank, 1) for one in rules], float(1 / out.chance[2])),
        scalar(SUPERPOSED, [one.superposed for one in rules]),
        scalar(LARGE_RULE, [one.large_singular for one in rules]),
        scalar(SMALL_RULE, [one.small_singular for one in rules]),
        scalar(PAIRS_APART, out.apart[:, 1].tolist(), float(out.chance[0])),
        scalar(AT_ONCE_SURELY, out.guaranteed.tolist()),
        vector(LINEARITY, out.linearity, out.chance[1]),
        vector(ALIGNMENT, out.alignment, out.chance[3]),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """What holds of any weights."""
    sure = torch.arange(1, AT_ONCE + 1) <= out.guaranteed[:, None]
    ranks = rank(out.singular_all, 1e-7)
    least = 1 / math.sqrt(out.singular.shape[1])
    there = out.norm > 0
    return [
        Check(
            "rank W = rank W Wᵀ = rank WᵀW",
            float(out.rank_residual),
            0,
            "of the represented rows; the residual is their difference",
        ),
        Check(
            "what is certain is told apart",
            float((1 - out.apart).where(sure, 0).max()),
            0,
            "the share of sets, up to as many features as the cosines answer for, in which a reading is wrong",
        ),
        Check(
            "R² of a reading = D_i",
            float((out.read - out.closed).abs().max()),
            0.05,
            f"of {len(out.read)} features, measured on 16 384 vectors of uniform strengths; the largest difference",
        ),
        Check(
            "Σ D_i ≤ rank W",
            float((out.linearity.sum(-1) - ranks).max()),
            1e-6,
            "no weights read more than the dimensions they span; the residual is the excess",
        ),
        Check(
            "1/√m ≤ alignment ≤ 1",
            float(torch.maximum(out.alignment - 1, least - out.alignment).where(there, 0).max()),
            1e-9,
            "of every row that is not zero; the residual is by how much it is outside",
        ),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {
        "properties": _draw_properties(spec, out),
        "rules": _draw_rules(spec, out),
        "apart": _draw_apart(spec, out),
        "reading": _draw_reading(out),
        "alignment": _draw_alignment(spec, out),
    }


BARS = (
    "two at once\ntold apart",
    "strength read\nalong a direction",
    "dimensions\nper feature",
    "aligned with\na dimension",
)


def _bars(spec: Spec, out: Out) -> Float[Tensor, "seeds 4"]:
    """The four properties, each 1 where it holds fully."""
    kept, rules = out.norm >= out.cut[:, None], _rules(spec, out)
    count = kept.sum(-1).clamp(min=1)
    mean = [values.where(kept, 0).sum(-1) / count for values in (out.linearity, out.alignment)]
    room = torch.tensor([min(1.0, one.rank / max(one.represented, 1)) for one in rules], dtype=torch.float64)
    return torch.stack([out.apart[:, 1], mean[0], room, mean[1]], -1)


def _draw_properties(spec: Spec, out: Out) -> Drawing:
    bars, best, place = _bars(spec, out), _best(out), np.arange(4)
    rules = _rules(spec, out)[best]
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        ax.barh(place, bars[best].numpy(), height=0.55, color=PALETTE[0], label=out.what)
        for number, row in enumerate(bars):
            if number != best:
                ax.plot(
                    row,
                    place,
                    "|",
                    color=PALETTE[1],
                    markersize=22,
                    label="other seeds" if number == (best == 0) else None,
                )
        ax.plot(out.chance, place, "d", color=PALETTE[2], markersize=8, label="random directions", clip_on=False)
        ax.set(xlim=(0, 1.02), xlabel="share, 1: holds fully")
        ax.set_yticks(place, BARS)
        ax.invert_yaxis()
        said = "superposed" if rules.superposed else "not superposed"
        ax.set_title(f"{_count(rules.represented, 'feature')} on {_count(rules.rank, 'dimension')}: {said}")
        figure.legend(loc="outside upper center", ncols=3)
    values, chance = [[f"{float(one):.3g}" for one in row] for row in (bars[best], out.chance)]
    return Drawing(
        figure,
        f"The four properties of {out.what} as bars from 0 to 1, beside those of random directions: pairs told apart "
        f"{values[0]} ({chance[0]}), strength read along a direction {values[1]} ({chance[1]}), dimensions per feature "
        f"{values[2]} ({chance[2]}), alignment {values[3]} ({chance[3]}). {rules.represented} features are represented "
        f"on {_count(rules.rank, 'dimension')}: {said}.",
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def polygon(n: int) -> Float[Tensor, "features 2"]:
    turn = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    return torch.stack([turn.cos(), turn.sin()], -1)


CASES = {
    "pentagon": polygon(5),
    "opposites": torch.tensor([[1.0], [-1.0]], dtype=torch.float64),
    "dropped": torch.tensor([[1.0], [0.0]], dtype=torch.float64),
    "one-hot": torch.eye(4, dtype=torch.float64),
}
"""Five in a plane, two on a line, one of two represented, and each on its own dimension."""


def rules_of(W: Float[Tensor, "features hidden"], tolerance: float) -> Rules:
    """The rules on one of the cases."""
    kept, (n, m) = W[W.norm(dim=-1) >= REPRESENTED], W.shape
    of_all = int(rank(spectrum(W), tolerance))
    return Rules(len(kept), int(rank(spectrum(kept), tolerance)), of_all < n, of_all < m)


COLUMNS = ("features > rank", "W Wᵀ singular\n(n × n)", "WᵀW singular\n(m × m)")


def _draw_rules(spec: Spec, out: Out) -> Drawing:
    here = _rules(spec, out)[_best(out)]
    rows = {"this W": here} | {name: rules_of(W, spec.tolerance) for name, W in CASES.items()}
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for row, rules in enumerate(rows.values()):
            for column, says in enumerate((rules.superposed, rules.large_singular, rules.small_singular)):
                _draw_verdict(ax, row, column, says, says == rules.superposed)
        ax.set(xlim=(-0.5, 2.5), ylim=(len(rows) - 0.5, -0.5), ylabel="features on rank")
        ax.set_yticks(range(len(rows)), [f"{name}: {one.represented} on {one.rank}" for name, one in rows.items()])
        ax.set_xticks(range(3), COLUMNS)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    wrong = [
        f"{column.splitlines()[0]} is wrong about {', '.join(missed)}"
        for column, rule in ((COLUMNS[1], "large_singular"), (COLUMNS[2], "small_singular"))
        if (missed := [name for name, one in rows.items() if getattr(one, rule) != one.superposed])
    ]
    return Drawing(
        figure,
        f"Three rules for superposition on this W ({here.represented} features on rank {here.rank}: "
        f"{'superposed' if here.superposed else 'not superposed'}) and on four cases with known answers. Taken "
        f"literally, {'; '.join(wrong)}.",
    )


def _draw_verdict(ax: Axes, row: int, column: int, says: bool, right: bool) -> None:
    colour = PALETTE[0] if right else PALETTE[3]
    ax.add_patch(Rectangle((column - 0.47, row - 0.44), 0.94, 0.88, color=colour, alpha=0.15, linewidth=0))
    ax.text(column, row, f"{'✓' if right else '✗'} {'superposed' if says else 'not'}", ha="center", va="center")


def _draw_apart(spec: Spec, out: Out) -> Drawing:
    best = _best(out)
    represented = _rules(spec, out)[best].represented
    k = np.arange(1, max(2, min(AT_ONCE, represented)) + 1)
    sure = int(out.guaranteed[best])
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        if sure:
            ax.axvspan(0.5, sure + 0.5, color=PALETTE[0], alpha=0.15, linewidth=0, label="certain")
        for number, row in enumerate(out.apart):
            if number != best:
                ax.plot(
                    k,
                    100 * row[: len(k)],
                    color=PALETTE[1],
                    linewidth=1,
                    label="other seeds" if number == (best == 0) else None,
                )
        ax.plot(k, 100 * out.chance_apart[: len(k)], "d--", color=PALETTE[2], linewidth=1.2, label="random directions")
        ax.plot(k, 100 * out.apart[best, : len(k)], "o-", color=PALETTE[0], label=out.what, clip_on=False)
        ax.set(
            xlim=(0.5, len(k) + 0.5), ylim=(-3, 103), xlabel="features present at once", ylabel="sets told apart (%)"
        )
        ax.set_xticks(k)
        figure.legend(loc="outside upper center", ncols=2)
    shares = ", ".join(f"{100 * float(share):.3g}%" for share in out.apart[best, : len(k)])
    return Drawing(
        figure,
        f"How many sets of 1 to {len(k)} features of {out.what} are told apart from all other features: {shares}. "
        f"Certain up to {sure}.",
    )


def _draw_reading(out: Out) -> Drawing:
    with canvas(height=4.2) as (figure, axes):
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="R² = Dᵢ")
        ax.axvline(
            float(out.chance[1]), color=PALETTE[2], linewidth=1.2, linestyle=":", label="mean of random directions"
        )
        size = 7 if len(out.read) <= 64 else 3
        ax.plot(
            out.closed, out.read, "o", color=PALETTE[0], markersize=size, alpha=0.7, label="features", clip_on=False
        )
        ax.set(
            xlim=(0, 1), ylim=(0, 1), xlabel="dimensionality Dᵢ, in closed form", ylabel="R² of the reading, measured"
        )
        figure.legend(loc="outside upper center", ncols=3)
    return Drawing(
        figure,
        f"R² of reading each of {len(out.read)} features of {out.what} along its direction against its dimensionality: "
        f"on the diagonal within {float((out.read - out.closed).abs().max()):.2g}, from {float(out.read.min()):.3g} to "
        f"{float(out.read.max()):.3g}; random directions have {float(out.chance[1]):.3g}.",
    )


def _draw_alignment(spec: Spec, out: Out) -> Drawing:
    best = _best(out)
    kept = out.norm >= out.cut[:, None]
    least = 1 / math.sqrt(out.singular.shape[1])
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for number, (row, there) in enumerate(zip(out.alignment, kept, strict=True)):
            if number != best:
                ordered(ax, row[there], PALETTE[1], "other seeds" if number == (best == 0) else None)
        ordered(ax, out.chance_alignment, PALETTE[2], "random directions")
        ordered(ax, out.alignment[best, kept[best]], PALETTE[0], out.what)
        ax.axhline(least, color=GREY, linewidth=1, linestyle="--", label="1/√m: on all alike")
        ax.set(
            xlim=(-3, 103),
            ylim=(0, 1.03),
            xlabel="represented features in order (%)",
            ylabel="alignment maxₖ|Wᵢₖ|/‖Wᵢ‖",
        )
        figure.legend(loc="outside upper center", ncols=2)
    values = out.alignment[best, kept[best]]
    span = f"{float(values.min()):.3g} to {float(values.max()):.3g}" if len(values) else "of none"
    return Drawing(
        figure,
        f"The alignment of {len(values)} represented features of {out.what} with the nearest dimension, {span}; random "
        f"directions have {float(out.chance[3]):.3g} on average, and {least:.3g} is the least there can be.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """Training as in `superposition`; of a model its weights once more in float64, and the small Gram's products."""
    if shape is None:
        vectors = spec.seeds * spec.features * BATCH
        trains = 0.0 if spec.matrix is not None else spec.steps * (1e-4 + vectors * (2 * spec.features / 2e10 + 2e-9))
        return Needs(16 * vectors + 8 * VECTORS * spec.features, 2 + trains)
    rows = shape.d_vocab if spec.part == "W_E" else shape.d_mlp
    products = rows * shape.d_model**2 * 6 + VECTORS * SAMPLE * shape.d_model * 2
    return Needs(shape.bytes + 8 * 4 * rows * shape.d_model, 5 + products / 1e10)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        REPRESENTED_FEATURES,
        RANK,
        FEATURES_PER_DIMENSION,
        SUPERPOSED,
        LARGE_RULE,
        SMALL_RULE,
        PAIRS_APART,
        AT_ONCE_SURELY,
        LINEARITY,
        ALIGNMENT,
    ),
    figures={
        "properties": "The four properties as bars, with those of random directions.",
        "rules": "The right rule for superposition and the literal ones, on this W and on four known cases.",
        "apart": "How many features can be present at once and still be told apart.",
        "reading": "How well a feature's strength is read along its direction, measured and in closed form.",
        "alignment": "How near every feature lies to one dimension.",
    },
    examples=(
        Example(
            "pentagon-given",
            "A pentagon is superposed, and WᵀW is invertible all the same",
            {"matrix": [[1, 0], [0.309, 0.951], [-0.809, 0.588], [-0.809, -0.588], [0.309, -0.951]]},
            (
                "represented = 5",
                "rank = 2",
                "superposed = 1",
                "small_gram_singular = 0",
                "pairs_apart = 0.5 +- 0.001",
                "every linearity = 0.4 +- 0.001",
            ),
        ),
        Example(
            "dropped",
            "A feature that is dropped is not superposed, and W Wᵀ is not invertible all the same",
            {"matrix": [[1], [0]]},
            ("represented = 1", "rank = 1", "superposed = 0", "large_gram_singular = 1"),
        ),
        Example(
            "opposites",
            "Two opposite features share one dimension: one at a time is told apart, both at once cancel",
            {"matrix": [[1], [-1]]},
            ("superposed = 1", "surely_apart = 1", "pairs_apart = 0", "every linearity = 0.5 +- 0.001"),
        ),
        Example(
            "one-hot",
            "Four features on four dimensions have all four properties",
            {"matrix": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]},
            (
                "superposed = 0",
                "large_gram_singular = 0",
                "surely_apart = 4",
                "every linearity > 0.999",
                "every alignment > 0.999",
            ),
        ),
        Example(
            "sparse-toy",
            "A toy model of five sparse features in two dimensions is superposed",
            {"features": 5, "hidden": 2, "sparsity": 0.95},
            ("superposed = 1 in 90% of seeds", "features_per_dimension = 2.5", "every linearity = 0.4 +- 0.02"),
        ),
        Example(
            "dense-toy",
            "A toy model of dense features is not superposed, though W Wᵀ is not invertible",
            {"features": 5, "hidden": 2, "sparsity": 0, "importance": 0.7},
            ("superposed = 0 in 90% of seeds", "represented = 2", "large_gram_singular = 1", "every linearity > 0.98"),
        ),
        Example(
            "neurons-of-a-layer",
            "What the 1536 neurons of a layer write is superposed in 576 dimensions",
            {"model": "smollm2-135m"},
            ("superposed = 1", "rank = 576", "features_per_dimension > 2.6", "mean of linearity < 0.25"),
        ),
    ),
    needs=needs,
    together=together,
    nonsense=Nonsense("the same numbers in random order", "how the features lie", {"weights": "shuffled"}),
)
