"""An MLP as memories: which tokens of a text wake each one most, found in one stream; what its value writes as tokens.

Memory i of a layer adds m_i v_i to the stream, m_i its coefficient (`MLPParts`), v_i row i of W_out.
Source: Geva et al. (2021), "Transformer Feed-Forward Layers Are Key-Value Memories",
https://aclanthology.org/2021.emnlp-main.446
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.load import Model, Shape
from vaultlab.models.sentences import Batch
from vaultlab.models.trace import Site, Trace, sinks, trace

LOGITS = 2**22
"""Logits held at once where values are read as tokens: 16 MB."""


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
    """The strongest triggers of every key so far, on the device: memory does not grow with the text."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._best: list[Tensor] = []
        self.total: Float[Tensor, " key"] | float = 0.0

    def add(
        self,
        m: Float[Tensor, "batch pos key"],
        wanted: Bool[Tensor, "batch pos"],
        *labels: Int[Tensor, "batch pos"],
    ) -> None:
        """Take in a batch of sentences: of each one the `wanted` token with the largest |m|, with its labels."""
        m = m.to(torch.promote_types(m.dtype, torch.float32))
        strength = m.abs().masked_fill_(~wanted[..., None], 0)
        self.total = self.total + strength.sum((0, 1))
        most, where = strength.max(dim=1)
        rows = torch.arange(len(m), device=m.device)[:, None]
        found = [m.gather(1, where[:, None])[:, 0], *(label[rows, where] for label in labels)]
        found = [values.masked_fill(most == 0, 0 if place == 0 else -1) for place, values in enumerate(found)]
        if self._best:
            found = [torch.cat(pair) for pair in zip(self._best, found, strict=True)]
        order = found[0].abs().topk(min(self.top, len(found[0])), dim=0).indices
        self._best = [values.gather(0, order) for values in found]

    def found(self) -> list[Tensor]:
        """Coefficients, then labels [key, top]; fewer than `top` where there were fewer sentences."""
        return [values.T for values in self._best]


class Look(NamedTuple):
    """A batch with its coefficients. `ask`: which tokens may be triggers; `massive`: left out of them as sinks."""

    batch: Batch
    m: Float[Tensor, "batch pos key"]
    ask: Bool[Tensor, "batch pos"]
    massive: Bool[Tensor, "batch pos"]


def looked_at(shape: Shape, layer: int) -> tuple[Site, Site]:
    """Where a look is taken: at the stream that the MLP reads, and at its memories' coefficients."""
    return Site("resid_pre" if "parallel" in shape.flags else "resid_mid", layer), Site("m", layer)


def look(model: Model, batch: Batch, layer: int, read: Trace = trace) -> Look:
    """One batch, up to a layer's coefficients; a sink is one among the batch's tokens."""
    stream, site = looked_at(model.shape, layer)
    found = read(model, batch.ids, (stream, site))
    ask, massive = _wanted(batch, found[stream], list(model.tokenizer.all_special_ids))
    return Look(batch, found[site], ask, massive)


def _wanted(batch: Batch, stream: Float[Tensor, "batch pos d_model"], special: Sequence[int]) -> tuple[Tensor, Tensor]:
    """No trigger is: position 0, padding, a sink, a special token, a token with none or a special one behind it."""
    real, at = batch.real.to(stream.device), batch.at.to(stream.device)
    none = torch.tensor([-1, *special], device=stream.device)
    ids, following = batch.ids.to(stream.device), batch.following.to(stream.device)
    own = real & (at >= 0) & ~torch.isin(ids, none) & ~torch.isin(following, none)
    own[:, 0] = False
    massive = torch.zeros_like(real)
    massive[real] = sinks(stream[real])
    return own & ~massive, own & massive


@torch.inference_mode()
def triggers(looks: Iterable[Look], top: int, d_vocab: int) -> Triggers:
    """Every key's strongest triggers over all batches; one is looked at, then let go."""
    strongest = Strongest(top)
    left_out, seen = (torch.zeros(d_vocab, dtype=torch.long) for _ in range(2))
    looked_at = 0
    for batch, m, ask, massive in looks:
        strongest.add(m, ask, batch.at.to(m.device), batch.following.to(m.device))
        left_out += torch.bincount(batch.ids[massive.cpu()], minlength=d_vocab)
        seen += torch.bincount(batch.following[ask.cpu()], minlength=d_vocab)
        looked_at += int(ask.sum())
    coefficient, at, following = (values.cpu().contiguous() for values in strongest.found())
    return Triggers(coefficient, at, following, torch.as_tensor(strongest.total).cpu(), looked_at, left_out, seen)


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
    """All values of a layer through the unembedding, some keys at a time."""
    wide = torch.promote_types(model.dtype, torch.float32)
    v = parts.mlp(model, layer).W_out[keys].to(wide) * sign.to(model.device)[:, None]
    W_U = parts.unembedding(model, wide).W_U
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
