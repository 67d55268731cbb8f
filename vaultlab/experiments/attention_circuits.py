"""Attention circuits: what a head looks for and what it says, told from its weights through the model's own tokens.

No text is read. Between two bare tokens a head has two circuits: how much one, as a query, looks at the other as a key
(QK), and how much having looked at one makes the other likelier as what comes next (OV):

    OV = W_E W_V W_O W_U                  copying = Σλ / Σ|λ| over its eigenvalues λ
    QK(δ) = W_E W_Q R(δ) W_Kᵀ W_Eᵀ        one for each distance δ from query to key, R the rotation of RoPE

*Copying* is 1 where every direction of tokens makes itself likelier, −1 where each makes itself rarer. Both matrices
are vocabulary × vocabulary and are never there: eig(AB) = eig(BA), so that the eigenvalues which are not 0 are those of
a d_head × d_head matrix, W_O (Σ_t u_t e_tᵀ) W_V, with one sum over the vocabulary's tokens t for the whole model.

The vocabulary's mean is taken out of W_E (`centre`): what all tokens share is no token, and a few heads' worth of it
would decide the sign of every score. Without it, what is added to all logits alike, which changes no probability, would
move the scores; with it, it moves none. The *null* is random W_V and W_O between this model's own embeddings: its mean
is 0, but it spreads widely where the embeddings do not lie evenly, so a score is read by it and not by 0.

What a token is here. Norms have their gains, and LayerNorm its mean, folded into what reads; their scale is frozen, at
the typical token's. It is the token's own embedding that a head meets, as if nothing between had written: for the first
layer that is nearly so, for later ones it is one path of many. A head whose circuit goes through other heads (induction
heads look for what a previous-token head wrote) shows little here; see `composition`.

QK by distance has two parts. The *average* token's score at each distance, with all biases and, where positions are
learned, with those: does the head look for a place? And a token's score with itself above its score with any other,
in standard deviations of all pairs: does it look for the same again? Where queries and keys are normed (qwen3) the
first part has the norms, the second has their gains with frozen scales.

`head` is the one drawn, by default the one with the highest copying score: its own is then no evidence that it is
special. But how the head was chosen knows nothing of `self_rank`, where a sample of single tokens is taken through
OV to the end: which share of the vocabulary does a token push more than itself?

How to read the figures. In `copying` red heads copy, blue ones do the contrary; below are all heads' scores against
the null's. In `eigenvalues` each dot is one of the drawn head's, its distance from the middle logarithmic; to the right
of it is copying, to the left the contrary, above and below tokens that push each other in turn. In `distance` the upper
line is the average token's score, the lower one how a token's score with itself stands out.

Source: Nelson Elhage, Neel Nanda, Catherine Olsson, Tom Henighan, Nicholas Joseph, Ben Mann, Amanda Askell, Yuntao
Bai, Anna Chen, Tom Conerly, Nova DasSarma, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Andy Jones,
Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan, Sam McCandlish, Chris
Olah (2021), "A Mathematical Framework for Transformer Circuits", sections "Splitting Attention Head terms into
Query-Key and Output-Value Circuits" and "Copying / Primitive Induction Heads: Summarizing OV/QK Matrices",
https://transformer-circuits.pub/2021/framework/index.html
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.lines import Line2D
from matplotlib.patches import Circle
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import Bench, Example, Experiment, Head, ModelName, Needs, Nonsense, Quantity
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import circuits, parts
from vaultlab.models.composition import readers
from vaultlab.models.family import Shape
from vaultlab.models.heads import address
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.plots.heads import head_maps
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.result import Check, Metric

DRAWS = 300
"""Random heads of the null at least, evenly over the layers."""

DECADES = 4
"""Eigenvalues that are smaller by more than so many powers of ten are drawn in the middle."""

RESAMPLES = 2000

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model whose heads are looked at."""

    head: Head | None = None
    """The head that is drawn, as L17H8; none: the one that copies most."""

    centre: bool = True
    """Take the vocabulary's mean out of the embedding first."""

    distances: int = Field(64, ge=2, le=256, json_schema_extra={"stress": [16, 128], "unit": "tokens"})
    """Queries and keys are 0 to so many tokens apart, less one."""

    words: int = Field(256, ge=16, le=4096, json_schema_extra={"stress": [64, 1024]})
    """So many tokens of the vocabulary, drawn at random, are taken through the drawn head's OV circuit to the end."""

    seed: int = Field(0, ge=0)
    """Which random heads the null is made of, and which words are drawn."""

    weights: Weights = "trained"


class Out(NamedTuple):
    """What `compute` leaves behind. `*_score`: scores of attention, in its own units before the softmax; `spread`: the
    standard deviation over pairs of tokens; `values` and `null_values`: eigenvalues, real and imaginary part.
    """

    head: str
    eps: float
    turns: bool
    frozen: bool
    copying: Float[Tensor, "layer head"]
    null: Float[Tensor, "layer draw"]
    same: Float[Tensor, "layer head"]
    values: Float[Tensor, "d_head part"]
    null_values: Float[Tensor, "d_head part"]
    average_score: Float[Tensor, " distance"]
    same_score: Float[Tensor, " distance"]
    spread: Float[Tensor, " distance"]
    self_rank: Float[Tensor, " word"]
    mean_residual: Float[Tensor, ""]
    trace_residual: Float[Tensor, ""]
    circle_residual: Float[Tensor, ""]
    basis_residual: Float[Tensor, ""]
    made_residual: Float[Tensor, ""]
    pairs_residual: Float[Tensor, ""]
    distance_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One pass over the vocabulary, then layer by layer in float32; the drawn head's identities in float64."""
    model = bench.model(spec.model)
    shape = model.shape
    _check(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled weights"))
    found = circuits.vocabulary(
        model, spec.centre, lambda done, total: bench.progress(done, total, "adding up the vocabulary")
    )
    draws = -(-DRAWS // shape.layers)
    copying, null, same = [], [], []
    for layer in range(shape.layers):
        bench.progress(layer, shape.layers, "looking at heads")
        attn = readers(model, layer, torch.float32)
        copying.append(circuits.copying(circuits.eigenvalues(circuits.core(attn.W_V, attn.W_O, found.said))))
        random = circuits.random_heads(model, layer, draws, bench.generator("null", spec.seed, layer))
        null.append(circuits.copying(circuits.eigenvalues(circuits.core(*random, found.said))))
        bench.progress(layer, shape.layers, "looking at heads")
        matched = circuits.match(attn, found, spec.distances)
        same.append((matched.same / matched.spread.clamp(min=1e-30)).mean(1).cpu())
    scores = torch.stack(copying)
    layer, number = divmod(int(scores.argmax()), shape.heads) if spec.head is None else address(spec.head)
    bench.progress(shape.layers, shape.layers, "taking words through one head")
    return Out(
        head=f"L{layer}H{number}",
        eps=torch.finfo(model.dtype).eps,
        turns=shape.rotary,
        frozen="qk_norm" in shape.flags,
        copying=scores.float(),
        null=torch.stack(null).float(),
        same=torch.stack(same),
        **circuits.of_head(model, (layer, number), found, spec.distances, bench.generator("null", spec.seed, layer)),
        self_rank=circuits.self_rank(model, (layer, number), found, spec.words, bench.generator("words", spec.seed)),
        mean_residual=found.residual.cpu(),
        **circuits.identities(model, (layer, number), found, bench.generator("identities")),
    )


def _check(spec: Spec, model: Model) -> None:
    """NoteError for a head that the model has not, or distances that it cannot look over."""
    shape = model.shape
    if spec.head is not None:
        layer, number = address(spec.head)
        if layer >= shape.layers or number >= shape.heads:
            last = f"L{shape.layers - 1}H{shape.heads - 1}"
            raise NoteError(f"{model.name} has no head {spec.head}.", f"Its heads are L0H0 to {last}.", field="head")
    windows = [window for layer in range(shape.layers) if (window := parts.attention(model, layer).window)]
    most = min([shape.context, *windows])
    if spec.distances > most:
        raise NoteError(
            f"Some heads of {model.name} see {most} tokens at most.", f"Take at most {most}.", field="distances"
        )


COPYING_HEADS = Quantity(
    "copying_heads",
    "Share of heads whose copying score is over that of 97.5% of the random heads of their layer; null: 0.025.",
    range=(0, 1),
    headline=True,
)
HEAD_COPYING = Quantity(
    "head_copying",
    "Copying score Σλ/Σ|λ| of the drawn head; null: mean of the random heads of its layer. No evidence where the head "
    "was chosen for it.",
    range=(-1, 1),
    headline=True,
)
NULL_SPREAD = Quantity(
    "null_spread",
    "Standard deviation of the random heads' copying scores.",
    range=(0, 1),
)
SELF_RANK = Quantity(
    "self_rank",
    "Share of the vocabulary that the drawn head makes likelier than the token it looked at, median over words; null: "
    "one half.",
    range=(0, 1),
    headline=True,
)
HEAD_SAME = Quantity(
    "head_same",
    "How far the drawn head's score of a token with itself is above the mean of all pairs, in standard deviations of "
    "pairs, mean over distances; null: 0.",
    unit="sd",
)
HEAD_DISTANCE = Quantity(
    "head_distance",
    "The distance at which the drawn head's score with the average token is highest; null: the middle one.",
    unit="tokens",
    range=(0, 255),
)
HEAD_REACH = Quantity(
    "head_reach",
    "How far that highest score is above the mean of all distances, before the softmax; null: 0, no preference.",
    unit="nats",
    range=(0, math.inf),
)
COPYING = Quantity(
    "copying",
    "Copying score of every head, layer after layer; null: mean of random heads.",
    range=(-1, 1),
)
SAME = Quantity(
    "same",
    "How far every head's score of a token with itself is above the mean of all pairs, in standard deviations of "
    "pairs, mean over distances; null: 0.",
    unit="sd",
)


def _place(out: Out) -> tuple[int, int]:
    return address(out.head)


def _above(out: Out) -> Float[Tensor, "layer head"]:
    """Whether a head copies more than 97.5% of the random heads of its layer."""
    return out.copying > out.null.double().quantile(0.975, dim=1, keepdim=True)


def _interval(values: Tensor, seed: int) -> tuple[float, float]:
    """A 95% bootstrap interval of the median."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(values), (RESAMPLES, len(values)), generator=generator)
    low, high = values[rows].double().median(1).values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(low), float(high)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Numbers of all heads, and of the one that is drawn."""
    place, heads = _place(out), out.copying.numel()
    null = out.null[place[0]]
    best = int(out.average_score.argmax())
    distances = len(out.average_score)
    same = out.same_score / out.spread.clamp(min=1e-30)
    return [
        COPYING_HEADS.is_(float(_above(out).double().mean()), null=0.025, n=heads),
        HEAD_COPYING.is_(float(out.copying[place]), null=float(null.mean()), n=len(out.values)),
        NULL_SPREAD.is_(float(out.null.std()), n=out.null.numel()),
        SELF_RANK.is_(
            float(out.self_rank.median()),
            null=0.5,
            n=len(out.self_rank),
            interval=_interval(out.self_rank, spec.seed),
        ),
        HEAD_SAME.is_(float(same.mean()), null=0.0, n=distances),
        HEAD_DISTANCE.is_(float(best), null=(distances - 1) / 2, n=distances),
        HEAD_REACH.is_(max(0.0, float(out.average_score.max() - out.average_score.mean())), null=0.0, n=distances),
        COPYING.is_(tuple(out.copying.flatten().tolist()), null=float(out.null.mean()), n=heads),
        SAME.is_(tuple(out.same.flatten().tolist()), null=0.0, n=heads),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, of the drawn head in float64, and what the null must be."""
    mean = out.null.double().mean() / (out.null.double().std() / math.sqrt(out.null.numel()))
    checks = [
        Check(
            "eigenvalues sum to the circuit's diagonal",
            float(out.trace_residual),
            1e-4,
            f"{out.head}: Σλ from d_head × d_head against Σ_t e_t W_V W_O u_t, token by token; by Σ|λ|",
        ),
        Check(
            "eig(AB) = eig(BA)",
            float(out.circle_residual),
            ALGEBRA,
            f"{out.head} and a slice of the vocabulary: power sums of both matrices' eigenvalues; relative",
        ),
        Check(
            "another basis within the head changes nothing",
            float(out.basis_residual),
            ALGEBRA,
            f"{out.head}: the copying score with W_V M and M⁻¹ W_O",
        ),
        Check(
            "a head made to copy scores 1",
            float(out.made_residual),
            ALGEBRA,
            "W_O = W_Vᵀ (Σ_t u_t e_tᵀ)ᵀ: every eigenvalue of its circuit is a square; with the sign turned −1",
        ),
        Check(
            "a random head's score has the mean 0",
            float(mean.abs()),
            5.0,
            "its sign is the sign of W_V; in standard errors of the null's mean",
        ),
        Check(
            "traces = all pairs of tokens",
            float(out.pairs_residual),
            1e-4,
            f"{out.head} at one distance: mean, diagonal and spread over a slice of the vocabulary; relative",
        ),
        Check(
            "a score at a distance = queries times keys there",
            float(out.distance_residual),
            1e-4,
            f"{out.head}: W_Q R(δ) W_Kᵀ and the biases against the layer's own scores; relative",
        ),
    ]
    if spec.centre:
        checks.append(
            Check(
                "what all logits share drops out",
                float(out.mean_residual),
                ALGEBRA,
                "|Σ_t e_t| by Σ_t |e_t|: the circuits of W_U + c·1ᵀ are those of W_U",
            )
        )
    return checks


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, two d_model × d_model sums over the vocabulary, a layer in float32; eigenvalues: 3 µs · d_head²."""
    assert shape is not None
    width, all_heads = shape.d_model, shape.heads * shape.d_head
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    layer = 4 * (6 * width * all_heads + 3 * width * width)
    stream = 4 * 4 * circuits.ROWS + 8 * circuits.SCORES
    flops = 4 * shape.d_vocab * width**2 + shape.layers * (12 * width**2 * all_heads)
    flops += shape.layers * spec.distances * 4 * shape.heads * shape.d_head**3
    flops += 2 * spec.words * shape.d_vocab * width
    solved = (shape.layers * shape.heads + DRAWS) * shape.d_head**2 * 3e-6
    return Needs(int(weights + layer + stream), 3 + flops / 60e9 + solved)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {
        "copying": _draw_copying(out),
        "eigenvalues": _draw_eigenvalues(out),
        "distance": _draw_distance(out),
        "scores": _draw_scores(out),
    }


def _names(out: Out, values: Tensor, most: int = 3) -> list[str]:
    order = values.flatten().argsort(descending=True)[:most].tolist()
    return [f"L{at // values.shape[1]}H{at % values.shape[1]}" for at in order]


def _draw_copying(out: Out) -> Drawing:
    spread = out.same.numpy()
    copied, matched = _names(out, out.copying), _names(out, out.same)
    panels = {"copying score": out.copying.numpy(), "looks for the same": spread / np.abs(spread).max()}
    place = _place(out)
    figure = head_maps(
        panels,
        "copying (−1 to 1); the same token's score, by the largest",
        dict.fromkeys(panels, place),
        ("layer", "head"),
    )
    above = float(_above(out).double().mean())
    return Drawing(
        figure,
        f"Two maps of {out.copying.numel()} heads, layer by head. Copying score: from {float(out.copying.min()):.2f} "
        f"to {float(out.copying.max()):.2f}, highest in {', '.join(copied)}; {above:.0%} of the heads copy more than "
        f"random ones. A token's score with itself: up to {float(out.same.max()):.2f} standard deviations above the "
        f"mean of all pairs, most in {', '.join(matched)}. Boxed: {out.head}.",
    )


def _draw_scores(out: Out) -> Drawing:
    edges = np.linspace(-1, 1, 41)
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for values, label, style in (
            (out.null, "random W_V, W_O", {"fill": True, "color": GREY, "alpha": 0.45}),
            (out.copying, "heads of the model", {"color": PALETTE[0], "linewidth": 2}),
        ):
            flat = values.flatten().numpy()
            ax.stairs(100 * np.histogram(flat, edges)[0] / len(flat), edges, label=label, **style)
        at = float(out.copying[_place(out)])
        ax.axvline(at, color=PALETTE[1], linestyle="--", linewidth=1.5)
        side = "right" if at > 0 else "left"
        ax.text(at, 0.98, f" {out.head} ", transform=ax.get_xaxis_transform(), ha=side, va="top")
        ax.set(xlabel="copying score Σλ / Σ|λ|", ylabel="heads (%)", xlim=(-1, 1))
        figure.legend(loc="outside lower center", ncols=2)
    spread = float(out.null.std())
    return Drawing(
        figure,
        f"Copying scores of {out.copying.numel()} heads against {out.null.numel()} random ones through the same "
        f"embeddings, which spread by {spread:.2f} around 0. Half of the model's heads are above "
        f"{float(out.copying.median()):.2f}; {out.head} has {at:.2f}.",
    )


def _draw_eigenvalues(out: Out) -> Drawing:
    largest = float(out.values.norm(dim=1).max())
    with canvas(height=5.2) as (figure, axes):
        ax = axes[0, 0]
        for radius in range(1, DECADES + 1):
            ax.add_patch(Circle((0, 0), radius, fill=False, edgecolor=GREY, linewidth=0.6, alpha=0.5))
            ax.text(
                0, radius, f"1/{10 ** (DECADES - radius)}" if radius < DECADES else "largest", ha="center", va="bottom"
            )
        ax.axhline(0, color=GREY, linewidth=0.6, alpha=0.5)
        ax.axvline(0, color=GREY, linewidth=0.6, alpha=0.5)
        for values, colour, size in ((out.null_values, GREY, 14), (out.values, PALETTE[1], 26)):
            x, y = _spread(values.numpy())
            ax.scatter(x, y, s=size, color=colour, alpha=0.85, linewidths=0, zorder=2)
        reach = DECADES + 0.6
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.set(xlabel="real part: copies to the right", ylabel="imaginary part: turns")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        handles = [
            Line2D([], [], marker="o", linestyle="", color=PALETTE[1], label=out.head),
            Line2D([], [], marker="o", linestyle="", color=GREY, label="a random head"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        figure.suptitle("eigenvalues, distance from the middle in powers of ten")
    right = float((out.values[:, 0] > 0).double().mean())
    score = float(out.copying[_place(out)])
    return Drawing(
        figure,
        f"The {len(out.values)} eigenvalues of {out.head}'s circuit from token to token in the complex plane, the "
        f"largest {largest:.3g}; {right:.0%} of them have a positive real part, their copying score is {score:.2f}. "
        f"Beside them those of a random head.",
    )


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where eigenvalues are drawn: their own angle, at a distance of DECADES for the largest, one less for a tenth."""
    size = np.hypot(*values.T)
    radius = np.clip(DECADES + np.log10(np.maximum(size, 1e-300) / size.max()), 0, None)
    return tuple((values / np.maximum(size, 1e-300)[:, None] * radius[:, None]).T)


def _draw_distance(out: Out) -> Drawing:
    at = np.arange(len(out.average_score))
    average, same, spread = (values.numpy() for values in (out.average_score, out.same_score, out.spread))
    with canvas(2, 1, height=5.4, sharex=True) as (figure, axes):
        upper, lower = axes[:, 0]
        upper.plot(at, average, color=PALETTE[0], marker="o", markersize=3)
        upper.axhline(average.mean(), color=GREY, linestyle="--", linewidth=1.2)
        upper.set_ylabel("average token\n(score, nats)")
        if np.ptp(average) < 0.05:
            upper.set_ylim(average.mean() - 0.5, average.mean() + 0.5)
        lower.fill_between(at, -spread, spread, color=GREY, alpha=0.3, linewidth=0)
        lower.plot(at, same, color=PALETTE[1], marker="o", markersize=3)
        lower.axhline(0, color=GREY, linestyle="--", linewidth=1.2)
        lower.set(ylabel="the same token\n(above all pairs, nats)", xlabel="distance from query to key (tokens)")
        handles = [
            Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="no preference"),
            Line2D([], [], color=GREY, alpha=0.4, linewidth=8, label="± one sd of pairs of tokens"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        frozen = ", scales of the query's and key's norms frozen" if out.frozen else ""
        figure.suptitle(f"{out.head}{frozen}")
    best = int(average.argmax())
    return Drawing(
        figure,
        f"Scores of {out.head} by the distance from query to key, 0 to {len(at) - 1}. The average token's is highest "
        f"at {best}, {average[best]:.3g} nats, {average[best] - average.mean():.3g} above the mean. A token's score "
        f"with itself is {same.mean():+.3g} nats against all pairs, which differ by {spread.mean():.3g}.",
    )


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        COPYING_HEADS,
        HEAD_COPYING,
        NULL_SPREAD,
        SELF_RANK,
        HEAD_SAME,
        HEAD_DISTANCE,
        HEAD_REACH,
        COPYING,
        SAME,
    ),
    figures={
        "copying": "How much every head copies, and how much it looks for the same token.",
        "eigenvalues": "The eigenvalues of one head's circuit from token to token, beside a random head's.",
        "distance": "One head's scores by distance: of the average token, and of a token with itself.",
        "scores": "The copying scores of all heads against random ones through the same embeddings.",
    },
    examples=(
        Example(
            "a-head-that-copies",
            "Head L28H5 makes likelier what it looks at",
            {"model": "smollm2-135m", "head": "L28H5"},
            ("head_copying > 0.9", "self_rank < 0.01", "null_spread < 0.15"),
        ),
        Example(
            "looks-for-the-token-before",
            "The toy's first layer has a head that looks for the token before, whatever it is",
            {"model": "toy/attn-only-2l", "head": "L0H2"},
            ("head_distance = 1", "head_reach > 10"),
        ),
        Example(
            "induction-heads-copy",
            "In the toy all heads of the second layer copy",
            {"model": "toy/attn-only-2l", "head": "L1H1"},
            ("head_copying > 0.95", "self_rank < 0.05", "copying_heads > 0.5"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
