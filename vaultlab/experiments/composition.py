"""Composition: which heads read what earlier heads write, and through which of their three entrances.

No text is read: the weights alone say how much of what one head writes lies where a later one looks. A head that
writes x W_V W_O is read by a later head into its queries, its keys or its values:

    Q-composition = ‖W_V W_O · W_Q R W_Kᵀ‖ / (‖W_V W_O‖ ‖W_Q R W_Kᵀ‖)      the earlier head's weights left of the dot
    K-composition = ‖W_V W_O · W_K Rᵀ W_Qᵀ‖ / (‖W_V W_O‖ ‖W_K Rᵀ W_Qᵀ‖)    the later head's right of it
    V-composition = ‖W_V W_O · W_V W_O‖ / (‖W_V W_O‖ ‖W_V W_O‖)            norms are Frobenius norms

The *null* is exact: turn the stream at random between the two heads, and the mean of score² is 1/d, whatever the heads
(d = d_model, one less under LayerNorm). So a score is read by how far it is above 1/√d. Each product is d_model ×
d_model but only of rank d_head; its norm is a trace of d_head × d_head matrices, and so all pairs of a model are known.

What counts as a head's weights. A norm's gain is folded into what reads through it, and its scale, which differs from
token to token, drops out of a score. LayerNorm takes the mean over d_model out: so is it here, of what is read and of
what is written for it; RMSNorm does not. Heads that share keys and values each have their own score, with their own
queries and outputs. Where queries and keys are normed one by one (qwen3), their gains are folded in and their scales
count as frozen. Biases do not enter: b_V and b_O write the same whatever is read, and what b_Q and b_K add to attention
comes from one side alone.

R is the rotation of rotary positions: the query's and the key's circuit is another one at every distance between them.
Scores are mean squares over the distances 0 to 127, or with `distance` those at one; 0 leaves RoPE out. V-composition
knows no distance.

A high score says that the later head can read what the earlier writes, not that it does on any text. `reader` and
`writer` name a pair; left out, it is the pair with the strongest K-composition, and its numbers are then no evidence
that it is special.

How to read the figures. In `graph` layers run upwards, and a line from a head to a later one is one of the strongest
pairs of its kind, as wide as its score is above the null. `composers` shows all heads before the reader: how far above
the null the reader's queries, keys and values read each of them; the strongest is boxed. `layers` has for every two
layers the strongest pair. `scores` has all pairs against heads turned at random.

Source: Nelson Elhage, Neel Nanda, Catherine Olsson, Tom Henighan, Nicholas Joseph, Ben Mann, Amanda Askell, Yuntao
Bai, Anna Chen, Tom Conerly, Nova DasSarma, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Andy Jones,
Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan, Sam McCandlish, Chris
Olah (2021), "A Mathematical Framework for Transformer Circuits", sections "Three Kinds of Composition" and "Analyzing a
Two-Layer Model", https://transformer-circuits.pub/2021/framework/index.html
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Example, Experiment, Head, ModelName, Needs, Nonsense, Quantity
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import composition, parts
from vaultlab.models.composition import KINDS
from vaultlab.models.family import Shape
from vaultlab.models.heads import address
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.plots.heads import Edge, Place, head_graph, head_maps
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.result import Check, Metric

DISTANCES = 128
"""Scores are means over so many distances where none is given."""

TURNS = 8
"""How often every head is turned at random, against the same head one layer on."""

MOST_HEADS = 2000
"""Of more heads the table of all pairs would pass what is kept of a run."""

EDGES = 8
"""Lines of each kind in the graph at most: more would hide one another."""

K = KINDS.index("K")


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose heads are compared."""

    reader: Head | None = None
    """The later head, as L17H3; none: the one that reads `writer`, or any head, most by its keys."""

    writer: Head | None = None
    """The earlier head, as L16H0; none: the one that the reader's keys read most."""

    distance: int | None = Field(None, ge=0, le=100_000)
    """How many tokens apart query and key are; 0: as if there were no RoPE; none: 0 to 127, as a mean square."""

    threshold: float = Field(1.5, gt=1, le=100, json_schema_extra={"stress": [1.25, 2.0], "unit": "× the null"})
    """A pair counts as composed where its score is over so many times the null."""

    weights: Weights = "trained"

    @model_validator(mode="after")
    def _in_order(self) -> "Spec":
        if self.reader and self.writer and address(self.writer)[0] >= address(self.reader)[0]:
            raise ValueError(f"{self.writer} writes for later layers only: {self.reader} is in none of them.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind: the scores of all pairs, heads counted layer by layer, NaN where none can be.

    `by_chance` are scores of heads turned at random; `chance_z` says how far their mean square is from the null, in
    standard deviations; `over_bound` how far a score² is above what Cauchy and Schwarz allow, as a share of that.
    """

    layers: int
    heads: int
    width: int
    eps: float
    frozen: bool
    rotary: bool
    writer: str
    reader: str
    scores: Float[Tensor, "kind writer reader"]
    by_chance: Float[Tensor, "kind turned"]
    chance_z: Float[Tensor, " kind"]
    over_bound: Float[Tensor, ""]
    exact_scores: Float[Tensor, " kind"]
    whole_residual: Float[Tensor, ""]
    basis_residual: Float[Tensor, ""]
    folding_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """Layer by layer in float32: what each reads against what all before it write; one pair in float64."""
    model = bench.model(spec.model)
    _check(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled weights"))
    distances = range(DISTANCES) if spec.distance is None else [spec.distance]
    scores, found = _all_pairs(model, distances, bench)
    writer, reader = _pair(spec, scores[K], model.shape.heads)
    pair = composition.exact(model, writer, reader, distances, bench.generator("another basis"))
    return Out(
        layers=model.shape.layers,
        heads=model.shape.heads,
        width=composition.width(model),
        eps=torch.finfo(model.dtype).eps,
        frozen="qk_norm" in model.shape.flags,
        rotary=model.shape.rotary,
        writer=_name(writer),
        reader=_name(reader),
        scores=scores,
        **found,
        exact_scores=pair.scores,
        whole_residual=pair.whole_residual,
        basis_residual=pair.basis_residual,
        folding_residual=pair.folding_residual,
    )


def _check(spec: Spec, model: Model) -> None:
    """NoteError for a head that the model has not, or that has nobody to read or to be read by."""
    shape = model.shape
    last = shape.layers - 1
    if shape.layers < 2:
        raise NoteError(f"{model.name} has one layer: none of its heads reads another.", field="model")
    if shape.layers * shape.heads > MOST_HEADS:
        count = shape.layers * shape.heads
        raise NoteError(
            f"{model.name} has {count} heads, and all pairs of at most {MOST_HEADS} are kept.",
            "Take a smaller model.",
            field="model",
        )
    for field, head, silent, why in (
        ("reader", spec.reader, 0, "in the first layer: there is no head before it"),
        ("writer", spec.writer, last, "in the last layer: there is no head after it"),
    ):
        if head is None:
            continue
        layer, number = address(head)
        if layer > last or number >= shape.heads:
            mend = f"Its heads are L0H0 to L{last}H{shape.heads - 1}."
            raise NoteError(f"{model.name} has no head {head}.", mend, field=field)
        if layer == silent:
            raise NoteError(f"{head} is {why}.", "Take one of another layer.", field=field)
    for layer in range(shape.layers) if spec.distance else ():
        window = parts.attention(model, layer).window
        if window is not None and spec.distance is not None and spec.distance >= window:
            raise NoteError(
                f"Layer {layer} of {model.name} looks back {window - 1} tokens at most.",
                "Take a smaller distance.",
                field="distance",
            )


def _all_pairs(model: Model, distances: Sequence[int], bench: Bench) -> tuple[Tensor, dict[str, Tensor]]:
    """The scores of all pairs, and the scores of heads turned at random with how well they keep to the null."""
    shape, wide = model.shape, torch.promote_types(model.dtype, torch.float32)
    count, width = shape.heads, composition.width(model)
    scores = torch.full((len(KINDS), shape.layers * count, shape.layers * count), math.nan)
    written: list[Tensor] = []
    peaks: list[Tensor] = []
    by_chance, variances, over = [], [], torch.tensor(0.0)
    total = shape.layers * (shape.layers - 1) // 2
    for layer in range(shape.layers):
        own = composition.factors(composition.readers(model, layer, wide), distances)
        reading = composition.peak(own.reads).cpu().double()
        cols = slice(layer * count, (layer + 1) * count)
        for earlier, writes in enumerate(written):
            rows = slice(earlier * count, (earlier + 1) * count)
            for kind, reads in enumerate(own.reads):
                bench.progress(layer * (layer - 1) // 2 + earlier, total, "comparing what heads write and read")
                scores[kind, rows, cols] = composition.scores(writes, reads[None])[0].cpu()
            bound = (peaks[earlier][None, :, None] * reading[:, None]).sqrt()
            over = torch.maximum(over, (scores[:, rows, cols].double().square() / bound - 1).max())
        if written:
            variance = composition.by_chance(peaks[-1], reading, width) ** 2
            for turn in range(TURNS):
                bench.progress(layer * (layer + 1) // 2, total, "turning heads at random")
                turned = composition.random_writes(written[-1], bench.generator("turned", layer, turn), width)
                products = turned @ own.reads
                by_chance.append(torch.linalg.matrix_norm(products).cpu())
                variances.append(variance)
        written.append(own.writes)
        peaks.append(composition.peak(own.writes.mT).cpu().double())
    drawn, spread = torch.cat(by_chance, 1), torch.cat(variances, 1)
    off = (drawn.double().square() - 1 / width).sum(1)
    rounding = 1e-6 * drawn.shape[1] / width  # heads that write in all directions alike have no spread at all
    return scores, {"by_chance": drawn, "chance_z": off.abs() / (spread.sum(1).sqrt() + rounding), "over_bound": over}


def _pair(spec: Spec, scores: Float[Tensor, "writer reader"], heads: int) -> tuple[Place, Place]:
    """The pair that is named, what is left open by the strongest K-composition."""
    known = scores.nan_to_num(-1)
    reader = None if spec.reader is None else _number(spec.reader, heads)
    writer = None if spec.writer is None else _number(spec.writer, heads)
    if reader is None and writer is None:
        writer, reader = divmod(int(known.argmax()), known.shape[1])
    elif reader is None:
        reader = int(known[writer].argmax())
    elif writer is None:
        writer = int(known[:, reader].argmax())
    assert writer is not None
    return divmod(writer, heads), divmod(reader, heads)


def _number(head: str, heads: int) -> int:
    layer, number = address(head)
    return layer * heads + number


def _name(place: Place) -> str:
    return f"L{place[0]}H{place[1]}"


def _of_pair(kind: str, headline: bool = False) -> Quantity:
    entrance = {"Q": "queries", "K": "keys", "V": "values"}[kind]
    return Quantity(
        f"{kind.lower()}_composition",
        f"How much of what `writer` writes the {entrance} of `reader` read; null: 1/√d, the stream turned at random "
        "between them.",
        range=(0, 1),
        headline=headline,
    )


def _of_rank(kind: str, headline: bool = False) -> Quantity:
    return Quantity(
        f"{kind.lower()}_rank",
        f"The place of `writer` among all heads before `reader`, by {kind}-composition; null: the middle place.",
        range=(1, math.inf),
        headline=headline,
    )


def _of_share(kind: str, headline: bool = False) -> Quantity:
    return Quantity(
        f"{kind.lower()}_share",
        f"Share of all pairs whose {kind}-composition is over `threshold` × 1/√d; null: that share of heads turned at "
        "random.",
        range=(0, 1),
        headline=headline,
    )


def _of_mean(kind: str) -> Quantity:
    return Quantity(
        f"{kind.lower()}_mean",
        f"Root mean square of {kind}-composition over all heads before, of every head from layer 1 on; null: 1/√d.",
        range=(0, 1),
    )


PAIR = tuple(_of_pair(kind, kind == "K") for kind in KINDS)
RANK = tuple(_of_rank(kind, kind == "K") for kind in KINDS)
SHARE = tuple(_of_share(kind, kind == "K") for kind in KINDS)
MEAN = tuple(_of_mean(kind) for kind in KINDS)


def _null(out: Out) -> float:
    return 1 / math.sqrt(out.width)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Numbers of the pair by kind, then of all pairs."""
    writer, reader = _number(out.writer, out.heads), _number(out.reader, out.heads)
    null, before = _null(out), reader // out.heads * out.heads
    there = out.scores[0].isfinite()
    pairs = int(there.sum())
    found: list[list[Metric]] = [[], [], [], []]
    for kind, scores in enumerate(out.scores):
        score = scores[writer, reader]
        over = scores[there] > spec.threshold * null
        square = scores.double().square().nan_to_num(0).sum(0) / there.sum(0).clamp(min=1)
        turned = float((out.by_chance[kind] > spec.threshold * null).double().mean())
        found[0].append(PAIR[kind].is_(float(score), null=null, n=before))
        rank = 1 + int((scores[:before, reader] > score).sum())
        found[1].append(RANK[kind].is_(float(rank), null=(before + 1) / 2, n=before))
        found[2].append(SHARE[kind].is_(float(over.double().mean()), null=turned, n=pairs))
        found[3].append(MEAN[kind].is_(tuple(square[out.heads :].sqrt().tolist()), null=null, n=pairs))
    return [metric for metrics in found for metric in metrics]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of the pair in float64, and of all pairs."""
    place = _number(out.writer, out.heads), _number(out.reader, out.heads)
    pair = f"{out.writer} and {out.reader}"
    apart = (out.scores[:, place[0], place[1]].double() / out.exact_scores - 1).abs().max()
    return [
        Check(
            "thin factors = traces, distance by distance",
            float(apart),
            1e-4,
            f"{pair}: float32 and all distances at once, against float64 and one rotation after the other; relative",
        ),
        Check(
            "traces = whole matrices",
            float(out.whole_residual),
            1e-5,
            f"{pair} at one distance: every entry of the d_model × d_model products, a few rows at a time; relative",
        ),
        Check(
            "another basis within the heads changes nothing",
            float(out.basis_residual),
            1e-5,
            f"{pair}: W_V M, M⁻¹ W_O, and W_Q M, W_K M⁻ᵀ with an M that commutes with the rotation; relative",
        ),
        Check(
            "folded = normed",
            float(out.folding_residual),
            1e-5,
            f"queries, keys and values of {out.reader}'s layer, of random streams, with the norm in the weights; "
            "relative",
        ),
        Check(
            "turned at random: the mean square is 1/d",
            float(out.chance_z.max()),
            5.0,
            f"{out.by_chance.shape[1]} heads turned, each against one of the next layer; in standard deviations, which "
            "are known too",
        ),
        Check(
            "no pair composes more than it can",
            float(out.over_bound),
            1e-4,
            "score² ≤ ‖P‖ ‖S‖ (Cauchy and Schwarz), P and S what is written and read, of trace 1; relative",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, what all heads write in float32, a layer's products; 6 d (heads · d_head)² for two layers."""
    assert shape is not None
    all_heads, pairs = shape.heads * shape.d_head, shape.layers * (shape.layers - 1) / 2
    layer = 4 * all_heads * (8 * shape.d_model + all_heads)
    table = 3 * (shape.layers * shape.heads) ** 2 * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    written = 4 * shape.layers * all_heads * shape.d_model
    return Needs(int(weights + written + layer + table), 3 + 6 * pairs * all_heads**2 * shape.d_model / 80e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {
        "graph": _draw_graph(spec, out),
        "composers": _draw_composers(out),
        "layers": _draw_layers(out),
        "scores": _draw_scores(spec, out),
    }


def _said(out: Out) -> str:
    return ", the scales of normed queries and keys frozen" if out.frozen else ""


def _strongest(out: Out, kind: int, most: int) -> list[tuple[float, Place, Place]]:
    """The strongest pairs of a kind: score by the null, writer, reader."""
    scores = out.scores[kind].nan_to_num(-1)
    order = scores.flatten().argsort(descending=True)[:most].tolist()
    ends = [divmod(place, scores.shape[1]) for place in order]
    null = _null(out)
    return [(float(scores[w, r]) / null, divmod(w, out.heads), divmod(r, out.heads)) for w, r in ends]


def _draw_graph(spec: Spec, out: Out) -> Drawing:
    strongest = [_strongest(out, kind, EDGES) for kind in range(len(KINDS))]
    shown = [(times, w, r, kind) for kind, found in zip(KINDS, strongest, strict=True) for times, w, r in found]
    shown = sorted((one for one in shown if one[0] > spec.threshold), reverse=True)
    most = max((times for times, *_ in shown), default=2.0)
    edges = [Edge(w, r, f"{kind}-composition", (times - 1) / (most - 1)) for times, w, r, kind in shown]
    over = int((out.scores > spec.threshold * _null(out)).sum())
    title = (
        f"{len(edges)} of {over} scores over {spec.threshold:g} × the null, by how far they are above it"
        if edges
        else f"no score is over {spec.threshold:g} × the null"
    )
    figure = head_graph(edges, [f"{kind}-composition" for kind in KINDS], out.layers, out.heads, title)
    named = [
        f"{kind}: {', '.join(f'{_name(w)} to {_name(r)} {times:.2g} ×' for times, w, r in found[:3])}"
        for kind, found in zip(KINDS, strongest, strict=True)
    ]
    return Drawing(
        figure,
        f"A graph of {out.layers} layers of {out.heads} heads{_said(out)}: lines join heads with the heads that read "
        f"them, {len(edges)} of {over} scores over {spec.threshold:g} times what chance gives, 1/√{out.width}. The "
        f"strongest by {'; by '.join(named)}.",
    )


def _draw_composers(out: Out) -> Drawing:
    reader = _number(out.reader, out.heads)
    before = reader // out.heads * out.heads
    above = 100 * (out.scores[:, :before, reader] / _null(out) - 1)
    panels, boxes, said = {}, {}, []
    for kind, values in zip(KINDS, above, strict=True):
        best = divmod(int(values.argmax()), out.heads)
        title = f"{kind}: {_name(best)}"
        panels[title] = values.view(-1, out.heads).numpy()
        boxes[title] = best
        said.append(f"by {kind} {_name(best)}, {float(values.max()):+.0f}%")
    figure = head_maps(panels, f"read by {out.reader}: score above the null (%)", boxes, ("layer", "head"))
    return Drawing(
        figure,
        f"How much {out.reader} reads each of the {before} heads before it, in per cent above what chance gives"
        f"{_said(out)}. Most: {'; '.join(said)}.",
    )


def _draw_layers(out: Out) -> Drawing:
    count = out.layers
    blocks = out.scores.nan_to_num(-1).view(len(KINDS), count, out.heads, count, out.heads).amax((2, 4))
    above = torch.where(blocks < 0, math.nan, 100 * (blocks / _null(out) - 1))[:, :-1, 1:].numpy()
    panels, said = {}, []
    for kind, values in zip(KINDS, above, strict=True):
        panels[f"{kind}"] = np.pad(values, ((0, 1), (1, 0)), constant_values=math.nan)
        row, column = np.unravel_index(np.nanargmax(values), values.shape)
        said.append(f"by {kind} layers {row} and {column + 1}, {values[row, column]:+.0f}%")
    figure = head_maps(
        panels, "strongest pair: score above the null (%)", {}, ("layer that writes", "layer that reads")
    )
    return Drawing(
        figure,
        f"For every two of {count} layers the strongest pair of heads, in per cent above what chance gives"
        f"{_said(out)}. Most: {'; '.join(said)}.",
    )


def _draw_scores(spec: Spec, out: Out) -> Drawing:
    null = _null(out)
    there = out.scores[0].isfinite()
    times = (out.scores[:, there] / null).numpy()
    chance = (out.by_chance / null).flatten().numpy()
    edges = np.linspace(0, max(1.05 * float(times.max()), 1.3 * spec.threshold), 61)
    with canvas(height=4.0) as (figure, axes):
        ax = axes[0, 0]
        tall = np.histogram(chance, edges)[0] / len(chance)
        ax.stairs(100 * tall, edges, fill=True, color=GREY, alpha=0.45, label="turned at random")
        for kind, values, colour in zip(KINDS, times, PALETTE, strict=False):
            share = 100 * np.histogram(values, edges)[0] / len(values)
            ax.stairs(
                np.where(share > 0, share, math.nan), edges, color=colour, linewidth=1.8, label=f"{kind}-composition"
            )
        ax.axvline(spec.threshold, color=GREY, linestyle="--", linewidth=1.2)
        ax.text(spec.threshold, 0.98, f" {spec.threshold:g} × the null", transform=ax.get_xaxis_transform(), va="top")
        ax.set(xlabel=f"score ÷ null (1/√{out.width} = {null:.3g})", ylabel="pairs (%)", yscale="log", xlim=(0, None))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(lambda value, _: "")
        figure.legend(loc="outside lower center", ncols=2)
    over = [float((values > spec.threshold).mean()) for values in times]
    said = ", ".join(f"{share:.2%} by {kind}" for kind, share in zip(KINDS, over, strict=True))
    return Drawing(
        figure,
        f"Scores of {times.shape[1]} pairs of heads by the null{_said(out)}: over {spec.threshold:g} times the null "
        f"are {said}. Heads turned at random have {chance.min():.2f} to {chance.max():.2f} times the null; the largest "
        f"score is {times.max():.2f} times it.",
    )


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(*PAIR, *RANK, *SHARE, *MEAN),
    figures={
        "graph": "The strongest pairs of heads as a graph, the null taken out.",
        "composers": "How much one head reads every head before it, by its queries, keys and values.",
        "layers": "The strongest pair of every two layers.",
        "scores": "The scores of all pairs, against heads turned at random.",
    },
    examples=(
        Example(
            "keys-of-an-induction-head",
            "The induction head L17H3 reads the previous-token head L16H0 by its keys",
            {"model": "smollm2-135m", "reader": "L17H3", "writer": "L16H0"},
            ("k_rank = 1", "k_composition > 0.125", "q_composition < 0.06"),
        ),
        Example(
            "two-layers-of-a-toy",
            "In two layers of attention alone, keys read the one head that looks back",
            {"model": "toy/attn-only-2l", "writer": "L0H2"},
            ("k_rank = 1", "k_composition > 0.18", "v_composition < 0.05"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
