"""The attention that all our models run: SDPA, which gives no weights; they are computed beside it where asked for."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
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
    """transformers' attention interface. `touches` comes through the net's forward: layer → site within → `Touch`.

    The output is the same to the last bit whether something is looked at or not: what one run wants to see changes no
    number of another that shares the pass. A pattern that was changed gathers the values itself, without SDPA.
    """
    layer: Any = module.layer_idx
    touches: Mapping[str, Callable[[Tensor], Tensor]] = (more.pop("touches", None) or {}).get(layer, {})
    group = query.shape[1] // key.shape[1]
    query, key, value = (
        _touched(touches.get(name), heads, times)
        for name, heads, times in (("q", query, 1), ("k", key, group), ("v", value, group))
    )
    if "pattern" in touches:
        own = _pattern(query, _each(key, query), attention_mask, more["scaling"])
        pattern = touches["pattern"](own)
        if pattern is not own:
            return (pattern @ _each(value, query)).transpose(1, 2).contiguous(), None
    if key.shape[1] != value.shape[1] or (group > 1 and key.shape[1] == query.shape[1]):  # one was changed head by head
        key, value, module = _each(key, query), _each(value, query), _ungrouped(module)
    output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    return output, weights


def _touched(touch: Callable[[Tensor], Tensor] | None, heads: Tensor, times: int) -> Tensor:
    """Heads [batch head pos d_head], for a change each with its own; as they were where nothing is changed."""
    if touch is None:
        return heads
    own = (heads.repeat_interleave(times, 1) if times > 1 else heads).transpose(1, 2)
    standing = touch(own)
    return heads if standing is own else standing.transpose(1, 2)


def _each(heads: Tensor, query: Tensor) -> Tensor:
    """Keys or values repeated, so that every query head has its own."""
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], 1)


def _ungrouped(module: nn.Module) -> Any:
    """In the module's place where its keys and values are repeated already: by its groups SDPA would do it again."""
    return SimpleNamespace(is_causal=getattr(module, "is_causal", True))


def _pattern(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float) -> Tensor:
    if attention_mask is None:  # sdpa_mask leaves the plain causal mask out
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~attention_mask, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(query.dtype, torch.float32)).to(query.dtype)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
