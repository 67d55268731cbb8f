"""A layer's weights as plain tensors with the formula they stand for, always so that `x @ W`.

Families fill these classes from transformers' modules; `parts.py` is where to ask for them. Nothing here is larger than
one layer: products such as W_Q W_Kᵀ are for the caller to take on the slices that it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, cast

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

_Parts = TypeVar("_Parts")


def in_dtype(parts: _Parts, dtype: torch.dtype | None) -> _Parts:
    """The same parts with every tensor in `dtype`; None leaves them as they are, as views of the model's own."""
    if dtype is None:
        return parts
    changed: dict[str, Any] = {}
    for field in fields(cast(Any, parts)):
        value = getattr(parts, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = value.to(dtype)
        elif isinstance(value, Norm):
            changed[field.name] = in_dtype(value, dtype)
    return cast(_Parts, replace(cast(Any, parts), **changed))


@dataclass(frozen=True)
class Norm:
    """bare(x) · gain + bias. LayerNorm: bare(x) = (x − mean) · scale(x). RMSNorm: bare(x) = x · scale(x). None: x."""

    kind: Literal["rms", "layer", "none"]
    gain: Float[Tensor, " width"]
    bias: Float[Tensor, " width"]
    eps: float

    def _centred(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return wide - wide.mean(-1, keepdim=True) if self.kind == "layer" else wide

    def scale(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 1"]:
        """What the norm multiplies a stream by: freeze it to make the norm linear."""
        if self.kind == "none":
            return torch.ones_like(self._centred(x)[..., :1])
        return torch.rsqrt(self._centred(x).pow(2).mean(-1, keepdim=True) + self.eps)

    def bare(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The norm without gain and bias: what readers with the gain folded in take."""
        return (self._centred(x) * self.scale(x)).to(x.dtype)

    def __call__(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.bare(x) * self.gain + self.bias

    def into(
        self, W: Float[Tensor, "*head width out"], b: Float[Tensor, "*head out"]
    ) -> tuple[Float[Tensor, "*head width out"], Float[Tensor, "*head out"]]:
        """A reader's weight and bias with this norm's gain and bias folded in: it then reads bare(x). New tensors."""
        return self.gain[:, None] * W, b + self.bias @ W


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding (Su et al. 2021, RoFormer): dimension i < half turns with dimension i + half.

    Of the d_head dimensions only the first `2 · half` turn (partial RoPE); `scaling` is YaRN's factor, else 1.
    """

    frequencies: Float[Tensor, " half"]
    d_head: int
    scaling: float = 1.0

    def rotate(
        self, x: Float[Tensor, "*batch pos d_head"], positions: Int[Tensor, " pos"]
    ) -> Float[Tensor, "*batch pos d_head"]:
        """Queries or keys turned to their positions."""
        # Angles in float32 whatever x is: transformers does so, and they must agree at position 2000.
        angles = positions.to(x.device).float()[:, None] * self.frequencies.to(x.device).float()
        cos = (angles.cos() * self.scaling).to(x.dtype)
        sin = (angles.sin() * self.scaling).to(x.dtype)
        half = self.frequencies.shape[0]
        first, second, still = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, still], dim=-1)

    def matrix(self, distance: int, like: Tensor) -> Float[Tensor, "d_head d_head"]:
        """R such that the score of query q and key k, `distance` = query's − key's position, is q @ R @ k."""
        eye = torch.eye(self.d_head, dtype=like.dtype, device=like.device)
        turned = self.rotate(eye, torch.full((self.d_head,), distance))
        # Both sides of a score carry the scaling, rotate() has put it on one; what doesn't turn carries none.
        turned[:, : 2 * self.frequencies.shape[0]] *= self.scaling
        return turned


@dataclass(frozen=True)
class AttentionParts:
    """One attention layer. Key and value heads are repeated, so that every head has its own W_K and W_V.

    Head h of a grouped layer reads key/value head h // (heads per group). Absent biases are zeros.
    """

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]
    b_Q: Float[Tensor, "head d_head"]
    b_K: Float[Tensor, "head d_head"]
    b_V: Float[Tensor, "head d_head"]
    b_O: Float[Tensor, " d_model"]
    scale: float
    rotary: Rotary | None = None
    window: int | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None

    def queries(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head pos d_head"]:
        """Queries, normed and turned to their positions, of what the layer reads (after its norm)."""
        return self._placed(_read(x, self.W_Q, self.b_Q), self.q_norm)

    def keys(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head pos d_head"]:
        """Keys, normed and turned to their positions."""
        return self._placed(_read(x, self.W_K, self.b_K), self.k_norm)

    def values(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head pos d_head"]:
        return _read(x, self.W_V, self.b_V)

    def scores(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head query key"]:
        """Scaled, before mask and softmax."""
        return self.queries(x) @ self.keys(x).transpose(-1, -2) * self.scale

    def visible(self, length: int) -> Bool[Tensor, "query key"]:
        """Which keys a query may look at: none after it, and none further back than the window."""
        back = torch.arange(length)[:, None] - torch.arange(length)
        seen = back >= 0 if self.window is None else (back >= 0) & (back < self.window)
        return seen.to(self.W_Q.device)

    def pattern(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch head query key"]:
        """Attention weights; rows sum to 1."""
        scores = self.scores(x).masked_fill(~self.visible(x.shape[-2]), -torch.inf)
        return scores.to(torch.promote_types(x.dtype, torch.float32)).softmax(-1).to(x.dtype)

    def z(
        self, pattern: Float[Tensor, "*batch head query key"], x: Float[Tensor, "*batch key d_model"]
    ) -> Float[Tensor, "*batch query head d_head"]:
        """What each head gathers, before W_O."""
        return (pattern @ self.values(x)).transpose(-2, -3)

    def writes(self, z: Float[Tensor, "*batch pos head d_head"]) -> Float[Tensor, "*batch pos head d_model"]:
        """What each head adds to the stream; their sum and b_O are the layer's output."""
        return einsum(z, self.W_O, "... head d_head, head d_head d_model -> ... head d_model")

    def __call__(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_model"]:
        """The layer's output, rebuilt as the sum of its heads' writes and b_O."""
        return self.writes(self.z(self.pattern(x), x)).sum(-2) + self.b_O

    def folded(self, norm: Norm) -> "AttentionParts":
        """The same layer reading norm.bare(x): gain and bias folded into Q, K and V. New tensors."""
        W_Q, b_Q = norm.into(self.W_Q, self.b_Q)
        W_K, b_K = norm.into(self.W_K, self.b_K)
        W_V, b_V = norm.into(self.W_V, self.b_V)
        return replace(self, W_Q=W_Q, W_K=W_K, W_V=W_V, b_Q=b_Q, b_K=b_K, b_V=b_V)

    def qk_at(
        self, head: int, distance: int, left: Float[Tensor, "query d_model"], right: Float[Tensor, "key d_model"]
    ) -> Float[Tensor, "query key"]:
        """The score of every `left` as a query with every `right` as the key `distance` tokens before it, no biases:

        x_mᵀ W_Q R(m−n) W_Kᵀ x_n · scale. A layer that norms its queries has no such form: ask `Shape.flags` first.
        """
        keys = right @ self.W_K[head]
        if self.rotary is not None:
            keys = keys @ self.rotary.matrix(distance, keys).T
        return (left @ self.W_Q[head]) @ keys.T * self.scale

    def _placed(
        self, heads: Float[Tensor, "*batch head pos d_head"], norm: Norm | None
    ) -> Float[Tensor, "*batch head pos d_head"]:
        normed = heads if norm is None else norm(heads)
        return normed if self.rotary is None else self.rotary.rotate(normed, torch.arange(normed.shape[-2]))


@dataclass(frozen=True)
class MLPParts:
    """One MLP. Gated: m = act(x W_gate + b_gate) · (x W_in + b_in); else act(x W_in + b_in). Writes m W_out + b_out.

    Column i of W_in (and of W_gate) is memory i's key, row i of W_out its value.
    """

    W_in: Float[Tensor, "d_model d_mlp"]
    W_out: Float[Tensor, "d_mlp d_model"]
    b_in: Float[Tensor, " d_mlp"]
    b_out: Float[Tensor, " d_model"]
    act: Callable[[Tensor], Tensor]
    W_gate: Float[Tensor, "d_model d_mlp"] | None = None
    b_gate: Float[Tensor, " d_mlp"] | None = None

    def coefficients(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_mlp"]:
        """m: how strongly each memory answers to what the MLP reads (after its norm)."""
        up = x @ self.W_in + self.b_in
        if self.W_gate is None or self.b_gate is None:
            return self.act(up)
        return self.act(x @ self.W_gate + self.b_gate) * up

    def __call__(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_model"]:
        """The MLP's output, rebuilt as the sum of its memories and b_out."""
        return self.coefficients(x) @ self.W_out + self.b_out

    def folded(self, norm: Norm) -> "MLPParts":
        """The same MLP reading norm.bare(x): gain and bias folded into W_in and W_gate. New tensors."""
        W_in, b_in = norm.into(self.W_in, self.b_in)
        if self.W_gate is None or self.b_gate is None:
            return replace(self, W_in=W_in, b_in=b_in)
        W_gate, b_gate = norm.into(self.W_gate, self.b_gate)
        return replace(self, W_in=W_in, b_in=b_in, W_gate=W_gate, b_gate=b_gate)


@dataclass(frozen=True)
class Embedding:
    """What the stream starts from: a row of W_E a token, plus a row of W_pos a position where positions are learned."""

    W_E: Float[Tensor, "d_vocab d_model"]
    W_pos: Float[Tensor, "context d_model"] | None = None

    def __call__(
        self, ids: Int[Tensor, "*batch pos"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, "*batch pos d_model"]:
        """The stream's start. `dtype` upcasts the rows that are taken, not the whole table."""
        dtype = dtype or self.W_E.dtype
        rows = self.W_E[ids].to(dtype)
        return rows if self.W_pos is None else rows + self.W_pos[: ids.shape[-1]].to(dtype)


@dataclass(frozen=True)
class Unembedding:
    """Logits of a normed stream: x @ W_U + b_U. With tied embeddings W_U is a view of W_E: `folded` unties it."""

    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]

    def __call__(self, x: Float[Tensor, "*batch pos d_model"]) -> Float[Tensor, "*batch pos d_vocab"]:
        return x @ self.W_U + self.b_U

    def folded(self, norm: Norm) -> "Unembedding":
        """The same, reading norm.bare(x). A new d_model × d_vocab tensor: W_E stays what it was."""
        return Unembedding(*norm.into(self.W_U, self.b_U))


def _read(
    x: Float[Tensor, "*batch pos d_model"], W: Float[Tensor, "head d_model d_head"], b: Float[Tensor, "head d_head"]
) -> Float[Tensor, "*batch head pos d_head"]:
    return einsum(x, W, "... pos d_model, head d_model d_head -> ... head pos d_head") + b[:, None]
