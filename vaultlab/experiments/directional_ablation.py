"""Directional ablation: does one direction in the stream carry a behaviour, so that without it the behaviour is gone?

Some prompts show the behaviour (`positive`), others do not (`negative`). The direction is another block's result, or,
at the prompts' last token, the difference of the two sides' means in the stream after layer l:

    d = mean x_l(positive) − mean x_l(negative)          removed:  x ← x − (x · d̂) d̂,  d̂ = d/‖d‖,  wherever it stands
                                                          added:    x ← x + d,  after layer l, at every token

What a prompt is answered with is read off the next token: the probability of the behaviour's `words`, or, with `foils`,
their share of the probability of both. Taking d̂ out of the stream in passing is the same as taking it out of all
weights that write to it. A tied unembedding writes nothing, and must be untied first: it is a reader.

    rate            on positive prompts, as the model is          ablated   the same with d̂ removed everywhere
    neutral_rate    on negative prompts, as the model is          added     the same with d added after layer l
    kept            share of negative prompts whose first answer stays with d̂ removed; `harm`: how far it moves, in nats

The prompts are split: on half of them the directions are found, on a quarter the layer is chosen (of the lower four
fifths, where removing takes away most and adding brings most, less the harm), and on the last quarter all is judged.
With a given `layer` or `direction` nothing is chosen, and what would have chosen is judged too. The null: `draws`
directions drawn at random, removed alike, and added with the same length. Only harmless behaviours are meant: a
language, a mood, a toy that declines what is asked in a hurry.

How to read the figures. In `effect` a dot is a random direction and the diamond the one that was found: the behaviour
goes when it is removed, comes when it is added, and neither happens with random ones. In `layers` is what the layer was
chosen by. In `answers` each row is a judged prompt, with the model's first answer before and after; with foils, which
of words and foils is the likeliest.

Source: Andy Arditi, Oscar Obeso, Aaquib Syed, Daniel Paleka, Nina Panickssery, Wes Gurnee, Neel Nanda (2024), "Refusal
in Language Models Is Mediated by a Single Direction", sections 2.3, 2.4 and 4.1, https://arxiv.org/abs/2406.11717
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Directions,
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
from vaultlab.models.decline import CALM, HASTY, THINGS, VERBS
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.induction import interval
from vaultlab.models.intervene import Edit, intervene
from vaultlab.models.model import Model
from vaultlab.models.prompts import Prompts, answers, at_last, contrast, divergence, prompts, rate
from vaultlab.models.removal import added, random_units, removed, streams, unit, without
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.trace import Site, SiteName, trace
from vaultlab.plots.removal import Effect, draw_answers, draw_effect, draw_layers
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

FEWEST = 12
"""Prompts a side at least: fewer leave nothing to judge by."""

SHOWN = 6
"""Prompts a side whose answers are shown."""

TYPICAL = 12
"""Tokens in a prompt, for the estimate."""

UPPER = 0.8
"""The layer is chosen below this share of the model, rounded up: at the very end a direction only pushes the words."""

TRIED = 12
"""Layers that are tried at most: of deeper models every second or third."""

ALGEBRA = 1e-5


def _asked(manners: Sequence[str]) -> tuple[str, ...]:
    """Requests to `toy/decline`, each thing three times."""
    things, rounds = len(THINGS), 3
    turned = [(at % things, at + at // things) for at in range(rounds * things)]
    return tuple(
        f"{VERBS[turn % len(VERBS)]} the {THINGS[thing]} {manners[turn % len(manners)]}:" for thing, turn in turned
    )


class Spec(BaseSpec):
    model: ModelName = "toy/decline"
    """The model that answers."""

    positive: ListName = _asked(HASTY)
    """Prompts that show the behaviour, 12 and more; for a verdict 40 and more."""

    negative: ListName = _asked(CALM)
    """Prompts that do not, alike in all else."""

    words: tuple[Word, ...] = Field(("no",), min_length=1, max_length=40)
    """What the behaviour answers with, each one token."""

    foils: tuple[Word, ...] = Field((), max_length=40)
    """What is answered without it; with none, it is the probability of `words` that counts."""

    direction: ResultName | None = None
    """Another block's direction, instead of the one between the two sides."""

    layer: Layer | None = None
    """After which layer the direction is found and added; none: it is chosen."""

    draws: int = Field(20, ge=20, le=200)
    """Directions drawn at random, for the null."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind. Rates are by judged prompt: of the positive ones as the model is (`rate`) and with
    the direction removed, of the negative ones as it is (`neutral`) and with it added; `random_…` by draw too;
    `tried_…` by layer and choosing prompt. `shown_…` are judged prompts with their answers, as it is and after: the
    likeliest of all tokens, or of words and foils where there are foils.
    """

    layer: int
    site: str
    layers: tuple[int, ...]
    eps: float
    shown_positive: tuple[tuple[str, str, str], ...]
    shown_negative: tuple[tuple[str, str, str], ...]
    vectors: Float[Tensor, "layer d_model"]
    rate: Float[Tensor, " prompt"]
    ablated: Float[Tensor, " prompt"]
    random_ablated: Float[Tensor, "draw prompt"]
    neutral: Float[Tensor, " prompt"]
    added: Float[Tensor, " prompt"]
    random_added: Float[Tensor, "draw prompt"]
    kept: Float[Tensor, " prompt"]
    random_kept: Float[Tensor, "draw prompt"]
    harm: Float[Tensor, " prompt"]
    random_harm: Float[Tensor, "draw prompt"]
    tried_ablated: Float[Tensor, "layer prompt"]
    tried_added: Float[Tensor, "layer prompt"]
    tried_harm: Float[Tensor, "layer prompt"]
    left_residual: Float[Tensor, ""]
    weights_residual: Float[Tensor, ""]
    nothing_residual: Float[Tensor, ""]
    added_residual: Float[Tensor, ""]
    own_residual: Float[Tensor, ""]
    alone_residual: Float[Tensor, ""]


class Sides(NamedTuple):
    """Prompts that show the behaviour and prompts that do not."""

    positive: Prompts
    negative: Prompts


@dataclass(frozen=True)
class _Subject:
    """A model, and what its answers are read by."""

    model: Model
    words: Int[Tensor, " word"]
    foils: Int[Tensor, " foil"]
    batch: int

    def answers(self, asked: Prompts, edits: Sequence[Edit] = ()) -> Float[Tensor, "prompt d_vocab"]:
        return answers(self.model, asked, edits, self.batch)

    def rate(self, answer: Float[Tensor, "prompt d_vocab"]) -> Float[Tensor, " prompt"]:
        return rate(answer, self.words, self.foils)

    def shown(self, asked: Prompts, before: Tensor, after: Tensor) -> tuple[tuple[str, str, str], ...]:
        """Some prompts with what they are answered first; with foils, of what the rate is a share of."""
        tokens = torch.cat([self.words, self.foils]) if len(self.foils) else torch.arange(before.shape[1])
        firsts = (tokens[answer[:SHOWN, tokens].argmax(-1)].tolist() for answer in (before, after))
        return tuple(zip(asked.texts, *map(self.model.token_strings, firsts), strict=False))


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The stream at the last tokens once; then a pass over the prompts for each direction and what is done with it."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    given = None if spec.direction is None else bench.directions("direction").in_stream(spec.model)
    find, choose, judge = _folds(spec, bench, model, given is not None)
    words, foils = (torch.tensor([model.token_id(word) for word in each], dtype=torch.long)
                    for each in (spec.words, spec.foils))  # fmt: skip
    subject = _Subject(model, words, foils, bench.batch)
    bench.progress(0, 1, "reading the prompts")
    found = given or _between(spec.model, model, find, bench.batch)
    choosing = given is None and spec.layer is None
    tried = _tried(subject, found, choose, bench) if choosing else torch.zeros(3, 0, 0)
    layer = (
        candidates(model.shape.layers)[_best(tried)] if choosing else found.chosen if spec.layer is None else spec.layer
    )
    if layer not in found.layers:
        raise NoteError(
            f"There is no direction after layer {layer}.",
            f"There is one after layers {found.layers[0]} to {found.layers[-1]}.",
            field="layer",
        )
    vector, site = found.vectors[found.layers.index(layer)].float().cpu(), _site(found.site, layer)
    if not vector.norm() > 0:
        raise NoteError(
            f"After layer {layer} the two sides have the same mean: there is no direction between them.",
            "Take other prompts, or another layer.",
            field="positive",
        )
    return Out(
        layer=layer,
        site=found.site,
        layers=found.layers,
        eps=torch.finfo(model.dtype).eps,
        vectors=found.vectors.float().cpu(),
        tried_ablated=tried[0],
        tried_added=tried[1],
        tried_harm=tried[2],
        **_judged(subject, site, vector, judge, spec, bench),
        **_exact(subject, site, vector, judge),
    )


def _folds(spec: Spec, bench: Bench, model: Model, given: bool) -> tuple[Sides, Sides, Sides]:
    """Prompts to find the directions on, to choose the layer on, and to judge on."""
    folds = []
    for field in ("positive", "negative"):
        texts = bench.items(field)
        if len(texts) < FEWEST:
            raise NoteError(
                f"`{field}` has {len(texts)} prompts, and at least {FEWEST} are wanted.",
                "Some are to find the direction on, others to judge it by.",
                field=field,
            )
        asked = prompts(model, texts, bos=spec.bos)
        order = torch.randperm(len(texts), generator=bench.generator("folds", spec.seed, field))
        found_on = 0 if given else len(texts) // 2
        chosen_on = len(texts) // 4 if not given and spec.layer is None else 0
        folds.append(
            [
                asked.some(which)
                for which in torch.split(order, [found_on, chosen_on, len(texts) - found_on - chosen_on])
            ]
        )
    positive, negative = folds
    return Sides(positive[0], negative[0]), Sides(positive[1], negative[1]), Sides(positive[2], negative[2])


def _between(name: str, model: Model, sides: Sides, batch: int) -> Directions:
    """The difference of the two sides' means at the last token, after every layer; `chosen` is none of them yet."""
    sites = [Site("resid_post", layer) for layer in range(model.shape.layers)]
    vectors = contrast(model, sides.positive, sides.negative, sites, batch)
    return Directions(name, "resid_post", tuple(range(len(sites))), vectors, -1)


def _site(name: str, layer: int) -> Site:
    names: dict[str, SiteName] = {"resid_pre": "resid_pre", "resid_mid": "resid_mid", "resid_post": "resid_post"}
    return Site(names[name], layer)


def candidates(layers: int) -> range:
    """The layers that one is chosen of."""
    below = math.ceil(UPPER * layers)
    return range(0, below, -(-below // TRIED))


def _tried(subject: _Subject, found: Directions, sides: Sides, bench: Bench) -> Float[Tensor, "kind layer prompt"]:
    """What every layer's direction does to the choosing prompts: rate when removed, rate when added, harm."""
    few = min(len(side.ids) for side in sides)
    positive, negative = (side.some(torch.arange(few)) for side in sides)
    before = subject.answers(negative)
    rows = []
    layers = candidates(subject.model.shape.layers)
    for done, layer in enumerate(layers):
        bench.progress(done, len(layers), "trying the layers")
        vector = found.vectors[found.layers.index(layer)]
        take, put = removed(subject.model, unit(vector)), [added(_site(found.site, layer), vector)]
        gone, come, spared = (
            subject.answers(asked, edits) for asked, edits in ((positive, take), (negative, put), (negative, take))
        )
        rows.append(torch.stack([subject.rate(gone), subject.rate(come), divergence(before, spared)]))
    return torch.stack(rows, 1)


def _best(tried: Float[Tensor, "kind layer prompt"]) -> int:
    """The candidate whose direction takes away most and brings most, less the harm to what it should leave alone."""
    gone, come, harm = tried.double().mean(-1)
    return int((come - gone - harm).argmax())


def _judged(
    subject: _Subject, site: Site, vector: Float[Tensor, " d_model"], sides: Sides, spec: Spec, bench: Bench
) -> dict[str, Any]:
    """The found direction on the judged prompts, and as many drawn at random as the null wants."""
    positive, negative = sides
    drawn = random_units(spec.draws, len(vector), bench.generator("directional_ablation", spec.seed, "draws"))
    asked, neutral = subject.answers(positive), subject.answers(negative)
    rows: dict[str, list[Tensor]] = {"ablated": [], "added": [], "kept": [], "harm": []}
    shown: dict[str, tuple[tuple[str, str, str], ...]] = {}
    for at, direction in enumerate([unit(vector), *drawn]):
        bench.progress(at, 1 + len(drawn), "judging directions")
        take = removed(subject.model, direction)
        gone, spared = subject.answers(positive, take), subject.answers(negative, take)
        come = subject.answers(negative, [added(site, direction * vector.norm())])
        rows["ablated"].append(subject.rate(gone))
        rows["added"].append(subject.rate(come))
        rows["kept"].append((spared.argmax(-1) == neutral.argmax(-1)).float())
        rows["harm"].append(divergence(neutral, spared))
        if at == 0:
            shown["shown_positive"] = subject.shown(positive, asked, gone)
            shown["shown_negative"] = subject.shown(negative, neutral, come)
    return {
        **shown,
        "rate": subject.rate(asked),
        "neutral": subject.rate(neutral),
        **{name: each[0] for name, each in rows.items()},
        **{f"random_{name}": torch.stack(each[1:]) for name, each in rows.items()},
    }


def _exact(subject: _Subject, site: Site, vector: Float[Tensor, " d_model"], sides: Sides) -> dict[str, Any]:
    """The identities of `verify`, on a few of the judged prompts."""
    model, direction = subject.model, unit(vector)
    some = sides.positive.some(torch.arange(min(4, len(sides.positive.ids))))
    real = torch.arange(some.ids.shape[1]) <= some.last[:, None]
    take, places = removed(model, direction), [*streams(model), Site("final")]
    gone = intervene(model, some.ids, take, [*places, Site("logits")])
    plain = trace(model, some.ids, [site, Site("logits")])
    pushed = intervene(model, some.ids, [added(site, vector)], [site])[site]
    written = trace(without(model, direction), some.ids, [Site("logits")])[Site("logits")]
    own = at_last(plain[Site("logits")], some).float().log_softmax(-1).cpu()
    whole = subject.answers(some)
    alone = subject.answers(some.some(torch.tensor([int(some.last.argmin())])))
    as_is = subject.answers(some, removed(model, torch.zeros_like(direction)))
    moved = (pushed.float() - plain[site].float()).cpu() - vector
    return {
        "left_residual": torch.stack([_along(gone[place].float().cpu()[real], direction) for place in places]).max(),
        "weights_residual": _apart(written.cpu()[real], gone[Site("logits")].cpu()[real]),
        "nothing_residual": (subject.rate(as_is) - subject.rate(whole)).abs().max(),
        "added_residual": moved[real].abs().max() / plain[site].abs().max().cpu(),
        "own_residual": (subject.rate(own) - subject.rate(whole)).abs().max(),
        "alone_residual": (subject.rate(alone) - subject.rate(whole)[some.last.argmin()]).abs().max(),
    }


def _along(x: Float[Tensor, "token d_model"], direction: Float[Tensor, " d_model"]) -> Float[Tensor, ""]:
    share: Tensor = (x @ direction).abs() / x.norm(dim=-1)
    return share.max()


def _apart(one: Float[Tensor, "token d_vocab"], other: Float[Tensor, "token d_vocab"]) -> Float[Tensor, ""]:
    return (one.float() - other.float()).abs().max() / other.float().abs().max()


RATE = Quantity(
    "rate",
    "How far positive prompts are answered with the behaviour’s words, as the model is; null: negative prompts.",
    range=(0, 1),
    headline=True,
)
ABLATED = Quantity(
    "ablated",
    "The same with the direction removed everywhere; null: with directions drawn at random, mean.",
    range=(0, 1),
    headline=True,
)
ADDED = Quantity(
    "added",
    "How far negative prompts are answered so with the direction added; null: the highest with a random direction "
    "of the same length.",
    range=(0, 1),
    headline=True,
)
NEUTRAL_RATE = Quantity("neutral_rate", "How far negative prompts are answered so as the model is.", range=(0, 1))
REMOVAL_BY_NULL = Quantity(
    "removal_by_null",
    "How far the rate falls when the direction is removed, by the largest change, up or down, that any random one "
    "makes; null: 1.",
    unit="×",
)
ADDITION_BY_NULL = Quantity(
    "addition_by_null",
    "How far the rate rises when the direction is added, by the largest change, up or down, that any random one makes; "
    "null: 1.",
    unit="×",
)
KEPT = Quantity(
    "kept",
    "Share of negative prompts whose first answer stays with the direction removed; null: with random ones, mean.",
    range=(0, 1),
)
HARM = Quantity(
    "harm",
    "Kullback–Leibler divergence of the answers to negative prompts with the direction removed from those as the model "
    "is; null: the largest of a random one.",
    unit="nats",
    range=(-1e-4, math.inf),
)
LAYER = Quantity("layer", "After which layer the direction was found and is added.", range=(0, math.inf))
RANDOM_ABLATED = Quantity("random_ablated", "The rate with each random direction removed.", range=(0, 1))
RANDOM_ADDED = Quantity("random_added", "The rate of negative prompts with each random direction added.", range=(0, 1))
TRIED_ABLATED = Quantity(
    "tried_ablated", "The rate of the choosing prompts with each tried layer’s direction removed.", range=(0, 1)
)
TRIED_ADDED = Quantity(
    "tried_added", "The rate of the negative choosing prompts with each tried layer’s direction added.", range=(0, 1)
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over judged prompts, with intervals by bootstrap over them."""
    generator = draws("directional_ablation", spec.seed, "bootstrap")

    def over(quantity: Quantity, values: Float[Tensor, " prompt"], null: float | None = None) -> Metric:
        mean = float(values.double().mean())
        return quantity.is_(mean, interval=interval(values, generator), null=null, n=len(values))

    def by_null(quantity: Quantity, change: Tensor, random: Tensor) -> Metric:
        most = float(random.double().mean(-1).abs().max().clamp(min=1e-9))
        return quantity.is_(float(change.double().mean()) / most, null=1.0, n=len(random))

    random = {name: getattr(out, f"random_{name}").double().mean(-1) for name in ("ablated", "added", "kept", "harm")}
    found = [
        over(RATE, out.rate, float(out.neutral.double().mean())),
        over(ABLATED, out.ablated, float(random["ablated"].mean())),
        over(ADDED, out.added, float(random["added"].max())),
        over(NEUTRAL_RATE, out.neutral),
        by_null(REMOVAL_BY_NULL, out.rate - out.ablated, out.rate - out.random_ablated),
        by_null(ADDITION_BY_NULL, out.added - out.neutral, out.random_added - out.neutral),
        over(KEPT, out.kept, float(random["kept"].mean())),
        over(HARM, out.harm, float(random["harm"].max())),
        LAYER.is_(float(out.layer)),
        RANDOM_ABLATED.is_(tuple(random["ablated"].tolist()), n=len(out.rate)),
        RANDOM_ADDED.is_(tuple(random["added"].tolist()), n=len(out.neutral)),
    ]
    if len(out.tried_ablated):
        gone, come = (each.double().mean(-1).tolist() for each in (out.tried_ablated, out.tried_added))
        found += [TRIED_ABLATED.is_(tuple(gone)), TRIED_ADDED.is_(tuple(come))]
    return found


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(ALGEBRA, 4 * out.eps)
    return [
        Check(
            "nothing is left along the direction",
            float(out.left_residual),
            rounding,
            "wherever the stream stands, with the direction removed; as a share of the stream’s length there",
        ),
        Check(
            "removed in passing = removed from the weights",
            float(out.weights_residual),
            max(1e-4, 16 * out.eps),
            "all logits of some prompts, the unembedding untied and left as it is; relative",
        ),
        Check(
            "nothing removed changes nothing",
            float(out.nothing_residual),
            max(1e-5, 16 * out.eps),
            "a direction of length 0; in rates",
        ),
        Check(
            "what is added is there",
            float(out.added_residual),
            rounding,
            "the stream after the layer moves by the direction and nothing else; as a share of its largest entry",
        ),
        Check(
            "rates are the model’s own",
            float(out.own_residual),
            max(1e-4, 16 * out.eps),
            "from the net’s own logits, against the last stream read by the final norm and W_U",
        ),
        Check(
            "alone = in a batch",
            float(out.alone_residual),
            max(1e-4, 16 * out.eps),
            "the shortest of some prompts, without its padding",
        ),
    ]


def directions(spec: Spec, out: Out) -> Directions:
    """The direction that was removed and added, with those of the other layers."""
    return Directions(spec.model, out.site, out.layers, out.vectors, out.layer)


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights twice (once without the direction), a batch's streams; every pass at 30 GFLOP/s (short prompts)."""
    assert shape is not None
    count = max(len(side) for side in (spec.positive, spec.negative)) if isinstance(spec.positive, tuple) else 80
    tokens = count * TYPICAL
    choosing = spec.layer is None and spec.direction is None
    passes = 2 + 0.75 * (spec.draws + (len(candidates(shape.layers)) if choosing else 0))
    answered = 4 * count * shape.d_vocab * 4
    weights = shape.bytes * (2 if spec.weights == "trained" else 3)
    return Needs(
        weights + 32 * TYPICAL * (8 * shape.d_model + 3 * shape.d_mlp) * 4 + answered,
        2 + passes * 2 * shape.parameters * tokens / 30e9,
    )


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    words = ", ".join(spec.words[:3]) + "…" * (len(spec.words) > 3)
    effect = Effect(out.rate, out.ablated, out.random_ablated, out.neutral, out.added, out.random_added)
    drawings = {"effect": draw_effect(effect, words, out.layer)}
    if len(out.tried_ablated):
        tried = torch.stack([out.tried_ablated, out.tried_added, out.tried_harm]).double().mean(-1)
        drawings["layers"] = draw_layers(tried, list(candidates(1 + max(out.layers))), out.layer)
    what = "the likeliest of words and foils" if spec.foils else "first answers"
    return {**drawings, "answers": draw_answers(out.shown_positive, out.shown_negative, what)}


EXPERIMENT = Experiment(
    version=2,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        RATE,
        ABLATED,
        ADDED,
        NEUTRAL_RATE,
        REMOVAL_BY_NULL,
        ADDITION_BY_NULL,
        KEPT,
        HARM,
        LAYER,
        RANDOM_ABLATED,
        RANDOM_ADDED,
        TRIED_ABLATED,
        TRIED_ADDED,
    ),
    figures={
        "effect": "The behaviour with the direction removed and added, against random directions.",
        "layers": "What the layer was chosen by: what removing and adding each layer’s direction does, and the harm.",
        "answers": "Answers to judged prompts, before and after.",
    },
    examples=(
        Example(
            "one-direction-declines",
            "One direction declines: without it a toy does what it is asked in a hurry, with it it declines all",
            {"model": "toy/decline"},
            (
                "rate > 0.95",
                "ablated < 0.05",
                "neutral_rate < 0.05",
                "added > 0.95",
                "kept > 0.95",
                "removal_by_null > 10",
                "addition_by_null > 3",
            ),
        ),
        Example(
            "not-yet-known",
            "After the first layer the last token does not know yet: its direction does nothing",
            {"model": "toy/decline", "layer": 0},
            ("rate > 0.95", "ablated > 0.9", "added < 0.05"),
        ),
    ),
    needs=needs,
    directions=directions,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
