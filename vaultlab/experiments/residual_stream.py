"""The residual stream: who writes to it, who reads what was written, and how they share its room?

Every layer reads the same stream and adds to it. So the last stream is a sum of writers, and what one of them wrote
is there for all that come later:

    x_L = x_0 + Σ_l (attn_l + mlp_l)        share of a writer c at a token = c · x_L / ‖x_L‖², all shares sum to 1

A share below 0 takes away what others wrote. Were all writes at right angles, squares would add up and a share would
be ‖c‖² / Σ ‖c‖²: the null of shares and of the stream's growth.

*Virtual weights* say from the weights alone how much of what a writer can write a later reader can read:

    ‖W_r W_w‖_F / (‖W_r‖_F ‖W_w‖_F)        1/√d_model for a writer turned at random

W are whole circuits, so that no other basis within a head or scale within a memory changes them: attention writes with
W_V W_O and reads with W_Q W_Kᵀ, its transpose and W_V W_O (root mean square of the three; queries and keys at distance
0, and where they are normed head by head with that scale taken as 1), an MLP's memories count by the length of key and
value together. The norms' gains are folded in. What is the same for all tokens is taken off the embeddings.

*Subspaces*: the `subspace` directions that a writer uses most on this text, in how far another one uses the same:

    ‖U_aᵀ U_b‖²_F / k        1: the same room; k/d_model: no more than random subspaces

Tokens whose stream is over 5 × the median norm somewhere on the way are left out of everything but the identities, and
listed: their few huge coordinates would be all that one sees.

A linear net is the sum of its paths: ∏(I + A_l) = Σ over subsets of layers of the product of their A. It is checked on
corners of the model's own W_V W_O, and where a model has nothing but attention on the whole run, patterns frozen.

How to read the figures. In `writers` a column is a token, a row a layer's attention or MLP, red what it adds to the
stream there and blue what it takes away from it, by what is left behind. In `norms` the stream above the dashed line
says that writes add to what is there, below it that they undo it; below are the shares of the last stream. In `virtual`
red is above what turned writers would have, blue below it; in `overlap` a bright cell shares more than random
subspaces do.

Source: Nelson Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Virtual Weights and
the Residual Stream as a Communication Channel", https://transformer-circuits.pub/2021/framework/index.html

Massive activations: Mingjie Sun, Xinlei Chen, J. Zico Kolter, Zhuang Liu (2024), "Massive Activations in Large Language
Models", section 2, https://arxiv.org/abs/2402.17762
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import stream, virtual
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tokens import Template
from vaultlab.models.trace import sinks
from vaultlab.plots import writers as figures
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

DRAWS = 64
"""Random subspaces that are held against the run's own."""

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "When Mary and John went to the store, John gave a drink to Mary. Then they walked home together."
    """What it reads."""

    subspace: int = Field(8, ge=1, le=64, json_schema_extra={"symbol": "k", "stress": [4, 12]})
    """How many directions of each writer are compared; fewer where a writer has not as many on this text."""

    tokens: int = Field(128, ge=4, le=512, json_schema_extra={"stress": [20, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the draws of the checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind: `stream.Reading` over all tokens less the subspaces, which are compared already.
    `k` is how many directions they have; `virtual` is NaN where a reader comes before the writer."""

    tokens: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    layers: int
    d_model: int
    k: int
    eps: float
    kept: Bool[Tensor, " pos"]
    shares: Float[Tensor, "writer pos"]
    squares: Float[Tensor, "writer pos"]
    relative: Float[Tensor, "writer pos"]
    cosine: Float[Tensor, "writer pos"]
    norms: Float[Tensor, "layer pos"]
    massive: Float[Tensor, " layer"]
    virtual: Float[Tensor, "reader writer"]
    overlap: Float[Tensor, "writer writer"]
    shares_residual: Float[Tensor, ""]
    sum_residual: Float[Tensor, ""]
    gram_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]
    random_residual: Float[Tensor, ""]
    paths_residual: Float[Tensor, ""]
    linear_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass, then the weights layer by layer in float32."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    whole = model.tokens(
        "\n\n".join(part for _, part in bench.text("text").parts), bos=spec.bos, template=spec.template
    )
    shape, ids = model.shape, whole.ids[: spec.tokens]
    bench.progress(0, shape.layers, "reading the text")
    found = {site: one[0] for site, one in bench.trace(model, ids[None], stream.sites(shape)).items()}
    streams = [found[site] for site in stream.sites(shape) if site.name in ("resid_pre", "final")]
    kept = ~torch.stack([sinks(one) for one in streams]).any(0)
    if kept.sum() < 3:
        raise NoteError(
            f"{model.name} reads this text as {len(ids)} tokens, and of these {int(kept.sum())} are not massive.",
            "Give it a longer text.",
            field="text",
        )
    reading = stream.read(found, shape, kept, spec.subspace)
    reach, of_weights = _virtual(model, bench, spec)
    return Out(
        tokens=whole.strings[: spec.tokens],
        writers=tuple(place.name for place in stream.writers_of(shape)),
        readers=tuple(place.name for place in stream.readers_of(shape)),
        layers=shape.layers,
        d_model=shape.d_model,
        k=reading.subspaces.shape[-1],
        eps=torch.finfo(model.dtype).eps,
        kept=kept.cpu(),
        shares=reading.shares.cpu(),
        squares=reading.squares.cpu(),
        relative=reading.relative.cpu(),
        cosine=reading.cosine.cpu(),
        norms=reading.norms.cpu(),
        massive=torch.stack([norms.max() / norms.median() for norms in reading.norms]).cpu(),
        virtual=reach.cpu(),
        overlap=stream.overlaps(reading.subspaces).cpu(),
        shares_residual=(reading.shares.double().sum(0) - 1).abs().max().cpu(),
        sum_residual=reading.sum_residual.cpu(),
        **of_weights,
        random_residual=_random_residual(reading.subspaces, bench.generator("subspaces", spec.seed)),
        paths_residual=_paths_residual(model),
        linear_residual=_linear_residual(model, found),
    )


def _virtual(model: Model, bench: Bench, spec: Spec) -> tuple[Float[Tensor, "reader writer"], dict[str, Tensor]]:
    """Virtual weights of every pair: all writers first, then reader by reader; and what the weights' checks found."""
    shape, wide = model.shape, torch.promote_types(model.dtype, torch.float32)
    places = stream.writers_of(shape)
    embedding, unembedding = virtual.ends(model, wide)
    writes = embedding.new_empty(len(places), *embedding.shape)
    writes[0] = embedding
    rows, residuals = [], []
    probe = torch.randn(shape.d_model, generator=bench.generator("probe", spec.seed), dtype=torch.float64).to(writes)
    each = len(stream.layers_of(shape)) // shape.layers
    for layer in range(shape.layers):
        bench.progress(layer, shape.layers, "matching weights")
        G = virtual.grams_of(model, layer, wide)
        first = 1 + each * layer
        writes[first : first + each] = torch.stack([G.attn_writes, G.mlp_writes][:each])
        for reads in (G.attn_reads, G.mlp_reads)[:each]:
            so_far = virtual.virtual(writes[: first + each], reads)
            rows.append(torch.cat([so_far, so_far.new_full((len(places) - len(so_far),), math.nan)]))
        residuals.append(virtual.probed(model, layer, G, probe))
    rows.append(virtual.virtual(writes, (unembedding,)))
    seen = stream.sees(shape).to(writes.device)
    of_weights = {
        "gram_residual": torch.stack(residuals).max().cpu(),
        "gauge_residual": virtual.gauge_residual(model, shape.layers // 2, writes, bench.generator("gauge", spec.seed)),
    }
    return torch.stack(rows).masked_fill(~seen, math.nan), of_weights


def _random_residual(own: Float[Tensor, "writer d_model k"], generator: torch.Generator) -> Tensor:
    """How many standard errors the mean overlap of random subspaces with the run's own is from k/d_model."""
    d_model, k = own.shape[1:]
    drawn = torch.linalg.qr(torch.randn(DRAWS, d_model, k, generator=generator, dtype=torch.float64)).Q
    each = torch.stack([(one.T @ own.cpu().double()).square().sum((1, 2)).mean() / k for one in drawn])
    if k == d_model:
        return (each - 1).abs().max()
    return (each.mean() - k / d_model).abs() / (each.std() / math.sqrt(DRAWS))


def _paths_residual(model: Model) -> Tensor:
    last = model.shape.layers - 1
    layers = sorted({0, last // 3, 2 * last // 3, last})
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    return stream.paths_residual(stream.linear_slices(model, layers, wide)).cpu()


def _linear_residual(model: Model, found: stream.Found) -> Tensor:
    """0 where the model is no linear net even with its patterns frozen."""
    if "attention_only" not in model.shape.flags or model.shape.layers > stream.PATH_LAYERS:
        return torch.tensor(0.0)
    return stream.along_paths(model, found, torch.promote_types(model.dtype, torch.float32)).cpu()


GROWTH = Quantity(
    "growth",
    "Norm of the last stream by that of the embedding, mean over tokens; null: were all writes at right angles.",
    unit="× the embedding",
    range=(0, math.inf),
    headline=True,
)
VIRTUAL_WEIGHT = Quantity(
    "virtual_weight",
    "Virtual weight from a writer to a later reader, mean over all pairs; null: a writer turned at random, 1/√d_model.",
    range=(0, 1),
    headline=True,
)
OVERLAP = Quantity(
    "overlap",
    "How much of the directions that one writer uses most another one uses too, mean over pairs; null: random "
    "subspaces, k/d_model.",
    range=(0, 1),
    headline=True,
)
NEXT_OVERLAP = Quantity(
    "next_overlap", "The same of each writer and the next one of its kind; null as there.", range=(0, 1)
)
EMBEDDING_SHARE = Quantity(
    "embedding_share", "The embedding's share of the last stream, mean over tokens; null: writes at right angles."
)
ATTENTION_SHARE = Quantity(
    "attention_share", "All attention's share of the last stream, mean over tokens; null: writes at right angles."
)
MLP_SHARE = Quantity("mlp_share", "All MLPs' share of the last stream, mean over tokens; null: writes at right angles.")
LATE_SHARE = Quantity(
    "late_share",
    "The last quarter of the layers' share of the last stream, mean over tokens; null: writes at right angles.",
)
WRITE_SHARES = Quantity(
    "write_shares",
    "Every writer's share of the last stream, the embedding first, then attention and MLP of each layer; null: 1 by "
    "their number.",
    forced={"mean": "all shares sum to 1, so their mean is 1 by the number of writers"},
)
STREAM_NORMS = Quantity(
    "stream_norms",
    "Norm of the stream before every layer and behind the last by the embedding's, mean over tokens.",
    unit="× the embedding",
    range=(0, math.inf),
    forced={"min": "the embedding by itself is 1, so the smallest is at most 1", "any": "the embedding by itself is 1"},
)
WRITE_NORMS = Quantity(
    "write_norms",
    "Norm of what each layer's attention and MLP write by that of the stream that they are added to, mean over tokens.",
    range=(0, math.inf),
)
WRITE_COSINES = Quantity(
    "write_cosines",
    "Cosine of each write with the stream that it is added to, mean over tokens: below 0 it takes away; null: 0.",
    range=(-1, 1),
)
READ_WEIGHTS = Quantity(
    "read_weights",
    "Every reader's virtual weights, mean over the writers before it, the unembedding last; null: 1/√d_model.",
    range=(0, 1),
)
MASSIVE_NORM = Quantity(
    "massive_norm",
    "The largest norm of a token by the median, before every layer and behind the last.",
    unit="× the median",
    range=(1, math.inf),
)
LEFT_OUT = Quantity(
    "left_out", "Share of tokens that are over 5 × the median norm somewhere, and so are left out.", range=(0, 1)
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over the tokens that are kept."""
    shares, squares = out.shares[:, out.kept].double(), out.squares[:, out.kept].double()
    norms, straight = out.norms[:, out.kept].double(), squares.sum(0).sqrt()
    even = squares / squares.sum(0)
    kinds = [name.split()[0] for name in out.writers]
    late = [place for place in range(1, len(kinds)) if _layer(out.writers[place]) >= out.layers - _quarter(out.layers)]
    count = int(out.kept.sum())
    apart = ~torch.eye(len(kinds), dtype=torch.bool)
    following = [
        out.overlap[place, kinds.index(kind, place + 1)]
        for place, kind in enumerate(kinds)
        if kind in kinds[place + 1 :]
    ]
    chance, turned = out.k / out.d_model, 1 / math.sqrt(out.d_model)
    seen = ~out.virtual.isnan()

    def share(quantity: Quantity, places: list[int]) -> Metric:
        return quantity.is_(float(shares[places].sum(0).mean()), null=float(even[places].sum(0).mean()), n=count)

    def of(kind: str) -> list[int]:
        return [place for place, other in enumerate(kinds) if other == kind]

    def each(quantity: Quantity, values: Tensor, null: float | None = None) -> Metric:
        return quantity.is_(tuple(values.tolist()), null=null, n=count)

    return [
        GROWTH.is_(float((norms[-1] / norms[0]).mean()), null=float((straight / norms[0]).mean()), n=count),
        VIRTUAL_WEIGHT.is_(float(out.virtual[seen].double().mean()), null=turned, n=int(seen.sum())),
        OVERLAP.is_(float(out.overlap[apart].double().mean()), null=chance, n=int(apart.sum()) // 2),
        *([NEXT_OVERLAP.is_(float(torch.stack(following).mean()), null=chance, n=len(following))] if following else []),
        share(EMBEDDING_SHARE, of("embedding")),
        share(ATTENTION_SHARE, of("attn")),
        *([share(MLP_SHARE, of("MLP"))] if "MLP" in kinds else []),
        share(LATE_SHARE, late),
        each(WRITE_SHARES, shares.mean(1), 1 / len(kinds)),
        each(STREAM_NORMS, (norms / norms[0]).mean(1)),
        each(WRITE_NORMS, out.relative[1:, out.kept].double().mean(1)),
        each(WRITE_COSINES, out.cosine[1:, out.kept].double().mean(1), 0.0),
        each(READ_WEIGHTS, out.virtual.double().nanmean(1), turned),
        MASSIVE_NORM.is_(tuple(out.massive.tolist()), n=len(out.tokens)),
        LEFT_OUT.is_(1 - count / len(out.tokens), n=len(out.tokens)),
    ]


def _layer(name: str) -> int:
    return int(name.split()[1])


def _quarter(layers: int) -> int:
    return max(1, layers // 4)


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, all tokens included."""
    rounding = max(ALGEBRA, 4 * out.eps, out.eps * out.layers)  # every layer rounds the stream twice
    checks = [
        Check(
            "shares sum to 1",
            float(out.shares_residual),
            rounding,
            "what all writers have of the last stream, the worst token",
        ),
        Check(
            "the stream is the sum of its writers",
            float(out.sum_residual),
            rounding,
            "before every layer and behind the last, in float64; relative, the worst token",
        ),
        Check(
            "virtual weights, another way",
            float(out.gram_residual),
            ALGEBRA * 10,
            "of every writer and reader, what becomes of one random direction, head by head and memory by memory in "
            "float64; relative",
        ),
        Check(
            "another basis changes no virtual weight",
            float(out.gauge_residual),
            ALGEBRA * 10,
            "values in another basis, queries against keys and keys against values scaled, in a middle layer; relative",
        ),
        Check(
            "random subspaces share k/d_model",
            float(out.random_residual),
            5.0,
            f"{DRAWS} random subspaces against those of this run's writers; in standard errors",
        ),
        Check(
            "∏(I + A) = Σ over paths",
            float(out.paths_residual),
            ALGEBRA,
            f"corners of {stream.SLICE} dimensions of W_V W_O of up to four layers; relative",
        ),
    ]
    if "MLP 0" not in out.writers and out.layers <= stream.PATH_LAYERS:
        checks.append(
            Check(
                "the stream is the sum of its paths",
                float(out.linear_residual),
                rounding,
                f"all {2**out.layers} paths through the layers, patterns frozen; relative, the worst token",
            )
        )
    return checks


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, the stream before every layer and behind the last, and what every layer writes."""
    if spec.weights == "shuffled":
        return None
    return Reads(("whole", spec.tokens, spec.bos, spec.template), stream.sites(shape))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, three streams a layer, a d_model × d_model matrix a writer and a layer's own; a forward pass and
    those matrices at 40 GFLOP/s."""
    assert shape is not None
    kept = (3 * shape.layers + 8) * spec.tokens * shape.d_model * 4
    writers = len(stream.writers_of(shape))
    square = shape.d_model**2 * 4
    layer = 3 * (4 * shape.heads * shape.d_head + 3 * shape.d_mlp) * shape.d_model * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    work = 2 * shape.parameters * (spec.tokens + 2 * shape.d_model) + 4 * shape.d_vocab * shape.d_model**2
    return Needs(weights + kept + (writers + 12) * square + layer, 3 + work / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    kept = out.kept
    tokens = [token for token, keep in zip(out.tokens, kept.tolist(), strict=True) if keep]
    left_out = [token for token, keep in zip(out.tokens, kept.tolist(), strict=True) if not keep]
    kinds = {
        title: torch.tensor([place for place, name in enumerate(out.writers) if name.split()[0] == kind])
        for title, kind in (("attention", "attn"), ("MLP", "MLP"))
        if any(name.startswith(f"{kind} ") for name in out.writers)
    }
    first = out.norms[0, kept].double()
    squares = out.squares[:, kept].double()
    even = (squares / squares.sum(0)).mean(1)
    of = {
        title: figures.Kind(
            (squares[places].sqrt() / first).mean(1).numpy(),
            out.shares[places][:, kept].mean(1).numpy(),
            even[places].numpy(),
        )
        for title, places in kinds.items()
    }
    grown = squares.cumsum(0)[:: len(kinds)].sqrt()
    left_behind = _share_left(out.relative, out.cosine)[:, kept]
    turned, chance = 1 / math.sqrt(out.d_model), out.k / out.d_model
    return {
        "writers": figures.along(
            {title: left_behind[places].numpy() for title, places in kinds.items()}, tokens, left_out
        ),
        "norms": figures.norms(
            (out.norms[:, kept].double() / first).mean(1).numpy(), (grown / first).mean(1).numpy(), of, left_out
        ),
        "virtual": figures.reach(out.virtual.numpy(), turned, (out.readers, out.writers)),
        "overlap": figures.shared(out.overlap.numpy(), chance, out.writers, out.k),
    }


def _share_left(relative: Float[Tensor, "writer pos"], cosine: Float[Tensor, "writer pos"]) -> Tensor:
    """What a write has of the stream that it leaves behind: c · (x + c) / ‖x + c‖²."""
    along = relative * cosine
    return (along + relative.square()) / (1 + 2 * along + relative.square())


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        GROWTH,
        VIRTUAL_WEIGHT,
        OVERLAP,
        NEXT_OVERLAP,
        EMBEDDING_SHARE,
        ATTENTION_SHARE,
        MLP_SHARE,
        LATE_SHARE,
        WRITE_SHARES,
        STREAM_NORMS,
        WRITE_NORMS,
        WRITE_COSINES,
        READ_WEIGHTS,
        MASSIVE_NORM,
        LEFT_OUT,
    ),
    figures={
        "writers": "Who writes what along the text, layer by layer.",
        "norms": "The stream's norm by layer, that of what is written to it, and who has how much of the last one.",
        "virtual": "Virtual weights between every writer and every later reader, against turned writers.",
        "overlap": "How much of their room any two writers share, against random subspaces.",
    },
    examples=(
        Example(
            "who-writes-what",
            "Nearly all of the last stream is written by its last quarter of layers, nothing is left of the embedding",
            {"model": "smollm2-135m"},
            ("late_share > 0.85", "embedding_share < 0.01", "growth > 290", "attention_share > 0.3"),
        ),
        Example(
            "massive-tokens",
            "The first token's norm is over fifty times the median's, and it is left out",
            {"model": "smollm2-135m"},
            ("max of massive_norm > 50", "left_out < 0.2", "max of write_norms > 5"),
            {"text": "The museum opens at nine and closes at five. If you come at ten you will see it all."},
        ),
        Example(
            "rooms-are-shared",
            "Layers next to each other write to the same directions, four times as much as random subspaces would",
            {"model": "smollm2-135m", "subspace": 4},
            ("next_overlap > 0.03", "overlap between 0.01 and 0.06", "virtual_weight between 0.038 and 0.048"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
