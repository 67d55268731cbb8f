"""What a model is made of (`Shape`), and how one kind of transformers model is read (`Family`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from vaultlab.models.weights import AttentionParts, MLPParts, Norm, Rotary

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "parallel": "attention and MLP of a layer read the same stream: there is no resid_mid",
        "partial_rotary": "only some of a head's dimensions turn with the position",
        "scaled_rotary": "the rotary frequencies are stretched for long texts",
        "qk_norm": "queries and keys are normed head by head: scores are not bilinear in the stream",
        "sliding_window": "some layers look back over a limited number of tokens only",
        "layer_scaled": "the scores of deeper layers are scaled down",
        "attention_only": "there is no MLP and no norm",
    }
)
"""What sets a model apart from the plain one. An experiment whose identity a flag breaks refuses it, or says so."""

ROTARY_KINDS = ("default", "linear", "llama3", "yarn")
"""RoPE whose frequencies do not depend on how long the text is; the others are refused."""


class Unnormed(nn.Module):
    """In a norm's place: gives what it gets. Its weight, all ones, is what a reader would fold."""

    weight: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Shape:
    """A model's measures, known without loading it. `bytes` are its weights' in the entry's dtype."""

    family: str
    layers: int
    d_model: int
    heads: int
    kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    context: int
    gated: bool
    rotary: bool
    tied: bool
    flags: frozenset[str]
    parameters: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Family:
    """How to find a model's pieces. Paths are attribute paths: of `blocks` and `final_norm` from the net, of the others
    from one block.

    `shape` reads a config, and returns what it cannot handle as a sentence; `attention`, `mlp` read a block's weights.
    """

    name: str
    model_types: tuple[str, ...]
    blocks: str
    final_norm: str
    norm1: str
    attn: str
    attn_out: str
    norm2: str
    mlp: str
    mlp_out: str
    shape: Callable[[Any], Shape | str]
    attention: Callable[[nn.Module, int], AttentionParts]
    mlp_parts: Callable[[nn.Module, int], MLPParts]
    positions: Callable[[nn.Module], Tensor | None] = lambda net: None

    def block(self, net: nn.Module, layer: int) -> nn.Module:
        """Layer number `layer` of the net."""
        return sub(sub(net, self.blocks), str(layer))


def sub(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a dotted path."""
    return module.get_submodule(path)


def norm_of(module: nn.Module) -> Norm:
    """The weights of transformers' LayerNorm or RMSNorm, or of what stands in a norm's place and does nothing."""
    gain: Tensor = attrgetter("weight")(module)
    if isinstance(module, Unnormed):
        return Norm("none", gain, torch.zeros_like(gain), 0.0)
    if isinstance(module, nn.LayerNorm):
        return Norm("layer", gain, module.bias, module.eps)
    return Norm("rms", gain, torch.zeros_like(gain), attrgetter("variance_epsilon")(module))


def bias_of(module: nn.Module) -> Tensor:
    """A linear module's bias, zeros where it has none."""
    linear: Any = module
    if linear.bias is not None:
        return torch.as_tensor(linear.bias)
    weight = torch.as_tensor(linear.weight)
    return weight.new_zeros(weight.shape[0])


def rotary_of(net: nn.Module, path: str, d_head: int) -> Rotary:
    """The frequencies that transformers computed for this model."""
    module: Any = sub(net, path)
    return Rotary(module.inv_freq, d_head, float(module.attention_scaling))


def rotary_trouble(config: Any) -> str | None:
    """Why the config's rotary embedding cannot be handled, or None."""
    kind = (config.rope_parameters or {}).get("rope_type", "default")
    if kind in ROTARY_KINDS:
        return None
    return f"its rotary positions are of the kind `{kind}`, and vaultlab knows {', '.join(ROTARY_KINDS)}"
