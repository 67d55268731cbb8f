"""How two sets of activations lie in the stream: their means, and what of the variance lies between them."""

from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

X = Float[Tensor, "layer text d_model"]
Side = Bool[Tensor, "draw text"]


class Spread(NamedTuple):
    """Of two sets, for every draw of which text is in which: `cosine` of their means, `apart` their difference's length
    by the mean length of a text's, `share` of the whole variance that lies between them, `gap` μ₊ − μ₋."""

    cosine: Float[Tensor, "draw layer"]
    apart: Float[Tensor, "draw layer"]
    share: Float[Tensor, "draw layer"]
    gap: Float[Tensor, "draw layer d_model"]


def spread(x: X, side: Side) -> Spread:
    """The means of both sets, and the share n₊ n₋/n² ‖μ₊ − μ₋‖² of the whole variance; 0 where there is none."""
    weight = side.double() / side.sum(1, keepdim=True)
    other = (~side).double() / (~side).sum(1, keepdim=True)
    one, two = (einsum(each, x, "draw text, layer text d -> draw layer d") for each in (weight, other))
    gap = one - two
    portion = side.double().mean(1)[:, None]
    between = portion * (1 - portion) * gap.square().sum(-1)
    total = total_variance(x)
    length = x.norm(dim=-1).mean(1).clamp(min=1e-30)
    share = torch.where(total > 1e-18 * length.square(), between / total.clamp(min=1e-300), 0.0)
    return Spread(torch.cosine_similarity(one, two, dim=-1), gap.norm(dim=-1) / length, share, gap)


def total_variance(x: X) -> Float[Tensor, " layer"]:
    """Mean squared distance of a text from the mean of all."""
    found: Tensor = (x - x.mean(1, keepdim=True)).square().sum(-1).mean(1)
    return found


def within_variance(x: X, side: Bool[Tensor, " text"]) -> Float[Tensor, " layer"]:
    """Mean squared distance of a text from the mean of its own set, computed by itself: total = within + between."""
    sets = (x[:, side], x[:, ~side])
    own = [(one - one.mean(1, keepdim=True)).square().sum((1, 2)) for one in sets]
    return (own[0] + own[1]) / x.shape[1]
