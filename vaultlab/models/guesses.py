"""What a stream would answer if it were the last: read through the final norm, computed anew, and the unembedding."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.memories import readout
from vaultlab.models.model import Model

CHUNK = 64
"""Positions unembedded at a time: of all at once the logits would be the largest thing in memory."""


def unembedded(model: Model, stream: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_vocab"]:
    """The logits of a stream, in float32. All at once: give it a `CHUNK`."""
    unembedding = parts.unembedding(model)
    # as one operation: adding b_U by itself would go through all logits once more
    return torch.nn.functional.linear(parts.final_norm(model)(stream), unembedding.W_U.T, unembedding.b_U).float()


class Guess(NamedTuple):
    """A stream's first guess at every position, and −log p of the tokens asked about."""

    first: Int[Tensor, " pos"]
    nats: Float[Tensor, " pos"]


def guessed(model: Model, stream: Float[Tensor, "pos d_model"], asked: Int[Tensor, " pos"]) -> Guess:
    """One unembedding, some positions at a time; on the CPU."""
    first, nats = [], []
    for rows in _chunks(len(stream)):
        x = unembedded(model, stream[rows])
        first.append(x.argmax(-1))
        nats.append(x.logsumexp(-1) - x.gather(-1, asked[rows, None].to(x.device))[:, 0])
    return Guess(torch.cat(first).cpu(), torch.cat(nats).cpu())


def pushed_first(model: Model, written: Float[Tensor, "pos d_model"]) -> Int[Tensor, " pos"]:
    """The token that a write pushes most, whatever the final norm's scale is; on the CPU."""
    wide = torch.promote_types(model.dtype, torch.float32)
    read, W_U = readout(model, written.to(wide)), parts.unembedding(model, wide).W_U
    return torch.cat([(read[rows] @ W_U).argmax(-1) for rows in _chunks(len(read))]).cpu()


def _chunks(length: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, length, CHUNK))


def settled(guess: Int[Tensor, "step pos"]) -> Int[Tensor, " pos"]:
    """The first step from which on every guess is the last one."""
    same = guess == guess[-1]
    return same.flip(0).cummin(0).values.flip(0).int().argmax(0)
