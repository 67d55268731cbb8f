"""Key–value memories: what wakes a neuron of an MLP, and what does it then write?

An MLP is a sum of memories, each with a key that decides how strongly it answers to a token, and a value that it adds:

    MLP(x) = Σ_i m_i v_i + b        m_i = f(k_i · x + b_i), in a gated MLP f(g_i · x + c_i) · (u_i · x + b_i)

A model reads a text sentence by sentence; every token stands at the end of a prefix. The *triggers* of memory i are the
prefixes where ‖m_i v_i‖ is largest, at most one a sentence. A sentence ends at its full stop, ? or !, at an empty line,
or after 128 tokens; one that repeats is read once. Left out are a sentence's first token, special tokens, a part's last
token (no next one is known) and sinks (tokens whose stream is over 5 × the median norm of their batch). The parts of a
text never run into each other.

The value is read as tokens *where it counts*: what m_i v_i adds to the logits at the strongest trigger, with that
token's final norm scale, less the vocabulary's mean (which changes no probability):

    push_t = m_i s (v_i ∘ gain) · (W_U)_t − mean over t        the *top token* has the largest push

So nothing depends on how a memory is written down. In a gated MLP (u_i, v_i) → (α u_i, v_i/α) is the same memory for
any α ≠ 0: a bare value, its norm, its top tokens (an α below 0 turns them round) and a ranking by signed m_i mean
nothing. Triggers are ranked by |m_i| ‖v_i‖, and m_i v_i carries the sign. A gated memory can wake with either sign and
then writes the opposite: a strength is positive where it writes as at its strongest trigger, negative where it writes
the opposite.

    agreement        is the value's top token the token that comes next after the strongest trigger?
    same token       the largest share of a memory's triggers that end in one and the same token
    peak             strength at the strongest trigger, by the mean |m_i| ‖v_i‖ over all tokens

All memories of all layers are searched in one pass, which is kept: every block over the same model and text answers
from it. `key` shows one memory instead of the whole layer. Intervals are 95 %, from a bootstrap over the sentences in
which the triggers stand (over keys for `same_token`): keys that wake in the same sentence are no independent evidence.

How to read the figures. In `memories` the curve says for how many keys the token that came next is among the first r
tokens of the value; at r = 1 it is the agreement, and by chance it would lie on the dashed curve. Below are the
memories that push hardest: a trigger with the token that wakes it in blue, → what came next, and under it what the
value pushes; orange: value and text agree. In `triggers` keys far right of the dashed line wake for few tokens only. In
`page` (one key) each line is a trigger and its bar the strength, violet where the opposite is written. In `meeting` is,
trigger by trigger, how far the memory pushes the token that came next there, beside the token that it pushes most.

Source: Mor Geva, Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value
Memories", sections 3 "Keys Capture Input Patterns" and 4 "Values Represent Distributions",
https://aclanthology.org/2021.emnlp-main.446. Reading m_i v_i instead of a bare value: Mor Geva, Avi Caciularu, Kevin
Wang, Yoav Goldberg (2022), "Transformer Feed-Forward Layers Build Predictions by Promoting Concepts in the Vocabulary
Space", section 3, https://aclanthology.org/2022.emnlp-main.3.
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
    Layer,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.bootstrap import RESAMPLES, interval
from vaultlab.models.family import Shape
from vaultlab.models.memories import Promoted, Triggers, promoted
from vaultlab.models.model import Model
from vaultlab.models.prefixes import gauge_residual, line, misaligned, pushes, read_prefixes, shortest
from vaultlab.models.search import KEPT, SHUFFLES, Corpus, Search, search_needs, searched, values
from vaultlab.models.sentences import Sentences
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.plots.memories import Line, Row, draw_layer, draw_meeting, draw_page, draw_triggers
from vaultlab.plots.style import Drawing, visible
from vaultlab.result import Check, Metric, Quote

SHOWN = 6
"""Memories of a layer whose triggers are shown."""

TOKENS = 8
"""Tokens of a value that are kept for what is shown."""

READ_AGAIN = 48
"""Tokens of the prefixes shown that are read again for the checks, at most, and one prefix at least."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "python-help"
    """What it reads."""

    layer: Layer | None = Field(None, json_schema_extra={"symbol": "layer"})
    """The layer whose MLP is looked at, counted from 0; none: five sixths of the way up."""

    key: int | None = Field(None, ge=0, le=2**17, json_schema_extra={"symbol": "i"})
    """One memory, counted from 0: its own page; none: the whole layer."""

    top: int = Field(8, ge=2, le=KEPT, json_schema_extra={"symbol": "k", "stress": [4, 16]})
    """Triggers of every key that count."""

    tokens: int = Field(20_000, ge=50, le=500_000, json_schema_extra={"stress": [5000, 20_000]})
    """At most so many tokens are read, from the text's beginning; sentences that repeat are not counted."""

    bos: bool | None = None
    """Begin every sentence with the token that begins texts: true, false, or as the model's tokenizer does (none)."""

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random draws of nulls, intervals and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind. Strengths are ‖m v‖, negative where a memory writes the opposite of what it writes
    at its strongest trigger; a key that never woke has strength 0 and tokens −1.

    `top_token` and `bottom_token` are what a value pushes up and down most at the strongest trigger; `rank` counts the
    tokens pushed up more than the one that came next, `chance_rank` more than the one of another key. `lines` are the
    triggers shown, from the text's parts `part`; `push` is how far the tokens `pushed` are at each memory's strongest
    one, in nats, `next_push` and `top_push` how far, at every line, what came next and what is pushed most. `sinks` are
    the most frequent of the tokens `left_out`, with counts.
    """

    layer: int
    read: int
    sentences: int
    looked_at: int
    left_out: int
    sinks: tuple[tuple[str, int], ...]
    eps: float
    gated: bool
    keys: Int[Tensor, " key"]
    strength: Float[Tensor, "key top"]
    mean_strength: Float[Tensor, " key"]
    trigger: Int[Tensor, "key top"]
    next: Int[Tensor, "key top"]
    top_token: Int[Tensor, " key"]
    bottom_token: Int[Tensor, " key"]
    rank: Int[Tensor, " key"]
    chance_rank: Int[Tensor, "key shuffle"]
    chance_agreement: Float[Tensor, " 2"]
    chance_same_token: Float[Tensor, ""]
    intervals: Float[Tensor, "share 2"]
    shown: Int[Tensor, " shown"]
    lines: tuple[tuple[str, str, str], ...]
    part: Int[Tensor, " line"]
    pushed: tuple[tuple[str, ...], ...]
    push: Float[Tensor, "shown token"]
    next_push: Float[Tensor, " line"]
    top_push: Float[Tensor, " line"]
    algebra_residual: Float[Tensor, ""]
    rounding_residual: Float[Tensor, ""]
    coefficient_residual: Float[Tensor, ""]
    stream_residual: Float[Tensor, ""]
    misaligned: int
    gauge_residual: Float[Tensor, ""]


def default_layer(layers: int) -> int:
    """Five sixths of the way up."""
    return layers * 5 // 6


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The search of all layers, shared; the values through the unembedding; some prefixes shown are read again."""
    model = bench.model(spec.model)
    layer, keys = _place(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    corpus = Corpus(model, bench.text("text"), spec.tokens, spec.bos)
    search = searched(bench, corpus)
    sentences = search.sentences
    _enough(spec, sentences)
    found = search.triggers(model, layer, keys, spec.top)
    _awake(found)
    value = _values(spec, bench, corpus, layer, found)
    norm = parts.mlp(model, layer).W_out[keys].to(found.total.dtype).norm(dim=-1).cpu()
    sign, numbers = found.coefficient[:, 0].sign(), torch.arange(model.shape.d_mlp)[keys]
    shown = (found.coefficient[:, 0].abs() * value.push).topk(min(SHOWN, len(numbers))).indices
    shown = shown[found.at[shown, 0] >= 0]
    return Out(
        layer=layer,
        read=len(sentences.ids),
        sentences=len(sentences),
        looked_at=found.looked_at,
        left_out=int(found.sinks.sum()),
        sinks=_listed(model, found.sinks),
        eps=torch.finfo(model.dtype).eps,
        gated=model.shape.gated,
        keys=numbers,
        strength=found.coefficient * (sign * norm)[:, None],
        mean_strength=found.total / found.looked_at * norm,
        trigger=_tokens_at(sentences, found.at),
        next=found.next,
        top_token=value.first,
        bottom_token=value.last,
        rank=value.rank[:, 0],
        chance_rank=value.rank[:, 1:],
        **_chances(spec, bench, sentences, found, value),
        **_counted(spec, bench, model, search, found, Chosen(layer, numbers, shown)),
        stream_residual=search.residual[layer],
        misaligned=misaligned(sentences, found),
    )


def _values(spec: Spec, bench: Bench, corpus: Corpus, layer: int, found: Triggers) -> Promoted:
    """A layer's are shared with other blocks; one alone is read at once, by chance against any place of the text."""
    if spec.key is None:
        return values(bench, corpus, found, layer, spec.seed)
    generator = bench.generator("chance", spec.seed)
    drawn = torch.multinomial(found.seen.double(), SHUFFLES, True, generator=generator)[None]
    key, asked = slice(spec.key, spec.key + 1), torch.cat([found.next[:, :1], drawn], dim=1)
    return promoted(corpus.model, layer, key, found.coefficient[:, 0].sign(), asked)


def _place(spec: Spec, model: Model) -> tuple[int, slice]:
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
    if spec.key is None:
        return layer, slice(0, shape.d_mlp)
    if spec.key >= shape.d_mlp:
        raise NoteError(
            f"A layer of {model.name} has no key {spec.key}.", f"Its keys are 0 to {shape.d_mlp - 1}.", field="key"
        )
    return layer, slice(spec.key, spec.key + 1)


def _enough(spec: Spec, sentences: Sentences) -> None:
    if len(sentences) < spec.top:
        raise NoteError(
            f"The text has {len(sentences)} different sentence{'s' * (len(sentences) != 1)}, "
            f"and {spec.top} triggers of every key are asked for.",
            "Give it a longer text, or take a smaller `top`.",
            field="text",
        )


def _awake(found: Triggers) -> None:
    if not (found.at >= 0).any():
        raise NoteError(
            "Nothing in this text wakes what was asked for.", "Take a longer text, or another key.", field="text"
        )


def _listed(model: Model, sinks: Int[Tensor, " d_vocab"]) -> tuple[tuple[str, int], ...]:
    most = sinks.topk(min(8, int((sinks > 0).sum())))
    return tuple(zip(model.token_strings(most.indices.tolist()), most.values.tolist(), strict=True))


def _tokens_at(sentences: Sentences, at: Int[Tensor, "key top"]) -> Int[Tensor, "key top"]:
    return sentences.ids[at.clamp(min=0)].masked_fill(at < 0, -1)


def values_at(out_sign: Tensor, value: Promoted) -> Int[Tensor, "key top"]:
    """The token that a value pushes most at each trigger: another one where it writes the opposite."""
    return torch.where(out_sign >= 0, value.first[:, None], value.last[:, None])


def _chances(spec: Spec, bench: Bench, sentences: Sentences, found: Triggers, value: Promoted) -> dict[str, Any]:
    """Nulls, and intervals by bootstrap: of agreement at the strongest trigger, at all triggers, and of same_token."""
    generator, woken = bench.generator("intervals", spec.seed), found.at >= 0
    sign = found.coefficient * found.coefficient[:, :1].sign()
    promised = values_at(sign, value)
    agree = (promised == found.next).double()
    sentence = sentences.holding(found.at)
    first, keys = woken[:, 0], torch.arange(len(woken))
    same = same_token(_tokens_at(sentences, found.at))
    frequency = found.seen.double() / found.looked_at
    drawn = torch.multinomial(frequency, RESAMPLES * spec.top, True, generator=bench.generator("same", spec.seed))

    def chance(promised: Tensor, came: Tensor) -> Tensor:
        """What shuffling gives on average, exactly. One key alone: what any place of the text would give."""
        shuffled = torch.bincount(came, minlength=len(frequency)).double() / len(came)
        return (shuffled if spec.key is None else frequency)[promised].mean()

    return {
        "chance_agreement": torch.stack(
            [chance(promised[first, 0], found.next[first, 0]), chance(promised[woken], found.next[woken])]
        ),
        "chance_same_token": same_token(drawn.view(RESAMPLES, spec.top)).mean(),
        "intervals": torch.stack(
            [
                interval(agree[:, 0][first], sentence[:, 0][first], generator),
                interval(agree[woken], sentence[woken], generator),
                interval(same[first], keys[first], generator),
            ]
        ),
    }


def same_token(tokens: Int[Tensor, "key top"]) -> Float[Tensor, " key"]:
    """The largest share of a row that is one and the same token; −1 is none."""
    there = tokens >= 0
    equal = (tokens[:, :, None] == tokens[:, None]) & there[:, None]
    return equal.sum(-1).where(there, 0).amax(-1).double() / there.sum(-1).clamp(min=1)


class Chosen(NamedTuple):
    """What is shown: rows `shown` of `keys` in a layer."""

    layer: int
    keys: Int[Tensor, " key"]
    shown: Int[Tensor, " shown"]


def _counted(spec: Spec, bench: Bench, model: Model, search: Search, found: Triggers, chosen: Chosen) -> dict[str, Any]:
    """What the memories shown push at their triggers; and this run's identities, on the shortest of these prefixes.

    Of a layer each memory's strongest trigger is shown, of one key all its triggers.
    """
    row, place = _lines(spec, found, chosen.shown)
    at, sentences = found.at[row, place], search.sentences
    wide = torch.promote_types(model.dtype, torch.float32)
    mlp = parts.mlp(model, chosen.layer, wide)
    key, m, scale = chosen.keys[row].to(model.device), found.coefficient[row, place], search.scale[at]
    push = pushes(model, (m * scale).to(model.device, wide)[:, None] * mlp.W_out[key])
    best = push[place == 0].topk(TOKENS, dim=-1)
    again = shortest(sentences, at, READ_AGAIN)
    seen = read_prefixes(model, sentences.up_to(at[again]), chosen.layer)
    alone = torch.stack([seen.m.gather(1, key[again, None])[:, 0].to(m), seen.scale.to(m)]).cpu()
    was = torch.stack([m, scale])[:, again]
    return {
        "shown": chosen.shown,
        "lines": tuple(line(model, sentences, int(one)) for one in at),
        "part": search.part[sentences.holding(at)],
        "pushed": tuple(model.token_strings(tokens) for tokens in best.indices.tolist()),
        "push": best.values,
        "next_push": push.gather(1, found.next[row, place, None].to(push.device))[:, 0],
        "top_push": push.amax(1),
        "algebra_residual": seen.algebra_residual,
        "rounding_residual": seen.rounding_residual,
        "coefficient_residual": ((alone - was).abs() / was.abs()).max(),
        "gauge_residual": gauge_residual(model, mlp, seen, key[again], bench.generator("gauge", spec.seed)),
    }


def _lines(spec: Spec, found: Triggers, shown: Int[Tensor, " shown"]) -> tuple[Tensor, Tensor]:
    """Rows and places of the triggers shown."""
    if spec.key is None:
        return shown, torch.zeros_like(shown)
    place = (found.at[0] >= 0).nonzero()[:, 0]
    return torch.zeros_like(place), place


AGREEMENT = Quantity(
    "agreement",
    "Share of keys whose value's top token is the token that came next after their strongest trigger; "
    "null: the same triggers and values in random pairs (one key: any place of the text).",
    range=(0, 1),
    headline=True,
)
TRIGGER_AGREEMENT = Quantity(
    "trigger_agreement",
    "The same over all triggers kept, each with its own sign; null as there.",
    range=(0, 1),
    headline=True,
)
SAME_TOKEN = Quantity(
    "same_token",
    "The largest share of a key's triggers that end in one and the same token, mean over keys; "
    "null: as many random tokens of the text.",
    range=(0, 1),
    headline=True,
)
OVER_CHANCE = Quantity(
    "over_chance", "Agreement by its null; absent where the null is 0.", unit="× the null", range=(0, math.inf)
)
NEXT_RANK = Quantity(
    "next_rank",
    "Where the token that came next after the strongest trigger stands in its value, 1 is the top token; median over "
    "keys; null as for the agreement.",
    unit="rank",
    range=(1, math.inf),
)
PEAK = Quantity(
    "peak",
    "Strength at the strongest trigger by the mean over all tokens, median over keys; null: normally distributed "
    "coefficients.",
    unit="× the mean",
    range=(1, math.inf),
)
MASS = Quantity(
    "mass",
    "Share of a key's Σ |m| that its kept triggers hold, median over keys; null: all tokens alike.",
    range=(0, 1),
)
OPPOSITE = Quantity(
    "opposite",
    "Share of triggers, the strongest apart, at which a memory writes the opposite of what it writes at the strongest; "
    "null: a coin.",
    range=(0, 1),
)
PUSH = Quantity(
    "push",
    "How far every memory shown pushes its top token at its strongest trigger, less the vocabulary's mean.",
    unit="nats",
    range=(0, math.inf),
)
SILENT = Quantity(
    "silent",
    "Keys whose coefficient is 0 at every token; they are in no other number.",
    unit="keys",
    range=(0, math.inf),
)
LEFT_OUT = Quantity("left_out", "Tokens left out as sinks: massive activations.", unit="tokens", range=(0, math.inf))


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Numbers over all keys that woke."""
    woken = out.trigger >= 0
    first = woken[:, 0]
    n = int(first.sum())
    sign = out.strength[first].sign()
    promised = torch.where(sign >= 0, out.top_token[first, None], out.bottom_token[first, None])
    agree = promised == out.next[first]
    peak = out.strength[first, 0] / out.mean_strength[first]
    mass = out.strength[first].abs().sum(1) / (out.mean_strength[first] * out.looked_at)
    share, null = float(agree[:, 0].double().mean()), float(out.chance_agreement[0])
    spans = [None if row[0] != row[0] else (float(row[0]), float(row[1])) for row in out.intervals]
    ratio = None if spans[0] is None or not null else (spans[0][0] / null, spans[0][1] / null)
    return [
        AGREEMENT.is_(share, interval=spans[0], null=null, n=n),
        TRIGGER_AGREEMENT.is_(
            float(agree[woken[first]].double().mean()),
            interval=spans[1],
            null=float(out.chance_agreement[1]),
            n=int(woken.sum()),
        ),
        SAME_TOKEN.is_(
            float(same_token(out.trigger[first]).mean()), interval=spans[2], null=float(out.chance_same_token), n=n
        ),
        *([OVER_CHANCE.is_(share / null, interval=ratio, null=1.0, n=n)] if null else []),
        NEXT_RANK.is_(
            float(out.rank[first].double().quantile(0.5)) + 1,
            null=float(out.chance_rank[first].double().quantile(0.5)) + 1,
            n=n,
        ),
        PEAK.is_(float(peak.double().quantile(0.5)), null=gaussian_peak(out.looked_at), n=n),
        MASS.is_(float(mass.double().quantile(0.5)), null=spec.top / out.looked_at, n=n),
        OPPOSITE.is_(float((sign[:, 1:] < 0)[woken[first, 1:]].double().mean()), null=0.5, n=n),
        PUSH.is_(tuple(out.push[:, 0].tolist()), n=len(out.push)),
        SILENT.is_(int((~first).sum()), n=len(first)),
        LEFT_OUT.is_(out.left_out, n=out.read),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, on the prefixes shown and on a batch of the text."""
    rounding = max(1e-5, 4 * out.eps)
    checks = [
        Check(
            "Σ mᵢ vᵢ + b = the MLP's output (algebra)",
            float(out.algebra_residual),
            1e-4,
            f"layer {out.layer} in float64 from its parts, the model's own in float32; prefixes shown, relative",
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
            f"one batch read again and looked at sentence by sentence, all keys, {KEPT} triggers of each; as a share "
            "of the key's strongest",
        ),
        Check(
            "a trigger's coefficient and scale = those of its prefix alone",
            float(out.coefficient_residual),
            max(1e-4, 16 * out.eps),
            "prefixes shown, the shortest first, cut off behind the waking token and read again; relative",
        ),
        Check(
            "the next token is the text's",
            float(out.misaligned),
            0,
            "triggers, of all keys, that the text goes on from otherwise, or that begin a sentence",
        ),
    ]
    if out.gated:
        gauge = Check(
            "(u, v) → (αu, v/α) changes nothing",
            float(out.gauge_residual),
            1e-4,
            "strengths of all keys and pushes of those shown under random α of both signs; relative",
        )
        checks.append(gauge)
    return checks


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """A layer's memories, or one key's page."""
    lines = [Line(*line) for line in out.lines]
    pushes: list[list[float]] = out.push.tolist()
    if spec.key is not None:
        name = f"key {spec.key} of layer {out.layer}"
        strengths = (out.strength[0] / out.mean_strength[0])[out.trigger[0] >= 0].tolist()
        return {
            "page": draw_page(name, lines, strengths, out.pushed[0], pushes[0]),
            "meeting": _with_sinks(out, draw_meeting(name, lines, out.next_push.tolist(), out.top_push.tolist())),
        }
    woken = out.trigger[:, 0] >= 0
    names = [f"key {number}" for number in out.keys[out.shown].tolist()]
    rows = [Row(*row) for row in zip(names, lines, out.pushed, pushes, strict=True)]
    ranks, chance = (1 + ranks[woken].numpy() for ranks in (out.rank, out.chance_rank))
    peak = (out.strength[woken, 0] / out.mean_strength[woken]).numpy()
    same = same_token(out.trigger[woken]).numpy()
    peaked = draw_triggers(peak, gaussian_peak(out.looked_at), same, float(out.chance_same_token), spec.top)
    return {
        "memories": draw_layer(f"layer {out.layer}", ranks, chance, rows),
        "triggers": _with_sinks(out, peaked),
    }


def quotes(spec: Spec, out: Out) -> list[Quote]:
    """The triggers shown, and where they stand."""
    if spec.key is None:
        said = [f"key {key}" for key in out.keys[out.shown].tolist()]
    else:
        strengths = (out.strength[0] / out.mean_strength[0])[out.trigger[0] >= 0].tolist()
        said = [f"{strength:.3g} × the mean".replace("-", "−") for strength in strengths]
    return [
        Quote("text", part, *line, said=why) for part, line, why in zip(out.part.tolist(), out.lines, said, strict=True)
    ]


def _with_sinks(out: Out, drawing: Drawing) -> Drawing:
    """The same figure, its words listing what was left out."""
    if not out.left_out:
        return drawing
    listed = ", ".join(f"{visible(token)} ({count})" for token, count in out.sinks)
    return drawing._replace(alt=f"{drawing.alt} Left out as sinks: {out.left_out} tokens, most often {listed}.")


def gaussian_peak(count: int) -> float:
    """The median of the largest of `count` normally distributed |m|, by their mean."""
    return math.sqrt(math.pi) * float(torch.special.erfinv(torch.tensor(0.5 ** (1 / count), dtype=torch.float64)))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The search, where nobody has done it yet; then a layer's values through the unembedding in float32."""
    assert shape is not None
    needed = search_needs(shape, spec.tokens, copies=1 if spec.weights == "trained" else 2)
    unembedding = shape.d_vocab * shape.d_model * 4
    values = 0 if spec.key is not None else 2 * shape.d_mlp * shape.d_model * shape.d_vocab / 20e9
    return Needs(bytes=int(needed.bytes + unembedding), seconds=5 + needed.seconds + values)


COUNTING = (
    "A computer keeps most numbers as floating point numbers. Whoever sorts a list must compare at least as many "
    "pairs as it has gaps. The old floating point unit was a chip of its own. A vote needs at least as many hands "
    "as the rules ask for. Nothing in a floating point result is exact. The second jar held twice as many beans "
    "as the first. We saw a floating island on the lake. She wrote as well as she spoke. The leaf was floating "
    "down the river. There were ten times as many sheep as people. It is as cold as ice here. He counts in "
    "floating point and rounds at the end. The ship was floating again by noon. A set has at least as many "
    "subsets as members. This is the same as before. Half as many trains run on Sunday. As soon as the rain "
    "stops, we leave. The price rose three times as much as the wage. A non-negative number is zero or more. The "
    "two teams are as good as each other. Floating point arithmetic is not associative. A non-empty list has a "
    "first item. The rule is as old as the hills. Integer and floating point values are kept apart."
)
"""A text for the examples: 24 sentences, some of them on floating point numbers, some with "as many"."""

EXPERIMENT = Experiment(
    version=2,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        AGREEMENT,
        TRIGGER_AGREEMENT,
        SAME_TOKEN,
        OVER_CHANCE,
        NEXT_RANK,
        PEAK,
        MASS,
        OPPOSITE,
        PUSH,
        SILENT,
        LEFT_OUT,
    ),
    figures={
        "memories": "A layer: how often the value agrees with the text, and the memories that push hardest.",
        "triggers": "A layer: how peaked its keys are, and how many of a key's triggers end in one token.",
        "page": "One key: its triggers with the token that wakes it, their strengths, and what its value pushes.",
        "meeting": "One key: how far it pushes what came next after each trigger, beside what it pushes most.",
    },
    examples=(
        Example(
            "floating-point",
            "A memory that wakes at “floating” and writes “point”",
            {"text": COUNTING, "layer": 25, "key": 1211, "top": 6},
            ("agreement = 1", "trigger_agreement > 60%", "next_rank = 1", "same_token > 60%", "peak > 10"),
        ),
        Example(
            "as-many",
            "A memory with two signs: “many” after “at least as”, the opposite after “the rule is as”",
            {"text": COUNTING, "layer": 25, "key": 1069, "top": 6},
            ("agreement = 1", "trigger_agreement > 20%", "same_token = 1", "opposite between 10% and 30%", "peak > 10"),
        ),
        Example(
            "upper-layer",
            "In an upper layer the value's top token comes next far more often than by chance",
            {"layer": 25, "tokens": 5000},
            ("over_chance > 3", "agreement > 0.2%", "same_token > 20%", "peak > 10"),
        ),
    ),
    needs=needs,
    quotes=quotes,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
