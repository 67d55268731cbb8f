"""Virtual heads: what a head moves of what an earlier head wrote, and how far that moves the logits.

With every norm's scale frozen, attention is linear in the stream that it reads, so what a head h₂ adds to a logit is a
sum over the writers of its stream: the embedding, earlier heads, and MLPs with the biases. Its part from an earlier
head h₁ is what a single head with the pattern A² A¹ and the weights W¹ W² would add: a virtual head.

All of them at once: the push of h₂ goes back through it once, to one vector b_j a token, and each writer's part is Σ_j
w_j · b_j with what it wrote to the tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.composition import readers, width
from vaultlab.models.heads import SLICE, apart
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, SiteName

COLUMNS = 8192
"""Tokens of the vocabulary whose unembeddings are upcast at a time."""


class Pushes(NamedTuple):
    """What pushes the logit of each token that comes, less the vocabulary's mean logit: mean over the text, in nats.

    `virtual` [earlier head, later head] is 0 where the one is not before the other; `chance` its standard deviation
    where the earlier head's writes are turned at random, `chance_together` that of the sum of all. Of every head
    `whole` is its push, of which `embedded` reads the embedding and `rest` MLPs and biases. `direct` and `others` are
    the embedding's, MLPs' and biases' own.
    """

    virtual: Float[Tensor, "first second"]
    chance: Float[Tensor, "first second"]
    chance_together: Float[Tensor, ""]
    whole: Float[Tensor, " second"]
    embedded: Float[Tensor, " second"]
    rest: Float[Tensor, " second"]
    direct: Float[Tensor, ""]
    others: Float[Tensor, ""]
    logit: Float[Tensor, ""]
    paths_residual: Float[Tensor, ""]
    way_residual: Float[Tensor, ""]
    logit_residual: Float[Tensor, ""]


Found = dict[Site, Tensor]


def sites(layers: int) -> tuple[Site, ...]:
    """All that `pushes` needs of a text."""
    names: tuple[SiteName, ...] = ("resid_pre", "pattern", "mlp")
    return (*(Site(name, layer) for layer in range(layers) for name in names), Site("final"), Site("logits"))


def pushes(model: Model, ids: Int[Tensor, " pos"], found: Found, say: Callable[[int, int], None]) -> Pushes:
    """In float32, layer by layer. The last token is left out: nothing comes after it."""
    wide = torch.promote_types(model.dtype, torch.float32)
    count, layers, heads = len(ids) - 1, model.shape.layers, model.shape.heads
    u = _directions(model, ids, found[Site("final")][:count].to(wide))
    embedding = found[Site("resid_pre", 0)][:count].to(wide)
    others = torch.zeros_like(embedding)
    total = layers * heads
    virtual, chance = torch.zeros(total, total), torch.zeros(total, total)
    of_heads: list[Tensor] = []
    ways: list[Tensor] = []
    written: list[Tensor] = []
    grams: list[Tensor] = []
    backs: list[Tensor] = []
    for layer in range(layers):
        say(layer, layers)
        attn, norm = readers(model, layer, wide), parts.attn_norm(model, layer, wide)
        x, A = (
            found[Site("resid_pre", layer)][:count].to(wide),
            found[Site("pattern", layer)][:, :count, :count].to(wide),
        )
        scale = norm.scale(x)
        asked = einsum(u, attn.W_O, "pos d, head k d -> head pos k") / count
        back = (A.mT @ asked @ attn.W_V.mT) * scale
        gram = back @ back.mT
        cols = slice(layer * heads, (layer + 1) * heads)
        for earlier, writes in enumerate(written):
            rows = slice(earlier * heads, (earlier + 1) * heads)
            virtual[rows, cols] = einsum(writes, back, "first pos d, second pos d -> first second").cpu()
            both = einsum(grams[earlier], gram, "first i j, second i j -> first second")
            chance[rows, cols] = (both.clamp(min=0) / width(model)).sqrt().cpu()
        writes = A @ (scale * x @ attn.W_V) @ attn.W_O
        ways.append((writes * u).sum((-2, -1)).cpu() / count)
        of_heads.append(torch.stack([(stream * back).sum((-2, -1)) for stream in (x, embedding, others)]).cpu())
        backs.append(back.sum(0))
        written.append(writes)
        grams.append(writes @ writes.mT)
        constant = parts.attention(model, layer, wide).b_O + attn.b_V.flatten() @ attn.W_O.flatten(0, 1)
        others = others + found[Site("mlp", layer)][:count].to(wide) + constant
    whole, embedded, rest = torch.cat(of_heads, 1)
    # A head's writes are turned once, whoever reads them: all its readers together make one vector a token.
    later = torch.stack(backs).flip(0).cumsum(0).flip(0)[1:]
    squares = [(gram * (back @ back.T)).sum().clamp(min=0) for gram, back in zip(grams, later, strict=False)]
    together = (torch.stack(squares).sum() / width(model)).sqrt().cpu()
    logit, bias = _logit(model, ids, found[Site("logits")][:count])
    direct, rests = ((stream * u).sum().cpu() / count for stream in (embedding, others))
    largest = torch.stack([whole.abs().max(), embedded.abs().max(), rest.abs().max(), virtual.abs().max()]).max()
    return Pushes(
        virtual,
        chance,
        together,
        whole,
        embedded,
        rest,
        direct,
        rests + bias,
        logit,
        paths_residual=(virtual.sum(0) + embedded + rest - whole).abs().max() / largest,
        way_residual=apart(torch.cat(ways), whole),
        logit_residual=(direct + rests + bias + whole.sum() - logit).abs()
        / torch.stack([direct.abs(), (rests + bias).abs(), whole.abs().sum(), logit.abs()]).max(),
    )


def _directions(
    model: Model, ids: Int[Tensor, " pos"], final: Float[Tensor, "before d_model"]
) -> Float[Tensor, "before d_model"]:
    """What of the last stream makes the token that comes likelier than the mean one, at a frozen scale."""
    norm, W_U = parts.final_norm(model, final.dtype), parts.unembedding(model).W_U
    u = norm.gain * (W_U[:, ids[1:].to(W_U.device)].to(final.dtype).T - _mean(W_U, final.dtype)) * norm.scale(final)
    return u - u.mean(-1, keepdim=True) if norm.kind == "layer" else u


def _mean(W_U: Float[Tensor, "d_model d_vocab"], dtype: torch.dtype) -> Float[Tensor, " d_model"]:
    sums = [W_U[:, at : at + COLUMNS].to(dtype).sum(1) for at in range(0, W_U.shape[1], COLUMNS)]
    return torch.stack(sums).sum(0) / W_U.shape[1]


def _logit(model: Model, ids: Int[Tensor, " pos"], logits: Float[Tensor, "before d_vocab"]) -> tuple[Tensor, Tensor]:
    """The mean logit of the tokens that come, less the vocabulary's mean; what the final norm's bias gives to it."""
    own = logits.gather(1, ids[1:, None].to(logits.device))[:, 0].float()
    mean = logits.float().mean(-1)
    norm, W_U = parts.final_norm(model, torch.float32), parts.unembedding(model).W_U
    given = (W_U[:, ids[1:].to(W_U.device)].float().T - _mean(W_U, torch.float32)) @ norm.bias
    return (own - mean).mean().cpu(), given.mean().cpu()


class Pair(NamedTuple):
    """One virtual head: its two heads' patterns and its own, and the residuals of what makes it a head."""

    first_pattern: Float[Tensor, "query key"]
    second_pattern: Float[Tensor, "query key"]
    product: Float[Tensor, "query key"]
    row_residual: Float[Tensor, ""]
    ahead_residual: Float[Tensor, ""]
    kronecker_residual: Float[Tensor, ""]


def pair(model: Model, found: Found, first: tuple[int, int], second: tuple[int, int]) -> Pair:
    """A² A¹ in float64, and (A² ⊗ W²)(A¹ ⊗ W¹) = A² A¹ ⊗ W² W¹ on a slice (weights that act on columns)."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    (few, dims), patterns, weights = SLICE, [], []
    for layer, head in (first, second):
        patterns.append(found[Site("pattern", layer)][head].to(wide))
        attn = readers(model, layer, wide)
        weights.append((attn.W_V[head, :dims] @ attn.W_O[head, :, :dims]).T.contiguous())
    (A, B), (v, w) = patterns, weights
    product, a, b = B @ A, A[:few, :few], B[:few, :few]
    return Pair(
        A.float().cpu(),
        B.float().cpu(),
        product.float().cpu(),
        row_residual=(product.sum(-1) - 1).abs().max().cpu(),
        ahead_residual=product.triu(1).abs().max().cpu(),
        kronecker_residual=apart(torch.kron(b, w) @ torch.kron(a, v), torch.kron(b @ a, w @ v)).cpu(),
    )


def whole_expansion(model: Model, found: Found) -> Float[Tensor, ""] | None:
    """Two layers and nothing but attention: direct path + heads + virtual heads against all logits, in float64.

    (I + Σ A² ⊗ W²)(I + Σ A¹ ⊗ W¹) x W_U, each of its paths by itself. None for any other model.
    """
    if "attention_only" not in model.shape.flags or model.shape.layers != 2:
        return None
    wide = torch.float32 if model.device.type == "mps" else torch.float64
    x, logits = found[Site("resid_pre", 0)].to(wide), found[Site("logits")].to(wide)
    layers = []
    for layer in range(2):
        attn = parts.attention(model, layer, wide)
        layers.append(list(zip(found[Site("pattern", layer)].to(wide), attn.W_V, attn.W_O, strict=True)))
    paths = [x]
    paths += [A @ x @ W_V @ W_O for heads in layers for A, W_V, W_O in heads]
    for A, W_V, W_O in layers[0]:
        paths += [(B @ A) @ x @ (W_V @ W_O) @ (V2 @ O2) for B, V2, O2 in layers[1]]
    return apart(torch.stack(paths).sum(0) @ parts.unembedding(model, wide).W_U, logits).cpu()
