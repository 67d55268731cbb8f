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

import torch
from jaxtyping import Bool, Float, Int
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
from vaultlab.plots.properties import (
    Compared,
    Rules,
    draw_alignment,
    draw_apart,
    draw_properties,
    draw_reading,
    draw_rules,
)
from vaultlab.plots.style import Drawing
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
    for points in alike([spec for spec in specs if _is_toy(spec)], "sparsity", "threshold", "tolerance"):
        trained |= _trained(points, bench)
    for spec in specs:
        yield _looked_at(spec, trained[spec] if _is_toy(spec) else _given(spec, bench), bench)


def _is_toy(spec: Spec) -> bool:
    return spec.matrix is None and spec.model is None


def _trained(points: Sequence[Spec], bench: Bench) -> dict[Spec, Given]:
    """Toys, by the spec that each was trained for."""
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
    """The matrix of the block, or weights of the model."""
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
    # a toy's norms end near 0 or near 1; those of a matrix or a model may have any scale
    scale = torch.ones(len(W), dtype=W.dtype) if _is_toy(spec) else norm.square().mean(-1).sqrt()
    cut = spec.threshold * scale
    represented = [one[lengths >= least] for one, lengths, least in zip(W, norm, cut, strict=True)]
    pairs = []
    for number, one in enumerate(represented):
        bench.progress(number, len(represented), "telling features apart")
        pairs.append(told_apart(_some(one, bench.generator("some", spec.seed)), bench.generator("sets", spec.seed)))
    singular = torch.stack([spectrum(one) for one in represented])
    best = int(given.loss.argmin())
    some = _some(W[best], bench.generator("some", spec.seed))
    chance = _chance(len(represented[best]), W.shape[2], bench.generator("chance", spec.seed))
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
        read=readings(some, bench.generator("strengths", spec.seed)),
        closed=geometry(some).dimensionality,
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


def _represented(out: Out) -> Bool[Tensor, "seeds features"]:
    return out.norm >= out.cut[:, None]


def _rules(spec: Spec, out: Out) -> list[Rules]:
    """Of every seed."""
    n, m = out.norm.shape[1], out.singular.shape[1]
    represented = _represented(out).sum(-1)
    found = rank(out.singular, spec.tolerance), rank(out.singular_all, spec.tolerance)
    return [
        Rules(int(count), int(of_represented), bool(of_all < n), bool(of_all < m))
        for count, of_represented, of_all in zip(represented, *found, strict=True)
    ]


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


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed with the lowest loss; a matrix or a model has no seeds."""
    rules, best, represented = _rules(spec, out), _best(out), _represented(out)
    repeated: dict[str, int] = {"n": len(rules)} if len(rules) > 1 else {}

    def scalar(quantity: Quantity, values: Sequence[float], null: float | None = None) -> Metric:
        return quantity.is_(
            float(values[best]), null=null, seeds=tuple(map(float, values)) if repeated else None, **repeated
        )

    def vector(quantity: Quantity, values: Tensor, null: Tensor) -> Metric:
        each = tuple(tuple(row[kept].clamp(0, 1).tolist()) for row, kept in zip(values, represented, strict=True))
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
    rules, represented, best = _rules(spec, out), _represented(out), _best(out)
    most = max(2, min(AT_ONCE, rules[best].represented))

    def compared(seeds: Sequence[Tensor] | Tensor, chance: Tensor) -> Compared:
        return Compared(seeds[best], [row for seed, row in enumerate(seeds) if seed != best], chance)

    alignments = [row[kept] for row, kept in zip(out.alignment, represented, strict=True)]
    return {
        "properties": draw_properties(compared(_bars(out, rules), out.chance), rules[best], out.what),
        "rules": draw_rules(rules[best], {name: rules_of(W, spec.tolerance) for name, W in CASES.items()}),
        "apart": draw_apart(
            compared(out.apart[:, :most], out.chance_apart[:most]), int(out.guaranteed[best]), out.what
        ),
        "reading": draw_reading(out.closed, out.read, float(out.chance[1]), out.what),
        "alignment": draw_alignment(compared(alignments, out.chance_alignment), out.singular.shape[1], out.what),
    }


def _bars(out: Out, rules: Sequence[Rules]) -> Float[Tensor, "seeds 4"]:
    """The four properties, each 1 where it holds fully."""
    represented = _represented(out)
    count = represented.sum(-1).clamp(min=1)
    linear, aligned = (values.where(represented, 0).sum(-1) / count for values in (out.linearity, out.alignment))
    room = torch.tensor([min(1.0, one.rank / max(one.represented, 1)) for one in rules], dtype=torch.float64)
    return torch.stack([out.apart[:, 1], linear, room, aligned], -1)


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
