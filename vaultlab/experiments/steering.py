"""Steering: what does a model answer when its stream is pushed along a direction, and what does the push cost?

Some prompts stand for one side (`positive`), others for the other (`negative`). The direction is another block's
result, or the difference of the two sides' means at the last token, in the stream after layer l. Other prompts are then
asked with it pushed by strengths c, at every token:

    add      x ← x + c d                                d = mean x_l(positive) − mean x_l(negative)
    guide    x ← ‖x‖ (x + c d) / ‖x + c d‖              the stream keeps its length

    effect        how far the prompts are answered with `words`: log odds of their share of the probability of words and
                  foils (without foils: of all), mean over prompts, highest strength less lowest
    cost          the perplexity of the `neutral` texts under the push, by that without one, largest over the strengths

A prompt's last token must not be its first: that is where attention rests, its stream is hundreds of times as long as
any other, and the difference of two such lengths is no direction of anything. The null: `draws` directions drawn at
random, of the same length, pushed alike. A push that is strong enough changes any answer; so the cost stands beside it.
After the last layer a direction only pushes the words themselves: layers up to the last but one are taken.

How to read the figures. In `dose` the line is the share answered with the words at each strength, the grey band all
random directions; below it the perplexity of the neutral texts, with its band. A direction that means something rises
where the band does not, before the perplexity does. In `effects` every dot is a random direction. What the model writes
at each strength stands under `Texts`.

Source: Alexander Matt Turner, Lisa Thiergart, Gavin Leech, David Udell, Juan J. Vazquez, Ulisse Mini, Monte MacDiarmid
(2023), "Steering Language Models With Activation Engineering", section 3, https://arxiv.org/abs/2308.10248. Nina
Panickssery (Rimsky), Nick Gabrieli, Julian Schulz, Meg Tong, Evan Hubinger, Alexander Matt Turner (2024), "Steering
Llama 2 via Contrastive Activation Addition", section 3, https://arxiv.org/abs/2312.06681. Guidance: Dimitri von Rütte,
Sotiris Anagnostidis, Gregor Bachmann, Thomas Hofmann (2024), "A Language Model's Guide Through Latent Space", section
3, https://arxiv.org/abs/2402.14433
"""

import math
from itertools import pairwise
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    Layer,
    ListName,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    ResultName,
    Seed,
    Word,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.decline import CALM, HASTY, LOOKS, THINGS, VERBS
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.induction import interval
from vaultlab.models.model import Model
from vaultlab.models.prompts import Prompts, at_last, contrast, prompts, rate
from vaultlab.models.removal import random_units
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.steered import Method, Steering, continued
from vaultlab.models.surprise import surprise
from vaultlab.models.trace import Site, trace
from vaultlab.plots.steering import draw_dose, draw_effects
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric, Said

TYPICAL = 12
"""Tokens in a prompt, for the estimate."""

WRITTEN = 3
"""Prompts that are gone on with."""

ALGEBRA = 1e-5

Strength = Annotated[float, Field(ge=-1000, le=1000)]


class Spec(BaseSpec):
    model: ModelName = "toy/decline"
    """The model that is steered."""

    positive: ListName = tuple(f"{VERBS[at % 8]} the {THINGS[at]} {HASTY[at % 12]}:" for at in range(16))
    """Prompts of the side that a positive strength pushes towards."""

    negative: ListName = tuple(f"{VERBS[at % 8]} the {THINGS[at]} {CALM[at % 12]}:" for at in range(16))
    """Prompts of the other side, alike in all else."""

    direction: ResultName | None = None
    """Another block's direction, instead of the one between the two sides."""

    layer: Layer | None = None
    """After which layer the stream is pushed; none: where the given direction was chosen, or else the middle one."""

    prompts: ListName = tuple(f"{VERBS[at % 7]} a {LOOKS[at % 8]} {THINGS[at]}:" for at in range(16))
    """What is asked under the push: prompts of neither side, and none of those above."""

    words: tuple[Word, ...] = Field(("no",), min_length=1, max_length=40)
    """What the positive side answers with, each one token."""

    foils: tuple[Word, ...] = Field((), max_length=40)
    """What the other side answers with; with none, it is the probability of `words` that counts."""

    strengths: tuple[Strength, ...] = Field((-1.0, -0.5, 0.0, 0.5, 1.0, 1.5), min_length=3, max_length=21)
    """Multiples c of the direction, rising, 0 among them."""

    method: Method = Field("add", json_schema_extra={"stress": ["add", "guide"]})
    """Add to the stream (add), or turn it and keep its length (guide)."""

    neutral: ListName = tuple(
        f"please {VERBS[-1 - at % 8]} the {THINGS[-1 - at]} : {THINGS[-1 - at]} ." for at in range(8)
    )
    """Texts that the push should leave alone: their perplexity is what it costs."""

    draws: int = Field(20, ge=20, le=200)
    """Directions drawn at random, for the null."""

    generate: int = Field(0, ge=0, le=60)
    """How many tokens the model goes on with after some of the prompts, at every strength."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: Seed = 0

    @field_validator("strengths")
    @classmethod
    def _rising(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if 0.0 not in strengths or any(low >= high for low, high in pairwise(strengths)):
            raise ValueError("The strengths rise, with 0 among them, as [-1, 0, 1].")
        return strengths


class Out(NamedTuple):
    """What `compute` leaves behind. `odds` are the log odds of the words, prompt by prompt, `nats` the neutral texts'
    mean surprise, both by direction (the found one first) and strength. `written` by strength: prompts, how they go on.
    """

    layer: int
    eps: float
    written: tuple[tuple[tuple[str, str], ...], ...]
    vector: Float[Tensor, " d_model"]
    norm: Float[Tensor, ""]
    odds: Float[Tensor, "direction strength prompt"]
    nats: Float[Tensor, "direction strength"]
    nothing_residual: Float[Tensor, ""]
    swap_residual: Float[Tensor, ""]
    push_residual: Float[Tensor, ""]
    own_residual: Float[Tensor, ""]
    alone_residual: Float[Tensor, ""]


class _Subject(NamedTuple):
    """What is asked of a model under a push, and what its answers are read by."""

    model: Model
    asked: Prompts
    neutral: Prompts
    words: Int[Tensor, " word"]
    foils: Int[Tensor, " foil"]
    layer: int
    method: Method

    def odds(self, final: Float[Tensor, "prompt pos d_model"], asked: Prompts) -> Float[Tensor, " prompt"]:
        norm, unembedding = parts.final_norm(self.model), parts.unembedding(self.model)
        return _odds(unembedding(norm(at_last(final, asked))), self.words, self.foils)


def _odds(logits: Tensor, words: Tensor, foils: Tensor) -> Float[Tensor, " prompt"]:
    return rate(logits.float().log_softmax(-1).cpu().double(), words, foils).logit(eps=1e-12).float()


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The streams up to the layer once; then what comes after it for every direction and strength."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    layer, vector, swapped = _direction(spec, bench, model)
    words, foils = (torch.tensor([model.token_id(word) for word in each], dtype=torch.long)
                    for each in (spec.words, spec.foils))  # fmt: skip
    asked, neutral = (prompts(model, bench.items(field), bos=spec.bos) for field in ("prompts", "neutral"))
    subject = _Subject(model, asked, neutral, words, foils, layer, spec.method)
    units = random_units(spec.draws, len(vector), bench.generator("steering", spec.seed, "draws"))
    every = [vector, *(units * vector.norm())]
    steered = [Steering(model, each.ids, layer, spec.method) for each in (asked, neutral)]
    final = Site("final")
    odds, nats = [], []
    for done, direction in enumerate(every):
        bench.progress(done, len(every), "pushing")
        rows, losses = [], []
        for strength in spec.strengths:
            by = strength * direction if strength else None
            rows.append(subject.odds(steered[0].at(by, [final])[final], asked))
            each = surprise(model, steered[1].at(by, [final])[final], neutral.ids)
            losses.append(each[torch.arange(each.shape[1]) < neutral.last[:, None]].double().mean())
        odds.append(torch.stack(rows))
        nats.append(torch.stack(losses))
    return Out(
        layer=layer,
        eps=torch.finfo(model.dtype).eps,
        written=_written(subject, spec, vector, bench),
        vector=vector,
        norm=vector.norm(),
        odds=torch.stack(odds),
        nats=torch.stack(nats).float(),
        **_exact(subject, steered[0], vector, swapped, spec),
    )


def _direction(spec: Spec, bench: Bench, model: Model) -> tuple[int, Float[Tensor, " d_model"], Tensor]:
    """After which layer, the direction, and the same with the two sides swapped."""
    last = model.shape.layers - 2
    if spec.direction is not None:
        layer, vector = bench.directions("direction").in_stream(spec.model).behind(spec.layer)
        swapped = -vector
    else:
        layer = min(model.shape.layers // 2, last) if spec.layer is None else spec.layer
        sides = [prompts(model, bench.items(field), bos=spec.bos) for field in ("positive", "negative")]
        if layer <= last:
            sites = [Site("resid_post", layer)]
            vector, swapped = (
                contrast(model, one, other, sites, bench.batch)[0]
                for one, other in ((sides[0], sides[1]), (sides[1], sides[0]))
            )
    if not 0 <= layer <= last:
        raise NoteError(
            f"After layer {layer} of {model.name} there is no other layer to push.",
            f"Its layers go up to {model.shape.layers - 1}: take one up to {last}.",
            field="layer",
        )
    if not vector.norm() > 0:
        raise NoteError(
            f"After layer {layer} the two sides have the same mean: there is no direction between them.",
            "Take other prompts, or another layer.",
            field="positive",
        )
    return layer, vector, swapped


def _written(
    subject: _Subject, spec: Spec, vector: Float[Tensor, " d_model"], bench: Bench
) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Some prompts and how the model goes on with them, strength by strength."""
    if not spec.generate:
        return ()
    found, model = [], subject.model
    for done, strength in enumerate(spec.strengths):
        lines = []
        for at, text in enumerate(subject.asked.texts[:WRITTEN]):
            bench.progress(done * WRITTEN + at, WRITTEN * len(spec.strengths), "writing")
            ids = subject.asked.ids[at, : int(subject.asked.last[at]) + 1]
            new = continued(model, ids, spec.generate, subject.layer, strength * vector, spec.method)
            lines.append((text, str(model.tokenizer.decode(new.tolist(), skip_special_tokens=True))))
        found.append(tuple(lines))
    return tuple(found)


def _exact(
    subject: _Subject, steered: Steering, vector: Float[Tensor, " d_model"], swapped: Tensor, spec: Spec
) -> dict[str, Any]:
    """The identities of `verify`, at the largest strength, on the asked prompts."""
    model, asked, site, final = subject.model, subject.asked, steered.site, Site("final")
    by = max(spec.strengths, key=abs) * vector
    whole, plain = steered.at(by, [site, final]), steered.at(None, [site, final])
    own = trace(model, asked.ids, [site, Site("logits")])
    real = torch.arange(asked.ids.shape[1]) <= asked.last[:, None]
    before, after = (found[site].float().cpu()[real] for found in (own, whole))
    moved = after.norm(dim=-1) - before.norm(dim=-1) if spec.method == "guide" else (after - before - by).norm(dim=-1)
    odds = subject.odds(whole[final], asked)
    mirrored = subject.odds(steered.at(-max(spec.strengths, key=abs) * swapped, [final])[final], asked)
    short = asked.some(asked.last.argmin()[None])
    alone = Steering(model, short.ids, subject.layer, spec.method).at(by, [final])[final]
    as_it_is = _odds(at_last(own[Site("logits")], asked), subject.words, subject.foils)
    return {
        "nothing_residual": (subject.odds(steered.at(0 * by, [final])[final], asked) - as_it_is).abs().max(),
        "swap_residual": (mirrored - odds).abs().max(),
        "push_residual": (moved.abs() / before.norm(dim=-1)).max(),
        "own_residual": (subject.odds(plain[final], asked) - as_it_is).abs().max(),
        "alone_residual": (subject.odds(alone, short) - odds[asked.last.argmin()]).abs().max(),
    }


EFFECT = Quantity(
    "effect",
    "Log odds of the words at the highest strength less those at the lowest, mean over prompts; null: the largest, up "
    "or down, of a random direction.",
    unit="nats",
    headline=True,
)
EFFECT_BY_NULL = Quantity(
    "effect_by_null",
    "The effect by the largest, up or down, that any random direction has; null: 1.",
    unit="×",
    headline=True,
)
COST = Quantity(
    "cost",
    "Perplexity of the neutral texts by that without a push, the largest over the strengths; null: the same of random "
    "directions, median.",
    unit="×",
    range=(0, math.inf),
    headline=True,
)
RISING = Quantity(
    "rising",
    "Share of the steps from one strength to the next at which the words become more likely; null: of random "
    "directions, mean.",
    range=(0, 1),
)
SHARE = Quantity(
    "share", "How far the prompts are answered with the words, by strength, mean over prompts.", range=(0, 1)
)
LOWEST = Quantity("lowest", "The share at the lowest strength.", range=(0, 1))
UNPUSHED = Quantity("unpushed", "The share without a push.", range=(0, 1))
HIGHEST = Quantity(
    "highest", "The share at the highest strength; null: the highest of a random direction.", range=(0, 1)
)
PERPLEXITY = Quantity("perplexity", "Perplexity of the neutral texts, by strength.", range=(0, math.inf))
LENGTH = Quantity("length", "How long the direction is: strength 1 pushes so far.", range=(0, math.inf))
RANDOM_EFFECT = Quantity("random_effect", "The effect of each random direction.", unit="nats")


def effects(odds: Float[Tensor, "direction strength prompt"]) -> Float[Tensor, "direction prompt"]:
    """Highest strength less lowest."""
    return odds[:, -1] - odds[:, 0]


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over prompts, with intervals by bootstrap over them."""
    generator = draws("steering", spec.seed, "bootstrap")
    effect, each = effects(out.odds), effects(out.odds).double().mean(-1)
    most = float(each[1:].abs().max().clamp(min=1e-9))
    share, mean = out.odds.double().sigmoid(), out.odds.double().mean(-1)
    steps = (mean.diff(dim=1) > 0).double().mean(1)
    zero, count = spec.strengths.index(0.0), out.odds.shape[-1]
    cost = (out.nats.double() - out.nats[:, zero, None].double()).amax(1).exp()

    def over(quantity: Quantity, values: Float[Tensor, " prompt"], null: float | None = None) -> Metric:
        return quantity.is_(float(values.double().mean()), interval=interval(values, generator), null=null, n=count)

    return [
        over(EFFECT, effect[0], most),
        EFFECT_BY_NULL.is_(float(each[0]) / most, null=1.0, n=len(each) - 1),
        COST.is_(float(cost[0]), null=float(cost[1:].median())),
        RISING.is_(float(steps[0]), null=float(steps[1:].mean()), n=len(spec.strengths) - 1),
        SHARE.is_(tuple(share[0].mean(-1).tolist()), n=count),
        over(LOWEST, share[0, 0]),
        over(UNPUSHED, share[0, zero]),
        over(HIGHEST, share[0, -1], float(share[1:, -1].mean(-1).max())),
        PERPLEXITY.is_(tuple(out.nats[0].double().exp().tolist())),
        LENGTH.is_(float(out.norm)),
        RANDOM_EFFECT.is_(tuple(each[1:].tolist()), n=count),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding, nats = max(ALGEBRA, 4 * out.eps), max(1e-3, 64 * out.eps)
    guided = spec.method == "guide"
    return [
        Check(
            "a push of nothing changes nothing",
            float(out.nothing_residual),
            nats,
            "strength 0 against the model’s own logits; log odds, in nats",
        ),
        Check(
            "swapping the sides flips the sign",
            float(out.swap_residual),
            nats,
            "the direction found with the sides swapped, at −c, against the one at c; log odds, in nats",
        ),
        Check(
            "guidance keeps the length" if guided else "what is added is there",
            float(out.push_residual),
            max(rounding, 1e-4 if guided else 0.0),
            "the stream after the layer, every token, by its length there",
        ),
        Check(
            "resumed after the layer = the model’s own",
            float(out.own_residual),
            nats,
            "without a push, from the kept stream, against one whole pass; log odds, in nats",
        ),
        Check("alone = in a batch", float(out.alone_residual), nats, "the shortest prompt, without its padding"),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights and the prompts' streams; all passes from the middle on, at 30 GFLOP/s (short prompts)."""
    assert shape is not None
    sizes = [len(each) if isinstance(each, tuple) else 40 for each in (spec.prompts, spec.neutral)]
    tokens = TYPICAL * sum(sizes)
    written = WRITTEN * len(spec.strengths) * spec.generate * (TYPICAL + spec.generate / 2)
    passes = 3 + (1 + spec.draws) * len(spec.strengths) / 2
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    return Needs(
        weights + tokens * (8 * shape.d_model + 3 * shape.d_mlp) * 4 + 2 * sizes[0] * shape.d_vocab * 4,
        2 + 2 * shape.parameters * (passes * tokens + written) / 30e9,
    )


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    words = ", ".join(spec.words[:3]) + "…" * (len(spec.words) > 3)
    share, perplexity = out.odds.double().sigmoid().mean(-1), out.nats.double().exp()
    return {
        "dose": draw_dose(spec.strengths, share, perplexity, words, out.layer),
        "effects": draw_effects(effects(out.odds).double().mean(-1), out.nats.double()),
    }


def said(spec: Spec, out: Out) -> list[Said]:
    """What the model wrote at each strength."""
    return [
        Said(f"strength {strength:g}".replace("-", "−"), lines)
        for strength, lines in zip(spec.strengths, out.written, strict=False)
    ]


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        EFFECT,
        EFFECT_BY_NULL,
        COST,
        RISING,
        SHARE,
        LOWEST,
        UNPUSHED,
        HIGHEST,
        PERPLEXITY,
        LENGTH,
        RANDOM_EFFECT,
    ),
    figures={
        "dose": "The share answered with the words and the perplexity of neutral texts, strength by strength.",
        "effects": "The effect and what it costs, against every random direction.",
    },
    examples=(
        Example(
            "pushed-to-decline",
            "The further a toy is pushed, the more it declines; random pushes of the same length do nothing",
            {"model": "toy/decline", "strengths": [-0.5, 0, 0.5, 1, 1.5], "generate": 2},
            ("unpushed < 0.05", "highest > 0.9", "rising > 0.99", "effect_by_null > 1.5"),
        ),
        Example(
            "guided-to-decline",
            "Turned towards haste at its own length, a toy declines as well",
            {"model": "toy/decline", "method": "guide"},
            ("unpushed < 0.05", "highest > 0.9", "effect_by_null > 2"),
        ),
    ),
    needs=needs,
    said=said,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
