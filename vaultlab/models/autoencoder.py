"""The toy autoencoder on sparse features, x′ = f(W Wᵀ x + b): its data, its training by a hand-made gradient, and the
losses that are known without training.

Loss: Σ I_i (x_i − x′_i)². Data: x_i is 0 with probability S (the sparsity), else uniform in [0, 1]; p = 1 − S.
Source: Elhage et al. (2022), "Toy Models of Superposition", section "Demonstrating Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

Draws = Callable[..., torch.Generator]
"""Names → a fresh generator on the CPU, the same for the same names."""

Progress = Callable[[int, int, str], None]

HELD_OUT = 2**12
"""Fresh vectors that the loss is followed on while it trains."""


class Toy(NamedTuple):
    """What is trained. Feature i, counted from 0, has importance `importance`^i; without `relu`, f is the identity."""

    features: int
    hidden: int
    importance: float
    relu: bool

    def importances(self) -> Float[Tensor, " features"]:
        return self.importance ** torch.arange(self.features, dtype=torch.float64)

    def output(self, linear: Tensor) -> Tensor:
        """f of W Wᵀ x + b."""
        return linear.relu() if self.relu else linear


class Course(NamedTuple):
    """How it is trained: `learning_rate` is Adam's at the start and falls to 0 along a half cosine."""

    steps: int
    batch: int
    learning_rate: float
    seeds: int
    seed: int


class Trained(NamedTuple):
    """theta is [W | b]; the curve is the loss on fresh vectors before the steps `curve_at`, and after the last."""

    theta: Float[Tensor, "points seeds features hidden+1"]
    curve: Float[Tensor, "steps points seeds"]
    curve_at: list[int]


def train(
    toy: Toy,
    course: Course,
    sparsities: Sequence[float],
    device: torch.device,
    draws: Draws,
    progress: Callable[..., None],
) -> Trained:
    """Every seed at every sparsity as one batch, on the same uniform draws: each as it would have come out alone."""
    theta = _first_weights(toy, course, draws).to(device).repeat(len(sparsities), 1, 1, 1)
    S = torch.tensor(sparsities, dtype=theta.dtype, device=device)[:, None, None]
    gradient, adam = Gradient(toy, theta, course.batch), Adam(theta)
    x, density = gradient.x1[:, :-1], 1 - S
    tests = [fresh(toy, sparsity, draws("toy", course.seed, "fresh"), HELD_OUT).to(theta) for sparsity in sparsities]
    curve, curve_at = [], []
    for step, uniform in enumerate(_uniform(toy, course, draws, device)):
        if step % 16 == 0:
            progress(step, course.steps, "training")
        if step % max(1, course.steps // 60) == 0:
            curve.append(_losses_in_training(toy, theta, tests))
            curve_at.append(step)
        torch.sub(uniform, S, out=x)
        x.clamp_(min=0).div_(density)
        adam(gradient(theta), course.learning_rate * (1 + math.cos(math.pi * step / course.steps)) / 2)
    curve.append(_losses_in_training(toy, theta, tests))
    return Trained(theta, torch.stack(curve), [*curve_at, course.steps])


def _first_weights(toy: Toy, course: Course, draws: Draws) -> Float[Tensor, "seeds features hidden+1"]:
    """Each seed from its own generator: seed 3 is the same whether 4 or 40 are trained. The bias starts at 0."""
    size, seeds = (toy.features, toy.hidden), range(course.seeds)
    W = torch.stack([torch.randn(size, generator=draws("toy", course.seed, "weights", k)) for k in seeds])
    return torch.cat([W * math.sqrt(2 / sum(size)), torch.zeros_like(W[..., :1])], dim=-1)


def _uniform(toy: Toy, course: Course, draws: Draws, device: torch.device) -> Iterator[Float[Tensor, "features batch"]]:
    """One batch of uniform draws a step, made and moved in blocks of about a million numbers."""
    generator = draws("toy", course.seed, "batches")
    block = max(1, 2**20 // (toy.features * course.batch))
    for start in range(0, course.steps, block):
        size = (min(block, course.steps - start), toy.features, course.batch)
        yield from torch.rand(size, generator=generator).to(device)


def _losses_in_training(toy: Toy, theta: Tensor, tests: Sequence["Vectors"]) -> Float[Tensor, "points seeds"]:
    """The loss at every sparsity in training's own precision, the error made first and then weighted."""
    W, b = theta[..., :-1], theta[..., -1:]
    points = []
    for point, (x, weight) in enumerate(tests):
        error = toy.output(W[point] @ (W[point].mT @ x.T) + b[point]) - x.T
        points.append((error.square() @ weight / len(x)) @ toy.importances().to(theta))
    return torch.stack(points)


class Gradient:
    """The gradient of the mean loss, by hand, in buffers made once: autograd would take most of a small step's time.

    Points and seeds form one batch. With x₁ = (x, 1), A = [W Wᵀ | b] and r = f(A x₁), the error is e = (r − x)[r > 0].
    Through A a step is two matrix products, however small m is: ∂A = 2 I e x₁ᵀ / batch, then, G being W Wᵀ,
    ∂W = (∂G + ∂Gᵀ) W. Where n is far larger than m, going through the hidden layer h = Wᵀx takes less:
    ∂W = 2 (I e hᵀ + x (Wᵀ I e)ᵀ) / batch. The caller writes x into all but the last row of `x1`, which stays 1.
    """

    def __init__(self, toy: Toy, theta: Float[Tensor, "points seeds features hidden+1"], batch: int) -> None:
        points, seeds, n, _ = theta.shape
        self.x1 = theta.new_ones(points, n + 1, batch)
        self._toy = toy
        self._scale = (2 / batch * toy.importances()).to(theta)[:, None]
        self._grad = torch.empty_like(theta)
        self._A = theta.new_empty(points, seeds, n, n + 1)
        self._dA = torch.empty_like(self._A)
        self._out = theta.new_empty(points, seeds, n, batch)
        self._error = torch.empty_like(self._out)

    def __call__(self, theta: Float[Tensor, "points seeds features hidden+1"]) -> Tensor:
        """Of the loss at `theta` on the vectors in `x1`; the tensor is written over by the next call."""
        W = theta[..., :-1]
        if self._toy.features > max(32, 4 * self._toy.hidden):
            return self._through_hidden(W, theta[..., -1:])
        self._A[..., :-1] = W @ W.mT
        self._A[..., -1] = theta[..., -1]
        torch.bmm(self._A.flatten(1, 2), self.x1, out=self._out.flatten(1, 2))
        self._find_error()
        torch.bmm(self._error.flatten(1, 2), self.x1.mT, out=self._dA.flatten(1, 2))
        self._dA.mul_(self._scale)
        dG = self._dA[..., :-1]
        self._grad[..., :-1] = (dG + dG.mT) @ W
        self._grad[..., -1] = self._dA[..., -1]
        return self._grad

    def _through_hidden(self, W: Tensor, b: Tensor) -> Tensor:
        x, (points, seeds, n, m) = self.x1[:, :-1], W.shape
        hidden = (W.mT.flatten(1, 2) @ x).view(points, seeds, m, -1)
        torch.matmul(W, hidden, out=self._out)
        self._out.add_(b)
        self._find_error()
        dW, db = self._grad[..., :-1], self._grad[..., -1:]
        dW.copy_(self._error @ hidden.mT)
        torch.sum(self._error, -1, keepdim=True, out=db)
        self._grad.mul_(self._scale)
        back = x @ ((W * self._scale).mT @ self._error).flatten(1, 2).mT
        dW.add_(back.view(points, n, seeds, m).transpose(1, 2))
        return self._grad

    def _find_error(self) -> None:
        """From W Wᵀ x + b in `_out`: the error where the output is above 0, else 0."""
        if self._toy.relu:
            self._out.relu_()
        torch.sub(self._out, self.x1[:, None, :-1], out=self._error)
        if self._toy.relu:
            torch.ops.aten.threshold_backward.grad_input(self._error, self._out, 0, grad_input=self._error)


class Adam:
    """Adam in place on one tensor (Kingma and Ba 2015), as `torch.optim.AdamW` without weight decay."""

    def __init__(self, theta: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.theta, self.betas, self.eps, self.step = theta, betas, eps, 0
        self._mean, self._square, self._scale = (torch.zeros_like(theta) for _ in range(3))

    def __call__(self, grad: Tensor, rate: float) -> None:
        self.step += 1
        first, second = self.betas
        self._mean.lerp_(grad, 1 - first)
        self._square.mul_(second).addcmul_(grad, grad, value=1 - second)
        torch.sqrt(self._square, out=self._scale)
        self._scale.div_(math.sqrt(1 - second**self.step)).add_(self.eps)
        self.theta.addcdiv_(self._mean, self._scale, value=-rate / (1 - first**self.step))


class Vectors(NamedTuple):
    """Vectors to measure a loss on. The mean of `weight` times a quantity is that quantity's expectation."""

    x: Float[Tensor, "vectors features"]
    weight: Float[Tensor, " vectors"]

    def to(self, like: Tensor) -> "Vectors":
        return Vectors(self.x.to(like), self.weight.to(like))


def fresh(toy: Toy, sparsity: float, generator: torch.Generator, count: int) -> Vectors:
    """Vectors in float64 that no model has trained on, drawn with about two features each and weighted back.

    At high sparsity nearly all vectors are empty and the loss comes from the few with two features or more: drawn as
    they come, 65 000 vectors would hold none of these.
    """
    p, n = 1 - sparsity, toy.features
    q = max(p, min(0.5, 2 / n))
    x, active = torch.rand(2, count, n, generator=generator, dtype=torch.float64)
    active = (active < q).double()
    present = active.sum(1)
    weight = torch.ones(count, dtype=torch.float64)
    if q > p:
        weight = (p / q) ** present * ((1 - p) / (1 - q)) ** (n - present)
    return Vectors(x * active, weight)


def linear_part(theta: Float[Tensor, "seeds features hidden+1"], x: Float[Tensor, "batch features"]) -> Tensor:
    """W Wᵀ x + b [seeds, batch, features], as the definition has it: into the hidden layer and out again."""
    squeezed = einsum(theta[..., :-1], x, "seeds features hidden, batch features -> seeds batch hidden")
    out = einsum(theta[..., :-1], squeezed, "seeds features hidden, seeds batch hidden -> seeds batch features")
    return out + theta[..., None, :, -1]


def gradient_residual(toy: Toy, theta: Tensor, x: Float[Tensor, "batch features"]) -> Tensor:
    """How far the hand-made gradient is from autograd's of the loss as defined, as a share of its largest entry."""
    gradient = Gradient(toy, theta[None], len(x))
    gradient.x1[:, :-1] = x.T
    by_hand = gradient(theta[None])[0]
    leaf = theta.clone().requires_grad_()
    loss = ((toy.output(linear_part(leaf, x)) - x).square() @ toy.importances()).mean(1).sum()
    (by_autograd,) = torch.autograd.grad(loss, leaf)
    return (by_hand - by_autograd).abs().max() / (by_autograd.abs().max() + 1e-12)


def mean_loss(toy: Toy, sparsity: float) -> float:
    """The loss of a model that always answers the mean: Σ I_i Var(x_i)."""
    p = 1 - sparsity
    return float(toy.importances().sum()) * (p / 3 - p**2 / 4)


def linear_loss(toy: Toy, sparsity: float, theta: Tensor) -> Float[Tensor, " seeds"]:
    """The expected loss without the activation, in closed form: x has mean p/2 and variance p/3 − p²/4."""
    p, W, b = 1 - sparsity, theta[..., :-1], theta[..., -1]
    lost = torch.eye(toy.features, dtype=W.dtype) - W @ W.mT
    spread = (p / 3 - p**2 / 4) * lost.square().sum(-1)
    return (spread + (p / 2 * lost.sum(-1) - b).square()) @ toy.importances()
