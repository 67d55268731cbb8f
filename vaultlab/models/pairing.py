"""How features that come in pairs can lie in as many dimensions as there are pairs, and what it costs, known by hand.

Features 2k and 2k + 1 are a pair (see `sparse`), each there with density p. Every dimension holds two features:

                     together    exclusive    independent
    across pairs     p²/3        p²/3         p²/3           opposites of different pairs: 2 p² E min(u, v)²
    within a pair    p/3         0            p²/3           its own two are opposites
    merged           p/12        p/3          p/3 − p²/4     its own two are one direction, of length 1/√2
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.geometry import REPRESENTED
from vaultlab.models.rests import rest
from vaultlab.models.sparse import Pairs

ARRANGEMENTS = ("across pairs", "within pairs", "merged")

_WITHIN: dict[Pairs, Callable[[float], float]] = {
    "together": lambda p: p / 3,
    "exclusive": lambda p: 0.0,
    "independent": lambda p: p**2 / 3,
}
_MERGED: dict[Pairs, Callable[[float], float]] = {
    "together": lambda p: p / 12,
    "exclusive": lambda p: p / 3,
    "independent": lambda p: p / 3 - p**2 / 4,
}


def arrangement_losses(pairs: Pairs, p: float, hidden: int) -> dict[str, float]:
    """The loss of every arrangement of twice as many features as dimensions, with no bias."""
    each = (p**2 / 3, _WITHIN[pairs](p), _MERGED[pairs](p))
    return {name: hidden * loss for name, loss in zip(ARRANGEMENTS, each, strict=True)}


def arrangement_weights(hidden: int) -> Float[Tensor, "arrangements features hidden"]:
    """The weights that they belong to, in the order of ARRANGEMENTS; of two dimensions or more."""
    axis = torch.eye(hidden, dtype=torch.float64)
    within = torch.stack([axis, -axis], 1).flatten(0, 1)
    return torch.stack([rest(hidden, hidden), within, rest(hidden, 0)])


def all_cosines(
    W: Float[Tensor, "*models features hidden"], threshold: float = REPRESENTED
) -> Float[Tensor, "*models features features"]:
    """Between any two features; NaN where one is not represented, for then it points nowhere in particular."""
    there = W.norm(dim=-1) >= threshold
    unit = torch.nn.functional.normalize(W, dim=-1, eps=1e-30)
    return (unit @ unit.mT).where(there[..., :, None] & there[..., None, :], torch.nan)
