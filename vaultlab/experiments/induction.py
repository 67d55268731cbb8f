"""Induction: which heads find where a token stood before and copy what followed, and what is lost without them.

Random tokens, then the same ones again. Nothing foretells the first stretch; of the second a model knows every token
that it has seen what followed. With `start` tokens before the stretch (what begins texts, or one random token) and p
its length, token i of the second stretch stood at i − p, and what followed it at i − p + 1. A head's scores are the
shares of its attention A that are there, mean over tokens and texts:

    previous token = A[i, i−1]        duplicate token = A[i, i−p]        induction = A[i, i−p+1]

    repeat loss    −log p(token) in the second stretch, its first token left out: nothing says that it begins again
    ablation cost  repeat loss without the `cut` strongest induction heads, less the repeat loss with all

Without a head: at every token from the stretch on, what it gathers is replaced by its mean over other texts (`mean`),
by what it gathers at that place of another text (`resample`), or by nothing (`zero`, which alone can cost much of any
head: the layers behind it have never seen nothing there). The heads are chosen on one batch of texts, and scored and
cut on another. The null: as many other heads of the same layers, drawn at random `draws` times, or all the other
choices there are, if there are fewer. A head that only looks p − 1 tokens back, whatever stands there, would score
too: texts whose second stretch is another one tell (`counting_back`).

Position 0 and whatever else begins texts is a place to rest on: it is neither asked, found nor cut. Tokens that are
special, or that cannot be seen (white space, pieces of characters), are not drawn, and no token twice in a stretch.

How to read the figures. In `heads` each cell is a head, and the strongest are named: a previous-token head in an
earlier layer, induction heads in later ones. In `loss` the line falls where the stretch begins again; without the
strongest heads it stays up, without random ones (the band) it does not. In `ablation` every dot is a random draw: the
line is what the strongest heads cost.

Source: Catherine Olsson, Nelson Elhage, Neel Nanda, Nicholas Joseph, Nova DasSarma, Tom Henighan, Ben Mann, Amanda
Askell, Yuntao Bai, Anna Chen, Tom Conerly, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Scott
Johnston, Andy Jones, Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan,
Sam McCandlish, Chris Olah (2022), "In-context Learning and Induction Heads", sections "Key Concepts" and "Arguments
Involving Induction Heads", https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html

Mean and resample ablation: Kevin Wang, Alexandre Variengien, Arthur Conmy, Buck Shlegeris, Jacob Steinhardt (2022),
"Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small", section 2.1,
https://arxiv.org/abs/2211.00593
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Bos, Example, Experiment, ModelName, Needs, Nonsense, Quantity, Seed, Share
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import parts
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.induction import KINDS, Repeated, by_content, halves, interval, repeated, scores, uniform
from vaultlab.models.intervene import Edit, Since, intervene, of_heads
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.surprise import CHUNK, surprise
from vaultlab.models.trace import Site, trace
from vaultlab.plots.induction import draw_ablation, draw_heads, draw_loss
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

PREVIOUS, DUPLICATE, INDUCTION = range(3)

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose heads are looked at."""

    period: int = Field(50, ge=4, le=512, json_schema_extra={"symbol": "p", "stress": [20, 100]})
    """How many random tokens the stretch has before it comes again."""

    texts: int = Field(8, ge=2, le=64)
    """Texts to choose the heads on, and as many others to judge them on."""

    cut: int = Field(6, ge=1, le=32, json_schema_extra={"stress": [3, 8]})
    """How many of the strongest induction heads are cut."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What a cut head gathers instead: its mean over other texts, nothing (zero), or what it does in another text."""

    draws: int = Field(20, ge=20, le=200)
    """How often other heads of the same layers are drawn and cut, for the null."""

    threshold: Share = Field(0.5, gt=0, lt=1, json_schema_extra={"stress": [0.3, 0.7]})
    """From which induction score on a head counts as an induction head."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind. `chosen_on` and `scores` are those of all heads on the two batches, `control` those
    in texts that do not repeat, kinds as in `KINDS`; `nats` the loss of the judged texts' tokens but the first, `cut`
    the same without some heads: the strongest first, then each random draw. `cuts` names these heads.
    """

    start: int
    eps: float
    d_vocab: int
    tokens: tuple[str, ...]
    cuts: tuple[tuple[str, ...], ...]
    ids: Int[Tensor, "text pos"]
    chosen_on: Float[Tensor, "kind text layer head"]
    scores: Float[Tensor, "kind text layer head"]
    control: Float[Tensor, "kind text layer head"]
    nats: Float[Tensor, "text before"]
    cut: Float[Tensor, "cut text before"]
    row_residual: Float[Tensor, ""]
    ahead_residual: Float[Tensor, ""]
    content_residual: Float[Tensor, ""]
    pattern_residual: Float[Tensor, ""]
    loss_residual: Float[Tensor, ""]
    nothing_residual: Float[Tensor, ""]
    write_residual: Float[Tensor, ""]


Address = tuple[int, int]
"""Layer and number of a head."""


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """Patterns are looked at layer by layer and never kept; then one pass for each set of heads that is cut."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))

    def texts(name: str, again: bool = True) -> Repeated:
        drawn = bench.generator("induction", spec.seed, name)
        return repeated(model, spec.texts, spec.period, drawn, bos=spec.bos, again=again)

    choose, judge, control = texts("choose"), texts("judge"), texts("control", again=False)
    passes = 5 + spec.draws
    bench.progress(0, passes, "looking at all heads")
    chosen_on = observe(model, choose, bench.batch)
    strongest = _strongest(chosen_on.scores[INDUCTION].mean(0), spec.cut)
    sets = [strongest, *_others(model, strongest, spec.draws, bench.generator("induction", spec.seed, "draws"))]
    bench.progress(1, passes, "looking at all heads")
    found = observe(model, judge, bench.batch)
    bench.progress(2, passes, "looking at all heads")
    against = observe(model, control, bench.batch)
    bench.progress(3, passes, "reading what to put in")
    knife = _knife(model, spec.ablation, (choose, judge), strongest, bench.batch)
    cut = []
    for done, heads in enumerate(sets):
        bench.progress(4 + done, passes, "cutting heads")
        cut.append(knife.nats(heads))
    return Out(
        start=judge.start,
        eps=torch.finfo(model.dtype).eps,
        d_vocab=model.shape.d_vocab,
        tokens=model.token_strings(judge.ids[0].tolist()),
        cuts=tuple(tuple(f"L{layer}H{head}" for layer, head in heads) for heads in sets),
        ids=judge.ids,
        chosen_on=chosen_on.scores,
        scores=found.scores,
        control=against.scores,
        nats=found.nats,
        cut=torch.stack(cut),
        row_residual=torch.stack([chosen_on.row_residual, found.row_residual, against.row_residual]).max(),
        ahead_residual=torch.stack([chosen_on.ahead_residual, found.ahead_residual, against.ahead_residual]).max(),
        content_residual=found.content_residual,
        **_exact(model, found, strongest, knife),
    )


class Observed(NamedTuple):
    """What all heads do with some texts, and the loss of the tokens; the residuals are those of `verify`."""

    scores: Float[Tensor, "kind text layer head"]
    nats: Float[Tensor, "text before"]
    row_residual: Float[Tensor, ""]
    ahead_residual: Float[Tensor, ""]
    content_residual: Float[Tensor, ""]


def observe(model: Model, text: Repeated, batch: int) -> Observed:
    """One pass, some texts at a time."""
    looks = [_observe_batch(model, text._replace(ids=ids)) for ids in torch.split(text.ids, batch)]
    worst = [torch.stack(each).max() for each in zip(*(one[2:] for one in looks), strict=True)]
    return Observed(torch.cat([one.scores for one in looks], 1), torch.cat([one.nats for one in looks]), *worst)


def _observe_batch(model: Model, text: Repeated) -> Observed:
    """One pass over one batch: each layer's patterns are scored when they come by, of the first text by content too."""
    start, period = text.start, text.period
    found: list[Tensor] = []
    residuals: list[Tensor] = []

    def look(A: Tensor) -> Tensor:
        score = scores(A, start, period)
        content = by_content(A[0], text.ids[0].to(A.device), start, period)
        rows, ahead = (A.float().sum(-1) - 1).abs().max(), A.triu(1).max().float()
        residuals.append(torch.stack([rows, ahead, (content - score[1:, 0]).abs().max()]))
        found.append(score)
        return A

    touches = [(Site("pattern", layer), look) for layer in range(model.shape.layers)]
    final = trace(model, text.ids, [Site("final")], touches)[Site("final")]
    worst = torch.stack(residuals).amax(0).cpu()
    return Observed(torch.stack(found, 2).cpu(), surprise(model, final, text.ids), *worst)


def _strongest(score: Float[Tensor, "layer head"], count: int) -> list[Address]:
    heads = score.shape[1]
    if count >= score.numel():
        raise NoteError(
            f"The model has {score.numel()} heads, and {count} are to be cut.", "Cut fewer: `cut: 1`.", field="cut"
        )
    order = score.flatten().argsort(descending=True, stable=True)[:count].tolist()
    return [divmod(place, heads) for place in order]


def _others(
    model: Model, strongest: Sequence[Address], most: int, generator: torch.Generator
) -> list[tuple[Address, ...]]:
    """Sets of other heads, as many of each layer; no set twice. All that there are, where they are fewer than `most`.

    Raises NoteError where a layer has not enough other heads.
    """
    counts = {layer: sum(1 for at, _ in strongest if at == layer) for layer in sorted({at for at, _ in strongest})}
    rest = {layer: [head for head in range(model.shape.heads) if (layer, head) not in strongest] for layer in counts}
    for layer, count in counts.items():
        if count > len(rest[layer]):
            raise NoteError(
                f"{count} of the {len(strongest)} strongest heads are in layer {layer}, which has {len(rest[layer])} "
                "others: not enough to compare with.",
                f"Cut fewer: `cut: {max(1, len(strongest) - 1)}`.",
                field="cut",
            )
    if math.prod(math.comb(len(rest[layer]), count) for layer, count in counts.items()) <= most:
        return list(_every(counts, rest))
    found: dict[tuple[Address, ...], None] = {}
    while len(found) < most:
        drawn: list[Address] = []
        for layer, count in counts.items():
            order = torch.randperm(len(rest[layer]), generator=generator)[:count]
            drawn += [(layer, head) for head in sorted(rest[layer][at] for at in order.tolist())]
        found[tuple(drawn)] = None
    return list(found)


def _every(counts: dict[int, int], rest: dict[int, list[int]]) -> Iterator[tuple[Address, ...]]:
    for choice in product(*(combinations(rest[layer], count) for layer, count in counts.items())):
        yield tuple((layer, head) for layer, heads in zip(counts, choice, strict=True) for head in heads)


@dataclass(frozen=True)
class _Knife:
    """Cuts heads of the layers that it was made for out of the judged texts, and runs what comes after them anew.

    `instead` is what a layer's heads gather, [1 1 head d_head] or text by text; a layer that is not there gathers
    nothing. `since` is the judged texts' stream where it enters the first of these layers.
    """

    model: Model
    judge: Repeated
    instead: Mapping[int, Tensor]
    since: Since
    batch: int

    def edits(self, heads: Sequence[Address], rows: slice) -> list[Edit]:
        """From the stretch on, in these rows."""
        asked = torch.arange(self.judge.ids.shape[1])[None] >= self.judge.start
        found = []
        for layer in sorted({layer for layer, _ in heads}):
            put = self.instead.get(layer, torch.zeros(1, 1, 1, 1))
            mask = of_heads(self.model.shape.heads, [head for at, head in heads if at == layer])
            found.append(
                Edit(Site("z", layer), partial(_put, put[rows] if len(put) > 1 else put), asked, mask),
            )
        return found

    def run(self, edits: Sequence[Edit], rows: slice, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """These sites of these rows."""
        since = self.since._replace(resid_pre=self.since.resid_pre[rows])
        return intervene(self.model, self.judge.ids[rows], edits, sites, since)

    def nats(self, heads: Sequence[Address]) -> Float[Tensor, "text before"]:
        """The loss of the judged texts' tokens without these heads."""
        found = []
        for first in range(0, len(self.judge.ids), self.batch):
            rows = slice(first, first + self.batch)
            final = self.run(self.edits(heads, rows), rows, [Site("final")])[Site("final")]
            found.append(surprise(self.model, final, self.judge.ids[rows]))
        return torch.cat(found)


def _put(other: Tensor, z: Tensor) -> Tensor:
    return other.to(z).expand_as(z)


def _knife(
    model: Model, ablation: str, texts: tuple[Repeated, Repeated], heads: Sequence[Address], batch: int
) -> _Knife:
    """`texts`: those that what is put in comes from, and those that are judged."""
    other, judge = texts
    layers = sorted({layer for layer, _ in heads})
    instead: dict[int, Tensor] = {}
    if ablation != "zero":
        sites = [Site("z", layer) for layer in layers]
        found = [trace(model, ids, sites) for ids in torch.split(other.ids, batch)]
        for layer, site in zip(layers, sites, strict=True):
            z = torch.cat([one[site] for one in found])
            mean = z[:, other.start :].float().mean((0, 1), keepdim=True).to(z)
            instead[layer] = mean if ablation == "mean" else z
    before = Site("resid_pre", layers[0])
    stream = torch.cat([trace(model, ids, [before])[before] for ids in torch.split(judge.ids, batch)])
    return _Knife(model, judge, instead, Since(layers[0], stream), batch)


def _exact(model: Model, found: Observed, strongest: Sequence[Address], knife: _Knife) -> dict[str, Tensor]:
    """Of the first judged text: pattern and loss by another way, nothing cut, and what is cut by its algebra."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    layer, _ = strongest[0]
    ids, row = knife.judge.ids[:1], slice(0, 1)
    names = Site("attn_in", layer), Site("pattern", layer), Site("logits")
    x, A, logits = (trace(model, ids, names)[site][0] for site in names)
    own = parts.attention(model, layer, wide).pattern(x.to(wide))
    nats = -logits[:-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None].to(logits.device))[:, 0]
    nowhere = [edit._replace(heads=of_heads(model.shape.heads, [])) for edit in knife.edits(strongest, row)]
    as_is = surprise(model, knife.run(nowhere, row, [Site("final")])[Site("final")], ids)
    return {
        "pattern_residual": (own - A).abs().max().cpu(),
        "loss_residual": (nats.cpu() - found.nats[0]).abs().max(),
        "nothing_residual": (as_is - found.nats[0]).abs().max(),
        "write_residual": _write_residual(model, strongest, knife, wide).cpu(),
    }


def _write_residual(model: Model, strongest: Sequence[Address], knife: _Knife, wide: torch.dtype) -> Float[Tensor, ""]:
    """How far the first cut layer's output moves from what its heads' changed z moves through W_O."""
    layer, row = knife.since.layer, slice(0, 1)
    sites = Site("z", layer), Site("attn", layer)
    edits = [edit for edit in knife.edits(strongest, row) if edit.site.layer == layer]
    without, whole = knife.run(edits, row, sites), knife.run([], row, sites)
    z, attn = (without[site][0].to(wide) - whole[site][0].to(wide) for site in sites)
    heads = [head for at, head in strongest if at == layer]
    moved = parts.attention(model, layer, wide).writes(z)[:, heads].sum(1)
    return (moved - attn).abs().max() / whole[sites[1]].abs().max()


INDUCTION_HEADS = Quantity(
    "induction_heads",
    "How many heads have an induction score above `threshold`; null: in texts that do not repeat.",
    unit="heads",
    range=(0, math.inf),
    headline=True,
)
REPEAT_LOSS = Quantity(
    "repeat_loss",
    "−log p of the tokens of the second stretch, mean over tokens and texts; null: of the first, `first_loss`.",
    unit="nats",
    range=(0, math.inf),
    headline=True,
)
ABLATION_COST = Quantity(
    "ablation_cost",
    "How much the repeat loss rises without the strongest induction heads; null: the largest rise of all draws of "
    "other heads of the same layers.",
    unit="nats",
    headline=True,
)
COST_BY_NULL = Quantity(
    "cost_by_null",
    "The ablation cost by the largest change, up or down, that any draw of other heads makes; null: 1.",
    unit="×",
)
FIRST_LOSS = Quantity(
    "first_loss",
    "−log p of the tokens of the first stretch, mean over tokens and texts; null: a uniform guess, log V.",
    unit="nats",
    range=(0, math.inf),
)
FIRST_COST = Quantity(
    "first_cost",
    "How much the loss of the first stretch rises without the strongest induction heads; null: the largest rise of all "
    "draws.",
    unit="nats",
)
RANDOM_COST = Quantity(
    "random_cost",
    "How much the repeat loss rises without other heads of the same layers, draw by draw.",
    unit="nats",
)
BEST_PREVIOUS_TOKEN, BEST_DUPLICATE_TOKEN, BEST_INDUCTION = (
    Quantity(
        f"best_{kind}",
        f"The {kind.replace('_', '-')} score of the head that had the largest on the other batch; null: uniform "
        "attention.",
        range=(0, 1),
    )
    for kind in KINDS
)
COUNTING_BACK = Quantity(
    "counting_back",
    "The largest share of its attention that any head has at the same distance back in texts that do not repeat; null: "
    "uniform attention.",
    range=(0, 1),
)
ALL_PREVIOUS_TOKEN, ALL_DUPLICATE_TOKEN, ALL_INDUCTION = (
    Quantity(
        kind,
        f"Share of every head's attention that is on {where}, layer after layer; null: uniform attention.",
        range=(0, 1),
    )
    for kind, where in zip(
        KINDS,
        (
            "the token before",
            "the same token where it stood before",
            "the token that followed where the same one stood before",
        ),
        strict=True,
    )
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of the judged texts; intervals from a bootstrap over them."""
    text = Repeated(out.ids, out.start, spec.period)
    first, second = halves(text)
    score, texts = out.scores, len(out.ids)
    chance = uniform(out.ids.shape[1], out.start, spec.period).tolist()
    generator = draws("induction", spec.seed, "bootstrap")
    cost = out.cut - out.nats
    random = cost[1:, :, second].double().mean((1, 2))
    among = score[INDUCTION].mean(0) > spec.threshold
    by_chance = out.control[INDUCTION].mean(0) > spec.threshold

    def over_texts(quantity: Quantity, values: Float[Tensor, " text"], null: float) -> Metric:
        value = float(values.double().mean())
        return quantity.is_(value, interval=interval(values, generator), null=null, n=texts)

    def best(quantity: Quantity, kind: int) -> Metric:
        layer, head = divmod(int(out.chosen_on[kind].mean(0).argmax()), score.shape[-1])
        return over_texts(quantity, score[kind, :, layer, head], chance[kind])

    def of_heads(quantity: Quantity, kind: int) -> Metric:
        return quantity.is_(tuple(score[kind].mean(0).flatten().tolist()), null=chance[kind], n=texts)

    lost, early = cost[0][:, second].mean(1), cost[0][:, first].mean(1)
    before = out.nats[:, first].mean(1)
    return [
        INDUCTION_HEADS.is_(float(among.sum()), null=float(by_chance.sum()), n=among.numel()),
        over_texts(REPEAT_LOSS, out.nats[:, second].mean(1), float(before.double().mean())),
        over_texts(ABLATION_COST, lost, float(random.max())),
        COST_BY_NULL.is_(float(lost.double().mean() / random.abs().max().clamp(min=1e-9)), null=1.0, n=len(random)),
        over_texts(FIRST_LOSS, before, math.log(out.d_vocab)),
        over_texts(FIRST_COST, early, float(cost[1:, :, first].double().mean((1, 2)).max())),
        RANDOM_COST.is_(tuple(random.tolist()), n=len(random)),
        best(BEST_PREVIOUS_TOKEN, PREVIOUS),
        best(BEST_DUPLICATE_TOKEN, DUPLICATE),
        best(BEST_INDUCTION, INDUCTION),
        COUNTING_BACK.is_(float(out.control[INDUCTION].mean(0).max()), null=chance[INDUCTION], n=texts),
        of_heads(ALL_PREVIOUS_TOKEN, PREVIOUS),
        of_heads(ALL_DUPLICATE_TOKEN, DUPLICATE),
        of_heads(ALL_INDUCTION, INDUCTION),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(ALGEBRA, 4 * out.eps)
    p = spec.period
    stretch = out.ids[:, out.start : out.start + p]
    twice = stretch.sort(dim=1).values.diff(dim=1) == 0
    return [
        Check("rows sum to 1", float(out.row_residual), max(rounding, 16 * out.eps), "all heads, all texts"),
        Check("nothing looks ahead", float(out.ahead_residual), 0.0, "the largest weight on what is not visible"),
        Check(
            "the texts repeat, and no token is twice in a stretch",
            float((stretch != out.ids[:, out.start + p :]).sum() + twice.sum()),
            0.0,
            "how many tokens break it",
        ),
        Check(
            "scores by place = scores by content",
            float(out.content_residual),
            rounding,
            "duplicate-token and induction scores of all heads in one text of a batch, found by which tokens are equal",
        ),
        Check(
            "pattern = softmax of queries and keys",
            float(out.pattern_residual),
            rounding,
            "the layer of the strongest head rebuilt from W_Q, W_K, their biases and the positions",
        ),
        Check(
            "loss = the model's own",
            float(out.loss_residual),
            max(1e-3, 64 * out.eps),
            "of one text, from the net's own logits, against the last stream read by the final norm and W_U; in nats",
        ),
        Check("nothing cut costs nothing", float(out.nothing_residual), max(1e-4, 64 * out.eps), "one text; in nats"),
        Check(
            "what is cut = what is not written",
            float(out.write_residual),
            rounding,
            "the first cut layer's output moves by what the heads gather less, through W_O; relative",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, a batch's streams and one layer's patterns, what is put in; every pass at 60 GFLOP/s (two cores)."""
    assert shape is not None
    length = 1 + 2 * spec.period
    tokens = spec.texts * length
    patterns = 4 * shape.heads * tokens * length
    streams = tokens * (8 * shape.d_model + 3 * shape.d_mlp)
    put = min(spec.cut, shape.layers) * tokens * shape.heads * shape.d_head
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    return Needs(
        weights + 4 * (patterns + streams + put + 3 * CHUNK * shape.d_vocab),
        2 + (6 + spec.draws) * 2 * shape.parameters * tokens / 60e9,
    )


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    spans = halves(Repeated(out.ids, out.start, spec.period))
    return {
        "heads": draw_heads(out.scores.mean(1), out.cuts[0]),
        "loss": draw_loss(out.nats, out.cut, spans, out.start, out.d_vocab),
        "ablation": draw_ablation(out.cut - out.nats, spans, out.cuts[0], spec.ablation),
    }


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        INDUCTION_HEADS,
        REPEAT_LOSS,
        ABLATION_COST,
        COST_BY_NULL,
        FIRST_LOSS,
        FIRST_COST,
        RANDOM_COST,
        BEST_PREVIOUS_TOKEN,
        BEST_DUPLICATE_TOKEN,
        BEST_INDUCTION,
        COUNTING_BACK,
        ALL_PREVIOUS_TOKEN,
        ALL_DUPLICATE_TOKEN,
        ALL_INDUCTION,
    ),
    figures={
        "heads": "Previous-token, duplicate-token and induction score of every head, the strongest named.",
        "loss": "Loss token by token, with all heads, without the strongest and without random ones.",
        "ablation": "What it costs to cut the strongest heads, against random draws of the same layers.",
    },
    examples=(
        Example(
            "six-heads-copy",
            "Without the six strongest induction heads the repeat is lost; without six others it is not",
            {"model": "smollm2-135m"},
            ("induction_heads >= 4", "first_loss > 10", "repeat_loss < 4", "cost_by_null > 3", "counting_back < 0.2"),
        ),
        Example(
            "two-layers-copy",
            "In two layers of attention alone, one head looks back by one, and all of the second layer induce",
            {"model": "toy/attn-only-2l", "period": 20, "texts": 16, "cut": 1},
            ("best_previous_token > 0.9", "best_induction > 0.7", "induction_heads = 4", "repeat_loss < 0.5"),
        ),
        Example(
            "one-layer-cannot",
            "One layer of attention alone cannot: no head scores, and the repeat stays hard",
            {"model": "toy/attn-only-1l", "period": 20, "texts": 16, "cut": 1},
            ("induction_heads = 0", "best_induction < 0.3", "repeat_loss > 2"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
