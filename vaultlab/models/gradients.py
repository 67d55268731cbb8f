"""How an answer would change with what stands at a site: one pass forward and one back, for all sites at once."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models.intervene import OF_HEADS
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, Touch, passed


class Gradients(NamedTuple):
    """What stands at each site, and the gradient of what was asked by it; shapes as `trace` has them."""

    values: dict[Site, Tensor]
    by: dict[Site, Tensor]


@torch.inference_mode(False)
@torch.enable_grad()
def gradients(
    model: Model,
    ids: Int[Tensor, " pos"],
    sites: Iterable[Site],
    read: Callable[[Float[Tensor, " d_model"]], Float[Tensor, ""]],
) -> Gradients:
    """`read` says what is asked of the last stream at the last position. Raises NoteError as `trace` does."""
    values: dict[Site, Tensor] = {}

    def keep(site: Site, value: Tensor) -> Tensor:
        if not value.requires_grad:  # what the embedding writes depends on no weight that takes gradients
            value = value.detach().requires_grad_()
        elif site.name in OF_HEADS:  # is a view made for the look: only what is given back is read from there on
            value = value.view_as(value)
        values[site] = value
        return value

    # Last of all its own: the stream in front of it is what others take theirs from.
    touches: list[tuple[Site, Touch]] = [(site, partial(keep, site)) for site in sites]
    final = passed(model, ids.clone()[None], [Site("final")], touches)[Site("final")]
    found = torch.autograd.grad(read(final[0, -1]), list(values.values()), allow_unused=True)
    by = {
        site: torch.zeros_like(value) if gradient is None else gradient
        for (site, value), gradient in zip(values.items(), found, strict=True)
    }
    return Gradients({site: value.detach() for site, value in values.items()}, by)
