"""Where the training of a toy rests and where it jumps from one rest to the next, if features come in pairs.

Features 2k and 2k + 1 are there together, each as strong as it likes, and there are as many dimensions as pairs. Rests
come from two kinds of unit: a pair taken for one feature (merged: W_2k = W_2k+1, of length 1/√2) and one of a pair told
apart, of length 1. A dimension holds one unit, or two as opposites:

    merged pair                   p/12                   its two features differ, and it says the mean of both
    two of different pairs        p²/3                   the smaller of both is lost: 2 p² E min(u, v)²
    one beside a merged pair      p² (41 − 19√2)/30      the same, a merged pair being (y₁ + y₂)/√2
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.geometry import REPRESENTED

MERGED, APART = 0.9, 0.3
"""A pair is merged from such a cosine between its features on, and told apart up to such a one."""


def rest_loss(p: float, pairs: int, apart: int) -> float:
    """The least loss, with no bias, of `pairs` of which `apart` are told apart, each feature there with density p."""
    shared = (41 - 19 * math.sqrt(2)) / 30 if apart == 1 else apart / 3
    return (pairs - apart) * p / 12 + shared * p**2


def rest(pairs: int, apart: int) -> Float[Tensor, "features hidden"]:
    """The weights that it belongs to; of two pairs or more."""
    axis, W = torch.eye(pairs, dtype=torch.float64), torch.zeros(pairs, 2, pairs, dtype=torch.float64)
    for pair in range(pairs):
        if pair >= apart:
            W[pair] = axis[pair] / math.sqrt(2)
        elif apart > 1:
            W[pair, 0], W[pair, 1] = axis[pair], -axis[(pair + 1) % apart]
    if apart == 1:  # the first pair's second feature beside the second pair
        W[0], W[1] = axis[:2], -axis[1] / math.sqrt(2)
    return W.flatten(0, 1)


class Rest(NamedTuple):
    """The looks from `begin` to `end`, both with it, at which so many pairs are told apart and all others merged."""

    begin: int
    end: int
    apart: int


def cosines(W: Float[Tensor, "*models features hidden"]) -> Float[Tensor, "*models pairs"]:
    """Within every pair; NaN where one of it is not represented, for then it points nowhere in particular."""
    norm = W.norm(dim=-1)
    there = torch.minimum(norm[..., 0::2], norm[..., 1::2]) >= REPRESENTED
    found = torch.nn.functional.cosine_similarity(W[..., 0::2, :], W[..., 1::2, :], dim=-1, eps=1e-30)
    return found.where(there, math.nan)


def rests(cosine: Float[Tensor, "looks pairs"]) -> list[Rest]:
    """In the course of one model; what lies between two of them is a jump. A pair that begins to part and comes back
    ends no rest."""
    apart = cosine <= APART
    settled = (apart | (cosine >= MERGED)).all(-1)
    found: list[Rest] = []
    for look in settled.nonzero().flatten().tolist():
        count = int(apart[look].sum())
        if found and found[-1].apart == count:
            found[-1] = found[-1]._replace(end=look)
        else:
            found.append(Rest(look, look, count))
    return found
