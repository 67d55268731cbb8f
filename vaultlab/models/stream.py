"""Who writes to the residual stream, and what becomes of it: shares, norms, subspaces, paths.

Writers in their order are the embedding, then layer by layer attention and MLP; readers are attention and MLP layer by
layer, and the unembedding. A model without MLPs has none of either.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.trace import Site

SLICE = 8
"""Dimensions of the weights on which the sum over paths is formed."""

PATH_LAYERS = 10
"""Layers at most whose paths are all followed; there are two to their number."""


Found = dict[Site, Tensor]


class Place(NamedTuple):
    """A writer or a reader: `embedding`, `attn`, `mlp` or `unembedding`, and its layer where it has one."""

    kind: str
    layer: int | None = None

    @property
    def name(self) -> str:
        """As it is drawn: `attn 3`, `MLP 3`."""
        kind = "MLP" if self.kind == "mlp" else self.kind
        return kind if self.layer is None else f"{kind} {self.layer}"


def layers_of(shape: Shape) -> tuple[Place, ...]:
    """Attention and MLP, layer by layer."""
    kinds = ("attn", "mlp") if shape.d_mlp else ("attn",)
    return tuple(Place(kind, layer) for layer in range(shape.layers) for kind in kinds)


def writers_of(shape: Shape) -> tuple[Place, ...]:
    return (Place("embedding"), *layers_of(shape))


def readers_of(shape: Shape) -> tuple[Place, ...]:
    return (*layers_of(shape), Place("unembedding"))


def sees(shape: Shape) -> Bool[Tensor, "reader writer"]:
    """Which writers come before which readers. An MLP beside its layer's attention does not see what that writes."""
    writers, readers = writers_of(shape), readers_of(shape)
    before = torch.arange(len(writers)) <= torch.arange(len(readers))[:, None]
    if "parallel" in shape.flags:
        for row, reader in enumerate(readers):
            if reader.kind == "mlp":
                before[row, writers.index(Place("attn", reader.layer))] = False
    return before


def sites(shape: Shape) -> tuple[Site, ...]:
    """The stream before every layer and behind the last, and all that is written to it."""
    inside = (Site(name, layer) for layer in range(shape.layers) for name in ("resid_pre", "attn", "mlp"))
    return (*inside, Site("final"))


def written(found: dict[Site, Tensor], shape: Shape) -> Iterator[Float[Tensor, "pos d_model"]]:
    """What every writer wrote, in float32."""
    for kind, layer in writers_of(shape):
        site = Site("resid_pre", 0) if kind == "embedding" else Site("attn" if kind == "attn" else "mlp", layer)
        yield found[site].float()


class Reading(NamedTuple):
    """A text's stream, by writer or by layer. `shares` are those of the last stream, c · x / ‖x‖², and `squares` ‖c‖²;
    `relative` is the norm of a write by that of the stream that it is added to, `cosine` is between the two; `norms`
    are those of the stream before every layer and behind the last. `subspaces` are the first directions of what each
    writer writes to the tokens that are kept."""

    shares: Float[Tensor, "writer pos"]
    squares: Float[Tensor, "writer pos"]
    relative: Float[Tensor, "writer pos"]
    cosine: Float[Tensor, "writer pos"]
    norms: Float[Tensor, "layer pos"]
    subspaces: Float[Tensor, "writer d_model k"]
    sum_residual: Float[Tensor, ""]


def read(found: dict[Site, Tensor], shape: Shape, kept: Bool[Tensor, " pos"], k: int) -> Reading:
    """Every writer against the stream, one after another; fewer than `k` directions where a writer has not as many."""
    streams = [found[Site("resid_pre", layer)].float() for layer in range(shape.layers)] + [
        found[Site("final")].float()
    ]
    last, total, gaps = streams[-1], torch.zeros_like(streams[0], dtype=_wide(streams[0])), []
    rows, bases = [], []
    each = len(layers_of(shape)) // shape.layers
    for at, write in enumerate(written(found, shape)):
        before, size = total.float(), write.norm(dim=-1)
        length = before.norm(dim=-1)
        angle = (write * before).sum(-1) / (size * length).clamp(min=1e-30)
        relative = size / length.clamp(min=1e-30) if at else torch.ones_like(size)
        rows.append(((write * last).sum(-1) / last.square().sum(-1), size.square(), relative, angle))
        bases.append(_directions(write[kept], k))
        total = total + write
        if at % each == 0:  # a layer is complete, or the embedding
            stream = streams[at // each]
            gaps.append(((total - stream).norm(dim=-1) / stream.norm(dim=-1)).max())
    common = min(basis.shape[1] for basis in bases)
    shares, squares, relative, cosine = (torch.stack(part) for part in zip(*rows, strict=True))
    return Reading(
        shares,
        squares,
        relative,
        cosine,
        torch.stack([stream.norm(dim=-1) for stream in streams]),
        torch.stack([basis[:, :common] for basis in bases]),
        torch.stack(gaps).max(),
    )


def _wide(like: Tensor) -> torch.dtype:
    return torch.float32 if like.device.type == "mps" else torch.float64  # mps has no float64


def _directions(write: Float[Tensor, "pos d_model"], k: int) -> Float[Tensor, "d_model k"]:
    """The first right singular vectors, the strongest first, as many as there are up to k."""
    write = write.to(_wide(write))
    values, left = torch.linalg.eigh(write @ write.T)  # tokens are fewer than dimensions, or nearly so
    values, left = values.flip(0)[:k], left.flip(1)[:, :k]
    there = values > 1e-9 * values[0]
    right: Tensor = write.T @ left[:, there] / values[there].sqrt()
    return right.float()


def overlaps(subspaces: Float[Tensor, "writer d_model k"]) -> Float[Tensor, "writer writer"]:
    """‖U_aᵀ U_b‖² / k: 1 for the same subspace, 0 for subspaces at right angles, k / d_model for random ones."""
    flat = subspaces.transpose(1, 2).flatten(0, 1)
    k = subspaces.shape[-1]
    squares = (flat @ flat.T).square().view(len(subspaces), k, len(subspaces), k)
    shared: Float[Tensor, "writer writer"] = squares.sum((1, 3)) / k
    return shared


def paths_residual(A: Float[Tensor, "layer m m"]) -> Float[Tensor, ""]:
    """How far (I + A_L) … (I + A_1) is from the sum over all paths, each the product of the layers that it goes by."""
    eye = torch.eye(A.shape[-1]).to(A)
    whole = eye
    for one in A:
        whole = whole @ (eye + one)
    total = torch.zeros_like(eye)
    for length in range(len(A) + 1):
        for path in combinations(range(len(A)), length):
            term = eye
            for layer in path:
                term = term @ A[layer]
            total = total + term
    gap: Tensor = (whole - total).abs().max() / whole.abs().max()
    return gap


def linear_slices(model: Model, layers: Sequence[int], dtype: torch.dtype) -> Float[Tensor, "layer m m"]:
    """A corner of Σ_h W_V W_O of some layers: a linear net of a few dimensions."""
    slices = []
    for layer in layers:
        attn = parts.attention(model, layer)
        W_V, W_O = attn.W_V[:, :SLICE].to(dtype), attn.W_O[..., :SLICE].to(dtype)
        slices.append(einsum(W_V, W_O, "head m d_head, head d_head n -> m n"))
    return torch.stack(slices)


def along_paths(model: Model, found: dict[Site, Tensor], dtype: torch.dtype) -> Float[Tensor, ""]:
    """With its patterns frozen a model of attention alone is a linear net: how far its last stream is from the sum over
    all paths from the embedding, each through the heads of the layers that it goes by."""
    start, layers = found[Site("resid_pre", 0)].to(dtype), range(model.shape.layers)
    attns = [parts.attention(model, layer, dtype) for layer in layers]
    patterns = [attn.pattern(found[Site("resid_pre", layer)].to(dtype)) for layer, attn in enumerate(attns)]
    total = torch.zeros_like(start)
    for length in range(len(attns) + 1):
        for path in combinations(layers, length):
            x = start
            for layer in path:
                x = attns[layer].writes(attns[layer].z(patterns[layer], x)).sum(-2)
            total = total + x
    last = found[Site("final")].to(dtype)
    worst: Tensor = ((total - last).norm(dim=-1) / last.norm(dim=-1)).max()
    return worst
