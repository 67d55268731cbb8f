"""A stream that is pushed along a direction after a layer, by adding to it or by turning it and keeping its length."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models.intervene import Edit, Since, intervene
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, trace

Method = Literal["add", "guide"]


def pushed(
    x: Float[Tensor, "*of d_model"], by: Float[Tensor, " d_model"], method: Method
) -> Float[Tensor, "*of d_model"]:
    """x + by; guided, at the length that x had. Source: von Rütte et al. 2024, A Language Model's Guide Through Latent
    Space, section 3."""
    moved = x + by.to(x)
    if method == "add":
        return moved
    kept: Tensor = moved * (x.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True).clamp(min=1e-30))
    return kept


class Steering:
    """Texts of one model with their streams after `layer`, from where on they are run again for every push."""

    def __init__(self, model: Model, ids: Int[Tensor, "text pos"], layer: int, method: Method) -> None:
        self.model, self.ids, self.method = model, ids, method
        self.site = Site("resid_pre", layer + 1)
        self.since = Since(layer + 1, trace(model, ids, [self.site])[self.site])

    def at(self, by: Float[Tensor, " d_model"] | None, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """What stands at these sites when the stream is pushed at every token; None: not at all."""
        edits = [] if by is None else [Edit(self.site, lambda x: pushed(x, by, self.method))]
        return intervene(self.model, self.ids, edits, sites, self.since)


def continued(
    model: Model, ids: Int[Tensor, " pos"], tokens: int, layer: int, by: Float[Tensor, " d_model"], method: Method
) -> Int[Tensor, " new"]:
    """The most likely token again and again, the stream pushed after `layer` at every token that it reads."""
    end = model.tokenizer.eos_token_id
    edits, first = [Edit(Site("resid_post", layer), lambda x: pushed(x, by, method))], len(ids)
    for _ in range(min(tokens, model.shape.context - first)):
        logits = intervene(model, ids[None], edits, [Site("logits")])[Site("logits")]
        new = logits[0, -1].argmax().cpu()
        if end is not None and int(new) == end:
            break
        ids = torch.cat([ids, new[None]])
    return ids[first:]
