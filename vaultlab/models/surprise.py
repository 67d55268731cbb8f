"""How unexpected a text's tokens are to a model, read from its last stream."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.model import Model

CHUNK = 64
"""Positions unembedded at a time: of a whole batch the logits would be the largest thing in memory."""


@torch.inference_mode()
def surprise(
    model: Model, final: Float[Tensor, "batch pos d_model"], ids: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch before"]:
    """−log p of the token that comes, in nats, after every position but the last; `final` is the stream there."""
    norm, unembedding = parts.final_norm(model), parts.unembedding(model)
    streams = torch.split(final[:, :-1].flatten(0, 1), CHUNK)
    after = torch.split(ids[:, 1:].to(final.device).flatten(), CHUNK)
    found = [
        torch.nn.functional.cross_entropy(unembedding(norm(x)).float(), came, reduction="none")
        for x, came in zip(streams, after, strict=True)
    ]
    return torch.cat(found).view(len(ids), -1).cpu()
