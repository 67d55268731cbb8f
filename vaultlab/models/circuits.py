"""A head's two circuits through the model's own tokens: what it looks for (QK) and what it says when it looks (OV).

Both are vocabulary × vocabulary, W_E W_Q R W_Kᵀ W_Eᵀ and W_E W_V W_O W_U, and of rank d_head. What is wanted of them
are traces and eigenvalues, and these go round in a circle: eig(AB) = eig(BA) leaves d_head × d_head matrices, between
which the vocabulary stands once for the whole model, as a sum over its tokens.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.composition import only, readers
from vaultlab.models.heads import apart
from vaultlab.models.model import Model
from vaultlab.models.weights import AttentionParts, Norm

ROWS = 2**23
"""Numbers of the embedding that are upcast at a time: 32 MB."""

SCORES = 2**22
"""Logits held at once: 16 MB."""

SLICE = 96
"""Tokens of the vocabulary between which identities are checked with the whole matrix."""


class Vocabulary(NamedTuple):
    """Sums over all tokens t, streamed: e_t is a row of W_E less the vocabulary's mean, u_t a column of W_U with the
    final norm's gain. `said` is Σ u_t e_tᵀ, with `taken` (the mean, or nothing) taken out of e_t; `seen` is Σ e_t e_tᵀ.

    `scale` is what the typical token's norm multiplies it by; `residual` is |Σ e_t| by Σ |e_t|.
    """

    said: Float[Tensor, "d_model d_model"]
    seen: Float[Tensor, "d_model d_model"]
    mean: Float[Tensor, " d_model"]
    taken: Float[Tensor, " d_model"]
    scale: float
    tokens: int
    residual: Float[Tensor, ""]


def vocabulary(model: Model, centre: bool, say: Callable[[int, int], None]) -> Vocabulary:
    """In float32, a few tokens upcast at a time. `say` is told how many are done, of how many."""
    W_E, W_U = parts.embedding(model).W_E, parts.unembedding(model).W_U
    norm = parts.final_norm(model, torch.float32)
    count, width = W_E.shape
    some = [slice(at, at + max(1, ROWS // width)) for at in range(0, count, max(1, ROWS // width))]
    mean = torch.stack([W_E[rows].float().mean(0) * len(W_E[rows]) for rows in some]).sum(0) / count
    said, seen = (torch.zeros(width, width, device=W_E.device) for _ in range(2))
    total, lengths, squares = torch.zeros_like(mean), mean.new_zeros(()), mean.new_zeros(())
    for rows in some:
        say(rows.start, count)
        raw = W_E[rows].float()
        squares += (raw - raw.mean(-1, keepdim=True) if norm.kind == "layer" else raw).square().sum()
        e = raw - mean
        said += (norm.gain[:, None] * W_U[:, rows].float()) @ (e if centre else raw)
        seen += e.T @ e
        total += e.sum(0)
        lengths += e.norm(dim=-1).sum()
    scale = 1.0 if norm.kind == "none" else float((squares / (count * width)).rsqrt())
    taken = mean if centre else torch.zeros_like(mean)
    return Vocabulary(said, seen, mean, taken, scale, count, total.norm() / lengths)


def core(
    W_V: Float[Tensor, "head d_model d_head"],
    W_O: Float[Tensor, "head d_head d_model"],
    said: Float[Tensor, "d_model d_model"],
) -> Float[Tensor, "head d_head d_head"]:
    """W_O (Σ u_t e_tᵀ) W_V: its eigenvalues are those of W_E W_V W_O W_U that are not 0."""
    return W_O @ (said @ W_V)


def eigenvalues(cores: Float[Tensor, "*head d_head d_head"]) -> Complex[Tensor, "*head d_head"]:
    """In float64, on the CPU, where they cost least."""
    values: Tensor = torch.linalg.eigvals(cores.cpu().double())
    return values


def copying(values: Complex[Tensor, "*head d_head"]) -> Float[Tensor, " *head"]:
    """Σλ / Σ|λ|: 1 where every token makes itself likelier and nothing turns, −1 where it makes itself rarer."""
    score: Tensor = values.sum(-1).real / values.abs().sum(-1).clamp(min=1e-300)
    return score


class Match(NamedTuple):
    """Scores of attention at each distance between a query and a key that are bare tokens, over all pairs of tokens.

    `same`: what a token's score with itself is above the mean of all pairs; `spread`: the standard deviation of pairs.
    """

    same: Float[Tensor, "head distance"]
    spread: Float[Tensor, "head distance"]


def match(attn: AttentionParts, found: Vocabulary, distances: int) -> Match:
    """From traces: Σ_t q_t R k_tᵀ = tr(R W_Kᵀ S W_Q), Σ_tu (q_t R k_uᵀ)² = tr(R G_K Rᵀ G_Q), all d_head × d_head.

    In the units of `Vocabulary.scale`²; `attn` as `composition.readers` gives it.
    """
    S, W_Q, W_K = found.seen, attn.W_Q, attn.W_K
    across, of_queries, of_keys = W_K.mT @ (S @ W_Q), W_Q.mT @ (S @ W_Q), W_K.mT @ (S @ W_K)
    unit = found.scale**2 * attn.scale / found.tokens
    same, spread = [], []
    for distance in range(distances):
        R = torch.eye(W_Q.shape[-1]).to(W_Q) if attn.rotary is None else attn.rotary.matrix(distance, W_Q)
        same.append((R @ across).diagonal(dim1=-2, dim2=-1).sum(-1) * unit)
        spread.append(((R @ of_keys @ R.T) * of_queries).sum((-2, -1)).clamp(min=0).sqrt() * unit)
    return Match(torch.stack(same, 1), torch.stack(spread, 1))


def by_distance(
    attn: AttentionParts, norm: Norm, rows: Float[Tensor, "pos d_model"], scale: float
) -> Float[Tensor, "head distance"]:
    """The mean score of a query with the key so many tokens before it, biases and all: `rows` is what the stream holds
    at each position, read at a frozen scale."""
    centred = rows - rows.mean(-1, keepdim=True) if norm.kind == "layer" else rows
    scores = attn.scores(centred * scale * norm.gain + norm.bias)
    return torch.stack([scores.diagonal(-distance, 1, 2).mean(-1) for distance in range(len(rows))], 1)


def typical(model: Model, found: Vocabulary, count: int, dtype: torch.dtype) -> tuple[Tensor, float]:
    """The average token at the first `count` positions, and the scale at which a typical one is read there."""
    W_pos = parts.embedding(model).W_pos
    rows = found.mean.to(dtype).expand(count, -1)
    if W_pos is None:
        return rows, found.scale
    placed = W_pos[:count].to(dtype)
    if parts.final_norm(model).kind == "none":
        return rows + placed, 1.0
    own = placed - placed.mean(-1, keepdim=True)  # all families that learn positions have LayerNorm
    return rows + placed, 1 / math.sqrt(found.scale**-2 + float(own.square().mean()))


def random_heads(
    model: Model, layer: int, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head d_model"]]:
    """W_V and W_O of Gaussian heads, as the layer's norm and the final one let them read and write."""
    shape, norm = model.shape, parts.attn_norm(model, layer, torch.float32)
    W_V = torch.randn(count, shape.d_model, shape.d_head, generator=generator).to(model.device)
    W_O = torch.randn(count, shape.d_head, shape.d_model, generator=generator).to(model.device)
    W_V = norm.gain[:, None] * W_V
    if norm.kind != "layer":
        return W_V, W_O
    return W_V - W_V.mean(1, keepdim=True), W_O - W_O.mean(2, keepdim=True)


def of_head(
    model: Model, place: tuple[int, int], found: Vocabulary, distances: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """One head's eigenvalues beside a random one's, and its scores by distance."""
    layer, head = place
    attn, plain = (
        only(given, head)
        for given in (readers(model, layer, torch.float32), parts.attention(model, layer, torch.float32))
    )
    random = random_heads(model, layer, 1, generator)
    own, other = (eigenvalues(core(*pair, found.said))[0] for pair in ((attn.W_V, attn.W_O), random))
    rows, scale = typical(model, found, distances, torch.float32)
    matched = match(attn, found, distances)
    return {
        "values": torch.view_as_real(own).float(),
        "null_values": torch.view_as_real(other).float(),
        "average_score": by_distance(plain, parts.attn_norm(model, layer, torch.float32), rows, scale)[0].cpu(),
        "same_score": matched.same[0].cpu(),
        "spread": matched.spread[0].cpu(),
    }


def self_rank(
    model: Model, place: tuple[int, int], found: Vocabulary, words: int, generator: torch.Generator
) -> Float[Tensor, " word"]:
    """Which share of the vocabulary one head makes likelier than the token it looked at, for tokens drawn at random."""
    attn = only(readers(model, place[0], torch.float32), place[1])
    W_E, W_U = parts.embedding(model).W_E, parts.unembedding(model).W_U
    gain = parts.final_norm(model, torch.float32).gain[:, None]
    ids = torch.randperm(len(W_E), generator=generator)[:words].to(W_E.device)
    writes = (W_E[ids].float() - found.taken) @ attn.W_V[0] @ attn.W_O[0]
    own = (writes * (gain * W_U[:, ids].float()).T).sum(-1, keepdim=True)
    above, columns = torch.zeros(len(ids), device=W_E.device), max(1, SCORES // words)
    for at in range(0, len(W_E), columns):
        logits = writes @ (gain * W_U[:, at : at + columns].float())
        inside = ((ids >= at) & (ids < at + columns)).nonzero().flatten()
        logits[inside, ids[inside] - at] = -torch.inf
        above += (logits > own).sum(-1)
    return (above / (len(W_E) - 1)).cpu()


def identities(
    model: Model, place: tuple[int, int], found: Vocabulary, generator: torch.Generator
) -> dict[str, Tensor]:
    """One head's residuals in float64, each by another way to the same number."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    attn = only(readers(model, place[0], wide), place[1])
    W_V, W_O, said = attn.W_V, attn.W_O, found.said.to(wide)
    values = eigenvalues(core(W_V, W_O, said))
    M = torch.eye(W_V.shape[-1], dtype=torch.float64)
    M = (M + 0.3 * torch.randn(M.shape, generator=generator, dtype=torch.float64) / len(M) ** 0.5).to(W_V)
    turned = eigenvalues(core(W_V @ M, M.inverse() @ W_O, said))
    made = [copying(eigenvalues(core(W_V, sign * W_V.mT @ said.T, said))) - sign for sign in (1, -1)]
    ids = torch.randperm(found.tokens, generator=generator)[:SLICE]
    return {
        "trace_residual": ((_diagonal(model, attn, found, wide) - values.sum()).abs() / values.abs().sum()).cpu(),
        "basis_residual": (copying(turned) - copying(values)).abs().max(),
        "made_residual": torch.stack(made).abs().max(),
        **_on_slice(model, attn, found, ids, wide),
        "distance_residual": _distances(model, place, found, wide).cpu(),
    }


def _diagonal(model: Model, attn: AttentionParts, found: Vocabulary, wide: torch.dtype) -> Tensor:
    """Σ_t e_t W_V W_O u_t, a few tokens at a time."""
    W_E, W_U = parts.embedding(model).W_E, parts.unembedding(model).W_U
    gain = parts.final_norm(model, wide).gain[:, None]
    total, rows = torch.zeros((), dtype=wide), max(1, ROWS // W_E.shape[1])
    for at in range(0, len(W_E), rows):
        read = (W_E[at : at + rows].to(wide) - found.taken.to(wide)) @ attn.W_V[0]
        said = attn.W_O[0] @ (gain * W_U[:, at : at + rows].to(wide))
        total += (read * said.T).sum().cpu()
    return total


def _on_slice(
    model: Model, attn: AttentionParts, found: Vocabulary, ids: Tensor, wide: torch.dtype
) -> dict[str, Tensor]:
    """Between a few tokens alone both whole matrices are there."""
    ids = ids.to(model.device)
    raw = parts.embedding(model).W_E[ids].to(wide)
    u = parts.final_norm(model, wide).gain[:, None] * parts.unembedding(model).W_U[:, ids].to(wide)
    e = raw - raw.mean(0)
    large, small = eigenvalues(e @ attn.W_V[0] @ attn.W_O[0] @ u), eigenvalues(core(attn.W_V, attn.W_O, u @ e)[0])
    sums = [
        (large.pow(power).sum() - small.pow(power).sum()).abs() / small.abs().pow(power).sum().clamp(min=1e-300)
        for power in (1, 2, 3)
    ]
    sliced = found._replace(seen=e.T @ e, tokens=len(ids))
    distance = min(3, (attn.window or 4) - 1)
    R = torch.eye(attn.W_Q.shape[-1]).to(e) if attn.rotary is None else attn.rotary.matrix(distance, e)
    scores = (e @ attn.W_Q[0]) @ R @ (e @ attn.W_K[0]).T * attn.scale * found.scale**2
    matched = match(attn, sliced, distance + 1)
    pairs = [
        apart(matched.same[0, distance], scores.diagonal().mean() - scores.mean()),
        apart(matched.spread[0, distance], scores.std(correction=0)),
    ]
    return {"circle_residual": torch.stack(sums).max(), "pairs_residual": torch.stack(pairs).max().cpu()}


def _distances(model: Model, place: tuple[int, int], found: Vocabulary, wide: torch.dtype, most: int = 8) -> Tensor:
    """How far the average token's scores are from q R(δ) k with the rotation as a matrix, position by position."""
    attn, norm = only(parts.attention(model, place[0], wide), place[1]), parts.attn_norm(model, place[0], wide)
    rows, scale = typical(model, found, most, wide)
    read = (rows - rows.mean(-1, keepdim=True) if norm.kind == "layer" else rows) * scale * norm.gain + norm.bias
    still = replace(attn, rotary=None)
    q, k = still.queries(read)[0], still.keys(read)[0]
    expected = []
    for distance in range(most):
        R = torch.eye(q.shape[-1]).to(q) if attn.rotary is None else attn.rotary.matrix(distance, q)
        pairs = [q[at] @ R @ k[at - distance] * attn.scale for at in range(distance, most)]
        expected.append(torch.stack(pairs).mean())
    return apart(by_distance(attn, norm, rows, scale)[0], torch.stack(expected))
