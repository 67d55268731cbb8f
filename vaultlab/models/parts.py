"""A model's weights under common names and shapes, whatever its family, always so that `x @ W`.

The tensors are views of the model's own wherever its layout allows: never write into them. `dtype` upcasts what is
asked for, one layer at a time: exact identities are checked in float32 or float64 whatever the model runs in.
"""

from typing import Any

import torch

from vaultlab.models.family import norm_of, sub
from vaultlab.models.model import Model
from vaultlab.models.weights import AttentionParts, Embedding, MLPParts, Norm, Unembedding, in_dtype


def attention(model: Model, layer: int, dtype: torch.dtype | None = None) -> AttentionParts:
    """The attention of a layer, which reads `attn_norm(model, layer)` of the stream."""
    return in_dtype(model.family.attention(model.net, layer), dtype)


def mlp(model: Model, layer: int, dtype: torch.dtype | None = None) -> MLPParts:
    """The MLP of a layer, which reads `mlp_norm(model, layer)` of the stream."""
    return in_dtype(model.family.mlp_parts(model.net, layer), dtype)


def attn_norm(model: Model, layer: int, dtype: torch.dtype | None = None) -> Norm:
    """The norm in front of a layer's attention."""
    return in_dtype(norm_of(sub(model.family.block(model.net, layer), model.family.norm1)), dtype)


def mlp_norm(model: Model, layer: int, dtype: torch.dtype | None = None) -> Norm:
    """The norm in front of a layer's MLP."""
    return in_dtype(norm_of(sub(model.family.block(model.net, layer), model.family.norm2)), dtype)


def final_norm(model: Model, dtype: torch.dtype | None = None) -> Norm:
    """The norm in front of the unembedding."""
    return in_dtype(norm_of(sub(model.net, model.family.final_norm)), dtype)


def embedding(model: Model, dtype: torch.dtype | None = None) -> Embedding:
    """What the stream starts from."""
    net: Any = model.net
    return in_dtype(Embedding(net.get_input_embeddings().weight, model.family.positions(net)), dtype)


def unembedding(model: Model, dtype: torch.dtype | None = None) -> Unembedding:
    """What reads the logits from `final_norm(model)` of the last stream."""
    net: Any = model.net
    weight = net.get_output_embeddings().weight
    return in_dtype(Unembedding(weight.T, weight.new_zeros(weight.shape[0])), dtype)
