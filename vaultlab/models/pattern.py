"""The attention that all our models run: SDPA, which gives no weights; they are computed beside it where asked for."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "vaultlab"


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **more: Any
) -> tuple[Tensor, Tensor | None]:
    """transformers' attention interface. `patterns` comes through the net's forward: wanted layer → its pattern.

    The output is the same to the last bit whether a pattern is asked for or not: what one run wants to see changes no
    number of another that shares the pass.
    """
    patterns: dict[int, Tensor | None] = more.pop("patterns", None) or {}
    layer: Any = module.layer_idx
    if layer in patterns:
        patterns[layer] = _pattern(query, key, attention_mask, more["scaling"])
    output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    return output, weights


def _pattern(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float) -> Tensor:
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key = key.repeat_interleave(group, 1)
    if attention_mask is None:  # sdpa_mask leaves the plain causal mask out
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~attention_mask, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
