"""Virtual weights: how much of what one part of a model can write another one can read, from the weights alone.

They are taken of whole circuits, so that no other basis within a head and no other scale within a memory changes them:
attention writes with W_V W_O and reads with W_Q W_Kᵀ, W_K W_Qᵀ and W_V W_O, a memory counts as often as its key and its
value are long together. The norms' gains are folded into what reads. Each part is one matrix G of d_model × d_model, a
layer at a time; products of parts are never formed. After Elhage et al. 2021, A Mathematical Framework for Transformer
Circuits, "Virtual Weights and the Residual Stream as a Communication Channel".
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.model import Model
from vaultlab.models.weights import AttentionParts, MLPParts, Norm

ROWS = 8192
"""Rows of an embedding that are multiplied at a time."""

Gram = Float[Tensor, "d_model d_model"]


class Grams(NamedTuple):
    """G of everything in one layer that writes or reads: x G x is the squared length of what becomes of a stream x,
    or of what a write has along x."""

    attn_writes: Gram
    attn_reads: tuple[Gram, ...]
    mlp_writes: Gram
    mlp_reads: tuple[Gram, ...]


def grams(attn: AttentionParts, attn_norm: Norm, mlp: MLPParts, mlp_norm: Norm) -> Grams:
    """Queries and keys count at distance 0; where they are normed head by head, that scale is taken as 1."""
    attn = attn.folded(attn_norm)
    W_Q = attn.W_Q if attn.q_norm is None else attn.W_Q * attn.q_norm.gain
    W_K = attn.W_K if attn.k_norm is None else attn.W_K * attn.k_norm.gain
    W_V, W_O = attn.W_V, attn.W_O
    reads = ((W_Q, W_K.mT @ W_K), (W_K, W_Q.mT @ W_Q), (W_V, W_O @ W_O.mT))
    mlp = mlp.folded(mlp_norm)
    lengths, values = mlp.W_in.square().sum(0), mlp.W_out.square().sum(1)
    up = _centred((mlp.W_in * values) @ mlp.W_in.T, mlp_norm)
    gate = () if mlp.W_gate is None else (_centred(mlp.W_gate @ mlp.W_gate.T, mlp_norm),)
    return Grams(
        _around(W_O.mT, _inner(W_V, attn_norm)),
        tuple(_centred(_around(W, core), attn_norm) for W, core in reads),
        (mlp.W_out.T * lengths) @ mlp.W_out,
        (up, *gate),
    )


def _inner(W: Float[Tensor, "head d_model d_head"], norm: Norm) -> Float[Tensor, "head d_head d_head"]:
    """W Wᵀ of what a head reads, as it is reached through the norm."""
    W = W - W.mean(1, keepdim=True) if norm.kind == "layer" else W
    return W.mT @ W


def _around(W: Float[Tensor, "head d_model d_head"], core: Float[Tensor, "head d_head d_head"]) -> Gram:
    """Σ_h W core Wᵀ."""
    left = W @ core
    return left.transpose(0, 1).flatten(1) @ W.transpose(0, 1).flatten(1).T


def _centred(G: Gram, norm: Norm) -> Gram:
    """What a LayerNorm in front leaves of a reader: its mean is taken off."""
    if norm.kind != "layer":
        return G
    G = G - G.mean(0, keepdim=True)
    return G - G.mean(1, keepdim=True)


def rows_gram(W: Float[Tensor, "row d_model"], gain: Float[Tensor, " d_model"]) -> Gram:
    """Mean of w wᵀ over rows less their mean row, some rows at a time."""
    G, mean = torch.zeros(len(gain), len(gain)).to(gain), torch.zeros_like(gain)
    for some in torch.split(W, ROWS):
        some = some.to(gain) * gain
        G += some.T @ some
        mean += some.sum(0)
    mean /= len(W)
    return G / len(W) - mean[:, None] * mean


def ends(model: Model, dtype: torch.dtype) -> tuple[Gram, Gram]:
    """What the embedding writes and what the unembedding reads, both less what is the same for all tokens."""
    embedding, norm = parts.embedding(model), parts.final_norm(model, dtype)
    ones = torch.ones_like(norm.gain)
    writes = rows_gram(embedding.W_E, ones)
    if embedding.W_pos is not None:
        writes = writes + rows_gram(embedding.W_pos, ones)
    return writes, _centred(rows_gram(parts.unembedding(model).W_U.T, norm.gain), norm)


def grams_of(model: Model, layer: int, dtype: torch.dtype) -> Grams:
    """Those of a model's layer."""
    return grams(
        parts.attention(model, layer, dtype),
        parts.attn_norm(model, layer, dtype),
        parts.mlp(model, layer, dtype),
        parts.mlp_norm(model, layer, dtype),
    )


def virtual(writes: Float[Tensor, "writer d_model d_model"], reads: Sequence[Gram]) -> Float[Tensor, " writer"]:
    """‖W_r W_w‖ / (‖W_r‖ ‖W_w‖), root mean square over a reader's circuits; 1/√d_model for writers turned at random."""
    sizes = writes.diagonal(dim1=1, dim2=2).sum(1)
    squares = [writes.flatten(1) @ G.flatten() / (sizes * G.trace()).clamp(min=1e-30) for G in reads]
    return torch.stack(squares).mean(0).clamp(min=0).sqrt()


def in_another_gauge(
    attn: AttentionParts, mlp: MLPParts, generator: torch.Generator
) -> tuple[AttentionParts, MLPParts]:
    """The same layer with values in another basis, queries and keys scaled against each other, and where the MLP is
    gated memories whose key and value share their scale in another way."""
    heads, _, size = attn.W_V.shape
    M = torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator) / size**0.5
    M, back = (one.to(attn.W_V) for one in (M, torch.linalg.inv(M.double())))
    alpha = (2.0 ** (4 * torch.rand(heads, 1, 1, generator=generator) - 2)).to(attn.W_Q)
    if attn.q_norm is not None:  # a norm would see it
        alpha = torch.ones_like(alpha)
    turned = replace(
        attn,
        W_V=attn.W_V @ M,
        b_V=attn.b_V @ M,
        W_O=back @ attn.W_O,
        W_Q=attn.W_Q * alpha,
        b_Q=attn.b_Q * alpha[:, 0],
        W_K=attn.W_K / alpha,
        b_K=attn.b_K / alpha[:, 0],
    )
    if mlp.W_gate is None:
        return turned, mlp
    beta = (2.0 ** (4 * torch.rand(len(mlp.W_out), generator=generator) - 2)).to(mlp.W_in)
    return turned, replace(mlp, W_in=mlp.W_in * beta, b_in=mlp.b_in * beta, W_out=mlp.W_out / beta[:, None])


def probed(model: Model, layer: int, G: Grams, x: Float[Tensor, " d_model"]) -> Float[Tensor, ""]:
    """How far x G x is, relatively, from what becomes of x head by head and memory by memory, in float64."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    attn, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
    mlp, mlp_norm = parts.mlp(model, layer, wide), parts.mlp_norm(model, layer, wide)
    x = x.to(wide)
    seen, mlp_seen = (one.gain * (x - x.mean() if one.kind == "layer" else x) for one in (norm, mlp_norm))
    gains = [1.0 if one is None else one.gain for one in (attn.q_norm, attn.k_norm)]
    W_Q, W_K = attn.W_Q * gains[0], attn.W_K * gains[1]
    of_heads = torch.zeros(4).to(x)
    for head in range(len(W_Q)):
        read = [norm.gain[:, None] * W[head] for W in (W_Q, W_K, attn.W_V)]
        value = read[2] - read[2].mean(0) if norm.kind == "layer" else read[2]
        ways = (
            read[1] @ (seen @ W_Q[head]),
            read[0] @ (seen @ W_K[head]),
            (seen @ attn.W_V[head]) @ attn.W_O[head],
            value @ (attn.W_O[head] @ x),
        )
        of_heads += torch.stack([way.square().sum() for way in ways])
    whole = [*of_heads]
    if mlp.W_out.numel():
        folded = mlp.folded(mlp_norm)
        keys, values = folded.W_in.norm(dim=0), mlp.W_out.norm(dim=1)
        whole += [((mlp.W_out @ x) * keys).square().sum(), ((mlp_seen @ mlp.W_in) * values).square().sum()]
        whole += [] if mlp.W_gate is None else [(mlp_seen @ mlp.W_gate).square().sum()]
    matrices = [*G.attn_reads, G.attn_writes, *([G.mlp_writes, *G.mlp_reads] if mlp.W_out.numel() else [])]
    gaps = [(x @ one.to(x) @ x - other).abs() / other for one, other in zip(matrices, whole, strict=True)]
    return torch.stack(gaps).max()


def gauge_residual(
    model: Model, layer: int, writes: Float[Tensor, "writer d_model d_model"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """How far the virtual weights of one layer, as a reader of everything and as a writer to itself, move in another
    gauge; by the largest."""
    wide = writes.dtype
    attn, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
    mlp, mlp_norm = parts.mlp(model, layer, wide), parts.mlp_norm(model, layer, wide)
    turned, scaled = in_another_gauge(attn, mlp, generator)
    found = []
    for one, other in ((attn, mlp), (turned, scaled)):
        G = grams(one, norm, other, mlp_norm)
        both = torch.cat([writes, torch.stack([G.attn_writes, G.mlp_writes])])
        found.append(torch.cat([virtual(both, G.attn_reads), virtual(both, G.mlp_reads)]))
    return ((found[1] - found[0]).abs().max() / found[0].abs().max()).cpu()
