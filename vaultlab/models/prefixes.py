"""Triggers read again, by other ways than the stream: their prefixes alone, and in another gauge."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.memories import Triggers, readout
from vaultlab.models.model import Model
from vaultlab.models.sentences import Sentences, batch_of
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
    found = wide = trace(model, batch.ids, [*names, Site("final")])
    if model.dtype not in (torch.float32, torch.float64):
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


def shortest(sentences: Sentences, at: Int[Tensor, " prefix"], tokens: int) -> Int[Tensor, " some"]:
    """Which of these prefixes are read as one batch of at most so many tokens, the shortest first; one at least."""
    prefixes = sentences.up_to(at)
    order = (prefixes.stop - prefixes.start).argsort(stable=True)
    length = (prefixes.stop - prefixes.start)[order] + len(sentences.lead)
    fits = int((length * torch.arange(1, len(order) + 1) <= tokens).sum())
    return order[: max(1, fits)]


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
        written.append(amount * one.W_out[key])
    own, other_way = pushes(model, torch.cat(written)).chunk(2)  # the whole unembedding is read once for both
    return torch.maximum(apart(*strengths), apart(own, other_way))


def misaligned(sentences: Sentences, found: Triggers) -> int:
    """How many triggers begin a sentence, or are followed in the text by another token than the one kept."""
    woken = found.at >= 0
    at, came = found.at[woken], found.next[woken]
    home = sentences.holding(at)
    within = sentences.ids[(at + 1).clamp(max=len(sentences.ids) - 1)]
    follows = torch.where(at + 1 < sentences.stop[home], within, sentences.next[at])
    first = (at == sentences.start[home]) & (len(sentences.lead) == 0)
    return int(((follows != came) | first).sum())


def line(model: Model, sentences: Sentences, at: int) -> tuple[str, str, str]:
    """A prefix as it is shown: what stands before the token that wakes a memory, that token, the next one."""
    [start] = sentences.up_to(torch.tensor([at])).start.tolist()
    before = model.tokenizer.decode(sentences.ids[start:at].tolist(), clean_up_tokenization_spaces=False)
    token, after = model.token_strings([int(sentences.ids[at]), int(sentences.next[at])])
    return before, token, after
