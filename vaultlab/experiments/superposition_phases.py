"""When is one more feature dropped, when does it get a dimension, and when does it share one?

n features, one dimension too few: m = n − 1. The last feature has importance r, the others 1; each is present with the
density p = 1 − S. At every p and r the model

    x′ = ReLU(W Wᵀ x + b)      loss = Σ I_i E(x_i − x′_i)²

is trained, and beside it stands what can be worked out without training: the losses of three arrangements that keep
features either whole or not at all,

    dropped      r (p/3 − p²/4)     the last feature is not represented and answered by its mean
    dedicated    p/3 − p²/4         it has a dimension to itself, and another feature is dropped;
                 p²/3               or, of three features, the two others share one: whichever is less
    antipodal    p² (1 + r)/6       it is the opposite of another feature and shares its dimension

The first and the last are equal at p* = 4r/(2 + 5r): sparser features than that are superposed. For two features the
diagram is the same with r and 1/r exchanged.

No vectors are drawn. The expected loss is a piecewise polynomial and is integrated exactly, with its gradient and its
curvature; each start descends it by damped Gauss–Newton steps (Levenberg–Marquardt) until it moves no more, and the
lowest of the starts is what counts. The last feature then is dropped where ‖W_i‖ < ½, superposed where in addition
the others' interference Σ_{j≠i} (Ŵ_i · W_j)² reaches ¼, else dedicated.

How to read the figures. In `phases`, left is the best of the three arrangements and right what training found; the
dashed line is p*. `losses` cuts the diagram at two importances: lines are the three arrangements, points the trained
models. Points under all lines are models that do better than any of the three: on the dense side a superposed pair also
uses biases and unequal lengths, which is why training goes on superposing a little beyond p*. `gain` says by how much.

Source: Nelson Elhage, Tristan Hume, Catherine Olsson, Nicholas Schiefer, Tom Henighan, Shauna Kravec, Zac
Hatfield-Dodds, Robert Lasenby, Dawn Drain, Carol Chen, Roger Grosse, Sam McCandlish, Jared Kaplan, Dario Amodei, Martin
Wattenberg, Christopher Olah (2022), "Toy Models of Superposition", section "Superposition as a Phase Change",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.expectation import by_quadrature, descend, expected
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, geometry
from vaultlab.plots.diagram import Line, Plane, amounts, phases
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, log_axis
from vaultlab.result import Check, Metric

DROPPED, DEDICATED, SUPERPOSED = range(3)
PHASES = ("dropped", "dedicated", "superposed")

SHARED = 0.25
"""The interference from which a represented feature counts as superposed: a sharer as long as REPRESENTED gives it."""

CHECKED = {2: 64, 3: 6}
"""By features: so many trained models are integrated a second time by quadrature."""


class Spec(BaseSpec):
    features: int = Field(2, ge=2, le=3, json_schema_extra={"symbol": "n"})
    """How many features there are: 2 in one dimension, or 3 in two."""

    cells: int = Field(50, ge=4, le=200)
    """Densities and importances along each side of the diagram."""

    density_from: float = Field(0.01, ge=1e-4, le=0.5, json_schema_extra={"symbol": "p from"})
    """The lowest density p = 1 − S; the highest is 1."""

    importance_to: float = Field(10.0, ge=1.5, le=1000, json_schema_extra={"symbol": "r to"})
    """The last feature's highest importance r; the lowest is 1 through it."""

    steps: int = Field(40, ge=1, le=1000, json_schema_extra={"stress": [20, 100]})
    """At most so many descending steps for each start."""

    seeds: int = Field(8, ge=1, le=64, json_schema_extra={"stress": [6, 16]})
    """From how many first weights each cell is trained; the lowest loss counts."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind: cells by importance, then by density; of each the weights with the lowest loss."""

    theta: Float[Tensor, "cells features hidden+1"]
    loss: Float[Tensor, "cells seeds"]
    first_loss: Float[Tensor, "cells seeds"]
    quadrature_residual: Float[Tensor, ""]
    gradient_residual: Float[Tensor, ""]


def densities(spec: Spec) -> Float[Tensor, " cells"]:
    return torch.logspace(math.log10(spec.density_from), 0, spec.cells, dtype=torch.float64)


def importances(spec: Spec) -> Float[Tensor, " cells"]:
    reach = math.log10(spec.importance_to)
    return torch.logspace(-reach, reach, spec.cells, dtype=torch.float64)


def _cells(spec: Spec) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
    """Every cell's density and importance."""
    r, p = torch.meshgrid(importances(spec), densities(spec), indexing="ij")
    return p.flatten(), r.flatten()


def _weighed(spec: Spec, r: Float[Tensor, " cells"]) -> Float[Tensor, "cells features"]:
    """Every feature's importance: r for the last, 1 for the others."""
    return torch.cat([torch.ones(len(r), spec.features - 1, dtype=r.dtype), r[:, None]], 1)


def compute(spec: Spec, bench: Bench) -> Out:
    """Every cell from the same first weights; on the CPU in float64, so that only round-off is left."""
    p, r = _cells(spec)
    first = _first_weights(spec, bench)
    reached = descend(
        first.repeat(len(p), 1, 1),
        p.repeat_interleave(spec.seeds),
        _weighed(spec, r).repeat_interleave(spec.seeds, 0),
        spec.steps,
        lambda done, total: bench.progress(done, total, "training"),
    )
    loss = reached.loss.view(-1, spec.seeds)
    theta = reached.theta.view(*loss.shape, *first.shape[1:])[torch.arange(len(p)), loss.argmin(1)]
    bench.progress(0, 1, "checking")
    some = torch.linspace(0, len(p) - 1, CHECKED[spec.features]).long()
    residuals = _residuals(theta[some], p[some], _weighed(spec, r[some]))
    return Out(theta, loss, reached.first_loss.view_as(loss), *residuals)


def _first_weights(spec: Spec, bench: Bench) -> Float[Tensor, "seeds features hidden+1"]:
    """Each seed from its own generator, so that more of them keep the first. The bias starts at 0."""
    n, seeds = spec.features, range(spec.seeds)
    W = [torch.randn(n, n - 1, generator=bench.generator("phases", spec.seed, k), dtype=torch.float64) for k in seeds]
    return torch.nn.functional.pad(torch.stack(W) * math.sqrt(2 / (2 * n - 1)), (0, 1))


def _residuals(theta: Tensor, p: Tensor, weighed: Tensor) -> tuple[Tensor, Tensor]:
    """How far loss and gradient are from those by quadrature: as a share of the null, and of the importance times p."""
    exact = expected(theta, p, weighed)
    leaf = theta.clone().requires_grad_()
    loss = by_quadrature(leaf, p, weighed)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    scale = weighed.sum(1) * p
    off = (exact.loss - loss.detach()).abs() / scale
    return off.max(), ((exact.gradient - gradient.flatten(1)).abs() / scale[:, None]).max()


def arms(spec: Spec) -> Float[Tensor, "phases cells"]:
    """The losses of dropped, dedicated and antipodal in closed form."""
    p, r = _cells(spec)
    lost = p / 3 - p**2 / 4
    dedicated = lost if spec.features == 2 else torch.minimum(lost, p**2 / 3)
    return torch.stack([r * lost, dedicated, p**2 * (1 + r) / 6])


ARRANGEMENTS = {
    2: ((DROPPED, [[1], [0]]), (DEDICATED, [[0], [1]]), (SUPERPOSED, [[1], [-1]])),
    3: (
        (DROPPED, [[1, 0], [0, 1], [0, 0]]),
        (DEDICATED, [[1, 0], [0, 0], [0, 1]]),
        (DEDICATED, [[1, 0], [-1, 0], [0, 1]]),
        (SUPERPOSED, [[1, 0], [0, 1], [0, -1]]),
    ),
}
"""By features: the weights that the closed forms stand for. What they drop is answered by its mean, b = p/2."""


def _built(spec: Spec) -> Float[Tensor, "phases cells"]:
    """What the exact loss gives for the arrangements: each phase by the better of its own."""
    p, r = _cells(spec)
    losses = torch.full((len(PHASES), len(p)), math.inf, dtype=p.dtype)
    for phase, rows in ARRANGEMENTS[spec.features]:
        W = torch.tensor(rows, dtype=p.dtype)
        b = p[:, None] / 2 * (W == 0).all(-1)
        theta = torch.cat([W.expand(len(p), *W.shape), b[..., None]], -1)
        losses[phase] = torch.minimum(losses[phase], expected(theta, p, _weighed(spec, r)).loss)
    return losses


def boundary(spec: Spec) -> Float[Tensor, " cells"]:
    """p* = 4r/(2 + 5r) of every importance; NaN where none is, as for three features from r = 1 on."""
    r = importances(spec)
    less = torch.minimum(r, 1 / r) if spec.features == 2 else r.where(r < 0.999, math.nan)
    return 4 * less / (2 + 5 * less)


def found(theta: Float[Tensor, "cells features hidden+1"]) -> Float[Tensor, " cells"]:
    """The phase that the last feature is in."""
    norm, interference, _ = geometry(theta[..., :-1])
    shares = torch.where(interference[:, -1] >= SHARED, SUPERPOSED, DEDICATED)
    return torch.where(norm[:, -1] >= REPRESENTED, shares, DROPPED)


AGREEMENT = Quantity(
    "agreement",
    "The share of cells in which training finds the phase whose arrangement is best; "
    "null: as often as the phases would meet if the trained ones were shuffled.",
    range=(0, 1),
    headline=True,
)
SPARSE_AGREEMENT = Quantity(
    "sparse_agreement",
    "The same among the cells sparser than p*, where antipodal is best.",
    range=(0, 1),
    headline=True,
)
SUPERPOSED_SHARE = Quantity(
    "superposed",
    "The share of cells in which the trained model superposes the last feature.",
    range=(0, 1),
    headline=True,
)
BOUNDARY = Quantity(
    "boundary",
    "Up to which density training superposes, as a multiple of p*: of every importance with r or 1/r up to ½.",
    unit="× p*",
    range=(0, math.inf),
)
EXCESS = Quantity(
    "excess",
    "How far the trained loss is above the best arrangement's in the worst cell, as a share of it; below 0: nowhere.",
    range=(-1, math.inf),
)
GAIN = Quantity(
    "gain",
    "How far the trained loss is below the best arrangement's where that is most, as a share of it.",
    range=(-math.inf, 1),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of each cell's lowest loss."""
    theory, trained = arms(spec).argmin(0), found(out.theta)
    p, _ = _cells(spec)
    shares = [torch.bincount(phase, minlength=len(PHASES)) / len(p) for phase in (theory, trained)]
    same, sparse = (theory == trained).double(), p < boundary(spec).repeat_interleave(spec.cells)
    off = out.loss.min(1).values / arms(spec).min(0).values - 1
    metrics = [
        AGREEMENT.is_(float(same.mean()), n=len(p), null=float(shares[0] @ shares[1])),
        SPARSE_AGREEMENT.is_(float(same[sparse].mean()), n=int(sparse.sum())) if sparse.any() else None,
        SUPERPOSED_SHARE.is_(float(shares[1][SUPERPOSED]), n=len(p)),
        BOUNDARY.is_(tuple(_reached(spec, trained).tolist())),
        EXCESS.is_(float(off.max()), n=len(p)),
        GAIN.is_(float(-off.min()), n=len(p)),
    ]
    return [metric for metric in metrics if metric is not None]


def _reached(spec: Spec, trained: Float[Tensor, " cells"]) -> Float[Tensor, " rows"]:
    """Halfway from the last superposed density to the next one, where there are both: a step is a cell."""
    p, r, best = densities(spec), importances(spec), boundary(spec)
    step = math.sqrt(float(p[1] / p[0]))
    shared = (trained == SUPERPOSED).view(spec.cells, -1)
    last = torch.where(shared, p, 0).amax(1)
    clear = torch.minimum(r, 1 / r) <= 0.5
    rows = clear & best.isfinite() & (last > 0) & (last < 1)
    return (last * step / best)[rows]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its integrals, its closed forms and its descent."""
    p, r = _cells(spec)
    null = _weighed(spec, r).sum(1) * (p / 3 - p**2 / 4)
    return [
        Check(
            "expected loss = 20-point Gauss–Legendre",
            float(out.quadrature_residual),
            1e-12,
            "of some trained models, cut at the kinks of the ReLU, in float64; as a share of Σ I_i p",
        ),
        Check(
            "gradient = autograd through the quadrature",
            float(out.gradient_residual),
            1e-12,
            "of the same models; as a share of Σ I_i p",
        ),
        Check(
            "arrangements built as weights = their closed forms",
            float(((_built(spec) - arms(spec)).abs() / null).max()),
            1e-12,
            "at every cell; as a share of always answering the mean",
        ),
        Check(
            "no start ends above its own beginning",
            float(((out.loss - out.first_loss) / null[:, None]).max()),
            1e-12,
            "the largest rise of the expected loss, as a share of always answering the mean",
        ),
    ]


def _plane(spec: Spec) -> Plane:
    return Plane(densities(spec).numpy(), importances(spec).numpy(), "density p (log)", "importance r (log)")


def _lines(spec: Spec) -> list[Line]:
    best = boundary(spec).numpy()
    there = np.isfinite(best) & (best >= spec.density_from)
    return [(best[there], importances(spec).numpy()[there])] if there.any() else []


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {"phases": _draw_phases(spec, out), "losses": _draw_losses(spec, out), "gain": _draw_gain(spec, out)}


def _draw_phases(spec: Spec, out: Out) -> Drawing:
    side = (spec.cells, spec.cells)
    theory, trained = arms(spec).argmin(0), found(out.theta)
    panels = {"theory": theory.view(side).numpy(), "training": trained.view(side).numpy()}
    figure = phases(panels, PHASES, _plane(spec), _lines(spec), "p* = 4r/(2 + 5r)")
    shares = ", ".join(
        f"{name} {float((theory == phase).double().mean()):.0%} and {float((trained == phase).double().mean()):.0%}"
        for phase, name in enumerate(PHASES)
    )
    return Drawing(
        figure,
        f"What becomes of the last of {spec.features} features at {spec.cells} × {spec.cells} densities and "
        f"importances, in theory and after training: {shares} of the cells. The two agree in "
        f"{float((theory == trained).double().mean()):.1%}.",
    )


def _draw_losses(spec: Spec, out: Out) -> Drawing:
    """At the importance a quarter up the diagram and at the one in its middle."""
    side, p, r = (spec.cells, spec.cells), densities(spec).numpy(), importances(spec).tolist()
    rows = (spec.cells // 4, (spec.cells - 1) // 2)
    closed, trained = arms(spec).view(-1, *side).numpy(), out.loss.min(1).values.view(side).numpy()
    null = p / 3 - p**2 / 4
    with canvas(1, 2, height=3.8, sharey=True) as (figure, axes):
        for ax, row in zip(axes[0], rows, strict=True):
            share = (spec.features - 1 + r[row]) * null
            for name, loss, colour in zip(
                ("dropped", "dedicated", "antipodal"), closed[:, row], (GREY, *PALETTE), strict=False
            ):
                ax.plot(p, loss / share, color=colour, label=name if row == rows[0] else None)
            every = slice(None, None, max(1, spec.cells // 25))
            label = "trained" if row == rows[0] else None
            ax.plot(p[every], (trained[row] / share)[every], "o", color=PALETTE[2], markersize=4, label=label)
            log_axis(ax, "x")
            log_axis(ax, "y")
            ax.set(xlabel="density p (log)", title=f"r = {r[row]:.2g}")
        axes[0, 0].set_ylabel("loss ÷ always the mean (log)")
        figure.legend(loc="outside lower center", ncols=4)
    off = trained / closed.min(0) - 1
    return Drawing(
        figure,
        f"Loss over density at r = {r[rows[0]]:.2g} and {r[rows[1]]:.2g}: the closed forms of dropped, dedicated and "
        f"antipodal, and the trained models, between {off[list(rows)].min():+.1%} and {off[list(rows)].max():+.1%} off "
        "the lowest of the three.",
    )


def _draw_gain(spec: Spec, out: Out) -> Drawing:
    gain = 100 * (1 - out.loss.min(1).values / arms(spec).min(0).values)
    p, r = _cells(spec)
    most = int(gain.argmax())
    cells = gain.clamp(min=0).view(spec.cells, -1).numpy()
    figure = amounts(cells, "below the best arrangement (%)", _plane(spec), _lines(spec), "p* = 4r/(2 + 5r)")
    return Drawing(
        figure,
        f"How far training gets below the best of the three arrangements: most at p = {float(p[most]):.2g}, "
        f"r = {float(r[most]):.2g}, by {float(gain[most]):.1f}%; less than 1% in "
        f"{float((gain < 1).double().mean()):.0%} of the cells.",
    )


def data(spec: Spec, out: Out) -> dict[str, Any]:
    """The arrows at every density, at the importance in the middle of the diagram."""
    row = slice(spec.cells * ((spec.cells - 1) // 2), spec.cells * ((spec.cells + 1) // 2))
    phase, loss = found(out.theta)[row].tolist(), out.loss.min(1).values[row].tolist()
    return {
        "kind": "vectors",
        "axis": "density",
        "values": [float(f"{p:.3g}") for p in densities(spec).tolist()],
        "vectors": [[[round(w, 4) for w in feature[:-1]] for feature in cell] for cell in out.theta[row].tolist()],
        "notes": [f"{PHASES[one]}, loss {each:.3g}" for one, each in zip(phase, loss, strict=True)],
        "chosen": 0,
    }


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """A start moves for about half of its steps; three features have 16 times the nodes, and 5 times the curvature."""
    del shape
    starts = spec.cells**2 * spec.seeds
    each = 3e-6 if spec.features == 2 else 3e-5
    size = (spec.features * (spec.features + 2)) ** 2
    return Needs(8 * starts * size + 200_000_000, 1 + starts * spec.steps * each)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(AGREEMENT, SPARSE_AGREEMENT, SUPERPOSED_SHARE, BOUNDARY, EXCESS, GAIN),
    figures={
        "phases": "Dropped, dedicated or superposed at every density and importance, in theory and after training.",
        "losses": "The closed-form losses over density at two importances, and the trained models' on top.",
        "gain": "How far training gets below the best of the three arrangements.",
    },
    examples=(
        Example(
            "two-in-one-dimension",
            "Two features in one dimension: below p* = 4r/(2 + 5r) training superposes them, as theory says",
            {"features": 2, "cells": 30},
            (
                "sparse_agreement > 0.99",
                "agreement > 0.95",
                "every boundary between 0.9 and 1.25",
                "excess < 0.01",
                "gain between 0.11 and 0.13",
            ),
        ),
        Example(
            "three-in-two-dimensions",
            "Three features in two dimensions: the same boundary, and from r = 1 on the extra feature is never shared",
            {"features": 3, "cells": 12},
            ("sparse_agreement > 0.95", "agreement > 0.95", "every boundary between 0.85 and 1.35", "excess < 0.02"),
        ),
    ),
    needs=needs,
    data=data,
    nonsense=Nonsense("models after a single step", "training", {"steps": 1}),
)
