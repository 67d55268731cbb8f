"""A memory's value changed for one pass, and nothing in the model: what the change writes is added where it would be.

With v_i + δ in the place of v_i an MLP's output grows by m_i δ at every token; m_i, which that output has no part in,
stays what it was. So the change is an addition at that site, the layers above reading it as they would.
"""

import hashlib
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.intervene import Edit, Since, intervene
from vaultlab.models.model import Model
from vaultlab.models.trace import Site
from vaultlab.models.weights import MLPParts


def last_stream(
    model: Model,
    ids: Int[Tensor, "batch pos"],
    write: Float[Tensor, "batch pos d_model"],
    since: Since,
    held: dict[Site, Tensor] | None = None,
) -> Float[Tensor, "batch pos d_model"]:
    """The last stream when `write` is added to the MLP's output of the layer that `since` tells what enters.

    What is `held` of later layers' outputs stays as given there, whatever comes in.
    """
    edits = [Edit(Site("mlp", since.layer), lambda value: value + write.to(value))]
    edits += [Edit(site, partial(_in_its_place, value)) for site, value in (held or {}).items()]
    return intervene(model, ids, edits, [Site("final")], since)[Site("final")]


def _in_its_place(value: Tensor, _standing: Tensor) -> Tensor:
    return value


def written(
    m: Float[Tensor, "pos key"], keys: Int[Tensor, " row"], delta: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row pos d_model"]:
    """What a change of one value a row adds at each token: m_i δ."""
    return m.T[keys.to(m.device)][..., None] * delta[:, None].to(m)


def with_values(mlp: MLPParts, key: int, delta: Float[Tensor, " d_model"]) -> MLPParts:
    """The layer with the change in its weights, which are copied."""
    W_out = mlp.W_out.clone()
    W_out[key] += delta.to(W_out)
    return replace(mlp, W_out=W_out)


def logits_of(model: Model, final: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """The logits of rows of the last stream, in float32 at least."""
    logits = parts.unembedding(model)(parts.final_norm(model)(final))
    return logits.to(torch.promote_types(model.dtype, torch.float32))


def content(model: Model) -> dict[str, bytes]:
    """The hash of every weight's and buffer's bytes."""
    tensors = {**dict(model.net.named_parameters()), **dict(model.net.named_buffers())}
    return {
        name: hashlib.sha256(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data).digest()
        for name, one in tensors.items()
    }
