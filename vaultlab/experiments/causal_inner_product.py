"""Causal inner product: are concepts at right angles, once the right product says what an angle is?

A pair of words that differ in one concept gives a difference of unembedding vectors γ, the rows of W_U. If the concept
is a direction, the pairs' differences point the same way; and concepts that can be varied freely of each other should
be at right angles. But what is an angle here? The model does not say in which basis its last stream is:

    logits = x W_Uᵀ = (x A⁻ᵀ)(W_U A)ᵀ       for any invertible A: the same model, other plain cosines
    plain product     uᵀ v                   changes with A
    causal product    uᵀ Cov(γ)⁻¹ v          does not; Cov over the whole vocabulary: the plain one of g = γ Cov^(-1/2)

    own       mean cosine of a pair's difference with the mean of all others: judged by what it had no part in
    between   |cosine| between the two concepts' mean differences
    shrink    between by the plain product, by between by the causal one

Every plain cosine is inflated by the few directions in which all unembedding vectors differ most, so those of random
pairs shrink too: the claim is the excess. The null are `draws` concepts made of pairs of random tokens, as many as the
lists have, treated alike. Words that are not one token to the model are left out with their partner.

How to read the figures. In `between` the diamond is the two concepts, dots are two concepts of random pairs; concepts
at right angles lie at 0. In `pairs` a blue dot is a pair of words, grey dots are random pairs.

Source: Kiho Park, Yo Joong Choe, Victor Veitch (2024), "The Linear Representation Hypothesis and the Geometry of Large
Language Models", sections 3.2 and 4, https://arxiv.org/abs/2311.03658
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Example, Experiment, ListName, ModelName, Needs, Nonsense, Quantity, Seed
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.causal import covariance, left_out, whitening
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.induction import interval
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.plots.products import Seen, draw_between, draw_pairs
from vaultlab.plots.style import Drawing, visible
from vaultlab.result import Check, Metric

FEWEST = 8
"""Pairs of a concept at least."""

NAMED = 6
"""Words that are named in a refusal."""

EXACT = 1e-7

_SINGULAR = "cat dog house tree book car bird horse river road table chair door window flower garden teacher student"
_PLURAL = " ".join(f"{word}s" for word in _SINGULAR.split())
_PRESENT = "walk talk play work call ask help look turn open move live love use close start want need"
_PAST = " ".join(f"{word.removesuffix('e')}ed" for word in _PRESENT.split())


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose unembedding is read."""

    positive: ListName = tuple(_PLURAL.split())
    """Words with the concept, one opposite each of `negative`: in one order."""

    negative: ListName = tuple(_SINGULAR.split())
    """The same words without it."""

    other_positive: ListName = tuple(_PAST.split())
    """Words with another concept, which can be varied freely of the first."""

    other_negative: ListName = tuple(_PRESENT.split())
    """The same words without that."""

    draws: int = Field(50, ge=20, le=500)
    """Concepts of random pairs, for the null."""

    weights: Weights = "trained"

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind. Rows of two: by the plain product, by the causal one.

    `own` are the first concept's pairs, each with the mean of the others, `other_own` the second's; `between` is the
    cosine between the concepts, `random_between` that of each two random ones, `random_own` a random concept's mean,
    `random_pairs` the first random concept's pairs.
    """

    pairs: tuple[str, ...]
    other_pairs: tuple[str, ...]
    left_out: tuple[str, ...]
    own: Float[Tensor, "product pair"]
    other_own: Float[Tensor, "product other_pair"]
    between: Float[Tensor, " product"]
    resampled_between: Float[Tensor, "product sample"]
    random_own: Float[Tensor, "product draw"]
    random_between: Float[Tensor, "product draw"]
    random_pairs: Float[Tensor, "product pair"]
    white_residual: Float[Tensor, ""]
    solved_residual: Float[Tensor, ""]
    mapped_residual: Float[Tensor, ""]
    loop_residual: Float[Tensor, ""]


class _Pairs(NamedTuple):
    names: tuple[str, ...]
    ids: Int[Tensor, "pair 2"]
    left_out: tuple[str, ...]


SAMPLES = 500
"""Resamples of the pairs, for the interval of `between`."""


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """Three times over the unembedding for covariances, then only the words' rows. In float64 throughout."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    own, other = (_pairs(model, bench, positive, negative) for positive, negative in _CONCEPTS)
    unembedding = parts.unembedding(model).W_U.T
    bench.progress(0, 3, "reading the unembedding")
    cov = covariance(unembedding)
    white = whitening(cov)

    def differences(ids: Int[Tensor, "pair 2"]) -> Float[Tensor, "product pair d_model"]:
        rows = unembedding[ids].double().cpu()
        plain = rows[:, 0] - rows[:, 1]
        return torch.stack([plain, plain @ white])

    random = []
    for number in range(2 * spec.draws):
        count = len((own, other)[number % 2].ids)
        generator = bench.generator("causal_inner_product", spec.seed, "pair", number)
        random.append(differences(torch.randint(len(unembedding), (count, 2), generator=generator)))
    first, second = differences(own.ids), differences(other.ids)
    bench.progress(1, 3, "reading the unembedding")
    residuals = _exact(unembedding, cov, white, bench.generator("map", spec.seed), (first, second))
    return Out(
        pairs=own.names,
        other_pairs=other.names,
        left_out=own.left_out + other.left_out,
        own=_each(left_out, first),
        other_own=_each(left_out, second),
        between=_between(first, second),
        resampled_between=_resampled(first, second, bench.generator("resamples", spec.seed)),
        random_own=torch.stack([_each(left_out, one).mean(-1) for one in random[::2]], 1),
        random_between=torch.stack([_between(*each) for each in zip(random[::2], random[1::2], strict=True)], 1),
        random_pairs=_each(left_out, random[0]),
        **residuals,
    )


_CONCEPTS = (("positive", "negative"), ("other_positive", "other_negative"))


def _pairs(model: Model, bench: Bench, positive: str, negative: str) -> _Pairs:
    """The pairs whose words are both one token. NoteError where the lists do not go together, or too few are left."""
    sides = bench.items(positive), bench.items(negative)
    if len(sides[0]) != len(sides[1]):
        raise NoteError(
            f"`{positive}` has {len(sides[0])} words and `{negative}` {len(sides[1])}: they go together in pairs.",
            "Write them in one order, each opposite its partner.",
            field=positive,
        )
    kept, names, left = [], [], []
    for pair in zip(*sides, strict=True):
        try:
            kept.append([model.token_id(word) for word in pair])
            names.append("/".join(pair))
        except NoteError:
            left.append("/".join(pair))
    if len(kept) < FEWEST:
        missing = f" Not one token each to {model.name}: {', '.join(left[:NAMED])}." if left else ""
        raise NoteError(
            f"`{positive}` and `{negative}` have {len(kept)} pairs of single tokens, and at least {FEWEST} are wanted."
            + missing,
            "Write more pairs, of common words.",
            field=positive,
        )
    return _Pairs(tuple(names), torch.tensor(kept), tuple(left))


def _each(of: object, products: Float[Tensor, "product pair d_model"]) -> Float[Tensor, "product pair"]:
    assert callable(of)
    return torch.stack([of(differences) for differences in products])


def _between(
    first: Float[Tensor, "product pair d_model"], second: Float[Tensor, "product pair d_model"]
) -> Float[Tensor, " product"]:
    return torch.nn.functional.cosine_similarity(first.mean(1), second.mean(1), dim=-1)


def _resampled(
    first: Float[Tensor, "product pair d_model"],
    second: Float[Tensor, "product pair d_model"],
    generator: torch.Generator,
) -> Float[Tensor, "product sample"]:
    """The cosine between the concepts when pairs are drawn again."""
    found = []
    for _ in range(SAMPLES):
        drawn = [torch.randint(one.shape[1], (one.shape[1],), generator=generator) for one in (first, second)]
        found.append(_between(first[:, drawn[0]], second[:, drawn[1]]))
    return torch.stack(found, 1)


def _exact(
    unembedding: Float[Tensor, "d_vocab d_model"],
    cov: Float[Tensor, "d_model d_model"],
    white: Float[Tensor, "d_model d_model"],
    generator: torch.Generator,
    concepts: tuple[Float[Tensor, "product pair d_model"], Float[Tensor, "product pair d_model"]],
) -> dict[str, Tensor]:
    """The identities of `verify`."""
    width = len(cov)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    stretch = torch.rand(width, generator=generator, dtype=torch.float64) * 3 + 0.5
    through = turn * stretch  # any invertible map, and one that floats can follow
    plain = [one[0] for one in concepts]
    white_there = whitening(covariance(unembedding, through))
    mapped = [torch.stack([one @ through, one @ through @ white_there]) for one in plain]
    u, v = (one.mean(0) for one in plain)
    solved = torch.linalg.solve(cov, torch.stack([u, v], 1))
    by_solving = (u @ solved[:, 1]) / ((u @ solved[:, 0]) * (v @ solved[:, 1])).sqrt()
    loop = []
    for at in range(len(plain[0])):
        rest = torch.cat([concepts[0][1, :at], concepts[0][1, at + 1 :]]).mean(0)
        one = concepts[0][1, at]
        loop.append(one @ rest / (one.norm() * rest.norm()))
    causal = _between(*concepts)[1]
    return {
        "white_residual": (covariance(unembedding, white) - torch.eye(width)).abs().max(),
        "solved_residual": (by_solving - causal).abs(),
        "mapped_residual": torch.stack(
            [(_between(mapped[0], mapped[1])[1] - causal).abs()]
            + [
                (left_out(there[1]) - left_out(here[1])).abs().max()
                for there, here in zip(mapped, concepts, strict=True)
            ]
        ).max(),
        "loop_residual": (torch.stack(loop) - left_out(concepts[0][1])).abs().max(),
    }


OWN = Quantity(
    "own",
    "Mean cosine, by the causal product, of a pair’s difference with the mean of all other pairs; null: concepts of "
    "random pairs.",
    range=(-1, 1),
    headline=True,
)
PLAIN_OWN = Quantity("plain_own", "The same by the plain product; null: concepts of random pairs.", range=(-1, 1))
OTHER_OWN = Quantity("other_own", "The same as `own` of the other concept.", range=(-1, 1))
BETWEEN = Quantity(
    "between",
    "|Cosine| between the two concepts’ directions by the causal product; null: mean between concepts of random pairs.",
    range=(0, 1),
    headline=True,
)
PLAIN_BETWEEN = Quantity(
    "plain_between", "The same by the plain product; null: between concepts of random pairs, mean.", range=(0, 1)
)
SHRINK = Quantity(
    "shrink",
    "`plain_between` by `between`: how much nearer to right angles the concepts are by the causal product; null: the "
    "same of random pairs’ means.",
    unit="×",
    range=(0, math.inf),
)
EXCESS = Quantity("excess", "`shrink` by that of random pairs; null: 1.", unit="×", range=(0, math.inf), headline=True)
PAIRS = Quantity("pairs", "Pairs of the first concept whose words are both one token.", range=(0, math.inf))
LEFT_OUT = Quantity(
    "left_out", "Pairs of both that were left out, for a word that is not one token.", range=(0, math.inf)
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over pairs with intervals by bootstrap over them."""
    generator = draws("causal_inner_product", spec.seed, "bootstrap")
    random_own = out.random_own.mean(-1).tolist()
    random = out.random_between.abs().mean(-1)
    plain, causal = out.between.abs().tolist()
    ends = out.resampled_between.abs().quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=-1).T.tolist()
    by_chance = float(random[0] / random[1])

    def over(quantity: Quantity, values: Float[Tensor, " pair"], null: float | None) -> Metric:
        return quantity.is_(float(values.mean()), interval=interval(values, generator), null=null, n=len(values))

    return [
        over(OWN, out.own[1], random_own[1]),
        over(PLAIN_OWN, out.own[0], random_own[0]),
        over(OTHER_OWN, out.other_own[1], None),
        BETWEEN.is_(causal, interval=tuple(ends[1]), null=float(random[1]), n=len(out.pairs)),
        PLAIN_BETWEEN.is_(plain, interval=tuple(ends[0]), null=float(random[0]), n=len(out.pairs)),
        SHRINK.is_(plain / causal, null=by_chance),
        EXCESS.is_(plain / causal / by_chance, null=1.0),
        PAIRS.is_(float(len(out.pairs))),
        LEFT_OUT.is_(float(len(out.left_out))),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    return [
        Check(
            "Cov(g) = I", float(out.white_residual), EXACT, "over the whole vocabulary, g = γ Cov(γ)^(-1/2); in float64"
        ),
        Check(
            "uᵀ Cov(γ)⁻¹ v, solved for", float(out.solved_residual), EXACT, "the cosine between the concepts, without g"
        ),
        Check(
            "the same in any basis",
            float(out.mapped_residual),
            EXACT,
            "all causal cosines, with the unembedding mapped by a random invertible A and all found anew",
        ),
        Check(
            "pair by pair",
            float(out.loop_residual),
            EXACT,
            "each pair’s cosine with the mean of the others, these added up one after another",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, some matrices d_model × d_model in float64; three products over the vocabulary at 20 GFLOP/s."""
    assert shape is not None
    square = shape.d_model**2
    return Needs(shape.bytes + 12 * square * 8, 2 + 5 * 2 * shape.d_vocab * square / 20e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    seen = [
        Seen(
            name,
            abs(float(out.between[row])),
            out.random_between[row].abs().numpy(),
            out.own[row].numpy(),
            out.random_pairs[row].numpy(),
        )
        for row, name in ((1, "causal"), (0, "plain"))
    ]
    return {"between": draw_between(seen), "pairs": draw_pairs(seen, _shown(out.pairs))}


def _shown(names: Sequence[str]) -> list[str]:
    return [visible(name) for name in names]


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(OWN, PLAIN_OWN, OTHER_OWN, BETWEEN, PLAIN_BETWEEN, SHRINK, EXCESS, PAIRS, LEFT_OUT),
    figures={
        "between": "How far two concepts’ directions point the same way, by both products, with random ones.",
        "pairs": "How each pair of words lies to the direction of all others.",
    },
    examples=(
        Example(
            "number-beside-tense",
            "Number and tense seem to lie together, and are at right angles once angles mean something",
            {"model": "smollm2-135m"},
            ("own > 0.25", "plain_between > 0.25", "between < 0.1", "excess > 1.5"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
