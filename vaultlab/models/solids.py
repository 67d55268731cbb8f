"""Which features of a layer belong together, and what solids they make there.

Features of a solid overlap with each other and with nothing else: in directions of their own they are a layer for
themselves. k features in d dimensions that share them evenly have d/k of a dimension each.
Source: Elhage et al. (2022), "Toy Models of Superposition", section "The Geometry of Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models.beta import below

JOINED = 0.2
"""The |cos| from which two features overlap: what training leaves between strangers is less, between the neighbours in
any of the solids it is a third or more."""

FLAT = 0.3
"""A group is flat along an axis that holds less than this share of its longest."""


class Solid(NamedTuple):
    name: str
    plural: str
    features: int
    dimensions: int
    symbol: str

    @property
    def share(self) -> float:
        """The dimensionality of each of its features."""
        return self.dimensions / self.features


SOLIDS = (
    Solid("alone", "alone", 1, 1, "1"),
    Solid("tetrahedron", "tetrahedra", 4, 3, "¾"),
    Solid("triangle", "triangles", 3, 2, "⅔"),
    Solid("digon", "digons", 2, 1, "½"),
    Solid("pentagon", "pentagons", 5, 2, "⅖"),
    Solid("square antiprism", "antiprisms", 8, 3, "⅜"),
)
DIGON = next(place for place, solid in enumerate(SOLIDS) if solid.name == "digon")
OTHER, ABSENT = len(SOLIDS), -1
"""What a feature is in that is in none of them; and one that is not represented."""


def joined(
    W: Float[Tensor, "*models features hidden"], kept: Bool[Tensor, "*models features"]
) -> Bool[Tensor, "*models features features"]:
    """Which of the features that are kept overlap; each with itself."""
    unit = torch.nn.functional.normalize(W, dim=-1, eps=1e-30)
    near = (unit @ unit.mT).abs() >= JOINED
    return near & kept[..., :, None] & kept[..., None, :]


def groups(joined: Bool[Tensor, "*models features features"]) -> Int[Tensor, "*models features"]:
    """Every feature's group, named by the first of its features; ABSENT where it is not kept."""
    n = joined.shape[-1]
    reach = joined.float()
    for _ in range(max(1, math.ceil(math.log2(n)))):  # paths twice as long each time
        reach = (reach @ reach > 0).float()
    first = torch.where(reach > 0, torch.arange(n), n).amin(-1)
    return torch.where(first < n, first, ABSENT)


def census(
    W: Float[Tensor, "*models features hidden"], kept: Bool[Tensor, "*models features"]
) -> Int[Tensor, "*models features"]:
    """Every feature's solid as a place in SOLIDS, OTHER or ABSENT: a group of its size that spans its dimensions."""
    *models, n, m = W.shape
    W, kept = W.reshape(-1, n, m), kept.reshape(-1, n)
    group = groups(joined(W, kept))
    member = (group[..., None] == torch.arange(n)) & kept[..., None]  # by its group
    unit = torch.nn.functional.normalize(W, dim=-1, eps=1e-30)
    found = torch.where(kept, OTHER, ABSENT)
    for place, solid in enumerate(SOLIDS):
        model, name = ((member.sum(1) == solid.features) & kept).nonzero(as_tuple=True)
        if not len(model) or solid.features > n:
            continue
        ours = member[model, :, name].nonzero()[:, 1].view(-1, solid.features)
        singular = torch.linalg.svdvals(unit[model[:, None], ours])
        flat = (singular >= FLAT * singular[:, :1]).sum(1) == solid.dimensions
        found[model[flat][:, None], ours[flat]] = place
    return found.view(*models, n)


def line(dimensionality: Float[Tensor, "*any"], tolerance: float) -> Int[Tensor, "*any"]:
    """The solid on whose line D_i lies, as a place in SOLIDS; OTHER where it is further than `tolerance` from all."""
    shares = torch.tensor([solid.share for solid in SOLIDS], dtype=dimensionality.dtype)
    off, nearest = (dimensionality[..., None] - shares).abs().min(-1)
    return torch.where(off <= tolerance, nearest, OTHER)


def on_lines_by_chance(mean: float, features: int, tolerance: float, solids: Sequence[Solid] = SOLIDS) -> float:
    """Which share of the features of a layer without structure would lie on one of the solids' lines.

    The layer: a tight frame, m directions drawn at random in the space of N features. There D_i is Beta(m/2, (N − m)/2)
    with the mean m/N; here with the mean that is given.
    """
    spans = _merged([(solid.share - tolerance, min(1.0, solid.share + tolerance)) for solid in solids])
    a, b = features * mean / 2, features * (1 - mean) / 2
    if min(a, b) < 1e-6:  # no room for any spread
        return float(any(low <= mean <= high for low, high in spans))
    edges = below(torch.tensor(spans, dtype=torch.float64).clamp(min=0), a, b)
    return float((edges[:, 1] - edges[:, 0]).sum())


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without their overlaps."""
    merged: list[tuple[float, float]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
