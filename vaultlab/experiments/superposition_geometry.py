"""The geometry of superposition: in what solids do many features share a layer, as they get sparser?

Toy models x′ = ReLU(W Wᵀ x + b) are trained (see `superposition`) on n features that all count alike, at sparsities S
from `sparsity_from` to `sparsity`. At each of them

    dimensions per feature   D* = m/‖W‖²_F
    dimensionality           D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)²     Σ D_i ≤ m, whatever is trained

of the features that are represented, ‖W_i‖ ≥ ½. They do not spread out evenly but gather: features fall apart into
groups that overlap with each other and with nothing else, and k features that share d dimensions evenly have d/k each:

    1  alone     ¾  tetrahedron     ⅔  triangle     ½  digon     ⅖  pentagon     ⅜  square antiprism

A feature is on a line if its D_i is within `tolerance` of one of these. That alone does not make it part of the solid:
where features are only beginning to be represented, the rest of their dimension is filled with many weak ones, and they
pass ⅔ one by one. So the solids themselves are counted too: groups of so many represented features, joined where
|cos| ≥ 0.2, that span so many dimensions.

Both have their null. Of lines: a layer without structure, m directions drawn at random in the space of the N features
represented, in which D_i follows Beta(m/2, (N − m)/2). Of solids: features of the same norms in random directions.

Equal features that are always there tell nothing: any m directions do alike, training settles on a mixture of all, and
no single feature is represented. The numbers are those of the seed with the lowest loss over all sparsities.

How to read the figures. In `dimensionality` every mark is a feature, its shape and colour the solid that it is in; the
line is D*, which stays near ½ over a wide range: digons are sticky. `solids` counts them. In `graphs` every dot is a
feature, joined to those that it overlaps with; each group is seen along its two longest axes, so that a pentagon looks
like one. `lines` has the share on a line beside what a layer without structure would have, and how much of the layer is
used, Σ D_i/m.

Source: Nelson Elhage, Tristan Hume, Catherine Olsson, Nicholas Schiefer, Tom Henighan, Shauna Kravec, Zac
Hatfield-Dodds, Robert Lasenby, Dawn Drain, Carol Chen, Roger Grosse, Sam McCandlish, Jared Kaplan, Dario Amodei, Martin
Wattenberg, Christopher Olah (2022), "Toy Models of Superposition", section "The Geometry of Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share, alike
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.autoencoder import HELD_OUT, Course, Toy, train
from vaultlab.models.exam import examine, geometry_checks, mean_loss, training_checks
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, dimensionality, geometry
from vaultlab.models.solids import ABSENT, DIGON, OTHER, SOLIDS, census, groups, joined, line, on_lines_by_chance
from vaultlab.plots.clusters import Cluster
from vaultlab.plots.solids import (
    NONE,
    Sparsities,
    draw_dimensionality,
    draw_graphs,
    draw_lines,
    draw_solids,
    telling,
)
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

RANDOM = 8
"""Layers in random directions that the null of the solids comes from."""


class Spec(BaseSpec):
    features: int = Field(200, ge=4, le=512, json_schema_extra={"symbol": "n"})
    """How many features the data has."""

    hidden: int = Field(20, ge=1, le=64, json_schema_extra={"symbol": "m"})
    """How many dimensions the layer has for them."""

    sparsity_from: Share = Field(0.0, ge=0, le=0.999, json_schema_extra={"symbol": "S from"})
    """How often a feature is absent at the dense end: 0.5, or 50%."""

    sparsity: Share = Field(0.9, ge=0, le=0.999, json_schema_extra={"symbol": "S"})
    """How often a feature is absent at the sparse end; with one point, the only one."""

    points: int = Field(11, ge=1, le=32)
    """How many sparsities, the ends included, each making features rarer by the same factor."""

    tolerance: float = Field(0.03, gt=0, le=0.05, json_schema_extra={"stress": [0.02, 0.04]})
    """How near to a line a D_i must come to be on it."""

    threshold: float = Field(REPRESENTED, gt=0, le=1, json_schema_extra={"stress": [0.4, 0.6]})
    """The norm ‖W_i‖ from which a feature counts as represented."""

    steps: int = Field(3000, ge=1, le=100_000)
    """Training steps."""

    batch: int = Field(256, ge=16, le=65_536)
    """Vectors in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=1, json_schema_extra={"stress": [0.005, 0.02]})
    """Adam's learning rate at the start; it falls to 0 along a half cosine."""

    seeds: int = Field(2, ge=1, le=32)
    """How many models to train at every sparsity, from different first weights on the same vectors."""

    seed: Seed = 0

    @model_validator(mode="after")
    def _ends_in_order(self) -> "Spec":
        if self.points > 1 and self.sparsity_from > self.sparsity:
            raise ValueError("The dense end, `sparsity_from`, is sparser than `sparsity`.")
        if self.features * self.hidden * self.points * self.seeds > 8_000_000:
            raise ValueError("So many weights at so many sparsities and seeds would not fit into a result.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind; `chance` is the share of features in each solid, with random directions; the
    residuals are for `verify`."""

    sparsities: tuple[float, ...]
    W: Float[Tensor, "points seeds features hidden"]
    loss: Float[Tensor, "points seeds"]
    chance: Float[Tensor, "points solids"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]


def sparsities_of(spec: Spec) -> tuple[float, ...]:
    """From the dense end on; 1 − S falls by the same factor each time."""
    if spec.points == 1:
        return (spec.sparsity,)
    dense, sparse = 1 - spec.sparsity_from, 1 - spec.sparsity
    return tuple(1 - dense * (sparse / dense) ** (k / (spec.points - 1)) for k in range(spec.points))


def compute(spec: Spec, bench: Bench) -> Out:
    """Train all sparsities as one batch, then examine in float64 on the CPU."""
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Specs that differ in nothing but their sparsities, and in what counts as what, train as one batch."""
    trained: dict[Spec, tuple[Tensor, Tensor]] = {}
    for points in alike(specs, "sparsity_from", "sparsity", "points", "tolerance", "threshold"):
        spec = points[0]
        # a look at the loss costs as much as some thirty steps: only the first and the last are wanted
        course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed, looks=1)
        every = list(dict.fromkeys(sparsity for point in points for sparsity in sparsities_of(point)))
        done = train(_toy(spec), course, every, bench.device, bench.generator, bench.progress)
        for point in points:
            at = [every.index(sparsity) for sparsity in sparsities_of(point)]
            trained[point] = (done.theta[at].cpu().double(), done.curve[-1, at].cpu().double())
    for spec in specs:
        yield _measured(spec, *trained[spec], bench)


def _toy(spec: Spec) -> Toy:
    return Toy(spec.features, spec.hidden, 1.0, relu=True)


def _measured(spec: Spec, theta: Tensor, followed: Tensor, bench: Bench) -> Out:
    exams = []
    for point, sparsity in enumerate(sparsities := sparsities_of(spec)):
        bench.progress(point, spec.points, "examining")
        at = (_toy(spec), sparsity, theta[point], followed[point])
        exams.append(examine(*at, lambda: bench.generator("toy", spec.seed, "fresh"), HELD_OUT))
    W, loss = theta[..., :-1], torch.stack([exam.loss for exam in exams])
    return Out(
        sparsities=sparsities,
        W=W.float(),
        loss=loss,
        chance=_chance(spec, W[:, _best_of(spec, loss)], bench.generator("geometry", spec.seed, "chance")),
        gradient_residual=torch.stack([exam.gradient_residual for exam in exams]).amax(),
        route_residual=torch.stack([exam.route_residual for exam in exams]).amax(),
        closed_residual=torch.stack([exam.closed_residual for exam in exams]).amax(),
    )


def _chance(
    spec: Spec, W: Float[Tensor, "points features hidden"], generator: torch.Generator
) -> Float[Tensor, "points solids"]:
    """How many of the represented features would be in each solid if their directions were drawn at random."""
    norm, shares = W.norm(dim=-1, keepdim=True), []
    for _ in range(RANDOM):
        drawn = torch.nn.functional.normalize(torch.randn(W.shape, generator=generator, dtype=W.dtype), dim=-1)
        solid = census(drawn * norm, norm[..., 0] >= spec.threshold)
        shares.append(torch.stack([_share(solid == place, norm[..., 0], spec) for place in range(OTHER)], -1))
    return torch.stack(shares).mean(0)


def _share(which: Tensor, norm: Float[Tensor, "*models features"], spec: Spec) -> Float[Tensor, "*models"]:
    """The share of the represented features for which this is so; 0 where none is."""
    kept = norm >= spec.threshold
    return (which & kept).sum(-1) / kept.sum(-1).clamp(min=1).double()


def _nulls(spec: Spec) -> Float[Tensor, " points"]:
    return torch.tensor([mean_loss(_toy(spec), sparsity) for sparsity in sparsities_of(spec)], dtype=torch.float64)


def _best_of(spec: Spec, loss: Float[Tensor, "points seeds"]) -> int:
    return int((loss / _nulls(spec)[:, None]).sum(0).argmin())


class Look(NamedTuple):
    """What is seen in W: of every feature its norm, D_i, the line that it is on and the solid that it is in."""

    norm: Float[Tensor, "points seeds features"]
    dimensionality: Float[Tensor, "points seeds features"]
    on: Int[Tensor, "points seeds features"]
    solid: Int[Tensor, "points seeds features"]
    best: int

    @property
    def kept(self) -> Tensor:
        return self.solid != ABSENT


def look(spec: Spec, out: Out) -> Look:
    W = out.W.double()
    norm, _, share = geometry(W)
    return Look(norm, share, line(share, spec.tolerance), census(W, norm >= spec.threshold), _best_of(spec, out.loss))


AT_HALF = Quantity(
    "at_half",
    "The share of the represented features with D_i = ½ ± `tolerance`, at the sparsity where it is largest; null: a "
    "layer without structure that has the same mean D_i there.",
    range=(0, 1),
    headline=True,
)
IN_DIGONS = Quantity(
    "in_digons",
    "The share of the represented features that are one of two opposites, at the sparsity where it is largest; null: "
    "the same with the same norms in random directions.",
    range=(0, 1),
    headline=True,
)
STICKY = Quantity(
    "sticky",
    "The share of the represented features that are on any of the six lines, mean over the sparsities where there are "
    "any; null: the same of layers without structure.",
    range=(0, 1),
    headline=True,
)
ON_LINES = Quantity("on_lines", "The same at every sparsity, from the dense end on.", range=(0, 1))
DIMENSIONS = Quantity(
    "dimensions_per_feature",
    "D* = m/‖W‖²_F at every sparsity: the layer's dimensions by its features, each counted with its squared norm.",
    unit="dimensions",
    range=(0, math.inf),
)
REPRESENTED_FEATURES = Quantity(
    "represented",
    "How many features have ‖W_i‖ ≥ ½, or what `threshold` says, at every sparsity.",
    unit="features",
    range=(0, 512),
)
FILLED = Quantity(
    "filled", "Σ D_i/m over all features, at every sparsity: how much of the layer is used.", range=(0, 1)
)
LOSS = Quantity(
    "loss_by_mean",
    "The loss at every sparsity as a share of what always answering the mean would give; null: 1.",
    range=(0, math.inf),
)
DIMENSIONALITY = Quantity(
    "dimensionality",
    "D_i of every represented feature, one sparsity after the other.",
    unit="dimensions",
    range=(0, 1),
)
IN_SOLIDS = tuple(
    Quantity(
        solid.plural,
        f"The share of the represented features in {solid.plural}, at every sparsity: {solid.features} in "
        f"{solid.dimensions} dimensions, which gives {solid.symbol} each."
        if solid.features > 1
        else "The share of the represented features that overlap with no other, at every sparsity.",
        range=(0, 1),
    )
    for solid in SOLIDS
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of one seed at all sparsities; `seeds` has them for every seed."""
    seen = look(spec, out)
    best = seen.best
    at_half, in_digons = (_share(which == DIGON, seen.norm, spec) for which in (seen.on, seen.solid))
    on, by_chance = _share(seen.on < OTHER, seen.norm, spec), _by_chance(spec, seen)
    some = seen.kept.any(-1)
    sticky = on.where(some, 0).sum(0) / some.sum(0).clamp(min=1)
    there = some[:, best]
    most = _mean_kept(seen, int(at_half[:, best].argmax()))

    def scalar(quantity: Quantity, values: Tensor, null: float) -> Metric:
        return quantity.is_(float(values[best]), null=null, n=spec.seeds, seeds=tuple(values.tolist()))

    def along(quantity: Quantity, values: Tensor, null: float | None = None) -> Metric:
        each = tuple(tuple(row) for row in values.T.tolist())
        return quantity.is_(each[best], null=null, n=spec.seeds, seeds=each)

    every = tuple(tuple(seen.dimensionality[:, k][seen.kept[:, k]].tolist()) for k in range(spec.seeds))
    return [
        scalar(AT_HALF, at_half.amax(0), on_lines_by_chance(*most, spec.tolerance, SOLIDS[DIGON : DIGON + 1])),
        scalar(IN_DIGONS, in_digons.amax(0), float(out.chance[:, DIGON].max())),
        scalar(STICKY, sticky, float(by_chance[there].mean()) if there.any() else 0.0),
        along(ON_LINES, on),
        along(DIMENSIONS, spec.hidden / seen.norm.square().sum(-1)),
        along(REPRESENTED_FEATURES, seen.kept.sum(-1).double()),
        along(FILLED, seen.dimensionality.sum(-1) / spec.hidden),
        along(LOSS, out.loss / _nulls(spec)[:, None], 1.0),
        *([DIMENSIONALITY.is_(every[best], n=spec.seeds, seeds=every)] if every[best] else []),
        *(along(each, _share(seen.solid == place, seen.norm, spec)) for place, each in enumerate(IN_SOLIDS)),
    ]


def _mean_kept(seen: Look, point: int) -> tuple[float, int]:
    """The mean D_i of the represented features, and how many they are."""
    ours = seen.dimensionality[point, seen.best][seen.kept[point, seen.best]]
    return float(ours.mean()) if len(ours) else 0.0, len(ours)


def _by_chance(spec: Spec, seen: Look) -> Float[Tensor, " points"]:
    shares = [on_lines_by_chance(*_mean_kept(seen, point), spec.tolerance) for point in range(spec.points)]
    return torch.tensor(shares, dtype=torch.float64)


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its training, its geometry and its groups."""
    W = out.W.double()
    norm, _, share = geometry(W)
    near = joined(W, norm >= spec.threshold)
    names = groups(near)
    count = (names == torch.arange(spec.features)).sum(-1)
    laplacian = torch.diag_embed(near.sum(-1).double()) - near.double()
    zeros = (torch.linalg.eigvalsh(laplacian) < 1e-8).sum(-1) - (names == ABSENT).sum(-1)
    again = torch.stack([dimensionality(each) for each in W.flatten(0, 1)]).view_as(share)
    return [
        *training_checks(out),
        *geometry_checks(W),
        Check(
            "D_i = D_i by way of WᵀW",
            float((share - again).abs().max()),
            1e-9,
            "the squared entries of W Wᵀ added up, against Ŵ_iᵀ (WᵀW) Ŵ_i",
        ),
        Check(
            "groups = zeros of the graph's Laplacian",
            float((count - zeros).abs().max()),
            0,
            "a graph falls into as many parts as its Laplacian has eigenvalues 0; at every sparsity, of every seed",
        ),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The figures of the seed whose numbers are given."""
    seen = look(spec, out)
    sparsities = _sparsities(spec, out, seen)
    figures = {
        "dimensionality": draw_dimensionality(sparsities, spec.features, spec.hidden),
        "solids": draw_solids(sparsities),
    }
    if seen.kept[:, seen.best].any():
        panels = [(sparsities.rarity[point], _clusters(out, seen, point)) for point in telling(sparsities)]
        figures["graphs"] = draw_graphs(panels)
    return figures | {"lines": draw_lines(sparsities)}


NAMES = (*(solid.name for solid in SOLIDS), NONE)
"""By place in SOLIDS, and of what is in none of them."""


def _sparsities(spec: Spec, out: Out, seen: Look) -> Sparsities:
    D, solid, kept = (each[:, seen.best] for each in (seen.dimensionality, seen.solid, seen.kept))
    on_line, in_solid = (_share(which < OTHER, seen.norm, spec)[:, seen.best] for which in (seen.on, seen.solid))
    return Sparsities(
        rarity=1 / (1 - np.array(out.sparsities)),
        dimensionality=[each[ours].numpy() for each, ours in zip(D, kept, strict=True)],
        solid=[np.array(NAMES)[each[ours].numpy()] for each, ours in zip(solid, kept, strict=True)],
        D_star=(spec.hidden / seen.norm[:, seen.best].square().sum(-1)).numpy(),
        filled=(D.sum(-1) / spec.hidden).numpy(),
        on_line=on_line.numpy(),
        in_solid=in_solid.numpy(),
        on_line_by_chance=_by_chance(spec, seen).numpy(),
        in_solid_by_chance=out.chance.sum(-1).numpy(),
    )


def _clusters(out: Out, seen: Look, point: int) -> list[Cluster]:
    """Every group's features along its principal axes, with what joins them."""
    W, kept = out.W[point, seen.best].double(), seen.kept[point, seen.best]
    near = joined(W, kept)
    names, found = groups(near), []
    for name in sorted(set(names[kept].tolist())):
        ours = (names == name).nonzero()[:, 0]
        U, singular, _ = torch.linalg.svd(W[ours], full_matrices=False)
        at = torch.nn.functional.pad(U * singular, (0, 1))[:, :2] if len(ours) > 1 else torch.zeros(1, 2)
        pairs = near[ours][:, ours].triu(1).nonzero().numpy()
        solid = int(seen.solid[point, seen.best, ours[0]])
        found.append(Cluster(at.numpy(), pairs, NAMES[solid]))
    return found


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """Training as in `superposition` at every sparsity; then an examination each, on few vectors."""
    del shape
    n, m, models = spec.features, spec.hidden, spec.points * spec.seeds
    vectors = models * n * spec.batch
    training = spec.steps * (1e-4 + vectors * (min(2 * n, 5 * m) / 2e10 + 2e-9))
    examining = models * (HELD_OUT * n * (4 * m / 1e10 + 4e-8) + n**3 * 4e-9)
    return Needs(12 * vectors + 40 * HELD_OUT * n * spec.seeds, 1 + training + examining)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        AT_HALF,
        IN_DIGONS,
        STICKY,
        ON_LINES,
        DIMENSIONS,
        REPRESENTED_FEATURES,
        FILLED,
        LOSS,
        DIMENSIONALITY,
        *IN_SOLIDS,
    ),
    figures={
        "dimensionality": "Every feature's share of a dimension at every sparsity, by its solid, with D*.",
        "solids": "How many features are in which solid, at every sparsity.",
        "graphs": "The features at a few sparsities as a graph: which overlap, and what they make together.",
        "lines": "The share of features on a line and in a solid, with what chance gives, and how full the layer is.",
    },
    examples=(
        Example(
            "sticky-at-half",
            "Two hundred features in twenty dimensions: over a wide range of sparsity they are digons",
            {"features": 200, "hidden": 20},
            (
                "at_half > 0.8 in 90% of seeds",
                "in_digons > 0.8 in 90% of seeds",
                "max of filled > 0.99",
                "max of dimensions_per_feature between 0.95 and 1.05",
            ),
        ),
        Example(
            "all-digons",
            "Where features are there two times in five, every one represented shares its dimension with its opposite",
            {"features": 200, "hidden": 20, "sparsity": 0.6, "points": 1, "seeds": 8},
            (
                "at_half > 0.8 in 90% of seeds",
                "every dimensionality = 0.50 +- 0.03",
                "every digons > 0.95",
                "every filled > 0.99",
            ),
        ),
        Example(
            "a-full-layer",
            "From one in four on no dimension is left unused",
            {"features": 200, "hidden": 20, "sparsity_from": 0.75, "sparsity": 0.96, "points": 4, "seeds": 1},
            ("every filled > 0.99", "max of represented > 100"),
        ),
        Example(
            "digons-then-more",
            "Forty features in four dimensions: four digons, then a pentagon or an antiprism beside what is left",
            {
                "features": 40,
                "hidden": 4,
                "sparsity_from": 0.6,
                "sparsity": 0.8,
                "points": 4,
                "batch": 128,
                "steps": 1500,
                "seeds": 4,
            },
            ("at_half > 0.95 in 90% of seeds", "max of digons > 0.95", "sticky > 0.85 in 90% of seeds"),
        ),
    ),
    needs=needs,
    together=together,
    nonsense=Nonsense("untrained models", "what training makes of a layer", {"steps": 1}),
)
