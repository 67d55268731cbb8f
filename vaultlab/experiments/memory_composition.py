"""Memory composition: do an MLP's memories speak with one voice, and who decides the guess, layer by layer?

Within a layer many memories are active at once and what they write adds up. Between layers the MLP's write meets the
guess that the stream already holds. The top token of a write is what it pushes most, of a stream what it would answer
through the final norm, computed anew for each:

    y = Σ_i m_i v_i + b        x_after = x_mid + y
    top(y) = argmax (y ∘ gain) W_U        top(x) = argmax norm(x) W_U

    zero agreement    top(Σ m_i v_i) is top(m_i v_i) of none of the active memories i          (b is no memory)

    residual          top(x_after) = top(x_mid) ≠ top(y)      the guess stays, whatever the MLP pushes
    agreement         top(x_after) = top(x_mid) = top(y)      the guess stays, and the MLP pushes it too
    ffn               top(x_after) = top(y) ≠ top(x_mid)      overturned: the MLP's own guess wins
    composition       top(x_after) is neither                 overturned: a third token, pushed most by neither

The paper calls the stream before the MLP the residual. Attention moves the stream too, between one MLP and the next:
so the residual is the stream *behind* the layer's attention, x_mid, with a guess of its own, and what attention
overturns is told apart. (Where attention and MLP read the same stream, x_mid is that stream and what attention adds.)
The output is decided at the first step, embedding, attention or MLP, from which on the guess stays the answer.

How many memories are *active*, and so the zero agreement, depends on the definition; four stand side by side:

    all               every memory that writes anything: in a gated MLP nearly all, always
    above zero        its key answers above 0, as in the paper, whose f is ReLU; where the MLP is gated, its gate
    half              the fewest that hold half of Σ ‖m_i v_i‖
    top               the `top` largest ‖m_i v_i‖

In a gated MLP the sign of m_i means nothing, for (u, −v) is the same memory as (−u, v), and what its key keeps below 0
is small but not nothing: only ‖m_i v_i‖ says what takes part. Nulls: for zero agreement the memories active at another
token of the text, exactly averaged over all pairs; for who decides, a random write as long as y in its place; for the
layer of decision, the answer at the position before. Sinks (tokens whose stream is over 5 × the median norm) are left
out. Positions of one text are no independent evidence: there are no intervals.

How to read the figures. In `deciders` the areas say who decides by layer, kept guesses below, overturned ones above,
and the dashed line is where that border would lie with random writes; below, at which layer the answers were decided.
In `words` each line is a token of the text, blank where an MLP leaves the guess alone, in colour where it agrees or
overturns; a mark is where attention overturned it, the dot where the answer was decided and the line from there on, and
beside it the guess that gave way → the answer. In `within` is zero agreement by layer and definition, dashed its null,
and how many memories each calls active. In `gains` is what attention and MLP of each layer add to the log-probability
of the answer.

Source: Mor Geva, Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value
Memories", sections 5.1 "Intra-Layer Memory Composition" and 5.2 "Inter-Layer Prediction Refinement",
https://aclanthology.org/2021.emnlp-main.446
"""

import math
from dataclasses import replace
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
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.active import DEFINITIONS, Composed, composed
from vaultlab.models.family import Shape
from vaultlab.models.guesses import CHUNK, guessed, pushed_first, settled
from vaultlab.models.model import Model
from vaultlab.models.prefixes import apart
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tokens import Template
from vaultlab.models.tops import Sides, Tops, sides, tops, tops_residual
from vaultlab.models.trace import Site, SiteName, sinks
from vaultlab.plots.deciders import CASES, TextLine, draw_deciders, draw_gains, draw_within, draw_words
from vaultlab.plots.style import Drawing, visible
from vaultlab.result import Check, Metric

SHOWN = 28
"""Tokens shown, the text's last ones."""

CHECKED = 4
"""Memories of each layer whose top tokens are found once more, in float64."""

REGAUGED = 256
"""Memories that are written down another way, for the check that this changes nothing."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = (
        "The old keeper of the lighthouse climbed the stairs every evening to light the lamp. When the storm came, he "
        "stayed awake all night long, because the ships out at sea could not find the harbour without him. In the "
        "morning the wind was gone, and he went to bed."
    )
    """What it reads."""

    top: int = Field(10, ge=1, le=256, json_schema_extra={"symbol": "k", "stress": [3, 30]})
    """How many memories are active by the definition `top`."""

    tokens: int = Field(128, ge=2, le=512, json_schema_extra={"stress": [20, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the draws of random writes and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind, of the positions that are no sinks.

    `guess` has a row a step: the embedding's, then of each layer that behind its attention and that behind its MLP;
    `nats` is −log p of the answer there. `ffn` is what each MLP pushes most. `null` are the shares of the four cases
    with random writes, `null_nats` −log p of the answer then, mean over positions. `active` to `null_alone` are a
    layer's `Composed`, definition by definition. `lines` are the tokens shown: the token, the guess that gave way, the
    answer.
    """

    read: int
    d_mlp: int
    eps: float
    gated: bool
    kept: Int[Tensor, " pos"]
    guess: Int[Tensor, "step pos"]
    nats: Float[Tensor, "step pos"]
    ffn: Int[Tensor, "layer pos"]
    null: Float[Tensor, "layer case"]
    null_nats: Float[Tensor, " layer"]
    active: Float[Tensor, "definition layer"]
    alone: Bool[Tensor, "definition layer pos"]
    null_alone: Float[Tensor, "definition layer"]
    lines: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]
    memory_residual: Float[Tensor, ""]
    stream_residual: Float[Tensor, ""]
    answer_residual: Float[Tensor, ""]
    top_residual: Float[Tensor, ""]
    gauge_changes: int


def cases(
    residual: Int[Tensor, "*layer pos"], ffn: Int[Tensor, "*layer pos"], output: Int[Tensor, "*layer pos"]
) -> Int[Tensor, "*layer pos"]:
    """Who decided, as a place in `CASES`."""
    kept, pushed = output == residual, output == ffn
    return torch.where(kept, torch.where(pushed, 1, 0), torch.where(pushed, 2, 3))


def _sites(shape: Shape) -> tuple[Site, ...]:
    names: tuple[SiteName, ...] = ("resid_pre", "attn", "mlp_in", "mlp")
    inside = (Site(name, layer) for layer in range(shape.layers) for name in names)
    return (*inside, Site("final"), Site("logits"))


class Reading(NamedTuple):
    """A text's activations, at the positions that are no sinks, and the model's answer there."""

    at: dict[Site, Float[Tensor, "pos _"]]
    streams: list[Float[Tensor, "pos d_model"]]
    answer: Int[Tensor, " pos"]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass; then layer by layer the guesses before and behind each MLP, and its values' top tokens."""
    model = bench.model(spec.model)
    if not model.shape.d_mlp:
        raise NoteError(
            f"{model.name} has no MLP, and so no memories.", "Take another model, such as smollm2-135m.", field="model"
        )
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    whole = model.tokens(
        "\n\n".join(part for _, part in bench.text("text").parts), bos=spec.bos, template=spec.template
    )
    ids = whole.ids[: spec.tokens]
    bench.progress(0, model.shape.layers, "reading the text")
    reading, kept = _read(bench, model, ids)
    start = guessed(model, reading.streams[0], reading.answer)
    values = tops(bench, model)
    layers = [_layer(spec, bench, model, reading, values, layer) for layer in range(model.shape.layers)]
    guess = torch.stack([start.first, *(one for layer in layers for one in layer.guess)])
    within = [layer.within for layer in layers]
    return Out(
        read=len(ids),
        d_mlp=model.shape.d_mlp,
        eps=torch.finfo(model.dtype).eps,
        gated=model.shape.gated,
        kept=kept,
        guess=guess,
        nats=torch.stack([start.nats, *(one for layer in layers for one in layer.nats)]),
        ffn=torch.stack([layer.ffn for layer in layers]),
        null=torch.stack([layer.null for layer in layers]),
        null_nats=torch.stack([layer.null_nats for layer in layers]),
        active=torch.stack([one.active.double().mean(1) for one in within], dim=1),
        alone=torch.stack([one.alone for one in within], dim=1),
        null_alone=torch.stack([one.null_alone for one in within], dim=1),
        lines=_lines(model, ids[kept], guess),
        left_out=tuple(one for at, one in enumerate(whole.strings[: spec.tokens]) if at not in kept.tolist()),
        memory_residual=torch.stack([layer.memory_residual for layer in layers]).max(),
        stream_residual=torch.stack([layer.stream_residual for layer in layers]).max(),
        answer_residual=_answer_residual(reading, guess[-1]),
        top_residual=_top_residual(model, values, bench.generator("checked", spec.seed)),
        gauge_changes=_gauge_changes(spec, bench, model, reading, values),
    )


def _read(bench: Bench, model: Model, ids: Int[Tensor, " pos"]) -> tuple[Reading, Int[Tensor, " kept"]]:
    found = {site: one[0] for site, one in bench.trace(model, ids[None], _sites(model.shape)).items()}
    places = (*(Site("resid_pre", layer) for layer in range(model.shape.layers)), Site("final"))
    kept = (~torch.stack([sinks(found[site]) for site in places]).any(0)).nonzero()[:, 0]
    if len(kept) < 2:
        raise NoteError(
            f"{model.name} reads this text as {len(ids)} token{'s' * (len(ids) != 1)}, {len(ids) - len(kept)} of them "
            "massive, and two others are needed.",
            "Give it a longer text.",
            field="text",
        )
    found = {site: one[kept] for site, one in found.items()}
    answer = found[Site("logits")].argmax(-1).cpu()
    return Reading(found, [found[site] for site in places], answer), kept.cpu()


class Layer(NamedTuple):
    """One layer: guesses behind its attention and behind its MLP, −log p of the answer there, and what they are with a
    random write instead of the MLP's."""

    guess: tuple[Tensor, Tensor]
    nats: tuple[Tensor, Tensor]
    ffn: Tensor
    null: Tensor
    null_nats: Tensor
    within: Composed
    memory_residual: Tensor
    stream_residual: Tensor


def _layer(spec: Spec, bench: Bench, model: Model, reading: Reading, values: Tops, layer: int) -> Layer:
    bench.progress(layer, model.shape.layers, "asking every layer")
    wide = torch.promote_types(model.dtype, torch.float32)
    read, written = (reading.at[Site(name, layer)].to(wide) for name in ("mlp_in", "mlp"))
    mid, after = reading.streams[layer] + reading.at[Site("attn", layer)], reading.streams[layer + 1]
    mlp = parts.mlp(model, layer, wide)
    within = composed(model, mlp, values.of(layer), read, spec.top)
    noise = torch.randn(written.shape, generator=bench.generator("random writes", spec.seed, layer)).to(written)
    random = noise * written.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    before, behind, instead = (
        guessed(model, stream, reading.answer) for stream in (mid, after, (mid + random).to(mid.dtype))
    )
    decided = cases(before.first, pushed_first(model, random), instead.first)
    return Layer(
        (before.first, behind.first),
        (before.nats, behind.nats),
        pushed_first(model, written) if mlp.b_out.any() else within.first,
        torch.bincount(decided, minlength=len(CASES)).double() / len(decided),
        instead.nats.double().mean(),
        within,
        _memory_residual(model, layer, read, written),
        apart(mid.to(wide) + written, after.to(wide)).cpu(),
    )


def _memory_residual(model: Model, layer: int, read: Tensor, written: Tensor) -> Tensor:
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    return apart(parts.mlp(model, layer, wide)(read.to(wide)), written.to(wide)).cpu()


def _top_residual(model: Model, values: Tops, generator: torch.Generator) -> Tensor:
    """Of some values of every layer, up and down."""
    wide, v, first = torch.promote_types(model.dtype, torch.float32), [], []
    for layer in range(model.shape.layers):
        keys = torch.randperm(model.shape.d_mlp, generator=generator)[:CHECKED]
        some, own = parts.mlp(model, layer).W_out[keys.to(model.device)].to(wide), values.of(layer)
        v += [some, -some]
        first += [own.first[keys], own.last[keys]]
    return tops_residual(model, torch.cat(v), torch.cat(first))


def _answer_residual(reading: Reading, guess: Int[Tensor, " pos"]) -> Tensor:
    """What the last guess lacks to the largest of the model's own logits, as a share of these."""
    logits = reading.at[Site("logits")].float()
    short = logits.amax(-1) - logits.gather(-1, guess[:, None].to(logits.device))[:, 0]
    return (short / logits.abs().amax(-1).clamp(min=1e-30)).max().cpu()


def _gauge_changes(spec: Spec, bench: Bench, model: Model, reading: Reading, values: Tops) -> int:
    """How many counts and agreements change when every (u, v) becomes (αu, v/α), α of either sign, for an MLP of some
    memories of a layer. Powers of two, which round nothing: whatever changes is due to the gauge."""
    layer, wide = model.shape.layers // 2, torch.promote_types(model.dtype, torch.float32)
    mlp = parts.mlp(model, layer, wide)
    if mlp.W_gate is None or mlp.b_gate is None:
        return 0
    generator = bench.generator("gauge", spec.seed)
    some = torch.randperm(model.shape.d_mlp, generator=generator)[:REGAUGED]
    size = 2.0 ** torch.randint(-3, 4, some.shape, generator=generator)
    alpha = (size * (1 - 2 * torch.randint(0, 2, some.shape, generator=generator))).to(mlp.W_in)
    few = replace(
        mlp,
        W_in=mlp.W_in[:, some],
        b_in=mlp.b_in[some],
        W_gate=mlp.W_gate[:, some],
        b_gate=mlp.b_gate[some],
        W_out=mlp.W_out[some],
    )
    other = replace(few, W_in=few.W_in * alpha, b_in=few.b_in * alpha, W_out=few.W_out / alpha[:, None])
    read, own = reading.at[Site("mlp_in", layer)].to(wide), values.of(layer)
    one = composed(model, few, Sides(own.first[some], own.last[some]), read, spec.top)
    again = composed(model, other, sides(model, other.W_out), read, spec.top)
    return int((again.active != one.active).sum() + (again.alone != one.alone).sum())


def _lines(model: Model, ids: Int[Tensor, " pos"], guess: Int[Tensor, "step pos"]) -> tuple[tuple[str, str, str], ...]:
    """The last tokens: each, the last guess there that is not the answer, the answer."""
    since, places = settled(guess), torch.arange(len(ids))
    was = guess[(since - 1).clamp(min=0), places]
    columns = zip(*(model.token_strings(one[-SHOWN:].tolist()) for one in (ids, was, guess[-1])), strict=True)
    return tuple(columns)


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, all that is written to the stream, what the MLPs read, and the answer."""
    if spec.weights == "shuffled" or not shape.d_mlp:
        return None
    return Reads(("whole", spec.tokens, spec.bos, spec.template), _sites(shape))


DECIDED = Quantity(
    "decided",
    "Layers passed when the guess becomes what it stays, attention being half a layer, mean over positions; null: the "
    "same against the answer at the position before.",
    unit="layers",
    range=(0, math.inf),
    headline=True,
)
OVERTURNED = Quantity(
    "overturned",
    "How many of the MLPs overturn the guess, mean over positions; null: random writes of the same length.",
    unit="MLPs",
    range=(0, math.inf),
    headline=True,
)
COMPOSED = Quantity(
    "composed",
    "Of the guesses that an MLP overturns, the share that becomes a third token, which neither pushed most; null: "
    "random writes of the same length; absent where none is overturned.",
    range=(0, 1),
    headline=True,
)
BY_MLP = Quantity("by_mlp", "Share of positions whose answer an MLP decides.", range=(0, 1))
BY_ATTENTION = Quantity("by_attention", "Share of positions whose answer an attention decides.", range=(0, 1))
CASE = tuple(
    Quantity(
        name,
        f"Share of positions at which {what}, layer by layer; null: random writes of the same length, mean over "
        "layers.",
        range=(0, 1),
    )
    for name, what in zip(
        CASES,
        (
            "the guess stays and the MLP pushes another token",
            "the guess stays and the MLP pushes it too",
            "the guess becomes what the MLP pushes",
            "the guess becomes a third token",
        ),
        strict=True,
    )
)
FORESEEN = Quantity(
    "foreseen",
    "Share of positions at which the residual's guess is the answer already, layer by layer; null: the answer at the "
    "position before, mean over layers.",
    range=(0, 1),
)
MLP_GAIN = Quantity(
    "mlp_gain",
    "What each MLP adds to the log-probability of the answer, mean over positions; null: random writes of the same "
    "length, median over layers.",
    unit="nats",
)
ATTENTION_GAIN = Quantity(
    "attention_gain",
    "What each attention adds to the log-probability of the answer, mean over positions.",
    unit="nats",
)
_BY = {
    "all": "every memory that writes anything is active",
    "above_zero": "a memory is active whose key, or gate, answers above 0",
    "half": "the fewest memories that hold half of Σ ‖m v‖ are active",
    "top": "the `top` memories with the largest ‖m v‖ are active",
}
ACTIVE = tuple(
    Quantity(
        f"active_{name}",
        f"How many memories are active where {_BY[name]}, layer by layer, mean over positions.",
        unit="memories",
        range=(0, math.inf),
    )
    for name in DEFINITIONS[:-1]
)
ZERO = tuple(
    Quantity(
        f"zero_agreement_{name}",
        f"Share of positions at which no active memory's top token is the layer's, where {_BY[name]}, layer by layer; "
        "null: the memories active at another position, mean over layers.",
        range=(0, 1),
    )
    for name in DEFINITIONS
)


def who(out: Out) -> Int[Tensor, "layer pos"]:
    """Who decided, layer by layer."""
    return cases(out.guess[1::2], out.ffn, out.guess[2::2])


def _against_before(out: Out) -> Int[Tensor, "step pos"]:
    """The same guesses, as if the answer were that of the position before."""
    return torch.cat([out.guess[:-1], out.guess[-1:].roll(1, 1)])


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over positions."""
    decided, others = who(out), _against_before(out)
    count, null = decided.shape[1], out.null.mean(0)
    shares = torch.stack([(decided == case).double().mean(1) for case in range(len(CASES))])
    since = settled(out.guess)
    gains = -out.nats.double().mean(1).diff()
    turned, by_chance = float(shares[2:].sum()), float(out.null[:, 2:].sum())
    null_composed = float(out.null[:, 3].sum()) / by_chance if by_chance else None
    foreseen, null_foreseen = ((out.guess[1::2] == answer).double().mean(1) for answer in (out.guess[-1], others[-1]))
    null_gain = float((out.nats[1::2].double().mean(1) - out.null_nats).quantile(0.5))

    def of_layers(quantity: Quantity, values: Tensor, null: float | None = None) -> Metric:
        return quantity.is_(tuple(values.tolist()), null=null, n=count)

    return [
        DECIDED.is_(float(since.double().mean()) / 2, null=float(settled(others).double().mean()) / 2, n=count),
        OVERTURNED.is_(turned, null=by_chance, n=count),
        *(
            [COMPOSED.is_(float(shares[3].sum()) / turned, null=null_composed, n=round(turned * count))]
            if turned
            else []
        ),
        BY_MLP.is_(float(((since > 0) & (since % 2 == 0)).double().mean()), n=count),
        BY_ATTENTION.is_(float((since % 2 == 1).double().mean()), n=count),
        *(of_layers(*one) for one in zip(CASE, shares, null.tolist(), strict=True)),
        of_layers(FORESEEN, foreseen, float(null_foreseen.mean())),
        of_layers(MLP_GAIN, gains[1::2], null_gain),
        of_layers(ATTENTION_GAIN, gains[::2]),
        *(of_layers(*one) for one in zip(ACTIVE, out.active[:-1], strict=True)),
        *(
            of_layers(quantity, alone.double().mean(1), float(chance.mean()))
            for quantity, alone, chance in zip(ZERO, out.alone, out.null_alone, strict=True)
        ),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(1e-5, 4 * out.eps)
    residual, output = out.guess[1::2], out.guess[2::2]
    kept, pushed, same = output == residual, output == out.ffn, residual == out.ffn
    once = (kept & ~pushed).int() + (kept & pushed & same).int() + (~kept & pushed).int() + (~kept & ~pushed).int()
    checks = [
        Check(
            "Σ mᵢ vᵢ + b = the MLP's output",
            float(out.memory_residual),
            max(1e-4, 16 * out.eps),
            "all layers, all positions, in float64 from what the MLP read; relative",
        ),
        Check(
            "residual + MLP = the stream after it",
            float(out.stream_residual),
            rounding,
            "all layers, all positions; relative",
        ),
        Check(
            "the last layer's guess is the model's answer",
            float(out.answer_residual),
            rounding,
            "what it lacks to the largest of the model's own logits; relative",
        ),
        Check(
            "each guess is decided once",
            float((once != 1).sum()),
            0,
            "positions of a layer that are in none or in several of the four cases",
        ),
        Check(
            "a memory's top token is pushed most",
            float(out.top_residual),
            max(1e-4, 16 * out.eps),
            f"{CHECKED} values a layer in float64, up and down: what the top token lacks to the most, as a share",
        ),
    ]
    if out.gated:
        gauge = Check(
            "(u, v) → (αu, v/α) changes nothing",
            float(out.gauge_changes),
            0,
            f"{REGAUGED} memories of a middle layer, α powers of two of either sign: counts and agreements that change",
        )
        checks.append(gauge)
    return checks


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, what is read of every layer, and the logits; six unembeddings a layer, and once a model the values'
    top tokens, where nobody has found them yet."""
    assert shape is not None
    held = (4 * shape.layers + 2) * spec.tokens * shape.d_model * 4
    logits = (spec.tokens + 4 * CHUNK) * shape.d_vocab * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    unembeddings = shape.layers * (6 * spec.tokens + shape.d_mlp) * 2 * shape.d_model * shape.d_vocab
    return Needs(weights + held + logits, 3 + (unembeddings + 2 * shape.parameters * spec.tokens) / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """Who decides, the text with its guesses, agreement within each layer, and what each layer adds."""
    decided, since = who(out), settled(out.guess)
    turned = (out.guess[1::2] != out.guess[:-1:2]).numpy()
    nats = out.nats.double().mean(1)
    gains = -nats.diff()
    some = slice(-len(out.lines), None)
    shares = torch.stack([(decided == case).double().mean(1) for case in range(len(CASES))])
    lines = [TextLine(*line) for line in out.lines]
    return {
        "deciders": _with_left_out(out, draw_deciders(shares.numpy(), out.null.numpy(), since.numpy())),
        "words": draw_words(lines, decided[:, some].numpy(), turned[:, some], since[some].numpy()),
        "within": draw_within(
            out.alone.double().mean(2).numpy(), out.null_alone.numpy(), out.active.numpy(), _names(spec)
        ),
        "gains": draw_gains(gains[::2].numpy(), gains[1::2].numpy(), (nats[1::2] - out.null_nats).numpy()),
    }


def _names(spec: Spec) -> tuple[str, ...]:
    return ("all", "above zero", "half of Σ ‖m v‖", f"top {spec.top}")


def _with_left_out(out: Out, drawing: Drawing) -> Drawing:
    """The same figure, its words listing what was left out."""
    if not out.left_out:
        return drawing
    listed = ", ".join(map(visible, out.left_out[:8]))
    return drawing._replace(alt=f"{drawing.alt} Left out as sinks: {len(out.left_out)} of {out.read} tokens, {listed}.")


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        DECIDED,
        OVERTURNED,
        COMPOSED,
        BY_MLP,
        BY_ATTENTION,
        *CASE,
        FORESEEN,
        MLP_GAIN,
        ATTENTION_GAIN,
        *ACTIVE,
        *ZERO,
    ),
    figures={
        "deciders": "By layer, whether the guess stays or is overturned, and by whom; at which layer it was decided.",
        "words": "The text, token by token: where the guess was overturned and where decided, with the words.",
        "within": "By layer, how often no active memory's top token is the layer's, by four definitions of active.",
        "gains": "What attention and MLP of each layer add to the log-probability of the answer.",
    },
    examples=(
        Example(
            "no-memory-says-it-alone",
            "A layer seldom writes what one of its strongest memories would, and seldom wins with what it writes",
            {},
            ("composed > 50%", "mean of zero_agreement_top > 50%"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
