"""The toy that computes: y = ReLU(W₂ ReLU(W₁ x) + b) is to be |x|, feature by feature, on fewer neurons than it takes.

Loss: Σ I_i (|x_i| − y_i)². Data: x_i is 0 with probability S (the sparsity), else uniform in [−1, 1]; p = 1 − S. As
|x_i| = ReLU(x_i) + ReLU(−x_i), a feature takes two neurons that it shares with no other.
Source: Elhage et al. (2022), "Toy Models of Superposition", section "Computing in Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.autoencoder import HELD_OUT, Adam, Course, Toy
from vaultlab.models.draws import Draws
from vaultlab.models.sparse import Vectors, fresh


class Net(NamedTuple):
    """Its weights, any number of nets side by side; the Toy that it is trained on says nothing of ReLUs here."""

    W_in: Float[Tensor, "*nets features hidden"]
    W_out: Float[Tensor, "*nets hidden features"]
    b: Float[Tensor, "*nets features"]

    def linear(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "*nets batch features"]:
        """What the last ReLU takes."""
        return (x @ self.W_in).relu() @ self.W_out + self.b[..., None, :]

    def __call__(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "*nets batch features"]:
        return self.linear(x).relu()

    def strengths(self) -> Float[Tensor, "*nets hidden features"]:
        """|w₁| · w₂: how strongly a neuron carries each feature, which no rescaling of the neuron changes."""
        return self.W_in.mT.abs() * self.W_out.clamp(min=0)


class Trained(NamedTuple):
    """The curve is the loss on fresh vectors before the steps `curve_at`, and after the last."""

    net: Net
    first: Net
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
    theta = _first_weights(toy, course, draws).to(device).repeat(len(sparsities), 1, 1)
    net = _views(toy, theta)
    S = torch.tensor(sparsities, dtype=theta.dtype, device=device)[:, None, None]
    gradient, adam = Gradient(toy, net, course.batch), Adam(theta)
    fresh_ones = [signed(toy, one, draws("absolute", course.seed, "fresh"), HELD_OUT) for one in sparsities]
    tests = [vectors.to(theta) for vectors in fresh_ones]
    first, curve, curve_at = Net(*(part.cpu().clone() for part in net)), [], []
    for step, drawn in enumerate(_uniform(toy, course, draws, device)):
        if step % 16 == 0:
            progress(step, course.steps, "training")
        if step % max(1, course.steps // 60) == 0:
            curve.append(_losses_in_training(toy, net, tests))
            curve_at.append(step)
        # what is within [−S, S] becomes 0, what is outside is stretched back to [−1, 1]
        torch.sub(drawn, torch.maximum(torch.minimum(drawn, S), -S), out=gradient.x).div_(1 - S)
        adam(gradient(net), course.learning_rate * (1 + math.cos(math.pi * step / course.steps)) / 2)
    curve.append(_losses_in_training(toy, net, tests))
    return Trained(net, first, torch.stack(curve), [*curve_at, course.steps])


def _first_weights(toy: Toy, course: Course, draws: Draws) -> Float[Tensor, "seeds numbers"]:
    """Each seed from its own generator: seed 3 is the same whether 4 or 40 are trained. The bias starts at 0."""
    n, m = toy.features, toy.hidden
    seeds = [
        torch.randn(2 * n * m, generator=draws("absolute", course.seed, "weights", k)) for k in range(course.seeds)
    ]
    weights = torch.stack(seeds) * math.sqrt(2 / (n + m))
    return torch.cat([weights, torch.zeros(course.seeds, n)], dim=1)


def _uniform(toy: Toy, course: Course, draws: Draws, device: torch.device) -> Iterator[Float[Tensor, "features batch"]]:
    """One batch of draws from [−1, 1] a step, made and moved in blocks of about a million numbers."""
    generator = draws("absolute", course.seed, "batches")
    block = max(1, 2**20 // (toy.features * course.batch))
    for start in range(0, course.steps, block):
        size = (min(block, course.steps - start), toy.features, course.batch)
        yield from torch.rand(size, generator=generator).mul_(2).sub_(1).to(device)


def _views(toy: Toy, theta: Float[Tensor, "points seeds numbers"]) -> Net:
    """The weights as parts of the one tensor that is trained."""
    (points, seeds, _), n, m = theta.shape, toy.features, toy.hidden
    W_in, W_out, b = torch.split(theta, [n * m, n * m, n], dim=-1)
    return Net(W_in.view(points, seeds, n, m), W_out.view(points, seeds, m, n), b)


class Gradient:
    """The gradient of the mean loss, by hand; the caller writes the vectors into `x`, which all seeds share."""

    def __init__(self, toy: Toy, net: Net, batch: int) -> None:
        points, seeds, n, _ = net.W_in.shape
        self.x = net.b.new_zeros(points, n, batch)
        self._toy = toy
        self._scale = (2 / batch * toy.importances()).to(net.b)[:, None]
        self._grad = net.b.new_zeros(points, seeds, 2 * net.W_in[0, 0].numel() + n)
        self._parts = _views(toy, self._grad)

    def __call__(self, net: Net) -> Tensor:
        """With every part one after another, as in what is trained; the tensor is written over by the next call."""
        x = self.x[:, None]
        hidden = (net.W_in.mT @ x).relu_()
        out = (net.W_out.mT @ hidden).add_(net.b[..., None])
        error = out.relu().sub_(x.abs()).mul_(self._scale).mul_(out > 0)
        back = (net.W_out @ error).mul_(hidden > 0)
        self._parts.W_out.copy_(hidden @ error.mT)
        self._parts.W_in.copy_(x @ back.mT)
        torch.sum(error, -1, out=self._parts.b)
        return self._grad


def _losses_in_training(toy: Toy, net: Net, tests: Sequence[Vectors]) -> Float[Tensor, "points seeds"]:
    points = []
    for point, (x, weight) in enumerate(tests):
        error = Net(*(part[point] for part in net))(x) - x.abs()
        points.append((error.square() @ toy.importances().to(x)) @ weight / len(x))
    return torch.stack(points)


def signed(toy: Toy, sparsity: float, generator: torch.Generator, count: int) -> Vectors:
    """Vectors that no model has trained on, as the autoencoder's but of either sign."""
    x, weight = fresh(toy.law, sparsity, generator, count)
    signs = torch.randint(0, 2, x.shape, generator=generator).mul_(2).sub_(1)
    return Vectors(x * signs, weight)


def losses(toy: Toy, net: Net, vectors: Vectors) -> Float[Tensor, "*nets vectors"]:
    """Every vector's part in the loss."""
    return (net(vectors.x) - vectors.x.abs()).square() @ toy.importances() * vectors.weight


def gradient_residual(toy: Toy, net: Net, x: Float[Tensor, "batch features"]) -> Tensor:
    """How far the hand-made gradient is from autograd's of the loss as defined, as a share of its largest entry."""
    gradient = Gradient(toy, Net(*(part[None] for part in net)), len(x))
    gradient.x.copy_(x.T)
    by_hand = gradient(Net(*(part[None] for part in net)))[0]
    leaves = Net(*(part.clone().requires_grad_() for part in net))
    loss = ((leaves(x) - x.abs()).square() @ toy.importances()).mean(-1).sum()
    by_autograd = torch.cat([part.flatten(1) for part in torch.autograd.grad(loss, leaves)], dim=1)
    return (by_hand - by_autograd).abs().max() / (by_autograd.abs().max() + 1e-12)


def unshared(toy: Toy, sparsity: float) -> Net:
    """The best net in which no two features share a neuron, in closed form.

    The most important features have two neurons each and are computed exactly. A neuron left over computes one side of
    the next, ReLU(a ReLU(x) + c) with the regression of |x| on ReLU(x); of all others the answer is the mean.
    """
    n, m, p = toy.features, toy.hidden, 1 - sparsity
    W_in, W_out = torch.zeros(n, m, dtype=torch.float64), torch.zeros(m, n, dtype=torch.float64)
    b = torch.full((n,), p / 2, dtype=torch.float64)
    for k in range(min(m, 2 * n)):
        W_in[k // 2, k], W_out[k, k // 2] = (-1) ** k, 1
    b[: m // 2] = 0
    if m % 2 and m < 2 * n:
        slope = (p / 6 - p**2 / 8) / (p / 6 - p**2 / 16)
        W_out[m - 1, m // 2], b[m // 2] = slope, p / 2 - slope * p / 4
    return Net(W_in, W_out, b)


def unshared_loss(toy: Toy, sparsity: float) -> float:
    """Its expected loss: Σ I_i (p/3 − p²/4) over the features without a neuron, less where one side is computed."""
    p, half = 1 - sparsity, toy.hidden // 2
    importances = toy.importances()[half:]
    spared = (p / 6 - p**2 / 8) ** 2 / (p / 6 - p**2 / 16)
    loss = float(importances.sum()) * (p / 3 - p**2 / 4)
    return loss - float(importances[0]) * spared if toy.hidden % 2 and len(importances) else loss
