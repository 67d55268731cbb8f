"""A trained toy autoencoder, examined by the definition of its loss and not by the way that its training went."""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.autoencoder import HELD_OUT, Gradient, Toy
from vaultlab.models.geometry import geometry
from vaultlab.models.sparse import Vectors, fresh
from vaultlab.result import Check

FRESH = 2**16
"""Vectors on which a trained model's loss is measured; it has seen none of them."""

CHUNK = 2**12
"""Vectors measured at a time, which bounds the memory; more of them where models and vectors are small."""


class Exam(NamedTuple):
    """The expected loss of every seed with its standard error, and how far three things are from what they must be."""

    loss: Float[Tensor, " seeds"]
    loss_error: Float[Tensor, " seeds"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]


def examine(
    toy: Toy,
    sparsity: float,
    theta: Float[Tensor, "seeds features hidden+1"],
    followed: Float[Tensor, " seeds"],
    generator: Callable[[], torch.Generator],
    count: int = FRESH,
) -> Exam:
    """`theta` in float64 on the CPU; `followed` is the loss that its training ended with, on HELD_OUT vectors that the
    generator gives; the loss is measured on `count` of it."""
    vectors, held_out = (fresh(toy.law, sparsity, generator(), number) for number in (count, HELD_OUT))
    loss, linear = losses(toy, theta, vectors)
    closed, again = linear_loss(toy, sparsity, theta), losses(toy, theta, held_out)[0].mean(1)
    return Exam(
        loss=loss.mean(1),
        loss_error=_standard_error(loss),
        gradient_residual=gradient_residual(toy, theta, held_out.x[:256]),
        route_residual=(followed - again).abs().max() / mean_loss(toy, sparsity),
        closed_residual=((linear.mean(1) - closed).abs() / (_standard_error(linear) + 1e-12)).max(),
    )


class Examined(Protocol):
    """What keeps an exam's residuals, such as an experiment's Out."""

    @property
    def gradient_residual(self) -> Tensor: ...
    @property
    def route_residual(self) -> Tensor: ...
    @property
    def closed_residual(self) -> Tensor: ...


def training_checks(out: Examined) -> list[Check]:
    """Of its gradient, its loss and its vectors, whatever was trained."""
    return [
        Check(
            "gradient by hand = autograd",
            float(out.gradient_residual),
            1e-8,
            "at the trained weights in float64, as a share of its largest entry",
        ),
        Check(
            "loss while training = loss by definition",
            float(out.route_residual),
            1e-5,
            "on the same fresh vectors, in float32 on the device and in float64; as a share of the null",
        ),
        Check(
            "fresh vectors follow their law",
            float(out.closed_residual),
            5,
            "the loss without activation against its closed form, in standard errors",
        ),
    ]


def geometry_checks(W: Float[Tensor, "*seeds features hidden"]) -> list[Check]:
    """Of what the weights can and must do, however they came to be."""
    norm, interference, dimensionality = geometry(W)
    weighted = (norm**2 * (norm**2 + interference)).sum(-1)
    small = (W.mT @ W).square().sum((-2, -1))
    return [
        Check(
            "Σ D_i ≤ rank W",
            float((dimensionality.sum(-1) - torch.linalg.matrix_rank(W)).max()),
            1e-6,
            "no weights give their features more dimensions than they span; the residual is the excess",
        ),
        Check(
            "Σ ‖W_i‖² (‖W_i‖² + interference_i) = ‖WᵀW‖²",
            float(((weighted - small).abs() / (small + 1e-12)).max()),
            1e-9,
            "both are the squared entries of W Wᵀ; the right side goes through the hidden dimensions",
        ),
    ]


def losses(toy: Toy, theta: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
    """Every vector's part in the loss [seeds, vectors], as the model has it and as it would be without activation."""
    each, linear = [], []
    size = max(CHUNK, 2**18 // theta[..., 0].numel())
    for x, weight in zip(torch.split(vectors.x, size), torch.split(vectors.weight, size), strict=True):
        out = linear_part(theta, x)
        answer = toy.output(out) if not toy.hidden_relu else answers(toy, theta, x)
        each.append((answer - x).square() @ toy.importances() * weight)
        linear.append((out - x).square() @ toy.importances() * weight)
    return torch.cat(each, 1), torch.cat(linear, 1)


def _standard_error(each: Float[Tensor, "seeds vectors"]) -> Float[Tensor, " seeds"]:
    return each.std(dim=1) / math.sqrt(each.shape[1])


def linear_part(theta: Float[Tensor, "seeds features hidden+1"], x: Float[Tensor, "batch features"]) -> Tensor:
    """W Wᵀ x + b [seeds, batch, features], as the definition has it: into the hidden layer and out again."""
    squeezed = einsum(theta[..., :-1], x, "seeds features hidden, batch features -> seeds batch hidden")
    out = einsum(theta[..., :-1], squeezed, "seeds features hidden, seeds batch hidden -> seeds batch features")
    return out + theta[..., None, :, -1]


def answers(toy: Toy, theta: Float[Tensor, "seeds features hidden+1"], x: Float[Tensor, "batch features"]) -> Tensor:
    """x′ [seeds, batch, features], whatever ReLUs there are."""
    if not toy.hidden_relu:
        return toy.output(linear_part(theta, x))
    W, b = theta[..., :-1], theta[..., None, :, -1]
    return toy.output(toy.squeezed(x @ W) @ W.mT + b)


def gradient_residual(toy: Toy, theta: Tensor, x: Float[Tensor, "batch features"]) -> Tensor:
    """How far the hand-made gradient is from autograd's of the loss as defined, as a share of its largest entry."""

    def fill(into: Tensor, points: slice) -> None:
        into.copy_(x.T)

    by_hand = Gradient(toy, theta[None], len(x))(fill)[0]
    leaf = theta.clone().requires_grad_()
    loss = ((answers(toy, leaf, x) - x).square() @ toy.importances()).mean(1).sum()
    (by_autograd,) = torch.autograd.grad(loss, leaf)
    return (by_hand - by_autograd).abs().max() / (by_autograd.abs().max() + 1e-12)


def mean_loss(toy: Toy, sparsity: float) -> float:
    """The loss of a model that always answers the mean: Σ I_i Var(x_i)."""
    return float(toy.law.covariance(sparsity).diagonal() @ toy.importances())


def linear_loss(toy: Toy, sparsity: float, theta: Tensor) -> Float[Tensor, " seeds"]:
    """The expected loss without the activation, in closed form: x has the mean p/2 and the law's covariance."""
    p, W, b = 1 - sparsity, theta[..., :-1], theta[..., -1]
    lost = torch.eye(toy.features, dtype=W.dtype) - W @ W.mT
    spread = (lost @ toy.law.covariance(sparsity) * lost).sum(-1)
    return (spread + (p / 2 * lost.sum(-1) - b).square()) @ toy.importances()
