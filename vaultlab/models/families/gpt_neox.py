"""GPT-NeoX and Pythia: LayerNorm, partial rotary positions, Q, K, V fused head by head, attention beside the MLP."""

from typing import Any

from einops import rearrange
from torch import nn

from vaultlab.models.family import Family, Shape, bias_of, rotary_of, rotary_trouble
from vaultlab.models.weights import AttentionParts, MLPParts


def _shape(config: Any) -> Shape | str:
    if trouble := rotary_trouble(config):
        return trouble
    kinds = {
        "parallel": config.use_parallel_residual,
        "partial_rotary": config.rope_parameters.get("partial_rotary_factor", 1.0) < 1,
        "scaled_rotary": config.rope_parameters["rope_type"] != "default",
    }
    return Shape(
        family="gpt_neox",
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
        context=config.max_position_embeddings,
        gated=False,
        rotary=True,
        tied=config.tie_word_embeddings,
        flags=frozenset(name for name, present in kinds.items() if present),
    )


def _attention(net: nn.Module, layer: int) -> AttentionParts:
    attn: Any = FAMILY.block(net, layer).get_submodule("attention")
    d_head = attn.head_size
    # Head by head q, k, v: not all q, then all k, then all v as in GPT-2.
    W = rearrange(
        attn.query_key_value.weight, "(head qkv d_head) d_model -> qkv head d_model d_head", qkv=3, d_head=d_head
    )
    b = rearrange(bias_of(attn.query_key_value), "(head qkv d_head) -> qkv head d_head", qkv=3, d_head=d_head)
    return AttentionParts(
        W_Q=W[0],
        W_K=W[1],
        W_V=W[2],
        W_O=rearrange(attn.dense.weight, "d_model (head d_head) -> head d_head d_model", d_head=d_head),
        b_Q=b[0],
        b_K=b[1],
        b_V=b[2],
        b_O=bias_of(attn.dense),
        scale=attn.scaling,
        rotary=rotary_of(net, "gpt_neox.rotary_emb", d_head),
    )


def _mlp(net: nn.Module, layer: int) -> MLPParts:
    mlp: Any = FAMILY.block(net, layer).get_submodule("mlp")
    return MLPParts(
        mlp.dense_h_to_4h.weight.T, mlp.dense_4h_to_h.weight.T, mlp.dense_h_to_4h.bias, mlp.dense_4h_to_h.bias, mlp.act
    )


FAMILY = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    blocks="gpt_neox.layers",
    final_norm="gpt_neox.final_layer_norm",
    norm1="input_layernorm",
    attn="attention",
    attn_out="attention.dense",
    norm2="post_attention_layernorm",
    mlp="mlp",
    mlp_out="mlp.dense_4h_to_h",
    shape=_shape,
    attention=_attention,
    mlp_parts=_mlp,
)
