"""Privileged basis: do a layer's coordinates mean anything, or could they as well be turned?

A ReLU acts coordinate by coordinate, so a layer that has one has a basis that matters; without one a layer can be
turned and nothing outside it notices. Looked at is a toy model that learns with and without a ReLU on its hidden layer,

    h = ReLU(Wᵀ x) or h = Wᵀ x        x′ = ReLU(W h + b)        W: one row W_i per feature

or, with `model`, the activations of a language model over a text. Three signs of a privileged basis:

    alignment    max_k |v_k|/‖v‖ of every feature W_i (toy) or token (model)     1: all on one coordinate
    kurtosis     d Σ v_k⁴/(Σ v_k²)² − 3 of every hidden vector                   large: few coordinates carry it
    turning      the same, and the toy's loss, after an orthogonal Q drawn at random: W → W Q

What must come out whatever was learnt: turning leaves the loss of the layer without ReLU exactly as it was, and the
mean kurtosis of turned vectors is −6/(d + 2). For comparison, coordinates that are independently 0 with probability
1 − p and else normal have kurtosis 3/p − 3; `density` is the p at which they would have the one found.

`coordinate_kurtosis` is another number: of each coordinate over all tokens. Tokens with massive activations (over 5 ×
the median norm, such as a text's first) are left out of everything: with one of them in, the coordinates of the turned
basis look the more peaked ones, and the sign comes out wrong. A stream without any ReLU has no reason for a privileged
basis; that models have one all the same is a finding, not a law.

How to read the figures. In `alignment` features or tokens stand in order; where the blue line is far above the dotted
one of random directions there is a basis. In `weights` a privileged basis shows as columns with one feature each. In
`turning` points at 1 are turns that changed nothing. In `layers` look at the distance between own and turned
coordinates, layer by layer. In `coordinates` a few that carry far more than the others stand out at the right. In
`reference` this run lies on the curve of sparse Gaussians where it would be as sparse as they.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "Superposition in a Privileged Basis",
https://transformer-circuits.pub/2022/toy_model/index.html. Kurtosis and turned bases: Nelson Elhage, Robert Lasenby,
Christopher Olah (2023), "Privileged Bases in the Transformer Residual Stream",
https://transformer-circuits.pub/2023/privileged-basis/index.html
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    Layer,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    Seed,
    Share,
    TextName,
    alike,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.autoencoder import HELD_OUT, Course, Toy, Trained, train
from vaultlab.models.basis import (
    as_sparse_as,
    kurtosis,
    over_rows,
    sparse_gaussians,
    turn,
    turned_kurtosis,
    turned_spread,
)
from vaultlab.models.exam import FRESH, gradient_residual, losses, mean_loss
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, alignment
from vaultlab.models.model import Model
from vaultlab.models.shuffle import shuffled
from vaultlab.models.sparse import fresh, present
from vaultlab.models.trace import Site, sinks
from vaultlab.plots.basis import (
    Aligned,
    draw_alignment,
    draw_coordinates,
    draw_layers,
    draw_reference,
    draw_turning,
    draw_weights,
)
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

BATCH, LEARNING_RATE = 1024, 0.01

TURNS = 12
"""Random bases that are tried."""

INPUTS = 2048
"""Inputs that the toy's hidden layer is looked at on; none of them is empty."""

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
"""Of sparse Gaussians, to compare with."""

NUMBERS = 2**20
"""How many numbers are drawn at each."""

PASSAGE = """\
The river rises in the hills behind the village, where in spring the snow melts and the meadows stand under water for
weeks. In 1874 the town council paid an engineer named Harriet Cole to measure it. She walked its whole length twice,
drew forty-one maps, and wrote that the old bridge would not survive another flood. Nobody believed her. Three years
later the bridge was gone, and the council asked, politely, whether she still had the drawings. "Of course," she
answered, "but they will cost you twice as much." Today the maps hang in a school. Children learn from them where the
water used to go, why the mill was built on the left bank, and how a single careful person can be right against a whole
town. The new bridge, made of steel, has two arches; on warm evenings people sit on its wall and count the boats."""
"""What a model reads where the block has no text."""


class Spec(BaseSpec):
    model: ModelName | None = None
    """A language model whose activations are looked at; none: a toy model trained here."""

    text: TextName | None = None
    """What it reads; none: a short story of some two hundred tokens."""

    layer: Layer | None = None
    """The model's layer, counted from 0; none: the middle one."""

    site: Literal["resid_pre", "resid_mid", "resid_post", "attn", "mlp", "m"] = "resid_pre"
    """Where in the layer: the stream before it, between attention and MLP or after it; what attention or MLP adds; or
    the MLP's neurons (m)."""

    tokens: int = Field(512, ge=16, le=2048, json_schema_extra={"stress": [128, 512]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    features: int = Field(16, ge=2, le=256)
    """How many features the toy model's data has."""

    hidden: int = Field(8, ge=2, le=128)
    """How many dimensions its hidden layer has for them."""

    sparsity: Share = Field(0.5, ge=0, le=0.999, json_schema_extra={"stress": [0.3, 0.6]})
    """How often a feature of its data is absent: 0.5, or 50%."""

    importance: float = Field(0.8, gt=0, le=1)
    """How much a feature counts beside the one before it, in the toy model's loss."""

    steps: int = Field(3000, ge=1, le=100_000)
    """Training steps of the toy model."""

    threshold: float = Field(REPRESENTED, gt=0, le=1, json_schema_extra={"stress": [0.3, 0.7]})
    """The norm ‖W_i‖ from which a feature of the toy model counts as represented."""

    weights: Literal["trained", "shuffled"] = "trained"
    """The language model's own weights, or as a control the same numbers in random order (shuffled)."""

    seeds: int = Field(8, ge=1, le=64)
    """How many toy models to train, from different first weights on the same vectors."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind, of several groups of vectors: a toy's seeds, or a model's layers. Toys come twice,
    with the ReLU on the hidden layer and without; what a mode has not is empty.

    `kurtosis` and `coordinate` are means over vectors and over coordinates, `turned` and `coordinate_turned` those of
    the same vectors in the first basis turned at random; `turns` is the mean kurtosis of the group `shown` in each.
    `spread` are the sorted root mean squares of its coordinates, own and turned. `alignments` are NaN where a feature
    is not represented. `loss_turned` is the loss in each turned basis by the loss. `gaussian` is what sparse Gaussians
    were found to have, and its standard error.
    """

    what: str
    shown: int
    dimensions: int
    sinks: tuple[str, ...]
    kurtosis: Float[Tensor, " groups"]
    turned: Float[Tensor, " groups"]
    coordinate: Float[Tensor, " groups"]
    coordinate_turned: Float[Tensor, " groups"]
    turns: Float[Tensor, " turns"]
    spread: Float[Tensor, "2 dimensions"]
    alignments: Float[Tensor, "groups rows"]
    chance: Float[Tensor, " rows"]
    linear_alignments: Float[Tensor, "groups rows"]
    linear_kurtosis: Float[Tensor, " groups"]
    W: Float[Tensor, "2 features hidden"]
    loss: Float[Tensor, "2 groups"]
    loss_turned: Float[Tensor, "2 turns"]
    gaussian: Float[Tensor, "2 densities"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    turn_residual: Float[Tensor, ""]


def compute(spec: Spec, bench: Bench) -> Out:
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Toy models that differ in nothing but their sparsity train as one batch, with the ReLU and then without."""
    trained: dict[Spec, list[Trained]] = {}
    for points in alike([spec for spec in specs if spec.model is None], "sparsity", "threshold"):
        spec, sparsities = points[0], list(dict.fromkeys(point.sparsity for point in points))
        course = Course(spec.steps, BATCH, LEARNING_RATE, spec.seeds, spec.seed)
        both = [train(toy, course, sparsities, bench.device, bench.generator, bench.progress) for toy in toys_of(spec)]
        for point in points:
            at = sparsities.index(point.sparsity)
            trained[point] = [
                one._replace(theta=one.theta[at].cpu().double(), curve=one.curve[:, at].cpu().double()) for one in both
            ]
    for spec in specs:
        yield _of_toys(spec, trained[spec], bench) if spec.model is None else _of_model(spec, bench)


# -- toys


def toys_of(spec: Spec) -> tuple[Toy, Toy]:
    """With a ReLU on the hidden layer, and without."""
    with_relu = Toy(spec.features, spec.hidden, spec.importance, relu=True, hidden_relu=True)
    return with_relu, with_relu._replace(hidden_relu=False)


def _of_toys(spec: Spec, trained: list[Trained], bench: Bench) -> Out:
    toys, x = toys_of(spec), _inputs(spec, bench)
    held_out = fresh(toys[0].law, spec.sparsity, bench.generator("toy", spec.seed, "fresh"), HELD_OUT)
    many = fresh(toys[0].law, spec.sparsity, bench.generator("toy", spec.seed, "fresh"), FRESH // 4)
    bases = [turn(spec.hidden, bench.generator("turn", spec.seed, k)) for k in range(TURNS)]
    loss, turned, residuals, seen = [], [], [], []
    for toy, one in zip(toys, trained, strict=True):
        theta = one.theta
        loss.append(losses(toy, theta, many)[0].mean(1))
        best = theta[loss[-1].argmin()][None]
        turned.append(torch.cat([losses(toy, _turned(best, Q), many)[0].mean(1) for Q in bases]) / loss[-1].min())
        route = (one.curve[-1] - losses(toy, theta, held_out)[0].mean(1)).abs().max() / mean_loss(toy, spec.sparsity)
        residuals.append(torch.stack([gradient_residual(toy, theta, held_out.x[:256]), route]))
        seen.append(alignment(theta[..., :-1]).where(theta[..., :-1].norm(dim=-1) >= spec.threshold, math.nan))
    hidden, plain = (toy.squeezed(x @ one.theta[..., :-1]) for toy, one in zip(toys, trained, strict=True))
    shown = int(loss[0].argmin())
    return Out(
        what="the layer with ReLU",
        shown=shown,
        **_looked_at(list(hidden), shown, bases),
        sinks=(),
        alignments=seen[0],
        chance=_chance(spec, bench, int(seen[0][shown].isfinite().sum()), spec.hidden),
        linear_alignments=seen[1],
        linear_kurtosis=torch.stack([_kept(one).mean() for one in plain]),
        W=torch.stack([one.theta[lost.argmin(), :, :-1] for one, lost in zip(trained, loss, strict=True)]).float(),
        loss=torch.stack(loss),
        loss_turned=torch.stack(turned),
        gaussian=_gaussian(spec, bench),
        gradient_residual=torch.stack(residuals).amax(0)[0],
        route_residual=torch.stack(residuals).amax(0)[1],
    )


def _turned(theta: Float[Tensor, "seeds features hidden+1"], Q: Float[Tensor, "hidden hidden"]) -> Tensor:
    return torch.cat([theta[..., :-1] @ Q, theta[..., -1:]], -1)


def _inputs(spec: Spec, bench: Bench) -> Float[Tensor, "inputs features"]:
    generator = bench.generator("inputs", spec.seed)
    return present(
        torch.rand(INPUTS, 2 * spec.features + 1, generator=generator, dtype=torch.float64), 1 - spec.sparsity
    )


# -- a language model


@torch.inference_mode()
def _of_model(spec: Spec, bench: Bench) -> Out:
    model = bench.model(spec.model or "")
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    layers, layer = model.shape.layers, _layer(spec, model)
    text = PASSAGE if spec.text is None else "\n\n".join(part for _, part in bench.text("text").parts)
    ids = _read(spec, model, text)
    bench.progress(0, 1, "reading the text")
    sites = _sites(spec, layers)
    found, rows, massive = bench.trace(model, ids[None], sites), [], []
    for number, site in enumerate(sites):
        bench.progress(number, layers, "looking along coordinates")
        x = found[site][0].cpu()
        massive.append(sinks(x))
        rows.append(x[~massive[number]].double())
    bases = []
    for k in range(TURNS):
        bench.progress(k, TURNS, "turning the basis")
        bases.append(turn(rows[0].shape[1], bench.generator("turn", spec.seed, k)))
    nothing = torch.zeros(0, dtype=torch.float64)
    return Out(
        what=f"{spec.site}, layer {layer}",
        shown=layer,
        **_looked_at(rows, layer, bases),
        sinks=model.token_strings(ids[massive[layer]].tolist()),
        alignments=alignment(rows[layer])[None],
        chance=_chance(spec, bench, len(rows[layer]), rows[layer].shape[1]),
        linear_alignments=nothing[None],
        linear_kurtosis=nothing,
        W=torch.zeros(2, 0, 0),
        loss=torch.zeros(2, 0),
        loss_turned=torch.zeros(2, 0),
        gaussian=_gaussian(spec, bench),
        gradient_residual=torch.tensor(0.0),
        route_residual=torch.tensor(0.0),
    )


def _layer(spec: Spec, model: Model) -> int:
    layers = model.shape.layers
    if spec.layer is not None and spec.layer >= layers:
        raise NoteError(f"{model.name} has no layer {spec.layer}.", f"Its layers are 0 to {layers - 1}.", field="layer")
    return layers // 2 if spec.layer is None else spec.layer


def _sites(spec: Spec, layers: int) -> tuple[Site, ...]:
    return tuple(Site(spec.site, layer) for layer in range(layers))


def _read(spec: Spec, model: Model, text: str) -> Int[Tensor, " pos"]:
    ids = model.tokens(text, bos=spec.bos).ids[: min(spec.tokens, model.shape.context)]
    if len(ids) < 16:
        raise NoteError(
            f"{model.name} reads this text as {len(ids)} tokens; moments over tokens need at least 16.",
            "Give it a paragraph.",
            field="text",
        )
    return ids


# -- both


def _kept(x: Float[Tensor, "rows dimensions"]) -> Float[Tensor, " some"]:
    """The kurtosis of every vector that is not zero: a layer that is shut has no direction."""
    return kurtosis(x[x.norm(dim=-1) > 1e-12])


def _looked_at(groups: list[Tensor], shown: int, bases: list[Tensor]) -> dict[str, Any]:
    """Every group in its own and in the first turned basis; the one shown in all of them."""
    one, first = groups[shown], bases[0]
    spread = torch.stack([rows.square().mean(0).sqrt().sort().values for rows in (one, one @ first)])
    lengths = [(one @ Q).norm(dim=-1) - one.norm(dim=-1) for Q in bases]
    return {
        "dimensions": one.shape[1],
        "kurtosis": torch.stack([_kept(rows).mean() for rows in groups]),
        "turned": torch.stack([_kept(rows @ first).mean() for rows in groups]),
        "coordinate": torch.stack([over_rows(rows).mean() for rows in groups]),
        "coordinate_turned": torch.stack([over_rows(rows @ first).mean() for rows in groups]),
        "turns": torch.stack([_kept(one @ Q).mean() for Q in bases]),
        "spread": spread,
        "turn_residual": torch.stack(lengths).abs().max() / one.norm(dim=-1).max().clamp(min=1e-12),
    }


def _chance(spec: Spec, bench: Bench, count: int, dimensions: int) -> Float[Tensor, " rows"]:
    """The alignments of so many random directions in order, each the mean of twenty draws."""
    generator = bench.generator("chance", spec.seed)
    drawn = [torch.randn(count, dimensions, generator=generator, dtype=torch.float64) for _ in range(20)]
    return torch.stack([alignment(one).sort().values for one in drawn]).mean(0)


def _gaussian(spec: Spec, bench: Bench) -> Float[Tensor, "2 densities"]:
    """The kurtosis of sparse Gaussians as drawn, with its standard error from 64 parts."""
    found = []
    for density in DENSITIES:
        numbers = sparse_gaussians(density, NUMBERS, bench.generator("gaussian", spec.seed, str(density)))
        parts = kurtosis(numbers.view(64, -1))
        found.append(torch.stack([kurtosis(numbers), parts.std() / 8]))
    return torch.stack(found, -1)


KURTOSIS = Quantity(
    "kurtosis",
    "Excess kurtosis of hidden vectors over their coordinates, mean over inputs or tokens; null: −6/(d + 2), the mean "
    "over all turned bases.",
    range=(-2, math.inf),
    headline=True,
)
TURNED_KURTOSIS = Quantity(
    "turned_kurtosis",
    "The same of the same vectors in bases turned at random, mean over twelve of them; null: −6/(d + 2).",
    range=(-2, math.inf),
)
DENSITY = Quantity(
    "density",
    "The p at which sparse Gaussians, 3/p − 3, have this kurtosis; 1: Gaussian.",
    range=(0, math.inf),
)
MEAN_ALIGNMENT = Quantity(
    "mean_alignment",
    "max_k |v_k|/‖v‖, mean over represented features or over tokens; null: random directions.",
    range=(0, 1),
    headline=True,
)
ALIGNMENT = Quantity(
    "alignment",
    "max_k |v_k|/‖v‖ of every represented feature, or of every token that is no sink; null: the mean of random "
    "directions.",
    range=(0, 1),
)
LINEAR_MEAN_ALIGNMENT = Quantity(
    "linear_mean_alignment",
    "Toy: the mean alignment that is learnt without the ReLU; null: random directions.",
    range=(0, 1),
)
LOSS_TURNED = Quantity(
    "loss_turned",
    "Toy: the loss with the hidden layer turned at random, median over twelve turns, by the loss; null: 1, what it is "
    "without the ReLU.",
    unit="×",
    range=(0, math.inf),
    headline=True,
)
COORDINATE_KURTOSIS = Quantity(
    "coordinate_kurtosis",
    "Model: excess kurtosis of every coordinate over tokens, mean over coordinates; null: in a turned basis.",
    range=(-3, math.inf),
)
KURTOSIS_BY_LAYER = Quantity(
    "kurtosis_by_layer", "Model: the kurtosis at every layer; null: −6/(d + 2).", range=(-2, math.inf)
)


def _there(alignments: Float[Tensor, "*groups rows"]) -> Float[Tensor, " some"]:
    """Those that there are: a feature that is not represented has none."""
    return alignments[alignments.isfinite()]


def _mean(alignments: Float[Tensor, " rows"]) -> float:
    there = _there(alignments)
    return float(there.mean()) if len(there) else 0.0


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of a toy the numbers of the seed with the lowest loss, `seeds` has them for every seed; of a model those of one
    layer."""
    toy, null, found = spec.model is None, turned_kurtosis(out.dimensions), float(out.kurtosis[out.shown])
    seeds = {"seeds": tuple(out.kurtosis.tolist())} if toy else {}
    return [
        KURTOSIS.is_(found, null=null, n=spec.seeds if toy else len(_there(out.alignments[0])), **seeds),
        TURNED_KURTOSIS.is_(float(out.turns.mean()), null=null, n=TURNS),
        DENSITY.is_(as_sparse_as(found)),
        *(_measure_toys(out) if toy else _measure_model(out)),
    ]


def _measure_toys(out: Out) -> list[Metric]:
    each = [tuple(_there(row).tolist()) for row in out.alignments]
    means, linear = ([_mean(row) for row in rows] for rows in (out.alignments, out.linear_alignments))
    null, n, without = _mean(out.chance), len(each), int(out.loss[1].argmin())
    return [
        MEAN_ALIGNMENT.is_(means[out.shown], null=null, n=n, seeds=tuple(means)),
        ALIGNMENT.is_(each[out.shown], null=null, n=n, seeds=tuple(each)),
        LINEAR_MEAN_ALIGNMENT.is_(linear[without], null=null, n=n, seeds=tuple(linear)),
        LOSS_TURNED.is_(float(out.loss_turned[0].median()), null=1.0, n=TURNS),
    ]


def _measure_model(out: Out) -> list[Metric]:
    tokens, null, layer = _there(out.alignments[0]), _mean(out.chance), out.shown
    n = len(tokens)
    return [
        MEAN_ALIGNMENT.is_(_mean(tokens), null=null, n=n),
        ALIGNMENT.is_(tuple(tokens.tolist()), null=null, n=n),
        COORDINATE_KURTOSIS.is_(float(out.coordinate[layer]), null=float(out.coordinate_turned[layer]), n=n),
        KURTOSIS_BY_LAYER.is_(tuple(out.kurtosis.tolist()), null=turned_kurtosis(out.dimensions), n=len(out.kurtosis)),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """What turning must leave and must do, and the law of sparse Gaussians; of toys their training too."""
    null, least = turned_kurtosis(out.dimensions), 1 / math.sqrt(out.dimensions)
    error = turned_spread(out.dimensions) / math.sqrt(TURNS)
    closed = torch.tensor([3 / p - 3 for p in DENSITIES], dtype=torch.float64)
    aligned = _there(out.alignments)
    outside = torch.cat([aligned - 1, least - aligned])
    return [
        *(_verify_toys(out) if spec.model is None else []),
        Check("turning keeps every length", float(out.turn_residual), 1e-9, f"‖x Q‖ = ‖x‖, over {TURNS} Q; relative"),
        Check(
            "kurtosis when turned = −6/(d + 2)",
            abs(float(out.turns.mean()) - null) / error,
            5,
            f"mean over {TURNS} bases drawn at random, in the closed form's standard errors for a single vector",
        ),
        Check(
            "sparse Gaussians have 3/p − 3",
            float(((out.gaussian[0] - closed).abs() / out.gaussian[1]).max()),
            5,
            f"{NUMBERS} numbers at each of {len(DENSITIES)} densities, in standard errors",
        ),
        Check(
            "1/√d ≤ alignment ≤ 1",
            float(outside.max()) if len(outside) else 0.0,
            1e-6,
            "the residual is by how much one is outside",
        ),
    ]


def _verify_toys(out: Out) -> list[Check]:
    return [
        Check(
            "turning changes nothing without the ReLU",
            float((out.loss_turned[1] - 1).abs().max()),
            1e-9,
            f"the loss of W Q by that of W, over {TURNS} orthogonal Q",
        ),
        Check(
            "gradient by hand = autograd",
            float(out.gradient_residual),
            1e-8,
            "at the trained weights in float64, with the ReLU and without, as a share of its largest entry",
        ),
        Check(
            "loss while training = loss by definition",
            float(out.route_residual),
            1e-5,
            "on the same fresh vectors, in float32 on the device and in float64; as a share of the null",
        ),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    if spec.model is None:
        aligned = _aligned_features(out)
        own = {"weights": draw_weights(out.W, alignment(out.W)), "turning": draw_turning(out.loss_turned)}
    else:
        aligned = Aligned("tokens", _there(out.alignments[0]), out.chance)
        kurtoses = torch.stack([out.kurtosis, out.coordinate]), torch.stack([out.turned, out.coordinate_turned])
        own = {"layers": draw_layers(*kurtoses, out.shown), "coordinates": draw_coordinates(out.spread, out.what)}
    found = float(out.kurtosis[out.shown])
    return {
        "alignment": draw_alignment(aligned, out.what, out.dimensions, out.sinks),
        **own,
        "reference": draw_reference(DENSITIES, out.gaussian[0], out.what, found, as_sparse_as(found)),
    }


def _aligned_features(out: Out) -> Aligned:
    rows, linear = [_there(row) for row in out.alignments], out.linear_alignments[out.loss[1].argmin()]
    others = [row for seed, row in enumerate(rows) if seed != out.shown]
    return Aligned("features", rows[out.shown], out.chance, others, _there(linear))


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, at one site of every layer."""
    if spec.model is None or spec.weights == "shuffled":
        return None
    return Reads(("whole", spec.tokens, spec.bos), _sites(spec, shape.layers))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """Training as in `superposition`, twice; of a model one pass, one site of all its layers and the turned bases."""
    if shape is None:
        vectors = spec.seeds * spec.features * BATCH
        training = 2 * spec.steps * (2e-4 + vectors * (5 * spec.hidden / 2e10 + 2e-9))
        return Needs(16 * vectors + 24 * FRESH * spec.features, 3 + training)
    d = shape.d_mlp if spec.site == "m" else shape.d_model
    kept = shape.layers * spec.tokens * d
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    seconds = 3 * shape.parameters * spec.tokens / 40e9 + (6 * TURNS * d**3 + 4 * kept * d) / 1e10
    return Needs(weights + 12 * kept + 8 * (TURNS + 3) * d**2, 5 + seconds)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        KURTOSIS,
        TURNED_KURTOSIS,
        DENSITY,
        MEAN_ALIGNMENT,
        ALIGNMENT,
        LINEAR_MEAN_ALIGNMENT,
        LOSS_TURNED,
        COORDINATE_KURTOSIS,
        KURTOSIS_BY_LAYER,
    ),
    figures={
        "alignment": "How near features or tokens come to lying on one coordinate, beside random directions.",
        "weights": "Toy: what is learnt with the ReLU on the hidden layer and without.",
        "turning": "Toy: the loss after turning the hidden layer at random.",
        "layers": "Model: kurtosis at every layer, in its own coordinates and in turned ones.",
        "coordinates": "Model: how large each coordinate is, own and turned.",
        "reference": "Sparse Gaussians with their closed form, and where this run lies.",
    },
    examples=(
        Example(
            "relu-layer",
            "A ReLU on the hidden layer makes features lie on its neurons; without it they lie anywhere",
            {},
            (
                "mean_alignment > 0.9 in 90% of seeds",
                "linear_mean_alignment < 0.8 in 90% of seeds",
                "loss_turned > 2",
            ),
        ),
        Example(
            "stream-has-a-basis",
            "The residual stream has a privileged basis, though nothing in the architecture asks for one",
            {"model": "smollm2-135m", "layer": 15},
            (
                "kurtosis > 20",
                "turned_kurtosis = 0 +- 0.1",
                "coordinate_kurtosis > 0",
                "mean_alignment > 0.3",
                "min of kurtosis_by_layer > 0",
            ),
        ),
        Example(
            "neurons-have-a-basis",
            "An MLP's neurons have one, as they must: each passes through its own nonlinearity",
            {"model": "smollm2-135m", "layer": 15, "site": "m"},
            ("kurtosis > 10", "turned_kurtosis = 0 +- 0.1"),
        ),
    ),
    needs=needs,
    together=together,
    nonsense=Nonsense("weights that have learnt nothing", "training", {"steps": 1, "weights": "shuffled"}),
    reads=reads,
)
