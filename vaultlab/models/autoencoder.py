"""The toy autoencoder on sparse features, x′ = f(W Wᵀ x + b): its training, by a hand-made gradient.

Loss: Σ I_i (x_i − x′_i)². Data: see `sparse`.
Source: Elhage et al. (2022), "Toy Models of Superposition", section "Demonstrating Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vaultlab.models.draws import Draws
from vaultlab.models.sparse import Law, Pairs, Vectors, fresh

HELD_OUT = 2**12
"""Fresh vectors that the loss is followed on while it trains."""

CACHED = 2**17
"""Numbers that a core keeps close: passes over more of them wait for the memory."""

Theta = Float[Tensor, "points seeds features hidden+1"]
"""[W | b] of every model."""

Slices = tuple[slice, slice]
"""Some points, some seeds of them."""

Fill = Callable[[Float[Tensor, "points features batch"], slice], None]
"""Writes the vectors of a slice of the points into the tensor that it is given."""


class Toy(NamedTuple):
    """What is trained. Feature i, counted from 0, has importance `importance`^i; without `relu`, f is the identity.
    With `hidden_relu` the hidden layer is ReLU(Wᵀ x): then it has a basis that matters."""

    features: int
    hidden: int
    importance: float
    relu: bool
    pairs: Pairs = "independent"
    hidden_relu: bool = False

    @property
    def law(self) -> Law:
        return Law(self.features, self.pairs)

    def importances(self) -> Float[Tensor, " features"]:
        return self.importance ** torch.arange(self.features, dtype=torch.float64)

    def output(self, linear: Tensor) -> Tensor:
        """f of W Wᵀ x + b."""
        return linear.relu() if self.relu else linear

    def squeezed(self, linear: Tensor) -> Tensor:
        """The hidden layer, from Wᵀ x."""
        return linear.relu() if self.hidden_relu else linear


class Course(NamedTuple):
    """How it is trained: `learning_rate` is Adam's at the start and falls to 0 along a half cosine, or stays as it is
    where the rate is `constant`; `looks` is how often at least the loss is looked at; `start` is how large the first
    weights are, 1 being as usual."""

    steps: int
    batch: int
    learning_rate: float
    seeds: int
    seed: int
    looks: int = 60
    start: float = 1.0
    constant: bool = False

    def rate(self, step: int) -> float:
        if self.constant:
            return self.learning_rate
        return self.learning_rate * (1 + math.cos(math.pi * step / self.steps)) / 2


class Moment(NamedTuple):
    """A look at the models after so many steps: theta is the very tensor that goes on being trained."""

    step: int
    theta: Theta
    loss: Float[Tensor, "points seeds"]


class Trained(NamedTuple):
    """The curve is the loss on fresh vectors before the steps `curve_at`, and after the last."""

    theta: Theta
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
    moments = list(training(toy, course, sparsities, device, draws, progress))
    curve = torch.stack([moment.loss for moment in moments])
    return Trained(moments[-1].theta, curve, [moment.step for moment in moments])


def training(
    toy: Toy,
    course: Course,
    sparsities: Sequence[float],
    device: torch.device,
    draws: Draws,
    progress: Callable[..., None],
) -> Iterator[Moment]:
    """As `train`, looked at on the way: before the first step, then at even distances, and after the last."""
    theta = _first_weights(toy, course, draws).to(device).repeat(len(sparsities), 1, 1, 1)
    S = torch.tensor(sparsities, dtype=theta.dtype, device=device)[:, None, None]
    gradient, adam, law = Gradient(toy, theta, course.batch), Adam(theta), toy.law
    tests = [fresh(law, sparsity, draws("toy", course.seed, "fresh"), HELD_OUT).to(theta) for sparsity in sparsities]
    held_out = Vectors(torch.stack([test.x.T for test in tests]), torch.stack([test.weight for test in tests]))
    for step, uniform in enumerate(_uniform(toy, course, draws, device)):
        if step % 16 == 0:
            progress(step, course.steps, "training")
        if step % max(1, course.steps // course.looks) == 0:
            yield Moment(step, theta, _losses_in_training(toy, theta, held_out))
        grad = gradient(lambda x, points, uniform=uniform: law.fill(x, uniform, S[points]))  # type: ignore[misc]
        adam(grad, course.rate(step))
    yield Moment(course.steps, theta, _losses_in_training(toy, theta, held_out))


def _first_weights(toy: Toy, course: Course, draws: Draws) -> Float[Tensor, "seeds features hidden+1"]:
    """Each seed from its own generator: seed 3 is the same whether 4 or 40 are trained. The bias starts at 0."""
    size, seeds = (toy.features, toy.hidden), range(course.seeds)
    W = torch.stack([torch.randn(size, generator=draws("toy", course.seed, "weights", k)) for k in seeds])
    return torch.cat([W * course.start * math.sqrt(2 / sum(size)), torch.zeros_like(W[..., :1])], dim=-1)


def _uniform(toy: Toy, course: Course, draws: Draws, device: torch.device) -> Iterator[Float[Tensor, "features batch"]]:
    """One batch of uniform draws a step, made and moved in blocks of about a million numbers."""
    generator = draws("toy", course.seed, "batches")
    block = max(1, 2**20 // (toy.features * course.batch))
    for start in range(0, course.steps, block):
        size = (min(block, course.steps - start), toy.features, course.batch)
        yield from torch.rand(size, generator=generator).to(device)


def _losses_in_training(toy: Toy, theta: Theta, held_out: Vectors) -> Float[Tensor, "points seeds"]:
    """The loss at every sparsity in training's own precision, the error made first and then weighted. `held_out` has
    x as [points, features, vectors], and the weights of each point; as many points at once as a core keeps close."""
    importances, points = toy.importances().to(theta), []
    at_once = max(1, CACHED // (theta[0, ..., 0].numel() * HELD_OUT))
    for begin in range(0, len(theta), at_once):
        some = slice(begin, begin + at_once)
        W, b, x = theta[some, ..., :-1], theta[some, ..., -1:], held_out.x[some, None]
        error = toy.output(W @ toy.squeezed(W.mT @ x) + b).sub_(x).square_()
        points.append((error @ held_out.weight[some, None, :, None])[..., 0] @ importances / x.shape[-1])
    return torch.cat(points)


class Gradient:
    """The gradient of the mean loss at `theta`, by hand, in buffers made once: autograd would take most of a small
    step's time.

    With x₁ = (x, 1), A = [W Wᵀ | b] and r = f(A x₁), the error is e = (r − x)[r > 0]; ∂A = 2 I e x₁ᵀ / batch. As many
    models go through the products at once as fit into a core's cache; on a GPU, into its memory.
    """

    def __init__(self, toy: Toy, theta: Theta, batch: int) -> None:
        points, seeds, n, columns = theta.shape
        at_once = max(1, (CACHED if theta.device.type == "cpu" else 2**27) // (n * batch))
        width = min(seeds, at_once)  # seeds, of so many points
        count = min(points, at_once // seeds) if width == seeds else 1
        self._chunks = [
            (slice(point, min(point + count, points)), slice(seed, min(seed + width, seeds)))
            for point in range(0, points, count)
            for seed in range(0, seeds, width)
        ]
        self._x1 = theta.new_ones(count, n + 1, batch)
        self._out = theta.new_empty(count, width, n, batch)
        self._error = torch.empty_like(self._out)
        through = _Hidden if toy.hidden_relu or n > max(32, 4 * (columns - 1)) else _Gram
        self._through: _Gram | _Hidden = through(toy, theta, batch)

    def __call__(self, fill: Fill) -> Tensor:
        """On the vectors that `fill` writes; the tensor is written over by the next call."""
        self._through.begin()
        for points, seeds in self._chunks:
            count, width = points.stop - points.start, seeds.stop - seeds.start
            x1 = self._x1[:count]
            if seeds.start == 0:  # else it is the next seeds' turn on the same vectors
                fill(x1[:, :-1], points)
            self._through.go((points, seeds), x1, self._out[:count, :width], self._error[:count, :width])
        return self._through.end()


class _Gram:
    """Through A: two products a step, however small m is. With G = W Wᵀ, ∂W = (∂G + ∂Gᵀ) W."""

    def __init__(self, toy: Toy, theta: Theta, batch: int) -> None:
        self._relu, self._theta, self._scale = toy.relu, theta.flatten(0, 1), _scale(toy, theta, batch)
        self._A = theta.new_empty(*theta.shape[:3], toy.features + 1)
        self._dA, self._grad = torch.empty_like(self._A), torch.empty_like(theta)

    def begin(self) -> None:
        A, W = self._A.flatten(0, 1), self._theta[..., :-1]
        A[..., :-1] = torch.bmm(W, W.mT)
        A[..., -1] = self._theta[..., -1]

    def go(self, at: Slices, x1: Tensor, out: Tensor, error: Tensor) -> None:
        torch.bmm(self._A[at].flatten(1, 2), x1, out=out.flatten(1, 2))
        _find_error(self._relu, out, x1, error)
        torch.bmm(error.flatten(1, 2), x1.mT, out=self._dA[at].flatten(1, 2))

    def end(self) -> Tensor:
        dA, grad = self._dA.flatten(0, 1).mul_(self._scale), self._grad.flatten(0, 1)
        dG = dA[..., :-1]
        grad[..., :-1] = torch.bmm(dG + dG.mT, self._theta[..., :-1])
        grad[..., -1] = dA[..., -1]
        return self._grad


class _Hidden:
    """Through h₁ = (Wᵀx, 1), which takes less where n is far larger: ∂[W | b] = 2 (I e h₁ᵀ + x (Wᵀ I e)ᵀ) / batch. With
    a ReLU on the hidden layer h₁ and Wᵀ I e are 0 where it is shut."""

    def __init__(self, toy: Toy, theta: Theta, batch: int) -> None:
        self._rectified = toy.hidden_relu
        self._relu, self._theta, self._scale = toy.relu, theta, _scale(toy, theta, batch)
        self._scaled, self._grad = torch.empty_like(theta), torch.empty_like(theta)

    def begin(self) -> None:
        torch.mul(self._theta, self._scale, out=self._scaled)

    def go(self, at: Slices, x1: Tensor, out: Tensor, error: Tensor) -> None:
        theta, x, grad = self._theta[at], x1[:, :-1], self._grad[at]
        hidden = torch.bmm(theta.mT.flatten(1, 2), x).view(*theta.shape[:2], -1, x.shape[-1])
        if self._rectified:
            hidden.relu_()
        hidden[..., -1, :] = 1
        torch.matmul(theta, hidden, out=out)
        _find_error(self._relu, out, x1, error)
        torch.matmul(error, hidden.mT, out=grad).mul_(self._scale)
        back = torch.matmul(self._scaled[at][..., :-1].mT, error)
        if self._rectified:
            back.mul_(hidden[..., :-1, :] > 0)
        grad[..., :-1] += torch.bmm(back.flatten(1, 2), x.mT).view(*back.shape[:-1], -1).mT

    def end(self) -> Tensor:
        return self._grad


def _scale(toy: Toy, theta: Theta, batch: int) -> Float[Tensor, "features 1"]:
    return (2 / batch * toy.importances()).to(theta)[:, None]


def _find_error(relu: bool, out: Tensor, x1: Tensor, error: Tensor) -> None:
    """From W Wᵀ x + b in `out`: the error where the output is above 0, else 0."""
    if relu:
        out.relu_()
    torch.sub(out, x1[:, None, :-1], out=error)
    if relu:
        torch.ops.aten.threshold_backward.grad_input(error, out, 0, grad_input=error)


class Adam:
    """Adam in place on one tensor (Kingma and Ba 2015), as `torch.optim.AdamW` without weight decay."""

    def __init__(self, theta: Tensor, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.theta, self.betas, self.eps, self.step = theta, betas, eps, 0
        self._mean, self._square, self._scale = (torch.zeros_like(theta) for _ in range(3))

    def __call__(self, grad: Tensor, rate: float) -> None:
        self.step += 1
        first, second = self.betas
        root = math.sqrt(1 - second**self.step)
        self._mean.lerp_(grad, 1 - first)
        self._square.mul_(second).addcmul_(grad, grad, value=1 - second)
        torch.sqrt(self._square, out=self._scale).add_(self.eps * root)
        self.theta.addcdiv_(self._mean, self._scale, value=-rate * root / (1 - first**self.step))
