"""Which of a layer's memories are active at a token, by several definitions, and what they write together.

Source: Geva et al. (2021), "Transformer Feed-Forward Layers Are Key-Value Memories", section 5.1,
https://aclanthology.org/2021.emnlp-main.446
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models.guesses import pushed_first
from vaultlab.models.model import Model
from vaultlab.models.tops import Sides
from vaultlab.models.weights import MLPParts

DEFINITIONS = ("all", "above_zero", "half", "top")
"""`all` that write anything · `above_zero`, whose key (the gate, where there is one) answers above 0 · `half`, the
fewest that hold half of Σ ‖m_i v_i‖ · `top`, the few with the largest ‖m_i v_i‖. Where a memory is gated the sign of
m_i itself says nothing: (u, −v) is the same memory as (−u, v).
"""


class Composed(NamedTuple):
    """A layer at every token: the top token of Σ m_i v_i, how many memories are active by each definition, whether it
    is the top token of none of them, and how often it would be if another token's memories were active instead."""

    first: Int[Tensor, " pos"]
    active: Int[Tensor, "definition pos"]
    alone: Bool[Tensor, "definition pos"]
    null_alone: Float[Tensor, " definition"]


def composed(model: Model, mlp: MLPParts, values: Sides, read: Float[Tensor, "pos d_model"], top: int) -> Composed:
    """What the memories of `mlp` write together where it reads `read`, beside what each writes alone: `values`."""
    m = mlp.coefficients(read)
    first = pushed_first(model, m @ mlp.W_out)
    wanted, place = torch.unique(first, return_inverse=True)
    pairs = len(first) * (len(first) - 1)
    counts, alone, null = [], [], []
    for mask in active(mlp, read, m, top):
        meets = _meets(m, mask, values, wanted)
        own = meets[torch.arange(len(first)), place]
        others = meets.double().sum(0)[place].sum() - own.sum()
        counts.append(mask.sum(1))
        alone.append(~own)
        null.append(1 - others / pairs)
    return Composed(first, torch.stack(counts).cpu(), torch.stack(alone), torch.stack(null))


def active(
    mlp: MLPParts, read: Float[Tensor, "pos d_model"], m: Float[Tensor, "pos key"], top: int
) -> tuple[Bool[Tensor, "pos key"], ...]:
    """One mask a definition, in their order."""
    strength = m.abs() * mlp.W_out.norm(dim=-1)
    key, b = mlp.W_in, mlp.b_in
    if mlp.W_gate is not None and mlp.b_gate is not None:
        key, b = mlp.W_gate, mlp.b_gate
    writes = strength > 0
    ordered, order = strength.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(1) - ordered
    half = torch.zeros_like(writes).scatter(1, order, before < ordered.sum(1, keepdim=True) / 2)
    few = torch.zeros_like(writes).scatter(1, order[:, :top], True)
    return writes, writes & (read @ key + b > 0), writes & half, writes & few


def _meets(
    m: Float[Tensor, "pos key"], mask: Bool[Tensor, "pos key"], values: Sides, wanted: Int[Tensor, " wanted"]
) -> Bool[Tensor, "pos wanted"]:
    """Which of the wanted tokens are the top token of an active memory, with the sign that it has there."""
    none = len(wanted)
    known = torch.isin(values.first, wanted), torch.isin(values.last, wanted)
    up, down = (
        torch.searchsorted(wanted, one).where(there, none).to(m.device)
        for one, there in zip(values, known, strict=True)
    )
    count = m.new_zeros(len(m), none + 1).scatter_add(1, torch.where(m > 0, up, down), mask.to(m.dtype))
    return (count[:, :none] > 0).cpu()
