"""Rotation: what becomes of an answer when the stream is turned in a plane?

Behind one layer every token's stream is turned by θ in the plane of two directions. Nothing outside the plane changes,
and no length does, so whatever follows is due to where the stream points and not to how long it has become:

    x′ = x + (R_θ − 1) P x        score(θ) = mean logit of `words` − mean logit of `foils`, at the prompts' last token

The first direction is another block's result or, behind layer l, the difference of the means of two sides of prompts at
their last tokens. It is found on half of the prompts; the other half are turned and judged. The second direction is
another block's, or one drawn at random: then the turn takes the first direction out by 90°, and puts its opposite in
its place by 180°. Tokens with massive activations, over 5 × the median norm, are left as they are.

    if all that follows were linear      score(θ) = mean + amplitude · cos(θ − peak), a sinusoid, exactly
    sinusoid                             how much of the score's variance over the angles the nearest sinusoid is

So a score that is no sinusoid says that what follows does not read the plane linearly. The null: `draws` planes drawn
at random in which as much of the mean stream lies, so that a turn in them moves as much. No layer is chosen by the
score: without `layer` it is the direction's own, or the one two thirds up.

How to read the figures. In `polar` the way around is the angle, the way out the score: a circle about the centre would
be an answer that the turn leaves alone. The dashed circle is the score as the model is, the thin lines are random
planes. In `turn` the same lies flat, with the nearest sinusoid to each side. In `planes` a dot is a random plane, the
diamond the plane of the block.

Source: turning in a plane keeps what is outside of it and every length: Hieu M. Vu, Tan M. Nguyen (2025), "Angular
Steering: Behavior Control via Rotation in Activation Space", section 4, https://arxiv.org/abs/2510.26243
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
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
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.intervene import Since, intervene
from vaultlab.models.model import Model
from vaultlab.models.prompts import Prompts, at_last, contrast, prompts
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.trace import Site, sinks, trace
from vaultlab.models.turning import angles, as_much, plane, turned, wave
from vaultlab.plots.style import Drawing
from vaultlab.plots.turning import Turned, draw_planes, draw_polar, draw_turn
from vaultlab.result import Check, Metric

FEWEST = 8
"""Prompts a side at least."""

NULL_ANGLES = 8
"""Angles at which a random plane is turned: enough for its sinusoid and two harmonics above."""

RESAMPLES = 1000

TYPICAL = 14
"""Tokens in a prompt, for the estimate."""

ALGEBRA = 1e-5


def _reviews(words: Sequence[str]) -> tuple[str, ...]:
    things = ("film", "meal", "hotel", "book", "concert", "journey", "garden", "coffee")
    return tuple(f"The {thing} was {word}. All in all, it was" for word in words for thing in things)


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose stream is turned."""

    positive: ListName = _reviews(("wonderful", "delightful"))
    """Prompts on one side, 8 and more."""

    negative: ListName = _reviews(("terrible", "dreadful"))
    """Prompts on the other, alike in all else."""

    words: tuple[Word, ...] = Field(("good", "great", "wonderful", "excellent"), min_length=1, max_length=40)
    """What the first side is answered with, each one token."""

    foils: tuple[Word, ...] = Field(("bad", "terrible", "awful", "poor"), min_length=1, max_length=40)
    """What the other side is answered with."""

    direction: ResultName | None = None
    """Another block's direction, instead of the one between the two sides."""

    towards: ResultName | None = None
    """Another block's direction as the plane's second; none: one drawn at random."""

    layer: Layer | None = None
    """Behind which layer the stream is turned; none: the direction's own, or the one two thirds up."""

    angles: int = Field(24, ge=8, le=72, multiple_of=4)
    """At how many angles over the whole turn."""

    draws: int = Field(12, ge=8, le=100)
    """Planes drawn at random, for the null."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind: the scores of the judged prompts by angle, as the model is, and in random planes.

    `inside` is how much of the turned streams lies in the plane, as a share of their lengths' squares, on average;
    `random_inside` the same of each random plane. `massive` is how many tokens were left as they are.
    """

    layer: int
    eps: float
    massive: int
    positive: Float[Tensor, "angle prompt"]
    negative: Float[Tensor, "angle prompt"]
    plain_positive: Float[Tensor, " prompt"]
    plain_negative: Float[Tensor, " prompt"]
    random_positive: Float[Tensor, "draw angle prompt"]
    random_negative: Float[Tensor, "draw angle prompt"]
    inside: Float[Tensor, ""]
    random_inside: Float[Tensor, " draw"]
    length_residual: Float[Tensor, ""]
    outside_residual: Float[Tensor, ""]
    sum_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]
    nothing_residual: Float[Tensor, ""]


class _Stream(NamedTuple):
    """Prompts with the stream behind the layer, and which of its tokens are turned."""

    asked: Prompts
    x: Float[Tensor, "prompt pos d_model"]
    turns: Bool[Tensor, "prompt pos"]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One pass up to the layer; from there on one for every angle and plane."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    found, judged = zip(*(_split(spec, bench, model, field) for field in _SIDES), strict=True)
    if spec.direction is not None:
        layer, first = bench.directions("direction").in_stream(spec.model).behind(spec.layer)
        _check(layer, model)
    else:
        layer = 2 * model.shape.layers // 3 if spec.layer is None else spec.layer
        _check(layer, model)
        first = contrast(model, found[0], found[1], [Site("resid_post", layer)], bench.batch)[0]
    if not first.norm() > 0:
        raise NoteError(
            f"Behind layer {layer} the two sides have the same mean.", "Take other prompts.", field="positive"
        )
    if spec.towards is not None:
        _, second = bench.directions("towards").in_stream(spec.model, "towards").behind(layer, "towards")
    else:
        generator = bench.generator("rotation", spec.seed, "second")
        second = torch.randn(len(first), generator=generator, dtype=torch.float64)
    try:
        basis = plane(first, second)
    except ValueError:
        raise NoteError(
            "The two directions lie on one line: there is no plane to turn in.", "Name another one.", field="towards"
        ) from None
    words, foils = (torch.tensor([model.token_id(word) for word in each]) for each in (spec.words, spec.foils))
    subject = _Subject(model, layer, words, foils, bench.batch)
    sides = [_stream(model, side, layer, bench.batch) for side in judged]
    mean = torch.cat([side.x[side.turns].double() for side in sides]).mean(0).cpu()
    planes = [
        as_much(basis, mean, bench.generator("rotation", spec.seed, "plane", number)) for number in range(spec.draws)
    ]
    total = spec.angles + spec.draws * NULL_ANGLES
    done = 0

    def scored(basis: Tensor, count: int) -> list[Tensor]:
        nonlocal done
        rows: list[list[Tensor]] = [[], []]
        for angle in angles(count).tolist():
            bench.progress(done, total, "turning the stream")
            done += 1
            for row, side in zip(rows, sides, strict=True):
                row.append(subject.turned(side, basis, angle))
        return [torch.stack(row) for row in rows]

    own = scored(basis, spec.angles)
    null = [torch.stack(each) for each in zip(*(scored(one, NULL_ANGLES) for one in planes), strict=True)]
    plain = [subject.plain(side.asked) for side in sides]
    return Out(
        layer=layer,
        eps=torch.finfo(model.dtype).eps,
        massive=sum(int((~side.turns).sum()) - int(_padding(side.asked).sum()) for side in sides),
        positive=own[0],
        negative=own[1],
        plain_positive=plain[0],
        plain_negative=plain[1],
        random_positive=null[0],
        random_negative=null[1],
        inside=_inside(sides, basis),
        random_inside=torch.stack([_inside(sides, one) for one in planes]),
        **_exact(sides[0], basis),
        nothing_residual=(own[0][0] - plain[0]).abs().max() / plain[0].abs().max().clamp(min=1e-6),
    )


_SIDES = ("positive", "negative")


def _check(layer: int, model: Model) -> None:
    if not 0 <= layer < model.shape.layers:
        last = model.shape.layers - 1
        raise NoteError(f"{model.name} has no layer {layer}.", f"Its layers are 0 to {last}.", field="layer")


def _split(spec: Spec, bench: Bench, model: Model, field: str) -> tuple[Prompts, Prompts]:
    """Prompts to find the direction on, and those to judge on."""
    texts = bench.items(field)
    if len(texts) < FEWEST:
        raise NoteError(
            f"`{field}` has {len(texts)} prompts, and at least {FEWEST} are wanted.",
            "Half of them are to find the direction on, the others to judge it by.",
            field=field,
        )
    asked = prompts(model, texts, bos=spec.bos)
    order = torch.randperm(len(texts), generator=bench.generator("folds", spec.seed, field))
    half = len(texts) // 2 if spec.direction is None else 0
    return asked.some(order[:half]), asked.some(order[half:])


def _padding(asked: Prompts) -> Bool[Tensor, "prompt pos"]:
    return torch.arange(asked.ids.shape[1]) > asked.last[:, None]


def _stream(model: Model, asked: Prompts, layer: int, batch: int) -> _Stream:
    site = Site("resid_post", layer)
    x = torch.cat([trace(model, ids, [site])[site].cpu() for ids in torch.split(asked.ids, batch)])
    real = ~_padding(asked)
    return _Stream(asked, x, real & ~sinks(x, real))


@dataclass(frozen=True)
class _Subject:
    """A model, what its answers are scored by, and behind which layer its stream is turned."""

    model: Model
    layer: int
    words: Int[Tensor, " word"]
    foils: Int[Tensor, " foil"]
    batch: int

    def turned(self, side: _Stream, basis: Float[Tensor, "2 d_model"], angle: float) -> Float[Tensor, " prompt"]:
        """The scores with the stream turned: the layers up to this one are not run again."""
        norm, unembedding = parts.final_norm(self.model), parts.unembedding(self.model)
        rows = []
        for which in torch.split(torch.arange(len(side.x)), self.batch):
            ids, last = side.asked.ids[which], side.asked.last[which]
            x = torch.where(side.turns[which][..., None], turned(side.x[which], basis, angle), side.x[which])
            final = x.to(self.model.device)
            if self.layer + 1 < self.model.shape.layers:
                since = Since(self.layer + 1, final)
                final = intervene(self.model, ids, [], [Site("final")], since)[Site("final")]
            rows.append(self._score(unembedding(norm(at_last(final, Prompts((), ids, last))))))
        return torch.cat(rows)

    def plain(self, asked: Prompts) -> Float[Tensor, " prompt"]:
        """The scores as the model is, from its own logits."""
        rows = []
        for which in torch.split(torch.arange(len(asked.ids)), self.batch):
            some = asked.some(which)
            rows.append(self._score(at_last(trace(self.model, some.ids, [Site("logits")])[Site("logits")], some)))
        return torch.cat(rows)

    def _score(self, logits: Float[Tensor, "prompt d_vocab"]) -> Float[Tensor, " prompt"]:
        logits = logits.float().cpu()
        score: Tensor = logits[:, self.words].mean(-1) - logits[:, self.foils].mean(-1)
        return score


def _inside(sides: Sequence[_Stream], basis: Float[Tensor, "2 d_model"]) -> Float[Tensor, ""]:
    x = torch.cat([side.x[side.turns].double() for side in sides])
    share: Tensor = ((x @ basis.T).square().sum(-1) / x.square().sum(-1)).mean()
    return share


def _exact(side: _Stream, basis: Float[Tensor, "2 d_model"]) -> dict[str, Tensor]:
    """The identities of `verify`, in float64, on the streams that were turned."""
    x = side.x[side.turns].double()
    first, second = 0.7, 1.9
    lengths, once = x.norm(dim=-1), turned(x, basis, first)
    outside = (once - x) - (once - x) @ basis.T @ basis
    twice, whole = turned(once, basis, second), turned(x, basis, first + second)
    within = x @ basis.T
    closed = within.norm(dim=-1) * torch.cos(torch.atan2(within[:, 1], within[:, 0]) + first)
    return {
        "length_residual": ((once.norm(dim=-1) - lengths).abs() / lengths).max(),
        "outside_residual": (outside.norm(dim=-1) / lengths).max(),
        "sum_residual": ((twice - whole).norm(dim=-1) / lengths).max(),
        "closed_residual": ((once @ basis[0] - closed).abs() / lengths).max(),
    }


SINUSOID = Quantity(
    "sinusoid",
    "How much of the variance of the mean score over the angles its nearest sinusoid is, the less of both sides; 1 "
    "where all that follows is linear in the plane.",
    range=(0, 1),
    headline=True,
)
AMPLITUDE = Quantity(
    "amplitude",
    "How far the mean score goes up and down with the angle, mean of both sides; null: the largest in a random plane.",
    unit="logits",
    range=(0, math.inf),
    headline=True,
)
AMPLITUDE_BY_NULL = Quantity(
    "amplitude_by_null",
    "The amplitude by the largest in a plane drawn at random in which as much of the mean stream lies; null: 1.",
    unit="×",
    range=(0, math.inf),
    headline=True,
)
TURNED_OVER = Quantity(
    "turned_over",
    "Share of the judged prompts whose score has the other sign at 180°; null: in random planes, mean.",
    range=(0, 1),
)
APART = Quantity(
    "apart",
    "How far apart the angles are at which both sides score highest; 180 where one side is turned into the other.",
    unit="degrees",
    range=(0, 180),
)
INSIDE = Quantity(
    "inside",
    "How much of the turned streams lies in the plane, as a share of their squared lengths; null: random planes, mean.",
    range=(0, 1),
)
LAYER = Quantity("layer", "Behind which layer the stream is turned.", range=(0, math.inf))
RANDOM_AMPLITUDE = Quantity(
    "random_amplitude", "The amplitude in each random plane.", unit="logits", range=(0, math.inf)
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of the mean scores; the interval by bootstrap over prompts."""
    sides = (out.positive, out.negative)
    waves = [wave(side.double().mean(-1)) for side in sides]
    amplitude = _amplitude(out)
    random = _random_amplitudes(out)
    most = float(random.max())
    over, random_over = _turned_over(out)
    apart = abs(math.degrees(float(waves[0].peak - waves[1].peak))) % 360
    return [
        SINUSOID.is_(float(min(one.share for one in waves)), n=len(out.positive)),
        AMPLITUDE.is_(amplitude, interval=_interval(spec, sides), null=most, n=sum(side.shape[1] for side in sides)),
        AMPLITUDE_BY_NULL.is_(amplitude / most, null=1.0, n=len(random)),
        TURNED_OVER.is_(over, null=random_over, n=sum(side.shape[1] for side in sides)),
        APART.is_(min(apart, 360 - apart)),
        INSIDE.is_(float(out.inside), null=float(out.random_inside.mean())),
        LAYER.is_(float(out.layer)),
        RANDOM_AMPLITUDE.is_(tuple(random.tolist())),
    ]


def _amplitude(out: Out) -> float:
    return float(torch.stack([wave(side.double().mean(-1)).amplitude for side in (out.positive, out.negative)]).mean())


def _random_amplitudes(out: Out) -> Float[Tensor, " draw"]:
    both = (out.random_positive, out.random_negative)
    each = [wave(side.double().mean(-1).T).amplitude for side in both]
    mean: Tensor = torch.stack(each).mean(0)
    return mean


def _turned_over(out: Out) -> tuple[float, float]:
    """The share of prompts whose score changes its sign by half a turn: in the plane, and in random ones."""
    pairs = ((out.positive, out.random_positive), (out.negative, out.random_negative))
    own = torch.cat([(side[0] * side[len(side) // 2] < 0).double() for side, _ in pairs])
    null = torch.cat([(side[:, 0] * side[:, NULL_ANGLES // 2] < 0).double().flatten() for _, side in pairs])
    return float(own.mean()), float(null.mean())


def _interval(spec: Spec, sides: Sequence[Tensor]) -> tuple[float, float]:
    generator = draws("rotation", spec.seed, "bootstrap")
    found = []
    for side in sides:
        count = side.shape[1]
        picked = torch.randint(count, (RESAMPLES, count), generator=generator)
        found.append(wave(side.double()[:, picked].mean(-1)).amplitude)
    ends = torch.stack(found).mean(0).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    low, high = ends.tolist()
    return low, high


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    exact = 1e-12
    return [
        Check(
            "no length changes", float(out.length_residual), exact, "every turned token’s stream, in float64; relative"
        ),
        Check(
            "nothing outside the plane changes",
            float(out.outside_residual),
            exact,
            "in float64; by the stream’s length",
        ),
        Check(
            "two turns are one", float(out.sum_residual), exact, "R_θ R_φ = R_θ₊φ, in float64; by the stream’s length"
        ),
        Check(
            "along the first direction it is a cosine",
            float(out.closed_residual),
            exact,
            "x′ · e₁ = ‖P x‖ cos(θ + its own angle), in float64; by the stream’s length",
        ),
        Check(
            "a turn by 0 changes nothing",
            float(out.nothing_residual),
            max(ALGEBRA, 16 * out.eps) * 10,
            "scores from the turned layer on, against the model’s own logits; relative to the largest",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, the streams of all prompts; the upper layers once for every angle and plane, at 30 GFLOP/s."""
    assert shape is not None
    count = max((len(side) for side in (spec.positive, spec.negative) if isinstance(side, tuple)), default=40)
    passes = 1 + 0.4 * (spec.angles + spec.draws * NULL_ANGLES)
    tokens = count * TYPICAL
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    return Needs(
        weights + 32 * TYPICAL * (8 * shape.d_model + 3 * shape.d_mlp) * 4 + 4 * count * shape.d_vocab * 4,
        2 + passes * 2 * shape.parameters * tokens / 30e9,
    )


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    sides = []
    for name, scores, random in (
        ("positive", out.positive, out.random_positive),
        ("negative", out.negative, out.random_negative),
    ):
        score = scores.double().mean(-1)
        near = wave(score)
        sides.append(Turned(name, score, random.double().mean(-1), *(float(each) for each in near)))
    return {
        "polar": draw_polar(sides, f"“{spec.words[0]} …” over “{spec.foils[0]} …”", out.layer),
        "turn": draw_turn(sides),
        "planes": draw_planes(_amplitude(out), _random_amplitudes(out)),
    }


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(SINUSOID, AMPLITUDE, AMPLITUDE_BY_NULL, TURNED_OVER, APART, INSIDE, LAYER, RANDOM_AMPLITUDE),
    figures={
        "polar": "The score around a whole turn, with random planes.",
        "turn": "The same laid flat, with the nearest sinusoid.",
        "planes": "How far a turn moves the score, against random planes.",
    },
    examples=(
        Example(
            "praise-turned",
            "As the stream turns between praise and blame, the answer goes up and down as a sinusoid",
            {"model": "smollm2-135m"},
            ("sinusoid > 0.9", "amplitude_by_null > 3", "apart > 120"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
