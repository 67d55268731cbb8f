"""Attention: where each head looks, and how much it moves from there.

One forward pass over a text. A head h reads the normed stream x, looks from each token i at the tokens j before it with
weights A_ij that sum to 1, and adds what it finds there to the stream:

    h(x) = (A ⊗ W_O W_V) x        write of token i = Σ_j A_ij · x_j W_V W_O
    attention's output = Σ_h h(x) + one constant from the biases

A weight says where a head looks, not how much it takes from there. Most heads rest on a *sink*: the text's first token,
sometimes another one with a massive activation, whose value is next to nothing. So the pattern shown is the weighted
one:

    weighted A_ij = A_ij · ‖x_j W_V W_O‖         the length of what j adds to i

x_j counts without the norm's bias and the value without b_V. They are the same wherever a head looks, since rows of A
sum to 1; they belong to the layer's constant. Sinks are position 0 and every token whose stream is over 5 × the median
norm where the layer reads it. Averages are over the tokens that are no sinks, as the ones that look.

    entropy        −Σ_j A_ij log₂ A_ij        0: one token; uniform attention: log₂ of how many tokens are visible
    write norm     ‖Σ_j A_ij x_j W_V W_O‖ over the j that are no sinks, as a share of the stream that leaves the layer

Shown are all heads of the model, or with `layer` those of one layer; `head` is drawn large, by default the one that
writes most. That choice is made on the same text, so its own `head_write_share` is no evidence that it is special.

How to read the figures. In `pattern` each row is a token and the row's cells say how much it gets from each token
before it; the hatched columns are sinks, their share of all attention and of all that moves is written above. `arcs`
shows the same over the text, sinks left out: the thicker an arc, the more moves along it. In `heads` a bright cell left
is a head that writes much, a bright cell right one that mostly looks at the sink. In `entropy` heads near the dashed
line look everywhere alike, heads at the left look at one token. In `patterns` every tile is a head: a bright diagonal
is the token itself, a line beside it the previous token, a left edge the sink.

Source: Nelson Elhage, Neel Nanda, Catherine Olsson, Tom Henighan, Nicholas Joseph, Ben Mann, Amanda Askell, Yuntao
Bai, Anna Chen, Tom Conerly, Nova DasSarma, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Andy Jones,
Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan, Sam McCandlish, Chris
Olah (2021), "A Mathematical Framework for Transformer Circuits", sections "Attention Heads are Independent and
Additive" and "Attention Heads as Information Movement", https://transformer-circuits.pub/2021/framework/index.html

The weighted pattern: Goro Kobayashi, Tatsuki Kuribayashi, Sho Yokoi, Kentaro Inui (2020), "Attention is Not Only a
Weight: Analyzing Transformers with Vector Norms", section 3, https://aclanthology.org/2020.emnlp-main.574

Sinks: Guangxuan Xiao, Yuandong Tian, Beidi Chen, Song Han, Mike Lewis (2024), "Efficient Streaming Language Models with
Attention Sinks", section 3, https://arxiv.org/abs/2309.17453. Mingjie Sun, Xinlei Chen, J. Zico Kolter, Zhuang Liu
(2024), "Massive Activations in Large Language Models", section 2, https://arxiv.org/abs/2402.17762
"""

import base64
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    Head,
    Layer,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    Share,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.family import Shape
from vaultlab.models.heads import SLICE, Reading, address, apart, constant, kronecker_residual, read, rebuilt
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tokens import Template, Tokens
from vaultlab.models.trace import Site, SiteName
from vaultlab.plots.attention import (
    Heads,
    Pattern,
    draw_arcs,
    draw_entropy,
    draw_heads,
    draw_pattern,
    draw_patterns,
)
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

PARKED = 0.5
"""A head parks on sinks that have more than half of its attention, or of what it moves."""

ALGEBRA = 1e-5
"""How far two ways to the same number may be apart in float64, or in float32 where a device has no other."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "When Mary and John went to the store, John gave a drink to Mary."
    """What it reads."""

    layer: Layer | None = None
    """Only this layer's heads, counted from 0; none: all layers."""

    head: Head | None = None
    """The head that is drawn large, as L17H8; none: the one that writes most, what comes from sinks not counted."""

    tokens: int = Field(128, ge=3, le=512, json_schema_extra={"stress": [10, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    threshold: Share = Field(PARKED, gt=0, lt=1, json_schema_extra={"stress": [0.3, 0.7]})
    """A head parks where more than this share of its attention, or of what it moves, is on sinks."""

    weights: Weights = "trained"

    @model_validator(mode="after")
    def _one_layer(self) -> "Spec":
        if self.layer is not None and self.head is not None and address(self.head)[0] != self.layer:
            raise ValueError(f"The head {self.head} is not in layer {self.layer}.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind: the Readings of all layers shown, stacked, and the whole pattern of one head.

    `length` is the whole text's, in tokens; `eps` that of the run's dtype; `moved` is the head's ‖x_j W_V W_O‖.
    """

    tokens: tuple[str, ...]
    length: int
    layers: tuple[int, ...]
    head: str
    eps: float
    sinks: Bool[Tensor, "layer pos"]
    sink_norm: Float[Tensor, " layer"]
    entropy: Float[Tensor, "layer head"]
    sink_mass: Float[Tensor, "layer head"]
    weighted_sink_mass: Float[Tensor, "layer head"]
    previous_token: Float[Tensor, "layer head"]
    write_norm: Float[Tensor, "layer head"]
    uniform_entropy: Float[Tensor, " layer"]
    uniform_sink_mass: Float[Tensor, " layer"]
    uniform_previous_token: Float[Tensor, " layer"]
    small: Float[Tensor, "layer head cell cell"]
    row_residual: Float[Tensor, " layer"]
    ahead_residual: Float[Tensor, " layer"]
    rounding_residual: Float[Tensor, " layer"]
    pattern: Float[Tensor, "query key"]
    moved: Float[Tensor, " key"]
    exact_write_norm: Float[Tensor, ""]
    pattern_residual: Float[Tensor, ""]
    heads_residual: Float[Tensor, ""]
    kronecker_residual: Float[Tensor, ""]
    stream_residual: Float[Tensor, ""]


Found = dict[Site, Tensor]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass, then layer by layer in float32; identities of the drawn head's layer in float64."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    tokens = _tokens(spec, model, "\n\n".join(part for _, part in bench.text("text").parts))
    layers = _layers(spec, model)
    bench.progress(0, len(layers), "reading the text")
    found = {site: one[0] for site, one in bench.trace(model, tokens.ids[None, : spec.tokens], _sites(layers)).items()}
    readings = []
    for done, layer in enumerate(layers):
        bench.progress(done, len(layers), "weighing what heads move")
        readings.append(_reading(model, layer, found))
    stacked = {name: torch.stack(values).cpu() for name, *values in zip(Reading._fields, *readings, strict=True)}
    chosen = address(spec.head) if spec.head else _strongest(layers, stacked["write_norm"])
    return Out(
        tokens=tokens.strings[: spec.tokens],
        length=len(tokens.ids),
        layers=tuple(layers),
        head=f"L{chosen[0]}H{chosen[1]}",
        eps=torch.finfo(model.dtype).eps,
        **stacked,
        **_exact(model, chosen, found, stacked["sinks"][layers.index(chosen[0])]),
        stream_residual=_stream_residual(found, layers),
    )


def _tokens(spec: Spec, model: Model, text: str) -> Tokens:
    tokens = model.tokens(text, bos=spec.bos, template=spec.template)
    count = len(tokens.ids)
    if count < 3:
        raise NoteError(
            f"{model.name} reads this text as {count} token{'s' * (count > 1)}; attention needs at least 3.",
            "Give it a sentence.",
            field="text",
        )
    return tokens


def _layers(spec: Spec, model: Model) -> list[int]:
    """The layers shown. NoteError for a layer or head that the model has not."""
    shape = model.shape
    if spec.layer is not None and spec.layer >= shape.layers:
        raise NoteError(
            f"{model.name} has no layer {spec.layer}.", f"Its layers are 0 to {shape.layers - 1}.", field="layer"
        )
    if spec.head is not None:
        layer, number = address(spec.head)
        if layer >= shape.layers or number >= shape.heads:
            last = f"L{shape.layers - 1}H{shape.heads - 1}"
            raise NoteError(f"{model.name} has no head {spec.head}.", f"Its heads are L0H0 to {last}.", field="head")
    return list(range(shape.layers)) if spec.layer is None else [spec.layer]


def _sites(layers: Sequence[int]) -> tuple[Site, ...]:
    names: tuple[SiteName, ...] = ("resid_pre", "attn_in", "pattern", "attn", "mlp")
    return (*(Site(name, layer) for layer in layers for name in names), Site("resid_post", layers[-1]))


def _reading(model: Model, layer: int, found: Found) -> Reading:
    wide = torch.promote_types(model.dtype, torch.float32)
    attn, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
    x, A, before, output = (found[Site(name, layer)].to(wide) for name in ("attn_in", "pattern", "resid_pre", "attn"))
    reading, moved = read(attn, x - norm.bias, A, before, _after(found, layer).to(wide), model.shape.kv_heads)
    return reading._replace(rounding_residual=apart(moved + constant(attn, norm), output))


def _strongest(layers: list[int], write_norm: Float[Tensor, "layer head"]) -> tuple[int, int]:
    row, number = divmod(int(write_norm.argmax()), write_norm.shape[1])
    return layers[row], number


def _exact(model: Model, chosen: tuple[int, int], found: Found, sink: Bool[Tensor, " pos"]) -> dict[str, Tensor]:
    """The drawn head's pattern, what it moves and how much it writes, and its layer's identities, in float64."""
    layer, number = chosen
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    attn, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
    whole, A = found[Site("attn_in", layer)].to(wide), found[Site("pattern", layer)].to(wide)
    x, W_V, W_O = whole - norm.bias, attn.W_V[number], attn.W_O[number]
    own, moved = attn.pattern(whole), x @ W_V @ W_O
    together = attn.writes(attn.z(own, whole)).sum(-2) + attn.b_O  # biases in every value, not in one constant
    kept = (~sink).to(model.device)
    write = (A[number][kept][:, kept] @ moved[kept]).norm(dim=-1) / _after(found, layer)[kept].to(wide).norm(dim=-1)
    return {
        "pattern": A[number].float().cpu(),
        "moved": moved.norm(dim=-1).float().cpu(),
        "exact_write_norm": write.mean().cpu(),
        "pattern_residual": (own - A).abs().max().cpu(),
        "heads_residual": apart(rebuilt(attn, norm, x, own), together).cpu(),
        "kronecker_residual": kronecker_residual(A[number], x, W_V, W_O).cpu(),
    }


def _after(found: Found, layer: int) -> Float[Tensor, "pos d_model"]:
    """The stream that leaves a layer."""
    enters_next = found.get(Site("resid_pre", layer + 1))
    return found[Site("resid_post", layer)] if enters_next is None else enters_next


def _stream_residual(found: Found, layers: list[int]) -> Float[Tensor, ""]:
    """How far the stream that leaves the last layer is from what entered the first and all that was written since."""
    written = [found[Site(name, layer)] for layer in layers for name in ("attn", "mlp")]
    first, last = found[Site("resid_pre", layers[0])], found[Site("resid_post", layers[-1])]
    total = first.cpu().double()
    for part in written:
        total += part.cpu()
    residual: Tensor = ((total - last.cpu()).norm(dim=-1) / last.cpu().norm(dim=-1)).max()
    return residual


SINK_HEADS = Quantity(
    "sink_heads",
    "Share of heads that park: more than `threshold` of their attention is on sinks; null: uniform attention.",
    range=(0, 1),
    headline=True,
)
WEIGHTED_SINK_HEADS = Quantity(
    "weighted_sink_heads",
    "Share of heads for which more than `threshold` of what they move comes from sinks; null: what their attention "
    "says, `sink_heads`.",
    range=(0, 1),
    headline=True,
)
HEAD_ENTROPY = Quantity(
    "head_entropy",
    "Entropy of the drawn head's attention, mean over tokens; null: uniform attention.",
    unit="bits",
    range=(0, 9),
    headline=True,
)
HEAD_SINK_MASS = Quantity(
    "head_sink_mass",
    "Share of the drawn head's attention that is on sinks; null: uniform attention.",
    range=(0, 1),
)
HEAD_WEIGHTED_SINK_MASS = Quantity(
    "head_weighted_sink_mass",
    "Share of what the drawn head moves that comes from sinks.",
    range=(0, 1),
)
HEAD_PREVIOUS_TOKEN = Quantity(
    "head_previous_token",
    "Share of the drawn head's attention that is on the token before, where that is no sink; null: uniform attention.",
    range=(0, 1),
)
HEAD_WRITE_SHARE = Quantity(
    "head_write_share",
    "The drawn head's write norm by the sum of its layer's; null: 1 by the number of heads. No evidence where the head "
    "was chosen for it.",
    range=(0, 1),
)
ENTROPY = Quantity(
    "entropy",
    "Entropy of every head's attention, mean over tokens, layer after layer; null: uniform attention.",
    unit="bits",
    range=(0, 9),
)
SINK_MASS = Quantity(
    "sink_mass",
    "Share of every head's attention that is on sinks; null: uniform attention.",
    range=(0, 1),
)
WEIGHTED_SINK_MASS = Quantity(
    "weighted_sink_mass",
    "Share of what every head moves that comes from sinks.",
    range=(0, 1),
)
PREVIOUS_TOKEN = Quantity(
    "previous_token",
    "Share of every head's attention that is on the token before, where that is no sink; null: uniform attention.",
    range=(0, 1),
)
WRITE_NORM = Quantity(
    "write_norm",
    "Norm of what every head adds to a token, less what comes from sinks, as a share of the norm of the stream that "
    "leaves the layer; mean over tokens.",
    range=(0, math.inf),
)
WRITE_SHARE = Quantity(
    "write_share",
    "Every head's write norm by the sum of its layer's; null: 1 by the number of heads.",
    range=(0, 1),
    forced={"mean": "the shares of a layer's heads sum to 1, so their mean is 1 by the number of heads"},
)
SINK_NORM = Quantity(
    "sink_norm",
    "Norm of the stream at position 0 by the median token's, where each layer reads it.",
    unit="× the median",
    range=(0, math.inf),
)


def _place(out: Out) -> tuple[int, int]:
    """Where the drawn head is in the tensors."""
    layer, number = address(out.head)
    return out.layers.index(layer), number


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Numbers of all heads shown, and of the one that is drawn; averages are over tokens that are no sinks."""
    row, _ = place = _place(out)
    heads = out.entropy.numel()
    share = out.write_norm / out.write_norm.sum(-1, keepdim=True)
    even = 1 / out.entropy.shape[1]
    asking = int((~out.sinks[row]).sum())

    def of_heads(quantity: Quantity, values: Tensor, null: Tensor | None = None) -> Metric:
        mean = None if null is None else float(null.mean())
        return quantity.is_(tuple(values.flatten().tolist()), null=mean, n=int((~out.sinks).sum(-1).min()))

    def of_one(quantity: Quantity, values: Tensor, null: Tensor | None = None) -> Metric:
        return quantity.is_(float(values[place]), null=None if null is None else float(null[row]), n=asking)

    parked = float((out.sink_mass > spec.threshold).double().mean())
    by_chance = float((out.uniform_sink_mass > spec.threshold).double().mean())
    return [
        SINK_HEADS.is_(parked, null=by_chance, n=heads),
        WEIGHTED_SINK_HEADS.is_(float((out.weighted_sink_mass > spec.threshold).double().mean()), null=parked, n=heads),
        of_one(HEAD_ENTROPY, out.entropy, out.uniform_entropy),
        of_one(HEAD_SINK_MASS, out.sink_mass, out.uniform_sink_mass),
        of_one(HEAD_WEIGHTED_SINK_MASS, out.weighted_sink_mass),
        of_one(HEAD_PREVIOUS_TOKEN, out.previous_token, out.uniform_previous_token),
        HEAD_WRITE_SHARE.is_(float(share[place]), null=even, n=asking),
        of_heads(ENTROPY, out.entropy, out.uniform_entropy),
        of_heads(SINK_MASS, out.sink_mass, out.uniform_sink_mass),
        of_heads(WEIGHTED_SINK_MASS, out.weighted_sink_mass),
        of_heads(PREVIOUS_TOKEN, out.previous_token, out.uniform_previous_token),
        of_heads(WRITE_NORM, out.write_norm),
        WRITE_SHARE.is_(tuple(share.flatten().tolist()), null=even, n=heads),
        SINK_NORM.is_(tuple(out.sink_norm.tolist()), n=len(out.layers)),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of all its heads, and in float64 of the drawn head's layer."""
    layer, _ = address(out.head)
    rounding = max(ALGEBRA, 4 * out.eps)
    return [
        Check("rows sum to 1", float(out.row_residual.max()), rounding, "all heads shown"),
        Check("nothing looks ahead", float(out.ahead_residual.max()), 0.0, "the largest weight on what is not visible"),
        Check(
            "pattern = softmax of queries and keys",
            float(out.pattern_residual),
            rounding,
            f"layer {layer} rebuilt from W_Q, W_K, their biases and the positions, against the model's own",
        ),
        Check(
            "heads + constant = layer (algebra)",
            float(out.heads_residual),
            ALGEBRA,
            f"Σ_h A_h x W_V W_O and the biases' constant, layer {layer} in float64; relative",
        ),
        Check(
            "heads + constant = layer (rounding)",
            float(out.rounding_residual.max()),
            rounding,
            "the same in float32 against the model's own output, the worst of all layers shown; relative",
        ),
        Check(
            "write norm, another way",
            float(apart(out.write_norm[_place(out)], out.exact_write_norm)),
            rounding,
            f"{out.head}: ‖z W_O‖ from W_O W_Oᵀ in float32 against the write itself in float64; relative",
        ),
        Check(
            "h(x) = (A ⊗ W_O W_V) x",
            float(out.kronecker_residual),
            ALGEBRA,
            f"{out.head}, {SLICE[0]} tokens and {SLICE[1]} dimensions, also as (I ⊗ W_O)(A ⊗ I)(I ⊗ W_V) x; relative",
        ),
        Check(
            "the stream is the sum of its writers",
            float(out.stream_residual),
            max(rounding, out.eps * len(out.layers)),  # every layer rounds the stream twice
            "what entered the first layer shown, and all attention and MLP outputs since; relative, the worst token",
        ),
    ]


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, and of every layer shown all that goes in and out of its attention."""
    if spec.weights == "shuffled":
        return None
    layers = range(shape.layers) if spec.layer is None else (spec.layer,)
    return Reads(("whole", spec.tokens, spec.bos, spec.template), _sites(layers))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, all patterns and five streams a layer; one and a half forward passes at 40 GFLOP/s (two cores)."""
    assert shape is not None
    layers = shape.layers if spec.layer is None else 1
    kept = layers * spec.tokens * (5 * shape.d_model + shape.heads * spec.tokens) * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    return Needs(bytes=weights + 2 * kept, seconds=2 + 3 * shape.parameters * spec.tokens / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    pattern, heads = _pattern(out), _heads(out)
    count = len(out.tokens)
    text = f"{count} tokens" if count == out.length else f"the first {count} of {out.length} tokens"
    return {
        "pattern": draw_pattern(pattern, text),
        "arcs": draw_arcs(pattern, text),
        "heads": draw_heads(heads, spec.threshold, text),
        "entropy": draw_entropy(heads, text),
        "patterns": draw_patterns(heads, out.small, text),
    }


def _pattern(out: Out) -> Pattern:
    row, _ = place = _place(out)
    hidden = ~torch.ones_like(out.pattern, dtype=torch.bool).tril() | out.sinks[row]
    return Pattern(
        head=out.head,
        tokens=out.tokens,
        weighted=(out.pattern * out.moved).masked_fill(hidden, math.nan).numpy(),
        sinks=out.sinks[row],
        sink_mass=float(out.sink_mass[place]),
        uniform_sink_mass=float(out.uniform_sink_mass[row]),
        weighted_sink_mass=float(out.weighted_sink_mass[place]),
        previous_token=float(out.previous_token[place]),
    )


def _heads(out: Out) -> Heads:
    return Heads(
        layers=out.layers,
        chosen=_place(out),
        entropy=out.entropy,
        uniform_entropy=float(out.uniform_entropy.max()),
        sink_mass=out.sink_mass,
        weighted_sink_mass=out.weighted_sink_mass,
        previous_token=out.previous_token,
        write_norm=out.write_norm,
    )


def data(spec: Spec, out: Out) -> dict[str, Any]:
    """What every head moves between tokens, or blocks of them, each map in 255 steps of its largest cell."""
    small = out.small.float().nan_to_num(0).clamp(min=0)
    most = small.amax((-2, -1))
    steps = (small / most.clamp(min=1e-12)[..., None, None] * 255).round().to(torch.uint8)
    by = -(-len(out.tokens) // small.shape[-1])
    blocks = [out.tokens[start : start + by] for start in range(0, len(out.tokens), by)]
    layer, number = address(out.head)
    return {
        "kind": "maps",
        "axes": ["layer", "head"],
        "rows": list(out.layers),
        "columns": list(range(small.shape[1])),
        "labels": ["".join(block) for block in blocks],
        "maps": base64.b64encode(steps.numpy().tobytes()).decode(),
        "most": [[round(value, 5) for value in row] for row in most.tolist()],
        "strength": [[round(value, 5) for value in row] for row in out.write_norm.tolist()],
        "chosen": [out.layers.index(layer), number],
        "unit": "of what the head moves to a token on average",
    }


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    data=data,
    metrics=(
        SINK_HEADS,
        WEIGHTED_SINK_HEADS,
        HEAD_ENTROPY,
        HEAD_SINK_MASS,
        HEAD_WEIGHTED_SINK_MASS,
        HEAD_PREVIOUS_TOKEN,
        HEAD_WRITE_SHARE,
        ENTROPY,
        SINK_MASS,
        WEIGHTED_SINK_MASS,
        PREVIOUS_TOKEN,
        WRITE_NORM,
        WRITE_SHARE,
        SINK_NORM,
    ),
    figures={
        "pattern": "One head's weighted pattern, token by token, sinks hatched.",
        "arcs": "The same as arcs over the text, from the token that gives to the one that gets, sinks left out.",
        "heads": "How much every head writes, and how much it looks at sinks.",
        "entropy": "How widely every head looks against how much it writes, with uniform attention.",
        "patterns": "The weighted patterns of all heads, one tile each.",
    },
    examples=(
        Example(
            "previous-token-head",
            "Head L16H0 looks at the token before",
            {"model": "smollm2-135m", "head": "L16H0"},
            ("head_previous_token > 0.6", "head_entropy < 1.5", "head_weighted_sink_mass < 0.2"),
        ),
        Example(
            "attention-sinks",
            "Most heads park on the sink, and few of them move anything from there",
            {"model": "smollm2-135m"},
            ("sink_heads > 0.5", "weighted_sink_heads < 0.4", "max of sink_norm > 50"),
        ),
        Example(
            "resting-heads",
            "Two heads of layer 18 do nothing but look at the sink",
            {"model": "smollm2-135m", "layer": 18, "head": "L18H8"},
            ("head_sink_mass > 0.9", "head_write_share < 0.02", "max of write_share > 0.15"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
