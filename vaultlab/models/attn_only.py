"""A transformer with nothing but attention: no MLP and no norm, so that every path through it is exact.

logits = x W_U, where x is W_E's row of the token plus W_pos's row of the position, and every layer's heads add to it
what they read from it. As a transformers model, so that it is kept, loaded and traced like any other.
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from vaultlab.models.family import Unnormed
from vaultlab.models.pattern import attend

MODEL_TYPE = "vaultlab_attn_only"


class AttnOnlyConfig(PretrainedConfig):
    """How large it is. `d_model` is divided among the heads."""

    model_type = MODEL_TYPE

    def __init__(
        self, layers: int = 2, d_model: int = 64, heads: int = 4, context: int = 64, vocab_size: int = 64, **more: Any
    ) -> None:
        self.layers = layers
        self.d_model = d_model
        self.heads = heads
        self.context = context
        self.vocab_size = vocab_size
        super().__init__(**{**more, "tie_word_embeddings": False})


class _NoMemories(nn.Module):
    """In an MLP's place: no memories, whose sum is nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.out = _Sum()

    def forward(self, x: Tensor) -> Tensor:
        nothing: Tensor = self.out(x[..., :0])
        return torch.zeros_like(x) + nothing


class _Sum(nn.Module):
    def forward(self, memories: Tensor) -> Tensor:
        return memories.sum(-1, keepdim=True)


class _Heads(nn.Module):
    # Not called attention: by that name transformers would look for its own way of choosing one, and complain.
    def __init__(self, config: AttnOnlyConfig, layer: int) -> None:
        super().__init__()
        width = config.d_model
        self.layer_idx = layer
        self.is_causal = True
        self.heads = config.heads
        self.scaling = (width // config.heads) ** -0.5
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Float[Tensor, "batch pos d_model"], **more: Any) -> Tensor:
        q, k, v = (rearrange(read(x), "b p (h d) -> b h p d", h=self.heads) for read in (self.q, self.k, self.v))
        z, _ = attend(self, q, k, v, None, scaling=self.scaling, **more)
        written: Tensor = self.out(rearrange(z, "b p h d -> b p (h d)"))
        return written


class _Block(nn.Module):
    def __init__(self, config: AttnOnlyConfig, layer: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Unnormed(config.d_model), Unnormed(config.d_model)
        self.attn = _Heads(config, layer)
        self.mlp = _NoMemories()

    def forward(self, x: Float[Tensor, "batch pos d_model"], **more: Any) -> Tensor:
        middle: Tensor = x + self.attn(self.norm1(x), **more)
        after: Tensor = middle + self.mlp(self.norm2(middle))
        return after


class AttnOnly(PreTrainedModel):
    """Learned positions, untied embeddings, no bias anywhere."""

    config_class = AttnOnlyConfig
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: AttnOnlyConfig) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.layers))
        self.norm = Unnormed(config.d_model)
        self.unembed = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        return self.unembed

    def forward(self, input_ids: Int[Tensor, "batch pos"], use_cache: bool = False, **more: Any) -> CausalLMOutput:
        x = self.embed(input_ids) + self.positions.weight[: input_ids.shape[-1]]
        for block in self.blocks:
            x = block(x, **more)
        return CausalLMOutput(logits=self.unembed(self.norm(x)))


AutoConfig.register(MODEL_TYPE, AttnOnlyConfig)
AutoModelForCausalLM.register(AttnOnlyConfig, AttnOnly)
