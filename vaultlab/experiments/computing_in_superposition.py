"""Computing in superposition: can neurons compute more than one feature each, and get away with it?

A layer of m neurons is to compute the absolute value of n features, which are absent with probability S (the sparsity),
else uniform in [−1, 1]; feature i, counted from 1, has importance I_i = importance^(i−1):

    y = ReLU(W₂ ReLU(W₁ x) + b)      loss = Σ I_i (|x_i| − y_i)²

|x| = ReLU(x) + ReLU(−x) takes two neurons. With two for every feature and no sparsity it is learnt exactly, one neuron
a feature and side, its two weights multiplying to 1. With fewer neurons and dense features the most important ones are
computed and the others left. With sparse features the neurons are shared. For neuron k and feature i, neither of these
changed by scaling the neuron up before and down after its ReLU:

    strength              s_ki = |W₁|_ki · max(0, W₂)_ik
    features per neuron   (Σ_i s_ki)²/Σ_i s_ki²         1: one feature, r: r features alike; mean over working neurons
    computed              y_i rises by ½ or more as x_i goes from 0 to 1, and as it goes to −1, all else absent

The best that can be done *without* sharing is known: the most important ⌊m/2⌋ features exactly, with a neuron left over
one side of the next, and the mean for the others. Where the trained loss is below that one, sharing pays.

    unshared loss         Σ_{i > ⌊m/2⌋} I_i (p/3 − p²/4)     p = 1 − S, for even m

How to read the figures. In `neurons` a bar is a neuron and its segments are the features that it carries: up where it
wakes for a positive value, down for a negative one; a bar of one colour that ends at 1 computes one side of one
feature. In `response` a feature goes from −1 to 1 alone: left what its own output does, right the largest of the
others, which should be nothing. In `sharing` neurons at 1 have one feature. In `loss` look whether the curves end below
the line of the net that shares nothing.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "Computing in Superposition",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share, alike
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.absolute import (
    Net,
    Trained,
    gradient_residual,
    losses,
    signed,
    train,
    unshared,
    unshared_loss,
)
from vaultlab.models.autoencoder import HELD_OUT, Course, Toy
from vaultlab.models.exam import mean_loss
from vaultlab.models.family import Shape
from vaultlab.plots.style import GREY, PALETTE, SHADES, Drawing, canvas, colour_bar, heat, log_axis
from vaultlab.plots.vectors import SISTERS
from vaultlab.result import Check, Metric

FRESH = 2**16
"""Vectors on which a trained net's loss is measured; it has seen none of them."""

CHUNK = 2**12
"""Vectors measured at a time, which bounds the memory."""

RISE = 0.5
"""How far an output has to rise for its feature to count as computed."""


class Spec(BaseSpec):
    features: int = Field(10, ge=2, le=256, json_schema_extra={"symbol": "n"})
    """How many features the data has."""

    hidden: int = Field(10, ge=1, le=256, json_schema_extra={"symbol": "m"})
    """How many neurons there are to compute them."""

    sparsity: Share = Field(0.9, ge=0, le=0.999, json_schema_extra={"symbol": "S", "stress": [0.8, 0.97]})
    """How often a feature is absent: 0.9, or 90%."""

    importance: float = Field(0.8, gt=0, le=1, json_schema_extra={"symbol": "r"})
    """How much a feature counts beside the one before it: feature i has importance r^(i−1). 1: all count alike."""

    steps: int = Field(3000, ge=1, le=100_000)
    """Training steps."""

    batch: int = Field(1024, ge=16, le=65_536)
    """Vectors in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=1, json_schema_extra={"stress": [0.003, 0.03]})
    """Adam's learning rate at the start; it falls to 0 along a half cosine."""

    threshold: float = Field(0.1, gt=0, le=1, json_schema_extra={"stress": [0.03, 0.3]})
    """The strength |w₁|·w₂ of its strongest feature from which a neuron counts as working."""

    seeds: int = Field(8, ge=1, le=64)
    """How many nets to train, from different first weights on the same vectors."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind; `first` are the features per neuron of the first weights, the residuals are for
    `verify`."""

    W_in: Float[Tensor, "seeds features hidden"]
    W_out: Float[Tensor, "seeds hidden features"]
    b: Float[Tensor, "seeds features"]
    loss: Float[Tensor, " seeds"]
    loss_error: Float[Tensor, " seeds"]
    curve: Float[Tensor, "steps seeds"]
    curve_at: Float[Tensor, " steps"]
    first: Float[Tensor, " seeds"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    unshared_residual: Float[Tensor, ""]
    gauge_residual: Float[Tensor, ""]


def toy_of(spec: Spec) -> Toy:
    return Toy(spec.features, spec.hidden, spec.importance, relu=True)


def compute(spec: Spec, bench: Bench) -> Out:
    """Train, then measure in float64 on the CPU, by the definition rather than by the way that training went."""
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Specs that differ in nothing but their sparsity, and in what counts as working, train as one batch."""
    trained: dict[Spec, Trained] = {}
    for points in alike(specs, "sparsity", "threshold"):
        spec, sparsities = points[0], list(dict.fromkeys(point.sparsity for point in points))
        course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed)
        done = train(toy_of(spec), course, sparsities, bench.device, bench.generator, bench.progress)
        for point in points:
            at = sparsities.index(point.sparsity)
            net, first = (Net(*(part[at].cpu().double() for part in one)) for one in (done.net, done.first))
            trained[point] = done._replace(net=net, first=first, curve=done.curve[:, at].cpu().double())
    for spec in specs:
        yield _measured(spec, trained[spec], bench)


def _measured(spec: Spec, trained: Trained, bench: Bench) -> Out:
    toy, net = toy_of(spec), trained.net
    vectors = signed(toy, spec.sparsity, bench.generator("absolute", spec.seed, "fresh"), FRESH)
    held_out = signed(toy, spec.sparsity, bench.generator("absolute", spec.seed, "fresh"), HELD_OUT)
    parts = zip(torch.split(vectors.x, CHUNK), torch.split(vectors.weight, CHUNK), strict=True)
    loss = torch.cat([losses(toy, net, vectors._replace(x=x, weight=weight)) for x, weight in parts], -1)
    alone = losses(toy, unshared(toy, spec.sparsity), vectors)
    off = alone.mean() - unshared_loss(toy, spec.sparsity)
    return Out(
        W_in=net.W_in.float(),
        W_out=net.W_out.float(),
        b=net.b.float(),
        loss=loss.mean(-1),
        loss_error=loss.std(-1) / math.sqrt(FRESH),
        curve=trained.curve,
        curve_at=torch.tensor(trained.curve_at, dtype=torch.float64),
        first=features_per_neuron(trained.first).mean(-1),
        gradient_residual=gradient_residual(toy, net, held_out.x[:256]),
        route_residual=(trained.curve[-1] - losses(toy, net, held_out).mean(-1)).abs().max() / _null(spec),
        unshared_residual=off.abs() / (alone.std() / math.sqrt(FRESH) + 1e-12),
        gauge_residual=_gauge_residual(net, held_out.x[:256], bench.generator("absolute", spec.seed, "gauge")),
    )


def _null(spec: Spec) -> float:
    """Always answering the mean: |x_i| has the mean and the variance that the autoencoder's x_i has."""
    return mean_loss(toy_of(spec), spec.sparsity)


def _gauge_residual(net: Net, x: Float[Tensor, "batch features"], generator: torch.Generator) -> Tensor:
    """How far outputs and strengths move, relatively, when every neuron is scaled up before its ReLU and down after."""
    scale = 2.0 ** (6 * torch.rand(net.W_in.shape[-1], generator=generator, dtype=x.dtype) - 3)
    other = net._replace(W_in=net.W_in * scale, W_out=net.W_out / scale[:, None])
    pairs = (net.linear(x), other.linear(x)), (net.strengths(), other.strengths())
    return torch.stack([(one - another).abs().max() / (one.abs().max() + 1e-12) for one, another in pairs]).max()


def features_per_neuron(net: Net) -> Float[Tensor, "*nets hidden"]:
    """(Σ s)²/Σ s² over each neuron's features; 0 of a neuron that carries none."""
    s = net.strengths()
    return s.sum(-1).square() / s.square().sum(-1).clamp(min=1e-30)


def rises(net: Net) -> Float[Tensor, "sides *nets features"]:
    """How far each output rises as its own feature goes from 0 to 1, and to −1, all else absent."""
    one = torch.eye(net.b.shape[-1], dtype=net.b.dtype)
    still = net(torch.zeros_like(one[:1]))[..., 0, :]
    return torch.stack([net(side).diagonal(dim1=-2, dim2=-1) - still for side in (one, -one)])


LOSS = Quantity(
    "loss",
    "Expected Σ I_i (|x_i| − y_i)², measured on 65 536 fresh vectors; interval: 95%, from their spread; "
    "null: always answering the mean, Σ I_i (p/3 − p²/4).",
    range=(0, math.inf),
    headline=True,
)
UNSHARED_LOSS = Quantity(
    "unshared_loss",
    "The loss of the best net in which no two features share a neuron, in closed form; null: always the mean.",
    range=(0, math.inf),
)
LOSS_BY_UNSHARED = Quantity(
    "loss_by_unshared",
    "The loss by that of the best net that shares no neuron: below 1 sharing pays. Not there where that one is exact.",
    range=(0, math.inf),
)
COMPUTED = Quantity(
    "computed",
    "How many features are computed: alone, their output rises by ½ or more on either side.",
    unit="features",
    range=(0, 256),
    headline=True,
)
FEATURES_PER_NEURON = Quantity(
    "features_per_neuron",
    "(Σ s)²/Σ s² over a neuron's features, mean over the working neurons; null: that of the first weights.",
    unit="features",
    range=(0, 256),
    headline=True,
)
NEURON_FEATURES = Quantity(
    "neuron_features",
    "(Σ s)²/Σ s² of every working neuron; null: the mean of the first weights.",
    unit="features",
    range=(0, 256),
)
NEURON_GAIN = Quantity(
    "neuron_gain",
    "|w₁| · w₂ of every working neuron's strongest feature: 1 where it alone computes that side.",
    range=(0, math.inf),
)


def _best(out: Out) -> int:
    return int(out.loss.argmin())


def _net(out: Out) -> Net:
    return Net(out.W_in.double(), out.W_out.double(), out.b.double())


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed with the lowest loss; `seeds` has them for every seed."""
    net, best = _net(out), _best(out)
    gain, features = net.strengths().amax(-1), features_per_neuron(net)
    working = gain >= spec.threshold
    mean = features.where(working, 0).sum(-1) / working.sum(-1).clamp(min=1)
    loss, error = float(out.loss[best]), float(out.loss_error[best])
    alone = unshared_loss(toy_of(spec), spec.sparsity)

    def scalar(quantity: Quantity, values: Tensor, **more: object) -> Metric:
        return quantity.is_(values[best].item(), n=spec.seeds, seeds=tuple(values.tolist()), **more)

    def vector(quantity: Quantity, values: Tensor, **more: object) -> Metric:
        each = tuple(tuple(row[there].tolist()) for row, there in zip(values, working, strict=True))
        return quantity.is_(each[best], n=spec.seeds, seeds=each, **more)

    by_alone = [scalar(LOSS_BY_UNSHARED, out.loss / alone)] if alone > 1e-9 else []
    return [
        scalar(LOSS, out.loss, interval=(loss - 1.96 * error, loss + 1.96 * error), null=_null(spec)),
        UNSHARED_LOSS.is_(max(alone, 0.0), null=_null(spec)),
        *by_alone,
        scalar(COMPUTED, (rises(net).amin(0) >= RISE).sum(-1)),
        scalar(FEATURES_PER_NEURON, mean, null=float(out.first[best])),
        vector(NEURON_FEATURES, features, null=float(out.first[best])),
        vector(NEURON_GAIN, gain),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its gradient, its loss, its vectors, and of what scaling a neuron may not change."""
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
            "unshared loss = that of the net itself",
            float(out.unshared_residual),
            5,
            "the closed form against the constructed net on this run's fresh vectors, in standard errors",
        ),
        Check(
            "scaling a neuron changes nothing",
            float(out.gauge_residual),
            1e-9,
            "outputs and strengths with every neuron up to eight times larger before its ReLU, and smaller after",
        ),
        Check(
            "1 ≤ features per neuron ≤ n",
            _outside(spec, features_per_neuron(_net(out))),
            1e-9,
            "of every neuron that carries anything; the residual is by how much it is outside",
        ),
    ]


def _outside(spec: Spec, features: Float[Tensor, "seeds hidden"]) -> float:
    carrying = features > 0
    return float(torch.maximum(features - spec.features, 1 - features).where(carrying, 0).max())


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    """The figures of the seed whose numbers are given, the other seeds beside it."""
    return {
        "neurons": _draw_neurons(spec, out),
        "response": _draw_response(out),
        "sharing": _draw_sharing(spec, out),
        "weights": _draw_weights(out),
        "loss": _draw_loss(spec, out),
    }


def _others(out: Out) -> list[int]:
    """The seeds that are drawn beside the best: the next ones by their loss."""
    return out.loss.argsort().tolist()[1 : SISTERS + 1]


def _colours(n: int) -> list[object]:
    return list(PALETTE[:n]) if n <= len(PALETTE) else [SHADES(i / (n - 1)) for i in range(n)]


def _feature_bar(ax: Axes | Sequence[Axes], n: int) -> None:
    """What the colours of many features mean."""
    colour_bar(ax, ScalarMappable(Normalize(1, n), SHADES), "feature, 1: most important")


def _numbered(ax: Axes, count: int) -> None:
    step = max(1, -(-count // 12))
    ax.set(xlim=(0.4, count + 0.6), xlabel="neuron")
    ax.set_xticks(range(1, count + 1, step))


def _draw_neurons(spec: Spec, out: Out) -> Drawing:
    """Neurons in order of their strongest feature, so that the two sides of a feature stand together."""
    best = _best(out)
    strengths = Net(*(part[best] for part in _net(out))).strengths()
    signed_ = strengths * out.W_in[best].T.sign()
    order = strengths.argmax(-1).argsort(stable=True)
    n, m = out.W_in.shape[1:]
    place, colours = np.arange(1, m + 1), _colours(n)
    with canvas(height=4.0) as (figure, axes):
        ax = axes[0, 0]
        top, bottom = np.zeros(m), np.zeros(m)
        for feature in range(n):
            up, down = signed_[order, feature].clamp(min=0).numpy(), signed_[order, feature].clamp(max=0).numpy()
            label = f"feature {feature + 1}" if n <= len(PALETTE) else None
            ax.bar(place, up, bottom=top, width=0.8, color=colours[feature], label=label)
            ax.bar(place, down, bottom=bottom, width=0.8, color=colours[feature])
            top, bottom = top + up, bottom + down
        ax.axhline(0, color=GREY, linewidth=0.8)
        for height in (-1, 1):
            ax.axhline(height, color=GREY, linewidth=0.8, linestyle=":")
        _numbered(ax, m)
        ax.set(ylabel="strength |w₁|·w₂, by side of x", ylim=1.05 * np.array(ax.get_ylim()))
        if n <= len(PALETTE):
            figure.legend(loc="outside upper center", ncols=3)
        else:
            _feature_bar(ax, n)
    features = features_per_neuron(_net(out))[best]
    return Drawing(
        figure,
        f"What each of {_neurons(m)} carries of {n} features, as stacked bars: {_span(features)} features a neuron; "
        f"the strongest of each has strength {_span(strengths.amax(-1))}, 1 would be one side of one feature.",
    )


def _span(values: Tensor) -> str:
    if not len(values):
        return "none"
    low, high = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
    return low if low == high else f"{low} to {high}"


def _neurons(count: int) -> str:
    return f"{count} neuron{'s' * (count != 1)}"


def _draw_response(out: Out) -> Drawing:
    net = Net(*(part[_best(out)] for part in _net(out)))
    n, at = net.b.shape[-1], torch.linspace(-1, 1, 81, dtype=torch.float64)
    swept = net((at[:, None, None] * torch.eye(n, dtype=torch.float64)).flatten(0, 1)).view(len(at), n, n)
    own = swept.diagonal(dim1=1, dim2=2)
    others = swept.masked_fill(torch.eye(n, dtype=torch.bool), -math.inf).amax(-1)
    with canvas(1, 2, height=3.4, sharey=True) as (figure, axes):
        for ax, values, title in ((axes[0, 0], own, "its own output"), (axes[0, 1], others, "largest other output")):
            for feature, colour in enumerate(_colours(n)):
                ax.plot(at, values[:, feature], color=colour, linewidth=1.5)
            ax.set(title=title, xlabel="xᵢ alone", xlim=(-1, 1))
        axes[0, 0].plot(
            at, at.abs(), color=GREY, linestyle="--", linewidth=1.5, label="|xᵢ|, what it should be", zorder=3
        )
        axes[0, 1].axhline(0, color=GREY, linestyle="--", linewidth=1.5, zorder=3)
        axes[0, 0].set_ylabel("output y")
        figure.legend(loc="outside upper center")
        if n > len(PALETTE):
            _feature_bar(list(axes[0]), n)
    rising = int((rises(net).amin(0) >= RISE).sum())
    off = (own - at.abs()[:, None]).abs().amax(0)
    return Drawing(
        figure,
        f"The outputs as each of {n} features goes from −1 to 1 alone: {rising} rise by ½ or more on both sides; they "
        f"are off from |x| by up to {_span(off)}; the largest other output reaches {float(others.max()):.3g}.",
    )


def _draw_sharing(spec: Spec, out: Out) -> Drawing:
    best, net = _best(out), _net(out)
    features, working = features_per_neuron(net), net.strengths().amax(-1) >= spec.threshold
    with canvas(height=3.4) as (figure, axes):
        ax = axes[0, 0]
        for place, seed in enumerate(_others(out)):
            values = features[seed, working[seed]].sort().values
            ax.plot(
                range(1, len(values) + 1), values, color=PALETTE[1], linewidth=1, label=None if place else "other seeds"
            )
        values = features[best, working[best]].sort().values
        ax.plot(range(1, len(values) + 1), values, "o-", color=PALETTE[0], markersize=5, label="lowest loss")
        ax.axhline(1, color=GREY, linestyle="--", linewidth=1, label="nothing shared")
        ax.axhline(float(out.first[best]), color=PALETTE[2], linestyle=":", linewidth=1.5, label="first weights")
        _numbered(ax, spec.hidden)
        ax.set(xlabel="working neuron, in order", ylabel="features of the neuron", ylim=(0, None))
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"How many features each working neuron carries, {_span(values)} in the seed with the lowest loss, mean "
        f"{float(values.mean()) if len(values) else 0:.3g}; the first weights had {float(out.first[best]):.3g}.",
    )


def _draw_weights(out: Out) -> Drawing:
    """Each neuron scaled so that its weights before and after its ReLU are as long."""
    best = _best(out)
    W_in, W_out = out.W_in[best].T, out.W_out[best]
    scale = (W_out.norm(dim=-1) / W_in.norm(dim=-1).clamp(min=1e-12)).sqrt()[:, None].clamp(min=1e-6)
    order = Net(*(part[best] for part in _net(out))).strengths().argmax(-1).argsort(stable=True)
    panels = [(W_in * scale)[order].numpy(), (W_out / scale)[order].numpy()]
    low, high = float(np.min(panels)), float(np.max(panels))
    most = max(-low, high) or 1.0
    m, n = panels[0].shape
    with canvas(1, 2, height=3.2 + min(3.0, 0.12 * m), sharey=True) as (figure, axes):
        for ax, panel, name in zip(axes[0], panels, ("W₁, what it reads", "W₂, what it writes"), strict=True):
            image = heat(ax, panel, "", limits=(-most, most), bar=None)
            ax.set(title=name, xlabel="feature")
            for ticks, count in ((ax.set_xticks, n), (ax.set_yticks, m)):
                step = max(1, -(-count // 10))
                ticks(range(0, count, step), [str(i + 1) for i in range(0, count, step)])
            ax.spines[:].set_visible(False)
        axes[0, 0].set_ylabel("neuron")
        colour_bar(list(axes[0]), image, "weight (scaled)")
    return Drawing(
        figure,
        f"The weights of {_neurons(m)} before and after their ReLU as two maps of {n} features, each neuron scaled "
        f"to have both equally long: from {low:.3g} to {high:.3g}.",
    )


def _draw_loss(spec: Spec, out: Out) -> Drawing:
    best, null, alone = _best(out), _null(spec), unshared_loss(toy_of(spec), spec.sparsity)
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for place, seed in enumerate(_others(out)):
            label = "other seeds" if place == 0 else None
            ax.plot(out.curve_at, out.curve[:, seed], color=PALETTE[1], linewidth=1, label=label)
        ax.plot(out.curve_at, out.curve[:, best], color=PALETTE[0], label="lowest loss")
        ax.axhline(null, color=GREY, linestyle="--", linewidth=1, label="always the mean")
        if alone > 1e-9:
            ax.axhline(alone, color=PALETTE[2], linestyle=":", linewidth=2, label="best without sharing")
        log_axis(ax, "y")
        ax.set(xlabel="training step", ylabel="loss (log scale)")
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"The loss of {out.curve.shape[1]} seeds over {spec.steps} steps: from {_span(out.curve[0])} down to "
        f"{_span(out.loss)}; the best net that shares no neuron has {max(alone, 0):.3g}, always answering the mean "
        f"{null:.3g}.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """By the multiplications of a step, at twenty billion a second, and its passes over outputs and neurons."""
    del shape
    n, m, vectors = spec.features, spec.hidden, spec.seeds * spec.batch
    training, once = spec.steps * vectors * (5 * n * m / 2e10 + 6e-9 * (n + m)), 1 + spec.steps * 2e-4
    return Needs(8 * (6 * vectors * (n + m) + FRESH * n + 3 * CHUNK * spec.seeds * (n + m)), once + training, once)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        LOSS,
        UNSHARED_LOSS,
        LOSS_BY_UNSHARED,
        COMPUTED,
        FEATURES_PER_NEURON,
        NEURON_FEATURES,
        NEURON_GAIN,
    ),
    figures={
        "neurons": "What each neuron carries, feature by feature and side by side.",
        "response": "What outputs do as a feature goes from −1 to 1 alone, beside |x|.",
        "sharing": "How many features each neuron carries.",
        "weights": "The weights before and after the neurons' ReLU.",
        "loss": "The loss of every seed over training, with that of the best net that shares nothing.",
    },
    examples=(
        Example(
            "two-neurons-each",
            "Three dense features on six neurons are computed exactly, one side a neuron",
            {"features": 3, "hidden": 6, "sparsity": 0, "importance": 1.0},
            ("loss < 0.000001", "computed = 3", "every neuron_gain = 1 +- 0.01", "every neuron_features < 1.01"),
        ),
        Example(
            "dense-neurons",
            "Dense features share no neuron: five of ten are computed on ten neurons",
            {"sparsity": 0},
            ("computed <= 5 in 90% of seeds", "features_per_neuron < 1.01", "loss_by_unshared = 1.00 +- 0.01"),
        ),
        Example(
            "sparse-neurons",
            "Sparse features share neurons, and more are computed than without",
            {"sparsity": 0.9},
            (
                "features_per_neuron > 1.5 in 90% of seeds",
                "computed > 5 in 90% of seeds",
                "loss_by_unshared < 0.8",
            ),
        ),
    ),
    needs=needs,
    together=together,
    batched=("sparsity", "threshold"),
    nonsense=Nonsense("an untrained net", "training", {"steps": 1}),
)
