"""What the heads of one attention layer do with one text: where they look, what they move from there, what they write.

A head's write to token i is Σ_j A_ij x_j W_V W_O. x_j counts without its norm's bias and the value without b_V: they
are the same wherever a head looks, since rows of A sum to 1, and make up the layer's `constant`. Norms of what moves
and of writes follow Kobayashi et al. 2020, Attention is Not Only a Weight.
"""

import math
from typing import NamedTuple

import torch
from einops import reduce
from jaxtyping import Bool, Float
from torch import Tensor

from vaultlab.models.trace import sinks
from vaultlab.models.weights import AttentionParts, Norm

SLICE = (4, 8)
"""Tokens and written dimensions on which A ⊗ W_O W_V is formed: all of it would have (tokens · d_model)² entries."""

TILE = 32
"""Cells a side at most of a head's pattern among all heads': of longer texts each cell is a block of tokens."""

MOSAIC = 1100
"""Cells across that `tiles` draws before it averages neighbours."""


class Reading(NamedTuple):
    """What one layer's heads do with one text. `uniform_*`: what uniform attention would have.

    `small` is the weighted pattern in blocks, 1 being what the head moves to a token on average; NaN where nothing is
    visible. The residuals are those of `verify`.
    """

    sinks: Bool[Tensor, " pos"]
    sink_norm: Float[Tensor, ""]
    entropy: Float[Tensor, " head"]
    sink_mass: Float[Tensor, " head"]
    weighted_sink_mass: Float[Tensor, " head"]
    previous_token: Float[Tensor, " head"]
    write_norm: Float[Tensor, " head"]
    uniform_entropy: Float[Tensor, ""]
    uniform_sink_mass: Float[Tensor, ""]
    uniform_previous_token: Float[Tensor, ""]
    small: Float[Tensor, "head cell cell"]
    row_residual: Float[Tensor, ""]
    ahead_residual: Float[Tensor, ""]
    rounding_residual: Float[Tensor, ""]


def address(head: str) -> tuple[int, int]:
    """Layer and number of a head: L17H8 → 17, 8."""
    layer, number = head[1:].split("H")
    return int(layer), int(number)


def constant(attn: AttentionParts, norm: Norm) -> Float[Tensor, " d_model"]:
    """What a layer adds to every token wherever its heads look: b_O, and b_V and the norm's bias through W_O."""
    return attn.b_O + (attn.b_V + norm.bias @ attn.W_V).flatten() @ attn.W_O.flatten(0, 1)


def lengths(
    z: Float[Tensor, "head pos d_head"], gram: Float[Tensor, "head d_head d_head"]
) -> Float[Tensor, "head pos"]:
    """‖z W_O‖ from W_O W_Oᵀ: a vector of d_model numbers for every head and token would take most of the time."""
    return ((z @ gram) * z).sum(-1).clamp(min=0).sqrt()


def read(
    attn: AttentionParts,
    x: Float[Tensor, "pos d_model"],
    A: Float[Tensor, "head query key"],
    before: Float[Tensor, "pos d_model"],
    after: Float[Tensor, "pos d_model"],
    kv_heads: int,
) -> tuple[Reading, Float[Tensor, "pos d_model"]]:
    """The numbers of one layer, and Σ_h A_h x W_V W_O. `x` is what the layer reads, less its norm's bias; `before` and
    `after` are the streams that enter and leave it."""
    norms, visible = before.norm(dim=-1), attn.visible(len(x))
    sink = sinks(before)
    sink[0] = True
    asking = (~sink).nonzero().flatten()
    group = len(A) // kv_heads
    v = (x @ attn.W_V[::group]).repeat_interleave(group, 0)  # the heads of a group share it
    z_off, gram = A.masked_fill(sink, 0) @ v, attn.W_O @ attn.W_O.mT
    z = z_off + A[..., sink] @ v[:, sink]
    moved, off_sink = lengths(v, gram), lengths(z_off, gram)
    of_key = torch.stack([sink.to(A).expand_as(moved), moved, moved * sink, torch.ones_like(moved)], -1)
    on_sink, total, from_sink, row = (A @ of_key).unbind(-1)  # sums over a row, in one product
    per_token = total[:, asking].mean(-1)
    reading = Reading(
        sinks=sink,
        sink_norm=norms[0] / norms.median(),
        entropy=torch.special.entr(A).sum(-1)[:, asking].mean(-1) / math.log(2),
        sink_mass=on_sink[:, asking].mean(-1).clamp(max=1),  # a sum of weights may round to a hair above
        weighted_sink_mass=(from_sink[:, asking].mean(-1) / per_token).clamp(max=1),
        previous_token=A.diagonal(-1, 1, 2)[:, _plain_before(sink)].mean(-1),
        write_norm=(off_sink / after.norm(dim=-1))[:, asking].mean(-1),
        **_uniform(visible, sink),
        small=_small(A * (moved / per_token[:, None])[:, None], visible),
        row_residual=(row - 1).abs().max(),
        ahead_residual=A.masked_fill(visible, 0).max(),
        rounding_residual=torch.tensor(math.nan),
    )
    return reading, z.transpose(0, 1).flatten(1) @ attn.W_O.flatten(0, 1)


def _uniform(visible: Bool[Tensor, "query key"], sink: Bool[Tensor, " pos"]) -> dict[str, Tensor]:
    share = visible / visible.sum(-1, keepdim=True)
    asking = ~sink
    return {
        "uniform_entropy": -share.amax(-1)[asking].log2().mean(),
        "uniform_sink_mass": share[asking][:, sink].sum(-1).mean(),
        "uniform_previous_token": share.diagonal(-1)[_plain_before(sink)].mean(),
    }


def _plain_before(sink: Bool[Tensor, " pos"]) -> Bool[Tensor, " before"]:
    """Of all tokens but the last, those that are no sink and stand before one that is none."""
    return ~sink[:-1] & ~sink[1:]


def _small(weighted: Float[Tensor, "head query key"], visible: Bool[Tensor, "query key"]) -> Tensor:
    """Blocks of tokens, at most TILE: what a block's keys give together, mean over the queries that see it, or NaN."""
    by = -(-len(visible) // min(TILE, max(1, MOSAIC // len(weighted))))
    missing = -len(visible) % by
    given, seen = (torch.nn.functional.pad(part, (0, missing, 0, missing)) for part in (weighted, visible))
    blocks = "(row query) (col key)"
    total = reduce(given, f"head {blocks} -> head row col", "sum", query=by, key=by)
    queries = reduce(
        reduce(seen, f"{blocks} -> row query col", "any", query=by, key=by), "row query col -> row col", "sum"
    )
    return (total / queries).half()


def apart(one: Tensor, other: Tensor) -> Float[Tensor, ""]:
    """The largest difference, as a share of the largest entry."""
    return (one - other).abs().max() / torch.maximum(one.abs().max(), other.abs().max()).clamp(min=1e-30)


def rebuilt(
    attn: AttentionParts, norm: Norm, x: Float[Tensor, "pos d_model"], A: Float[Tensor, "head query key"]
) -> Float[Tensor, "pos d_model"]:
    """A layer's output head by head: Σ_h A_h x W_V W_O and the constant; `x` is less the norm's bias."""
    heads = zip(A, attn.W_V, attn.W_O, strict=True)
    return torch.stack([A_h @ (x @ W_V @ W_O) for A_h, W_V, W_O in heads]).sum(0) + constant(attn, norm)


def kronecker_residual(
    A: Float[Tensor, "query key"],
    x: Float[Tensor, "pos d_model"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
) -> Float[Tensor, ""]:
    """How far (A ⊗ W_O W_V) x and (I ⊗ W_O)(A ⊗ I)(I ⊗ W_V) x are from what the head writes, on a slice.

    vec goes row by row, one token after the other. In the formula weights act on columns: here they stand transposed.
    """
    few, dims = SLICE
    A, x, W_O = A[:few, :few], x[:few], W_O[:, :dims]
    eye_pos, eye_head = torch.eye(len(A)).to(A), torch.eye(len(W_O)).to(A)
    vec, write = x.flatten(), (A @ (x @ W_V) @ W_O).flatten()
    at_once = torch.kron(A, (W_V @ W_O).T.contiguous()) @ vec
    by_steps = torch.kron(eye_pos, W_V.T.contiguous()) @ vec
    by_steps = torch.kron(eye_pos, W_O.T.contiguous()) @ (torch.kron(A, eye_head) @ by_steps)
    return torch.maximum(apart(at_once, write), apart(by_steps, write))
