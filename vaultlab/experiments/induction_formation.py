"""Induction formation: when does a model that learns to predict find out that stretches come again?

A model of attention alone (no MLP, no norm) is trained on texts in which a stretch of random characters comes again
and again, and is looked at while it learns. What follows can be told from what followed the last time:

    repeat loss = −log p(token)     mean over fresh texts and the tokens that can be told from before
    induction = A[i, i−p+1]         the share of a head's attention on the token that followed the last time
    previous token = A[i, i−1]      on the token before

Two layers find it: for a while the loss hardly moves, then it falls all at once, and with it rise a previous-token
head in the first layer and induction heads in the second. One layer cannot: where a head of the first layer looks,
nothing is written yet of what stands before. A uniform guess has a loss of log V.

How long a stretch is has to vary from text to text (`periods: varied`). If it is always the same (`fixed`), a model
need not find anything: it counts back. Then one layer learns it too, and the loss looks like induction; in texts of
other lengths (`varied_loss`) it is gone, and heads look as far back where nothing repeats (`counting_back`). Scores
are measured at the lengths that a model was trained on.

    drop share = largest fall of the repeat loss within a tenth of training / its whole range      steadily: ⅒

Several `seeds` train one after the other. Figures and numbers are those of the one with the lowest repeat loss; the
losses of the others are drawn beside it, and a claim may ask `in 90% of seeds`.

How to read the figures. In `course` the loss falls above while the heads' scores rise below, every line a head: at the
same steps, if it is these heads that do it. In `heads` each cell is a head at the end of training, the strongest named.

Source: Catherine Olsson, Nelson Elhage, Neel Nanda, Nicholas Joseph, Nova DasSarma, Tom Henighan, Ben Mann, Amanda
Askell, Yuntao Bai, Anna Chen, Tom Conerly, Dawn Drain, Deep Ganguli, Zac Hatfield-Dodds, Danny Hernandez, Scott
Johnston, Andy Jones, Jackson Kernion, Liane Lovitt, Kamal Ndousse, Dario Amodei, Tom Brown, Jack Clark, Jared Kaplan,
Sam McCandlish, Chris Olah (2022), "In-context Learning and Induction Heads", section "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html.
That one layer cannot: Nelson Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section
"Two-Layer Attention-Only Transformers", https://transformer-circuits.pub/2021/framework/index.html
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from pydantic import Field
from torch import Tensor

from vaultlab.experiment import Bench, Example, Experiment, Needs, Quantity, Seed
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import toys
from vaultlab.models.attn_only import AttnOnly, AttnOnlyConfig
from vaultlab.models.draws import Draws, draws
from vaultlab.models.family import Shape
from vaultlab.models.induction import by_content, interval, scores, uniform
from vaultlab.models.load import assemble
from vaultlab.models.toys import PERIODS, Course, Repeats
from vaultlab.models.verify import rebuild
from vaultlab.plots.induction import draw_heads, named
from vaultlab.plots.style import GREY, PALETTE, Drawing, canvas
from vaultlab.result import Check, Metric

PREVIOUS, INDUCTION = 0, 2

FIXED = 16
"""The one length of a stretch where it is fixed: in the middle of the others."""

LOOKS = 50
"""How often a model is looked at while it learns, and once more at the end."""

HELD_OUT = 128
"""Fresh texts on which the loss is measured."""

START, TEXTS = 8, 6
"""Scores: tokens before the first stretch, which the model has seen up to sixteen of, and texts of each length."""

LENGTHS = (8, 12, 16, 20, 24)

ALGEBRA = 1e-5


class Spec(BaseSpec):
    layers: int = Field(2, ge=1, le=3)
    """How many layers of attention the model has."""

    periods: Literal["varied", "fixed"] = "varied"
    """How long a stretch is: from text to text another, 8 to 24 tokens, or always 16."""

    steps: int = Field(1500, ge=10, le=20_000)
    """Training steps."""

    batch: int = Field(32, ge=4, le=256)
    """Texts in a training step."""

    learning_rate: float = Field(0.01, gt=0, le=0.1, json_schema_extra={"stress": [0.005, 0.02]})
    """Adam's learning rate at its most; it rises for 100 steps, then falls to 5 %."""

    seeds: int = Field(1, ge=1, le=16)
    """How many models to train, each from first weights and on texts of its own."""

    seed: Seed = 0


class Out(NamedTuple):
    """What `compute` leaves behind: losses and scores at each look (`at`, in steps), the latter of all heads, mean over
    texts. `chosen` are the scores at the end on other texts, by which the heads that metrics speak of are chosen,
    `control` those at the same distances in texts that do not repeat.
    """

    at: Float[Tensor, " look"]
    repeat_loss: Float[Tensor, "seeds look"]
    first_loss: Float[Tensor, "seeds look"]
    varied_loss: Float[Tensor, "seeds look"]
    scores: Float[Tensor, "seeds look kind layer head"]
    chosen: Float[Tensor, "seeds kind layer head"]
    control: Float[Tensor, "seeds kind layer head"]
    row_residual: Float[Tensor, " seeds"]
    ahead_residual: Float[Tensor, " seeds"]
    content_residual: Float[Tensor, " seeds"]
    loss_residual: Float[Tensor, " seeds"]
    parts_residual: Float[Tensor, " seeds"]
    law_residual: Float[Tensor, ""]


class _Exam(NamedTuple):
    """What a model is looked at with: texts of its own law, of varied lengths, and of different tokens for the scores,
    some of each length, those to choose on, and some that do not repeat."""

    own: Repeats
    varied: Repeats
    scored: list[Int[Tensor, "text pos"]]
    chosen: list[Int[Tensor, "text pos"]]
    control: list[Int[Tensor, "text pos"]]


def _exam(spec: Spec, config: AttnOnlyConfig, draws: Draws) -> _Exam:
    def law(name: str, periods: tuple[int, int]) -> Repeats:
        generator = draws("formation", spec.seed, name)
        return toys.repeats(HELD_OUT, config.context, config.vocab_size, generator, periods)

    def different(name: str, again: bool = True) -> list[Tensor]:
        lengths = enumerate(lengths_of(spec))
        return [_texts(p, config.vocab_size, draws("formation", spec.seed, name, at), again) for at, p in lengths]

    own, varied = law("own", periods_of(spec)), law("varied", PERIODS)
    return _Exam(own, varied, different("scored"), different("chosen"), different("control", again=False))


def periods_of(spec: Spec) -> tuple[int, int]:
    """The lengths that a stretch may have, least and most."""
    return PERIODS if spec.periods == "varied" else (FIXED, FIXED)


def lengths_of(spec: Spec) -> tuple[int, ...]:
    """Those that scores are measured at."""
    return LENGTHS if spec.periods == "varied" else (FIXED,) * len(LENGTHS)


def _texts(period: int, d_vocab: int, generator: torch.Generator, again: bool) -> Int[Tensor, "text pos"]:
    """Texts of different tokens: a few, a stretch, and the stretch once more or (`again` false) another one."""
    drawn = START + period * (1 if again else 2)
    rows = torch.stack([torch.randperm(d_vocab, generator=generator)[:drawn] for _ in range(TEXTS)])
    return torch.cat([rows, rows[:, START:]], 1) if again else rows


def compute(spec: Spec, bench: Bench) -> Out:
    """Train, and look at what is there every few steps."""
    config = AttnOnlyConfig(layers=spec.layers)
    exam = _exam(spec, config, bench.generator)
    every = sorted({round(spec.steps * look / LOOKS) for look in range(LOOKS + 1)})
    found = []
    for number in range(spec.seeds):
        looks: list[tuple[Tensor, ...]] = []

        def look(step: int, net: AttnOnly, looks: list[tuple[Tensor, ...]] = looks) -> None:
            if step in every:
                looks.append((*_losses(net, exam.own), _losses(net, exam.varied)[0], _scores(net, exam.scored)))

        def progress(done: int, total: int, number: int = number) -> None:
            bench.progress(number * total + done, spec.seeds * total, "training")

        course = Course(spec.steps, spec.batch, spec.learning_rate, spec.seed + number, periods_of(spec))
        net = toys.train(config, course, bench.generator, bench.device, progress, look)
        seen = [torch.stack(part) for part in zip(*looks, strict=True)]
        found.append(
            (*seen, _scores(net, exam.chosen), _scores(net, exam.control), *_residuals(net, exam, seen[0][-1]))
        )
    of_seeds = [torch.stack(part) for part in zip(*found, strict=True)]
    return Out(*(torch.tensor(every).float(), *of_seeds, _law_residual(exam.own, periods_of(spec))))


@torch.no_grad()
def _losses(net: AttnOnly, texts: Repeats) -> tuple[Tensor, Tensor]:
    """In nats: of the tokens that can be told from before, and of the others."""
    ids, known = texts.ids.to(net.device), texts.known[:, :-1].to(net.device)
    each = torch.nn.functional.cross_entropy(net(ids).logits[:, :-1].mT, ids[:, 1:], reduction="none")
    return each[known].mean().cpu(), each[~known].mean().cpu()


@torch.no_grad()
def _patterns(net: AttnOnly, ids: Int[Tensor, "text pos"]) -> list[Float[Tensor, "text head query key"]]:
    """Layer after layer."""
    found: list[Tensor] = []

    def look(A: Tensor) -> Tensor:
        found.append(A)
        return A

    net(ids.to(net.device), touches={layer: {"pattern": look} for layer in range(net.config.layers)})
    return found


def _scores(net: AttnOnly, texts: Sequence[Int[Tensor, "text pos"]]) -> Float[Tensor, "kind layer head"]:
    """Mean over texts of all lengths."""
    each = [
        torch.stack([scores(A, START, (ids.shape[1] - START) // 2).mean(1) for A in _patterns(net, ids)], 1)
        for ids in texts
    ]
    return torch.stack(each).mean(0).cpu()


@torch.no_grad()
def _residuals(net: AttnOnly, exam: _Exam, loss: Tensor) -> tuple[Tensor, ...]:
    """Of the trained model: rows, what is ahead, scores by content, the loss and the logits by another way."""
    ids = exam.scored[0]
    period = (ids.shape[1] - START) // 2
    patterns = _patterns(net, ids)
    rows = torch.stack([(A.sum(-1) - 1).abs().max() for A in patterns]).max()
    ahead = torch.stack([A.triu(1).max() for A in patterns]).max()
    content = [
        (by_content(A[0].cpu(), ids[0], START, period) - scores(A, START, period)[1:, 0].cpu()).abs().max()
        for A in patterns
    ]
    wide = assemble("trained", "", copy.deepcopy(net).cpu().double(), toys.tokenizer())
    exact = _losses_by_loops(wide.net, exam.own)
    logits = wide.net(ids).logits
    *_, (_, own) = rebuild(wide, ids, folded=False)
    return (
        rows.cpu(),
        ahead.cpu(),
        torch.stack(content).max(),
        (exact - loss).abs(),
        (own - logits).abs().max().float() / logits.abs().max().float(),
    )


def _losses_by_loops(net: Any, texts: Repeats) -> Tensor:
    """The repeat loss by its definition, in float64, one text after the other."""
    found = []
    for ids, known in zip(texts.ids, texts.known, strict=True):
        p = net(ids[None]).logits[0].softmax(-1)
        found += [-p[at, ids[at + 1]].log() for at in range(len(ids) - 1) if known[at]]
    return torch.stack(found).mean().float()


def _law_residual(texts: Repeats, periods: tuple[int, int]) -> Tensor:
    """In how many texts there is no length at which all tokens that are called known come again."""
    again = torch.zeros(len(texts.ids), dtype=torch.bool)
    for period in range(periods[0], periods[1] + 1):
        same = torch.zeros_like(texts.known)
        same[:, period:] = texts.ids[:, period:] == texts.ids[:, :-period]
        again |= (same | ~texts.known).all(1)
    return (~again).sum()


def crossing(at: Float[Tensor, " look"], values: Float[Tensor, " look"], level: float) -> float:
    """Where a course first reaches a level from below, between two looks on a straight line; at its end if never."""
    reached = (values >= level).nonzero().flatten()
    if len(reached) == 0:
        return float(at[-1])
    after = int(reached[0])
    if after == 0:
        return float(at[0])
    low, high = float(values[after - 1]), float(values[after])
    return float(at[after - 1]) + (level - low) / (high - low) * float(at[after] - at[after - 1])


class Drop(NamedTuple):
    """The tenth of training in which a loss falls most: by which share of its whole range, from when to when, and when
    half of it is done, in steps."""

    share: float
    first: float
    middle: float
    last: float


def drop(at: Float[Tensor, " look"], loss: Float[Tensor, " look"]) -> Drop:
    """Looks further apart than a tenth of training know of no fall within one."""
    behind = torch.searchsorted(at, at + at[-1] / 10, right=True) - 1
    falls = loss - loss[behind]
    start = int(falls.argmax())
    end, most = int(behind[start]), float(falls[start])
    middle = crossing(at[start : end + 1], loss[start] - loss[start : end + 1], most / 2)
    return Drop(most / max(float(loss.max() - loss.min()), 1e-9), float(at[start]), middle, float(at[end]))


REPEAT_LOSS = Quantity(
    "repeat_loss",
    "−log p of the tokens that can be told from before, mean over fresh texts of the model's own kind, at the end; "
    "null: a uniform guess, log V.",
    unit="nats",
    range=(0, math.inf),
    headline=True,
)
DROP_SHARE = Quantity(
    "drop_share",
    "How much of its whole range the repeat loss falls in the tenth of training in which it falls most; null: a steady "
    "fall, a tenth.",
    range=(0, 1),
    headline=True,
)
BEST_INDUCTION = Quantity(
    "best_induction",
    "The induction score at the end of the head that had the largest on other texts; null: uniform attention.",
    range=(0, 1),
    headline=True,
)
BEST_PREVIOUS_TOKEN = Quantity(
    "best_previous_token",
    "The previous-token score at the end of the head that had the largest on other texts; null: uniform attention.",
    range=(0, 1),
)
DROP_AT = Quantity("drop_at", "When half of that fall is done.", unit="steps", range=(0, math.inf))
INDUCTION_AT = Quantity(
    "induction_at",
    "When the head of `best_induction` first has half of its score at the end; null: `drop_at`.",
    unit="steps",
    range=(0, math.inf),
)
FIRST_LOSS = Quantity(
    "first_loss",
    "−log p of the tokens that nothing foretells, at the end; null: a uniform guess, log V.",
    unit="nats",
    range=(0, math.inf),
)
VARIED_LOSS = Quantity(
    "varied_loss",
    "The repeat loss in texts whose stretches have all lengths, whatever the model was trained on; null: a uniform "
    "guess, log V.",
    unit="nats",
    range=(0, math.inf),
)
COUNTING_BACK = Quantity(
    "counting_back",
    "The largest share of its attention that any head has at the same distances back in texts that do not repeat; "
    "null: uniform attention.",
    range=(0, 1),
)


def _best(out: Out) -> int:
    return int(out.repeat_loss[:, -1].argmin())


def _chosen(out: Out, kind: int) -> Float[Tensor, "seeds look"]:
    """The course of the score, seed by seed, of the head that has the largest on other texts at the end."""
    heads = out.chosen[:, kind].flatten(1).argmax(1)
    of_kind = out.scores[:, :, kind].flatten(2)
    return of_kind[torch.arange(len(heads)), :, heads]


def _chance(spec: Spec, kind: int) -> float:
    lengths = lengths_of(spec)
    return sum(float(uniform(START + 2 * period, START, period)[kind]) for period in lengths) / len(lengths)


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of the seed with the lowest repeat loss; intervals from a bootstrap over seeds, where there are several."""
    best, guess = _best(out), math.log(AttnOnlyConfig().vocab_size)
    generator = draws("formation", spec.seed, "bootstrap")
    drops = torch.tensor([drop(out.at, loss) for loss in out.repeat_loss], dtype=torch.float64)
    induction, previous = _chosen(out, INDUCTION), _chosen(out, PREVIOUS)
    formed = torch.tensor([crossing(out.at, course, float(course[-1]) / 2) for course in induction])

    def of_seeds(quantity: Quantity, values: Float[Tensor, " seeds"], null: float | None) -> Metric:
        each = tuple(values.double().tolist())
        span = interval(values, generator) if len(each) > 1 else None
        return quantity.is_(each[best], interval=span, null=null, n=len(each), seeds=each)

    return [
        of_seeds(REPEAT_LOSS, out.repeat_loss[:, -1], guess),
        of_seeds(DROP_SHARE, drops[:, 0], 0.1),
        of_seeds(BEST_INDUCTION, induction[:, -1], _chance(spec, INDUCTION)),
        of_seeds(BEST_PREVIOUS_TOKEN, previous[:, -1], _chance(spec, PREVIOUS)),
        of_seeds(DROP_AT, drops[:, 2], None),
        of_seeds(INDUCTION_AT, formed, float(drops[best, 2])),
        of_seeds(FIRST_LOSS, out.first_loss[:, -1], guess),
        of_seeds(VARIED_LOSS, out.varied_loss[:, -1], guess),
        of_seeds(COUNTING_BACK, out.control[:, INDUCTION].flatten(1).amax(1), _chance(spec, INDUCTION)),
    ]


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of the trained models."""
    return [
        Check("rows sum to 1", float(out.row_residual.max()), ALGEBRA, "all heads at the end"),
        Check("nothing looks ahead", float(out.ahead_residual.max()), 0.0, "the largest weight on what is not visible"),
        Check(
            "what is called known comes again",
            float(out.law_residual),
            0.0,
            "in how many of the fresh texts some token that should be a repetition is none",
        ),
        Check(
            "scores by place = scores by content",
            float(out.content_residual.max()),
            ALGEBRA,
            "duplicate-token and induction scores of all heads in one text, found by which tokens are equal",
        ),
        Check(
            "loss while training = loss by definition",
            float(out.loss_residual.max()),
            1e-4,
            "at the end, on the device as a batch against float64 text by text; in nats",
        ),
        Check(
            "logits = embedding and heads, read by W_U",
            float(out.parts_residual.max()),
            ALGEBRA,
            "the trained model rebuilt from its weights, in float32 against float64; relative",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """A few megabytes of weights and activations; 25 ms a step of two layers and 32 texts."""
    activations = (spec.batch + HELD_OUT) * 64 * 64 * 4 * (8 * spec.layers + 4)
    per_step = 0.0004 * spec.batch * spec.layers
    return Needs(
        60_000_000 + activations, 2 + spec.seeds * (spec.steps * per_step + min(LOOKS, spec.steps) * 0.15 * spec.layers)
    )


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    best = _best(out)
    return {"course": _draw_course(spec, out, best), "heads": draw_heads(out.scores[best, -1], ())}


def _draw_course(spec: Spec, out: Out, best: int) -> Drawing:
    at, guess = out.at.numpy(), math.log(AttnOnlyConfig().vocab_size)
    sudden = drop(out.at, out.repeat_loss[best])
    with canvas(2, 1, height=5.8, sharex=True) as (figure, axes):
        above, below = axes[:, 0]
        for number, loss in enumerate(out.repeat_loss):
            if number != best:
                above.plot(at, loss, color=PALETTE[0], alpha=0.35, linewidth=1)
        if spec.periods == "fixed":
            above.plot(at, out.varied_loss[best], color=PALETTE[2], label="repeat loss, stretches of other lengths")
        above.plot(at, out.first_loss[best], color=PALETTE[1], label="loss of what nothing foretells")
        above.plot(at, out.repeat_loss[best], color=PALETTE[0], label="repeat loss")
        above.axhline(guess, color=GREY, linestyle="--", linewidth=1.2, label="a uniform guess")
        top = max(
            guess,
            float(out.varied_loss[best].max()) if spec.periods == "fixed" else 0.0,
            float(out.first_loss[best].max()),
        )
        above.set(ylabel="loss (nats)", ylim=(0, 1.1 * top))
        _draw_scores(below, out, best)
        for ax in (above, below):
            ax.axvspan(sudden.first, sudden.last, color=GREY, alpha=0.25, linewidth=0)
        below.set(xlabel="training step (grey: the tenth in which the repeat loss falls most)", xlim=(0, at[-1]))
        figure.legend(loc="outside upper center", ncols=2)
    kinds = (("induction", INDUCTION), ("previous token", PREVIOUS))
    told = ", ".join(
        f"{kind} {{0[0]}} {{0[1]:.2f}}".format(named(out.scores[best, -1, at], 1)[0]) for kind, at in kinds
    )
    return Drawing(
        figure,
        f"Loss and scores over {spec.steps} steps of training {spec.layers} layer{'s' * (spec.layers > 1)} of "
        f"attention. The repeat loss falls from {out.repeat_loss[best, 0]:.3g} to {out.repeat_loss[best, -1]:.3g} "
        f"nats, {100 * sudden.share:.0f}% of that between steps {sudden.first:.0f} and {sudden.last:.0f}. The "
        f"strongest heads at the end: {told}.",
    )


def _draw_scores(ax: Axes, out: Out, best: int) -> None:
    """Every head's course; the two kinds in their colours."""
    for kind, colour, name in ((PREVIOUS, PALETTE[1], "previous token"), (INDUCTION, PALETTE[0], "induction")):
        courses = out.scores[best, :, kind].flatten(1)
        label = f"{name} score, a head"
        ax.plot(out.at, courses, color=colour, linewidth=1.4, linestyle="-" if kind == INDUCTION else "--")
        ax.plot([], [], color=colour, linewidth=1.4, linestyle="-" if kind == INDUCTION else "--", label=label)
    ax.set(ylabel="score", ylim=(0, 1.03))


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        REPEAT_LOSS,
        DROP_SHARE,
        BEST_INDUCTION,
        BEST_PREVIOUS_TOKEN,
        DROP_AT,
        INDUCTION_AT,
        FIRST_LOSS,
        VARIED_LOSS,
        COUNTING_BACK,
    ),
    figures={
        "course": "Loss and heads' scores while the model learns.",
        "heads": "Previous-token, duplicate-token and induction score of every head at the end, the strongest named.",
    },
    examples=(
        Example(
            "two-layers-find-it",
            "Two layers find induction all at once",
            {"layers": 2},
            ("repeat_loss < 0.3", "drop_share > 0.4", "best_induction > 0.6", "best_previous_token > 0.8"),
        ),
        Example(
            "one-layer-does-not",
            "One layer never does",
            {"layers": 1},
            ("repeat_loss > 2", "best_induction < 0.3"),
        ),
        Example(
            "counting-back-is-enough",
            "Where stretches have one length, one layer only counts back",
            {"layers": 1, "periods": "fixed", "steps": 500},
            ("repeat_loss < 0.5", "best_induction > 0.8", "varied_loss > 4.2", "counting_back > 0.8"),
        ),
        Example(
            "nothing-yet",
            "After ten steps there is nothing to see",
            {"layers": 1, "steps": 10},
            ("repeat_loss > 3.5", "best_induction < 0.2"),
        ),
    ),
    needs=needs,
)
