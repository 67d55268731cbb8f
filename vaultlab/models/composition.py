"""How much heads read of what earlier heads write, from the weights alone, for all pairs without one large product.

A head writes x W_V W_O and asks x W_Q R W_Kᵀ x′; a later head reads what an earlier one wrote in three places. Each
product of a pair's weights is d_model × d_model, and of rank d_head: its Frobenius norm is that of two thin factors,
since ‖M N‖² = tr(MᵀM · N Nᵀ) depends on M and N through their Grams, and these are d_head × d_head.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from einops import einsum, rearrange, reduce
from jaxtyping import Complex, Float
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.heads import apart
from vaultlab.models.model import Model
from vaultlab.models.weights import AttentionParts, Rotary

KINDS = ("Q", "K", "V")
"""Where a head reads another: into its queries, its keys, its values. Always in this order."""


class Factors(NamedTuple):
    """The heads of one layer as what they write and what they read, of norm 1 each.

    ‖W_V W_O M‖ ∝ ‖writes M‖ and ‖M W_Q R W_Kᵀ‖ ∝ ‖M reads[0]‖ for every M; likewise ‖M W_K Rᵀ W_Qᵀ‖ and ‖M W_V W_O‖.
    """

    writes: Float[Tensor, "head d_head d_model"]
    reads: Float[Tensor, "kind head d_model d_head"]


def readers(model: Model, layer: int, dtype: torch.dtype) -> AttentionParts:
    """A layer's attention as it meets the bare stream, at a frozen scale: the norm's gain folded into what reads.

    LayerNorm takes the mean over d_model out of the stream, so it goes out of what reads it and of what is written for
    it. Where queries and keys are normed, their gains are folded in too and their scales count as frozen.
    """
    attn, norm = parts.attention(model, layer, dtype), parts.attn_norm(model, layer, dtype)
    attn = attn.folded(norm)
    if attn.q_norm is not None and attn.k_norm is not None:
        attn = replace(attn, W_Q=attn.W_Q * attn.q_norm.gain, W_K=attn.W_K * attn.k_norm.gain)
    if norm.kind != "layer":
        return attn
    W_Q, W_K, W_V = (W - W.mean(-2, keepdim=True) for W in (attn.W_Q, attn.W_K, attn.W_V))
    return replace(attn, W_Q=W_Q, W_K=W_K, W_V=W_V, W_O=attn.W_O - attn.W_O.mean(-1, keepdim=True))


def width(model: Model) -> int:
    """Of how many dimensions the stream is, as heads read it: LayerNorm leaves one less."""
    return model.shape.d_model - (parts.attn_norm(model, 0).kind == "layer")


def factors(attn: AttentionParts, distances: Sequence[int]) -> Factors:
    """The factors of a layer that `readers` gave; scores are mean squares over `distances` of queries from keys."""
    seen = [distance for distance in distances if attn.window is None or distance < attn.window]
    of_keys, of_queries = _gram(attn.W_K.mT), _gram(attn.W_Q.mT)
    if attn.rotary is not None:
        of_keys, of_queries = turned(attn.rotary, of_keys, seen), turned(attn.rotary, of_queries, [-at for at in seen])
    reads = [
        attn.W_Q @ _root(of_keys, attn.W_Q),
        attn.W_K @ _root(of_queries, attn.W_K),
        attn.W_V @ _root(_gram(attn.W_O), attn.W_V),
    ]
    return Factors(_unit(_root(_gram(attn.W_V.mT), attn.W_O) @ attn.W_O), _unit(torch.stack(reads)))


def turned(
    rotary: Rotary, gram: Float[Tensor, "head d_head d_head"], distances: Sequence[int]
) -> Float[Tensor, "head d_head d_head"]:
    """The mean over distances of R G Rᵀ, with R = rotary.matrix(distance).

    In the basis T of its planes R is diagonal, so that all distances together are one product entry by entry.
    """
    T, half = _planes(rotary), len(rotary.frequencies)
    angles = torch.tensor(distances, dtype=torch.float64)[:, None] * rotary.frequencies.cpu().double()
    turns = torch.polar(torch.full_like(angles, rotary.scaling**2), angles)
    still = torch.ones(len(distances), rotary.d_head - 2 * half, dtype=turns.dtype)
    D = torch.cat([turns, turns.conj(), still], 1)
    mean = einsum(D, D.conj(), "distance a, distance b -> a b") / len(distances)
    found: Tensor = (T @ ((T.mH @ gram.to(T) @ T) * mean) @ T.mH).real
    return found


def _planes(rotary: Rotary) -> Complex[Tensor, "d_head d_head"]:
    """The unitary T for which T† R T is diagonal: dimension i and i + half as one complex number and its conjugate."""
    half, d_head = len(rotary.frequencies), rotary.d_head
    T = torch.zeros(d_head, d_head, dtype=torch.complex128)
    plane = torch.arange(half)
    T[plane, plane] = T[plane, plane + half] = 1 / math.sqrt(2)
    turn = torch.tensor(1j / math.sqrt(2), dtype=T.dtype)
    T[plane + half, plane], T[plane + half, plane + half] = turn, -turn
    rest = torch.arange(2 * half, d_head)
    T[rest, rest] = 1
    return T


def _gram(W: Float[Tensor, "head thin wide"]) -> Float[Tensor, "head thin thin"]:
    return (W @ W.mT).cpu().double()


def _root(gram: Float[Tensor, "head d_head d_head"], like: Tensor) -> Float[Tensor, "head d_head d_head"]:
    """The symmetric square root: a Cholesky factor would not be there for a head that does nothing in a direction."""
    values, vectors = torch.linalg.eigh(gram)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT
    return root.to(like)


def _unit(W: Float[Tensor, "*heads rows cols"]) -> Float[Tensor, "*heads rows cols"]:
    norm: Tensor = torch.linalg.matrix_norm(W, keepdim=True)
    return W / norm.clamp(min=1e-30)


def scores(
    writes: Float[Tensor, "writer d_head d_model"], reads: Float[Tensor, "kind reader d_model d_head"]
) -> Float[Tensor, "kind writer reader"]:
    """‖writes · reads‖ of every pair: 1/√d_model on average (as a root mean square) where neither knows the other."""
    products = rearrange(writes, "w h d -> (w h) d") @ rearrange(reads, "kind r d h -> d (kind r h)")
    shape = {"w": len(writes), "r": reads.shape[1]}
    squares: Tensor = reduce(products.square_(), "(w h) (kind r k) -> kind w r", "sum", **shape, kind=len(reads))
    return squares.sqrt()


def peak(W: Float[Tensor, "*heads d_model d_head"]) -> Float[Tensor, " *heads"]:
    """tr(P²) of a factor of norm 1, P = W Wᵀ: 1 where it lies in one direction, 1/k where in k alike."""
    squares: Tensor = (W.mT @ W).square().sum((-2, -1))
    return squares


def by_chance(one: Tensor, other: Tensor, dimensions: int) -> Tensor:
    """The standard deviation of score² when the stream is turned at random between two heads of these `peak`s.

    tr(P R S Rᵀ) over all rotations R has the mean tr(P) tr(S)/d; of its spread only the traceless parts of P and S
    have a share, and on traceless symmetric matrices, a space of (d − 1)(d + 2)/2 dimensions, rotations act without an
    invariant subspace: each square mean is the norms' product divided by that dimension (Schur's lemma).
    """
    d = dimensions
    spread = (one - 1 / d).clamp(min=0) * (other - 1 / d).clamp(min=0)
    return (2 * spread / ((d - 1) * (d + 2))).sqrt()


def random_writes(
    writes: Float[Tensor, "head d_head d_model"], generator: torch.Generator, width: int
) -> Float[Tensor, "head d_head d_model"]:
    """The heads' writes turned at random, each by a rotation of its own: as strong in as many directions, but others.

    `width` is that of the stream as heads read it: one less than d_model, and the sum over d_model stays 0.
    """
    heads, d_head, d_model = writes.shape
    drawn = torch.randn(heads, d_model, d_head, generator=generator).to(writes)
    if width < d_model:
        drawn = drawn - drawn.mean(1, keepdim=True)
    singular = torch.linalg.eigvalsh((writes @ writes.mT).cpu().double()).clamp(min=0).sqrt().to(writes)
    # Orthonormal columns by the Gaussians' own Gram: the same as QR's, and on a device without waiting for it.
    lower = torch.linalg.cholesky((drawn.mT @ drawn).cpu().double()).to(writes)
    basis = torch.linalg.solve_triangular(lower, drawn.mT, upper=False)
    turned: Tensor = singular[..., None] * basis
    return turned


class Exact(NamedTuple):
    """One pair in float64 by other ways, and what must not matter. Scores are by kind; residuals relative."""

    scores: Float[Tensor, " kind"]
    whole_residual: Float[Tensor, ""]
    basis_residual: Float[Tensor, ""]
    folding_residual: Float[Tensor, ""]


def exact(
    model: Model, writer: tuple[int, int], reader: tuple[int, int], distances: Sequence[int], draws: torch.Generator
) -> Exact:
    """A pair's scores distance by distance with the rotation as a matrix, and its identities."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    first, second = only(readers(model, writer[0], wide), writer[1]), only(readers(model, reader[0], wide), reader[1])
    seen = [distance for distance in distances if second.window is None or distance < second.window]
    found = _by_distance(first, second, seen)
    new = _other_basis(first, second, draws)
    few = seen[-1:]
    return Exact(
        found.cpu(),
        apart(_whole(first, second, few[0]), _by_distance(first, second, few)).cpu(),
        apart(_by_distance(*new, seen), found).cpu(),
        _folding(model, reader[0], wide, draws).cpu(),
    )


def only(attn: AttentionParts, head: int) -> AttentionParts:
    """The same layer with this head alone."""
    only = slice(head, head + 1)
    named = {name: getattr(attn, name)[only] for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")}
    return replace(attn, **named)


def _rotation(attn: AttentionParts, distance: int) -> Float[Tensor, "d_head d_head"]:
    if attn.rotary is not None:
        return attn.rotary.matrix(distance, attn.W_Q)
    return torch.eye(attn.W_Q.shape[-1]).to(attn.W_Q)


def _by_distance(first: AttentionParts, second: AttentionParts, distances: Sequence[int]) -> Float[Tensor, " kind"]:
    """Each score from traces of d_head × d_head matrices, nothing averaged before its square is taken."""
    G = (first.W_V.mT @ first.W_V)[0]
    own = torch.trace(G @ (first.W_O @ first.W_O.mT)[0])

    def squares(W: Tensor, core: Tensor) -> tuple[Tensor, Tensor]:
        """‖W_OV W core^½‖² and ‖W core^½‖²."""
        C = (first.W_O @ W)[0]
        return torch.trace(G @ C @ core @ C.T), torch.trace((W.mT @ W)[0] @ core)

    of_keys, of_queries = (second.W_K.mT @ second.W_K)[0], (second.W_Q.mT @ second.W_Q)[0]
    turns = [_rotation(second, distance) for distance in distances]
    sums = [
        torch.stack([torch.stack(squares(second.W_Q, R @ of_keys @ R.T)) for R in turns]).sum(0),
        torch.stack([torch.stack(squares(second.W_K, R.T @ of_queries @ R)) for R in turns]).sum(0),
        torch.stack(squares(second.W_V, (second.W_O @ second.W_O.mT)[0])),
    ]
    return torch.stack([(product / (own * norm)).sqrt() for product, norm in sums])


def _whole(first: AttentionParts, second: AttentionParts, distance: int, rows: int = 256) -> Float[Tensor, " kind"]:
    """The same from every entry of the d_model × d_model products, a few rows at a time."""
    R = _rotation(second, distance)
    W_O, W_V = first.W_O[0], first.W_V[0]
    pairs = [
        (second.W_Q[0] @ R, second.W_K[0].T),
        (second.W_K[0] @ R.T, second.W_Q[0].T),
        (second.W_V[0], second.W_O[0]),
    ]
    squares = W_V.new_zeros(3, 3)
    for start in range(0, len(W_V), rows):
        some = slice(start, start + rows)
        W_OV = W_V[some] @ W_O
        for kind, (left, right) in enumerate(pairs):
            products = (W_OV @ left @ right, W_OV, left[some] @ right)
            squares[kind] += torch.stack([product.square().sum() for product in products])
    return (squares[:, 0] / (squares[:, 1] * squares[:, 2])).sqrt()


def _other_basis(
    first: AttentionParts, second: AttentionParts, draws: torch.Generator
) -> tuple[AttentionParts, AttentionParts]:
    """The same heads with their values in other coordinates, and queries and keys where the rotation allows it."""

    def invertible() -> Tensor:
        d_head = first.W_V.shape[-1]
        drawn = torch.randn(d_head, d_head, generator=draws, dtype=torch.float64) / math.sqrt(d_head)
        return (torch.eye(d_head, dtype=torch.float64) + 0.5 * drawn).to(first.W_V)

    changed = []
    for attn in (first, second):
        M = invertible()
        changed.append(replace(attn, W_V=attn.W_V @ M, W_O=M.inverse() @ attn.W_O))
    first, second = changed
    M = invertible()
    if second.rotary is not None:  # what commutes with every rotation turns and stretches each plane by itself
        half = len(second.rotary.frequencies)
        plane = torch.arange(half)
        re, im = M[plane, plane].clone(), M[plane, plane.flip(0)].clone()
        M = torch.eye(len(M)).to(M)
        M[plane, plane], M[plane, plane + half] = re, im
        M[plane + half, plane], M[plane + half, plane + half] = -im, re
    return first, replace(second, W_Q=second.W_Q @ M, W_K=second.W_K @ M.inverse().T)


def _folding(model: Model, layer: int, dtype: torch.dtype, draws: torch.Generator) -> Float[Tensor, ""]:
    """How far queries, keys and values of a stream x are from scale(x) · x W + constant, the norm folded into W."""
    plain, folded, norm = (
        parts.attention(model, layer, dtype),
        readers(model, layer, dtype),
        parts.attn_norm(model, layer, dtype),
    )
    x = torch.randn(4, model.shape.d_model, generator=draws, dtype=torch.float64).to(plain.W_V)
    residuals = []
    for W, W_read, gained in (
        (plain.W_Q, folded.W_Q, plain.q_norm),
        (plain.W_K, folded.W_K, plain.k_norm),
        (plain.W_V, folded.W_V, None),
    ):
        W_gained = W if gained is None else W * gained.gain
        residuals.append(apart(x * norm.scale(x) @ W_read + (norm.bias @ W_gained)[:, None], norm(x) @ W_gained))
    return torch.stack(residuals).max()
