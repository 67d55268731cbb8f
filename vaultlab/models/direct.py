"""What each part of a model adds to a token's logit by itself: its direct push.

The last stream is the sum of what was written to it. With the final norm's scale s_i of each token i frozen, norm and
unembedding are one linear map, so the logits are the sum of what each part adds to them:

    push of a write c on the direction u = s_i · c · g        g = gain ⊙ u, under LayerNorm less its own mean

A head's write counts without b_V and the norm's bias, which it adds wherever it looks; they are the layer's biases.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.family import Shape
from vaultlab.models.heads import constant
from vaultlab.models.model import Model
from vaultlab.models.trace import Site
from vaultlab.models.weights import AttentionParts, Norm

COLUMNS = 8192
"""Tokens of the vocabulary that are unembedded at a time in float64: a whole W_U would be larger than the model."""


def names_of(shape: Shape) -> tuple[str, ...]:
    """The parts in the order in which `Pushes` has them: embedding, heads, then by layer biases and MLPs, the rest."""
    layers = range(shape.layers)
    return (
        "embedding",
        *(f"L{layer}H{head}" for layer in layers for head in range(shape.heads)),
        *(f"attention biases {layer}" for layer in layers),
        *(f"MLP {layer}" for layer in layers),
        "last biases",
    )


class Split(NamedTuple):
    """Parts by what they are; `split` makes it of numbers in the order of `names_of`."""

    embedding: Float[Tensor, "*of"]
    heads: Float[Tensor, "*of layer head"]
    biases: Float[Tensor, "*of layer"]
    mlps: Float[Tensor, "*of layer"]
    last: Float[Tensor, "*of"]


def split(values: Float[Tensor, "*of part"], layers: int) -> Split:
    """The parts of a model with so many layers."""
    sizes = [1, values.shape[-1] - 2 - 2 * layers, layers, layers, 1]
    first, heads, biases, mlps, last = torch.split(values, sizes, -1)
    return Split(first[..., 0], heads.view(*heads.shape[:-1], layers, -1), biases, mlps, last[..., 0])


def sites(shape: Shape) -> tuple[Site, ...]:
    """What `push` and `from_tokens` read of a forward pass."""
    inside = (Site(name, layer) for layer in range(shape.layers) for name in ("attn_in", "z", "attn", "mlp"))
    return (Site("resid_pre", 0), *inside, Site("final"), Site("logits"))


class Asked(NamedTuple):
    """Directions that are asked about: a column of W_U less the baseline, and the same of b_U."""

    u: Float[Tensor, "*which d_model"]
    b: Float[Tensor, "*which"]


class Readers(NamedTuple):
    """The columns of W_U, and their mean over the vocabulary; `shift` is added to every column."""

    W_U: Float[Tensor, "d_model d_vocab"]
    b_U: Float[Tensor, " d_vocab"]
    mean: Float[Tensor, " d_model"]
    mean_b: Float[Tensor, ""]
    shift: Float[Tensor, " d_model"]

    def asked(self, target: Int[Tensor, "*which"], foil: Int[Tensor, "*which"] | None) -> Asked:
        """The way from the foil's logit, or the vocabulary's mean, to the target's."""
        u, b = self._column(target)
        below, below_b = (self.mean + self.shift, self.mean_b) if foil is None else self._column(foil)
        return Asked(u - below, b - below_b)

    def _column(self, token: Int[Tensor, "*which"]) -> tuple[Tensor, Tensor]:
        token = token.to(self.W_U.device)
        column = self.W_U.T[token].to(self.mean) + self.shift
        return column, self.b_U[token].to(self.mean)


def readers(model: Model) -> Readers:
    """The model's own columns, with nothing added to them. Only what is asked for is upcast."""
    unembedding, wide = parts.unembedding(model), torch.promote_types(model.dtype, torch.float32)
    W_U, b_U = unembedding.W_U, unembedding.b_U
    sums = torch.stack([some.to(wide).sum(-1) for some in torch.split(W_U, COLUMNS, -1)])
    mean = sums.sum(0) / W_U.shape[-1]
    return Readers(W_U, b_U, mean, b_U.to(wide).mean(), torch.zeros_like(mean))


class Pushes(NamedTuple):
    """`own` are those on each direction asked for, token by token; `null` on each of other directions, mean over the
    tokens. `names_of` has the order. `heads_residual` compares a layer's heads and biases with its output."""

    own: Float[Tensor, "which pos part"]
    null: Float[Tensor, "draw part"]
    heads_residual: Float[Tensor, ""]


def push(
    model: Model,
    found: dict[Site, Tensor],
    at: Int[Tensor, " pos"],
    asked: Asked,
    null: Asked,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pushes:
    """What every part adds to the logits asked for, at the positions `at`; in float32, one layer at a time."""
    norm = parts.final_norm(model, asked.u.dtype)
    scale = norm.scale(found[Site("final")][at].to(asked.u))
    G, N = seen_through(norm, asked.u), seen_through(norm, null.u)

    def of(write: Float[Tensor, "pos d_model"]) -> tuple[Tensor, Tensor]:
        return ((G * write).sum(-1) * scale[:, 0])[..., None], (N @ (write * scale).mean(0))[:, None]

    embedding, biases, mlps, heads, residuals = of(found[Site("resid_pre", 0)][at].to(G)), [], [], [], []
    for layer in range(model.shape.layers):
        progress(layer, model.shape.layers)
        attn, attn_norm = parts.attention(model, layer, G.dtype), parts.attn_norm(model, layer, G.dtype)
        z = found[Site("z", layer)][at].to(G) - carried(attn, attn_norm)
        read = einsum(G, attn.W_O, "which pos d_model, head d_head d_model -> which pos head d_head")
        mean = einsum((z * scale[..., None]).mean(0), attn.W_O, "head d_head, head d_head d_model -> head d_model")
        heads.append(((read * z).sum(-1) * scale, N @ mean.T))
        biases.append(of(constant(attn, attn_norm).expand(len(at), -1)))
        mlps.append(of(found[Site("mlp", layer)][at].to(G)))
        output = found[Site("attn", layer)][at].to(G)
        gap = heads[-1][0].sum(-1) + biases[-1][0][..., 0] - of(output)[0][..., 0]
        size = output.norm(dim=-1) * G.norm(dim=-1) * scale[:, 0]
        residuals.append((gap.abs() / size.clamp(min=1e-30)).max())
    ending = tuple((one.u @ norm.bias + one.b)[..., None] for one in (asked, null))
    own, chance = (torch.cat(side, -1) for side in zip(embedding, *heads, *biases, *mlps, ending, strict=True))
    return Pushes(own, chance, torch.stack(residuals).max())


def seen_through(norm: Norm, u: Float[Tensor, "*which d_model"]) -> Float[Tensor, "*which d_model"]:
    """g such that norm(x) · u = scale(x) · x · g + bias · u."""
    g = norm.gain * u
    return g - g.mean(-1, keepdim=True) if norm.kind == "layer" else g


def carried(attn: AttentionParts, norm: Norm) -> Float[Tensor, "head d_head"]:
    """What every head's z holds wherever it looks, since rows of A sum to 1: b_V, and the norm's bias as a value."""
    return attn.b_V + einsum(norm.bias, attn.W_V, "d_model, head d_model d_head -> head d_head")


def from_tokens(
    model: Model, found: dict[Site, Tensor], heads: tuple[int, list[int]], at: int, asked: Asked
) -> Float[Tensor, "head key"]:
    """What some heads of one layer push at position `at`, split by the token that it was taken from, in the dtype of
    `asked`. By another way than `push`: patterns are rebuilt, and every value goes through W_V and W_O by itself."""
    layer, numbers = heads
    attn, norm = parts.attention(model, layer, asked.u.dtype), parts.attn_norm(model, layer, asked.u.dtype)
    last = parts.final_norm(model, asked.u.dtype)
    x = found[Site("attn_in", layer)].to(asked.u)
    A = attn.pattern(x)[numbers, at]
    written = (x - norm.bias) @ attn.W_V[numbers] @ attn.W_O[numbers]
    scale = last.scale(found[Site("final")][at].to(asked.u))
    pushed: Tensor = A * (written @ seen_through(last, asked.u)) * scale
    return pushed


def rebuilt_logits(model: Model, found: dict[Site, Tensor], at: int, wide: torch.dtype) -> Float[Tensor, " d_vocab"]:
    """All logits at position `at`: every head's write and every bias added up, the final norm at the frozen scale."""
    x = found[Site("resid_pre", 0)][at].to(wide)
    for layer in range(model.shape.layers):
        attn = parts.attention(model, layer, wide)
        x = x + attn.writes(found[Site("z", layer)][[at]].to(wide))[0].sum(0) + attn.b_O
        x = x + found[Site("mlp", layer)][at].to(wide)
    norm = parts.final_norm(model, wide)
    centred = x - x.mean() if norm.kind == "layer" else x
    return unembedded(model, centred * norm.scale(found[Site("final")][at].to(wide)) * norm.gain + norm.bias)


def unembedded(model: Model, read: Float[Tensor, "*pos d_model"]) -> Float[Tensor, "*pos d_vocab"]:
    """The logits of what the final norm gives, in its dtype, some columns of W_U at a time."""
    unembedding = parts.unembedding(model)
    columns = zip(torch.split(unembedding.W_U, COLUMNS, -1), torch.split(unembedding.b_U, COLUMNS), strict=True)
    return torch.cat([read @ W_U.to(read) + b_U.to(read) for W_U, b_U in columns], -1)
