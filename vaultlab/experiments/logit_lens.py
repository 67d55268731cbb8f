"""Logit lens: what would the model answer if it stopped after this layer?

Every layer's stream x_l is read as the last one is, through the final norm and the unembedding:

    p_l = softmax(norm(x_l) W_U)        l = 0: the embedding alone; l = L: the model's own answer

The norm is computed anew for each x_l: the early streams are shorter, and the scale that fits the last one would leave
them with no opinion at all, whatever they hold.

    surprise       −log p_l(the token that really comes next)      mean over positions, in nats
    entropy        −Σ p_l log₂ p_l                                 how undecided a layer is, in bits
    agreement      how often the layer's first guess is the last layer's
    settled        the first layer from which on the first guess stays what the last layer's is

With tied embeddings W_U is W_E, and the embedding read back is its own token: layer 0 guesses its input. That the
lens reads a layer does not mean that the model does: a layer may keep what it knows in directions that the unembedding
does not read. A guess that appears is evidence, one that is missing is none.

How to read the figures. In `lens` a column is a token of the text, a row a layer, the word in a cell the first guess
for what comes next and its colour the probability; boxed are the guesses of the token that really came. In `course`
surprise and entropy fall from layer to layer, from what a uniform guess would have down to the model's own. In
`settled` each bar is how many positions settle at that layer.

Source: nostalgebraist (2020), "interpreting GPT: the logit lens",
https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens. Nora Belrose, Zach Furman, Logan
Smith, Danny Halawi, Igor Ostrovsky, Lev McKinney, Stella Biderman, Jacob Steinhardt (2023), "Eliciting Latent
Predictions from Transformers with the Tuned Lens", section 2, https://arxiv.org/abs/2303.08112
"""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.ticker import MaxNLocator
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.experiment import (
    Bench,
    Bos,
    Example,
    Experiment,
    ModelName,
    Needs,
    Nonsense,
    Quantity,
    Reads,
    TextName,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import direct, parts
from vaultlab.models.family import Shape
from vaultlab.models.guesses import CHUNK, settled, unembedded
from vaultlab.models.model import Model
from vaultlab.models.shuffle import shuffled
from vaultlab.models.tokens import Template
from vaultlab.models.trace import Site
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas, heat, visible
from vaultlab.result import Check, Metric

SHOWN = 7
"""Columns of the lens at most, the text's last ones: more words cannot be read in a narrow column."""

ROWS = 16
"""Rows of it at most: of deeper models every second or third layer, the last one always."""

ALGEBRA = 1e-5


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that reads the text."""

    text: TextName = "The Eiffel Tower is a famous landmark in the city of Paris"
    """What it reads; each token but the first is what should come after the one before."""

    tokens: int = Field(128, ge=2, le=512, json_schema_extra={"stress": [8, 128]})
    """At most so many tokens are read, from the text's beginning."""

    bos: Bos = None

    template: Template = "none"

    weights: Literal["trained", "shuffled"] = "trained"
    """The model's own weights, or as a control the same numbers in random order (shuffled)."""


class Out(NamedTuple):
    """What `compute` leaves behind. Layer l of L+1 is the stream that enters layer l; the last is the model's answer.

    `guess` is every layer's first guess, `chance` its probability, `next_nats` the surprise at the token that comes.
    """

    tokens: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    eps: float
    d_vocab: int
    ids: Int[Tensor, " pos"]
    guess: Int[Tensor, "layer pos"]
    chance: Float[Tensor, "layer pos"]
    entropy: Float[Tensor, "layer pos"]
    next_nats: Float[Tensor, "layer before"]
    divergence: Float[Tensor, "layer pos"]
    last_residual: Float[Tensor, ""]
    sum_residual: Float[Tensor, ""]
    exact_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """One forward pass, then one unembedding a layer."""
    model = bench.model(spec.model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled weights"))
    whole = model.tokens(
        "\n\n".join(part for _, part in bench.text("text").parts), bos=spec.bos, template=spec.template
    )
    ids = whole.ids[: spec.tokens]
    if len(ids) < 2:
        raise NoteError(
            f"{model.name} reads this text as one token; nothing comes after it.", "Give it a sentence.", field="text"
        )
    layers = model.shape.layers
    bench.progress(0, layers + 1, "reading the text")
    sites = _sites(model.shape)
    found = bench.trace(model, ids[None], sites)
    logits = found.pop(Site("logits"))[0]
    streams = [found[site][0] for site in sites[:-1]]
    answer = logits.float().softmax(-1)
    answer /= answer.sum(-1, keepdim=True)
    certainty = -torch.special.entr(answer).sum(-1)
    read, together = [], max(1, CHUNK // len(ids))
    for layer in range(0, layers + 1, together):
        bench.progress(layer, layers + 1, "asking every layer")
        few = torch.stack(streams[layer : layer + together])
        read.append(_read(model, few, ids.to(few.device), answer, certainty))
    guess, chance, entropy, nats, divergence, sums = (torch.cat(part) for part in zip(*read, strict=True))
    some = slice(-CHUNK, None)
    gap = (unembedded(model, streams[-1][some]) - logits[some].float()).abs().max() / logits[some].abs().max()
    return Out(
        tokens=whole.strings[: spec.tokens],
        words=tuple(model.token_strings(row) for row in guess.tolist()),
        eps=torch.finfo(model.dtype).eps,
        d_vocab=model.shape.d_vocab,
        ids=ids,
        guess=guess,
        chance=chance,
        entropy=entropy,
        next_nats=nats[:, :-1],
        divergence=divergence,
        last_residual=gap,
        sum_residual=(sums - 1).abs().max(),
        exact_residual=_exact(model, streams[layers // 2][-1], entropy[layers // 2, -1]),
    )


def _read(
    model: Model,
    streams: Float[Tensor, "layer pos d_model"],
    ids: Int[Tensor, " pos"],
    answer: Float[Tensor, "pos d_vocab"],
    certainty: Float[Tensor, " pos"],
) -> tuple[Float[Tensor, "layer pos"], ...]:
    """What layers would answer at every position: their first guess, how likely that is, how far it is from the end.

    `answer` are the model's own probabilities, `certainty` the negative of their entropy in nats. Entropy is
    log Z − Σ p x and divergence log Z − Σ a x − H(a): every further look at all logits would cost as much as the norm.
    """
    after = torch.cat([ids[1:], ids[:1]]).expand(len(streams), -1)
    found = []
    for start in range(0, len(ids), CHUNK):
        rows = slice(start, start + CHUNK)
        x = unembedded(model, streams[:, rows])
        p = x.softmax(-1)
        chance, guess = p.max(-1)
        total = p.sum(-1)  # a softmax of many logits is off by some 1e-5, which a mean of x would multiply
        log_Z = x.gather(-1, guess[..., None])[..., 0] - chance.log() + total.log()
        nats = log_Z - x.gather(-1, after[:, rows, None])[..., 0]
        bits = ((log_Z - _along(p, x) / total) / math.log(2)).clamp(min=0)
        divergence = log_Z - _along(answer[rows], x) + certainty[rows]
        found.append((guess, chance, bits, nats, divergence, total))
    return tuple(torch.cat(part, 1).cpu() for part in zip(*found, strict=True))


def _along(p: Float[Tensor, "*rows d_vocab"], x: Float[Tensor, "layer pos d_vocab"]) -> Float[Tensor, "layer pos"]:
    """Σ p x, row by row. A matrix product would add up so many numbers one after another, and be off by 1e-3."""
    total: Tensor = torch.linalg.vecdot(p, x)
    return total


def _exact(model: Model, stream: Float[Tensor, " d_model"], entropy: Tensor) -> Tensor:
    """How far a layer's entropy is from the same in float64, with the norm written out."""
    wide = torch.float32 if model.device.type == "mps" else torch.float64  # mps has no float64
    norm, x = parts.final_norm(model, wide), stream.to(wide)
    p = direct.unembedded(model, norm.bare(x) * norm.gain + norm.bias).softmax(-1)
    bits = torch.special.entr(p).sum() / math.log(2)
    residual: Tensor = (bits.cpu() - entropy).abs() / bits.cpu().clamp(min=1)
    return residual


SETTLED = Quantity(
    "settled",
    "The layer from which on the first guess stays what the answer is, mean over positions; null: the same against "
    "the answer at the position before.",
    unit="layers",
    range=(0, math.inf),
    headline=True,
)
FINAL_SURPRISE = Quantity(
    "final_surprise",
    "−log p of the token that comes, by the model's own answer, mean over positions; null: a uniform guess, log V.",
    unit="nats",
    range=(0, math.inf),
    headline=True,
)
INPUT_SHARE = Quantity(
    "input_share",
    "Share of positions at which the embedding alone is read as its own token; null: one by the vocabulary.",
    range=(0, 1),
    headline=True,
)
FIRST_ENTROPY = Quantity(
    "first_entropy",
    "Entropy of what the embedding alone would answer, mean over positions; null: a uniform guess, log₂ V.",
    unit="bits",
    range=(0, math.inf),
)
ENTROPY = Quantity(
    "entropy",
    "Entropy of every layer's answer, mean over positions, the model's own last; null: a uniform guess, log₂ V.",
    unit="bits",
    range=(0, math.inf),
)
SURPRISE = Quantity(
    "surprise",
    "−log p of the token that comes, by every layer, the model's own last; null: a uniform guess, log V.",
    unit="nats",
    range=(0, math.inf),
)
AGREEMENT = Quantity(
    "agreement",
    "Share of positions at which a layer's first guess is the answer; the last is 1; null: the answer at the position "
    "before, mean over layers.",
    range=(0, 1),
    forced={"max": "the last layer is the answer, so its agreement is 1", "any": "the last layer's agreement is 1"},
)
DIVERGENCE = Quantity(
    "divergence",
    "Kullback–Leibler divergence of the model's answer from every layer's, mean over positions; the last is 0.",
    unit="nats",
    range=(-1e-4, math.inf),
)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Means over positions; of surprise over those that have a token after them."""
    others = torch.cat([out.guess[:-1], out.guess[-1:].roll(1, 1)])
    same, by_chance = (out.guess == out.guess[-1]).double(), (out.guess[:-1] == others[-1]).double()
    count, nats = len(out.tokens), math.log(out.d_vocab)
    bits = nats / math.log(2)

    def of_layers(quantity: Quantity, values: Tensor, null: float | None = None) -> Metric:
        return quantity.is_(tuple(values.double().mean(-1).tolist()), null=null, n=values.shape[-1])

    return [
        SETTLED.is_(float(settled(out.guess).double().mean()), null=float(settled(others).double().mean()), n=count),
        FINAL_SURPRISE.is_(float(out.next_nats[-1].double().mean()), null=nats, n=count - 1),
        INPUT_SHARE.is_(float((out.guess[0] == out.ids).double().mean()), null=1 / out.d_vocab, n=count),
        FIRST_ENTROPY.is_(float(out.entropy[0].double().mean()), null=bits, n=count),
        of_layers(ENTROPY, out.entropy, bits),
        of_layers(SURPRISE, out.next_nats, nats),
        of_layers(AGREEMENT, same, float(by_chance.mean())),
        of_layers(DIVERGENCE, out.divergence),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run."""
    rounding = max(ALGEBRA, 4 * out.eps)
    return [
        Check(
            "the last layer is the model's answer",
            float(out.last_residual),
            rounding,
            f"the last stream through the final norm and W_U, against the logits, last {CHUNK} tokens; relative",
        ),
        Check("probabilities sum to 1", float(out.sum_residual), 1e-4, "every layer, every position"),
        Check(
            "entropy, another way",
            float(out.exact_residual),
            max(1e-4, 16 * out.eps),
            "one layer in the middle, the last position, in float64; relative, or in bits below 1",
        ),
        Check(
            "nothing is more likely than the first guess",
            float((out.chance[:, :-1].log() + out.next_nats).clamp(max=0).abs().max()),
            1e-4,
            "−log p of the token that comes is at least that of the first guess; in nats",
        ),
    ]


def _sites(shape: Shape) -> tuple[Site, ...]:
    return (*(Site("resid_pre", layer) for layer in range(shape.layers)), Site("final"), Site("logits"))


def reads(spec: Spec, shape: Shape) -> Reads | None:
    """The text as one row, the stream before every layer and behind the last, and the answer."""
    if spec.weights == "shuffled":
        return None
    return Reads(("whole", spec.tokens, spec.bos, spec.template), _sites(shape))


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, all streams, two tables of logits; a forward pass and an unembedding a layer at 40 GFLOP/s."""
    assert shape is not None
    streams = (shape.layers + 1) * spec.tokens * shape.d_model * 4
    logits = (2 * spec.tokens + 3 * CHUNK) * shape.d_vocab * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    unembeddings = 2 * (shape.layers + 1) * shape.d_model * shape.d_vocab
    return Needs(weights + streams + logits, 2 + (2 * shape.parameters + 2 * unembeddings) * spec.tokens / 40e9)


def _rows(out: Out) -> list[int]:
    """The layers that are drawn, the answer on top."""
    last = len(out.guess) - 1
    step = -(-(last + 1) // ROWS)
    return list(range(last, -1, -step))


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    return {"lens": _draw_lens(out), "course": _draw_course(out), "settled": _draw_settled(out)}


def _short(word: str, most: int = 6) -> str:
    shown = visible(word)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def _draw_lens(out: Out) -> Drawing:
    rows, first = _rows(out), max(0, len(out.tokens) - SHOWN)
    columns = range(first, len(out.tokens))
    chance = out.chance[rows][:, first:].numpy()
    with canvas(height=1.9 + 0.3 * len(rows)) as (figure, axes):
        ax = axes[0, 0]
        heat(ax, chance, "probability of the first guess", limits=(0, 1), bar="top")
        for row, layer in enumerate(rows):
            for column, at in enumerate(columns):
                came = at + 1 < len(out.tokens) and int(out.guess[layer, at]) == int(out.ids[at + 1])
                ax.text(
                    column,
                    row,
                    _short(out.words[layer][at]),
                    ha="center",
                    va="center_baseline",
                    color="black" if chance[row, column] > 0.6 else "white",
                    fontweight="bold" if came else "normal",
                    bbox={
                        "boxstyle": "square,pad=0.15",
                        "facecolor": "none",
                        "edgecolor": "white" if chance[row, column] <= 0.6 else "black",
                    }
                    if came
                    else None,
                )
        ax.set_xticks(range(len(columns)), [_short(out.tokens[at]) for at in columns])
        ax.set_yticks(range(len(rows)), ["answer" if layer == rows[0] else f"layer {layer}" for layer in rows])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="after this token (boxed: the token that really comes)")
    return Drawing(figure, _lens_alt(out))


def _lens_alt(out: Out) -> str:
    last = len(out.tokens) - 2
    answer = visible(out.words[-1][last])
    since = int(settled(out.guess)[last])
    return (
        f"What every layer would answer after the last {min(SHOWN, len(out.tokens))} tokens. After "
        f"{visible(out.tokens[last])} the model answers {answer} with {out.chance[-1, last]:.0%}, as every layer from "
        f"{since} on does; the token that comes is {visible(out.tokens[last + 1])}."
    )


def _draw_course(out: Out) -> Drawing:
    layers = np.arange(len(out.guess))
    nats, entropy = out.next_nats.double().mean(1).numpy(), out.entropy.double().mean(1).numpy()
    uniform = math.log(out.d_vocab)
    with canvas(2, 1, height=5.2, sharex=True) as (figure, axes):
        for ax, values, null, name, colour in (
            (axes[0, 0], nats, uniform, "surprise (nats)", PALETTE[0]),
            (axes[1, 0], entropy, uniform / math.log(2), "entropy (bits)", PALETTE[1]),
        ):
            ax.plot(layers, values, marker="o", markersize=4, color=colour)
            ax.axhline(null, color=GREY, linestyle="--", linewidth=1.2)
            ax.text(0.1, null, "a uniform guess", transform=ax.get_yaxis_transform(), va="bottom")
            ax.set(ylabel=name, ylim=(0, 1.15 * max(null, values[1:].max())))
        axes[1, 0].set(xlabel=f"layer (0: the embedding, {len(layers) - 1}: the answer)")
        axes[1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        if nats[0] > axes[0, 0].get_ylim()[1]:  # its line comes down from there before layer 1
            axes[0, 0].annotate(
                f"layer 0: {nats[0]:.3g}", (1, 1), xycoords=("data", "axes fraction"), xytext=(6, -4),
                textcoords="offset points", va="top",
            )  # fmt: skip
    return Drawing(
        figure,
        f"Surprise at the token that comes and entropy of the answer, by layer, mean over {len(out.tokens)} positions. "
        f"Surprise: {nats[0]:.3g} nats at the embedding, {nats[len(nats) // 2]:.3g} in the middle, {nats[-1]:.3g} at "
        f"the end; a uniform guess: {uniform:.3g}. Entropy: {entropy[0]:.3g} bits at the embedding, "
        f"{entropy[-1]:.3g} at the end.",
    )


def _draw_settled(out: Out) -> Drawing:
    since = settled(out.guess).numpy()
    last = len(out.guess) - 1
    counts = np.bincount(since, minlength=last + 1)
    with canvas(height=3.2) as (figure, axes):
        ax = axes[0, 0]
        ax.bar(range(last + 1), counts, width=0.8, color=PALETTE[0])
        ax.axvline(since.mean(), color=GREY, linestyle="--", linewidth=1.2)
        ax.text(since.mean(), 1.01, f"mean {since.mean():.1f}", transform=ax.get_xaxis_transform(), ha="center")
        ax.set(xlabel="layer from which on the first guess is the answer", ylabel="positions", xlim=(-0.6, last + 0.6))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return Drawing(
        figure,
        f"How many of {len(since)} positions settle on their answer at which layer: {since.mean():.3g} on average, "
        f"{int((since == last).sum())} only at the very end.",
    )


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(SETTLED, FINAL_SURPRISE, INPUT_SHARE, FIRST_ENTROPY, ENTROPY, SURPRISE, AGREEMENT, DIVERGENCE),
    figures={
        "lens": "What every layer would answer after the text's last tokens, with its probability.",
        "course": "Surprise and entropy by layer, against a uniform guess.",
        "settled": "From which layer on the first guess is the answer, position by position.",
    },
    examples=(
        Example(
            "guesses-come-late",
            "The answer is made in the last third: three layers in four guess something else",
            {"model": "smollm2-135m"},
            ("settled > 22", "final_surprise < 3.5", "min of surprise < 4", "first_entropy < 2"),
        ),
        Example(
            "embedding-reads-itself",
            "The embedding alone is read as its own token",
            {"model": "smollm2-135m"},
            ("input_share > 0.6", "first_entropy < 2", "max of surprise > 30"),
            {"text": "One by one the guests arrived, and the old man opened the door for each of them."},
        ),
        Example(
            "one-layer-cannot-repeat",
            "In two layers of attention alone, the second one is where what was seen before is guessed",
            {"model": "toy/attn-only-2l", "text": "kQ7xWm2pLr9vTz kQ7xWm2pLr9vTz kQ7xWm2pLr9vTz"},
            ("settled > 1.5", "final_surprise < 2.5", "first_entropy > 2"),
        ),
    ),
    needs=needs,
    reads=reads,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
