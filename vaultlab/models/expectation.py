"""The toy autoencoder's expected loss without a draw: its value, gradient and curvature exact, and the way down them.

Model and data are those of `autoencoder`: x′ = ReLU(W Wᵀ x + b), x_i is 0 with probability 1 − p, else uniform in
[0, 1]. Take one output i, with c its row of [W Wᵀ | b] and φ = (x, 1). All that its part of the loss needs is one
matrix, the second moments of φ where the output is above 0:

    M = E[1(c·φ > 0) φ φᵀ]      E(x_i − x′_i)² = p/3 + (c − e_i)ᵀ M (c − e_i) − M_ii      gradient by c: 2 M (c − e_i)

M is a piecewise polynomial of the uniform variables' ends, so it is integrated exactly: over x_i in closed form, over
each other feature piece by piece, where so few Gauss–Legendre nodes are exact. Time grows about tenfold with every
feature: meant for two or three.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

TINY = 1e-300
"""Added to what may be 0 under a line: 0/0 is to be 0, and a cut that nothing crosses lies outside [0, 1]."""

NUMBERS = 2**18
"""Nodes that are worked on at once: more would not fit into a core's cache."""

Theta = Float[Tensor, "points features hidden+1"]
Densities = Float[Tensor, " points"]
Importances = Float[Tensor, "points features"]


class Expected(NamedTuple):
    """The expected loss at [W | b], its gradient, and twice its Gauss–Newton curvature Σ I_i E[∇x′_i ∇x′_iᵀ]."""

    loss: Float[Tensor, " points"]
    gradient: Float[Tensor, "points weights"]
    curvature: Float[Tensor, "points weights weights"]


def expected(theta: Theta, density: Densities, importances: Importances) -> Expected:
    """Of every model at its own density p and importances I_i."""
    W, n = theta[..., :-1], theta.shape[1]
    rows = torch.cat([W @ W.mT, theta[..., -1:]], -1)
    moments = second_moments(rows, density)
    off = rows - torch.eye(n, n + 1, dtype=theta.dtype)
    own = torch.arange(n)
    part = einsum(off, moments, off, "points row a, points row a b, points row b -> points row")
    part = density[:, None] / 3 + part - moments[:, own, own, own]
    by_weights = _by_weights(theta).flatten(-2)
    pull = by_weights.mT @ (moments * (2 * importances)[..., None, None])
    gradient = (pull @ off[..., None]).sum(1)[..., 0]
    return Expected((importances * part).sum(-1), gradient, (pull @ by_weights).sum(1))


def _by_weights(theta: Theta) -> Float[Tensor, "points row features+1 features hidden+1"]:
    """The derivative of every row of [W Wᵀ | b] by every weight: (W Wᵀ)_ij = W_i · W_j."""
    points, n, columns = theta.shape
    W, rows = theta[..., :-1], torch.arange(n)
    slopes = theta.new_zeros(points, n, n + 1, n, columns)
    for j in range(n):
        slopes[:, rows, j, rows, :-1] += W[:, None, j]
        slopes[:, rows, j, j, :-1] += W
    slopes[:, rows, n, rows, -1] = 1
    return slopes


def second_moments(
    rows: Float[Tensor, "points row features+1"], density: Densities
) -> Float[Tensor, "points row features+1 features+1"]:
    """M = E[1(c·φ > 0) φ φᵀ] of every row c = (a, b), whose own a_i is ≥ 0 as every ‖W_i‖² is."""
    n = rows.shape[1]
    p, each = density[:, None, None], torch.arange(n)
    order = (each[:, None] + each) % n  # each row's own feature first
    ordered = rows[:, each[:, None], order]
    own, others = ordered[..., :1], [ordered[..., j : j + 1] for j in range(1, n)]
    base, weight, x = _nodes(rows[..., -1:], own, others, p)
    start = (-base / (own + TINY)).clamp(0, 1)  # of x_i, from where on the output is above 0
    square, present = start * start, weight * p
    powers = [
        present * (1 - start) + (weight - present) * (base > 0),
        present * (1 - square) / 2,
        present * (1 - square * start) / 3,
    ]
    M = rows.new_empty(*rows.shape, n + 1)
    for a, b in itertools.combinations_with_replacement(range(n + 1), 2):
        both = powers[(a == 0) + (b == 0)]
        for place in (a, b):
            both = both * x[place - 1] if 0 < place < n else both
        M[..., a, b] = M[..., b, a] = both.sum(-1)
    back = torch.cat([(each - each[:, None]) % n, torch.full((n, 1), n)], 1)
    return M[:, each[:, None, None], back[:, :, None], back[:, None, :]]


def _nodes(base: Tensor, own: Tensor, others: Sequence[Tensor], p: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """b + Σ a_j x_j, weight and x_j at nodes over the other features that integrate M exactly, all [.., nodes].

    What is integrated over x_j is a polynomial between the places where the output's ends, with each of the features
    that are yet to be integrated absent or full, pass 0.
    """
    if not others:
        return base, torch.ones_like(base), []
    *rest, last = others
    corners = [torch.zeros_like(own), own]
    for a in rest:
        corners += [corner + a for corner in corners]
    cuts = torch.cat([-(base + corner) / (last + TINY) for corner in corners], -1)
    t, weight = _pieces(cuts, (len(others) + 4) // 2)  # the degree is 2 + 1 + the features yet to come
    t = torch.cat([torch.zeros_like(base), t], -1)
    weight = torch.cat([1 - p.expand_as(base), weight * p], -1)
    inner, among, x = _nodes((base + last * t)[..., None], own[..., None], [a[..., None] for a in rest], p[..., None])
    among = weight[..., None] * among
    t = t[..., None].expand_as(among)
    return inner.flatten(-2), among.flatten(-2), [each.flatten(-2) for each in (*x, t)]


def _pieces(cuts: Float[Tensor, "*at cuts"], nodes: int) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights on every piece of [0, 1] between the cuts: exact up to degree 2·nodes − 1."""
    ends = torch.nn.functional.pad(cuts.clamp(0, 1).sort(-1).values, (1, 0))
    ends = torch.nn.functional.pad(ends, (0, 1), value=1.0)
    lengths = ends.diff(dim=-1)[..., None]
    at, weight = _legendre(nodes)
    return (ends[..., :-1, None] + lengths * at).flatten(-2), (lengths * weight).flatten(-2)


@cache
def _legendre(nodes: int) -> tuple[Tensor, Tensor]:
    """On [0, 1]."""
    at, weight = np.polynomial.legendre.leggauss(nodes)
    return torch.tensor((at + 1) / 2), torch.tensor(weight / 2)


def by_quadrature(theta: Theta, density: Densities, importances: Importances, nodes: int = 20) -> Tensor:
    """The expected loss once more, by its definition: over every set of features that can be present, the squared error
    at `nodes` Gauss–Legendre nodes between the kinks of the ReLU. Autograd goes through it."""
    n = theta.shape[1]
    rows = torch.cat([theta[..., :-1] @ theta[..., :-1].mT, theta[..., -1:]], -1)
    total = torch.zeros_like(density)
    for present in itertools.product((False, True), repeat=n):
        active = [j for j in range(n) if present[j]]
        chance = density ** len(active) * (1 - density) ** (n - len(active))
        for i in range(n):
            a = rows[:, i, active]
            x, weight = _grid(rows[:, i, -1:].detach(), a.detach(), nodes)
            output = (rows[:, i, -1:] + einsum(a, x, "points j, points at j -> points at")).relu()
            target = x[..., active.index(i)] if present[i] else torch.zeros_like(output)
            total = total + chance * importances[:, i] * (weight * (target - output).square()).sum(-1)
    return total


def _grid(base: Tensor, a: Float[Tensor, "points j"], nodes: int) -> tuple[Tensor, Tensor]:
    """Nodes [points, at, j] over the unit cube, cut where the features before the last put a kink."""
    points, count = a.shape
    if not count:
        return a.new_zeros(points, 1, 0), a.new_ones(points, 1)
    corners = torch.stack([a[:, :-1] @ a.new_tensor(corner) for corner in itertools.product((0, 1), repeat=count - 1)])
    t, weight = _pieces(-(base + corners.T) / (a[:, -1:] + TINY), nodes)
    below = (base + a[:, -1:] * t).flatten()[:, None]
    x, among = _grid(below, a[:, :-1].repeat_interleave(t.shape[1], 0), nodes)
    x, among = x.view(*t.shape, *x.shape[1:]), among.view(*t.shape, -1)
    last = t[..., None, None].expand_as(among[..., None])
    return torch.cat([x, last], -1).flatten(1, 2), (weight[..., None] * among).flatten(1, 2)


class Descent(NamedTuple):
    """Where every model came to, its expected loss there, and the loss that it began with."""

    theta: Theta
    loss: Float[Tensor, " points"]
    first_loss: Float[Tensor, " points"]


def descend(
    theta: Theta, density: Densities, importances: Importances, steps: int, progress: Callable[[int, int], None]
) -> Descent:
    """Every model down its own expected loss by at most `steps` damped Gauss–Newton steps (Levenberg 1944, Marquardt
    1963). A step is taken only if the loss does not rise, so each model ends no higher than it began."""
    n = theta.shape[1]
    size = max(1, NUMBERS // (n * _count(n)))
    parts = []
    for start in range(0, len(theta), size):
        progress(start, len(theta))
        some = slice(start, start + size)
        parts.append(_descend(theta[some], density[some], importances[some], steps))
    return Descent(*map(torch.cat, zip(*parts, strict=True)))


def _count(features: int) -> int:
    """How many nodes a row of M takes."""
    base, own = torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    return _nodes(base, own, [own] * (features - 1), own)[0].shape[-1]


def _descend(theta: Theta, density: Densities, importances: Importances, steps: int) -> Descent:
    """As one batch; a model that no longer moves leaves it."""
    reached, lowest = theta.clone(), torch.empty_like(density)
    at, damping = torch.arange(len(theta)), torch.full_like(density, 0.1)
    here = expected(theta, density, importances)
    first = here.loss
    for _ in range(steps):
        size = damping * here.curvature.diagonal(dim1=1, dim2=2).mean(-1) + 1e-14
        damped = here.curvature + torch.diag_embed(size[:, None].expand_as(here.gradient))
        factor = torch.linalg.cholesky_ex(damped).L
        step = torch.cholesky_solve(here.gradient[..., None], factor).view_as(theta)
        there = expected(theta - step, density[at], importances[at])
        fell = there.loss <= here.loss
        still = torch.where(fell, here.loss - there.loss > 1e-13 * here.loss, damping < 1e6)
        theta = torch.where(fell[:, None, None], theta - step, theta)
        here = Expected(
            *(torch.where(fell.view(-1, *[1] * (b.ndim - 1)), b, a) for a, b in zip(here, there, strict=True))
        )
        damping = torch.where(fell, damping / 4, damping * 4)
        reached[at], lowest[at] = theta, here.loss
        at, theta, damping = at[still], theta[still], damping[still]
        here = Expected(*(each[still] for each in here))
        if not len(at):
            break
    return Descent(reached, lowest, first)
