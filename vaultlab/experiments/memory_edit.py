"""Memory edit: what does a model answer once one memory's value pushes another token, and what else changes?

A memory i of an MLP adds m_i v_i to the stream wherever its key answers. Here its value is given a token's direction:

    v_i → v_i + δ        δ = α ‖v_i‖ sgn(m*) d        m* = m_i at the text's last token, d of length 1

so that there the memory writes α times as much again as it did, all of it towards the token. d is the direction that
the token's logit, less the vocabulary's mean, is read from through the final norm's gain: d ∝ g = gain ∘ (W_U,t − mean
W_U), under LayerNorm less its own mean; no other δ as long moves that further. In a gated MLP a memory (u_i, v_i) may
as well be written (βu_i, v_i/β), for any β ≠ 0. α is a share of what the memory writes, so it asks for the same change
however that is; a length for δ, or δ without the sign, would not.

With the final norm's scale s at the last token frozen, and the later layers' outputs too, the logit less the mean
rises by exactly

    rise = α |m*| ‖v_i‖ s ‖g‖

With the norm live the longer stream is scaled down; with the layers above live they answer to it as well. All three are
shown. None is yet a probability: other tokens read d too, and in smollm2-135m two dozen common ones, ` and` among them,
read the direction of ` island` further than it does. Nothing is stored in the model: since m_i does not depend on v_i,
the change is m_i δ added to the layer's output at every token, in this pass only. Every run checks that all weights are
the same bytes before and after.

Side effects. The key answers elsewhere too, so another text, `elsewhere`, is read with and without the change: at each
of its tokens the Kullback–Leibler divergence of what the model says came next, whether its first guess is another, and
how much loss that costs. Nulls: as long a δ in random directions in the same value; and the same change, with the same
α, of random other memories of the layer. Intervals are 95 %, from a bootstrap over sentences.

How to read the figures. `answer` shows the tokens that are likeliest before or after. In `dose` the straight line is
the closed form, dashed with the norm live, dots with everything live, the band random directions; below the token's
probability. In `elsewhere` each dot is a token of the other text, the further right the more strongly the memory
answers there, the higher the more changes; orange where the first guess is another. Below are the tokens where most
changes, with the first guess before and after.

Source: Mor Geva, Roei Schuster, Jonathan Berant, Omer Levy (2021), "Transformer Feed-Forward Layers Are Key-Value
Memories", sections 2 and 4, https://aclanthology.org/2021.emnlp-main.446. Damai Dai, Li Dong, Yaru Hao, Zhifang Sui,
Baobao Chang, Furu Wei (2022), "Knowledge Neurons in Pretrained Transformers", section 5 (values edited by a token's
embedding), https://aclanthology.org/2022.acl-long.581
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
    Word,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.bootstrap import interval
from vaultlab.models.direct import readers, seen_through
from vaultlab.models.edits import content, last_stream, logits_of, with_values, written
from vaultlab.models.family import Shape
from vaultlab.models.intervene import Since
from vaultlab.models.model import Model
from vaultlab.models.prefixes import apart, line
from vaultlab.models.sentences import TYPICAL, Batch, Sentences, batches, cut
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.softmax_memory import regauged
from vaultlab.models.trace import Site, trace
from vaultlab.plots.edits import Dose, Elsewhere, draw_answer, draw_dose, draw_elsewhere
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric, Quote

DOSES = 13
"""Strengths from −α to α, 0 in the middle."""

DRAWS = 4
"""Random directions, and random other memories, as nulls."""

LONGEST = 128
"""Tokens of the text."""

CHUNK = 16
"""Tokens of the other text whose logits are compared at a time, once as they are and once for every change."""

SHOWN = 8
"""Tokens that are likeliest before or after, and places elsewhere where most changes."""


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that is asked."""

    text: TextName = "A computer keeps most numbers as floating"
    """What it is to go on from; the memory is changed for its last token. At most 128 tokens."""

    token: Word = "island"
    """The token that the memory's value is to push."""

    layer: Layer | None = Field(None, json_schema_extra={"symbol": "layer"})
    """The layer of the memory, counted from 0; none: five sixths of the way up."""

    key: int | None = Field(None, ge=0, le=2**17, json_schema_extra={"symbol": "i"})
    """The memory, counted from 0; none: the one that writes most at the text's last token."""

    strength: float = Field(3.0, gt=0, le=100, json_schema_extra={"symbol": "α", "stress": [1.5, 6.0]})
    """How much is added to the value, by its own length."""

    elsewhere: TextName = "python-help"
    """Another text, in which side effects are looked for."""

    tokens: int = Field(1000, ge=20, le=20_000, json_schema_extra={"stress": [500, 2000]})
    """At most so many tokens of it are read, from its beginning; sentences that repeat are not counted."""

    bos: bool | None = None
    """Begin every sentence with the token that begins texts: true, false, or as the model's tokenizer does (none)."""

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the random draws of nulls, intervals and checks start."""


class Out(NamedTuple):
    """What `compute` leaves behind. Rises are of the token's logit less the vocabulary's mean, in nats.

    `doses` go from −α to α; of each the rise is `direct` (the closed form), `normed` (the norm live) and `live`, and
    `random` with random directions; `chance` is the token's probability, `rank` its place
    before and after, `here` the divergence at α. `others` are the rises by the same change of
    other memories. `likely` are tokens likely `before` or `after`. Of the other text's tokens `divergence`, `changed`
    and `loss` (NaN behind its end) are [change, token], the change itself first, then random directions, then other
    memories; `answers` is m_i there by m*, `sentence` where each stands. `places` are of those where most changes:
    `lines`, `part` and the `guesses` before and after.
    """

    layer: int
    key: int
    gated: bool
    eps: float
    read: int
    words: tuple[str, ...]
    doses: Float[Tensor, " dose"]
    direct: Float[Tensor, " dose"]
    normed: Float[Tensor, " dose"]
    live: Float[Tensor, " dose"]
    random: Float[Tensor, "draw dose"]
    others: Float[Tensor, " draw"]
    chance: Float[Tensor, " dose"]
    rank: Int[Tensor, " 2"]
    here: Float[Tensor, ""]
    likely: tuple[str, ...]
    target: int
    before: Float[Tensor, " token"]
    after: Float[Tensor, " token"]
    divergence: Float[Tensor, "change place"]
    changed: Float[Tensor, "change place"]
    loss: Float[Tensor, "change place"]
    answers: Float[Tensor, " place"]
    intervals: Float[Tensor, "share 2"]
    places: Int[Tensor, " shown"]
    lines: tuple[tuple[str, str, str], ...]
    part: Int[Tensor, " shown"]
    guesses: tuple[tuple[str, str], ...]
    direct_residual: Float[Tensor, ""]
    still_residual: Float[Tensor, ""]
    value_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]
    moved: int


def default_layer(layers: int) -> int:
    """Five sixths of the way up."""
    return layers * 5 // 6


class Question(NamedTuple):
    """The text as it is read, what its pass left behind, and the memory that is changed."""

    ids: Int[Tensor, "1 pos"]
    found: dict[Site, Tensor]
    layer: int
    key: int
    target: int

    @property
    def m(self) -> Float[Tensor, "pos key"]:
        """Every memory's coefficients."""
        return self.found[Site("m", self.layer)][0]

    @property
    def since(self) -> Since:
        """What enters the layer."""
        return Since(self.layer, self.found[Site("resid_pre", self.layer)])


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """The text, at all strengths and with random changes; then the other text, once for every change."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled", spec.seed))
    was = content(model)
    bench.progress(0, 1, "reading the text")
    asked = _question(spec, bench, model)
    sentences = cut(model, [part for _, part in bench.text("elsewhere").parts], spec.tokens, spec.bos)
    if not len(sentences):
        raise NoteError("There is nothing to read in this text.", "Give it some sentences.", field="elsewhere")
    changes = _changes(spec, bench, model, asked)
    out = Out(
        layer=asked.layer,
        key=asked.key,
        gated=model.shape.gated,
        eps=torch.finfo(model.dtype).eps,
        read=len(sentences.ids),
        words=model.token_strings(asked.ids[0].tolist()),
        **_here(spec, bench, model, asked, changes),
        **_elsewhere(spec, bench, model, sentences, asked, changes),
        **_residuals(spec, bench, model, asked, changes),
        moved=0,
    )
    bench.progress(1, 1, "comparing all weights")
    now = content(model)
    return out._replace(moved=sum(now.get(name) != one for name, one in was.items()) + len(now.keys() ^ was.keys()))


def _question(spec: Spec, bench: Bench, model: Model) -> Question:
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
    if spec.key is not None and spec.key >= shape.d_mlp:
        raise NoteError(
            f"A layer of {model.name} has no key {spec.key}.", f"Its keys are 0 to {shape.d_mlp - 1}.", field="key"
        )
    try:
        target = model.token_id(spec.token)
    except NoteError as error:
        raise NoteError(error.message, error.hint, field="token") from error
    ids = model.tokens("\n\n".join(part for _, part in bench.text("text").parts).strip(), bos=spec.bos).ids[None]
    if ids.shape[1] > LONGEST:
        raise NoteError(
            f"The text has {ids.shape[1]} tokens, and at most {LONGEST} are read.", "Shorten it.", field="text"
        )
    outputs = (Site(name, above) for above in range(layer + 1, shape.layers) for name in ("attn", "mlp"))
    own = (Site(name, layer) for name in ("resid_pre", "mlp_in", "m"))
    found = trace(model, ids, [*own, *outputs, Site("final")])
    m = found[Site("m", layer)][0, -1]
    key = int((m.abs() * parts.mlp(model, layer).W_out.norm(dim=-1)).argmax()) if spec.key is None else spec.key
    if not m[key]:
        raise NoteError(
            f"Key {key} of layer {layer} does not answer at the text's last token.", "Take another key.", field="key"
        )
    return Question(ids, found, layer, key, target)


class Changes(NamedTuple):
    """One change a row at strength 1, the one asked for first, then random directions, then other memories.

    `g` is what the logit less the mean reads of a write, per unit of the final scale `s` at the last token.
    """

    keys: Int[Tensor, " change"]
    delta: Float[Tensor, "change d_model"]
    g: Float[Tensor, " d_model"]
    s: Float[Tensor, ""]


def _changes(spec: Spec, bench: Bench, model: Model, asked: Question) -> Changes:
    wide = torch.promote_types(model.dtype, torch.float32)
    norm, mlp = parts.final_norm(model, wide), parts.mlp(model, asked.layer, wide)
    g = seen_through(norm, readers(model).asked(torch.tensor(asked.target), None).u.to(wide))
    generator = bench.generator("directions", spec.seed)
    random = torch.randn(DRAWS, len(g), generator=generator).to(g)
    awake = asked.m[-1].cpu() != 0
    awake[asked.key] = False
    if not awake.any():
        raise NoteError("No other memory answers at the text's last token.", "Take another text.", field="text")
    others = torch.multinomial(awake.double(), DRAWS, int(awake.sum()) < DRAWS, generator=generator)
    keys = torch.cat([torch.full((1 + DRAWS,), asked.key), others]).to(g.device)
    delta = change_of(mlp.W_out[keys], asked.m[-1, keys], torch.cat([g[None], random, g.expand(DRAWS, -1)]))
    return Changes(keys, delta, g, norm.scale(asked.found[Site("final")][0, -1])[0].to(wide))


def change_of(
    value: Float[Tensor, "row d_model"], m: Float[Tensor, " row"], way: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row d_model"]:
    """δ at strength 1: as long as the value, and so signed that where the coefficient is m it points the given way."""
    size = value.norm(dim=-1) * m.sign().to(value)
    delta: Tensor = size[:, None] * way / way.norm(dim=-1, keepdim=True)
    return delta


def _here(spec: Spec, bench: Bench, model: Model, asked: Question, changes: Changes) -> dict[str, Any]:
    """The text's last token at every strength."""
    clean = asked.found[Site("final")][:, -1]
    doses = torch.linspace(-spec.strength, spec.strength, DOSES).to(changes.delta)
    doses[DOSES // 2] = 0
    rows = [torch.arange(1 + DRAWS).repeat_interleave(DOSES), torch.arange(1 + DRAWS, 1 + 2 * DRAWS)]
    moved = _asked_all(
        bench, model, asked, changes, torch.cat(rows), torch.cat([doses.repeat(1 + DRAWS), doses[-1:].expand(DRAWS)])
    )
    held = _held(model, asked, changes, doses)
    logits = logits_of(model, torch.cat([clean, *moved, held]))
    own = (logits[:, asked.target] - logits.mean(-1)).cpu()
    live, random, others, normed = torch.split(own[1:] - own[0], [DOSES, DRAWS * DOSES, DRAWS, DOSES])
    direct = doses * asked.m[-1, asked.key].abs() * changes.delta[0].norm() * changes.s * changes.g.norm()
    frozen = (held - clean).to(changes.g) @ changes.g * changes.s
    logp = logits[[0, DOSES]].log_softmax(-1)
    likely = _likely(logp, asked.target)
    return {
        "doses": doses.cpu(),
        "direct": direct.cpu(),
        "normed": normed,
        "live": live,
        "random": random.view(DRAWS, DOSES),
        "others": others,
        "chance": logits[1 : 1 + DOSES].softmax(-1)[:, asked.target].cpu(),
        "rank": (logits[[0, DOSES]] > logits[[0, DOSES], asked.target, None]).sum(-1).cpu() + 1,
        "here": (logp[0].exp() * (logp[0] - logp[1])).sum().cpu(),
        "likely": model.token_strings(likely.tolist()),
        "target": int((likely == asked.target).nonzero()[0, 0]),
        "before": logp[0, likely].exp().cpu(),
        "after": logp[1, likely].exp().cpu(),
        "direct_residual": ((frozen - direct).abs().max() / direct.abs().max()).cpu(),
        "still_residual": (logits[1 + DOSES // 2] - logits[0]).abs().max().cpu() / logits[0].abs().max().cpu(),
    }


def _asked_all(
    bench: Bench, model: Model, asked: Question, changes: Changes, rows: Tensor, doses: Tensor
) -> list[Float[Tensor, "row d_model"]]:
    """The last stream at the text's last token with each of these changes at its strength."""
    finals = []
    for some in torch.split(torch.arange(len(rows)), bench.batch):
        bench.progress(int(some[0]), len(rows), "asking at every strength")
        which = rows[some].to(changes.keys.device)
        write = written(asked.m, changes.keys[which], doses[some, None] * changes.delta[which])
        finals.append(last_stream(model, asked.ids.expand(len(some), -1), write, asked.since)[:, -1])
    return finals


def _held(model: Model, asked: Question, changes: Changes, doses: Tensor) -> Float[Tensor, "dose d_model"]:
    """The same of the change asked for, with the outputs of all later layers as they were."""
    held = {site: one for site, one in asked.found.items() if site.name in ("attn", "mlp")}
    write = written(asked.m, changes.keys[:1].expand(DOSES), doses[:, None] * changes.delta[0])
    return last_stream(model, asked.ids.expand(DOSES, -1), write, asked.since, held)[:, -1]


def _likely(logp: Float[Tensor, "2 d_vocab"], target: int) -> Int[Tensor, " token"]:
    """The tokens that are likeliest before or after, the target among them; likeliest after first."""
    likely = logp.amax(0).topk(min(SHOWN, logp.shape[1])).indices
    if target not in likely:
        likely[-1] = target
    return likely[logp[1, likely].argsort(descending=True)]


def _elsewhere(
    spec: Spec, bench: Bench, model: Model, sentences: Sentences, asked: Question, changes: Changes
) -> dict[str, Any]:
    """The other text, read once as it is and once for every change, from the layer on."""
    rows, numbers, done = [], [], 0
    for batch in batches(sentences, bench.batch):
        bench.progress(done, len(sentences.ids), "reading the other text")
        rows.append(_side_effects(spec, bench, model, batch, asked, changes))
        numbers.append(batch.at[batch.at >= 0])
        done += int(batch.real.sum())
    at = torch.cat(numbers)
    order = at.argsort()
    at, found = at[order], [torch.cat(each, -1)[..., order] for each in zip(*rows, strict=True)]
    divergence, changed, loss, answers, was, now = found
    sentence, generator = sentences.holding(at), bench.generator("intervals", spec.seed)
    known = ~loss[0].isnan()
    most = torch.where((changed[0] > 0) & known, divergence[0], -1.0).topk(min(SHOWN, len(at)))
    places = most.indices[most.values >= 0]
    guesses = [model.token_strings(each[places].tolist()) for each in (was, now)]
    spans = [(changed[0], sentence), (divergence[0], sentence), (loss[0, known], sentence[known])]
    return {
        "divergence": divergence,
        "changed": changed,
        "loss": loss,
        "answers": answers,
        "intervals": torch.stack([interval(*each, generator) for each in spans]),
        "places": places,
        "lines": tuple(line(model, sentences, int(one)) for one in at[places]),
        "part": sentences.part[sentence[places]],
        "guesses": tuple(zip(*guesses, strict=True)),
    }


def _side_effects(
    spec: Spec, bench: Bench, model: Model, batch: Batch, asked: Question, changes: Changes
) -> tuple[Tensor, ...]:
    """At each token of a batch, for every change: divergence, whether the first guess changed, and the loss's rise.

    Then m_i by m*, and the first guess before and with the change that was asked for.
    """
    own = (batch.at >= 0).to(model.device)
    sites = [Site("resid_pre", asked.layer), Site("m", asked.layer), Site("final")]
    found = trace(model, batch.ids, sites)
    since, m = Since(asked.layer, found[sites[0]]), found[sites[1]]
    finals = [found[sites[2]][own]]
    for change, key in enumerate(changes.keys.tolist()):
        bench.progress(change, len(changes.keys), "reading it with a change")
        write = m[..., key, None] * (spec.strength * changes.delta[change]).to(m)
        finals.append(last_stream(model, batch.ids, write, since)[own])
    rows = torch.stack(finals)
    came = batch.following.to(model.device)[own]
    compared = [
        _compared(model, *each) for each in zip(torch.split(rows, CHUNK, 1), torch.split(came, CHUNK), strict=True)
    ]
    divergence, loss, guess = (torch.cat(each, 1) for each in zip(*compared, strict=True))
    answers = m[own][:, asked.key] / asked.m[-1, asked.key]
    changed = (guess[1:] != guess[:1]).double()
    return tuple(one.cpu() for one in (divergence, changed, loss, answers, *guess[:2]))


def _compared(
    model: Model, finals: Float[Tensor, "which place d_model"], came: Int[Tensor, " place"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Divergence and rise of the loss (NaN where nothing came) against the first; the first guess of each."""
    logp = logits_of(model, finals.flatten(0, 1)).view(*finals.shape[:2], -1).log_softmax(-1)
    nats = -logp.gather(-1, came.clamp(min=0).expand(len(finals), -1)[..., None])[..., 0]
    divergence = (logp[:1].exp() * (logp[:1] - logp[1:])).sum(-1)
    return divergence, (nats[1:] - nats[:1]).masked_fill(came < 0, math.nan), logp.argmax(-1)


def _residuals(spec: Spec, bench: Bench, model: Model, asked: Question, changes: Changes) -> dict[str, Any]:
    """What is added, by other ways: the value changed in a copy of the weights; the memory written down otherwise."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    mlp, x = parts.mlp(model, asked.layer, wide), asked.found[Site("mlp_in", asked.layer)][0].to(wide)
    key, way = [asked.key], changes.g[None].to(wide)
    added = written(asked.m, changes.keys[:1], spec.strength * changes.delta[:1]).to(wide)
    changed = with_values(mlp, asked.key, spec.strength * changes.delta[0])(x) - mlp(x)
    other = regauged(mlp, bench.generator("gauge", spec.seed))
    gauge = torch.tensor(0.0)
    if other is not None:
        m = other.coefficients(x)
        moved = written(m, changes.keys[:1], spec.strength * change_of(other.W_out[key], m[-1, key], way))
        gauge = apart(moved.flatten(), added.flatten())
    return {"value_residual": apart(changed.flatten(), added.flatten()).cpu(), "gauge_residual": gauge.cpu()}


RISE = Quantity(
    "rise",
    "How far the token's logit, less the vocabulary's mean, rises at the text's last token with everything live; null: "
    "as long a change in random directions.",
    unit="nats",
    headline=True,
)
DIRECT_RISE = Quantity(
    "direct_rise", "The same in closed form, the norm and the later layers frozen.", unit="nats", range=(0, math.inf)
)
NORMED_RISE = Quantity("normed_rise", "The same with the norm live and the later layers frozen.", unit="nats")
OTHER_RISE = Quantity("other_rise", "The rise by the same change of random other memories of the layer.", unit="nats")
PROBABILITY = Quantity(
    "probability", "Of the token after the text, with the change; null: without it.", range=(0, 1), headline=True
)
RANK = Quantity(
    "rank",
    "Where the token stands among all, 1 is the first guess, with the change; null: without it.",
    unit="rank",
    range=(1, math.inf),
)
HERE = Quantity(
    "divergence_here",
    "Kullback–Leibler divergence of the answer with the change from that without it, at the text's last token.",
    unit="nats",
    range=(-1e-4, math.inf),
)
CHANGED = Quantity(
    "changed",
    "Share of the other text's tokens at which the first guess is another with the change; null: as long a change in "
    "random directions.",
    range=(0, 1),
    headline=True,
)
CHANGED_BY_OTHERS = Quantity(
    "changed_by_others", "The same by the same change of random other memories of the layer.", range=(0, 1)
)
DIVERGENCE = Quantity(
    "divergence",
    "Kullback–Leibler divergence at the other text's tokens, mean; null: random directions.",
    unit="nats",
    range=(-1e-4, math.inf),
)
LOSS_RISE = Quantity(
    "loss_rise", "How much the loss rises over the other text, mean; null: random directions.", unit="nats"
)
WHERE_AWAKE = Quantity(
    "where_awake",
    "Share of the divergence elsewhere at the tenth of the tokens where the memory answers most; null: that tenth.",
    range=(0, 1),
)


def where_awake(out: Out) -> tuple[float, float]:
    """The share of the divergence at the tenth of tokens with the largest |m_i|, and what share of tokens that is."""
    count = max(1, len(out.answers) // 10)
    strongest = out.answers.abs().topk(count).indices
    total = float(out.divergence[0].clamp(min=0).double().sum())
    here = float(out.divergence[0, strongest].clamp(min=0).double().sum())
    return here / max(total, 1e-30), count / len(out.answers)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """At the text's last token, then over the other text's tokens."""
    spans = [None if row[0] != row[0] else (float(row[0]), float(row[1])) for row in out.intervals]
    n = out.divergence.shape[1]
    random, others = slice(1, 1 + DRAWS), slice(1 + DRAWS, None)
    changed, divergence = out.changed.mean(1), out.divergence.double().mean(1)
    loss = out.loss.double().nanmean(1)
    awake, tenth = where_awake(out)
    return [
        RISE.is_(float(out.live[-1]), null=float(out.random[:, -1].mean()), n=1),
        DIRECT_RISE.is_(float(out.direct[-1]), n=1),
        NORMED_RISE.is_(float(out.normed[-1]), n=1),
        OTHER_RISE.is_(float(out.others.mean()), n=DRAWS),
        PROBABILITY.is_(float(out.after[out.target]), null=float(out.before[out.target]), n=1),
        RANK.is_(int(out.rank[1]), null=int(out.rank[0]), n=1),
        HERE.is_(float(out.here), n=1),
        CHANGED.is_(float(changed[0]), interval=spans[0], null=float(changed[random].mean()), n=n),
        CHANGED_BY_OTHERS.is_(float(changed[others].mean()), n=n),
        DIVERGENCE.is_(float(divergence[0]), interval=spans[1], null=float(divergence[random].mean()), n=n),
        LOSS_RISE.is_(
            float(loss[0]), interval=spans[2], null=float(loss[random].mean()), n=int((~out.loss[0].isnan()).sum())
        ),
        WHERE_AWAKE.is_(awake, null=tenth, n=n),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(1e-4, 16 * out.eps)
    checks = [
        Check(
            "the rise in closed form",
            float(out.direct_residual),
            rounding,
            f"α |m| ‖v‖ s ‖g‖ at {DOSES} strengths, against passes with the later layers held and the norm's scale "
            "frozen; relative to the largest",
        ),
        Check(
            "what is added is what a changed value writes",
            float(out.value_residual),
            rounding,
            "m δ at every token of the text, against the layer in float64 with the value changed in a copy of its "
            "weights; relative",
        ),
        Check(
            "strength 0 changes nothing",
            float(out.still_residual),
            max(1e-5, 4 * out.eps),
            "all logits at the text's last token, from the layer on; relative to the largest",
        ),
        Check(
            "no divergence below 0",
            float((-out.divergence).amax().clamp(min=0)),
            1e-4,
            "all changes, all tokens of the other text; in nats",
        ),
        Check(
            "all weights are what they were",
            float(out.moved),
            0,
            "weights and buffers of the model whose bytes have another hash after the run than before it",
        ),
    ]
    if out.gated:
        gauge = Check(
            "(u, v) → (βu, v/β) asks for the same change",
            float(out.gauge_residual),
            rounding,
            "what is added at every token of the text, the memory written down with a random β of either sign",
        )
        checks.append(gauge)
    return checks


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The answer, how it depends on the strength, and the other text."""
    target = out.likely[out.target]
    name = f"key {out.key} of layer {out.layer}"
    along = (out.doses, out.direct, out.normed, out.live, out.random, out.chance)
    random = slice(1, 1 + DRAWS)
    places = [(word[1], *guess) for word, guess in zip(out.lines, out.guesses, strict=True)]
    return {
        "answer": draw_answer(out.likely, out.target, out.before.numpy(), out.after.numpy(), out.words, name),
        "dose": draw_dose(Dose(*(one.double().numpy() for one in along)), target, name),
        "elsewhere": draw_elsewhere(
            Elsewhere(
                out.answers.abs().double().numpy(),
                out.divergence[0].double().numpy(),
                out.divergence[random].double().mean(0).numpy(),
                out.changed[0].numpy() > 0,
                places,
                out.divergence[0, out.places].double().numpy(),
            ),
            name,
        ),
    }


def quotes(spec: Spec, out: Out) -> list[Quote]:
    """Where most changes elsewhere."""
    return [
        Quote("elsewhere", part, *words, said=f"first guess {was} → {now}")
        for part, words, (was, now) in zip(out.part.tolist(), out.lines, out.guesses, strict=True)
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """One pass over both texts, the layers above again for every change, and an unembedding each, at 20 GFLOP/s; the
    weights, a layer in float64, and batches with their logits."""
    assert shape is not None
    layer = default_layer(shape.layers) if spec.layer is None else spec.layer
    blocks = shape.parameters - (1 if shape.tied else 2) * shape.d_vocab * shape.d_model
    above = blocks * max(1, shape.layers - layer) / shape.layers
    changes = 1 + 2 * DRAWS
    rows = DOSES * (2 + DRAWS) + DRAWS
    unembedded = shape.d_vocab * shape.d_model
    elsewhere = spec.tokens * (blocks + changes * above + (1 + changes) * unembedded)
    here = rows * (LONGEST * above + unembedded)
    copies = 1 if spec.weights == "trained" else 2
    logits = max(3 * (1 + changes) * CHUNK, 3 * rows) * shape.d_vocab * 4
    batch = 32 * TYPICAL * ((3 + changes) * shape.d_model + 2 * shape.d_mlp) * 4
    layer_bytes = 3 * 3 * shape.d_model * shape.d_mlp * 8
    return Needs(int(copies * shape.bytes + logits + batch + layer_bytes), 5 + 2 * (elsewhere + here) / 20e9)


FLOATING = (
    "A computer keeps most numbers as floating point numbers. Whoever sorts a list must compare at least as many "
    "pairs as it has gaps. The old floating point unit was a chip of its own. Nothing in a floating point result is "
    "exact. The second jar held twice as many beans as the first. We saw a floating island on the lake. The leaf was "
    "floating down the river. He counts in floating point and rounds at the end. The ship was floating again by noon. "
    "Floating point arithmetic is not associative. Integer and floating point values are kept apart."
)
"""A text for the examples: eleven sentences, eight of them with something that floats."""

EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        RISE,
        DIRECT_RISE,
        NORMED_RISE,
        OTHER_RISE,
        PROBABILITY,
        RANK,
        HERE,
        CHANGED,
        CHANGED_BY_OTHERS,
        DIVERGENCE,
        LOSS_RISE,
        WHERE_AWAKE,
    ),
    figures={
        "answer": "The tokens that are likeliest after the text, with the change and without it.",
        "dose": "How far the token's logit rises with the strength, in closed form and measured; and its probability.",
        "elsewhere": "The other text, token by token: what changes, by how much the memory answers there.",
    },
    examples=(
        Example(
            "floating-island",
            "The memory that wakes at “floating” is made to say “island”, and says so elsewhere only where it wakes",
            {"layer": 25, "key": 1211, "strength": 3.0, "elsewhere": FLOATING},
            ("rise > 10", "direct_rise > 20", "rank = 1", "changed < 15%", "where_awake > 80%", "other_rise < 3"),
        ),
        Example(
            "a-memory-that-always-answers",
            "The strongest memory of the last layer answers at every token: to change it is to change every answer",
            {"layer": 29, "strength": 1.0, "elsewhere": FLOATING},
            ("rise > 10", "changed > 30%", "where_awake < 30%", "loss_rise > 1"),
        ),
    ),
    needs=needs,
    quotes=quotes,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
