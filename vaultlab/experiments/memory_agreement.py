"""Memory agreement: how often does an MLP's memory push the very token that its text goes on with?

A memory's key wakes at prefixes of a text, its value pushes tokens. Of each memory of each layer the strongest trigger
is found, the prefix at which ‖m_i v_i‖ is largest, and its value is read there as tokens, with the sign that m_i has
there (as in `kv_memory`, whose search is shared):

    agreement of a layer = share of its memories whose value's top token = the token after their strongest trigger

By chance some agree too: common tokens come next often, and some are the top token of many values. The null pairs a
layer's values with its triggers at random; what that gives on average is computed exactly, from how often each token is
a top token and how often it came next. Intervals are 95 %, from a bootstrap over the sentences in which the triggers
stand. The lower and the upper third are the first and the last third of the layers, in whatever model.

How to read the figures. In `agreement` the upper curve is the agreement, layer by layer, with its interval, dashed the
null; below the same for the next token among the value's first ten. In `meetings` are the memories of the upper third
that agree and push hardest: a trigger with the token that wakes it in blue, → what came next in orange, and under it
what the value pushes.

Source: Mor Geva, Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value
Memories", section 4 "Values Represent Distributions", figure 4, https://aclanthology.org/2021.emnlp-main.446
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Example, Experiment, ModelName, Needs, Nonsense, Quantity, TextName
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.bootstrap import interval
from vaultlab.models.direct import readers
from vaultlab.models.family import Shape
from vaultlab.models.memories import Triggers, among_first, prominent, readout
from vaultlab.models.model import Model
from vaultlab.models.prefixes import line, misaligned, pushes
from vaultlab.models.search import Corpus, Search, asked, search_needs, searched
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tops import Sides, tops, tops_residual
from vaultlab.plots.memories import Line, Row, draw_memories
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.result import Check, Metric, Quote

NEAR = 10
"""Tokens of a value among which the next one is near."""

SHOWN = 6
"""Memories that are shown."""

TOKENS = 8
"""Tokens of their values."""

CHECKED = 4
"""Memories of each layer whose top token is found once more, in float64."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "python-help"
    """What it reads."""

    tokens: int = Field(20_000, ge=50, le=500_000, json_schema_extra={"symbol": "tokens", "stress": [5000, 20_000]})
    """At most so many tokens are read, from the text's beginning; sentences that repeat are not counted."""

    bos: bool | None = None
    """Begin every sentence with the token that begins texts: true, false, or as the model's tokenizer does (none)."""

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random draws of intervals and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind. Of every layer: `woken` memories, shares of them with the next token as the value's
    top token and among its first ten, the same in random pairs, and the interval of the first.

    `thirds` are the intervals of the lower third, the upper third, and the upper less the lower. `lines` to `push` are
    of the memories shown, (layer, key) in `shown`.
    """

    read: int
    eps: float
    memories: int
    woken: Int[Tensor, " layer"]
    agree: Float[Tensor, " layer"]
    near: Float[Tensor, " layer"]
    chance_agree: Float[Tensor, " layer"]
    chance_near: Float[Tensor, " layer"]
    intervals: Float[Tensor, "layer 2"]
    thirds: Float[Tensor, "share 2"]
    shown: Int[Tensor, "shown 2"]
    lines: tuple[tuple[str, str, str], ...]
    part: Int[Tensor, " shown"]
    pushed: tuple[tuple[str, ...], ...]
    push: Float[Tensor, "shown token"]
    top_residual: Float[Tensor, ""]
    stream_residual: Float[Tensor, ""]
    misaligned: int


class Layer(NamedTuple):
    """One layer: which memories woke, each one's top token at its strongest trigger, whether it agrees, whether what
    came next there, and then after others' triggers, is among its first ten; and in which sentence it woke most."""

    woken: Tensor
    first: Tensor
    agree: Tensor
    near: Tensor
    sentence: Tensor
    found: Triggers


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The search of all layers, and what every value pushes most: both shared, the second by all texts."""
    model = bench.model(spec.model)
    if not model.shape.d_mlp:
        raise NoteError(
            f"{model.name} has no MLP, and so no memories.", "Take another model, such as smollm2-135m.", field="model"
        )
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    corpus = Corpus(model, bench.text("text"), spec.tokens, spec.bos)
    search = searched(bench, corpus)
    value, some = tops(bench, model), prominent(model)
    layers = []
    for layer in range(model.shape.layers):
        bench.progress(layer, model.shape.layers, "reading values as tokens")
        layers.append(_layer(model, search, value.of(layer), some, layer, bench.generator("chance", spec.seed)))
    generator = bench.generator("intervals", spec.seed)
    low, high = (_joined(layers[part]) for part in thirds(len(layers)))
    return Out(
        read=len(search.ids),
        eps=torch.finfo(model.dtype).eps,
        memories=model.shape.layers * model.shape.d_mlp,
        woken=torch.stack([one.woken.sum() for one in layers]),
        agree=torch.stack([one.agree[one.woken].double().mean() for one in layers]),
        near=torch.stack([one.near[one.woken, 0].double().mean() for one in layers]),
        chance_agree=torch.stack([_chance(one) for one in layers]),
        chance_near=torch.stack([one.near[one.woken, 1:].double().mean() for one in layers]),
        intervals=torch.stack([interval(*_joined([one]), generator) for one in layers]),
        thirds=torch.stack([interval(*low, generator), interval(*high, generator), _rise(low, high, generator)]),
        **_meetings(model, search, layers),
        top_residual=_top(spec, bench, model, layers),
        stream_residual=search.residual.max(),
        misaligned=sum(misaligned(search.sentences, one.found) for one in layers),
    )


def _layer(
    model: Model, search: Search, value: Sides, some: Int[Tensor, " some"], layer: int, generator: torch.Generator
) -> Layer:
    found = search.triggers(model, layer, slice(None), 1)
    woken = found.at[:, 0] >= 0
    if not woken.any():
        raise NoteError(f"In layer {layer} nothing in this text wakes a memory.", "Take a longer text.", field="text")
    wide, sign = torch.promote_types(model.dtype, torch.float32), found.coefficient[:, 0].sign()
    v = parts.mlp(model, layer).W_out.to(wide) * sign.to(model.device)[:, None]
    came = asked(found, generator)
    first = torch.where(sign < 0, value.last, value.first)
    sentence = search.sentences.holding(found.at[:, 0].clamp(min=0))
    near = among_first(model, v, came, NEAR, some)
    return Layer(woken, first, woken & (first == found.next[:, 0]), near, sentence, found)


def thirds(layers: int) -> tuple[slice, slice]:
    """The first and the last third of the layers, one layer at least."""
    third = max(1, layers // 3)
    return slice(0, third), slice(layers - third, layers)


def _chance(one: Layer) -> Tensor:
    """The share of agreeing pairs over all pairings of a layer's values with its triggers: Σ_t p(top t) p(next t)."""
    top, came = one.first[one.woken], one.found.next[one.woken, 0]
    size = int(torch.maximum(top.max(), came.max())) + 1
    share: Tensor = torch.bincount(top, minlength=size).double() @ torch.bincount(came, minlength=size).double()
    return share / len(top) ** 2


def _joined(layers: list[Layer]) -> tuple[Tensor, Tensor]:
    """Whether each woken memory agrees, and its sentence."""
    return torch.cat([one.agree[one.woken] for one in layers]), torch.cat([one.sentence[one.woken] for one in layers])


def _rise(low: tuple[Tensor, Tensor], high: tuple[Tensor, Tensor], generator: torch.Generator) -> Tensor:
    """The interval of the upper less the lower, as one mean in which a memory counts by the size of its third."""
    (lower, below), (upper, above) = low, high
    both = len(lower) + len(upper)
    weighed = torch.cat([-lower.double() * both / len(lower), upper.double() * both / len(upper)])
    return interval(weighed, torch.cat([below, above]), generator)


def _meetings(model: Model, search: Search, layers: list[Layer]) -> dict[str, Any]:
    """Of the upper third the memories that agree and push hardest."""
    upper = thirds(len(layers))[1]
    rows = [(at, key) for at in range(len(layers))[upper] for key in layers[at].agree.nonzero()[:, 0].tolist()]
    if not rows:
        return {
            "shown": torch.zeros(0, 2, dtype=torch.long),
            "lines": (),
            "part": search.part[:0],
            "pushed": (),
            "push": torch.zeros(0, TOKENS),
        }
    wide = torch.promote_types(model.dtype, torch.float32)
    written = torch.stack(
        [_amount(search, layers[at], key) * parts.mlp(model, at).W_out[key].to(wide) for at, key in rows]
    )
    first = torch.stack([layers[at].first[key] for at, key in rows])
    push = (readout(model, written) * readers(model).asked(first, None).u).sum(1)
    hardest = push.argsort(descending=True, stable=True)[:SHOWN]
    shown = [rows[one] for one in hardest.tolist()]
    best = pushes(model, written[hardest]).topk(TOKENS, dim=-1)
    at = torch.tensor([int(layers[layer].found.at[key, 0]) for layer, key in shown])
    return {
        "shown": torch.tensor(shown),
        "lines": tuple(line(model, search.sentences, int(one)) for one in at),
        "part": search.part[search.sentences.holding(at)],
        "pushed": tuple(model.token_strings(one) for one in best.indices.tolist()),
        "push": best.values,
    }


def _amount(search: Search, one: Layer, key: int) -> float:
    """A memory's coefficient at its strongest trigger, times the final norm's scale there."""
    return float(one.found.coefficient[key, 0] * search.scale[one.found.at[key, 0]])


def _top(spec: Spec, bench: Bench, model: Model, layers: list[Layer]) -> Tensor:
    """How far the top tokens of some values are from the largest push in float64, as a share of it."""
    rows, firsts = [], []
    for layer, one in enumerate(layers):
        keys = one.woken.nonzero()[:, 0]
        keys = keys[torch.randperm(len(keys), generator=bench.generator("checked", spec.seed, layer))[:CHECKED]]
        v = parts.mlp(model, layer).W_out[keys.to(model.device)]
        rows.append(v * one.found.coefficient[keys, :1].sign().to(v))
        firsts.append(one.first[keys])
    return tops_residual(model, torch.cat(rows), torch.cat(firsts))


UPPER = Quantity(
    "upper_third",
    "Agreement over all memories of the last third of the layers; null: each layer's values and triggers in random "
    "pairs.",
    range=(0, 1),
    headline=True,
)
LOWER = Quantity(
    "lower_third", "The same over the first third of the layers; null as there.", range=(0, 1), headline=True
)
OVER_CHANCE = Quantity(
    "over_chance",
    "Agreement of the upper third by its null; absent where the null is 0.",
    unit="× the null",
    range=(0, math.inf),
    headline=True,
)
RISE = Quantity("rise", "Agreement of the upper third less that of the lower; null: no difference.", range=(-1, 1))
AGREEMENT = Quantity(
    "agreement",
    "Share of a layer's memories whose value's top token came next after their strongest trigger, layer by layer; "
    "null: random pairs, mean over layers.",
    range=(0, 1),
)
WITHIN_TEN = Quantity(
    "within_ten",
    "Share of a layer's memories with what came next among their value's first ten tokens, layer by layer; null: what "
    "came next after another memory's trigger.",
    range=(0, 1),
)
SILENT = Quantity(
    "silent",
    "Memories whose coefficient is 0 at every token; they are in no other number.",
    unit="memories",
    range=(0, math.inf),
)


def _share(values: Float[Tensor, " layer"], woken: Int[Tensor, " layer"], part: slice) -> float:
    """The mean over the memories of some layers."""
    return float((values[part] * woken[part]).sum() / woken[part].sum())


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Shares over memories, by thirds and by layers."""
    low, high = thirds(len(out.woken))
    spans = [None if row[0] != row[0] else (float(row[0]), float(row[1])) for row in out.thirds]
    (lower, below), (upper, above) = (
        tuple(_share(values, out.woken, part) for values in (out.agree, out.chance_agree)) for part in (low, high)
    )
    ratio = (spans[1][0] / above, spans[1][1] / above) if spans[1] and above else None
    n = int(out.woken[high].sum())
    return [
        UPPER.is_(upper, interval=spans[1], null=above, n=n),
        LOWER.is_(lower, interval=spans[0], null=below, n=int(out.woken[low].sum())),
        *([OVER_CHANCE.is_(upper / above, interval=ratio, null=1.0, n=n)] if above else []),
        RISE.is_(upper - lower, interval=spans[2], null=0.0, n=n),
        AGREEMENT.is_(tuple(out.agree.tolist()), null=float(out.chance_agree.mean()), n=out.memories),
        WITHIN_TEN.is_(tuple(out.near.tolist()), null=float(out.chance_near.mean()), n=out.memories),
        SILENT.is_(out.memories - int(out.woken.sum()), n=out.memories),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(1e-5, 4 * out.eps)
    return [
        Check(
            "streaming top k = direct top k",
            float(out.stream_residual),
            rounding,
            "one batch read again and looked at sentence by sentence, all memories; as a share of each one's strongest",
        ),
        Check(
            "the next token is the text's",
            float(out.misaligned),
            0,
            "strongest triggers that the text goes on from otherwise, or that begin a sentence",
        ),
        Check(
            "the top token is pushed most",
            float(out.top_residual),
            max(1e-4, 16 * out.eps),
            f"{CHECKED} values a layer in float64: what the top token lacks to the largest push, as a share of it",
        ),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """Agreement by layer; and the memories that agree and push hardest, where there are some."""
    drawn = {"agreement": _draw_agreement(out)}
    if len(out.shown):
        names = [f"layer {layer}, key {key}" for layer, key in out.shown.tolist()]
        rows = [
            Row(name, Line(*words), pushed, push)
            for name, words, pushed, push in zip(names, out.lines, out.pushed, out.push.tolist(), strict=True)
        ]
        drawn["meetings"] = draw_memories("Of the memories of the upper third that agree, these push hardest", rows)
    return drawn


def _draw_agreement(out: Out) -> Drawing:
    low, high = thirds(len(out.woken))
    with canvas(2, height=5.0, sharex=True) as (figure, axes):
        upper, lower = axes[:, 0]
        _curves(upper, out.agree, out.chance_agree, "agreement (%)")
        spans = 100 * out.intervals.numpy()
        upper.fill_between(range(len(spans)), spans[:, 0], spans[:, 1], color=PALETTE[1], alpha=0.25, linewidth=0)
        upper.legend(loc="upper left")
        _curves(lower, out.near, out.chance_near, f"among the first {NEAR} (%)")
        for ax in (upper, lower):
            ax.set_ylim(bottom=0)
            for edge in (low.stop - 0.5, high.start - 0.5):
                ax.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
        lower.set_xlabel("layer (dotted: the thirds)")
    (lowest, _), (highest, chance) = (
        tuple(_share(values, out.woken, part) for values in (out.agree, out.chance_agree)) for part in (low, high)
    )
    return Drawing(
        figure,
        f"By layer, how many of {out.memories} memories push the token that came next most: {lowest:.2%} in the lower "
        f"third of the layers, {highest:.2%} in the upper, where random pairs give {chance:.2%}; the most in layer "
        f"{int(out.agree.argmax())}, {float(out.agree.max()):.2%}.",
    )


def _curves(ax: Axes, share: Tensor, chance: Tensor, label: str) -> None:
    ax.plot(100 * share.numpy(), "o-", color=PALETTE[1], markersize=4, label="values and triggers as they are")
    ax.plot(100 * chance.numpy(), "--", color=GREY, label="in random pairs")
    ax.set_ylabel(label)


def quotes(spec: Spec, out: Out) -> list[Quote]:
    """The triggers shown, and where they stand."""
    names = [f"layer {layer}, key {key}" for layer, key in out.shown.tolist()]
    return [
        Quote("text", part, *words, said=name)
        for part, words, name in zip(out.part.tolist(), out.lines, names, strict=True)
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The search, where nobody has done it yet; then all values through the unembedding in float32."""
    assert shape is not None
    needed = search_needs(shape, spec.tokens, copies=1 if spec.weights == "trained" else 2)
    unembedding = shape.d_vocab * shape.d_model * 4
    values = 3 * shape.layers * shape.d_mlp * shape.d_model * shape.d_vocab / 20e9
    return Needs(bytes=int(needed.bytes + unembedding), seconds=5 + needed.seconds + values)


IDIOMS = (
    "The train was late because of the snow. We took the bus instead of the train. The house has a garden as well"
    " as a yard. In order to win, you have to play. She is taller than her brother. According to the map, the "
    "river is north of here. There are a lot of people on the street. He went to bed early in order to sleep. It "
    "depends on the weather. The bridge is at least as old as the church. Fruits such as apples and pears grow "
    "here. They live in the United States of America. The city of New York never sleeps. On the other hand, it "
    "was cheap. For the first time in years, the lake froze. As soon as the door opened, the cat ran out. The "
    "price of bread rose by more than half. He is one of the best players in the world. At the end of the day we "
    "went home. Instead of waiting, she walked. The book consists of three parts. This is due to the fact that "
    "iron rusts. She was able to read at the age of four. The opposite is true in the south. Neither the dog nor "
    "the cat was there. Both the king and the queen were old. You can either stay or leave. The more you read, "
    "the more you know. He looked at her as if nothing had happened. Most of the time it rains."
)
"""A text for the examples: 30 sentences, in many of which a turn of phrase says how it goes on."""

EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(UPPER, LOWER, OVER_CHANCE, RISE, AGREEMENT, WITHIN_TEN, SILENT),
    figures={
        "agreement": "Layer by layer: how often the value's top token, or one of its first ten, is what came next.",
        "meetings": "The memories of the upper third that agree and push hardest.",
    },
    examples=(
        Example(
            "agreement-rises",
            "In the upper layers values name the next token far more often than by chance, in the lower ones hardly",
            {"tokens": 5000},
            ("over_chance > 3", "rise > 0"),
        ),
        Example(
            "turns-of-phrase",
            "Thirty sentences are enough: in the upper layers values name the next token more often than by chance",
            {"text": IDIOMS, "tokens": 1000},
            ("over_chance > 3", "rise > 0"),
        ),
    ),
    needs=needs,
    quotes=quotes,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
