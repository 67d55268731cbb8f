"""Activation patching: at which places does a model keep what decides its answer, and which heads carry it on?

Two prompts that differ in what the answer needs, and in nothing else. What the model has at one place when it reads the
one is put into the run over the other, and everything after it is run anew. If the answer comes along, what decides it
went through that place. With d the logit of the answer less that of a foil:

    moved = (d with the patch − d of the base run) / (d of the donor's run − d of the base run)

0 is the base run's answer, 1 the donor's. Denoising puts what the clean prompt has into the run over the corrupt one:
moved is how much of the clean answer is recovered, and what recovers it is enough. Noising goes the other way: moved is
how much of it is lost, and what loses it was needed. The two differ where a model has a second way. A patch of a layer
leaves the layers under it as they were; `resid_pre` is the stream before a layer, `resid_mid` between its attention and
its MLP, `resid_post` after it; `attn` and `mlp` are what they write; `q`, `k`, `v`, `z`, `pattern` are those of all
heads. Of `pattern` a position is where is looked from.

A head is patched at all positions. Its pattern A says where it looks, its values what it takes from there. Does the one
act independently of the other? Of the strongest heads the figure `alone` puts A in with the base run's values, and the
values with the base run's A, beside what the head gathers from both (z). Where the two add up to the whole, they act
each for itself.

A patch also takes away what was there, and that alone moves the answer: one that nothing speaks for any more falls back
to the average. The null is the same patch from prompts that have random tokens where the two prompts differ.

With several pairs (a line each) places and heads are chosen on the first half and judged on the others; with a single
pair they are judged where they were chosen, and no claim about them says more than that.

How to read the figures. `positions`: a column is a token, a row a layer, the first at the bottom; red moves towards the
donor's answer, 1 being all the way. The line is the fact's path, the strongest position of each layer; beside it what
unrelated prompts do. `course`: at the changed tokens, and at the last one, layer by layer; the band is where unrelated
prompts get. `heads`: each cell a head, the strongest named. `alone`: pattern alone, values alone, both.

Source: Kevin Meng, David Bau, Alex Andonian, Yonatan Belinkov (2022), "Locating and Editing Factual Associations in
GPT", section 2, https://arxiv.org/abs/2202.05262. Kevin Wang, Alexandre Variengien, Arthur Conmy, Buck Shlegeris, Jacob
Steinhardt (2022), "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small", section
3, https://arxiv.org/abs/2211.00593. Fred Zhang, Neel Nanda (2023), "Towards Best Practices of Activation Patching in
Language Models: Metrics and Methods", https://arxiv.org/abs/2309.16042. Stefan Heimersheim, Neel Nanda (2024), "How to
use and interpret activation patching", https://arxiv.org/abs/2404.15255
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from pydantic import Field
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
    TextName,
    Words,
)
from vaultlab.experiment import Spec as BaseSpec
from vaultlab.models import patching
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.intervene import OF_HEADS, of_heads
from vaultlab.models.model import Model
from vaultlab.models.pairs import Pair, read_pairs, unrelated
from vaultlab.models.patching import Patch, Patching
from vaultlab.models.shuffle import Weights, shuffled
from vaultlab.models.trace import Site, SiteName, trace
from vaultlab.plots import patching as plots
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric

STRONGEST = 6
"""Heads whose pattern and values are patched apart."""

ALONE: tuple[tuple[SiteName, ...], ...] = (("pattern",), ("v",), ("z",))
"""What is patched of them, each by itself; z is both."""

NO_GAP = 0.1
"""Nats: where the two runs' answers are no further apart, there is nothing that a patch could move."""

PLACES = 32
"""Positions that `needs` reckons with where a prompt is not written in the block itself."""


CAPITALS = tuple(
    "\n".join(f"The capital of {country} is the city of" for country in countries)
    for countries in (("France", "Germany"), ("Italy", "Greece"))
)
TOY = {"model": "toy/attn-only-2l", "answer": "p", "foil": "a", "head": "L1H3"}


class Spec(BaseSpec):
    model: ModelName = "smollm2-135m"
    """The model that is patched."""

    clean: TextName = "The capital of France is the city of"
    """The prompt that the answer follows; of several pairs one a line."""

    corrupt: TextName = "The capital of Italy is the city of"
    """The same with something else where the answer comes from, of as many tokens; of several pairs one a line."""

    answer: Words | None = None
    """The answer: one token, or one for each pair; none: what the model answers to the clean prompt."""

    foil: Words | None = None
    """The token that it is compared with, or one for each pair; none: what it answers to the corrupt prompt."""

    direction: Literal["denoising", "noising"] = Field(
        "denoising", json_schema_extra={"stress": ["denoising", "noising"]}
    )
    """Put the clean prompt's activations into the corrupt run (denoising), or the other way round (noising)."""

    site: Literal["resid_pre", "resid_mid", "resid_post", "attn", "mlp", "q", "k", "v", "z", "pattern"] = "resid_pre"
    """What is patched at each position; of `q`, `k`, `v` and `pattern` the heads are shown too, else those of `z`."""

    head: Head | None = None
    """The head that `head_moved` is about, as L22H7; none: the one that moves most on the pairs that choose."""

    draws: int = Field(2, ge=1, le=16, json_schema_extra={"stress": [1, 4]})
    """How many unrelated prompts are patched in for each pair."""

    bos: Bos = None

    weights: Weights = "trained"

    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Where the unrelated prompts and the intervals are drawn from."""


class Out(NamedTuple):
    """What `compute` leaves behind, in nats towards the donor. The first `choosing` pairs choose, those from `judging`
    on are judged; `toward` is how far apart a pair's two runs are, `drawn_toward` the same of unrelated donors.

    `cells` are patches at each position, `changed` those at all changed positions together, `heads` those of each
    head's z, `of_site` of each head's `site` (empty where it has none); `drawn_…` the same from unrelated donors.
    `alone` are patches of `strongest`, the named one last: its pattern, its values, its z.
    """

    tokens: tuple[str, ...]
    base_tokens: tuple[str, ...]
    answers: tuple[str, ...]
    foils: tuple[str, ...]
    choosing: int
    judging: int
    strongest: tuple[str, ...]
    eps: float
    where: Bool[Tensor, "pair pos"]
    clean: Float[Tensor, " pair"]
    corrupt: Float[Tensor, " pair"]
    toward: Float[Tensor, " pair"]
    drawn_toward: Float[Tensor, "draw pair"]
    cells: Float[Tensor, "pair layer pos"]
    changed: Float[Tensor, "pair layer"]
    heads: Float[Tensor, "pair layer head"]
    of_site: Float[Tensor, "pair layer column"]
    drawn_cells: Float[Tensor, "draw pair layer pos"]
    drawn_changed: Float[Tensor, "draw pair layer"]
    drawn_heads: Float[Tensor, "draw pair layer head"]
    alone: Float[Tensor, "pair kind strongest"]
    drawn_alone: Float[Tensor, "draw pair kind strongest"]
    logit_residual: Float[Tensor, ""]
    nothing_residual: Float[Tensor, ""]
    first_residual: Float[Tensor, ""]
    elsewhere_residual: Float[Tensor, ""]
    last_residual: Float[Tensor, ""]
    resumed_residual: Float[Tensor, ""]
    parts_residual: Float[Tensor, ""]
    heads_residual: Float[Tensor, ""]


@torch.inference_mode()
def compute(spec: Spec, bench: Bench) -> Out:
    """Pair by pair and layer by layer, all places of a layer as one batch; then the strongest heads, taken apart."""
    model = bench.model(spec.model)
    named = None if spec.head is None else _place(spec.head, model)
    if spec.weights == "shuffled":
        model = shuffled(model, bench.generator("shuffled"))
    prompts = tuple("\n".join(part for _, part in bench.text(name).parts) for name in ("clean", "corrupt"))
    pairs = read_pairs(model, (prompts[0], prompts[1]), (spec.answer, spec.foil), spec.bos)
    trace(model, pairs[0].clean[None], [Site(spec.site, 0)])  # a site that the model has not is refused before all work
    judging = len(pairs) // 2
    choosing = max(1, judging)
    looks, apart, exact = [], [], []
    strongest: list[tuple[int, int]] = []
    for number, pair in enumerate(pairs):
        one = _patching(model, pair, spec, bench, number)

        def progress(layer: int, number: int = number) -> None:
            layers = model.shape.layers
            bench.progress(number * layers + layer, len(pairs) * layers, "patching layer by layer")

        looks.append(_look(one, pair, spec, progress))
        if number == choosing - 1:
            strongest = _strongest(looks, named)
        if number >= judging:
            apart.append(_apart(one, strongest, spec.draws))
            exact.append(_exact(one, pair, spec, strongest[-1]))
    donor, base = (pairs[0].clean, pairs[0].corrupt)[:: 1 if spec.direction == "denoising" else -1]
    columns = {name: torch.stack([getattr(look, name) for look in looks]) for name in _Look._fields}
    drawn = {name: value.transpose(0, 1) for name, value in columns.items() if name.startswith("drawn_")}
    alone = torch.stack(apart)
    return Out(
        tokens=model.token_strings(donor.tolist()),
        base_tokens=model.token_strings(base.tolist()),
        answers=model.token_strings([pair.answer for pair in pairs]),
        foils=model.token_strings([pair.foil for pair in pairs]),
        choosing=choosing,
        judging=judging,
        strongest=tuple(f"L{layer}H{head}" for layer, head in strongest),
        eps=torch.finfo(model.dtype).eps,
        where=torch.stack([pair.changed for pair in pairs]),
        alone=alone[:, 0],
        drawn_alone=alone[:, 1:].transpose(0, 1),
        **{name: value for name, value in columns.items() if name not in drawn},
        **drawn,
        **{name: torch.stack([one[name] for one in exact]).max() for name in exact[0]},
    )


def _place(head: str, model: Model) -> tuple[int, int]:
    layer, number = map(int, head[1:].split("H"))
    if layer >= model.shape.layers or number >= model.shape.heads:
        last = f"L{model.shape.layers - 1}H{model.shape.heads - 1}"
        raise NoteError(f"{model.name} has no head {head}.", f"Its heads are L0H0 to {last}.", field="head")
    return layer, number


def _patching(model: Model, pair: Pair, spec: Spec, bench: Bench, number: int) -> Patching:
    """NoteError where the two runs answer alike."""
    donor, base = (pair.clean, pair.corrupt)[:: 1 if spec.direction == "denoising" else -1]
    random = unrelated(model, pair, spec.draws, bench.generator("patching", spec.seed, number))
    names: tuple[SiteName, ...] = ("resid_pre", "resid_post", "attn", "pattern", "v", "z", spec.site)
    one = patching.patching(
        model,
        base,
        torch.cat([donor[None], random]),
        patching.question(model, pair),
        tuple(dict.fromkeys(names)),
        bench.batch,
    )
    if abs(float(one.given[0] - one.found)) < NO_GAP:
        words = " and ".join(model.token_strings([pair.answer, pair.foil]))
        raise NoteError(
            f"The two prompts of pair {number + 1} have {words} equally far apart (by {float(one.found):.3g} and "
            f"{float(one.given[0]):.3g} nats): there is nothing that a patch could move.",
            "Name an answer and a foil that the two prompts tell apart, or leave both out.",
            field="answer",
        )
    return one


class _Look(NamedTuple):
    """What a pair's patches move, as in `Out`."""

    clean: Tensor
    corrupt: Tensor
    toward: Tensor
    drawn_toward: Tensor
    cells: Tensor
    changed: Tensor
    heads: Tensor
    of_site: Tensor
    drawn_cells: Tensor
    drawn_changed: Tensor
    drawn_heads: Tensor


def _look(one: Patching, pair: Pair, spec: Spec, progress: Callable[[int], None]) -> _Look:
    """All cells and heads of a pair, from the donor and from the unrelated ones, a layer at a time."""
    shape, length = one.model.shape, one.length
    more = one.of_each(spec.site) if spec.site in OF_HEADS and spec.site != "z" else []
    patches = list(more)
    for donor in range(1 + spec.draws):
        together = Patch((spec.site,), pair.changed, one.all_heads(), donor)
        patches += [*one.at_each(spec.site, donor), together, *one.of_each("z", donor)]
    rows = []
    for layer in range(shape.layers):
        progress(layer)
        rows.append(one.moved(layer, patches))
    moved = torch.stack(rows)
    of_site, rest = moved[:, : len(more)], moved[:, len(more) :]
    each = rest.view(shape.layers, 1 + spec.draws, -1).transpose(0, 1)
    cells, changed, heads = each[..., :length], each[..., length], each[..., length + 1 :]
    both = (one.given[0], one.found) if spec.direction == "denoising" else (one.found, one.given[0])
    toward = one.given - one.found
    drawn = toward[1:], cells[0], changed[0], heads[0], of_site, cells[1:], changed[1:], heads[1:]
    return _Look(*both, toward[0], *drawn)


def _strongest(looks: Sequence[_Look], named: tuple[int, int] | None) -> list[tuple[int, int]]:
    """The heads that move most on these pairs, and the named one last: the very strongest where none is named."""
    heads = torch.stack([look.heads for look in looks]).sum(0) / torch.stack([look.toward for look in looks]).sum()
    order = heads.abs().flatten().argsort(descending=True, stable=True)[:STRONGEST].tolist()
    found = [divmod(place, heads.shape[1]) for place in order]
    return [*found, found[0] if named is None else named]


def _apart(one: Patching, heads: Sequence[tuple[int, int]], draws: int) -> Float[Tensor, "donor kind strongest"]:
    """Of each head its pattern alone, its values alone, and its z; from the donor and from the unrelated ones."""
    found = torch.zeros(1 + draws, len(ALONE), len(heads))
    for at, (layer, head) in enumerate(heads):
        mask = of_heads(one.model.shape.heads, [head])[0]
        patches = [Patch(names, one.everywhere(), mask, donor) for donor in range(1 + draws) for names in ALONE]
        found[:, :, at] = one.moved(layer, patches).view(1 + draws, len(ALONE))
    return found


def _exact(one: Patching, pair: Pair, spec: Spec, head: tuple[int, int]) -> dict[str, Tensor]:
    """The identities of one pair, in nats."""
    model, layers, everywhere, every = one.model, one.model.shape.layers, one.everywhere(), one.all_heads()
    middle, last = layers // 2, torch.arange(one.length) == one.length - 1
    toward = one.given[0] - one.found
    nothing = one.moved(middle, [Patch((spec.site,), everywhere & False, every)])
    first = one.moved(0, [*one.at_each("resid_pre"), Patch(("resid_pre",), pair.changed, every)])
    unchanged = torch.cat([~pair.changed, torch.tensor([False])])
    end = one.moved(layers - 1, [Patch(("resid_post",), last, every)])
    cells, some = one.at_each(spec.site), [int(pair.changed.nonzero()[-1]), one.length - 1]
    alone = torch.cat([one.moved(middle, [cells[place]], resumed=False) for place in some])
    mask = of_heads(model.shape.heads, [head[1]])[0]
    whole, both = one.moved(head[0], [Patch(names, everywhere, mask) for names in (("z",), ("pattern", "v"))])
    layer, heads = one.moved(middle, [Patch((name,), everywhere, every) for name in ("attn", "z")])
    logits = trace(model, one.base[None], [Site("logits")])[Site("logits")][0, -1].float().cpu()
    return {
        "logit_residual": (logits[pair.answer] - logits[pair.foil] - one.found).abs(),
        "nothing_residual": nothing.abs().max(),
        "first_residual": (first[-1] - toward).abs(),
        "elsewhere_residual": first[unchanged].abs().sum(),
        "last_residual": (end[0] - toward).abs(),
        "resumed_residual": (alone - one.moved(middle, cells)[some]).abs().max(),
        "parts_residual": (whole - both).abs(),
        "heads_residual": (layer - heads).abs(),
    }


HEAD_MOVED = Quantity(
    "head_moved",
    "How far the head's z alone moves the answer; null: the same head from unrelated prompts, root mean square.",
    headline=True,
)
ALONG_PATH = Quantity(
    "along_path",
    "How far the strongest position of a layer alone moves the answer, mean over layers; null: the same places from "
    "unrelated prompts.",
    headline=True,
)
MOVES_ON = Quantity(
    "moves_on",
    "The first layer from which on the last position moves the answer further than the changed tokens do, in all "
    "layers; as many as there are layers if there is none. Null: the same from unrelated prompts.",
    unit="layer",
    range=(0, math.inf),
    headline=True,
)
GAP = Quantity(
    "gap",
    "The logit of the answer less that of the foil, after the clean prompt less after the corrupt one; null: how far "
    "an unrelated prompt is from the base run, root mean square.",
    unit="nats",
)
BEST_CELL = Quantity(
    "best_cell",
    "How far the strongest place alone moves the answer; null: the same place from unrelated ones, root mean square.",
)
AT_CHANGED = Quantity(
    "at_changed",
    "What all changed tokens together move, layer after layer; null: from unrelated prompts, root mean square.",
)
AT_LAST = Quantity(
    "at_last",
    "What the last position moves, layer after layer; null: from unrelated prompts, root mean square.",
)
ELSEWHERE = Quantity(
    "elsewhere",
    "The furthest that any other position moves it in any layer, either way; null: from unrelated prompts, mean of "
    "the furthest.",
    range=(0, math.inf),
)
HEAD_PATTERN = Quantity(
    "head_pattern",
    "How far the head's pattern alone moves the answer, with the base run's values; null: from unrelated prompts, root "
    "mean square.",
)
HEAD_VALUES = Quantity(
    "head_values",
    "How far the head's values alone move it, with the base run's pattern; null: from unrelated prompts, root mean "
    "square.",
)
INTERACTION = Quantity(
    "interaction",
    "What the head's z moves beyond its pattern and its values apart: 0 where each acts for itself; null: the same "
    "from unrelated prompts, root mean square.",
)
BY_PATTERN = Quantity(
    "by_pattern",
    "Of what the strongest heads' patterns and values move by themselves, either way, the share that patterns do; "
    "null: the same from unrelated prompts.",
    range=(0, 1),
)
HEADS_MOVED = Quantity(
    "heads_moved",
    "How far each head's z moves the answer, layer after layer; null: from unrelated prompts, root mean square over "
    "heads.",
)


class Shares(NamedTuple):
    """Of the judged pairs what `Out` has in nats, as shares of the way to the donor's answer; `chosen` cells of those
    that choose."""

    chosen: Float[Tensor, "layer pos"]
    cells: Float[Tensor, "layer pos"]
    changed: Float[Tensor, " layer"]
    heads: Float[Tensor, "layer head"]
    of_site: Float[Tensor, "layer column"]
    alone: Float[Tensor, "kind strongest"]
    drawn_cells: Float[Tensor, "draw layer pos"]
    drawn_changed: Float[Tensor, "draw layer"]
    drawn_heads: Float[Tensor, "draw layer head"]
    drawn_alone: Float[Tensor, "draw kind strongest"]


def shares(out: Out) -> Shares:
    """Sums over pairs by sums over pairs: a pair counts as much as it has to tell."""
    judged, way = slice(out.judging, None), out.toward.double()

    def of(moved: Tensor, rows: slice = judged) -> Tensor:
        return moved[rows].double().sum(0) / way[rows].sum()

    def drawn(moved: Tensor, rows: slice = judged) -> Tensor:
        return moved[:, rows].double().sum(1) / way[judged].sum()

    whole = slice(None)  # `alone` has the judged pairs only
    return Shares(
        of(out.cells, slice(out.choosing)),
        of(out.cells),
        of(out.changed),
        of(out.heads),
        of(out.of_site),
        out.alone.double().sum(0) / way[judged].sum(),
        drawn(out.drawn_cells),
        drawn(out.drawn_changed),
        drawn(out.drawn_heads),
        drawn(out.drawn_alone, whole),
    )


def moves_on(changed: Float[Tensor, " layer"], last: Float[Tensor, " layer"]) -> int:
    """The first layer from which on the last position says more than the changed tokens, in all layers."""
    behind = (last <= changed).nonzero()
    return int(behind[-1]) + 1 if len(behind) else 0


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def measure(spec: Spec, out: Out) -> list[Metric]:
    """Of the judged pairs, at the places that the others chose; intervals from a bootstrap over pairs."""
    it, count = shares(out), len(out.toward) - out.judging
    path = it.chosen.abs().argmax(1)
    layers = torch.arange(len(path))
    best = divmod(int(it.chosen.abs().argmax()), it.chosen.shape[1])
    pattern, values, whole = it.alone[:, -1]
    judged = slice(out.judging, None)
    others = ~out.where[judged].any(0)
    others[-1] = False
    generator = draws("patching", spec.seed, "bootstrap")

    def each(moved: Float[Tensor, " pair"]) -> tuple[float, float] | None:
        """95 % of the share of the whole way, pairs drawn again."""
        if count == 1:
            return None
        picked = torch.randint(count, (2000, count), generator=generator)
        again = moved.double()[picked].sum(1) / out.toward[judged].double()[picked].sum(1)
        low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return low, high

    def vector(quantity: Quantity, moved: Tensor, null: Tensor) -> Metric:
        return quantity.is_(tuple(moved.flatten().tolist()), null=_rms(null), n=count)

    def one(quantity: Quantity, moved: Tensor, null: float, of_pairs: Tensor | None = None) -> Metric:
        interval = None if of_pairs is None else each(of_pairs)
        return quantity.is_(float(moved), null=null, n=count, interval=interval)

    gaps = (out.clean - out.corrupt)[judged].double()
    beyond = it.drawn_alone[:, 2] - it.drawn_alone[:, :2].sum(1)
    furthest = it.drawn_cells[..., others].abs().flatten(1)
    return [
        one(HEAD_MOVED, whole, _rms(it.drawn_alone[:, 2, -1]), out.alone[:, 2, -1]),
        one(
            ALONG_PATH,
            it.cells[layers, path].mean(),
            float(it.drawn_cells[:, layers, path].mean()),
            out.cells[judged][:, layers, path].mean(1),
        ),
        MOVES_ON.is_(
            float(moves_on(it.changed, it.cells[:, -1])),
            null=float(moves_on(it.drawn_changed.mean(0), it.drawn_cells[..., -1].mean(0))),
            n=count,
        ),
        GAP.is_(float(gaps.mean()), null=_rms(out.drawn_toward[:, judged].double()), n=count),
        one(
            BEST_CELL, it.cells[best], _rms(it.drawn_cells[:, best[0], best[1]]), out.cells[judged][:, best[0], best[1]]
        ),
        vector(AT_CHANGED, it.changed, it.drawn_changed),
        vector(AT_LAST, it.cells[:, -1], it.drawn_cells[..., -1]),
        *(
            []
            if not others.any()
            else [one(ELSEWHERE, it.cells[:, others].abs().max(), float(furthest.amax(1).mean()))]
        ),
        one(HEAD_PATTERN, pattern, _rms(it.drawn_alone[:, 0, -1])),
        one(HEAD_VALUES, values, _rms(it.drawn_alone[:, 1, -1])),
        one(INTERACTION, whole - pattern - values, _rms(beyond[:, -1])),
        one(BY_PATTERN, _by_pattern(it.alone), float(_by_pattern(it.drawn_alone).mean())),
        vector(HEADS_MOVED, it.heads, it.drawn_heads),
    ]


def _by_pattern(alone: Float[Tensor, "*draw kind strongest"]) -> Float[Tensor, "*draw"]:
    """Without the named head, which may be there twice."""
    pattern, values, _ = alone[..., :-1].abs().sum(-1).unbind(-1)
    return pattern / (pattern + values).clamp(min=1e-30)


def verify(spec: Spec, out: Out) -> list[Check]:
    """Identities of this run, in nats: the worst of all judged pairs."""
    limit = max(1e-3, 64 * out.eps)

    def is_(name: str, residual: Tensor, says: str) -> Check:
        return Check(name, float(residual), limit, says)

    return [
        is_("the logits' difference = the model's own", out.logit_residual, "read by two columns of W_U alone; nats"),
        is_("nothing patched moves nothing", out.nothing_residual, "a patch at no position, resumed half way up; nats"),
        is_(
            "the changed tokens before the first layer move it all the way",
            out.first_residual,
            "all of them together, against the donor's own run; nats",
        ),
        is_(
            "other tokens before the first layer move nothing",
            out.elsewhere_residual,
            "there the two prompts are the same; all of them, added up; nats",
        ),
        is_(
            "the last position after the last layer moves it all the way",
            out.last_residual,
            "nothing else is read by the answer; nats",
        ),
        is_(
            "resumed in a batch = from the beginning, one by one",
            out.resumed_residual,
            "half way up, at a changed token and at the last one; nats",
        ),
        is_(
            "pattern and values together = z",
            out.parts_residual,
            f"of {out.strongest[-1]}: both patched, and what it gathers from both; nats",
        ),
        is_(
            "all heads' z = the layer's attention",
            out.heads_residual,
            "half way up, at all positions: what the heads gather, and what W_O and b_O write of it; nats",
        ),
    ]


def needs(spec: Spec, shape: Shape | None) -> Needs:
    """The weights, all runs' sites and a batch of passes; a patch takes half a pass, at 40 GFLOP/s (two cores)."""
    assert shape is not None
    lines = [line for line in spec.clean.splitlines() if line.strip()]
    pairs = max(1, len(lines))
    length = PLACES if spec.clean.startswith("[[") else 1 + max((len(line) for line in lines), default=0) // 4
    patches = shape.layers * ((1 + spec.draws) * (length + 1 + shape.heads) + shape.heads)
    kept = (2 + spec.draws) * length * shape.layers * (5 * shape.d_model + shape.heads * length) * 4
    batch = 32 * length * (8 * shape.d_model + 4 * shape.d_mlp) * 4
    weights = shape.bytes * (1 if spec.weights == "trained" else 2)
    each = 2 * (shape.parameters - shape.d_vocab * shape.d_model) * length / 40e9
    return Needs(weights + kept + batch + pairs * length * shape.d_vocab * 4, 3 + pairs * patches * each / 2)


def draw(spec: Spec, out: Out) -> dict[str, Drawing]:
    it = shares(out)
    asked = plots.Question(
        out.answers[0], out.foils[0], spec.site, spec.direction, len(out.toward), len(out.toward) - out.judging
    )
    labels = [
        given if given == base else f"{given}|{base}" for given, base in zip(out.tokens, out.base_tokens, strict=True)
    ]
    null = it.drawn_cells.mean(0).numpy()
    changed = it.drawn_changed.numpy(), it.drawn_cells[..., -1].numpy()
    return {
        "positions": plots.positions(it.cells.numpy(), null, it.chosen.numpy(), labels, asked),
        "course": plots.course((it.changed.numpy(), it.cells[:, -1].numpy()), changed, labels, asked),
        "heads": plots.heads(
            it.heads.numpy(),
            it.drawn_heads.mean(0).numpy(),
            it.of_site.numpy(),
            list(dict.fromkeys(out.strongest)),
            asked,
        ),
        "alone": plots.alone(out.strongest[:-1], it.alone[:, :-1].numpy(), it.drawn_alone[..., :-1].numpy(), asked),
    }


EXPERIMENT = Experiment(
    version=1,
    Spec=Spec,
    Out=Out,
    compute=compute,
    measure=measure,
    verify=verify,
    draw=draw,
    metrics=(
        HEAD_MOVED,
        ALONG_PATH,
        MOVES_ON,
        GAP,
        BEST_CELL,
        AT_CHANGED,
        AT_LAST,
        ELSEWHERE,
        HEAD_PATTERN,
        HEAD_VALUES,
        INTERACTION,
        BY_PATTERN,
        HEADS_MOVED,
    ),
    figures={
        "positions": "Layer by position, what each place alone moves, with the fact's path, beside unrelated prompts.",
        "course": "The changed tokens and the last position, layer by layer, with what unrelated prompts do.",
        "heads": "Layer by head, what each head alone moves, the strongest named, beside unrelated prompts.",
        "alone": "Of the strongest heads the pattern alone, the values alone, and both.",
    },
    examples=(
        Example(
            "a-fact-stays-with-its-subject",
            "Until layer 23 all that decides Paris or Rome is kept at the country, from then on at the last word",
            {"model": "smollm2-135m", "head": "L23H4"},
            ("along_path > 0.85", "moves_on between 22 and 26", "elsewhere < 0.25", "head_moved > 0.6"),
        ),
        Example(
            "one-head-for-two-capitals",
            "A head chosen on one pair of countries carries most of the answer for another pair, by its values",
            {"model": "smollm2-135m", "clean": CAPITALS[0], "corrupt": CAPITALS[1], "draws": 1},
            ("head_moved > 0.4", "head_values > 0.4", "by_pattern < 0.1", "along_path > 0.85", "moves_on = 24"),
        ),
        Example(
            "what-follows-is-in-the-values",
            "In two layers of attention, another letter after the one that comes again moves values and no pattern",
            {**TOY, "clean": "kQ7xWm2pLr9vTz kQ7xWm2", "corrupt": "kQ7xWm2aLr9vTz kQ7xWm2", "site": "resid_post"},
            ("head_values > 0.3", "head_pattern between -0.05 and 0.05", "along_path > 0.99", "moves_on = 1"),
        ),
        Example(
            "where-it-stood-is-in-the-pattern",
            "Another letter in the place of the one that comes again moves patterns and no value",
            {**TOY, "clean": "kQ7xWm2pLr9vTz m2aLkQ kQ7xWm2", "corrupt": "kQ7xWm3pLr9vTz m2aLkQ kQ7xWm2", "site": "q"},
            ("head_pattern > 0.3", "head_values between -0.05 and 0.05", "interaction between -0.05 and 0.05"),
        ),
    ),
    needs=needs,
    nonsense=Nonsense("the same weights in random order", "what the model has learnt", {"weights": "shuffled"}),
)
