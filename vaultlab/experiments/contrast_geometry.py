"""Contrast geometry: how far do two sets of texts lie apart in the stream, and is it one direction for all layers?

The activations x at each text's last token are read at every layer. Two sets have means μ₊ and μ₋ there, and

    Σ ‖x − μ‖² / n  =  Σ ‖x − μ_set‖² / n  +  (n₊ n₋ / n²) ‖μ₊ − μ₋‖²        total = within + between, exactly

    share     between / total: how much of all that texts differ in is which set they are of
    cosine    cos(μ₊, μ₋), as it is often given; near 1 whatever the sets are: most of a mean is common to all
    near      cos(δ_ℓ, δ_ℓ₊₁) of the differences δ = μ₊ − μ₋ of neighbouring layers; far: of layers far apart

Any two sets differ somewhat. Labels that mean nothing leave a share of 1/(n − 1) on average, whatever the activations
are; and their differences are alike in neighbouring layers too, for one layer's stream is most of the next one's.
So every number stands beside the same of shuffled labels. Means taken from the mean of both sets would tell nothing at
all: of two sets of one size they are opposite, cos = −1, always.

Where the texts end in different tokens, that is what layer 0 tells apart.

How to read the figures. `share` has the share between the sets, of the stream and of what attention and MLP add to it,
layer by layer; the dashes are 1/(n − 1), the band nine in ten shuffles at the stream. `means` has cos(μ₊, μ₋) likewise.
`cosines` says which layers' differences point the same way.

Source: Samuel Marks, Max Tegmark (2023), "The Geometry of Truth: Emergent Linear Structure in Large Language Model
Representations of True/False Datasets", section 3, https://arxiv.org/abs/2310.06824. Ronald A. Fisher (1925),
"Statistical Methods for Research Workers", chapter VII, https://psychclassics.yorku.ca/Fisher/Methods/
"""

import math
from typing import Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Directions,
    Example,
    Experiment,
    ListName,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.bootstrap import RESAMPLES
from vaultlab.models.contrast import cosines
from vaultlab.models.family import Shape
from vaultlab.models.spread import Spread, spread, total_variance, within_variance
from vaultlab.models.templates import read_last
from vaultlab.models.trace import Site, SiteName
from vaultlab.plots.concepts import draw_cosines
from vaultlab.plots.contrast import Lines, draw_by_layer
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

PLACES = (
    *("garden", "station", "bridge", "kitchen", "harbour", "library", "market", "school", "museum", "forest", "beach"),
    *("office", "theatre", "castle", "hotel", "bakery", "workshop", "church", "park", "farm", "cellar", "airport"),
    *("square", "tower"),
)
DONE = tuple(f"She went to the {place} yesterday." for place in PLACES)
TO_COME = tuple(f"She will go to the {place} tomorrow." for place in PLACES)

FEWEST = 4
NULLS = 100
OTHERS: tuple[SiteName, ...] = ("attn", "mlp")
EXACT = 1e-9


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose stream is read."""

    positive: ListName = TO_COME
    """Texts of the one set: a list, or where it stands. Let all end alike, or it is their ends that are compared."""

    negative: ListName = DONE
    """Texts of the other set."""

    site: Literal["resid_pre", "resid_mid", "resid_post"] = Field(
        "resid_pre", json_schema_extra={"stress": ["resid_pre", "resid_post"]}
    )
    """The stream before each layer, between its attention and its MLP, or behind it."""

    bos: Bos = None

    labels: Literal["true", "shuffled"] = "true"
    """Which text is of which set: as the lists say, or as a control drawn at random (shuffled)."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the draws start: shuffles and intervals."""


class Out(NamedTuple):
    """What `compute` leaves behind. `cosine`, `apart` and `share` are by site and layer, the stream first; `gaps` are
    μ₊ − μ₋ in the stream; the nulls are of the stream, shuffle by shuffle; `interval` that of the share, by layer."""

    counts: tuple[int, int]
    cosine: Float[Tensor, "site layer"]
    apart: Float[Tensor, "site layer"]
    share: Float[Tensor, "site layer"]
    gaps: Float[Tensor, "layer d_model"]
    interval: Float[Tensor, "2 layer"]
    null_cosine: Float[Tensor, "draw layer"]
    null_share: Float[Tensor, "draw layer"]
    null_cosines: Float[Tensor, "layer layer"]
    split_residual: float
    closed_residual: float
    eps: float


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One pass over all texts; then means, once as the labels say and once for every shuffle."""
    model = bench.model(spec.model)
    lists = [bench.items(name) for name in ("positive", "negative")]
    for name, texts in zip(("positive", "negative"), lists, strict=True):
        if len(texts) < FEWEST:
            raise NoteError(f"`{name}` has {len(texts)} texts.", f"Give it at least {FEWEST}.", field=name)
    prompts = [model.tokens(text, bos=spec.bos).ids for texts in lists for text in texts]
    if min(map(len, prompts)) < 2:
        alone = next(text for texts in lists for text in texts if len(model.tokens(text, bos=spec.bos).ids) < 2)
        raise NoteError(
            f"{model.name} reads `{alone}` as one token, and models rest on a text's first token.",
            "Write some words before it.",
            field="positive" if alone in lists[0] else "negative",
        )
    layers = model.shape.layers
    sites = _sites(spec, model.shape)

    def progress(done: int, total: int) -> None:
        bench.progress(done, total, "reading")

    read = read_last(model, prompts, sites, bench.trace, bench.batch, progress)
    streams = rearrange(read.x, "text (site layer) d_model -> site layer text d_model", layer=layers).contiguous()
    side = torch.arange(len(prompts)) < len(lists[0])
    if spec.labels == "shuffled":
        side = side[torch.randperm(len(side), generator=bench.generator("labels", spec.seed))]
    found = [spread(x, side[None]) for x in streams]
    generator = bench.generator("null", spec.seed)
    shuffles = torch.stack([side[torch.randperm(len(side), generator=generator)] for _ in range(NULLS)])
    null = spread(streams[0], shuffles)
    total = total_variance(streams[0])
    within = within_variance(streams[0], side)
    return Out(
        counts=(len(lists[0]), len(lists[1])),
        cosine=_by_site(found, "cosine"),
        apart=_by_site(found, "apart"),
        share=_by_site(found, "share"),
        gaps=found[0].gap[0],
        interval=_interval(streams[0], side, bench.generator("intervals", spec.seed)),
        null_cosine=null.cosine,
        null_share=null.share,
        null_cosines=cosines(null.gap).mean(0),
        split_residual=float(((within + found[0].share[0] * total - total).abs() / total.clamp(min=1e-30)).max()),
        closed_residual=_closed(null, len(side)),
        eps=torch.finfo(model.dtype).eps,
    )


def _sites(spec: Spec, shape: Shape) -> list[Site]:
    return [Site(name, layer) for name in (spec.site, *OTHERS) for layer in range(shape.layers)]


def _by_site(found: list[Spread], name: str) -> Float[Tensor, "site layer"]:
    return torch.stack([getattr(one, name)[0] for one in found])


def _closed(null: Spread, count: int) -> float:
    """How far the mean share of shuffles is from 1/(n − 1), in standard errors; the layer that is furthest off."""
    error = null.share.std(0) / math.sqrt(NULLS)
    off = (null.share.mean(0) - 1 / (count - 1)).abs()
    return float(torch.where(error > 0, off / error.clamp(min=1e-300), 0.0).max())


def _interval(x: Tensor, side: Tensor, generator: torch.Generator) -> Float[Tensor, "2 layer"]:
    """95 % of the share when texts are drawn again in both sets, by weights: every moment is a sum over texts.

    Drawing again adds what a set's mean is off by, so the interval is moved to have the share itself in its middle.
    """
    K = torch.einsum("ltd,lsd->lts", x - x.mean(1, keepdim=True), x - x.mean(1, keepdim=True))
    square = K.diagonal(dim1=1, dim2=2)
    shares = []
    for _ in range(RESAMPLES // 5):
        weight = torch.zeros(len(side), dtype=torch.float64)
        for part in (side.nonzero()[:, 0], (~side).nonzero()[:, 0]):
            drawn = part[torch.randint(len(part), (len(part),), generator=generator)]
            weight += torch.bincount(drawn, minlength=len(side)).double()
        n, one = len(side), weight * side
        both = one / one.sum() - weight * ~side / (weight * ~side).sum()
        portion = float(one.sum()) / n
        gap = torch.einsum("t,lts,s->l", both, K, both)
        mean = weight / n
        total = square @ mean - torch.einsum("t,lts,s->l", mean, K, mean)
        shares.append(torch.where(total > 0, portion * (1 - portion) * gap / total.clamp(min=1e-300), 0.0))
    every = torch.stack(shares)
    ends = every.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return (ends - every.mean(0) + spread(x, side[None]).share[0]).clamp(0, 1)


SHARE = Quantity(
    "share",
    "Largest share, of all layers, of the variance between the sets, in the stream; null: the largest of a shuffle's "
    "layers, what 95 in 100 stay below.",
    range=(0, 1),
    headline=True,
)
LAYER = Quantity("layer", "The layer with the largest share, in the stream.", range=(0, math.inf))
LAYER_SHARE = Quantity(
    "layer_share",
    "Share of the variance between the sets at every layer of the stream; null: 1/(n − 1), the mean of shuffles.",
    range=(0, 1),
)
FIRST_SHARE = Quantity("first_share", "The share in the stream of layer 0; null: 1/(n − 1).", range=(0, 1))
MEAN_COSINE = Quantity(
    "mean_cosine",
    "cos(μ₊, μ₋) at every layer of the stream; null: of shuffled labels, mean: near 1 says nothing by itself.",
    range=(-1, 1),
)
ATTN_SHARE = Quantity("attn_share", "Largest share in what a layer's attention writes; null: 1/(n − 1).", range=(0, 1))
MLP_SHARE = Quantity("mlp_share", "Largest share in what a layer's MLP writes; null: 1/(n − 1).", range=(0, 1))
NEAR_COSINE = Quantity(
    "near_cosine",
    "Cosine of the differences of neighbouring layers, mean; null: the same of shuffled labels.",
    range=(-1, 1),
    headline=True,
)
FAR_COSINE = Quantity(
    "far_cosine",
    "Cosine of the differences of layers more than half the model apart, mean; null: the same of shuffled labels.",
    range=(-1, 1),
    headline=True,
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    count, chance = sum(out.counts), 1 / (sum(out.counts) - 1)
    stream, attn, mlp = out.share
    best = int(stream.argmax())
    top = float(out.null_share.amax(1).quantile(0.95))
    ends = (float(out.interval[0, best]), float(out.interval[1, best]))
    return [
        SHARE.is_(float(stream[best]), interval=ends, null=top, n=count),
        LAYER.is_(float(best)),
        LAYER_SHARE.is_(tuple(stream.tolist()), null=chance, n=count),
        FIRST_SHARE.is_(float(stream[0]), null=chance, n=count),
        MEAN_COSINE.is_(tuple(out.cosine[0].tolist()), null=float(out.null_cosine.mean()), n=count),
        ATTN_SHARE.is_(float(attn.max()), null=chance, n=count),
        MLP_SHARE.is_(float(mlp.max()), null=chance, n=count),
        *_between_layers(out),
    ]


def _between_layers(out: Out) -> list[Metric]:
    """Layers in which nothing tells the sets apart have no difference to compare."""
    own, told = cosines(out.gaps), out.apart[0] > EXACT
    layer = torch.arange(len(own))
    apart, there = layer[None] - layer[:, None], told[None] & told[:, None]
    return [
        quantity.is_(float(own[pairs].mean()), null=float(out.null_cosines[pairs].mean()))
        for quantity, pairs in ((NEAR_COSINE, there & (apart == 1)), (FAR_COSINE, there & (apart > len(layer) / 2)))
        if pairs.any()
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    return [
        Check("total = within + between", out.split_residual, EXACT, "each computed by itself, all layers; relative"),
        Check(
            "shuffled labels leave 1/(n − 1)",
            out.closed_residual,
            6,
            f"mean share of {NULLS} shuffles against the closed form, the furthest layer; in standard errors",
        ),
    ]


def reads(spec: Spec, shape: Shape) -> Reads:
    """All texts, in batches from the shortest to the longest, at every layer."""
    return Reads(("texts", spec.bos), tuple(_sites(spec, shape)))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, a batch at three sites of every layer, what is kept; a pass over some 100 texts of 16 tokens."""
    assert shape is not None
    batch = 3 * 32 * 16 * shape.layers * shape.d_model * 4
    kept = 4 * 100 * shape.layers * shape.d_model * 8
    return Needs(shape.bytes + batch + kept, 3 + 2 * shape.parameters * 100 * 16 / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    tail = torch.tensor([0.05, 0.95], dtype=torch.float64)
    names = (spec.site, *OTHERS)
    share = Lines(
        {name: row.numpy() for name, row in zip(names, out.share, strict=True)},
        out.null_share.quantile(tail, dim=0).numpy(),
        out.interval.numpy(),
        1 / (sum(out.counts) - 1),
    )
    means = Lines(
        {name: row.numpy() for name, row in zip(names, out.cosine, strict=True)},
        out.null_cosine.quantile(tail, dim=0).numpy(),
    )
    size = f"{out.counts[0]} texts against {out.counts[1]}"
    return {
        "share": draw_by_layer(share, "variance between the sets", f"Share of the variance between sets, {size}."),
        "means": draw_by_layer(means, "cosine of the two means", f"Cosine of the means of two sets, {size}."),
        "cosines": draw_cosines(cosines(out.gaps).numpy(), spec.site),
    }


def directions(spec: Spec, out: Out) -> Directions:
    """μ₊ − μ₋ of every layer; chosen is where most of the variance lies between the sets."""
    return Directions(spec.model, spec.site, tuple(range(len(out.gaps))), out.gaps.float(), int(out.share[0].argmax()))


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        *(SHARE, LAYER, LAYER_SHARE, FIRST_SHARE, MEAN_COSINE, ATTN_SHARE, MLP_SHARE),
        *(NEAR_COSINE, FAR_COSINE),
    ),
    figures={
        "share": "How much of all that the texts differ in lies between the sets, layer by layer.",
        "means": "Cosine of the two means, layer by layer, beside that of shuffled labels.",
        "cosines": "Which layers' differences point the same way.",
    },
    examples=(
        Example(
            "done-or-to-come",
            "What was done and what is to come lie apart at the full stop, in no one direction through the model",
            {"model": "smollm2-135m"},
            ("first_share = 0", "share > 0.3", "min of mean_cosine > 0.5", "far_cosine < 0.5"),
        ),
    ),
    needs=needs,
    reads=reads,
    directions=directions,
    nonsense=Nonsense("labels drawn at random", "what the sets differ in", {"labels": "shuffled"}),
)
