"""A direction that tells two sets of activations apart, layer by layer, and how well it does.

Three ways to it, all giving v (v·Δμ) for a unit v, so that its length is how far the means lie apart along it:

    mean    v ∝ Δμ = μ₊ − μ₋
    lat     the first principal component of the differences x₊ − x₋ of pairs, each with a random sign
    probe   the weights of a logistic regression, ridge RIDGE on activations of mean square norm 1

The random signs matter: PCA takes the mean away, and the mean of differences that all have one sign is the concept.

Source: Zou et al. 2023, Representation Engineering, section 3.1. Marks and Tegmark 2023, The Geometry of Truth,
section 4. Float64 on the CPU throughout.
"""

from typing import Literal, NamedTuple

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Bool, Float
from torch import Tensor

from vaultlab.models.bootstrap import RESAMPLES

Method = Literal["mean", "lat", "probe"]

RIDGE = 0.01
NEWTON = 25
TIE = 1e-9
"""Scores as near as this, by the length of what is scored, are one: what is the same token must not be told apart."""

X = Float[Tensor, "layer word template d_model"]
Side = Bool[Tensor, " word"]
Scores = Float[Tensor, "layer word template"]


def direction(method: Method, x: X, side: Side, generator: torch.Generator) -> Float[Tensor, "layer d_model"]:
    """The direction from the words that are not on `side` to those that are; 0 where nothing tells them apart."""
    weight = torch.where(side, 1 / side.sum().double(), -1 / (~side).sum().double()) / x.shape[2]
    each = weight @ x.flatten(2)  # einsum would copy x
    gap: Tensor = reduce(each, "layer (template d_model) -> layer d_model", "sum", template=x.shape[2])
    gap = torch.where((gap.norm(dim=-1) > _grain(x))[:, None], gap, 0.0)
    if method == "mean":
        return gap
    v = lat(x, side, generator) if method == "lat" else probe(x, side)
    v = v / v.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    gap = v * einsum(v, gap, "layer d_model, layer d_model -> layer")[:, None]
    return gap


def differences(x: X, side: Side) -> Float[Tensor, "layer pair d_model"]:
    """Of the k-th word on each side, in the same template."""
    count = min(int(side.sum()), int((~side).sum()))
    return rearrange(x[:, side][:, :count] - x[:, ~side][:, :count], "layer word template d -> layer (word template) d")


def lat(x: X, side: Side, generator: torch.Generator) -> Float[Tensor, "layer d_model"]:
    """The first principal component of the pairs' differences, each with a random sign."""
    d = differences(x, side)
    sign = torch.randint(0, 2, d.shape[1:2], generator=generator).double() * 2 - 1
    return principal(d * sign[:, None])


def principal(d: Float[Tensor, "layer pair d_model"]) -> Float[Tensor, "layer d_model"]:
    """The first principal component, of either sign, by way of the rows' Gram matrix: there are fewer rows."""
    d = d - d.mean(1, keepdim=True)
    v: Tensor = einsum(d, torch.linalg.eigh(d @ d.mT).eigenvectors[..., -1], "layer pair d, layer pair -> layer d")
    return v


def probe(x: X, side: Side) -> Float[Tensor, "layer d_model"]:
    """The minimum of mean log(1 + e^{−y(w·x + b)}) + RIDGE/2 (‖w‖² + b²) by Newton steps in the prompts' own span."""
    rows, y = _rows(x, side)
    K = rows @ rows.mT
    a = torch.zeros(K.shape[:2], dtype=K.dtype)
    eye = torch.eye(K.shape[-1], dtype=K.dtype)
    for _ in range(NEWTON):
        # the minimum in a, with w = Σ a_i x_i: RIDGE a = (y − p)/n, so a step solves (RIDGE + R K/n) δ = that gap
        p = (K @ a[..., None])[..., 0].sigmoid()
        off = (y - p) / len(y) - RIDGE * a
        if off.abs().max() < 1e-13:
            break
        a = a + torch.linalg.solve(RIDGE * eye + (p * (1 - p) / len(y))[..., None] * K, off)
    return einsum(a, rows, "layer row, layer row d -> layer d")[:, :-1]


def _rows(x: X, side: Side) -> tuple[Float[Tensor, "layer row d"], Float[Tensor, " row"]]:
    """A row a prompt, centred, of mean square norm 1, with a 1 at its end for the bias; and its label, 0 or 1."""
    rows = rearrange(x, "layer word template d -> layer (word template) d")
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.square().sum(-1).mean(-1).sqrt().clamp(min=1e-30)[:, None, None]
    y = side.double()[:, None].expand(-1, x.shape[2]).flatten()
    return torch.nn.functional.pad(rows, (0, 1), value=1.0), y


def scores(x: X, vectors: Float[Tensor, "layer d_model"]) -> Scores:
    """How far each prompt lies along the unit direction; what differs by rounding alone does not differ."""
    v = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    grain = _grain(x)[:, None, None]
    s: Tensor = (einsum(x, v, "layer word template d, layer d -> layer word template") / grain).round() * grain
    return s


def _grain(x: X) -> Float[Tensor, " layer"]:
    """What is too little to be a difference: of the length of the first word's, for one is as long as another."""
    little: Tensor = TIE * x[:, 0].norm(dim=-1).mean(-1).clamp(min=1e-30)
    return little


def wins(s: Scores, side: Side) -> Float[Tensor, "layer positive negative"]:
    """How often a prompt of the one word scores above one of the other, a tie counting half; its mean is the AUROC."""
    above = s[:, side][:, :, None, :, None] - s[:, ~side][:, None, :, None, :]
    return (above.sign().mean((-1, -2)) + 1) / 2


def auroc(s: Scores, side: Side) -> Float[Tensor, " layer"]:
    """How often a prompt on the side scores above one that is not, all pairs of prompts."""
    return wins(s, side).mean((-1, -2))


def separation(s: Scores, side: Side) -> Float[Tensor, " layer"]:
    """d′: the distance of the two means by the pooled standard deviation; 0 where all scores are one."""
    one, other = s[:, side].flatten(1), s[:, ~side].flatten(1)
    pooled = ((one.var(1, correction=0) + other.var(1, correction=0)) / 2).sqrt()
    gap = one.mean(1) - other.mean(1)
    return torch.where(pooled > 0, gap / pooled.clamp(min=1e-30), 0.0)


def accuracy(s: Scores, side: Side, threshold: Float[Tensor, " layer"]) -> Float[Tensor, " layer"]:
    """Share on the right side of the threshold, mean of the two sides; what lies on it counts half."""
    right = ((s - threshold[:, None, None]).sign() * (side.double() * 2 - 1)[:, None] + 1) / 2
    return (right[:, side].mean((1, 2)) + right[:, ~side].mean((1, 2))) / 2


class Best(NamedTuple):
    """The layer that a fold chooses, and what it sees of each there."""

    layer: int
    auroc: Float[Tensor, " layer"]


def best_layer(s: Scores, side: Side) -> Best:
    """The layer with the largest AUROC; of several the one where the sides lie further apart."""
    seen = auroc(s, side)
    return Best(int(torch.where(seen == seen.max(), separation(s, side), -torch.inf).argmax()), seen)


def cosines(vectors: Float[Tensor, "*of layer d_model"]) -> Float[Tensor, "*of layer layer"]:
    """Of every layer's direction with every other's; 0 with one that is 0."""
    v = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    found: Tensor = v @ v.mT
    return found


class Intervals(NamedTuple):
    """95 % each, from words drawn again on both sides."""

    auroc: tuple[float, float]
    accuracy: tuple[float, float]
    separation: tuple[float, float]


def by_word(s: Float[Tensor, "word template"], side: Side, threshold: Tensor, generator: torch.Generator) -> Intervals:
    """How far the numbers of one layer depend on which words were asked: a bootstrap by word, never by prompt."""
    one, other = (_again(int(part.sum()), generator) for part in (side, ~side))
    right = ((s - threshold).sign() * (side.double() * 2 - 1)[:, None] + 1) / 2
    (a, b), (one_var, other_var) = (
        [one @ each[side].mean(1), other @ each[~side].mean(1)] for each in (s - s.mean(), (s - s.mean()).square())
    )
    pooled = ((one_var - a * a + other_var - b * b) / 2).clamp(min=0).sqrt()
    found = torch.stack(
        [
            einsum(one, wins(s[None], side)[0], other, "draw positive, positive negative, draw negative -> draw"),
            (one @ right[side].mean(1) + other @ right[~side].mean(1)) / 2,
            torch.where(pooled > 0, (a - b) / pooled.clamp(min=1e-30), 0.0),
        ]
    )
    ends = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=1)
    return Intervals(*((float(low), float(high)) for low, high in ends.T))


def _again(words: int, generator: torch.Generator) -> Float[Tensor, "draw word"]:
    """As many words drawn again, time after time: the share of each."""
    drawn = torch.randint(words, (RESAMPLES, words), generator=generator)
    return torch.nn.functional.one_hot(drawn, words).double().mean(1)
