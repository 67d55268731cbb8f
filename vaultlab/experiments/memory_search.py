"""Memory search: which memories of a model push a token or a concept, in which layers, and what wakes them?

The other way round than `kv_memory`: not from a key to its value, but from what is written to the memories that write
it. A concept is a list of words, each one token. Over a text, of every memory of every layer, what it adds to the
logits of the concept's tokens is read at its 32 strongest triggers (one a sentence), with its coefficient and the final
norm's scale there, less what it adds to the tokens of the text as they come:

    push_i = max over triggers of  m_i s (v_i ∘ gain) · (mean of W_U over the concept − mean of W_U over the text)

Without that some memories of the lower layers would push every word there is: they write what is frequent. The largest
push counts, whichever sign m_i has there: a gated memory may push the concept when it wakes with one sign, and away
from it with the other. So nothing depends on how a memory is written down: (u_i, v_i) → (α u_i, v_i/α) changes no
number. A direct push is not all that a memory does to a token: what other layers make of it is not in it.

    push      how far the strongest memory pushes the concept, in nats; by chance: as many other tokens of the text
    layer     where the memories are that push it hardest, mean weighed by the push; by chance: the same
    came      share of the triggers at which they push it after which a token of the concept really came

How to read the figures. In `memories` are those that push the concept hardest: a trigger with the token that wakes it
in blue, → what came next, and under it what the memory pushes there; orange: a token of the concept. In `layers` the
bars are each layer's strongest push, the grey band what nine in ten random tokens get.

Source: Mor Geva, Avi Caciularu, Kevin Wang, Yoav Goldberg (2022), "Transformer Feed-Forward Layers Build Predictions
by Promoting Concepts in the Vocabulary Space", sections 3 and 4, https://aclanthology.org/2022.emnlp-main.3. Mor Geva,
Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value Memories", sections 3
and 4, https://aclanthology.org/2021.emnlp-main.446
"""

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Example,
    Experiment,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    TextName,
    Words,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.bootstrap import interval
from vaultlab.models.family import Shape
from vaultlab.models.memories import readout
from vaultlab.models.model import Model
from vaultlab.models.prefixes import gauge_residual, line, pushes, read_prefixes
from vaultlab.models.search import KEPT, Corpus, Search, search_needs, searched
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.plots.memories import Line, Row, draw_memories
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, visible
from vaultlab.result import Check, Metric, Quote

STRONGEST = 20
"""Memories that `layer` and `came` are about."""

SHOWN = 6
"""Memories that are shown, and the triggers of each that are quoted: the first three."""

QUOTED = 3

TOKENS = 8
"""Tokens of a memory that are shown."""

RANDOM = 100
"""Random concepts of the null."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    concept: Words = Field(("point",), json_schema_extra={"symbol": "concept"})
    """A word that is one token, tried with a leading space first; or several, as a list."""

    text: TextName = "python-help"
    """What it reads."""

    tokens: int = Field(20_000, ge=50, le=500_000, json_schema_extra={"stress": [5000, 20_000]})
    """At most so many tokens are read, from the text's beginning; sentences that repeat are not counted."""

    bos: bool | None = None
    """Begin every sentence with the token that begins texts: true, false, or as the model's tokenizer does (none)."""

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random draws of nulls, intervals and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind, in nats. `concept` are its tokens; `by_layer` each layer's strongest push, and
    `chance_by_layer` those of random concepts; `strongest` the memories that push hardest, as (layer, key), with
    `strongest_push`, and `chance_centre` where those of random concepts are.

    `came` says for each trigger at which one of them pushes the concept whether a token of it came, `sentence` where;
    `share` is how often a token of the text is one of the concept. `lines` are the triggers quoted, `row` the memory
    (of those shown) of each, `concept_push` its push there; `pushed` are the tokens that it pushes most at its first.
    """

    concept: tuple[str, ...]
    read: int
    eps: float
    gated: bool
    by_layer: Float[Tensor, " layer"]
    chance_by_layer: Float[Tensor, "random layer"]
    strongest: Int[Tensor, "memory 2"]
    strongest_push: Float[Tensor, " memory"]
    chance_centre: Float[Tensor, " random"]
    came: Int[Tensor, " trigger"]
    share: float
    came_interval: Float[Tensor, " 2"]
    row: Int[Tensor, " line"]
    lines: tuple[tuple[str, str, str], ...]
    part: Int[Tensor, " line"]
    pushed: tuple[tuple[str, ...], ...]
    concept_push: Float[Tensor, " line"]
    algebra_residual: Float[Tensor, ""]
    rounding_residual: Float[Tensor, ""]
    push_residual: Float[Tensor, ""]
    stream_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The search of all layers, shared; every value on the concept and on random ones; the strongest read again."""
    model = bench.model(spec.model)
    if not model.shape.d_mlp:
        raise NoteError(
            f"{model.name} has no MLP, and so no memories.", "Take another model, such as smollm2-135m.", field="model"
        )
    tokens = _tokens(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    search = searched(bench, Corpus(model, bench.text("text"), spec.tokens, spec.bos))
    amount = search.coefficient * search.scale[search.at.clamp(min=0).long()]
    seen = search.next[(search.next >= 0) & ~torch.isin(search.next, tokens)]
    drawn = seen[torch.randint(len(seen), (RANDOM, len(tokens)), generator=bench.generator("random", spec.seed))]
    towards = _towards(model, torch.cat([tokens[None], drawn]), _foil(model, search))
    reach = torch.stack([_reach(model, layer, towards) for layer in range(model.shape.layers)])
    # what each memory reaches at best, at the end of its triggers that suits its value
    most = torch.maximum(reach * amount.amax(-1, keepdim=True), reach * amount.amin(-1, keepdim=True))
    if not (most[..., 0] > 0).any():
        raise NoteError("No memory that wakes in this text pushes this.", "Take a longer text.", field="text")
    push = amount * reach[..., :1]
    strongest, centre = _centre(most)
    memories = torch.stack([strongest[0] // model.shape.d_mlp, strongest[0] % model.shape.d_mlp], dim=1)
    pushed = Pushed(tokens, push, memories)
    return Out(
        concept=model.token_strings(tokens.tolist()),
        read=len(search.ids),
        eps=torch.finfo(model.dtype).eps,
        gated=model.shape.gated,
        by_layer=most[..., 0].amax(1),
        chance_by_layer=most[..., 1:].amax(1).T,
        strongest=memories,
        strongest_push=most[memories[:, 0], memories[:, 1], 0],
        chance_centre=centre[1:],
        **_came(spec, bench, search, pushed),
        **_shown(spec, bench, model, search, pushed),
        stream_residual=search.residual.max(),
    )


def _tokens(spec: Spec, model: Model) -> Int[Tensor, " word"]:
    try:
        return torch.tensor(sorted({model.token_id(word) for word in spec.concept}))
    except NoteError as error:
        raise NoteError(error.message, error.hint, field="concept") from error


def _foil(model: Model, search: Search) -> Float[Tensor, " d_vocab"]:
    """How often each token is what comes next in the text, as a share."""
    came = torch.bincount(search.next[search.next >= 0], minlength=model.shape.d_vocab)
    return (came / came.sum()).to(model.device, torch.promote_types(model.dtype, torch.float32))


def _towards(
    model: Model, concepts: Int[Tensor, "concept word"], foil: Float[Tensor, " d_vocab"]
) -> Float[Tensor, "d_model concept"]:
    """What reads the logit of each concept, mean over its tokens, less that of the text's tokens."""
    W_U = parts.unembedding(model).W_U
    there = foil.nonzero()[:, 0]
    towards: Tensor = W_U[:, concepts.to(W_U.device)].to(foil.dtype).mean(-1)
    return towards - (W_U[:, there].to(foil.dtype) @ foil[there])[:, None]


def _reach(model: Model, layer: int, towards: Float[Tensor, "d_model concept"]) -> Float[Tensor, "key concept"]:
    """What a layer's values add to each concept, per unit of m and scale."""
    reach: Tensor = readout(model, parts.mlp(model, layer).W_out.to(towards.dtype)) @ towards
    return reach.cpu()


def _centre(most: Float[Tensor, "layer key concept"]) -> tuple[Tensor, Tensor]:
    """For every concept the memories that push it hardest, and their mean layer weighed by the push."""
    layers, keys, concepts = most.shape
    best, at = most.reshape(layers * keys, concepts).topk(min(STRONGEST, layers * keys), dim=0)
    best = best.clamp(min=0)
    return at.T, ((at // keys) * best).sum(0) / best.sum(0).clamp(min=1e-30)


class Pushed(NamedTuple):
    """The concept's `tokens`, what every memory adds to them at every trigger kept, and those that add most."""

    tokens: Int[Tensor, " word"]
    push: Float[Tensor, "layer key top"]
    memories: Int[Tensor, "memory 2"]


def _came(spec: Spec, bench: Bench, search: Search, of: Pushed) -> dict[str, Any]:
    """Whether the concept came where its strongest memories push it; by chance as often as it stands in the text."""
    (tokens, push, _), (layer, key) = of, of.memories.T
    at = search.at[layer, key].long()
    there = (push[layer, key] > 0) & (at >= 0)
    came = torch.isin(search.next[at[there]], tokens)
    following = search.next[search.next >= 0]
    return {
        "came": came.long(),
        "share": float(torch.isin(following, tokens).double().mean()),
        "came_interval": interval(
            came.double(), search.sentences.holding(at[there]), bench.generator("intervals", spec.seed)
        ),
    }


def _shown(spec: Spec, bench: Bench, model: Model, search: Search, of: Pushed) -> dict[str, Any]:
    """The triggers at which the strongest memories push the concept most; the first of all is read again, alone."""
    (tokens, push, _), (layer, key) = of, of.memories[:SHOWN].T
    best = push[layer, key].topk(QUOTED, dim=1)
    row, place = (best.values > 0).nonzero(as_tuple=True)
    at = search.at[layer, key].long().gather(1, best.indices)
    sentences, lines = search.sentences, at[row, place]
    amount = (search.coefficient[layer, key].gather(1, best.indices) * search.scale[at])[:, 0]
    wide = torch.promote_types(model.dtype, torch.float32)
    written = [
        float(one) * parts.mlp(model, int(where)).W_out[int(which)].to(wide)
        for one, where, which in zip(amount, layer, key, strict=True)
    ]
    most = pushes(model, torch.stack(written)).topk(TOKENS, dim=-1).indices
    first = int(layer[0])
    seen = read_prefixes(model, sentences.up_to(lines[:1]), first)
    mlp = parts.mlp(model, first, wide)
    again = pushes(model, (seen.m[:, key[0]] * seen.scale).to(wide)[:, None] * mlp.W_out[key[:1]])
    again = (again[:, tokens.to(again.device)].mean() - (again @ _foil(model, search)).mean()).cpu()
    return {
        "row": row,
        "lines": tuple(line(model, sentences, int(one)) for one in lines),
        "part": search.part[sentences.holding(lines)],
        "pushed": tuple(model.token_strings(one) for one in most.tolist()),
        "concept_push": best.values[row, place],
        "algebra_residual": seen.algebra_residual,
        "rounding_residual": seen.rounding_residual,
        "push_residual": (again - best.values[0, 0]).abs() / best.values[0, 0],
        "gauge_residual": gauge_residual(
            model, mlp, seen, key[:1].to(model.device), bench.generator("gauge", spec.seed)
        ),
    }


PUSH = Quantity(
    "push",
    "How far the strongest memory pushes the concept at a trigger, mean over its tokens, less the text's tokens as "
    "they come; null: as many other tokens of the text, median.",
    unit="nats",
    range=(0, math.inf),
    headline=True,
)
LAYER = Quantity(
    "layer",
    f"Mean layer of the {STRONGEST} memories that push hardest, weighed by the push; null: the same of random tokens, "
    "median.",
    unit="layer",
    range=(0, math.inf),
    headline=True,
)
CAME = Quantity(
    "came",
    "Share of the triggers at which these memories push the concept after which a token of it came; null: its share "
    "in the text.",
    range=(0, 1),
    headline=True,
)
BY_LAYER = Quantity("by_layer", "The strongest push of each layer; null: random tokens, mean over layers.", unit="nats")
MARGIN = Quantity(
    "margin",
    "The strongest push by that of nine in ten random tokens: over 1, a memory is for this.",
    unit="×",
    range=(0, math.inf),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Numbers about the memories that push hardest."""
    most, chance = float(out.by_layer.max()), out.chance_by_layer.amax(1).double()
    weight = out.strongest_push.clamp(min=0).double()
    span = None if out.came_interval[0] != out.came_interval[0] else tuple(out.came_interval.tolist())
    return [
        PUSH.is_(most, null=float(chance.median()), n=len(out.strongest)),
        LAYER.is_(
            float((out.strongest[:, 0] * weight).sum() / weight.sum()),
            null=float(out.chance_centre.double().median()),
            n=len(out.strongest),
        ),
        CAME.is_(float(out.came.double().mean()), interval=span, null=out.share, n=len(out.came)),
        BY_LAYER.is_(tuple(out.by_layer.tolist()), null=float(out.chance_by_layer.mean()), n=len(out.by_layer)),
        MARGIN.is_(most / float(chance.quantile(0.9)), null=1.0, n=RANDOM),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, on the strongest trigger of the strongest memory."""
    rounding = max(1e-5, 4 * out.eps)
    checks = [
        Check(
            "Σ mᵢ vᵢ + b = the MLP's output (algebra)",
            float(out.algebra_residual),
            1e-4,
            "the strongest memory's layer in float64 from its parts, the model's own in float32; relative",
        ),
        Check(
            "Σ mᵢ vᵢ + b = the MLP's output (rounding)",
            float(out.rounding_residual),
            rounding,
            "the run's own coefficients against the model's own output, in the run's dtype",
        ),
        Check(
            "streaming top k = direct top k",
            float(out.stream_residual),
            rounding,
            f"one batch read again and looked at sentence by sentence, all memories, {KEPT} triggers of each; as a "
            "share of each one's strongest",
        ),
        Check(
            "the push = that of all logits at the prefix alone",
            float(out.push_residual),
            max(1e-3, 16 * out.eps),
            "the strongest memory's trigger, cut off behind the waking token and read again; relative",
        ),
    ]
    if out.gated:
        checks.append(
            Check(
                "(u, v) → (αu, v/α) changes nothing",
                float(out.gauge_residual),
                1e-4,
                "strengths and pushes there under random α of both signs; relative",
            )
        )
    return checks


def _names(out: Out) -> list[str]:
    return [f"layer {layer}, key {key}" for layer, key in out.strongest[:SHOWN].tolist()]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The memories that push hardest, and how far each layer pushes."""
    firsts = [int((out.row == row).nonzero()[0]) for row in sorted(set(out.row.tolist()))]
    rows = [
        Row(_names(out)[row], Line(*out.lines[at]), out.pushed[row], [float(out.concept_push[at])])
        for at in firsts
        for row in [int(out.row[at])]
    ]
    said = ", ".join(visible(token) for token in out.concept)
    return {
        "memories": draw_memories(f"Of all memories these push {said} hardest", rows, set(out.concept)),
        "layers": _draw_layers(out, said),
    }


def _draw_layers(out: Out, said: str) -> Drawing:
    chance = out.chance_by_layer.double()
    low, high = (chance.quantile(share, dim=0).numpy() for share in (0.05, 0.95))
    layers = range(len(out.by_layer))
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        ax.bar(layers, out.by_layer.tolist(), width=0.75, color=PALETTE[1], label="the concept")
        ax.fill_between(layers, low, high, color=GREY, alpha=0.4, linewidth=0, label="nine in ten random tokens")
        ax.set(xlabel="layer", ylabel="strongest push (nats)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    best = int(out.by_layer.argmax())
    return Drawing(
        figure,
        f"The strongest push of a memory on {said}, by layer: {float(out.by_layer.max()):.2g} nats in layer {best}; of "
        f"random tokens, over all layers, {float(chance.amax(1).median()):.2g} (median).",
    )


def quotes(spec: Spec, out: Out) -> list[Quote]:
    """What wakes the memories shown, and where it stands."""
    names = _names(out)
    return [
        Quote("text", part, *words, said=f"{names[row]}, {push:.2g} nats")
        for part, words, row, push in zip(
            out.part.tolist(), out.lines, out.row.tolist(), out.concept_push.tolist(), strict=True
        )
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The search, where nobody has done it yet; then every memory's push on the concepts."""
    assert shape is not None
    needed = search_needs(shape, spec.tokens, copies=1 if spec.weights == "trained" else 2)
    pushes = shape.layers * shape.d_mlp * (3 * KEPT + 2 * RANDOM) * 4
    return Needs(bytes=int(needed.bytes + pushes), seconds=5 + needed.seconds)


MACHINES = (
    "A computer keeps most numbers as floating point numbers. Whoever sorts a list must compare at least as many "
    "pairs as it has gaps. The old floating point unit was a chip of its own. A vote needs at least as many hands "
    "as the rules ask for. Nothing in a floating point result is exact. We saw a floating island on the lake. She "
    "wrote as well as she spoke. The leaf was floating down the river. He counts in floating point and rounds at "
    "the end. The ship was floating again by noon. The price rose three times as much as the wage. A non-negative "
    "number is zero or more. Floating point arithmetic is not associative. The rule is as old as the hills. Integer "
    "and floating point values are kept apart. The needle was the high point of the city. At this point we stop."
)
"""A text for the example: some sentences on floating point numbers."""

EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(PUSH, LAYER, CAME, BY_LAYER, MARGIN),
    figures={
        "memories": "The memories that push the concept hardest: what wakes them, and what they push there.",
        "layers": "Layer by layer, how far the strongest memory pushes the concept, and how far random tokens.",
    },
    examples=(
        Example(
            "who-writes-point",
            "“point” is pushed from the upper layers, by memories that wake at “floating”",
            {"concept": ["point"], "text": MACHINES},
            ("push > 4", "layer > 20", "margin > 1"),
        ),
    ),
    needs=needs,
    quotes=quotes,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
