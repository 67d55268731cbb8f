"""Triggers read again, by other ways than the stream: their prefixes alone, a batch directly, in another gauge."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.load import Model
from vaultlab.models.memories import Triggers, look, readout
from vaultlab.models.sentences import Sentences, batch_of, batches
from vaultlab.models.trace import Site, trace
from vaultlab.models.verify import in_float32
from vaultlab.models.weights import MLPParts


class Seen(NamedTuple):
    """The last tokens of some prefixes: what their MLP read in float32, its coefficients, the final norm's scale."""

    mlp_in: Float[Tensor, "prefix d_model"]
    m: Float[Tensor, "prefix d_mlp"]
    scale: Float[Tensor, " prefix"]
    algebra_residual: Float[Tensor, ""]
    rounding_residual: Float[Tensor, ""]


def read_prefixes(model: Model, prefixes: Sentences, layer: int) -> Seen:
    """One pass through the whole model, and one in float32 up to the layer; the identities hold at every token."""
    batch = batch_of(prefixes, torch.arange(len(prefixes)))
    real = batch.real.to(model.device)
    last = real.sum(1) - 1
    rows = torch.arange(len(last), device=model.device)
    names = Site("mlp_in", layer), Site("m", layer), Site("mlp", layer)
    found = trace(model, batch.ids, [*names, Site("final")])
    with in_float32(model):
        wide = trace(model, batch.ids, [names[0], names[2]])
    exact = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    mlp = parts.mlp(model, layer, exact)
    own = found[names[1]][real].to(exact) @ mlp.W_out + mlp.b_out
    return Seen(
        mlp_in=wide[names[0]][rows, last],
        m=found[names[1]][rows, last],
        scale=parts.final_norm(model).scale(found[Site("final")][rows, last])[:, 0],
        algebra_residual=apart(mlp(wide[names[0]][real].to(exact)), wide[names[2]][real]),
        rounding_residual=apart(own, found[names[2]][real]),
    )


def apart(one: Float[Tensor, "*row d_model"], other: Float[Tensor, "*row d_model"]) -> Float[Tensor, ""]:
    """The largest distance of two rows, as a share of their norm."""
    worst: Tensor = ((one - other).norm(dim=-1) / other.norm(dim=-1).clamp(min=1e-30)).max()
    return worst


def pushes(model: Model, written: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
    """What a write, times its token's final norm scale, adds to the logits, less their mean; in nats."""
    logits = readout(model, written) @ parts.unembedding(model, written.dtype).W_U
    return logits - logits.mean(-1, keepdim=True)


def gauge_residual(
    model: Model, mlp: MLPParts, seen: Seen, key: Int[Tensor, " prefix"], generator: torch.Generator
) -> Float[Tensor, ""]:
    """How far strengths and pushes of what is shown move when every (u, v) becomes (αu, v/α), α of either sign.

    0 where the MLP is not gated: f then sees α.
    """
    if mlp.W_gate is None:
        return torch.tensor(0.0)
    size = 2.0 ** (6 * torch.rand(len(mlp.W_out), generator=generator) - 3)
    alpha = (size * torch.randint(0, 2, size.shape, generator=generator).mul(2).sub(1)).to(mlp.W_in)
    other = replace(mlp, W_in=mlp.W_in * alpha, b_in=mlp.b_in * alpha, W_out=mlp.W_out / alpha[:, None])
    strengths, written = [], []
    for one in (mlp, other):
        m = one.coefficients(seen.mlp_in.to(one.W_in))
        strengths.append(m.abs() * one.W_out.norm(dim=-1))
        amount = m.gather(1, key[:, None]) * seen.scale[:, None]
        written.append(pushes(model, amount * one.W_out[key]))
    return torch.maximum(apart(*strengths), apart(*written))


def stream_residual(
    model: Model, sentences: Sentences, layer: int, keys: slice, found: Triggers, size: int
) -> Float[Tensor, ""]:
    """How far the strongest |m| of a key move, as a share of its largest, when one batch is looked at directly.

    It is the batch with the strongest trigger of all. Its triggers are taken out of what the stream found, and put in
    again from a plain look at each of its sentences.
    """
    best = found.coefficient[:, 0].abs().argmax()
    home = sentences.holding(found.at)
    batch = next(one for one in batches(sentences, size) if home[best, 0] in one.sentence)
    _, coefficients, ask, _ = look(model, batch, layer)
    direct = torch.stack(
        [
            m[may].abs().amax(0) if may.any() else torch.zeros_like(m[0])
            for m, may in zip(coefficients[..., keys], ask, strict=True)
        ]
    )
    strength = found.coefficient.abs()
    elsewhere = strength.masked_fill(torch.isin(home, batch.sentence), 0)
    again = torch.cat([elsewhere, direct.T.cpu().to(strength)], dim=1).topk(strength.shape[1], dim=1).values
    return ((again - strength).abs().amax(1) / strength[:, 0].clamp(min=1e-30)).max()


def misaligned(sentences: Sentences, found: Triggers) -> int:
    """How many triggers begin a sentence, or are followed in the text by another token than the one kept."""
    woken = found.at >= 0
    at, came = found.at[woken], found.next[woken]
    home = sentences.holding(at)
    within = sentences.ids[(at + 1).clamp(max=len(sentences.ids) - 1)]
    follows = torch.where(at + 1 < sentences.stop[home], within, sentences.next[at])
    first = (at == sentences.start[home]) & (len(sentences.lead) == 0)
    return int(((follows != came) | first).sum())
