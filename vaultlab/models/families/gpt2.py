"""GPT-2: LayerNorm, learned positions, Conv1D weights (stored so that `x @ W`), one fused Q, K, V matrix, GELU."""

from typing import Any

from einops import rearrange
from torch import Tensor, nn

from vaultlab.models.family import Family, Shape
from vaultlab.models.weights import AttentionParts, MLPParts


def _shape(config: Any) -> Shape | str:
    if config.add_cross_attention:
        return "it has cross-attention"
    return Shape(
        family="gpt2",
        layers=config.n_layer,
        d_model=config.n_embd,
        heads=config.n_head,
        kv_heads=config.n_head,
        d_head=config.n_embd // config.n_head,
        d_mlp=config.n_inner or 4 * config.n_embd,
        d_vocab=config.vocab_size,
        context=config.n_positions,
        gated=False,
        rotary=False,
        tied=config.tie_word_embeddings,
        flags=frozenset({"layer_scaled"} if config.scale_attn_by_inverse_layer_idx else ()),
    )


def _attention(net: nn.Module, layer: int) -> AttentionParts:
    attn: Any = FAMILY.block(net, layer).get_submodule("attn")
    heads = attn.num_heads
    W = rearrange(attn.c_attn.weight, "d_model (qkv head d_head) -> qkv head d_model d_head", qkv=3, head=heads)
    b = rearrange(attn.c_attn.bias, "(qkv head d_head) -> qkv head d_head", qkv=3, head=heads)
    return AttentionParts(
        W_Q=W[0],
        W_K=W[1],
        W_V=W[2],
        W_O=rearrange(attn.c_proj.weight, "(head d_head) d_model -> head d_head d_model", head=heads),
        b_Q=b[0],
        b_K=b[1],
        b_V=b[2],
        b_O=attn.c_proj.bias,
        scale=attn.scaling,
    )


def _mlp(net: nn.Module, layer: int) -> MLPParts:
    mlp: Any = FAMILY.block(net, layer).get_submodule("mlp")
    return MLPParts(mlp.c_fc.weight, mlp.c_proj.weight, mlp.c_fc.bias, mlp.c_proj.bias, mlp.act)


def _positions(net: nn.Module) -> Tensor:
    wpe: Any = net.get_submodule("transformer.wpe")
    weight: Tensor = wpe.weight
    return weight


FAMILY = Family(
    name="gpt2",
    model_types=("gpt2",),
    blocks="transformer.h",
    final_norm="transformer.ln_f",
    norm1="ln_1",
    attn="attn",
    attn_out="attn.c_proj",
    norm2="ln_2",
    mlp="mlp",
    mlp_out="mlp.c_proj",
    shape=_shape,
    attention=_attention,
    mlp_parts=_mlp,
    positions=_positions,
)
