"""Concept direction: is a concept one direction in a model's stream, and from which layer on?

Words of two kinds (praise and blame, say) are put into templates, and the stream x is read at the last token of each
prompt, at every layer. There a direction v is learnt that tells the two kinds apart:

    mean     v ∝ Δμ = μ₊ − μ₋                         the difference in means
    lat      v = the first principal component of s_i (x₊_i − x₋_i), each pair i with a random sign s_i = ±1
    probe    v = argmin mean log(1 + e^{−y (v·x + b)}) + ridge

The random signs of `lat` are its point: PCA takes the mean away, and where all differences point the same way their
mean is the concept itself. What is learnt is judged elsewhere: the words fall into three folds and the templates too.
One fold learns, one chooses the layer, the third judges, with words *and* templates never seen. The null does all the
same with the labels shuffled, and chooses its own best layer too: the best of thirty looks good on any few words.

    auroc        how often a word of the first kind scores above one of the second, v·x₊ > v·x₋: ½ is chance
    accuracy     share on the right side of the middle between the learnt means, mean of the two kinds
    separation   d′ = (mean v·x₊ − mean v·x₋) / pooled standard deviation

With fewer than forty words a side nothing is decided: a check says so, and the claims stay undecided. That a direction
can be read does not mean that the model uses it: for that it must be pushed (`steering`) or taken out.

How to read the figures. `layers` has the AUROC of every layer, where it is judged and where the layer was chosen; the
band is what nine in ten shuffles reach at that layer, the dashes what their own best layer seems to reach to whoever
chooses it. In `words` each judged word lies along the direction, those on the wrong side named. `cosines` says which
layers share a direction. In `scan` the direction of each layer is laid over a text, token by token, from the text's own
mean: 1 is half of how far the two kinds lie apart.

Source: Andy Zou et al. (2023), "Representation Engineering: A Top-Down Approach to AI Transparency", section 3.1,
https://arxiv.org/abs/2310.01405. Samuel Marks, Max Tegmark (2023), "The Geometry of Truth: Emergent Linear Structure in
Large Language Model Representations of True/False Datasets", section 4, https://arxiv.org/abs/2310.06824
"""

import math
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Directions,
    Example,
    Experiment,
    ListName,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import contrast
from vaultlab.models.contrast import Method
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.templates import filled, read_last
from vaultlab.models.trace import Site, right_pad, sinks
from vaultlab.plots.concepts import Judged, draw_cosines, draw_layers, draw_scan, draw_words
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

GOOD = (
    "wonderful excellent beautiful happy great lovely perfect brilliant kind honest gentle generous friendly "
    "bright healthy clean safe strong wise brave clever calm fair loyal fresh delicious pleasant charming "
    "delightful amazing fantastic superb splendid graceful peaceful cheerful joyful hopeful helpful successful "
    "valuable elegant impressive reliable warm comfortable good nice"
)
BAD = (
    "terrible awful ugly sad bad horrible broken stupid cruel dishonest violent greedy hostile dark sick dirty "
    "dangerous weak foolish selfish dull angry unfair corrupt rotten bitter unpleasant nasty dreadful shocking "
    "tragic poor miserable ridiculous brutal gloomy harsh hopeless useless failed worthless crude disappointing "
    "faulty cold painful evil mean"
)
TEMPLATES = (
    "Everybody said that it was {}.",
    "In the end, the whole thing turned out to be {}.",
    "She told me the place had always been {}.",
    "To be honest, I think this is {}.",
    "What we found there was {}.",
    "They describe her brother as {}.",
    "The man at the door looked {}.",
    "As far as I can tell, the idea is {}.",
)

LEARN, CHOOSE = 0.5, 0.2
"""Of each side's words; the rest judges."""

FEWEST, ENOUGH = 6, 40
"""Words a side without which there are no three folds, and with which there is a verdict."""

NULLS = 50
BATCHED = 1e-4
EXACT = 1e-8


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose stream is read."""

    positive: ListName = tuple(GOOD.split())
    """Words or texts of the one kind: a list, or where it stands."""

    negative: ListName = tuple(BAD.split())
    """Those of the other kind. Where the two lists go together (walk, walked) they are in one order."""

    templates: ListName = TEMPLATES
    """What the words are put into, at `{}`; the last token is read. Of texts that stand for themselves: `["{}"]`."""

    text: TextName = (
        "The film began well and we all had a wonderful time, but then it became boring and the end was awful."
    )
    """A text that the directions are laid over, token by token."""

    method: Method = Field("mean", json_schema_extra={"symbol": "v", "stress": ["mean", "lat", "probe"]})
    """How the direction is learnt: difference in means, PCA of randomly signed differences, or a logistic probe."""

    site: Literal["resid_pre", "resid_mid", "resid_post"] = Field(
        "resid_pre", json_schema_extra={"stress": ["resid_pre", "resid_mid", "resid_post"]}
    )
    """The stream before each layer, between its attention and its MLP, or behind it."""

    bos: Bos = None

    labels: Literal["true", "shuffled"] = "true"
    """Which word is of which kind: as the lists say, or as a control drawn at random (shuffled)."""

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the draws start: which words and templates learn, choose and judge, signs, shuffles, intervals."""


class Out(NamedTuple):
    """What `compute` leaves behind. `vectors` are v (v·Δμ), `threshold` the middle of the learnt means along v.

    `chose` and `judged` are the AUROC of every layer on these folds, `scores` of the judged words at the chosen layer,
    `side` which of them are of the first kind; the nulls the same of every shuffle, `null_chosen` its own best layers.
    """

    counts: tuple[int, int, int, int]
    prompts: int
    words: tuple[str, ...]
    side: Bool[Tensor, " word"]
    scores: Float[Tensor, "word template"]
    vectors: Float[Tensor, "layer d_model"]
    threshold: Float[Tensor, " layer"]
    chosen: int
    chose: Float[Tensor, " layer"]
    judged: Float[Tensor, " layer"]
    accuracy: float
    separation: float
    intervals: Float[Tensor, "metric 2"]
    cosines: Float[Tensor, "layer layer"]
    null_chosen: Int[Tensor, " draw"]
    null_chose: Float[Tensor, "draw layer"]
    null_judged: Float[Tensor, "draw layer"]
    null_accuracy: Float[Tensor, " draw"]
    null_separation: Float[Tensor, " draw"]
    null_cosines: Float[Tensor, "layer layer"]
    massive: float
    tokens: tuple[str, ...]
    scan: Float[Tensor, "layer pos"]
    sinks: Bool[Tensor, "layer pos"]
    eps: float
    batch_residual: float
    length_residual: float
    swap_residual: float


class Fold(NamedTuple):
    """Some of the words in some of the templates, read."""

    x: Float[Tensor, "layer word template d_model"]
    side: Bool[Tensor, " word"]
    words: tuple[str, ...]


class Known(NamedTuple):
    """A prompt, and what was read at its last token."""

    ids: Int[Tensor, " pos"]
    x: Float[Tensor, "layer d_model"]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One pass over the prompts of all folds; then directions of all layers at once, and again with shuffled labels."""
    model = bench.model(spec.model)
    sites = _sites(spec, model.shape)
    folds, known, facts = _read(spec, bench, model, sites)
    if spec.labels == "shuffled":
        folds = _shuffled(folds, bench.generator("labels", spec.seed))
    learn, choose, judge = folds
    signs = bench.generator("signs", spec.seed)
    vectors = contrast.direction(spec.method, learn.x, learn.side, signs)
    best = contrast.best_layer(contrast.scores(choose.x, vectors), choose.side)
    at = slice(best.layer, best.layer + 1)
    seen, threshold = contrast.scores(judge.x, vectors), _threshold(learn, vectors)
    own, middle = seen[at], threshold[at]
    intervals = contrast.by_word(own[0], judge.side, middle[0], bench.generator("intervals", spec.seed))
    swapped = contrast.direction(spec.method, learn.x[at], ~learn.side, bench.generator("signs", spec.seed))
    return Out(
        words=judge.words,
        side=judge.side,
        scores=own[0],
        vectors=vectors,
        threshold=threshold,
        chosen=best.layer,
        chose=best.auroc,
        judged=contrast.auroc(seen, judge.side),
        accuracy=float(contrast.accuracy(own, judge.side, middle)[0]),
        separation=float(contrast.separation(own, judge.side)[0]),
        intervals=torch.tensor(intervals, dtype=torch.float64),
        cosines=contrast.cosines(vectors),
        **_null(spec, bench, folds),
        **_scan(spec, bench, model, sites, vectors, known),
        **facts,
        eps=torch.finfo(model.dtype).eps,
        length_residual=_length_residual(learn, vectors),
        swap_residual=float((swapped[0] + vectors[best.layer]).norm() / vectors[best.layer].norm().clamp(min=1e-30)),
    )


def _sites(spec: Spec, shape: Shape) -> list[Site]:
    return [Site(spec.site, layer) for layer in range(shape.layers)]


def _read(spec: Spec, bench: Bench, model: Model, sites: list[Site]) -> tuple[list[Fold], Known, dict[str, Any]]:
    """The three folds of words and templates, from one pass over their prompts."""
    lists = [bench.items(name) for name in ("positive", "negative")]
    templates = bench.items("templates")
    _must_do(lists)
    generator = bench.generator("folds", spec.seed)
    # one order for both sides: words that go together fall into one fold, or the other one would be half known
    order = torch.randperm(max(map(len, lists)), generator=generator).tolist()
    parts = [_cut([words[at] for at in order if at < len(words)]) for words in lists]
    cut_templates = _cut_templates([templates[at] for at in torch.randperm(len(templates), generator=generator)])
    rows: list[list[str]] = []
    shapes = []
    for mine, others, some in zip(*parts, cut_templates, strict=True):
        rows += filled(some, [*mine, *others])
        shapes.append(((*mine, *others), len(mine), len(some)))
    prompts = [model.tokens(text, bos=spec.bos).ids for row in rows for text in row]
    if max(map(len, prompts)) < 2:
        raise NoteError(
            f"{model.name} reads each of these prompts as one token, and models rest on a text's first token.",
            "Write templates with words before the place: `It was {}`.",
            field="templates",
        )
    read = read_last(
        model, prompts, sites, bench.trace, bench.batch, lambda done, total: bench.progress(done, total, "reading")
    )
    folds, start = [], 0
    for words, count, wide in shapes:
        x = rearrange(
            read.x[start : start + len(words) * wide],
            "(word template) layer d -> layer word template d",
            word=len(words),
        )
        folds.append(Fold(x.contiguous(), torch.arange(len(words)) < count, words))
        start += len(words) * wide
    facts = {
        "counts": (*map(len, lists), len(templates), len(cut_templates[2])),
        "prompts": len(prompts),
        "massive": float(read.massive.double().mean(0).max()),
    }
    return folds, Known(prompts[0], read.x[0]), facts


def _must_do(lists: list[tuple[str, ...]]) -> None:
    for name, words in zip(("positive", "negative"), lists, strict=True):
        if len(words) < FEWEST:
            raise NoteError(
                f"`{name}` has {len(words)} words, and three folds need at least {FEWEST}.",
                f"A verdict takes {ENOUGH} a side.",
                field=name,
            )
    both = [word for words in lists for word in words]
    twice = sorted({word for word in both if both.count(word) > 1})
    if twice:
        raise NoteError(
            f"Said twice: {', '.join(f'`{one}`' for one in twice[:5])}. One fold would know what another is asked.",
            "Keep each word once, on one side.",
            field="negative" if twice[0] in lists[1] else "positive",
        )


def _cut(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    learn, choose = round(LEARN * len(words)), max(1, round(CHOOSE * len(words)))
    return words[:learn], words[learn : learn + choose], words[learn + choose :]


def _cut_templates(templates: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Half of them learn, a quarter chooses, a quarter judges; of two the second does both, one does all."""
    held = max(1, len(templates) // 4)
    if len(templates) < 3:
        return templates[:1], templates[-1:], templates[-1:]
    return templates[: -2 * held], templates[-2 * held : -held], templates[-held:]


def _shuffled(folds: list[Fold], generator: torch.Generator) -> list[Fold]:
    return [one._replace(side=one.side[torch.randperm(len(one.side), generator=generator)]) for one in folds]


def _threshold(learn: Fold, vectors: Float[Tensor, "layer d_model"]) -> Float[Tensor, " layer"]:
    s = contrast.scores(learn.x, vectors)
    middle: Tensor = (s[:, learn.side].mean((1, 2)) + s[:, ~learn.side].mean((1, 2))) / 2
    return middle


def _length_residual(learn: Fold, vectors: Float[Tensor, "layer d_model"]) -> float:
    """The length of v (v·Δμ) against how far the means of the learnt scores lie apart."""
    s = contrast.scores(learn.x, vectors)
    apart = s[:, learn.side].mean((1, 2)) - s[:, ~learn.side].mean((1, 2))
    scale = learn.x.norm(dim=-1).mean((1, 2)).clamp(min=1e-30)
    return float(((apart - vectors.norm(dim=-1)).abs() / scale).max())


def _null(spec: Spec, bench: Bench, folds: list[Fold]) -> dict[str, Any]:
    """All of it once more, labels shuffled within each fold, each shuffle with the layer that suits it best."""
    generator = bench.generator("null", spec.seed)
    if spec.method == "mean":  # which sees no more of a word than its mean over templates: a fraction of the numbers
        folds = [folds[0]._replace(x=folds[0].x.mean(2, keepdim=True)), *folds[1:]]
    rows = []
    cosines = torch.zeros(len(folds[0].x), len(folds[0].x), dtype=torch.float64)
    for draw in range(NULLS):
        bench.progress(draw, NULLS, "shuffling labels")
        learn, choose, judge = _shuffled(folds, generator)
        vectors = contrast.direction(spec.method, learn.x, learn.side, generator)
        best = contrast.best_layer(contrast.scores(choose.x, vectors), choose.side)
        s, at = contrast.scores(judge.x, vectors), slice(best.layer, best.layer + 1)
        middle = _threshold(learn._replace(x=learn.x[at]), vectors[at])
        accuracy, apart = contrast.accuracy(s[at], judge.side, middle), contrast.separation(s[at], judge.side)
        cosines += contrast.cosines(vectors) / NULLS
        rows.append((torch.tensor(best.layer), best.auroc, contrast.auroc(s, judge.side), accuracy[0], apart[0]))
    names = ("null_chosen", "null_chose", "null_judged", "null_accuracy", "null_separation")
    stacked = (torch.stack(column) for column in zip(*rows, strict=True))
    return {**dict(zip(names, stacked, strict=True)), "null_cosines": cosines}


def _scan(
    spec: Spec, bench: Bench, model: Model, sites: list[Site], vectors: Float[Tensor, "layer d_model"], known: Known
) -> dict[str, Any]:
    """The direction of each layer over a text, from the text's own mean, in half the distance of the learnt means: at
    tokens of all sorts the stream lies elsewhere than at the last one of the prompts, whatever they say.

    In the same pass a prompt is read again, in other company and padded to another length.
    """
    tokens = model.tokens("\n\n".join(part for _, part in bench.text("text").parts), bos=spec.bos)
    text = tokens.ids[:SCANNED]
    found = bench.trace(model, right_pad([text, known.ids])[0], sites)
    streams = torch.stack([found[site][0, : len(text)].double().cpu() for site in sites])
    again = torch.stack([found[site][1, len(known.ids) - 1].double().cpu() for site in sites])
    half = (vectors.norm(dim=-1) / 2).clamp(min=1e-30)
    laid = contrast.scores(streams[:, :, None], vectors)[..., 0]
    massive = torch.stack([sinks(stream) for stream in streams])
    plain = ~massive.any(0)
    mean = laid[:, plain].mean(1, keepdim=True) if plain.any() else 0.0
    return {
        "tokens": tokens.strings[:SCANNED],
        "scan": (laid - mean) / half[:, None],
        "sinks": massive,
        "batch_residual": float((again - known.x).abs().max() / known.x.abs().max().clamp(min=1e-30)),
    }


SCANNED = 64
"""Tokens of the text at most."""

AUROC = Quantity(
    "auroc",
    "How often a judged prompt of the first kind scores above one of the second, at the chosen layer; null: what 95 in "
    "100 shuffles stay below, each at its own best layer.",
    range=(0, 1),
    headline=True,
)
ACCURACY = Quantity(
    "accuracy",
    "Share of the judged prompts on the right side of the learnt middle, mean of both kinds; null: 95 in 100 shuffles.",
    range=(0, 1),
)
SEPARATION = Quantity(
    "separation",
    "d′: how far the judged kinds lie apart, by their pooled standard deviation; null: 95 in 100 shuffles.",
    unit="σ",
    headline=True,
)
LAYER = Quantity(
    "layer",
    "The layer chosen, on words and templates of its own; null: a shuffle's, mean.",
    range=(0, math.inf),
    headline=True,
)
CHOOSING_AUROC = Quantity(
    "choosing_auroc",
    "AUROC at the chosen layer on the fold that chose it: not to be believed; null: a shuffle's, mean.",
    range=(0, 1),
)
FIRST_AUROC = Quantity(
    "first_auroc", "AUROC of the judged prompts at layer 0; null: a shuffle's, 95 in 100.", range=(0, 1)
)
LAYER_AUROC = Quantity(
    "layer_auroc", "AUROC of the judged prompts at every layer; null: mean of all shuffles and layers.", range=(0, 1)
)
NEAR_COSINE = Quantity(
    "near_cosine",
    "Cosine between the directions of neighbouring layers, mean; null: the same of shuffled labels, whose directions "
    "share the stream too.",
    range=(-1, 1),
)
FAR_COSINE = Quantity(
    "far_cosine",
    "Cosine between the directions of layers more than half the model apart, mean; null: as `near_cosine`.",
    range=(-1, 1),
)
MASSIVE = Quantity(
    "massive",
    "Largest share of prompts at any layer whose last token has a massive norm, as a text's first often has: its "
    "direction would be the sink's.",
    range=(0, 1),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """What the third fold says, beside what shuffled labels would have said."""
    draws, own = torch.arange(NULLS), out.null_chosen
    count = len(out.words)
    (auroc, accuracy, separation) = (tuple(one) for one in out.intervals.tolist())

    def high(values: Tensor) -> float:
        return float(values.quantile(0.95))

    return [
        AUROC.is_(float(out.judged[out.chosen]), interval=auroc, null=high(out.null_judged[draws, own]), n=count),
        ACCURACY.is_(out.accuracy, interval=accuracy, null=high(out.null_accuracy), n=count),
        SEPARATION.is_(out.separation, interval=separation, null=high(out.null_separation), n=count),
        LAYER.is_(float(out.chosen), null=float(own.double().mean())),
        CHOOSING_AUROC.is_(float(out.chose[out.chosen]), null=float(out.null_chose[draws, own].mean())),
        FIRST_AUROC.is_(float(out.judged[0]), null=high(out.null_judged[:, 0]), n=count),
        LAYER_AUROC.is_(tuple(out.judged.tolist()), null=float(out.null_judged.mean()), n=count),
        *_cosines(out),
        MASSIVE.is_(out.massive, n=out.prompts),
    ]


def _cosines(out: Out) -> list[Metric]:
    layer = torch.arange(len(out.cosines))
    apart = layer[None] - layer[:, None]
    told = out.vectors.norm(dim=-1) > 0
    there = told[None] & told[:, None]
    near, far = there & (apart == 1), there & (apart > len(layer) / 2)
    return [
        quantity.is_(float(out.cosines[pairs].mean()), null=float(out.null_cosines[pairs].mean()))
        for quantity, pairs in ((NEAR_COSINE, near), (FAR_COSINE, far))
        if pairs.any()
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, and whether it had enough words to decide anything."""
    s, side = out.scores, out.side
    one, other = s[side].flatten().tolist(), s[~side].flatten().tolist()
    counted = sum((a > b) + (a == b) / 2 for a in one for b in other) / (len(one) * len(other))
    least = min(out.counts[:2])
    return [
        Check(
            "a prompt, in another batch", out.batch_residual, max(BATCHED, 16 * out.eps), "padded otherwise; relative"
        ),
        Check("AUROC, pair by pair", abs(counted - float(out.judged[out.chosen])), 1e-9, "counted one after another"),
        Check(
            "the length is the distance", out.length_residual, EXACT, "of the learnt means along v; by the norm of x"
        ),
        Check("kinds exchanged, direction turned", out.swap_residual, 1e-6, "learnt again the other way; relative"),
        Check(
            "enough words for a verdict",
            float(max(0, ENOUGH - least)),
            0,
            f"{least} words on the smaller side; with fewer than {ENOUGH} the best of many layers looks good by chance",
        ),
    ]


def reads(spec: Spec, shape: Shape) -> Reads:
    """The prompts of all folds, and the text of the scan, at every layer."""
    return Reads(("concept", spec.seed, spec.bos), tuple(_sites(spec, shape)))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, a batch at every layer, what is kept; a pass over some 300 prompts of 12 tokens at 40 GFLOP/s."""
    assert shape is not None
    batch = 32 * 16 * shape.layers * shape.d_model * 4
    kept = 3 * 300 * shape.layers * shape.d_model * 8
    null = {"mean": 1.0, "lat": 15.0, "probe": 60.0}[spec.method]
    return Needs(shape.bytes + batch + kept, 2 + null + 2 * shape.parameters * 300 * 12 / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    draws = torch.arange(NULLS)
    tail = torch.tensor([0.05, 0.95], dtype=torch.float64)
    seen = Judged(
        out.judged.numpy(),
        out.chose.numpy(),
        out.chosen,
        tuple(out.intervals[0].tolist()),
        out.null_judged.quantile(tail, dim=0).numpy(),
        float(out.null_chose[draws, out.null_chosen].mean()),
    )
    return {
        "layers": draw_layers(seen, spec.site, out.counts),
        "words": draw_words(out.words, out.side.numpy(), out.scores.numpy(), float(out.threshold[out.chosen])),
        "cosines": draw_cosines(out.cosines.numpy(), spec.site),
        "scan": draw_scan(out.scan.numpy(), out.sinks.numpy(), out.tokens, out.chosen),
    }


def directions(spec: Spec, out: Out) -> Directions:
    """One a layer, as learnt; the chosen layer's is the one that was judged."""
    return Directions(spec.model, spec.site, tuple(range(len(out.vectors))), out.vectors.float(), out.chosen)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        *(AUROC, ACCURACY, SEPARATION, LAYER, CHOOSING_AUROC, FIRST_AUROC, LAYER_AUROC),
        *(NEAR_COSINE, FAR_COSINE, MASSIVE),
    ),
    figures={
        "layers": "AUROC of every layer on words and templates never seen, with what shuffled labels reach.",
        "words": "The judged words along the direction of the chosen layer.",
        "cosines": "Which layers share a direction.",
        "scan": "Each layer's direction over a text, token by token.",
    },
    examples=(
        Example(
            "praise-or-blame",
            "Whether a word was praise is one direction at the full stop behind it, which at first knows nothing of it",
            {"model": "smollm2-135m"},
            ("auroc >= 0.95", "first_auroc = 0.5", "layer > 3", "separation > 3", "far_cosine < 0.3"),
        ),
        Example(
            "found-by-pca",
            "PCA of randomly signed differences finds it without being told which word is which",
            {"model": "smollm2-135m", "method": "lat"},
            ("auroc >= 0.9",),
        ),
    ),
    needs=needs,
    reads=reads,
    directions=directions,
    nonsense=Nonsense("labels drawn at random", "the concept", {"labels": "shuffled"}),
)
