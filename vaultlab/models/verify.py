"""Does a model come out of its parts? Its logits rebuilt from `parts` against transformers' own, layer by layer."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from vaultlab.errors import RunError
from vaultlab.models import parts
from vaultlab.models.family import sub
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, trace

LIMIT = 1e-3
"""Largest difference allowed, relative to the largest activation: a sound model in float32 stays under 1e-5."""

_WORDS = {"attn": "attention", "mlp": "MLP"}


@torch.inference_mode()
def verify(model: Model, tokens: int = 16) -> float:
    """The relative difference of the rebuilt logits, in float32 whatever the model's dtype, one layer upcast at a time.

    Raises RunError above `LIMIT`, naming the first layer that differs.
    """
    ids = torch.randint(model.shape.d_vocab, (1, tokens), generator=torch.Generator().manual_seed(0))
    sites = [Site(name, layer) for layer in range(model.shape.layers) for name in ("attn", "mlp")]
    with in_float32(model):
        truth = trace(model, ids, [*sites, Site("logits")])
    residual = 0.0
    for site, value in rebuild(model, ids.to(model.device), folded=False):
        # a layer that writes nothing has no largest value
        residual = ((value - truth[site]).abs().max() / truth[site].abs().max().clamp(min=1e-30)).item()
        if not residual <= LIMIT:  # a NaN fails
            where = "the logits" if site.layer is None else f"layer {site.layer}'s {_WORDS[site.name]}"
            raise RunError(
                f"`{model.name}` does not come out of its parts: {where} is the first to differ, by {residual:.2g} of "
                f"its largest value ({LIMIT:.0e} is allowed).",
                f"It is not built as other `{model.shape.family}` models are: choose another.",
            )
    return residual


def rebuild(model: Model, ids: Int[Tensor, "batch pos"], *, folded: bool) -> Iterator[tuple[Site, Tensor]]:
    """Every layer's `attn` and `mlp`, then the `logits`: norm(embedding + Σ attn + Σ mlp) W_U, from parts alone.

    In float32, one layer at a time. `folded` has the norms' gains and biases in the readers' weights, not in the norms.
    """
    wide = torch.float32
    stream = parts.embedding(model)(ids, wide)
    for layer in range(model.shape.layers):
        attention, norm = parts.attention(model, layer, wide), parts.attn_norm(model, layer, wide)
        mlp, mlp_norm = parts.mlp(model, layer, wide), parts.mlp_norm(model, layer, wide)
        attn_out = attention.folded(norm)(norm.bare(stream)) if folded else attention(norm(stream))
        yield Site("attn", layer), attn_out
        middle = stream if "parallel" in model.shape.flags else stream + attn_out
        mlp_out = mlp.folded(mlp_norm)(mlp_norm.bare(middle)) if folded else mlp(mlp_norm(middle))
        yield Site("mlp", layer), mlp_out
        stream = stream + attn_out + mlp_out
    unembedding, norm = parts.unembedding(model, wide), parts.final_norm(model, wide)
    yield Site("logits"), unembedding.folded(norm)(norm.bare(stream)) if folded else unembedding(norm(stream))


@contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """Within, the net computes in float32: a block's weights are upcast when it is reached, and put back after it.

    A model in float64 stays there.
    """
    net: Any = model.net
    if model.dtype in (torch.float32, torch.float64):
        yield
        return
    blocks = [model.family.block(net, layer) for layer in range(model.shape.layers)]
    with ExitStack() as hooks:
        hooks.enter_context(net.get_input_embeddings().register_forward_hook(lambda _m, _a, out: out.float()))
        for module in [*blocks, sub(net, model.family.final_norm), net.get_output_embeddings()]:
            hooks.enter_context(_upcast(module, model.dtype))
        yield


@contextmanager
def _upcast(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    held: list[Tensor] = []

    def widen(_module: nn.Module, _args: Any) -> None:
        for weight in module.parameters():
            held.append(weight.data)
            weight.data = weight.data.float()

    def restore(_module: nn.Module, _args: Any, _output: Any) -> None:
        for weight, own in zip(module.parameters(), held, strict=True):
            weight.data = own
        held.clear()

    # a trace that has what it wants breaks off in the middle of a block: its weights are put back all the same
    with module.register_forward_pre_hook(widen), module.register_forward_hook(restore, always_call=True):
        yield
