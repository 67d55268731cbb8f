"""Models with a memory whose trigger and value are known."""

import torch

from tests.tiny import tiny_model
from vaultlab.models import parts


def planted(family, pattern, target, key=7, **config):
    """A model without attention whose memory `key` of layer 0 wakes at one token only and writes another one."""
    model = tiny_model(family, **config)
    [wake], [write] = ([model.token_id(word)] for word in (pattern, target))
    net = model.net
    with torch.no_grad():
        block = model.family.block(net, 0)
        out = block.get_submodule(model.family.attn_out)
        out.weight.zero_()
        out.bias.zero_() if out.bias is not None else None
        if (positions := model.family.positions(net)) is not None:
            positions.zero_()
        x = parts.mlp_norm(model, 0)(net.get_input_embeddings().weight[wake].float())
        k = 40 * x / x.norm() ** 2
        mlp = model.family.mlp_parts(net, 0)
        into, b_into = (mlp.W_in, mlp.b_in) if mlp.W_gate is None else (mlp.W_gate, mlp.b_gate)
        into[:, key] = k
        b_into[key] = -32
        if mlp.W_gate is not None:
            mlp.W_in[:, key] = 0
            mlp.b_in[key] = -1  # a gated memory may wake with the sign that it likes
        W_U = parts.unembedding(model).W_U[:, write]
        sign = -1 if mlp.W_gate is not None else 1
        mlp.W_out[key] = sign * W_U / parts.final_norm(model).gain
    return model


def gauged(model, layers):
    """The same model with every (u, v) of these layers as (αu, v/α), α of either sign, in place."""
    generator = torch.Generator().manual_seed(5)
    for layer in layers:
        mlp = model.family.block(model.net, layer).mlp
        size = len(mlp.up_proj.weight)
        alpha = 2.0 ** (4 * torch.rand(size, generator=generator) - 2)
        alpha *= torch.randint(0, 2, (size,), generator=generator) * 2 - 1
        with torch.no_grad():
            mlp.up_proj.weight *= alpha[:, None]
            mlp.down_proj.weight /= alpha
            if mlp.up_proj.bias is not None:
                mlp.up_proj.bias *= alpha
    return model
