"""Almost orthogonal: how near to right angles can more directions be than there are dimensions?

Only d unit vectors of R^d can be at right angles to each other. This experiment asks how much |cos| must be given up
for N of them, drawn at random and packed as far apart as they go, and what is known without trying:

    Welch          max |cos| ≥ √((N/d − 1)/(N − 1))          of any arrangement; higher orders for N far beyond d
    random         P(|cos| > ε) = I_{1−ε²}((d − 1)/2, ½)     of one pair; I: the regularised incomplete beta function
                   median of the largest: (1 − P)^{N(N−1)/2} = ½
    promise        N < e^{dε²/4}  ⇒  some N vectors have every |cos| < ε

The promise is where "exponentially many almost orthogonal directions" comes from: P ≤ 2 e^{−dε²/2}, so the N²/2 pairs
of random vectors all stay below ε with a probability above 0. It is a bound on what exists, not a prediction: packing
does far better, and in few dimensions it is vacuous. It promises less than the d orthogonal vectors that are there
anyway until N passes d, and at N = e^{d/4} it has come to ε = 1, which says nothing; for d ≤ 8 these leave no room.

Random pairs are independent two by two but not all together, so the median is a close approximation; the check on it
allows what Bonferroni's inequalities do. Packing is a search: its |cos| can be reached, a smaller one may be too.

How to read the figures. In `bounds` look up from a number of vectors: no arrangement lies below the dashed line
(Welch), packed ones come near it, random ones lie on their closed form, and the promise is far above both. In `cosines`
are all pairs: random ones as a bell about 90°, packed ones pushed together below one value. In `gram` every cell is a
pair.

Source: Nelson Elhage et al. (2022), "Toy Models of Superposition", section "The Superposition Hypothesis",
https://transformer-circuits.pub/2022/toy_model/index.html. Welch's bound: Lloyd R. Welch (1974), "Lower Bounds on the
Maximum Cross Correlation of Signals", IEEE Transactions on Information Theory 20, https://doi.org/10.1109/TIT.1974.1055219.
The share of a sphere near a pole: Keith Ball (1997), "An Elementary Introduction to Modern Convex Geometry", lemma 2.2,
https://library.slmath.org/books/Book31/files/ball.pdf
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Nonsense, Quantity, Seed
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models.directions import cosine_at, largest, median_of_largest, pack, tail, welch
from vaultlab.models.family import Shape
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, log_axis
from vaultlab.result import Check, Metric

BINS = 50
"""Of |cos| from 0 to 1, in which random pairs are counted."""


class Spec(BaseSpec):
    vectors: int = Field(128, ge=2, le=1024, json_schema_extra={"symbol": "N"})
    """How many unit vectors."""

    dimensions: int = Field(32, ge=2, le=1024, json_schema_extra={"symbol": "d"})
    """In how many dimensions."""

    draws: int = Field(200, ge=20, le=5000)
    """How often random vectors are drawn."""

    steps: int = Field(1000, ge=1, le=20_000, json_schema_extra={"stress": [300, 3000]})
    """Steps of packing."""

    seeds: int = Field(4, ge=1, le=32)
    """How many packings to try, from different random vectors."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind. `sizes` are numbers of vectors up to N, each half the next; `counts` are those of
    all random pairs by |cos|, `above` of the ones beyond what half and a twentieth of them should exceed."""

    sizes: tuple[int, ...]
    random: Float[Tensor, "vectors dimensions"]
    packed: Float[Tensor, "vectors dimensions"]
    random_most: Float[Tensor, "draws sizes"]
    packed_most: Float[Tensor, "seeds sizes"]
    nearest: Float[Tensor, "seeds vectors"]
    square: Float[Tensor, " seeds"]
    counts: Float[Tensor, " bins"]
    above: Float[Tensor, " 2"]
    gram_residual: Float[Tensor, ""]


SHARES = (0.5, 0.05)
"""Of the pairs that the law of |cos| is checked on."""


def sizes_of(spec: Spec) -> tuple[int, ...]:
    halves = [max(2, round(spec.vectors / 2**k)) for k in range(spec.vectors.bit_length())]
    return tuple(sorted(set(halves)))


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """Draw and count, then pack every size; the packed vectors are measured in float64 on the CPU."""
    sizes = sizes_of(spec)
    random, random_most, counts, above = _drawn(spec, bench)
    starts = torch.stack([_vectors(spec, bench, "packed", k) for k in range(spec.seeds)]).to(bench.device)
    total, most = spec.steps * len(sizes), []
    for rung, size in enumerate(sizes):
        report = partial(_report, bench, rung * spec.steps, total)
        packed = torch.nn.functional.normalize(pack(starts[:, :size], spec.steps, report).cpu().double(), dim=-1)
        nearest = largest(packed)
        most.append(nearest.amax(-1))
    gram, small = (packed @ packed.mT).square().sum((-2, -1)), (packed.mT @ packed).square().sum((-2, -1))
    return Out(
        sizes=sizes,
        random=random.float(),
        packed=packed[int(most[-1].argmin())].float(),
        random_most=random_most,
        packed_most=torch.stack(most, 1),
        nearest=nearest,
        square=(small - spec.vectors) / (spec.vectors * (spec.vectors - 1)),
        counts=counts,
        above=above,
        gram_residual=((gram - small).abs() / small).max(),
    )


def _report(bench: Bench, before: int, total: int, step: int) -> None:
    bench.progress(before + step, total, "packing")


def _vectors(spec: Spec, bench: Bench, *name: int | str) -> Float[Tensor, "vectors dimensions"]:
    generator = bench.generator(*name, spec.seed)
    drawn = torch.randn(spec.vectors, spec.dimensions, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=-1)


def _drawn(spec: Spec, bench: Bench) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The first random vectors, the largest |cos| of each draw among its first so many, and counts over all pairs."""
    sizes = torch.tensor(sizes_of(spec)) - 1
    pairs = torch.ones(spec.vectors, spec.vectors, dtype=torch.bool, device=bench.device).tril(-1)
    edges = cosine_at(torch.tensor(SHARES, dtype=torch.float64), spec.dimensions)
    counts, above, most = torch.zeros(BINS, dtype=torch.float64), torch.zeros(len(SHARES), dtype=torch.float64), []
    for draw_ in range(spec.draws):
        bench.progress(draw_, spec.draws, "drawing at random")
        U = _vectors(spec, bench, "random", draw_).to(bench.device)
        cosines = (U @ U.T).abs().clamp(max=1)
        most.append(cosines.where(pairs, 0).amax(1).cummax(0).values.cpu().double()[sizes])
        flat = cosines[pairs]
        counts += torch.histc(flat, BINS, 0, 1).cpu()
        above += torch.tensor([int((flat > float(edge)).sum()) for edge in edges])
    return _vectors(spec, bench, "random", 0), torch.stack(most), counts, above


MAX_COSINE = Quantity(
    "max_cosine",
    "The largest |cos| of two of the packed vectors, in the best packing; null: the median of random vectors, in "
    "closed form.",
    range=(0, 1),
    headline=True,
)
RANDOM_MAX_COSINE = Quantity(
    "random_max_cosine",
    "The largest |cos| of two random vectors, median over the draws; interval: 95%, by ranks; null: its closed form.",
    range=(0, 1),
    headline=True,
)
PROMISED = Quantity(
    "promised",
    "e^{dε²/4} at ε = max_cosine: how many such vectors the exponential bound promises.",
    unit="vectors",
    range=(1, math.inf),
    headline=True,
)
WELCH = Quantity("welch", "Welch's bound: no arrangement has a smaller largest |cos|.", range=(0, 1))
NEAREST = Quantity("nearest", "Of every packed vector the largest |cos| with another one.", range=(0, 1))
MEAN_SQUARE_COSINE = Quantity(
    "mean_square_cosine",
    "Mean cos² over the pairs of packed vectors; null: 1/d, that of random ones. Never below (N/d − 1)/(N − 1).",
    range=(0, 1),
)


def _best(out: Out) -> int:
    return int(out.packed_most[:, -1].argmin())


def closed_median(spec: Spec) -> float:
    return float(median_of_largest(torch.tensor(spec.vectors), spec.dimensions))


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The numbers of the best packing; `seeds` has them for every one."""
    best, most = _best(out), out.packed_most[:, -1]
    by_chance = closed_median(spec)
    drawn = out.random_most[:, -1].sort().values
    reach = 0.98 * math.sqrt(spec.draws)
    low, high = (int(spec.draws / 2 + side * reach) for side in (-1, 1))
    promised = (spec.dimensions * most**2 / 4).exp()
    return [
        MAX_COSINE.is_(float(most[best]), null=by_chance, n=spec.seeds, seeds=tuple(most.tolist())),
        RANDOM_MAX_COSINE.is_(
            float(drawn.median()), interval=(float(drawn[low]), float(drawn[high])), null=by_chance, n=spec.draws
        ),
        PROMISED.is_(float(promised[best]), n=spec.seeds, seeds=tuple(promised.tolist())),
        WELCH.is_(welch(spec.vectors, spec.dimensions)),
        NEAREST.is_(
            tuple(out.nearest[best].tolist()), n=spec.seeds, seeds=tuple(tuple(row) for row in out.nearest.tolist())
        ),
        MEAN_SQUARE_COSINE.is_(
            max(0.0, float(out.square[best])),
            null=1 / spec.dimensions,
            n=spec.seeds,
            seeds=tuple(out.square.clamp(min=0).tolist()),
        ),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Bounds that no arrangement breaks, and the law that random ones follow."""
    smallest = torch.minimum(out.random_most.amin(0), out.packed_most.amin(0))
    bounds = torch.tensor([welch(size, spec.dimensions) for size in out.sizes])
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    promise = 2 * (-spec.dimensions * grid**2 / 2).exp()
    return [
        Check(
            "no arrangement beats Welch's bound",
            float((bounds - smallest).max()),
            1e-6,
            f"random and packed, of {len(out.sizes)} sizes; the residual is by how much",
        ),
        Check(
            "Σ cos² = ‖UᵀU‖²",
            float(out.gram_residual),
            1e-9,
            "over all pairs of packed vectors; the right side goes through the dimensions; relative",
        ),
        Check(
            "random pairs follow the beta law",
            float(_law_residual(spec, out)),
            5,
            "how many pairs are above what half and a twentieth of them exceed, in standard errors",
        ),
        Check(
            "the largest of random pairs is where it must be",
            _median_residual(spec, out),
            5,
            "the share of draws above the median's closed form, between Bonferroni's bounds; standard errors outside",
        ),
        Check(
            "P(|cos| > ε) ≤ 2 e^{−dε²/2}",
            float((tail(grid, spec.dimensions) - promise).max()),
            1e-12,
            "what the promise rests on, at a thousand ε; the residual is the excess",
        ),
    ]


def _law_residual(spec: Spec, out: Out) -> Tensor:
    """Two pairs are independent even where they share a vector, so a count has the variance of a binomial."""
    pairs, share = float(out.counts.sum()), torch.tensor(SHARES, dtype=torch.float64)
    return ((out.above - pairs * share).abs() / (pairs * share * (1 - share)).sqrt()).max()


def _median_residual(spec: Spec, out: Out) -> float:
    """Of the pairs' probabilities p: Σp ≥ P(any) ≥ Σp − Σ over pairs of pairs p², for these are independent."""
    pairs = spec.vectors * (spec.vectors - 1) // 2
    p = -math.expm1(-math.log(2) / pairs)
    high, low = pairs * p, pairs * p - math.comb(pairs, 2) * p**2
    share = float((out.random_most[:, -1] > closed_median(spec)).double().mean())
    return max(0.0, share - high, low - share) / (0.5 / math.sqrt(spec.draws))


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {"bounds": _draw_bounds(spec, out), "cosines": _draw_cosines(spec, out), "gram": _draw_gram(spec, out)}


def promise_at(vectors: float, dimensions: int) -> float:
    """The ε below which e^{dε²/4} promises that so many vectors exist; from 1 on it says nothing."""
    return math.sqrt(4 * math.log(vectors) / dimensions)


def promise_says(dimensions: int) -> str:
    """Between how many vectors the promise is more than what is plain anyway."""
    last = math.exp(min(dimensions / 4, 700))
    if last <= dimensions:
        return f"N < e^(dε²/4) is vacuous in {dimensions} dimensions"
    shown = f"{last:.0f}" if last < 1e5 else f"10^{dimensions / 4 / math.log(10):.0f}"
    return f"N < e^(dε²/4) is vacuous unless {dimensions} < N < {shown}"


def _draw_bounds(spec: Spec, out: Out) -> Drawing:
    d, n, sizes = spec.dimensions, spec.vectors, np.array(out.sizes)
    last = max(10 * n, 4 * d)
    along = torch.logspace(math.log10(2), math.log10(last), 200, dtype=torch.float64)
    with canvas(height=4.4) as (figure, axes):
        ax = axes[0, 0]
        _draw_promise(ax, d, last)
        whole = np.unique(along.long().numpy())
        ax.plot(whole, [welch(int(one), d) for one in whole], color=GREY, linestyle="--", linewidth=1.5, label="Welch")
        ax.plot(sizes, out.packed_most.amin(0), "s", color=PALETTE[1], markersize=7, label="packed")
        low, middle, high = out.random_most.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), dim=0)
        reach = torch.stack([middle - low, high - middle]).numpy()
        ax.errorbar(sizes, middle, yerr=reach, fmt="o", color=PALETTE[0], markersize=5, capsize=3, label="random")
        ax.plot(along, median_of_largest(along, d), color=PALETTE[0], linewidth=1.5, label="closed form")
        ax.axvline(d, color=GREY, linewidth=0.8, linestyle=":")
        ax.text(d, 1.02, f"N = d = {d}", ha="center")
        log_axis(ax, "x")
        ax.set(xlim=(1.8, 1.1 * last), ylim=(-0.02, 1.1), xlabel="number of vectors N", ylabel="largest |cos| of two")
        figure.legend(loc="outside upper center", ncols=3)
    promised = promise_at(n, d)
    words = f"promises only {promised:.3g}" if promised < 1 else "promises nothing there, being past 1"
    return Drawing(
        figure,
        f"The largest |cos| of two of N unit vectors in {d} dimensions, against N. At N = {n}: packed "
        f"{float(out.packed_most.amin(0)[-1]):.3g}, random {float(middle[-1]):.3g}, its closed form "
        f"{closed_median(spec):.3g}; Welch's bound {welch(n, d):.3g}; the exponential bound {words}. The promise "
        f"{promise_says(d)}.",
    )


def _draw_promise(ax: Axes, d: int, last: int) -> None:
    """As a line where it says something; where it is vacuous, that is written."""
    end = math.exp(min(d / 4, math.log(last)))
    if end > d:
        n = np.geomspace(d, end, 100)
        ax.plot(n, [promise_at(one, d) for one in n], color=PALETTE[3], label="promised")
    ax.set_title(promise_says(d), color=PALETTE[3])


def _draw_cosines(spec: Spec, out: Out) -> Drawing:
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    expected = -100 * tail(edges, spec.dimensions).diff().numpy()
    random = 100 * (out.counts / out.counts.sum()).numpy()
    packed = (out.packed.double() @ out.packed.double().T).abs().clamp(max=1)
    shares = torch.histc(packed[torch.ones_like(packed).tril(-1) > 0], BINS, 0, 1).numpy()
    shares *= 100 / shares.sum()
    middle, seen = ((edges[1:] + edges[:-1]) / 2).numpy(), random > 0
    with canvas(height=3.8) as (figure, axes):
        ax = axes[0, 0]
        ax.bar(middle, shares, width=1 / BINS, color=PALETTE[1], label="packed")
        ax.plot(middle, expected, color=PALETTE[0], linewidth=1.5, label="random, closed form")
        ax.plot(middle[seen], random[seen], "o", color=PALETTE[0], markersize=4, label="random, drawn")
        bound = welch(spec.vectors, spec.dimensions)
        ax.axvline(bound, color=GREY, linestyle="--", linewidth=1.5, label="Welch")
        log_axis(ax, "y")
        least = 0.3 * min(random[seen].min(), shares[shares > 0].min())
        ax.set(xlim=(0, 1), ylim=(least, 150), xlabel="|cos| of a pair", ylabel="share of pairs (%)")
        figure.legend(loc="outside upper center", ncols=2)
    return Drawing(
        figure,
        f"How often pairs of {spec.vectors} unit vectors in {spec.dimensions} dimensions have which |cos|. Random ones "
        f"reach {float(out.random_most[:, -1].max()):.3g} and lie on their closed form; packed ones end at "
        f"{float(out.packed_most.amin(0)[-1]):.3g}, Welch's bound is {bound:.3g}.",
    )


def _draw_gram(spec: Spec, out: Out) -> Drawing:
    grams = [(U.double() @ U.double().T).abs().fill_diagonal_(math.nan).numpy() for U in (out.random, out.packed)]
    most = float(np.nanmax(grams))
    step = -(-spec.vectors // 6)
    with canvas(1, 2, height=3.6, sharey=True) as (figure, axes):
        for ax, gram, name in zip(axes[0], grams, ("random", "packed"), strict=True):
            image = heat(ax, gram, "", limits=(0, most), bar=None)
            ax.set_aspect("equal")
            ax.set(title=f"{name}: up to {np.nanmax(gram):.2f}", xlabel="vector")
            ax.set_xticks(range(0, spec.vectors, step), [str(i + 1) for i in range(0, spec.vectors, step)])
            ax.set_yticks(range(0, spec.vectors, step), [str(i + 1) for i in range(0, spec.vectors, step)])
            ax.spines[:].set_visible(False)
        axes[0, 0].set_ylabel("vector")
        colour_bar(list(axes[0]), image, "|cos|")
    return Drawing(
        figure,
        f"|cos| of all pairs of {spec.vectors} vectors as two maps on one scale: random ones reach "
        f"{np.nanmax(grams[0]):.3g}, packed ones {np.nanmax(grams[1]):.3g}.",
    )


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """By the products of all pairs, at twenty billion multiplications a second, and the passes over the cosines."""
    del shape
    n, d, cells = spec.vectors, spec.dimensions, spec.vectors**2
    step = len(sizes_of(spec)) * 1e-4 + 4 / 3 * spec.seeds * cells * (2 * d / 2e10 + 8e-9)
    drawing = spec.draws * (1e-3 + cells * (d / 2e10 + 1e-8))
    return Needs(8 * spec.seeds * (3 * cells + 6 * n * d), 1 + spec.steps * step + drawing)


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(MAX_COSINE, RANDOM_MAX_COSINE, PROMISED, WELCH, NEAREST, MEAN_SQUARE_COSINE),
    figures={
        "bounds": "The largest |cos| against the number of vectors: drawn, packed, and what is known without trying.",
        "cosines": "How many pairs have which |cos|, random ones beside their closed form.",
        "gram": "|cos| of every pair, random and packed.",
    },
    examples=(
        Example(
            "sixteen-in-eight",
            "Sixteen random directions in eight dimensions: two of them come as near as .83",
            {"vectors": 16, "dimensions": 8},
            ("random_max_cosine = 0.83 +- 0.03", "max_cosine < 0.3", "welch = 0.258 +- 0.001", "promised < 2"),
        ),
        Example(
            "icosahedron",
            "Six lines in space meet Welch's bound: the diagonals of an icosahedron",
            {"vectors": 6, "dimensions": 3},
            ("max_cosine = 0.4472 +- 0.001", "welch = 0.4472 +- 0.0001", "every nearest = 0.4472 +- 0.001"),
        ),
        Example(
            "twenty-eight-in-seven",
            "Twenty-eight directions in seven dimensions, every pair at the same angle",
            {"vectors": 28, "dimensions": 7},
            ("max_cosine = 0.3333 +- 0.001", "min of nearest > 0.332"),
        ),
        Example(
            "lines-in-a-plane",
            "Five lines in a plane are 36° apart, which is more than Welch's bound asks",
            {"vectors": 5, "dimensions": 2},
            ("max_cosine = 0.8090 +- 0.001", "welch < 0.65"),
        ),
        Example(
            "many-in-sixty-four",
            "256 directions in 64 dimensions: packed, none is further than 8° from a right angle with another",
            {"vectors": 256, "dimensions": 64, "draws": 50, "seeds": 2},
            ("max_cosine < 0.139", "random_max_cosine > 0.4", "mean_square_cosine < 0.0125"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("directions left as they were drawn", "packing", {"steps": 1}),
)
