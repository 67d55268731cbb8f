"""The memory with a softmax that an MLP nearly is: what it would write from the same keys and values.

With a_i the score of key i and w_i what its value is at this token, an MLP writes Σ f(a_i) w_i + b, a neural memory
Σ softmax(a)_i w_i. Ungated, a = x W_in + b_in and w_i = v_i; gated, a = x W_gate + b_gate and w_i = (x·u_i + b_i) v_i.

Source: Geva et al. (2021), "Transformer Feed-Forward Layers Are Key-Value Memories", section 2,
https://aclanthology.org/2021.emnlp-main.446; Sukhbaatar et al. (2015), "End-To-End Memory Networks", section 2.1,
https://arxiv.org/abs/1503.08895
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.weights import MLPParts


class Scored(NamedTuple):
    """At each token the score of every key, and by what its row of W_out is multiplied to be its value there."""

    a: Float[Tensor, "pos key"]
    factor: Float[Tensor, "pos key"]

    @property
    def weights(self) -> Float[Tensor, "pos key"]:
        """How a neural memory divides itself among the values: a distribution."""
        return self.a.softmax(dim=-1)


def keys_of(mlp: MLPParts) -> Float[Tensor, "d_model key"]:
    """What is asked of a token before f: the gates of a gated MLP, W_in of another."""
    return mlp.W_in if mlp.W_gate is None else mlp.W_gate


def scored(mlp: MLPParts, x: Float[Tensor, "pos d_model"], keys: Float[Tensor, "d_model key"] | None = None) -> Scored:
    """Scores and values of what the MLP reads; `keys` in the place of its own, its values staying what they are."""
    bias = mlp.b_in if mlp.b_gate is None else mlp.b_gate
    a = x @ (keys_of(mlp) if keys is None else keys) + bias
    return Scored(a, torch.ones_like(a) if mlp.W_gate is None else x @ mlp.W_in + mlp.b_in)


class Looks(NamedTuple):
    """What a neural memory does at each token, beside what the MLP does there.

    `cosine` of the two writes; `along`, `recalled_square` and `own_square` their product and squared norms. `memories`
    is how many memories write in effect, (Σ s)² / Σ s² with s the norms of what they write, `own_memories` the MLP's;
    `largest` the largest weight, `log_Z` = log Σ exp(a), `same_first` whether the strongest memory is the MLP's own.
    `reach` is how far any weighted mean of the values goes in the direction of the MLP's write, as a share of it.
    """

    cosine: Float[Tensor, " pos"]
    along: Float[Tensor, " pos"]
    recalled_square: Float[Tensor, " pos"]
    own_square: Float[Tensor, " pos"]
    memories: Float[Tensor, " pos"]
    own_memories: Float[Tensor, " pos"]
    largest: Float[Tensor, " pos"]
    log_Z: Float[Tensor, " pos"]
    same_first: Float[Tensor, " pos"]
    reach: Float[Tensor, " pos"]


def look(mlp: MLPParts, one: Scored, own: Scored) -> Looks:
    """A neural memory with the scores of `one` beside the MLP itself, whose scores are `own`."""
    p, m = one.weights, mlp.act(own.a) * own.factor
    recalled, written = (p * one.factor) @ mlp.W_out, m @ mlp.W_out
    strength, own_strength = strengths(mlp, p * one.factor), strengths(mlp, m)
    along, square, own_square = (recalled * written).sum(-1), recalled.square().sum(-1), written.square().sum(-1)
    support = (written @ mlp.W_out.T * own.factor).amax(-1)
    return Looks(
        cosine=along / (square * own_square).sqrt().clamp(min=1e-30),
        along=along,
        recalled_square=square,
        own_square=own_square,
        memories=effective(strength),
        own_memories=effective(own_strength),
        largest=p.amax(-1),
        log_Z=one.a.logsumexp(-1),
        same_first=(strength.argmax(-1) == own_strength.argmax(-1)).to(along),
        reach=support / own_square.clamp(min=1e-30),
    )


def strengths(mlp: MLPParts, m: Float[Tensor, "pos key"]) -> Float[Tensor, "pos key"]:
    """‖m_i v_i‖: no factor that a memory's two parts share counts."""
    strength: Tensor = m.abs() * mlp.W_out.norm(dim=-1)
    return strength


def effective(strength: Float[Tensor, "pos key"]) -> Float[Tensor, " pos"]:
    """As many equal ones would be as concentrated: (Σ s)² / Σ s²."""
    count: Tensor = strength.sum(-1).square() / strength.square().sum(-1).clamp(min=1e-30)
    return count


def scale_free(mlp: MLPParts) -> bool:
    """Whether f(γa) = γ f(a) for every γ > 0, as with ReLU: keys then have no scale of their own."""
    a = torch.linspace(-3, 3, 13, dtype=mlp.W_in.dtype, device=mlp.W_in.device)
    return bool(torch.allclose(mlp.act(4 * a), 4 * mlp.act(a), atol=1e-6))


def balanced(mlp: MLPParts) -> MLPParts:
    """The same MLP with one scale for its keys. Where f(γa) = γ f(a), key and value may trade any γ > 0, and a softmax
    would see it: each key gets the geometric mean of the norms of what it trades with. Others stay as they are."""
    if not scale_free(mlp):
        return mlp
    parts = [keys_of(mlp), mlp.W_out.T, *([] if mlp.W_gate is None else [mlp.W_in])]
    norms = torch.stack([one.norm(dim=0) for one in parts]).clamp(min=1e-30)
    return _traded(mlp, norms.log().mean(0).exp() / norms[0])


def _traded(mlp: MLPParts, gamma: Float[Tensor, " key"]) -> MLPParts:
    W_out = mlp.W_out / gamma[:, None]
    if mlp.W_gate is None or mlp.b_gate is None:
        return replace(mlp, W_in=mlp.W_in * gamma, b_in=mlp.b_in * gamma, W_out=W_out)
    return replace(mlp, W_gate=mlp.W_gate * gamma, b_gate=mlp.b_gate * gamma, W_out=W_out)


def regauged(mlp: MLPParts, generator: torch.Generator) -> MLPParts | None:
    """The same MLP written down otherwise: every (u, v) as (αu, v/α), α of either sign, and where f(γa) = γ f(a) every
    key and value as (γk, v/γ). None where there is no other way to write it."""
    size, free = len(mlp.W_out), scale_free(mlp)
    if mlp.W_gate is None and not free:
        return None
    gamma, alpha = (2.0 ** (6 * torch.rand(2, size, generator=generator, dtype=torch.float64) - 3)).to(mlp.W_in)
    other = _traded(mlp, gamma) if free else mlp
    if mlp.W_gate is None:
        return other
    alpha = alpha * torch.randint(0, 2, (size,), generator=generator).mul(2).sub(1).to(alpha)
    return replace(other, W_in=other.W_in * alpha, b_in=other.b_in * alpha, W_out=other.W_out / alpha[:, None])


def beyond_hull(
    mlp: MLPParts, recalled: Float[Tensor, "pos d_model"], own: Scored, directions: Float[Tensor, "pos way d_model"]
) -> Float[Tensor, ""]:
    """How far writes stick out of the hull of their token's values in some directions, as a share of its size there.

    Of a point in the hull d·MN ≤ max_i d·w_i in every direction d: above 0 (beyond rounding) it is outside.
    """
    reach = (directions @ mlp.W_out.T) * own.factor[:, None]
    there = (directions @ recalled[..., None])[..., 0]
    size = reach.abs().amax(-1).clamp(min=1e-30)
    worst: Tensor = ((there - reach.amax(-1)) / size).max()
    return worst
