"""An MLP as memories: which tokens of a text wake each one most, found in one stream; what its value writes as tokens.

Memory i of a layer adds m_i v_i to the stream, m_i its coefficient (`MLPParts`), v_i row i of W_out.
Source: Geva et al. (2021), "Transformer Feed-Forward Layers Are Key-Value Memories",
https://aclanthology.org/2021.emnlp-main.446
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.model import Model

LOGITS = 2**22
"""Logits held at once where values are read as tokens: 16 MB."""

PROMINENT = 4096
"""Tokens that are looked at before the whole vocabulary is."""


class Triggers(NamedTuple):
    """The strongest tokens of every key, by |m|, at most one a sentence; strongest first.

    `at` is the token's number in the text, `next` the token that follows it; where a key has fewer than `top`, −1 and a
    coefficient of 0. `total` is Σ |m| over all `looked_at` tokens, `sinks` how often each token of the
    vocabulary was left out as a sink, `seen` how often each was what came next.
    """

    coefficient: Float[Tensor, "key top"]
    at: Int[Tensor, "key top"]
    next: Int[Tensor, "key top"]
    total: Float[Tensor, " key"]
    looked_at: int
    sinks: Int[Tensor, " d_vocab"]
    seen: Int[Tensor, " d_vocab"]


class Strongest:
    """The strongest triggers of a layer's keys so far, on the device: memory does not grow with the text. In no order.

    `at` is −1, and the coefficient 0, where a key has fewer; `total` is Σ |m| over all tokens.
    """

    def __init__(
        self, coefficient: Float[Tensor, "key top"], at: Int[Tensor, "key top"], total: Float[Tensor, " key"]
    ) -> None:
        self.coefficient, self.at, self.total = coefficient, at, total

    def add(
        self, m: Float[Tensor, "batch pos key"], wanted: Bool[Tensor, "batch pos"], at: Int[Tensor, "batch pos"]
    ) -> None:
        """Take in a batch of sentences: of each one the `wanted` token with the largest |m|. `at`: its number."""
        m = m.to(self.coefficient.dtype)
        strength = (m * wanted[..., None]).abs_()
        self.total += strength.flatten(0, 1).sum(0)
        largest, where = strength.max(1)
        most, kept = largest.T, self.coefficient.abs()
        # only keys that something new comes in at
        keys = (most > kept.amin(1, keepdim=True)).any(1).nonzero()[:, 0]
        top = kept.shape[1]
        best, order = torch.cat([kept[keys], most[keys]], dim=1).topk(top, dim=1, sorted=False)
        stay = order.clamp(max=top - 1)
        coefficient, number = self.coefficient[keys].gather(1, stay), self.at[keys].gather(1, stay)
        row, place = ((order >= top) & (best > 0)).nonzero(as_tuple=True)
        sentence, key = order[row, place] - top, keys[row]
        pos = where[sentence, key]
        coefficient[row, place] = m[sentence, pos, key]
        number[row, place] = at[sentence, pos].to(number.dtype)
        empty = best == 0
        self.coefficient[keys] = coefficient.masked_fill(empty, 0)
        self.at[keys] = number.masked_fill(empty, -1)


class Promoted(NamedTuple):
    """What values write, as tokens: the direct push on the logits, less the vocabulary's mean, before the final scale.

    `sign` is that of each key's coefficient at its strongest trigger: `first` is the token that the memory pushes up
    most there, `last` the one it pushes down most, `push` and `last_push` how far per unit of |m|. `rank` has for each
    token asked about how many are pushed up more.
    """

    first: Int[Tensor, " key"]
    last: Int[Tensor, " key"]
    push: Float[Tensor, " key"]
    rank: Int[Tensor, "key asked"]


def readout(model: Model, v: Float[Tensor, "key d_model"]) -> Float[Tensor, "key d_model"]:
    """What the unembedding reads of a write, per unit of the final norm's scale: the norm's linear part without it."""
    norm = parts.final_norm(model, v.dtype)
    return (v - v.mean(-1, keepdim=True) if norm.kind == "layer" else v) * norm.gain


@torch.inference_mode()
def promoted(
    model: Model,
    layer: int,
    keys: slice,
    sign: Float[Tensor, " key"],
    asked: Int[Tensor, "key asked"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Promoted:
    """All values of a layer through the unembedding."""
    wide = torch.promote_types(model.dtype, torch.float32)
    return pushed(model, parts.mlp(model, layer).W_out[keys].to(wide) * sign.to(model.device)[:, None], asked, progress)


@torch.inference_mode()
def pushed(
    model: Model,
    v: Float[Tensor, "key d_model"],
    asked: Int[Tensor, "key asked"],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Promoted:
    """Writes through the unembedding, some keys at a time."""
    W_U = parts.unembedding(model, v.dtype).W_U
    step = max(1, LOGITS // W_U.shape[1])
    # written in place: small results kept between large passing ones would leave the memory in pieces
    logits = v.new_empty(min(step, len(v)), W_U.shape[1])
    first, last = asked.new_empty(2, len(v), device=v.device)
    push, rank = v.new_empty(len(v)), torch.empty_like(asked, device=v.device)
    for start in range(0, len(v), step):
        progress(start, len(v))
        some = slice(start, start + step)
        rows = torch.mm(readout(model, v[some]), W_U, out=logits[: len(v[some])])
        high, low = rows.max(-1), rows.min(-1)
        first[some], last[some], push[some] = high.indices, low.indices, high.values - rows.mean(-1)
        own = rows.gather(1, asked[some].to(v.device))
        for one in range(own.shape[1]):
            rank[some, one] = (rows > own[:, [one]]).sum(-1)
    return Promoted(first.cpu(), last.cpu(), push.cpu(), rank.cpu())


def prominent(model: Model) -> Int[Tensor, " some"]:
    """Some thousand tokens that writes are likely to push far: those with the longest columns of W_U."""
    norms = parts.unembedding(model).W_U.float().norm(dim=0)
    longest: Int[Tensor, " some"] = norms.topk(min(PROMINENT, len(norms))).indices
    return longest


@torch.inference_mode()
def among_first(
    model: Model,
    v: Float[Tensor, "key d_model"],
    asked: Int[Tensor, "key asked"],
    count: int,
    some: Int[Tensor, " some"],
) -> Bool[Tensor, "key asked"]:
    """Whether each token asked about is among the first `count` that a write pushes up; on the CPU.

    It is not where as many of `some` others, such as the `prominent`, are pushed more: the whole vocabulary is looked
    at for the other writes only.
    """
    W_U, read, asked = parts.unembedding(model).W_U, readout(model, v), asked.to(v.device)
    W_some, maybe = W_U[:, some].to(v), []
    for start in range(0, len(v), step := max(1, LOGITS // len(some))):
        chunk = slice(start, start + step)
        rows = read[chunk] @ W_some
        slack = 1e-5 * rows.abs().amax(1)  # the same number from another product
        for one in asked[chunk].T:
            own = (read[chunk] * W_U.T[one].to(v)).sum(1)
            maybe.append(((rows > (own + slack)[:, None]).sum(1) < count).nonzero()[:, 0] + start)
    keys = torch.unique(torch.cat(maybe))
    found = torch.zeros(asked.shape, dtype=torch.bool)
    found[keys.cpu()] = pushed(model, v[keys], asked[keys]).rank < count
    return found
