"""Virtual heads: two heads one after the other are a head again, and push the answer like one. How much?

A head h₂ moves what it reads, and some of that an earlier head h₁ wrote. What passes through both is what one head
with the product of their patterns and of their weights would move:

    (A² ⊗ W²)(A¹ ⊗ W¹) = A² A¹ ⊗ W² W¹        A: pattern of a head, W = W_O W_V (weights that act on columns)

A² A¹ is a pattern: its rows sum to 1 and look at nothing ahead. Attention needs no heads of its own for these; every
pair of heads in two layers is one, n² of them for 2n heads, and the question is how much they matter.

With the scales of all norms frozen at what the text made them, everything that a head adds to a logit is a sum over
who wrote what it read: the embedding, each earlier head, MLPs and biases. *Push* is how much of the logit of the token
that really comes, less the mean logit of the vocabulary, mean over the text's positions. All pushes sum to that logit:

    logit = direct + Σ_h embedding read by h + Σ_{h₁,h₂} virtual + Σ_h MLPs and biases read by h + MLPs and biases

In `virtual` h₁'s part is all that it wrote, whatever it had read. In a toy of two layers without MLPs that was the
embedding, so that these are all paths there are; in deeper models h₁'s part holds longer paths too. Only the *values*
are followed: that h₁ may also decide where h₂ looks, by its queries and keys, is `composition`.

The *null* of one virtual head: h₁'s writes, the same tokens and lengths, turned at random in the stream. Its mean is 0
and its standard deviation is known exactly: √(Σ_ij (w_i·w_j)(b_i·b_j) / d), with w what h₁ writes to each token and b
what h₂ and the logit make of it.

How to read the figures. In `paths` the bars are the parts of the logit, by what they passed through. `graph` shows
the strongest virtual heads as lines from the earlier to the later head. In `pattern` are h₁'s pattern, h₂'s, and the
virtual head's: from which token, by way of any other, something comes. `chance` has all virtual heads' pushes by their
standard deviations, against the normal curve that turned ones would have.

Source: Nelson Elhage, Neel Nanda, Catherine Olsson, Tom Henighan, Nicholas Joseph, Ben Mann, Amanda Askell, Yuntao
Bai, Anna Chen, Tom Conerly, Nova DasSarma, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Andy Jones,
Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan, Sam McCandlish, Chris
Olah (2021), "A Mathematical Framework for Transformer Circuits", sections "Path Expansion of Logits" and "Virtual
Attention Heads", https://transformer-circuits.pub/2021/framework/index.html
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    Head,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import paths
from vaultlab.models.family import Shape
from vaultlab.models.heads import address
from vaultlab.models.model import Model
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.tokens import Template
from vaultlab.plots.heads import Edge, Place, head_graph
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, colour_bar, heat, token_axis
from vaultlab.result import Check, Metric

APART = 2.0
"""A virtual head counts where its push is over so many standard deviations of turned ones."""

BY_CHANCE = math.erfc(APART / math.sqrt(2))
"""How many would be by chance: of a normal distribution, both sides."""

EDGES = 20
NAMED = 12
"""Token names along a pattern's axis at most: three patterns share the figure's width."""

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "When Mary and John went to the store, John gave a drink to Mary."
    """What it reads; each token but the first is what comes after the one before."""

    first: Head | None = None
    """The earlier head, as L11H5; none: that of the virtual head which pushes most, of `second` or of all."""

    second: Head | None = None
    """The later head, as L17H3; none: that of the virtual head which pushes most, of `first` or of all."""

    tokens: int = Field(128, ge=3, le=256, json_schema_extra={"stress": [10, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    weights: Weights = "trained"

    @model_validator(mode="after")
    def _in_order(self) -> "Spec":
        if self.first and self.second and address(self.first)[0] >= address(self.second)[0]:
            raise ValueError(f"{self.first} is in no layer before {self.second}: nothing passes through both.")
        return self


class Out(NamedTuple):
    """What `compute` leaves behind: the Pushes, heads counted layer by layer, and the drawn pair's patterns.

    `expansion_residual` is NaN where the model is more than two layers of attention.
    """

    tokens: tuple[str, ...]
    length: int
    layers: int
    heads: int
    eps: float
    expanded: bool
    first: str
    second: str
    virtual: Float[Tensor, "first second"]
    chance: Float[Tensor, "first second"]
    chance_together: Float[Tensor, ""]
    whole: Float[Tensor, " second"]
    embedded: Float[Tensor, " second"]
    rest: Float[Tensor, " second"]
    direct: Float[Tensor, ""]
    others: Float[Tensor, ""]
    logit: Float[Tensor, ""]
    paths_residual: Float[Tensor, ""]
    way_residual: Float[Tensor, ""]
    logit_residual: Float[Tensor, ""]
    first_pattern: Float[Tensor, "query key"]
    second_pattern: Float[Tensor, "query key"]
    product: Float[Tensor, "query key"]
    row_residual: Float[Tensor, ""]
    ahead_residual: Float[Tensor, ""]
    kronecker_residual: Float[Tensor, ""]
    expansion_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass, then layer by layer in float32; the pair and a toy's whole expansion in float64."""
    model = bench.model(spec.model)
    _check(spec, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled weights"))
    text = "\n\n".join(part for _, part in bench.text("text").parts)
    tokens = model.tokens(text, bos=spec.bos, template=spec.template)
    ids = tokens.ids[: min(spec.tokens, model.shape.context)]
    if len(ids) < 3:
        raise NoteError(
            f"{model.name} reads this text as {len(ids)} token{'s' * (len(ids) > 1)}; it takes at least 3.",
            "Give it a sentence.",
            field="text",
        )
    layers = model.shape.layers
    bench.progress(0, layers, "reading the text")
    found = {site: one[0] for site, one in bench.trace(model, ids[None], paths.sites(layers)).items()}
    pushes = paths.pushes(
        model, ids, found, lambda done, total: bench.progress(done, total, "following what heads move")
    )
    first, second = _pair(spec, pushes.virtual, model.shape.heads)
    pair = paths.pair(model, found, first, second)
    expansion = paths.whole_expansion(model, found)
    return Out(
        tokens=tokens.strings[: len(ids)],
        length=len(tokens.ids),
        layers=layers,
        heads=model.shape.heads,
        eps=torch.finfo(model.dtype).eps,
        expanded=expansion is not None,
        first=_name(first),
        second=_name(second),
        **pushes._asdict(),
        **pair._asdict(),
        expansion_residual=torch.tensor(math.nan) if expansion is None else expansion,
    )


def _check(spec: Spec, model: Model) -> None:
    """NoteError for a head that the model has not, or that has none before or behind it."""
    shape = model.shape
    last = shape.layers - 1
    if not last:
        raise NoteError(f"{model.name} has one layer: nothing passes through two heads.", field="model")
    for field, head, silent, why in (
        ("first", spec.first, last, "in the last layer: there is no head after it"),
        ("second", spec.second, 0, "in the first layer: there is no head before it"),
    ):
        if head is None:
            continue
        layer, number = address(head)
        if layer > last or number >= shape.heads:
            mend = f"Its heads are L0H0 to L{last}H{shape.heads - 1}."
            raise NoteError(f"{model.name} has no head {head}.", mend, field=field)
        if layer == silent:
            raise NoteError(f"{head} is {why}.", "Take one of another layer.", field=field)


def _pair(spec: Spec, pushes: Float[Tensor, "first second"], heads: int) -> tuple[Place, Place]:
    """The pair that is named, what is left open by the largest push, whichever way."""
    size = pushes.abs()
    allowed = torch.zeros_like(size, dtype=torch.bool)
    rows = slice(None) if spec.first is None else _number(spec.first, heads)
    cols = slice(None) if spec.second is None else _number(spec.second, heads)
    allowed[rows, cols] = True
    layer = torch.arange(len(size)) // heads
    allowed &= layer[:, None] < layer
    first, second = divmod(int(size.masked_fill(~allowed, -1).argmax()), len(size))
    return divmod(first, heads), divmod(second, heads)


def _number(head: str, heads: int) -> int:
    layer, number = address(head)
    return layer * heads + number


def _name(place: Place) -> str:
    return f"L{place[0]}H{place[1]}"


LOGIT = Quantity(
    "logit",
    "Logit of the token that comes, less the vocabulary's mean, mean over positions: the sum of all pushes.",
    unit="nats",
)
DIRECT = Quantity("direct", "Push of the embedding, through no head.", unit="nats")
ONE_HEAD = Quantity("one_head", "Push of what heads read from the embedding.", unit="nats", headline=True)
TWO_HEADS = Quantity(
    "two_heads",
    "Push of what heads read from earlier heads, all virtual heads together; null: 0, earlier heads' writes turned at "
    "random.",
    unit="nats",
    headline=True,
)
REST = Quantity("rest", "Push of MLPs and biases, and of what heads read from them.", unit="nats")
PAIR_PUSH = Quantity(
    "pair_push",
    "Push of the drawn virtual head; null: 0. No evidence where it was chosen for it.",
    unit="nats",
)
PAIR_SD = Quantity(
    "pair_sd",
    "The same in standard deviations of the earlier head's writes turned at random; null: 0.",
    unit="sd",
)
PAIR_SHARE = Quantity(
    "pair_share",
    "Push of the drawn virtual head by the largest push of any; null: the mean of all.",
    range=(-1, 1),
)
VIRTUAL_HEADS = Quantity(
    "virtual_heads",
    "Share of virtual heads whose push is over two standard deviations of turned ones; null: 0.0455.",
    range=(0, 1),
    headline=True,
)


def _earlier(out: Out) -> Tensor:
    """Which pairs are one before the other."""
    layer = torch.arange(len(out.whole)) // out.heads
    return layer[:, None] < layer


def measure(spec: Spec, out: Out) -> list[Metric]:
    """The parts of the logit, of all virtual heads and of the one that is drawn."""
    place = _number(out.first, out.heads), _number(out.second, out.heads)
    n, there = len(out.tokens) - 1, _earlier(out)
    pushes, chance = out.virtual[there], out.chance[there]
    own, spread = float(out.virtual[place]), float(out.chance[place])
    largest = float(pushes.abs().max()) or 1.0
    return [
        LOGIT.is_(float(out.logit), n=n),
        DIRECT.is_(float(out.direct), n=n),
        ONE_HEAD.is_(float(out.embedded.sum()), n=n),
        TWO_HEADS.is_(float(out.virtual.sum()), null=0.0, n=n),
        REST.is_(float(out.others + out.rest.sum()), n=n),
        PAIR_PUSH.is_(own, null=0.0, n=n),
        PAIR_SD.is_(own / max(spread, 1e-30), null=0.0, n=n),
        PAIR_SHARE.is_(own / largest, null=float(pushes.abs().mean()) / largest, n=int(there.sum())),
        VIRTUAL_HEADS.is_(float((pushes.abs() > APART * chance).double().mean()), null=BY_CHANCE, n=int(there.sum())),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run: every head's and the logit's sums, and what makes the drawn pair a head."""
    rounding = max(1e-4, 8 * out.eps)
    pair = f"{out.first} and {out.second}"
    checks = [
        Check(
            "a head's push = embedding + virtual heads + the rest",
            float(out.paths_residual),
            max(rounding, out.eps * out.layers),  # every layer rounds the stream that it reads
            "every head by who wrote what it read, against the stream itself; by the largest push",
        ),
        Check(
            "a push is the same forwards and backwards",
            float(out.way_residual),
            1e-4,
            "every head's write times the logit's direction, against its stream times what goes back; relative",
        ),
        Check(
            "direct + heads + MLPs and biases = logit",
            float(out.logit_residual),
            max(rounding, out.eps * out.layers),
            "against the model's own logits of the tokens that come, less their mean; relative",
        ),
        Check("rows of A² A¹ sum to 1", float(out.row_residual), max(ALGEBRA, 4 * out.eps), pair),
        Check("A² A¹ looks at nothing ahead", float(out.ahead_residual), 0.0, pair),
        Check(
            "(A² ⊗ W²)(A¹ ⊗ W¹) = A² A¹ ⊗ W² W¹",
            float(out.kronecker_residual),
            ALGEBRA,
            f"{pair}, a corner of tokens and dimensions with every entry written out; relative",
        ),
    ]
    if out.expanded:
        checks.append(
            Check(
                "direct + heads + virtual heads = all logits",
                float(out.expansion_residual),
                ALGEBRA,
                "every path of two layers by itself, all positions and tokens of the vocabulary; relative",
            )
        )
    return checks


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row: streams, patterns and MLP outputs of all layers, and the answer."""
    if spec.weights == "shuffled":
        return None
    return Reads(("whole", min(spec.tokens, shape.context), spec.bos, spec.template), paths.sites(shape.layers))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, what all heads write, streams and patterns; a forward pass, and two products a pair of heads."""
    assert shape is not None
    count, heads = spec.tokens, shape.layers * shape.heads
    kept = 4 * heads * count * (shape.d_model + 3 * count) + 4 * shape.layers * count * 2 * shape.d_model
    table = 8 * heads**2 + 4 * count * shape.d_vocab + 4 * paths.COLUMNS * shape.d_model
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    flops = 2 * shape.parameters * count + heads**2 * count * (shape.d_model + count)
    flops += 6 * heads * count * shape.d_model * shape.d_head
    return Needs(int(weights + kept + table), 3 + flops / 40e9)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {
        "paths": _draw_paths(out),
        "graph": _draw_graph(out),
        "pattern": _draw_pattern(out),
        "chance": _draw_chance(out),
    }


def _draw_paths(out: Out) -> Drawing:
    spread = float(out.chance_together)
    bars = {
        "direct": float(out.direct),
        "through one head": float(out.embedded.sum()),
        "through two heads": float(out.virtual.sum()),
        "MLPs, biases to heads": float(out.rest.sum()),
        "MLPs, biases": float(out.others),
        "logit": float(out.logit),
    }
    if not any((out.rest.abs().max(), out.others.abs())):
        del bars["MLPs, biases to heads"], bars["MLPs, biases"]
    values, places = list(bars.values()), range(len(bars))
    with canvas(height=1.9 + 0.42 * len(bars)) as (figure, axes):
        ax = axes[0, 0]
        colours = [
            PALETTE[1] if name == "through two heads" else GREY if name == "logit" else PALETTE[0] for name in bars
        ]
        ax.barh(places, values, color=colours, height=0.6)
        at = list(bars).index("through two heads")
        ax.plot(
            [-2 * spread, 2 * spread], [at + 0.38] * 2, color=GREY, linewidth=3, label="± 2 sd, earlier writes turned"
        )
        figure.legend(loc="outside lower center")
        reach = max(abs(value) for value in values) or 1.0
        for place, value in zip(places, values, strict=True):
            ax.text(value + math.copysign(0.015 * reach, value), place, f"{value:.3g}", va="center",
                    ha="left" if value >= 0 else "right")  # fmt: skip
        ax.axvline(0, color=GREY, linewidth=0.8)
        low, high = min(-2 * spread, *values), max(2 * spread, *values)
        ax.set(xlim=(low - 0.16 * reach * (min(values) < 0), high + 0.16 * reach), ylim=(len(bars) - 0.4, -0.6))
        ax.set(xlabel="push of the token that comes (nats)")
        ax.set_yticks(places, list(bars))
        ax.spines[["left"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
    return Drawing(
        figure,
        f"What pushes the logit of the token that comes, mean over {len(out.tokens) - 1} positions, in nats: "
        f"{', '.join(f'{name} {value:.3g}' for name, value in bars.items())}. Turned at random, the writes of earlier "
        f"heads would push by ±{2 * spread:.2g}.",
    )


def _strongest(out: Out, most: int) -> list[tuple[float, Place, Place]]:
    order = out.virtual.abs().flatten().argsort(descending=True)[:most].tolist()
    ends = [divmod(place, len(out.whole)) for place in order]
    return [
        (float(out.virtual[a, b]), divmod(a, out.heads), divmod(b, out.heads)) for a, b in ends if out.virtual[a, b]
    ]


def _draw_graph(out: Out) -> Drawing:
    kinds = ("towards the token that comes", "away from it")
    strongest = _strongest(out, EDGES)
    most = abs(strongest[0][0]) if strongest else 1.0
    edges = [Edge(a, b, kinds[push < 0], abs(push) / most) for push, a, b in strongest]
    title = f"{len(edges)} virtual heads of {int(_earlier(out).sum())} that push most, as wide as they push"
    figure = head_graph(edges, kinds, out.layers, out.heads, title)
    named = ", ".join(f"{_name(a)} then {_name(b)} {push:+.2g}" for push, a, b in strongest[:4])
    return Drawing(
        figure,
        f"A graph of {out.layers} layers of {out.heads} heads: lines are the virtual heads that push most, in nats: "
        f"{named}.",
    )


def _draw_pattern(out: Out) -> Drawing:
    panels = {out.first: out.first_pattern, out.second: out.second_pattern, f"{out.second} · {out.first}": out.product}
    place = _number(out.first, out.heads), _number(out.second, out.heads)
    with canvas(1, 3, height=3.9, sharey=True) as (figure, axes):
        for ax, (title, values) in zip(axes[0], panels.items(), strict=True):
            shown = np.where(np.tri(len(values), dtype=bool), values.numpy(), math.nan)
            image = heat(ax, shown, "attention", limits=(0, 1), bar=None)
            ax.set_aspect("equal")
            ax.set(title=title)
            token_axis(ax, "x", out.tokens, NAMED)
            ax.tick_params(axis="y", length=0)
        token_axis(axes[0, 0], "y", out.tokens, NAMED)
        axes[0, 0].set_ylabel("to token")
        axes[0, 1].set_xlabel("from token")
        colour_bar(list(axes[0]), image, "attention (share of a row)", "top")
    best = int(out.product[-1].argmax())
    return Drawing(
        figure,
        f"The patterns of {out.first}, of {out.second} and of the virtual head of both on {len(out.tokens)} tokens. It "
        f"pushes the token that comes by {float(out.virtual[place]):+.3g} nats, {float(out.chance[place]):.2g} being "
        f"the standard deviation by chance; to the last token it brings most from token {best + 1}, "
        f"{float(out.product[-1, best]):.0%}.",
    )


def _draw_chance(out: Out) -> Drawing:
    there = _earlier(out)
    z = (out.virtual[there] / out.chance[there].clamp(min=1e-30)).numpy()
    most = max(4.0, float(np.quantile(np.abs(z), 0.999)))
    edges = np.linspace(-most, most, 61)
    with canvas(height=3.6) as (figure, axes):
        ax = axes[0, 0]
        share = 100 * np.histogram(z.clip(-most, most), edges)[0] / len(z)
        ax.stairs(share, edges, color=PALETTE[1], linewidth=2, label="virtual heads")
        x = (edges[1:] + edges[:-1]) / 2
        normal = 100 * (edges[1] - edges[0]) * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
        ax.fill_between(x, normal, color=GREY, alpha=0.4, linewidth=0, label="earlier head's writes turned at random")
        for side in (-APART, APART):
            ax.axvline(side, color=GREY, linestyle="--", linewidth=1.2)
        ax.set(xlabel="push (standard deviations by chance)", ylabel="virtual heads (%)", ylim=(0, None))
        figure.legend(loc="outside lower center", ncols=1)
    over = float((np.abs(z) > APART).mean())
    return Drawing(
        figure,
        f"Pushes of {len(z)} virtual heads in standard deviations of turned ones: {over:.0%} are over {APART:g}, by "
        f"chance {BY_CHANCE:.1%} would be; from {z.min():.3g} to {z.max():.3g}.",
    )


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(LOGIT, DIRECT, ONE_HEAD, TWO_HEADS, REST, PAIR_PUSH, PAIR_SD, PAIR_SHARE, VIRTUAL_HEADS),
    figures={
        "paths": "The parts of the logit: through no head, one head, two heads, and the rest.",
        "graph": "The virtual heads that push most, as lines between their two heads.",
        "pattern": "The patterns of two heads, and of the virtual head that they are together.",
        "chance": "All virtual heads' pushes, against earlier heads' writes turned at random.",
    },
    examples=(
        Example(
            "paths-of-a-toy",
            "In two layers of attention alone, what passes through two heads takes back part of what one head says",
            {"model": "toy/attn-only-2l", "text": "kQ7xWm2pLr9vTz kQ7xWm2pLr9vTz kQ7xWm2pLr9vTz"},
            ("one_head > 4", "two_heads < -0.5", "direct between -0.5 and 0.5", "rest = 0 +- 0.001"),
        ),
        Example(
            "many-small-pairs",
            "No virtual head matters alone, and all together push the answer by nats",
            {"model": "smollm2-135m"},
            ("two_heads > 2", "pair_push < 0.3", "virtual_heads < 0.1"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
