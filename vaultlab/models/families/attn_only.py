"""Attention and nothing else: no MLP, no norm, no bias, learned positions. The toys are of this kind."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from vaultlab.models.attn_only import MODEL_TYPE
from vaultlab.models.family import Family, Shape
from vaultlab.models.weights import AttentionParts, MLPParts


def _shape(config: Any) -> Shape | str:
    return Shape(
        family="attn_only",
        layers=config.layers,
        d_model=config.d_model,
        heads=config.heads,
        kv_heads=config.heads,
        d_head=config.d_model // config.heads,
        d_mlp=0,
        d_vocab=config.vocab_size,
        context=config.context,
        gated=False,
        rotary=False,
        tied=False,
        flags=frozenset({"attention_only"}),
    )


def _attention(net: nn.Module, layer: int) -> AttentionParts:
    attn: Any = FAMILY.block(net, layer).get_submodule("attn")
    W_Q, W_K, W_V = (
        rearrange(read.weight, "(head d_head) d_model -> head d_model d_head", head=attn.heads)
        for read in (attn.q, attn.k, attn.v)
    )
    nothing = W_Q.new_zeros(attn.heads, W_Q.shape[-1])
    return AttentionParts(
        W_Q=W_Q,
        W_K=W_K,
        W_V=W_V,
        W_O=rearrange(attn.out.weight, "d_model (head d_head) -> head d_head d_model", head=attn.heads),
        b_Q=nothing,
        b_K=nothing,
        b_V=nothing,
        b_O=W_Q.new_zeros(W_Q.shape[1]),
        scale=attn.scaling,
    )


def _mlp(net: nn.Module, layer: int) -> MLPParts:
    norm: Any = FAMILY.block(net, layer).get_submodule("norm2")
    like, width = norm.weight, len(norm.weight)
    return MLPParts(
        like.new_zeros(width, 0), like.new_zeros(0, width), like.new_zeros(0), like.new_zeros(width), torch.relu
    )


def _positions(net: nn.Module) -> Tensor:
    positions: Any = net.get_submodule("positions")
    weight: Tensor = positions.weight
    return weight


FAMILY = Family(
    name="attn_only",
    model_types=(MODEL_TYPE,),
    blocks="blocks",
    final_norm="norm",
    norm1="norm1",
    attn="attn",
    attn_out="attn.out",
    norm2="norm2",
    mlp="mlp",
    mlp_out="mlp.out",
    shape=_shape,
    attention=_attention,
    mlp_parts=_mlp,
    positions=_positions,
)
