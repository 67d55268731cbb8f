"""Learning dynamics of superposition: does a model find its features gradually, or in jumps from one rest to the next?

A toy model x′ = ReLU(W Wᵀ x + b) has m hidden dimensions and twice as many features, all of them equally important and
sparse (see `superposition`). Features 1 and 2 are a pair, 3 and 4 another, and so on: both of a pair are there or
neither, each as strong as it likes. The first weights are small and the learning rate stays the same, so that what the
model does in which order can be seen. All along

    loss             Σ (x_i − x′_i)²
    dimensionality   D_i = ‖W_i‖² / Σ_j (Ŵ_i · W_j)²      0 as long as ‖W_i‖ < ½
    cosine           Ŵ_1 · Ŵ_2 within every pair          merged from 0.9 on, told apart up to 0.3

A small model first takes each pair for one feature: that is the direction in which there is most to gain. Its two
vectors are the same, of length 1/√2, and each has half a dimension. Later the pairs are told apart, one by one or
several at once: each of the two has length 1 then and shares a dimension with one of another pair, as its opposite. In
between the model rests, with k of its m pairs told apart, and what a rest costs is known without training:

    loss at rest     (m − k) p/12 + k p²/3                p = 1 − S; for k = 1 the last term is p² (41 − 19√2)/30

A rest is a stretch of training in which every pair is merged or told apart and none changes; a jump is what lies
between two rests, and the loss falls in it. From p = ¼ on it is no gain to tell pairs apart, and the model stays where
it is.

Numbers and figures are of the run with the most rests, and among those of the one that rests longest; the other seeds
are drawn beside it.

How to read the figures. In `learning`, above, every line is a feature, the two of a pair in one colour, and dotted
lines are ¼ (of a merged pair that shares its dimension), ½ (of a merged pair, or one of two opposites) and 1 (alone);
below is the loss, and dotted lines are the rests of no, one, two … pairs told apart. Shaded stretches are jumps.
`seeds` has the loss of every seed, `pairs` the cosine within each pair, and `rests` W Wᵀ in the middle of each rest:
pairs that are merged are red blocks on the diagonal, opposites blue off it.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "Superposition and Learning Dynamics",
https://transformer-circuits.pub/2022/toy_model/index.html
"""

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed, Share, alike
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.autoencoder import Course, Toy, training
from vaultlab.models.exam import CHUNK, FRESH, examine, geometry_checks, losses, mean_loss, training_checks
from vaultlab.models.family import Shape
from vaultlab.models.geometry import REPRESENTED, geometry
from vaultlab.models.rests import APART, MERGED, Rest, cosines, rest, rest_loss, rests
from vaultlab.models.sparse import fresh
from vaultlab.plots.style import GREY, PALETTE, SHADES, Drawing, canvas, colour_bar, heat, log_axis
from vaultlab.result import Check, Metric

LOOKS = 200
"""So often at least the weights are looked at."""

SHOWN = 4
"""Rests at most whose W Wᵀ is drawn."""


class Spec(BaseSpec):
    hidden: int = Field(3, ge=2, le=8, json_schema_extra={"symbol": "m"})
    """How many dimensions the layer has. There are twice as many features: as many pairs as dimensions."""

    sparsity: Share = Field(0.9, ge=0, le=0.99, json_schema_extra={"symbol": "S", "stress": [0.85, 0.95]})
    """How often a feature is absent: 0.9, or 90%."""

    start: float = Field(0.001, gt=0, le=1, json_schema_extra={"stress": [0.0001, 0.01]})
    """How large the first weights are; 1 is as usual."""

    steps: int = Field(3000, ge=1, le=50_000)
    """Training steps."""

    batch: int = Field(1024, ge=16, le=16_384)
    """Vectors in a training step."""

    learning_rate: float = Field(0.002, gt=0, le=0.1, json_schema_extra={"stress": [0.001, 0.004]})
    """Adam's learning rate, the same all along."""

    seeds: int = Field(8, ge=1, le=32)
    """How many models to train, from different first weights on the same vectors."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind: the weights at every look, the last bias, the loss all along; the residuals are for
    `verify`."""

    W: Float[Tensor, "looks seeds features hidden"]
    b: Float[Tensor, "seeds features"]
    curve: Float[Tensor, "looks seeds"]
    curve_at: Float[Tensor, " looks"]
    loss: Float[Tensor, " seeds"]
    loss_error: Float[Tensor, " seeds"]
    gradient_residual: Float[Tensor, ""]
    route_residual: Float[Tensor, ""]
    closed_residual: Float[Tensor, ""]
    rest_residual: Float[Tensor, ""]


def toy_of(spec: Spec) -> Toy:
    return Toy(2 * spec.hidden, spec.hidden, 1.0, True, "together")


def compute(spec: Spec, bench: Bench) -> Out:
    """Train, looking on; then measure in float64 on the CPU."""
    return next(iter(together([spec], bench)))


def together(specs: Sequence[Spec], bench: Bench) -> Iterator[Out]:
    """Specs that differ in nothing but their sparsity train as one batch."""
    found: dict[Spec, Out] = {}
    for points in alike(specs, "sparsity"):
        spec = points[0]
        course = Course(
            spec.steps, spec.batch, spec.learning_rate, spec.seeds, spec.seed, LOOKS, spec.start, constant=True
        )
        thetas, curve, at = [], [], []
        sparsities = [point.sparsity for point in points]
        for moment in training(toy_of(spec), course, sparsities, bench.device, bench.generator, bench.progress):
            thetas.append(moment.theta.cpu().clone())
            curve.append(moment.loss.cpu().double())
            at.append(float(moment.step))
        for place, point in enumerate(points):
            course_of = torch.stack([theta[place] for theta in thetas]), torch.stack(curve)[:, place]
            found[point] = _measured(point, *course_of, at, bench)
    for spec in specs:
        yield found[spec]


def _measured(spec: Spec, thetas: Tensor, curve: Tensor, at: Sequence[float], bench: Bench) -> Out:
    exam = examine(
        toy_of(spec), spec.sparsity, thetas[-1].double(), curve[-1], lambda: bench.generator("toy", spec.seed, "fresh")
    )
    return Out(
        W=thetas[..., :-1],
        b=thetas[-1, ..., -1],
        curve=curve,
        curve_at=torch.tensor(at, dtype=torch.float64),
        rest_residual=_rest_residual(spec, bench),
        **exam._asdict(),
    )


def _costs(spec: Spec) -> list[float]:
    """The loss of the rests with no, one, two … pairs told apart."""
    return [rest_loss(1 - spec.sparsity, spec.hidden, apart) for apart in range(spec.hidden + 1)]


def _rest_residual(spec: Spec, bench: Bench) -> Tensor:
    """How far the weights of the rests are from their closed form, on fresh vectors, in standard errors."""
    toy = toy_of(spec)
    W = torch.stack([rest(spec.hidden, apart) for apart in range(spec.hidden + 1)])
    vectors = fresh(toy.law, spec.sparsity, bench.generator("toy", spec.seed, "fresh"), FRESH)
    each, _ = losses(toy, torch.nn.functional.pad(W, (0, 1)), vectors)
    return ((each.mean(1) - torch.tensor(_costs(spec))).abs() / (each.std(1) / math.sqrt(FRESH) + 1e-12)).max()


LOSS = Quantity(
    "loss",
    "Expected Σ (x_i − x′_i)² at the end, measured on 65 536 fresh vectors; interval: 95%, from their spread; null: "
    "always answering the mean, n (p/3 − p²/4).",
    range=(0, math.inf),
    headline=True,
)
JUMPS = Quantity(
    "jumps",
    "How often training goes over from one rest to another, with another number of pairs told apart.",
    unit="jumps",
    range=(0, 100),
    headline=True,
)
TOLD_APART = Quantity(
    "told_apart",
    "How many pairs have a cosine of at most 0.3 within them at the end, both features being represented.",
    unit="pairs",
    range=(0, 8),
    headline=True,
)
MERGED_PAIRS = Quantity(
    "merged",
    "How many pairs were merged at once, at most: both represented, with a cosine of 0.9 or more; null: as many as if "
    "features that are no pair were paired, by how often two of these are merged.",
    unit="pairs",
    range=(0, 8),
)
FALL = Quantity(
    "fall",
    "The share of its loss that the model loses in each jump; null: the same in stretches as long within its rests, "
    "their median.",
    range=(-math.inf, 1),
)
LOSS_BY_REST = Quantity(
    "loss_by_rest",
    "The median loss in each rest by what that rest costs in closed form.",
    unit="× closed form",
    range=(0, math.inf),
)
DIMENSIONALITY = Quantity(
    "dimensionality",
    "D_i of every feature at the end.",
    unit="dimensions",
    range=(0, 1),
    forced={"mean": "Σ D_i is at most m whatever is trained, and m for nearly every W, so the mean is m/n"},
)


class _Run(NamedTuple):
    """The course of one seed, in rests and in what is lost between them."""

    rests: list[Rest]
    falls: list[float]
    by_closed: list[float]
    merged: int
    apart: int


def _runs(spec: Spec, out: Out) -> list[_Run]:
    return [_run(spec, out, seed) for seed in range(spec.seeds)]


def _run(spec: Spec, out: Out, seed: int) -> _Run:
    cosine, loss = cosines(out.W[:, seed].double()), out.curve[:, seed]
    found = rests(cosine)
    falls = [float(1 - loss[after.begin] / loss[before.end]) for before, after in pairwise(found)]
    by_closed = [float(loss[one.begin : one.end + 1].median()) / _costs(spec)[one.apart] for one in found]
    merged = int((cosine >= MERGED).sum(-1).max())
    return _Run(found, falls, by_closed, merged, int((cosine[-1] <= APART).sum()))


def _shown(out: Out, runs: Sequence[_Run]) -> int:
    """The seed that is shown: the most rests, then the longest, then the lowest loss."""

    def rank(seed: int) -> tuple[int, int, float]:
        found = runs[seed].rests
        return len(found), sum(one.end - one.begin for one in found), -float(out.loss[seed])

    return max(range(len(runs)), key=rank)


def _usual_fall(out: Out, seed: int, run: _Run) -> float | None:
    """The median share of the loss that is lost in stretches of rest as long as a jump."""
    length = round(sum(b.begin - a.end for a, b in pairwise(run.rests)) / max(1, len(run.rests) - 1))
    loss = out.curve[:, seed]
    falls = [
        float(1 - loss[look + length] / loss[look])
        for one in run.rests
        for look in range(one.begin, one.end - length + 1)
    ]
    return float(torch.tensor(falls).median()) if length and falls else None


def _merged_by_chance(W: Float[Tensor, "looks features hidden"]) -> float:
    """Of every two features that are no pair, the share that is merged at once at most, times the number of pairs."""
    n = W.shape[1]
    merged = [
        (cosines(W[:, [one, other]]) >= MERGED)[:, 0]
        for one, other in combinations(range(n), 2)
        if one // 2 != other // 2
    ]
    return float(torch.stack(merged).sum(0).max()) / len(merged) * n / 2


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the seed that is shown; `seeds` has them for every seed."""
    runs = _runs(spec, out)
    seed = _shown(out, runs)
    loss, error, run = float(out.loss[seed]), float(out.loss_error[seed]), runs[seed]
    share = _share(out)[-1]

    def of(quantity: Quantity, values: Sequence[Any], **more: Any) -> Metric:
        return quantity.is_(values[seed], n=spec.seeds, seeds=tuple(values), **more)

    interval = (loss - 1.96 * error, loss + 1.96 * error)
    metrics = [
        of(LOSS, out.loss.tolist(), interval=interval, null=mean_loss(toy_of(spec), spec.sparsity)),
        of(JUMPS, [max(0, len(one.rests) - 1) for one in runs]),
        of(TOLD_APART, [one.apart for one in runs]),
        of(MERGED_PAIRS, [one.merged for one in runs], null=_merged_by_chance(out.W[:, seed].double())),
        of(FALL, [tuple(one.falls) for one in runs], null=_usual_fall(out, seed, run)),
        of(LOSS_BY_REST, [tuple(one.by_closed) for one in runs]),
        of(DIMENSIONALITY, [tuple(one) for one in share.tolist()]),
    ]
    return [metric for metric in metrics if metric.value != ()]


def _share(out: Out) -> Float[Tensor, "looks seeds features"]:
    norm, _, dimensionality = geometry(out.W.double())
    return dimensionality.where(norm >= REPRESENTED, 0)


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: of its gradient, loss and vectors, of its geometry at every look, of the rests."""
    return [
        *training_checks(out),
        *geometry_checks(out.W.double()),
        Check(
            "weights of the rests cost their closed form",
            float(out.rest_residual),
            5,
            "with no, one, two … pairs told apart, on the fresh vectors, in standard errors",
        ),
    ]


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    runs = _runs(spec, out)
    seed = _shown(out, runs)
    figures = {
        "learning": _draw_learning(spec, out, seed, runs[seed]),
        "seeds": _draw_seeds(spec, out, seed),
        "pairs": _draw_pairs(spec, out, seed),
    }
    return figures | ({"rests": _draw_rests(out, seed, runs[seed])} if runs[seed].rests else {})


def data(spec: Spec, out: Out) -> dict[str, Any]:
    """The arrows of the run that is shown, on the way, where they can be drawn; the last ones first."""
    if spec.hidden > 3:
        return {}
    seed = _shown(out, _runs(spec, out))
    looks = sorted({round(one) for one in torch.linspace(0, len(out.W) - 1, 41).tolist()})
    return {
        "kind": "vectors",
        "axis": "step",
        "values": [int(out.curve_at[look]) for look in looks],
        "vectors": [[[round(x, 4) for x in row] for row in out.W[look, seed].tolist()] for look in looks],
        "notes": [f"loss {float(out.curve[look, seed]):.3g}" for look in looks],
        "chosen": len(looks) - 1,
    }


def _colours(spec: Spec) -> list[Any]:
    if spec.hidden <= len(PALETTE):
        return list(PALETTE[: spec.hidden])
    return [SHADES(pair / (spec.hidden - 1)) for pair in range(spec.hidden)]


def _apart(count: int) -> str:
    return "none apart" if count == 0 else f"{count} apart"


def _rest_lines(spec: Spec, ax: Axes) -> None:
    """What the rests cost, each named at the right unless the one before is too near."""
    low, high = (math.log(end) for end in ax.get_ylim())
    last = math.inf
    for apart, cost in enumerate(_costs(spec)):
        ax.axhline(cost, color=GREY, linewidth=0.8, linestyle=":")
        if abs(last - math.log(cost)) > 0.09 * (high - low):
            ax.text(1.01, cost, _apart(apart), transform=ax.get_yaxis_transform(), va="center", fontsize=10)
            last = math.log(cost)


def _loss_axis(spec: Spec, ax: Axes, lowest: float, highest: float) -> None:
    ax.set_ylim(0.8 * min(lowest, *_costs(spec)), 1.2 * max(highest, *_costs(spec)))
    log_axis(ax, "y")
    ax.set(xlabel="training step", ylabel="loss (log scale)")
    _rest_lines(spec, ax)


def _draw_learning(spec: Spec, out: Out, seed: int, run: _Run) -> Drawing:
    share, loss, at = _share(out)[:, seed], out.curve[:, seed], out.curve_at
    with canvas(2, 1, height=5.6, sharex=True) as (figure, axes):
        for before, after in pairwise(run.rests):
            for ax in axes[:, 0]:
                ax.axvspan(float(at[before.end]), float(at[after.begin]), color=GREY, alpha=0.2, linewidth=0)
        ax = axes[0, 0]
        for name, height in {"1": 1, "½": 1 / 2, "¼": 1 / 4}.items():
            ax.axhline(height, color=GREY, linewidth=0.8, linestyle=":")
            ax.text(1.01, height, name, transform=ax.get_yaxis_transform(), va="center")
        for pair, colour in enumerate(_colours(spec)):
            for which, style in enumerate(("-", "--")):
                label = f"pair {pair + 1}" if which == 0 else None
                ax.plot(at, share[:, 2 * pair + which], style, color=colour, linewidth=1.6, label=label)
        ax.set(xlim=(0, float(at[-1])), ylim=(-0.04, 1.06), ylabel="dimensionality Dᵢ")
        axes[1, 0].plot(at, loss, color=PALETTE[0])
        # The first steps are in `seeds`: on their scale the rests would lie on each other.
        _loss_axis(spec, axes[1, 0], float(loss.min()), 2 * _costs(spec)[0])
        handles, names = ax.get_legend_handles_labels()
        if len(run.rests) > 1:
            handles, names = [*handles, Patch(color=GREY, alpha=0.4)], [*names, "jump"]
        figure.legend(handles, names, loc="outside upper center", ncols=5)
    went = "; ".join(
        f"from step {int(at[one.begin])} to {int(at[one.end])} {_apart(one.apart)}, loss "
        f"{float(loss[one.begin : one.end + 1].median()):.3g}"
        for one in run.rests
    )
    return Drawing(
        figure,
        f"The dimensionality of {2 * spec.hidden} features in {spec.hidden} pairs and the loss over {spec.steps} "
        f"training steps, with rests at which so many pairs are told apart: {went or 'there are 0'}.",
    )


def _draw_seeds(spec: Spec, out: Out, seed: int) -> Drawing:
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        others = [one for one in range(spec.seeds) if one != seed]
        for place, other in enumerate(others):
            label = "other seeds" if place == 0 else None
            ax.plot(out.curve_at, out.curve[:, other], color=PALETTE[1], linewidth=1, alpha=0.7, label=label)
        ax.plot(out.curve_at, out.curve[:, seed], color=PALETTE[0], label="shown")
        null = mean_loss(toy_of(spec), spec.sparsity)
        ax.axhline(null, color=GREY, linestyle="--", linewidth=1, label="always the mean")
        _loss_axis(spec, ax, float(out.curve.min()), max(null, float(out.curve.max())))
        figure.legend(loc="outside upper center", ncols=3)
    low, high = float(out.loss.min()), float(out.loss.max())
    return Drawing(
        figure,
        f"The loss of {spec.seeds} seeds over {spec.steps} steps: it ends between {low:.3g} and {high:.3g}; always "
        f"answering the mean would give {null:.3g}.",
    )


def _draw_pairs(spec: Spec, out: Out, seed: int) -> Drawing:
    cosine, at = cosines(out.W.double()), out.curve_at
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        for bound, name in ((MERGED, "merged"), (APART, "apart")):
            ax.axhline(bound, color=GREY, linewidth=0.8, linestyle=":")
            ax.text(1.01, bound, name, transform=ax.get_yaxis_transform(), va="center", fontsize=10)
        for other in (one for one in range(spec.seeds) if one != seed):
            ax.plot(at, cosine[:, other], color=GREY, linewidth=0.6, alpha=0.4)
        for pair, colour in enumerate(_colours(spec)):
            ax.plot(at, cosine[:, seed, pair], color=colour, label=f"pair {pair + 1}")
        lowest = min([0.0, *cosine[cosine.isfinite()].tolist()])
        ax.set(
            xlim=(0, float(at[-1])), ylim=(lowest - 0.08, 1.08), xlabel="training step", ylabel="cosine within the pair"
        )
        ax.plot([], [], color=GREY, linewidth=0.6, label="other seeds")
        figure.legend(loc="outside upper center", ncols=5)
    last = ", ".join(f"{float(one):.2f}" for one in cosine[-1, seed])
    return Drawing(
        figure,
        f"The cosine between the two features of each of {spec.hidden} pairs, from when both are represented: at most "
        f"{_most(cosine[:, seed])}, and {last} at the end.",
    )


def _most(cosine: Tensor) -> str:
    there = cosine[cosine.isfinite()]
    return f"{float(there.max()):.2f}" if len(there) else "nothing, for 0 pairs are represented"


def _draw_rests(out: Out, seed: int, run: _Run) -> Drawing:
    shown = [
        run.rests[round(one)] for one in torch.linspace(0, len(run.rests) - 1, min(SHOWN, len(run.rests))).tolist()
    ]
    looks = [(one.begin + one.end) // 2 for one in shown]
    grams = [out.W[look, seed].double() @ out.W[look, seed].double().T for look in looks]
    most = max(float(gram.abs().max()) for gram in grams)
    n = len(grams[0])
    with canvas(1, len(looks), height=2.3 + 2.4 / len(looks), sharey=True) as (figure, axes):
        for ax, one, look, gram in zip(axes[0], shown, looks, grams, strict=True):
            image = heat(ax, gram.numpy(), "", limits=(-most, most), bar=None)
            ax.set(aspect="equal", xlabel="feature", title=f"step {int(out.curve_at[look])}\n{_apart(one.apart)}")
            ax.set_xticks(range(0, n, 1 + n // 8), [str(i + 1) for i in range(0, n, 1 + n // 8)])
            ax.spines[:].set_visible(False)
        axes[0, 0].set_yticks(range(0, n, 1 + n // 8), [str(i + 1) for i in range(0, n, 1 + n // 8)])
        axes[0, 0].set_ylabel("feature")
        colour_bar(list(axes[0]), image, "W Wᵀ", "top")
    lengths = "; ".join(
        f"{_apart(one.apart)}: lengths {float(gram.diag().sqrt().min()):.2f} to {float(gram.diag().sqrt().max()):.2f}"
        for one, gram in zip(shown, grams, strict=True)
    )
    return Drawing(figure, f"W Wᵀ of {n} features in the middle of {len(looks)} rests. {lengths}.")


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """Training as in `superposition`, and the looks."""
    del shape
    n, m, vectors = 2 * spec.hidden, spec.hidden, 2 * spec.seeds * spec.hidden * spec.batch
    training = spec.steps * vectors * (min(2 * n, 5 * m) / 2e10 + 2e-9)
    looking = min(spec.steps, 2 * LOOKS) * (1e-3 + 1e-4 * spec.seeds * spec.hidden / 3)
    once = 1 + spec.steps * 2e-4
    return Needs(8 * vectors + 8 * n * (3 * FRESH + 4 * CHUNK * spec.seeds), once + training + looking, once)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    data=data,
    metrics=(LOSS, JUMPS, TOLD_APART, MERGED_PAIRS, FALL, LOSS_BY_REST, DIMENSIONALITY),
    figures={
        "learning": "Every feature's dimensionality and the loss over training, with its rests and jumps.",
        "seeds": "The loss of every seed over training, and what the rests cost.",
        "pairs": "The cosine between the two features of each pair over training.",
        "rests": "W Wᵀ in the middle of each rest.",
    },
    examples=(
        Example(
            "pairs-are-told-apart",
            "Three pairs are first taken for three features, then told apart in jumps",
            {},
            (
                "jumps >= 2",
                "every fall > 0.05",
                "merged >= 2 in 90% of seeds",
                "told_apart = 3 in 90% of seeds",
                "every loss_by_rest = 1 +- 0.15",
                "every dimensionality = 0.48 +- 0.03",
            ),
        ),
        Example(
            "dense-pairs-stay-merged",
            "Where features are there more than a quarter of the time, telling them apart does not pay",
            {"sparsity": 0.7, "steps": 2000, "seeds": 4},
            ("told_apart = 0", "merged = 3", "jumps = 0", "every loss_by_rest = 1 +- 0.05"),
        ),
    ),
    needs=needs,
    together=together,
    batched=("sparsity",),
    nonsense=Nonsense("an untrained model", "training", {"steps": 1}),
)
