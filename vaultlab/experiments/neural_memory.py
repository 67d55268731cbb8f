"""Neural memory: how near is an MLP to a memory that answers by a softmax over the same keys?

An MLP and a neural memory of the kind of attention differ in one place only, the f that turns scores into coefficients.
At a token whose MLP reads x, a_i is the score of key i and w_i what its value is there:

    MLP(x) = Σ_i f(a_i) w_i + b        MN(x) = Σ_i softmax(a)_i w_i = FF_exp(x) / Z(x),   Z = Σ_i exp(a_i)

so a layer with exp in the place of f is a neural memory times Z, exactly. MN is a weighted mean of the values: it lies
in their hull, and so in every direction d it is at most max_i d·w_i, however its keys are chosen. An MLP need not be.

What key and value are. Ungated, a = x W_in + b_in and w_i = v_i, row i of W_out. In a gated MLP the gates are the keys,
a = x W_gate + b_gate, and a value is what its row of W_out comes to at this token: w_i = (u_i · x + b_i) v_i, so that
f(a_i) w_i = m_i v_i. That is the only pairing of them that a memory has by itself: (u_i, v_i) → (αu_i, v_i/α) is the
same memory for any α ≠ 0, and leaves a_i and w_i what they are. The hull of the bare v_i is not the memory's but the
way's it is written down, and so are softmax(m) and softmax(u · x). With a ReLU, where f(γa) = γ f(a), a key and what it
goes with may trade any γ > 0 too; there each key is first given the geometric mean of their norms. Other f leave no
choice.

    cosine       of MN(x) and MLP(x) − b: do they write in one direction?
    memories     how many write in effect, (Σ s)² / Σ s², with s_i the norm of what memory i writes
    reach        max_i d·w_i in the direction d of the MLP's write, as a share of it; below 1 it is outside the hull

The null: each key's entries in random order, of the same norm, with the values as they are. It says whether it matters
that both ask the same keys, not whether these have learnt anything: f and exp both grow with the score, and so the
cosine is high with all weights in random order too. Tokens are read as in `kv_memory`, sentence by sentence; a
sentence's first token, special tokens, a part's last one and sinks are left out. Intervals are 95 %, from a bootstrap
over sentences.

How to read the figures. `coefficients` is one token, chosen by `token` or of a typical cosine: above the memories that
write most of all in the softmax memory or in the MLP, with their shares of what is written; below how much the first r
of them write together. `tokens` is its sentence: how near the two writes are, and how many memories write. In `spread`
are all tokens: the cosines beside the null's, and how far any softmax memory would reach.

Source: Mor Geva, Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value
Memories", section 2 "Feed-Forward Layers as Unnormalized Key-Value Memories",
https://aclanthology.org/2021.emnlp-main.446. Sainbayar Sukhbaatar, Arthur Szlam, Jason Weston, Rob Fergus (2015),
"End-To-End Memory Networks", section 2.1, https://arxiv.org/abs/1503.08895
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Example,
    Experiment,
    Layer,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    TextName,
    Word,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.bootstrap import interval
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.prefixes import apart, line
from vaultlab.models.search import askable
from vaultlab.models.sentences import TYPICAL, Batch, Sentences, batches, cut
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.softmax_memory import (
    Looks,
    balanced,
    beyond_hull,
    keys_of,
    look,
    regauged,
    scored,
    strengths,
)
from vaultlab.models.trace import Site, sinks, trace
from vaultlab.models.weights import MLPParts, in_dtype
from vaultlab.plots.softmax_memory import Passage, draw_coefficients, draw_spread, draw_tokens
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric, Quote

DRAWS = 4
"""Random keys, as a null."""

CHECKED = 32
"""Tokens at which this run's identities are checked in float64."""

WAYS = 32
"""Random directions in which the hull is checked, beside those of the two writes."""

CHUNK = 512
"""Tokens looked at together."""

WINDOW = 24
"""Tokens of the sentence that are shown."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "python-help"
    """What it reads."""

    layer: Layer | None = Field(None, json_schema_extra={"symbol": "layer"})
    """The layer whose MLP is looked at, counted from 0; none: five sixths of the way up."""

    token: Word | None = None
    """A token of the text: where it comes first, the coefficients are shown; none: where the cosine is most typical."""

    tokens: int = Field(2000, ge=20, le=20_000, json_schema_extra={"stress": [500, 4000]})
    """At most so many tokens are read, from the text's beginning; sentences that repeat are not counted."""

    bos: bool | None = None
    """Begin every sentence with the token that begins texts: true, false, or as the model's tokenizer does (none)."""

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random draws of nulls, intervals and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind. `looks` are `Looks` at each token, `null` those of a memory with random keys.

    `softmax` and `own` are the norms of what each memory writes at the token shown, `random` those with random keys,
    largest first. `window` are the tokens of its sentence, and `places` which of the tokens looked at they are (−1:
    left out); `intervals` are of the cosine, `memories`, `same_first` and `reach`.
    """

    layer: int
    read: int
    left_out: int
    eps: float
    movable: bool
    looks: Float[Tensor, "quantity token"]
    null: Float[Tensor, "draw quantity token"]
    intervals: Float[Tensor, "share 2"]
    chosen: int
    softmax: Float[Tensor, " key"]
    own: Float[Tensor, " key"]
    random: Float[Tensor, "draw key"]
    line: tuple[str, str, str]
    part: int
    window: tuple[str, ...]
    places: Int[Tensor, " window"]
    exp_residual: Float[Tensor, ""]
    weight_residual: Float[Tensor, ""]
    hull_residual: Float[Tensor, ""]
    output_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]


def default_layer(layers: int) -> int:
    """Five sixths of the way up."""
    return layers * 5 // 6


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """What the layer's MLP reads at every token; then its keys, and random ones, with f and with a softmax."""
    model = bench.model(spec.model)
    layer = _layer(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    sentences = cut(model, [part for _, part in bench.text("text").parts], spec.tokens, spec.bos)
    mlp = balanced(parts.mlp(model, layer, torch.promote_types(model.dtype, torch.float32)))
    seen = _read(model, bench, sentences, layer, mlp)
    keys = _random_keys(bench, spec, mlp)
    looks = _looks(bench, mlp, seen.x, keys)
    chosen = _chosen(spec, model, sentences, seen, looks[0])
    at, x = int(seen.at[chosen]), seen.x[[chosen]]
    some = seen.x[torch.linspace(0, len(seen.x) - 1, min(CHECKED, len(seen.x))).long()]
    own = scored(mlp, x)
    sentence = sentences.holding(seen.at)
    window, places = _window(sentences, seen.at, at)
    return Out(
        layer=layer,
        read=len(sentences.ids),
        left_out=int(askable(model, sentences).sum()) - len(seen.at),
        eps=torch.finfo(model.dtype).eps,
        movable=regauged(mlp, bench.generator("gauge", spec.seed)) is not None,
        looks=looks[0],
        null=looks[1:],
        intervals=torch.stack(
            [
                interval(getattr(Looks(*looks[0]), name), sentence, bench.generator("intervals", spec.seed))
                for name in ("cosine", "memories", "same_first", "reach")
            ]
        ),
        chosen=chosen,
        softmax=strengths(mlp, own.weights * own.factor)[0].cpu(),
        own=strengths(mlp, mlp.act(own.a) * own.factor)[0].cpu(),
        random=torch.cat([_strengths(mlp, x, k) for k in keys]).sort(descending=True).values.cpu(),
        line=line(model, sentences, at),
        part=int(sentences.part[sentences.holding(seen.at[[chosen]])]),
        window=model.token_strings(window),
        places=places,
        output_residual=seen.residual,
        **_residuals(bench, spec, mlp, some),
    )


def _layer(spec: Spec, model: Model) -> int:
    shape = model.shape
    layer = default_layer(shape.layers) if spec.layer is None else spec.layer
    if layer >= shape.layers:
        raise NoteError(
            f"{model.name} has no layer {layer}.", f"Its layers are 0 to {shape.layers - 1}.", field="layer"
        )
    if not shape.d_mlp:
        raise NoteError(
            f"{model.name} has no MLP, and so no memories.", "Take another model, such as smollm2-135m.", field="model"
        )
    return layer


class Seen(NamedTuple):
    """What the MLP reads at the tokens looked at, in the order of the text, and their numbers in it; `residual`: how
    far its coefficients times its values are from its output."""

    x: Float[Tensor, "token d_model"]
    at: Int[Tensor, " token"]
    residual: Float[Tensor, ""]


def _read(model: Model, bench: Bench, sentences: Sentences, layer: int, mlp: MLPParts) -> Seen:
    may, rows, numbers, residuals, done = askable(model, sentences), [], [], [], 0
    stream = Site("resid_pre" if "parallel" in model.shape.flags else "resid_mid", layer)
    sites = [stream, Site("mlp_in", layer), Site("mlp", layer)]
    for batch in batches(sentences, bench.batch):
        bench.progress(done, len(sentences.ids), "reading the text")
        found = trace(model, batch.ids, sites)
        asked = _looked_at(batch, may, found[stream])
        x, written = (found[site][asked].to(mlp.W_in) for site in sites[1:])
        if len(x):
            own = scored(mlp, x)
            residuals.append(apart((mlp.act(own.a) * own.factor) @ mlp.W_out + mlp.b_out, written))
        rows.append(x)
        numbers.append(batch.at[asked.cpu()])
        done += int(batch.real.sum())
    if not residuals:
        raise NoteError("There is nothing to look at in this text.", "Give it some sentences.", field="text")
    at = torch.cat(numbers)
    order = at.argsort()
    return Seen(torch.cat(rows)[order.to(mlp.W_in.device)], at[order], torch.stack(residuals).max().cpu())


def _looked_at(batch: Batch, may: Tensor, stream: Float[Tensor, "batch pos d_model"]) -> Tensor:
    real = batch.real.to(stream.device)
    own = ((batch.at >= 0) & may[batch.at.clamp(min=0)]).to(stream.device)
    return own & ~sinks(stream, real)


def _random_keys(bench: Bench, spec: Spec, mlp: MLPParts) -> list[Float[Tensor, "d_model key"]]:
    """Each key's entries in random order."""
    keys, generator = keys_of(mlp), bench.generator("keys", spec.seed)
    orders = torch.rand(DRAWS, *keys.shape, generator=generator).argsort(1).to(keys.device)
    return [keys.gather(0, order) for order in orders]


def _looks(bench: Bench, mlp: MLPParts, x: Tensor, keys: list[Tensor]) -> Float[Tensor, "which quantity token"]:
    """Of the MLP's own keys first, then of each draw."""
    rows = []
    for start in range(0, len(x), CHUNK):
        bench.progress(start, len(x), "asking keys")
        some = x[start : start + CHUNK]
        rows.append(torch.stack([torch.stack(_look(mlp, some, each)) for each in (None, *keys)]))
    return torch.cat(rows, -1).cpu()


def _look(mlp: MLPParts, x: Tensor, keys: Tensor | None) -> Looks:
    own = scored(mlp, x)
    return look(mlp, own if keys is None else scored(mlp, x, keys), own)


def _strengths(mlp: MLPParts, x: Tensor, keys: Tensor) -> Float[Tensor, "pos key"]:
    one = scored(mlp, x, keys)
    return strengths(mlp, one.weights * one.factor)


def _chosen(spec: Spec, model: Model, sentences: Sentences, seen: Seen, looks: Tensor) -> int:
    """Which of the tokens looked at is shown."""
    cosine = Looks(*looks).cosine
    if spec.token is None:
        return int((cosine - cosine.median()).abs().argmin())
    words = model.token_strings(sentences.ids[seen.at].tolist())
    for place, word in enumerate(words):
        if word.lstrip("·") == spec.token.strip():
            return place
    raise NoteError(
        f"No token `{spec.token}` was looked at in this text.",
        "Take one that stands there, and does not begin a sentence: a longer word may be several tokens.",
        field="token",
    )


def _window(sentences: Sentences, looked_at: Tensor, at: int) -> tuple[list[int], Int[Tensor, " window"]]:
    """The tokens of a sentence around one of them, and which of those looked at they are."""
    home = int(sentences.holding(torch.tensor(at)))
    start, stop = int(sentences.start[home]), int(sentences.stop[home])
    first = max(start, min(at - WINDOW // 2, stop - WINDOW))
    numbers = torch.arange(first, min(stop, first + WINDOW))
    place = torch.searchsorted(looked_at, numbers).clamp(max=len(looked_at) - 1)
    return sentences.ids[numbers].tolist(), torch.where(looked_at[place] == numbers, place, -1)


def _residuals(bench: Bench, spec: Spec, mlp: MLPParts, x: Float[Tensor, "some d_model"]) -> dict[str, Tensor]:
    """This run's identities at some tokens. The other side of each is in float64, by another way."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64  # mps has no float64
    exact, y = in_dtype(mlp, wide), x.to(wide)
    one, own = scored(mlp, x), scored(exact, y)
    recalled = (one.weights * one.factor) @ mlp.W_out
    # exp may pass any number: both sides without exp(the largest score), which is no part of the claim
    top = own.a.amax(-1, keepdim=True)
    with_exp = replace(exact, act=lambda a: (a - top).exp())(y) - exact.b_out
    Z = (one.a.logsumexp(-1, keepdim=True).to(wide) - top).exp()
    ways = torch.randn(len(x), WAYS, x.shape[1], generator=bench.generator("ways", spec.seed)).to(y)
    written = (exact.act(own.a) * own.factor) @ exact.W_out
    ways = torch.cat([recalled[:, None].to(wide), -recalled[:, None].to(wide), written[:, None], ways], 1)
    weights = one.weights
    found = {
        "exp_residual": apart(Z * recalled.to(wide), with_exp),
        "weight_residual": torch.maximum((weights.sum(-1) - 1).abs().max(), (-weights).amax().clamp(min=0)),
        "hull_residual": beyond_hull(exact, recalled.to(wide), own, ways).clamp(min=0),
        "gauge_residual": _gauge(bench, spec, exact, y),
    }
    return {name: value.cpu() for name, value in found.items()}


def _gauge(bench: Bench, spec: Spec, mlp: MLPParts, x: Float[Tensor, "some d_model"]) -> Tensor:
    """How far any number shown moves when the memories are written down otherwise; 0 where they cannot be."""
    other = regauged(mlp, bench.generator("gauge", spec.seed))
    if other is None:
        return torch.tensor(0.0)
    other = balanced(other)
    looks, again = (torch.stack(_look(one, x, None)) for one in (mlp, other))
    strength, moved = (strengths(one, scored(one, x).weights * scored(one, x).factor) for one in (mlp, other))
    return torch.maximum(apart(again, looks), apart(moved, strength))


COSINE = Quantity(
    "cosine",
    "Cosine of what the softmax memory writes and what the MLP writes, mean over tokens; null: random keys.",
    range=(-1, 1),
    headline=True,
)
EXPLAINED = Quantity(
    "explained",
    "Share of the squared norm of what the MLP writes that the softmax memory accounts for, with one scale for all "
    "tokens, the best; null: random keys.",
    range=(0, 1),
)
MEMORIES = Quantity(
    "memories",
    "How many memories write in effect in the softmax memory, mean over tokens; null: random keys.",
    unit="memories",
    range=(0, math.inf),
    headline=True,
)
OWN_MEMORIES = Quantity(
    "own_memories",
    "How many memories write in effect in the MLP itself, mean over tokens.",
    unit="memories",
    range=(0, math.inf),
)
LARGEST = Quantity(
    "largest_weight", "The largest weight of the softmax, mean over tokens; null: all alike.", range=(0, 1)
)
SAME_FIRST = Quantity(
    "same_first",
    "Share of tokens at which the memory that writes most is the same in both; null: random keys.",
    range=(0, 1),
)
REACH = Quantity(
    "reach",
    "How far any weighted mean of the values goes in the direction of what the MLP writes, as a share of it, mean over "
    "tokens; below 1 at a token: outside the hull.",
    range=(-math.inf, math.inf),
    headline=True,
)
OUTSIDE = Quantity(
    "outside",
    "Share of tokens at which what the MLP writes is seen to be outside the hull of the values: no softmax memory over "
    "them can write it, whatever its keys.",
    range=(0, 1),
)
LOG_Z = Quantity("log_z", "log Z, mean over tokens; null: every score 0.", unit="nats")
LEFT_OUT = Quantity("left_out", "Tokens left out as sinks: massive activations.", unit="tokens", range=(0, math.inf))


def _explained(looks: Looks) -> float:
    """1 − Σ‖y − λ MN‖² / Σ‖y‖² with the best λ."""
    along, square, own = (float(one.double().sum()) for one in (looks.along, looks.recalled_square, looks.own_square))
    return min(1.0, along**2 / max(square * own, 1e-300))


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over the tokens looked at."""
    looks, null = Looks(*out.looks.double()), [Looks(*one.double()) for one in out.null]
    spans = [None if row[0] != row[0] else (float(row[0]), float(row[1])) for row in out.intervals]
    n, keys = out.looks.shape[1], len(out.own)

    def by_chance(name: str) -> float:
        return float(torch.stack([getattr(one, name).mean() for one in null]).mean())

    return [
        COSINE.is_(float(looks.cosine.mean()), interval=spans[0], null=by_chance("cosine"), n=n),
        EXPLAINED.is_(_explained(looks), null=sum(_explained(one) for one in null) / DRAWS, n=n),
        MEMORIES.is_(float(looks.memories.mean()), interval=spans[1], null=by_chance("memories"), n=n),
        OWN_MEMORIES.is_(float(looks.own_memories.mean()), n=n),
        LARGEST.is_(float(looks.largest.mean()), null=1 / keys, n=n),
        SAME_FIRST.is_(float(looks.same_first.mean()), interval=spans[2], null=by_chance("same_first"), n=n),
        REACH.is_(float(looks.reach.mean()), interval=spans[3], n=n),
        OUTSIDE.is_(float((looks.reach < 1).double().mean()), n=n),
        LOG_Z.is_(float(looks.log_Z.mean()), null=math.log(keys), n=n),
        LEFT_OUT.is_(out.left_out, n=out.read),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(1e-4, 16 * out.eps)
    checks = [
        Check(
            "FF_exp(x) = Z(x) · MN(x)",
            float(out.exp_residual),
            1e-4,
            f"at {CHECKED} tokens: the layer itself in float64 with exp in the place of f, against the softmax memory "
            "times Z; relative",
        ),
        Check(
            "softmax weights are a distribution",
            float(out.weight_residual),
            1e-5,
            "none below 0, and their sum is 1; the same tokens",
        ),
        Check(
            "MN(x) lies in the hull of the values",
            float(out.hull_residual),
            1e-5,
            f"d · MN ≤ max d · w_i in {WAYS} random directions, in its own and against it, and in that of the MLP's "
            "write; what it sticks out by, as a share of the hull's size there",
        ),
        Check(
            "Σ f(a_i) w_i + b = the MLP's output",
            float(out.output_residual),
            rounding,
            "every token looked at, from scores and values, against what the model's own MLP gave; relative",
        ),
    ]
    if out.movable:
        gauge = Check(
            "however a memory is written down",
            float(out.gauge_residual),
            1e-4,
            "(u, v) → (αu, v/α) with random α of both signs (with a ReLU keys and values trade as well) moves no "
            "number shown; relative",
        )
        checks.append(gauge)
    return checks


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """One token, its sentence, and all tokens."""
    looks, null = Looks(*out.looks), Looks(*out.null.transpose(0, 1))
    there = out.places.clamp(min=0)

    def at(values: Tensor) -> Tensor:
        return values[..., there].double().masked_fill(out.places < 0, math.nan)

    shown = int((out.places == out.chosen).nonzero())
    along = (looks.cosine, null.cosine, looks.memories, null.memories, looks.own_memories)
    return {
        "coefficients": draw_coefficients(
            out.line, f"layer {out.layer}", *(one.double().numpy() for one in (out.softmax, out.own, out.random))
        ),
        "tokens": draw_tokens(Passage(out.window, shown, *(at(one).numpy() for one in along))),
        "spread": draw_spread(*(one.double().numpy() for one in (looks.cosine, null.cosine, looks.reach))),
    }


def quotes(spec: Spec, out: Out) -> list[Quote]:
    """Where the token shown stands."""
    return [Quote("text", out.part, *out.line, said="its coefficients are shown")]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """A pass up to the layer, and products with a layer's matrices, six a look, at 20 GFLOP/s; what the MLP reads, its
    weights again in float64, random keys, and a batch."""
    assert shape is not None
    layer = default_layer(shape.layers) if spec.layer is None else spec.layer
    blocks = shape.parameters - (1 if shape.tied else 2) * shape.d_vocab * shape.d_model
    passes = 2 * blocks * min(1.0, (layer + 1) / shape.layers)
    products = 2 * 6 * (1 + DRAWS) * shape.d_model * shape.d_mlp
    copies = 1 if spec.weights == "trained" else 2
    keys = (2 * DRAWS + 8) * shape.d_model * shape.d_mlp * 8
    batch = 32 * TYPICAL * (12 * shape.d_mlp + 8 * shape.d_model) * 4
    held = copies * shape.bytes + keys + batch + spec.tokens * shape.d_model * 8
    return Needs(bytes=int(held), seconds=3 + (passes + products) * spec.tokens / 20e9)


SHELF = (
    "A librarian who is asked for one book goes to one shelf. A choir that is asked for one note sings it together. "
    "The baker keeps flour in three jars and salt in a fourth. On Mondays the museum is closed, and the guards play "
    "cards. Water boils at a lower temperature in the mountains than at the sea. The capital of France is Paris, and "
    "the river through it is called the Seine. She had read the letter twice before she understood who had written "
    "it. If the list is empty, the function returns zero. Most birds leave the island in autumn, but a few stay. The "
    "second volume is longer than the first, and much harder to find. He counted the votes again and came to the same "
    "number. Nobody in the village remembers when the bridge was built. The train to the north leaves at seven in the "
    "morning. A good map shows what is there, and leaves out almost everything."
)
"""A text for the examples."""

EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        COSINE,
        EXPLAINED,
        MEMORIES,
        OWN_MEMORIES,
        LARGEST,
        SAME_FIRST,
        REACH,
        OUTSIDE,
        LOG_Z,
        LEFT_OUT,
    ),
    figures={
        "coefficients": "One token: which memories write how much, by the softmax and in the MLP itself.",
        "tokens": "Its sentence: cosine of the two writes, and how many memories write, token by token.",
        "spread": "All tokens: the cosines beside those of random keys, and how far any softmax memory would reach.",
    },
    examples=(
        Example(
            "written-alike",
            "With a softmax over the same keys, layer 25 writes in much the same direction, and nowhere near as far",
            {"text": SHELF, "layer": 25, "token": "Paris"},
            ("cosine > 0.6", "memories < 250", "same_first > 50%", "outside = 1", "reach < 20%"),
        ),
        Example(
            "first-layer-hardly-differs",
            "In the first layer it is almost the same write, by the same memory, in all but size",
            {"text": SHELF, "layer": 0},
            ("cosine > 0.9", "explained > 60%", "same_first > 85%"),
        ),
        Example(
            "last-layer-picks",
            "In the last layer a softmax leaves a few memories to write where the MLP has hundreds",
            {"text": SHELF, "layer": 29},
            ("memories < 60", "own_memories > 100", "largest_weight > 5%", "outside = 1"),
        ),
    ),
    needs=needs,
    quotes=quotes,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
