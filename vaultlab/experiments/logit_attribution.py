"""Logit attribution: which head, which MLP pushes the model's answer, and by how much?

The last stream is the sum of what every part wrote to it, and the logits are read from it. Nothing is in between but
the final norm, whose scale s_i is frozen for each token i at what it was in this very pass. What is left is linear, so
a token's logit is a sum over parts:

    logit_t − mean over the vocabulary = Σ_parts s_i · c_part · g        g = gain ⊙ (W_U[t] − mean of W_U)

Parts are the embedding, every head, every MLP, and biases. With a `foil` the other token's logit stands in the mean's
place. A logit by itself is not a measure: W_U + c·1ᵀ adds c·x to all logits and changes no probability, but it does
change every part's share of a raw logit. What is shown here it leaves as it is.

It is the *direct* push. A head that tells a later one where to look pushes nothing here and may yet be what decides;
one that pushes much may be made up for by what comes after it. Whether the answer would be another one without a part
is a question for cutting it.

    cancelled      1 − |Σ push| / Σ |push|: how much of all the pushing is undone by other parts
    null           the same pushes on `draws` random tokens of the vocabulary; with a foil, on random pairs

A head's push counts without b_V and the norm's bias, which it adds wherever it looks: they are the layer's biases, and
so no other basis for its values changes it. With `position: all` pushes are means over the text's tokens, each on what
the model answers there. Tokens whose stream is over 5 × the median norm are left out of that mean, and listed.

How to read the figures. `waterfall` begins at the baseline and adds the strongest parts one after another, the others
summed up in one bar, until the logit is reached; the grey whisker at a bar's beginning is what that part gives to
random tokens. In `heads` a red cell pushes the target up, a blue one down; beside it the same heads on a random token.
`course` adds up layer after layer; the band is where random tokens get. `sources` splits the strongest heads' pushes by
the token that they were taken from; in `tokens` a row is a layer, a column a token of the text.

Source: nostalgebraist (2020), "interpreting GPT: the logit lens",
https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens. Nelson Elhage et al. (2021), "A
Mathematical Framework for Transformer Circuits", section "The Residual Stream",
https://transformer-circuits.pub/2021/framework/index.html. Kevin Wang, Alexandre Variengien, Arthur Conmy, Buck
Shlegeris, Jacob Steinhardt (2022), "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2
small", section 3.1, https://arxiv.org/abs/2211.00593
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    Head,
    ModelName,
    Needs,
    Nonsense,
    Position,
    Quantity,
    Reads,
    TextName,
    Word,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import direct
from vaultlab.models.direct import Asked, Pushes, Readers
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tokens import Template
from vaultlab.models.trace import Site, sinks
from vaultlab.plots import attribution
from vaultlab.plots.style import Drawing, visible
from vaultlab.result import Check, Metric

SOURCES = 6
"""Heads whose pushes are split by the token that they were taken from."""

CHUNK = 64
"""Positions whose logits are upcast at a time."""

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "The Eiffel Tower is a famous landmark in the city of"
    """What it reads."""

    target: Word | None = None
    """The token whose logit is taken apart, tried with a space before it; none: the one that the model answers."""

    foil: Word | None = None
    """The token that it is compared with; none: the mean over the vocabulary."""

    position: Position = "last"
    """After which token: the last one, one counted from the beginning (0, 1 …) or from the end (-1, -2 …), or all."""

    head: Head | None = None
    """The head that `head_push` is about, as L22H7; none: the one that pushes hardest either way."""

    draws: int = Field(128, ge=8, le=1024)
    """How many random tokens are pushed for comparison."""

    tokens: int = Field(128, ge=1, le=512, json_schema_extra={"stress": [16, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random tokens are drawn from."""

    @model_validator(mode="after")
    def _two_tokens(self) -> "Spec":
        if self.target is not None and self.target == self.foil:
            raise ValueError("The target and the foil are the same word.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind. Parts are in the order of `direct.names_of`: `own` their pushes, mean over the
    positions `at`, `null` those on random tokens; `along` what every layer's attention and MLP push token by token.

    `sources` are the pushes of `source_heads` at the one position, by the token that they were taken from.
    """

    tokens: tuple[str, ...]
    length: int
    names: tuple[str, ...]
    layers: int
    head: str
    target: str
    foil: str
    left_out: tuple[str, ...]
    source_heads: tuple[str, ...]
    eps: float
    d_vocab: int
    at: Int[Tensor, " pos"]
    own: Float[Tensor, " part"]
    null: Float[Tensor, "draw part"]
    along: Float[Tensor, "kind layer pos"]
    chance: Float[Tensor, " pos"]
    sources: Float[Tensor, "head key"]
    sum_residual: Float[Tensor, ""]
    rounding_residual: Float[Tensor, ""]
    heads_residual: Float[Tensor, ""]
    head_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass; then layer by layer in float32, and identities at one token in float64."""
    model = bench.model(spec.model)
    head = _head(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    whole = model.tokens(
        "\n\n".join(part for _, part in bench.text("text").parts), bos=spec.bos, template=spec.template
    )
    bench.progress(0, model.shape.layers, "reading the text")
    sites = _sites(model.shape)
    found = {site: one[0] for site, one in bench.trace(model, whole.ids[None, : spec.tokens], sites).items()}
    tokens = whole.strings[: spec.tokens]
    massive = sinks(found[Site("resid_pre", model.shape.layers // 2)]).cpu() | sinks(found[Site("final")]).cpu()
    at = _at(spec, len(tokens), massive).to(model.device)
    logits = found[Site("logits")][at]
    target, foil = _target(spec, model, logits), _word(model, spec.foil, "foil")
    columns = direct.readers(model)
    asked = columns.asked(target, foil)
    last = Asked(asked.u[-1], asked.b[-1])
    pushes = direct.push(
        model,
        found,
        at,
        _also_shifted(columns, asked, target, foil, bench.generator("shift", spec.seed)),
        _random(columns, spec, bench.generator("tokens", spec.seed)),
        lambda done, total: bench.progress(done, total, "asking every part"),
    )
    names = direct.names_of(model.shape)
    mean = pushes.own[0].mean(0)
    strongest = direct.split(mean, model.shape.layers).heads.abs().flatten().argsort(descending=True)[:SOURCES].tolist()
    named = head if head is not None else divmod(strongest[0], model.shape.heads)
    drawn = [divmod(place, model.shape.heads) for place in strongest]
    return Out(
        tokens=tokens,
        length=len(whole.ids),
        names=names,
        layers=model.shape.layers,
        head=f"L{named[0]}H{named[1]}",
        target=_called(model, spec.target, target),
        foil="" if foil is None else _called(model, spec.foil, foil),
        left_out=tuple(token for token, gone in zip(tokens, massive, strict=True) if gone and spec.position == "all"),
        source_heads=tuple(names[1 + place] for place in strongest),
        eps=torch.finfo(model.dtype).eps,
        d_vocab=model.shape.d_vocab,
        at=at.cpu(),
        own=mean.cpu(),
        null=pushes.null.cpu(),
        along=_along(pushes.own[0], model.shape).float().cpu(),
        **_exact(model, found, int(at[-1]), (target[-1], foil, last), [*drawn, named], pushes.own[0, -1]),
        **_against(logits, target, foil, pushes),
    )


def _head(spec: Spec, model: Model) -> tuple[int, int] | None:
    """The head that the author named. NoteError for one that the model has not."""
    if spec.head is None:
        return None
    shape = model.shape
    layer, number = map(int, spec.head[1:].split("H"))
    if layer >= shape.layers or number >= shape.heads:
        last = f"L{shape.layers - 1}H{shape.heads - 1}"
        raise NoteError(f"{model.name} has no head {spec.head}.", f"Its heads are L0H0 to {last}.", field="head")
    return layer, number


def _at(spec: Spec, count: int, massive: Tensor) -> Int[Tensor, " pos"]:
    """The positions asked about; of all of them those that are not massive."""
    if spec.position == "all":
        return (~massive).nonzero()[:, 0]
    place = -1 if spec.position == "last" else spec.position
    if not -count <= place < count:
        raise NoteError(
            f"The text has {count} token{'s' * (count > 1)}, and `position` asks for number {place}.",
            f"Positions are 0 to {count - 1}, or from the end -1 to -{count}.",
            field="position",
        )
    return torch.tensor([place % count])


def _word(model: Model, word: str | None, field: str) -> Int[Tensor, ""] | None:
    if word is None:
        return None
    try:
        return torch.tensor(model.token_id(word))
    except NoteError as error:
        raise NoteError(error.message, error.hint, field=field) from error


def _target(spec: Spec, model: Model, logits: Float[Tensor, "pos d_vocab"]) -> Int[Tensor, " pos"]:
    """The token asked about at every position: the author's, or what the model answers there."""
    word, foil = _word(model, spec.target, "target"), _word(model, spec.foil, "foil")
    target = logits.argmax(-1).cpu() if word is None else word.expand(len(logits))
    if foil is not None and (target == foil).any():
        [shown] = model.token_strings([int(foil)])
        raise NoteError(
            f"The target and the foil are the same token, {shown}.",
            "Take another foil, or name a target.",
            field="foil",
        )
    return target


def _called(model: Model, word: str | None, token: Int[Tensor, "*pos"]) -> str:
    """The token's name, or that it is what the model answers where it differs from place to place."""
    if word is None and token.numel() > 1:
        return "the answer"
    return model.token_strings([int(token.flatten()[0])])[0]


def _also_shifted(
    columns: Readers, asked: Asked, target: Tensor, foil: Tensor | None, generator: torch.Generator
) -> Asked:
    """What is asked, and the same of W_U + c·1ᵀ, where c is random and as long as a column."""
    c = torch.randn(len(columns.mean), generator=generator).to(columns.mean)
    typical = columns.W_U[:, target.to(columns.W_U.device)].to(c).norm(dim=0).mean()
    shifted = columns._replace(shift=c / c.norm() * typical).asked(target, foil)
    return Asked(*(torch.stack(both) for both in zip(asked, shifted, strict=True)))


def _random(columns: Readers, spec: Spec, generator: torch.Generator) -> Asked:
    """Random tokens in the target's place, and with a foil other random ones in the foil's."""
    d_vocab = columns.W_U.shape[1]
    tokens = torch.randint(d_vocab, (spec.draws,), generator=generator)
    further = torch.randint(1, d_vocab, (spec.draws,), generator=generator)
    return columns.asked(tokens, None if spec.foil is None else (tokens + further) % d_vocab)


def _along(own: Float[Tensor, "pos part"], shape: Shape) -> Float[Tensor, "kind layer pos"]:
    kinds = direct.split(own, shape.layers)
    return torch.stack([(kinds.heads.sum(-1) + kinds.biases).T, kinds.mlps.T])


def _exact(
    model: Model,
    found: dict[Site, Tensor],
    at: int,
    asked: tuple[Tensor, Tensor | None, Asked],
    heads: list[tuple[int, int]],
    own: Float[Tensor, " part"],
) -> dict[str, Tensor]:
    """At one position in float64: all logits rebuilt from the parts' sum, and heads split by the tokens they read.

    The last of `heads` is the named one; the others' sources are kept.
    """
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    target, foil, direction = asked
    logits = direct.rebuilt_logits(model, found, at, wide)
    gap = logits[target] - (logits.mean() if foil is None else logits[foil])
    u = Asked(direction.u.to(wide), direction.b.to(wide))
    sources = torch.cat([direct.from_tokens(model, found, (layer, [number]), at, u) for layer, number in heads])
    named = direct.split(own, model.shape.layers).heads[heads[-1]]
    return {
        "sources": sources[:-1].float().cpu(),
        "sum_residual": ((own.sum() - gap).abs() / own.abs().sum()).cpu(),
        "head_residual": ((sources[-1].sum() - named).abs() / sources[-1].abs().sum().clamp(min=1e-30)).cpu(),
    }


def _against(
    logits: Float[Tensor, "pos d_vocab"], target: Int[Tensor, " pos"], foil: Tensor | None, pushes: Pushes
) -> dict[str, Tensor]:
    """The sums against the model's own logits, how likely its targets are, and what W_U + c·1ᵀ changes."""
    own, shifted = pushes.own
    gaps, chances = [], []
    for start in range(0, len(logits), CHUNK):
        rows = slice(start, start + CHUNK)
        some, aim = logits[rows].float(), target[rows].to(logits.device)
        below = some.mean(-1) if foil is None else some[:, foil]
        gap = own[rows].sum(-1) - (some.gather(1, aim[:, None])[:, 0] - below)
        gaps.append((gap.abs() / (some - below[:, None]).abs().amax(-1)).max())
        chances.append(some.softmax(-1).gather(1, aim[:, None])[:, 0])
    return {
        "chance": torch.cat(chances).cpu(),
        "rounding_residual": torch.stack(gaps).max().cpu(),
        "heads_residual": pushes.heads_residual.cpu(),
        "gauge_residual": ((shifted - own).abs().max() / own.abs().max()).cpu(),
    }


LOGIT = Quantity(
    "logit",
    "The target's logit less the vocabulary's mean, or less the foil's: the sum of all pushes; null: that of random "
    "tokens, root mean square.",
    unit="nats",
    headline=True,
)
HEAD_PUSH = Quantity(
    "head_push",
    "What the named head adds to it; null: the same head on random tokens, root mean square. No evidence where the "
    "head was chosen for it.",
    unit="nats",
    headline=True,
)
CANCELLED = Quantity(
    "cancelled",
    "Share of all pushing that other parts undo, 1 − |Σ push| / Σ |push|; null: the same on random tokens, median.",
    range=(0, 1),
    headline=True,
)
STRONGEST = Quantity(
    "strongest",
    "The hardest push of any one head, MLP or other part, either way; null: the hardest one on each random token, "
    "median.",
    unit="nats",
    range=(0, math.inf),
)
EMBEDDING_PUSH = Quantity(
    "embedding_push", "What the embedding adds; null: on random tokens, root mean square.", unit="nats"
)
ATTENTION_PUSH = Quantity(
    "attention_push",
    "What all heads and their layers' biases add; null: on random tokens, root mean square.",
    unit="nats",
)
MLP_PUSH = Quantity("mlp_push", "What all MLPs add; null: on random tokens, root mean square.", unit="nats")
BIAS_PUSH = Quantity("bias_push", "What the final norm's bias and that of the unembedding add.", unit="nats")
LATE_PUSH = Quantity(
    "late_push",
    "What the last quarter of the layers adds, heads, biases and MLPs; null: on random tokens, root mean square.",
    unit="nats",
)
HEAD_PUSHES = Quantity(
    "head_pushes",
    "What every head adds, layer after layer; null: on random tokens, root mean square over heads and tokens.",
    unit="nats",
)
ATTENTION_PUSHES = Quantity(
    "attention_pushes",
    "What every layer's attention adds, its biases included; null: on random tokens, root mean square.",
    unit="nats",
)
MLP_PUSHES = Quantity(
    "mlp_pushes", "What every layer's MLP adds; null: on random tokens, root mean square.", unit="nats"
)
PROBABILITY = Quantity(
    "probability",
    "How likely the target is by the model, mean over positions; null: a uniform guess.",
    range=(0, 1),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Sums of pushes, and the pushes of all parts; means over the positions asked about."""
    own, null = direct.split(out.own.double(), out.layers), direct.split(out.null.double(), out.layers)
    attention, of_chance = own.heads.sum(-1) + own.biases, null.heads.sum(-1) + null.biases
    late = slice(out.layers - max(1, out.layers // 4), None)
    place = tuple(map(int, out.head[1:].split("H")))
    count = len(out.at)

    def is_(quantity: Quantity, value: Tensor, chance: Tensor | None = None) -> Metric:
        by_chance = None if chance is None else float(chance.square().mean().sqrt())
        return quantity.is_(float(value) if value.ndim == 0 else tuple(value.tolist()), null=by_chance, n=count)

    def cancelled(pushes: Tensor) -> Tensor:
        return (1 - pushes.sum(-1).abs() / pushes.abs().sum(-1)).clamp(0, 1)

    both = out.own.double(), out.null.double()
    undone, hardest = ([one, other.median()] for one, other in (map(cancelled, both), [b.abs().amax(-1) for b in both]))
    return [
        is_(LOGIT, out.own.double().sum(), out.null.double().sum(-1)),
        is_(HEAD_PUSH, own.heads[place], null.heads[:, place[0], place[1]]),
        is_(CANCELLED, *undone),
        is_(STRONGEST, *hardest),
        is_(EMBEDDING_PUSH, own.embedding, null.embedding),
        is_(ATTENTION_PUSH, attention.sum(), of_chance.sum(-1)),
        is_(MLP_PUSH, own.mlps.sum(), null.mlps.sum(-1)),
        is_(BIAS_PUSH, own.last),
        is_(LATE_PUSH, (attention + own.mlps)[late].sum(), (of_chance + null.mlps)[:, late].sum(-1)),
        is_(HEAD_PUSHES, own.heads.flatten(), null.heads),
        is_(ATTENTION_PUSHES, attention, of_chance),
        is_(MLP_PUSHES, own.mlps, null.mlps),
        PROBABILITY.is_(float(out.chance.double().mean()), null=1 / out.d_vocab, n=count),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(ALGEBRA, 4 * out.eps)
    where = f"after {out.tokens[int(out.at[-1])]}"
    return [
        Check(
            "parts = logit (algebra)",
            float(out.sum_residual),
            ALGEBRA,
            f"{where}: the sum of all pushes in float32, against all writes added up in float64, normed at the frozen "
            "scale and unembedded; as a share of all pushing",
        ),
        Check(
            "parts = logit (rounding)",
            float(out.rounding_residual),
            rounding,
            "against the model's own logits, every position asked about; by the largest logit there",
        ),
        Check(
            "heads + biases = layer (rounding)",
            float(out.heads_residual),
            rounding,
            "against what the layer's attention wrote, every layer; by the length of that write",
        ),
        Check(
            "a head's push, token by token",
            float(out.head_residual),
            rounding,
            f"{out.head} {where}, its pattern rebuilt and each token's value through W_V and W_O, in float64; as a "
            "share of its pushing",
        ),
        Check(
            "W_U + c·1ᵀ changes nothing",
            float(out.gauge_residual),
            ALGEBRA,
            "c random, as long as a column of W_U; all pushes, by the largest",
        ),
    ]


def _sites(shape: Shape) -> tuple[Site, ...]:
    return tuple(dict.fromkeys((*direct.sites(shape), Site("resid_pre", shape.layers // 2))))


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, what goes in and out of every layer's attention, what its MLP writes, and the answer."""
    if spec.weights == "shuffled":
        return None
    return Reads(("whole", spec.tokens, spec.bos, spec.template), _sites(shape))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, four streams a layer, the logits, pushes of all parts; a forward pass and a half at 40 GFLOP/s."""
    assert shape is not None
    streams = (shape.layers + 1) * spec.tokens * (3 * shape.d_model + shape.heads * shape.d_head) * 4
    asked = spec.tokens if spec.position == "all" else 1
    pushes = (2 * asked + spec.draws) * (shape.layers * (shape.heads + 2) + 2) * 4
    logits = (spec.tokens + 3 * min(asked, CHUNK)) * shape.d_vocab * 4
    columns = 2 * direct.COLUMNS * shape.d_model * 8
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    return Needs(weights + streams + pushes + logits + columns, 3 + 3 * shape.parameters * spec.tokens / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    own, null = direct.split(out.own, out.layers), direct.split(out.null, out.layers)
    asked = attribution.Question(out.target, out.foil, _of_text(out))
    middle = int(out.null.abs().amax(-1).argsort()[len(out.null) // 2])
    drawings = {
        "waterfall": attribution.waterfall(out.names, out.own.numpy(), out.null.numpy(), asked),
        "heads": attribution.heads(own.heads.numpy(), null.heads[middle].numpy(), out.head, asked),
        "course": attribution.course(_by_layer(own).numpy(), _by_layer(null).numpy(), asked),
    }
    if len(out.at) == 1:
        upto = int(out.at[0]) + 1
        drawings["sources"] = attribution.sources(
            out.source_heads, out.tokens[:upto], out.sources[:, :upto].numpy(), asked
        )
    else:
        tokens = [out.tokens[place] for place in out.at.tolist()]
        drawings["tokens"] = attribution.along(out.along.numpy(), tokens, out.left_out, asked)
    return drawings


def _by_layer(parts: direct.Split) -> Float[Tensor, "*of kind place"]:
    """Attention's and MLPs' pushes, layer by layer; first what there is before, last what comes after the layers."""
    attention = parts.heads.sum(-1) + parts.biases
    before, after = parts.embedding[..., None], parts.last[..., None]
    return torch.stack(
        [torch.cat([before, attention, after], -1), torch.cat([0 * before, parts.mlps, 0 * after], -1)], -2
    )


def _of_text(out: Out) -> str:
    if len(out.at) > 1:
        return f"mean over {len(out.at)} tokens"
    last = int(out.at[0])
    return f"after {visible(''.join(out.tokens[max(0, last - 2) : last + 1]))}"


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        LOGIT,
        HEAD_PUSH,
        CANCELLED,
        STRONGEST,
        EMBEDDING_PUSH,
        ATTENTION_PUSH,
        MLP_PUSH,
        BIAS_PUSH,
        LATE_PUSH,
        HEAD_PUSHES,
        ATTENTION_PUSHES,
        MLP_PUSHES,
        PROBABILITY,
    ),
    figures={
        "waterfall": "The strongest parts one after another, the others in one bar, up to the target's logit.",
        "heads": "What every head pushes, beside the same heads on a random token.",
        "course": "The logit as layers add up, with the band of random tokens.",
        "sources": "The strongest heads' pushes by the token that they were taken from; of one position.",
        "tokens": "What every layer pushes at every token of the text; of all positions.",
    },
    examples=(
        Example(
            "paris-is-read-from-eiffel",
            "A head of layer 23 pushes Paris, and it has it from the Eiffel Tower's name",
            {"model": "smollm2-135m", "target": "Paris", "head": "L23H4"},
            ("head_push > 1.5", "logit > 20", "late_push > 15", "cancelled < 0.6", "probability > 0.9"),
        ),
        Example(
            "paris-not-london",
            "Against London the same head pushes, and all the layers before it push nothing",
            {"model": "smollm2-135m", "target": "Paris", "foil": "London", "head": "L23H4"},
            ("head_push > 1.5", "late_push > 7", "embedding_push between -0.3 and 0.3", "logit between 7 and 11"),
        ),
        Example(
            "answers-agree",
            "Parts agree on the answer: of random tokens nearly all pushing is undone, of the answer less than half",
            {"model": "smollm2-135m", "position": "all"},
            ("cancelled < 0.5", "logit > 15"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
