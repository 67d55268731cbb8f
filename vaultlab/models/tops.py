"""The top tokens of every value of a model: found once, whatever text is read, and shared."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab import models
from vaultlab.models import parts
from vaultlab.models.memories import pushed, readout
from vaultlab.models.model import Model
from vaultlab.models.search import Desk
from vaultlab.models.shared import Keep

COLUMNS = 8192
"""Columns of W_U that are upcast at a time: all in float64 would take twice the model's own."""


class Sides(NamedTuple):
    """The tokens that values push up most, and down most: the first where a coefficient is above 0, else the last."""

    first: Int[Tensor, "*layer key"]
    last: Int[Tensor, "*layer key"]


class Tops(NamedTuple):
    """All layers' values, of which `done` have been read."""

    done: int
    first: Int[Tensor, "layer key"]
    last: Int[Tensor, "layer key"]

    def of(self, layer: int) -> Sides:
        """Those of one layer."""
        return Sides(self.first[layer], self.last[layer])


def tops(desk: Desk, model: Model) -> Tops:
    """Every value through the whole vocabulary: from where it is shared, else layer by layer."""
    what = {"of": "tops", "version": models.VERSION, "model": model.sha256}
    return desk.shared(what, Tops, partial(_tops, desk, model))


def _tops(desk: Desk, model: Model, begun: Tops | None, keep: Keep[Tops]) -> Tops:
    layers, none = model.shape.layers, torch.full((model.shape.layers, model.shape.d_mlp), -1)
    begun = begun or Tops(0, none, none.clone())
    first, last = begun.first.clone(), begun.last.clone()
    wide = torch.promote_types(model.dtype, torch.float32)
    for layer in range(begun.done, layers):
        progress = partial(desk.progress, phase=f"reading the values of layer {layer} as tokens, once for all texts")
        first[layer], last[layer] = sides(model, parts.mlp(model, layer).W_out.to(wide), progress)
        keep(partial(_so_far, layer + 1, first, last))
    return Tops(layers, first, last)


def _so_far(done: int, first: Tensor, last: Tensor) -> Tops:
    return Tops(done, first.clone(), last.clone())


def sides(
    model: Model, v: Float[Tensor, "key d_model"], progress: Callable[[int, int], None] = lambda done, total: None
) -> Sides:
    """The top tokens of some writes; on the CPU."""
    found = pushed(model, v, torch.empty(len(v), 0, dtype=torch.long), progress)
    return Sides(found.first, found.last)


@torch.inference_mode()
def tops_residual(model: Model, v: Float[Tensor, "key d_model"], first: Int[Tensor, " key"]) -> Float[Tensor, ""]:
    """How far the top tokens of some writes are from the largest push in float64, as a share of it."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    read, first, W_U = readout(model, v.to(wide)), first.to(model.device), parts.unembedding(model).W_U
    some = [read @ columns.to(wide) for columns in torch.split(W_U, COLUMNS, -1)]
    most = torch.stack([one.amax(1) for one in some]).amax(0)
    mean = torch.stack([one.sum(1) for one in some]).sum(0) / W_U.shape[1]
    own = (read * W_U[:, first].T.to(wide)).sum(1)
    return ((most - own) / (most - mean).clamp(min=1e-30)).max().cpu()
