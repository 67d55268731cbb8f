"""Attribution patching: patching at every place at once, estimated from one gradient. How far is it to be trusted?

Patching asks of each place what happens if another prompt's activations stand there (`patching`), and runs the model
for each answer. To first order the gradient has all of them: with d the logit of the answer less that of a foil, x what
stands at a place of the base run and x' what the donor has there,

    estimate = (x' − x) · ∂d/∂x / (d of the donor's run − d of the base run)

for all places from one pass forward and one back. Of a head it is summed over all positions. It is exact where d is
linear in x, and only there: where a pattern or a norm comes in between, the slope at the base run is not that of the
whole way. So every place is patched too, and the two are shown beside each other.

    correlation    of estimates with what patching moves, over all places; null: the largest of 200 shuffles
    slope          how far patching moves what is estimated to move 1: the line through the origin that fits best

How to read the figures. In `scatter` every dot is a place or a head; on the dashed line the estimate is right, and the
place where it is furthest off is named. `maps` are the estimates, layer by position, beside what patching moves.

Source: Neel Nanda (2023), "Attribution Patching: Activation Patching At Industrial Scale",
https://www.neelnanda.io/mechanistic-interpretability/attribution-patching. János Kramár, Tom Lieberum, Rohin Shah, Neel
Nanda (2024), "AtP*: An efficient and scalable method for localizing LLM behaviour to components", sections 2 and 3,
https://arxiv.org/abs/2403.00745
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
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
    TextName,
    Word,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import patching
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.gradients import Gradients, gradients
from vaultlab.models.pairs import read_pairs
from vaultlab.models.patching import Patch, Patching
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.trace import Site, SiteName, trace
from vaultlab.plots import estimates
from vaultlab.plots.style import Drawing, visible
from vaultlab.result import Check, Metric

NO_GAP = 0.1
"""Nats: where the two runs' answers are no further apart, there is nothing that a patch could move."""

SHUFFLES = 200
TOP = 6
"""Heads that `top_found` looks for."""

STEP = 0.03
"""Of the way to the donor: how far the gradient is followed up and down to see that it is one."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that is patched."""

    clean: TextName = "The capital of France is the city of"
    """The prompt that the answer follows."""

    corrupt: TextName = "The capital of Italy is the city of"
    """The same with something else where the answer comes from, of as many tokens."""

    answer: Word | None = None
    """The answer, one token; none: what the model answers to the clean prompt."""

    foil: Word | None = None
    """The token that it is compared with; none: what it answers to the corrupt prompt."""

    direction: Literal["denoising", "noising"] = Field(
        "denoising", json_schema_extra={"stress": ["denoising", "noising"]}
    )
    """Put the clean prompt's activations into the corrupt run (denoising), or the other way round (noising)."""

    site: Literal["resid_pre", "resid_mid", "resid_post", "attn", "mlp"] = "resid_pre"
    """What is patched at each position; of heads it is z."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the shuffles start."""


class Out(NamedTuple):
    """What `compute` leaves behind, as shares of the way to the donor's answer: estimates and what patching moves."""

    labels: tuple[str, ...]
    answer: str
    foil: str
    eps: float
    gap: float
    cells: Float[Tensor, "layer pos"]
    heads: Float[Tensor, "layer head"]
    true_cells: Float[Tensor, "layer pos"]
    true_heads: Float[Tensor, "layer head"]
    same_residual: Float[Tensor, ""]
    heads_residual: Float[Tensor, ""]
    slope_residual: Float[Tensor, ""]
    changed_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One pass forward and back for all estimates, then every place patched, layer by layer."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    clean, corrupt = ("\n".join(part for _, part in bench.text(name).parts) for name in ("clean", "corrupt"))
    words = [None if word is None else [word] for word in (spec.answer, spec.foil)]
    pairs = read_pairs(model, (clean, corrupt), (words[0], words[1]), spec.bos)
    if len(pairs) > 1:
        raise NoteError(f"There are {len(pairs)} pairs, and one is asked for.", "Take one line of each.", field="clean")
    [pair] = pairs
    donor, base = (pair.clean, pair.corrupt)[:: 1 if spec.direction == "denoising" else -1]
    asked = patching.question(model, pair)
    names: tuple[SiteName, ...] = tuple(dict.fromkeys((spec.site, "attn", "z")))
    one = patching.patching(model, base, donor[None], asked, names, bench.batch)
    gap = float(one.given[0] - one.found)
    if abs(gap) < NO_GAP:
        raise NoteError(
            f"The two prompts have answer and foil equally far apart (by {gap:.3g} nats): there is nothing to move.",
            "Name an answer and a foil that the two prompts tell apart, or leave both out.",
            field="answer",
        )
    layers = range(model.shape.layers)
    slopes = gradients(model, base, [Site(name, layer) for name in names for layer in layers], _reader(one))
    first = torch.stack([_first_order(one, slopes, Site(spec.site, layer)).sum(-1) for layer in layers]).cpu()
    of_heads = torch.stack([_first_order(one, slopes, Site("z", layer)).sum((0, 2)) for layer in layers]).cpu()
    of_attn = torch.stack([_first_order(one, slopes, Site("attn", layer)).sum() for layer in layers]).cpu()
    rows = []
    for layer in layers:
        bench.progress(layer, len(layers), "patching layer by layer")
        rows.append(one.moved(layer, [*one.at_each(spec.site), *one.of_each("z")]))
    true = torch.stack(rows)
    before = int(pair.changed.nonzero()[0])
    shown = zip(model.token_strings(donor.tolist()), model.token_strings(base.tolist()), strict=True)
    answer, foil = model.token_strings([pair.answer, pair.foil])
    return Out(
        labels=tuple(given if given == own else f"{given}|{own}" for given, own in shown),
        answer=answer,
        foil=foil,
        eps=torch.finfo(model.dtype).eps,
        gap=gap,
        cells=first / gap,
        heads=of_heads / gap,
        true_cells=true[:, : one.length] / gap,
        true_heads=true[:, one.length :] / gap,
        same_residual=_same(one, slopes, Site(spec.site, model.shape.layers // 2)),
        heads_residual=(of_heads.sum(1) - of_attn).abs().max() / of_heads.abs().sum(1).max(),
        slope_residual=_followed(one, slopes, Site(spec.site, model.shape.layers // 2), abs(gap)),
        changed_residual=first[:, :before].abs().sum(),
    )


def _reader(one: Patching) -> Callable[[Tensor], Tensor]:
    def read(final: Tensor) -> Tensor:
        # Copies made here: no gradient passes through what was made in inference.
        asked = patching.Question(one.question.u.clone(), one.question.b.clone())
        return asked.read(one.model, final)

    return read


def _first_order(one: Patching, slopes: Gradients, site: Site) -> Tensor:
    """(x' − x) · ∂d/∂x, not yet summed, of the one row."""
    estimate: Tensor = (one.donated[site][0] - slopes.values[site][0]).float() * slopes.by[site][0].float()
    return estimate


def _same(one: Patching, slopes: Gradients, site: Site) -> Float[Tensor, ""]:
    """The pass with gradients is the pass without."""
    own = trace(one.model, one.base[None], [site])[site][0].float()
    apart: Tensor = (own - slopes.values[site][0].float()).norm() / own.norm()
    return apart.cpu()


def _followed(one: Patching, slopes: Gradients, site: Site, gap: float) -> Float[Tensor, ""]:
    """All positions a small step towards the donor and as far away from it: what that moves, against the gradient."""
    assert site.layer is not None
    way = one.donated[site][0] - slopes.values[site][0]
    steps = torch.stack([slopes.values[site][0] + sign * STEP * way for sign in (1, -1)])
    near = Patching(**{**vars(one), "donated": {site: steps}})
    patches = [Patch((site.name,), one.everywhere(), one.all_heads(), donor) for donor in (0, 1)]
    up, down = near.moved(site.layer, patches)
    slope = _first_order(one, slopes, site).sum().cpu()
    off: Tensor = ((up - down) / (2 * STEP) - slope).abs() / gap
    return off


CORRELATION = Quantity(
    "correlation",
    "Of estimates with what patching moves, over all layers and positions; null: the largest, either way, of 200 "
    "shuffles of the estimates.",
    range=(-1, 1),
    headline=True,
)
HEADS_CORRELATION = Quantity(
    "heads_correlation", "The same over all heads; null: the same.", range=(-1, 1), headline=True
)
WORST = Quantity(
    "worst",
    "How far the estimate is off where it is furthest off, of all layers and positions; null: if all were estimated 0.",
    range=(0, float("inf")),
    headline=True,
)
HEADS_WORST = Quantity("heads_worst", "The same over all heads; null: the same.", range=(0, float("inf")))
SLOPE = Quantity("slope", "How far patching moves what is estimated to move 1, over layers and positions; null: 1.")
HEADS_SLOPE = Quantity("heads_slope", "The same over all heads; null: 1.")
FIRST_LAYER = Quantity(
    "first_layer",
    "What all positions before the first layer are estimated to move, added up; null: 1, what they move.",
)
TOP_FOUND = Quantity(
    "top_found",
    "How many of the six heads that move most are among the six with the largest estimates; null: of six at random.",
    unit="heads",
    range=(0, TOP),
)
GAP = Quantity("gap", "How far the donor's answer is from the base run's.", unit="nats")


def _correlation(one: Tensor, other: Tensor) -> float:
    x, y = (values.double().flatten() - values.double().mean() for values in (one, other))
    return float((x @ y) / (x.norm() * y.norm()).clamp(min=1e-30))


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Estimates against what patching moves."""
    generator = draws("attribution_patching", spec.seed)

    def correlation(quantity: Quantity, estimate: Tensor, true: Tensor) -> Metric:
        flat = estimate.flatten()
        chance = [
            abs(_correlation(flat[torch.randperm(len(flat), generator=generator)], true)) for _ in range(SHUFFLES)
        ]
        return quantity.is_(_correlation(estimate, true), null=max(chance), n=len(flat))

    def worst(quantity: Quantity, estimate: Tensor, true: Tensor) -> Metric:
        return quantity.is_(float((estimate - true).abs().max()), null=float(true.abs().max()), n=true.numel())

    def slope(quantity: Quantity, estimate: Tensor, true: Tensor) -> Metric:
        fit = (estimate * true).double().sum() / estimate.double().square().sum().clamp(min=1e-30)
        return quantity.is_(float(fit), null=1.0, n=true.numel())

    best, found = (
        set(heads.abs().flatten().argsort(descending=True, stable=True)[:TOP].tolist())
        for heads in (out.true_heads, out.heads)
    )
    cells, heads = (out.cells, out.true_cells), (out.heads, out.true_heads)
    return [
        correlation(CORRELATION, *cells),
        correlation(HEADS_CORRELATION, *heads),
        worst(WORST, *cells),
        worst(HEADS_WORST, *heads),
        slope(SLOPE, *cells),
        slope(HEADS_SLOPE, *heads),
        *([FIRST_LAYER.is_(float(out.cells[0].sum()), null=1.0)] if spec.site == "resid_pre" else []),
        TOP_FOUND.is_(float(len(best & found)), null=min(TOP, out.heads.numel()) ** 2 / out.heads.numel()),
        GAP.is_(out.gap),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(1e-4, 16 * out.eps)
    return [
        Check(
            "the pass with gradients = the pass without", float(out.same_residual), rounding, "half way up; relative"
        ),
        Check(
            "all heads' estimates = the layer's",
            float(out.heads_residual),
            rounding,
            "summed over heads, against what W_O and b_O write; every layer, by the largest",
        ),
        Check(
            "a small step moves it as the gradient says",
            float(out.slope_residual),
            max(0.02, 64 * out.eps),
            f"half way up, all positions {STEP:.0%} of the way up and down; as a share of the way",
        ),
        Check(
            "before the first changed token the estimate is 0",
            float(out.changed_residual),
            max(1e-3, 64 * out.eps),
            "there the two runs are the same; all layers, added up; nats",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, a pass with its gradients and a batch of passes; a patch takes half a pass, at 40 GFLOP/s."""
    assert shape is not None
    length = 32 if spec.clean.startswith("[[") else 1 + len(spec.clean) // 4
    kept = 4 * length * shape.layers * (24 * shape.d_model + 6 * shape.d_mlp + 3 * shape.heads * length)
    batch = 32 * length * (8 * shape.d_model + 4 * shape.d_mlp) * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    each = 2 * (shape.parameters - shape.d_vocab * shape.d_model) * length / 40e9
    return Needs(weights + kept + batch, 3 + shape.layers * (length + shape.heads) * each / 2)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    title = f"{visible(out.answer)} − {visible(out.foil)}, {spec.direction}"
    place, head = (
        int((one - other).abs().argmax()) for one, other in ((out.cells, out.true_cells), (out.heads, out.true_heads))
    )
    layer, position = divmod(place, out.cells.shape[1])
    kinds = {
        f"{spec.site}, a position": (out.cells, out.true_cells, f"{visible(out.labels[position])} in layer {layer}"),
        "a head’s z": (out.heads, out.true_heads, "L{}H{}".format(*divmod(head, out.heads.shape[1]))),
    }
    dots = {kind: (one.flatten().numpy(), other.flatten().numpy(), name) for kind, (one, other, name) in kinds.items()}
    return {
        "scatter": estimates.scatter(dots, title),
        "maps": estimates.maps(out.cells.numpy(), out.true_cells.numpy(), out.labels, f"{spec.site}, {title}"),
    }


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(CORRELATION, HEADS_CORRELATION, WORST, HEADS_WORST, SLOPE, HEADS_SLOPE, FIRST_LAYER, TOP_FOUND, GAP),
    figures={
        "scatter": "Every place and every head: what is estimated against what patching moves.",
        "maps": "Layer by position, the estimates beside what patching moves.",
    },
    examples=(
        Example(
            "near-but-not-equal",
            "Estimates follow what patching moves, and before the first layer they fall short by a third",
            {"model": "smollm2-135m"},
            ("correlation > 0.9", "heads_correlation > 0.9", "worst > 0.2", "first_layer < 0.8", "top_found >= 4"),
        ),
        Example(
            "exact-where-it-is-linear",
            "With one layer of attention and no norm, a head's write is estimated exactly",
            {
                "model": "toy/attn-only-1l",
                "clean": "kQ7xWm2pLr9vTz kQ7xWm2",
                "corrupt": "kQ7xWm2aLr9vTz kQ7xWm3",
                "answer": "p",
                "foil": "a",
                "site": "attn",
            },
            ("worst < 0.0001", "heads_worst < 0.0001", "slope = 1 +- 0.001", "heads_correlation > 0.9999"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
