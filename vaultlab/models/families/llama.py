"""Llama and what is built the same way: Mistral, Qwen2, Qwen3, SmolLM and SmolLM2.

RMSNorm, rotary positions, grouped heads, a gated MLP. Mistral, Qwen2 and Qwen3 may have sliding windows, Qwen2 has
biases on Q, K and V, Qwen3 norms queries and keys.
"""

from typing import Any

from einops import rearrange, repeat
from torch import Tensor, nn

from vaultlab.models.family import Family, Shape, bias_of, norm_of, rotary_of, rotary_trouble
from vaultlab.models.weights import AttentionParts, MLPParts


def _shape(config: Any) -> Shape | str:
    if trouble := rotary_trouble(config):
        return trouble
    kinds = {
        "sliding_window": any(_window(config, layer) for layer in range(config.num_hidden_layers)),
        "scaled_rotary": config.rope_parameters["rope_type"] != "default",
        "qk_norm": config.model_type == "qwen3",
    }
    return Shape(
        family="llama",
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        d_head=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
        context=config.max_position_embeddings,
        gated=True,
        rotary=True,
        tied=config.tie_word_embeddings,
        flags=frozenset(name for name, present in kinds.items() if present),
    )


def _window(config: Any, layer: int) -> int | None:
    # Mistral has one window for all layers; in Qwen2 and Qwen3 `layer_types` says which layers have it.
    types = getattr(config, "layer_types", None)
    slides = config.model_type == "mistral" if types is None else types[layer] == "sliding_attention"
    return getattr(config, "sliding_window", None) if slides else None


def _attention(net: nn.Module, layer: int) -> AttentionParts:
    attn: Any = FAMILY.block(net, layer).get_submodule("self_attn")
    group, d_head = attn.num_key_value_groups, attn.head_dim

    def weight(proj: nn.Linear, times: int) -> Tensor:
        heads = rearrange(proj.weight, "(head d_head) d_model -> head d_model d_head", d_head=d_head)
        return heads if times == 1 else repeat(heads, "head m d -> (head times) m d", times=times)

    def bias(proj: nn.Linear, times: int) -> Tensor:
        return repeat(bias_of(proj), "(head d_head) -> (head times) d_head", d_head=d_head, times=times)

    return AttentionParts(
        W_Q=weight(attn.q_proj, 1),
        W_K=weight(attn.k_proj, group),
        W_V=weight(attn.v_proj, group),
        W_O=rearrange(attn.o_proj.weight, "d_model (head d_head) -> head d_head d_model", d_head=d_head),
        b_Q=bias(attn.q_proj, 1),
        b_K=bias(attn.k_proj, group),
        b_V=bias(attn.v_proj, group),
        b_O=bias_of(attn.o_proj),
        scale=attn.scaling,
        rotary=rotary_of(net, "model.rotary_emb", d_head),
        window=_window(attn.config, layer),
        q_norm=norm_of(attn.q_norm) if hasattr(attn, "q_norm") else None,
        k_norm=norm_of(attn.k_norm) if hasattr(attn, "k_norm") else None,
    )


def _mlp(net: nn.Module, layer: int) -> MLPParts:
    mlp: Any = FAMILY.block(net, layer).get_submodule("mlp")
    return MLPParts(
        W_in=mlp.up_proj.weight.T,
        W_out=mlp.down_proj.weight.T,
        b_in=bias_of(mlp.up_proj),
        b_out=bias_of(mlp.down_proj),
        act=mlp.act_fn,
        W_gate=mlp.gate_proj.weight.T,
        b_gate=bias_of(mlp.gate_proj),
    )


FAMILY = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "qwen3"),
    blocks="model.layers",
    final_norm="model.norm",
    norm1="input_layernorm",
    attn="self_attn",
    attn_out="self_attn.o_proj",
    norm2="post_attention_layernorm",
    mlp="mlp",
    mlp_out="mlp.down_proj",
    shape=_shape,
    attention=_attention,
    mlp_parts=_mlp,
)
