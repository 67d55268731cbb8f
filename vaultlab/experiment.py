"""What an experiment promises. One file in `experiments/` keeps all of it; the file's name is the word in the note."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models.draws import draws
from vaultlab.models.family import Shape
from vaultlab.models.model import Model
from vaultlab.models.shared import Shared, unshared
from vaultlab.models.trace import Site, Trace, trace
from vaultlab.plots.style import Drawing
from vaultlab.result import Check, Metric, Quote, Said, Text, Value


class Spec(BaseModel):
    """What a note may set: closed, frozen, strict. Every field has a default, a range and a docstring.

    `json_schema_extra` of a field may say `symbol` (the paper's letter: such a field is always in the card's line of
    parameters), `unit`, and `stress`: what `vaultlab stress` varies it over to see where a claim breaks, [low, high] of
    a number (`"stress": [0.7, 0.99]`), all values to try of anything else. Give it to thresholds, to how it is trained
    or sampled, and to what a claim should survive; not to what the question is. `seed` is varied by itself.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Point = TypeVar("Point", bound=Spec)


def alike(specs: Sequence[Point], *fields: str) -> list[list[Point]]:
    """Points that differ in nothing but these fields, each once, in groups that can be computed as one batch."""
    groups: dict[str, dict[Point, None]] = {}
    for spec in specs:
        groups.setdefault(spec.model_dump_json(exclude=set(fields)), {})[spec] = None
    return [list(group) for group in groups.values()]


def _share(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
"""A share of a whole: 0.95 or 95%."""

ModelName = Annotated[str, Field(json_schema_extra={"kind": "model"})]
"""A model that this machine has: `vaultlab models list`."""

TextName = Annotated[str, Field(json_schema_extra={"kind": "text"})]
"""A text: itself, or where it stands (`this note`, `"[[Note#Heading]]"`, `python-help` …); the scribe resolves it."""

ListName = Annotated[str | tuple[str, ...], Field(json_schema_extra={"kind": "list"})]
"""A list of words or texts: itself, or where it stands (`"[[Note#Heading]]"`); the scribe resolves it, and what it
holds is `Bench.items`."""

ResultName = Annotated[str, Field(json_schema_extra={"kind": "result"})]
"""The result of another block, as `"[[vaultlab/its-id]]"`; what it gives is `Bench.directions`."""

Bos = Annotated[
    bool | None,
    Field(
        description="Begin with the token that begins texts: true, false, or as the model's tokenizer does by itself "
        "(none)."
    ),
]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, description="Where all random draws start.")]
"""Fields that mean the same in every Spec, and say so themselves: a docstring below one would not be read."""

Layer = Annotated[int, Field(ge=0)]

Head = Annotated[str, Field(pattern=r"^L\d+H\d+$", json_schema_extra={"kind": "head"})]
"""One attention head, as L17H10: layer 17, head 10, both counted from 0."""

Word = Annotated[str, Field(pattern=r"\S", max_length=40)]
"""One token of the model's, tried with a space before it: `Model.token_id` finds it, and refuses what is not one."""


def _words(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Words = Annotated[
    tuple[Annotated[str, Field(pattern=r"^.{1,40}$")], ...], BeforeValidator(_words), Field(min_length=1, max_length=32)
]
"""One word, or a list of them."""

Position = Annotated[int, Field(ge=-512, le=511)] | Literal["last", "all"]
"""Places in a text: its last token, one counted from the beginning or, below 0, from the end, or all."""


class Directions(NamedTuple):
    """What a result gives to blocks that build on it: a direction in a model's stream at each of `layers`, as it came
    out (its length is part of it), and the `chosen` one of these layers."""

    model: str
    site: str
    layers: tuple[int, ...]
    vectors: Float[Tensor, "layer d_model"]
    chosen: int

    def in_stream(self, model: str, field: str = "direction") -> "Directions":
        """These, for a block that asks `model`. NoteError where they are of another one, or not in the stream."""
        if self.model != model:
            raise NoteError(
                f"That direction is one of {self.model}, and this block asks {model}.",
                f"Ask the same model: `model: {self.model}`.",
                field=field,
            )
        if not self.site.startswith("resid_"):
            raise NoteError(
                f"That direction was found at `{self.site}`, which is not the stream.",
                "Name a block whose direction is one of `resid_post`.",
                field=field,
            )
        return self

    def behind(self, layer: int | None, field: str = "direction") -> tuple[int, Float[Tensor, " d_model"]]:
        """A layer, without one that of the chosen direction, and the direction in the stream behind it, which is what
        enters the next. NoteError where there is none."""
        shift = 1 if self.site == "resid_pre" else 0
        at = self.chosen - shift if layer is None else layer
        if at + shift not in self.layers or self.site == "resid_mid":
            raise NoteError(
                f"That direction is none of the stream after layer {at}.",
                f"It is one of `{self.site}` of layers {self.layers[0]} to {self.layers[-1]}.",
                field=field if layer is None else "layer",
            )
        return at, self.vectors[self.layers.index(at + shift)].float().cpu()


@dataclass(frozen=True)
class Bench:
    """What `compute` works with. Randomness comes from `generator` alone; `progress` also is where a run is cancelled.

    `batch` is how many texts at most go through a model at once: after running out of memory a run is tried with half.
    `trace` is `models.trace.trace`; what `reads` promises goes through it, so that other runs may share the pass. What
    is to be found by another way, for a check, calls `models.trace.trace` itself.
    `shared` gives what blocks ask for alike, once computed and then kept: it has no part in a run's key.
    """

    device: torch.device
    dtype: torch.dtype
    model: Callable[[str], Model]
    texts: Mapping[str, Text] = field(default_factory=dict)
    given: Mapping[str, Directions] = field(default_factory=dict)
    batch: int = 32
    report: Callable[[str, int, int], None] = lambda phase, done, total: None
    trace: Trace = trace
    shared: Shared = unshared

    def generator(self, *entropy: int | str) -> torch.Generator:
        """A fresh generator on the CPU, so that the draws depend on what is named here and not on batch or device."""
        return draws(*entropy)

    def text(self, name: str) -> Text:
        """The text that the field `name` stands for."""
        return self.texts[name]

    def items(self, name: str) -> tuple[str, ...]:
        """The words or texts of the list that the field `name` stands for."""
        return tuple(item for _, item in self.texts[name].parts)

    def directions(self, name: str) -> Directions:
        """What the result gives that the field `name` stands for."""
        return self.given[name]

    def progress(self, done: int, total: int, phase: str = "computing") -> None:
        """Call it at least every 2 s. It raises where the run was cancelled: let that through."""
        self.report(phase, done, total)


@dataclass(frozen=True)
class Quantity:
    """What a metric is. `forced` names aggregates that an identity fixes ({"mean": why}): a claim on them is empty."""

    name: str
    help: str
    unit: str = ""
    range: tuple[float, float] = (-math.inf, math.inf)
    headline: bool = False
    forced: Mapping[str, str] = field(default_factory=dict)

    def is_(self, value: Value, **more: Any) -> Metric:
        """The metric with its measured value; `more` are Metric's interval, null, n, seeds."""
        return Metric(self.name, value, unit=self.unit, headline=self.headline, **more)


@dataclass(frozen=True)
class Example:
    """A block that a reader could paste. Its title states a known answer; `expect` are the claims that must hold."""

    id: str
    title: str
    fields: Mapping[str, Any]
    expect: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Nonsense:
    """The control from which nothing can be learnt: the author's own block with `fields` laid over it. A claim that
    holds for it too is pointed out: it “also holds for WHAT: it says nothing about ABOUT”."""

    what: str
    about: str
    fields: Mapping[str, Any]


class Needs(NamedTuple):
    """What a run will take, estimated before it starts. `once` of its seconds are taken only once by points that are
    computed as one batch."""

    bytes: int
    seconds: float
    once: float = 0.0


class Reads(NamedTuple):
    """Which activations of a text a run wants. `cut` is all that decides, beside the model and the text, which tokens
    are read and in which batches: runs with an equal one share their passes. It is a promise that nothing relies on:
    what is broken of it costs time, no number.
    """

    cut: tuple[Any, ...]
    sites: tuple[Site, ...]


@dataclass(frozen=True)
class Experiment:
    """All of an experiment. `Out` is a NamedTuple of tensors, at most 50 MB, with strings, numbers and tuples of them
    where it must; `figures` says what each figure shows, the card's own first. `together` computes several points of a
    sweep as one batch, with the numbers that they have alone, and gives them back in order as they are done; `batched`
    are the fields in which the points of a batch may differ. `reads`
    says what goes through `Bench.trace`, so that blocks over one text share the pass. `directions` is what blocks may
    build on that name this one's result in a `ResultName`. `quotes` are the places of its texts that the figures show,
    for the result note to say where they stand; `said` is what the model wrote itself. `nonsense` and the `stress` of
    the Spec's fields are what `vaultlab stress` tries a block's claims on."""

    version: int
    Spec: type[Spec]
    Out: type[Any]
    compute: Callable[[Any, Bench], Any]
    measure: Callable[[Any, Any], list[Metric]]
    verify: Callable[[Any, Any], list[Check]]
    draw: Callable[[Any, Any], dict[str, Drawing]]
    metrics: tuple[Quantity, ...]
    figures: Mapping[str, str]
    examples: tuple[Example, ...]
    needs: Callable[[Any, Shape | None], Needs] | None = None
    data: Callable[[Any, Any], Mapping[str, Any]] | None = None
    together: Callable[[list[Any], Bench], Iterable[Any]] | None = None
    batched: tuple[str, ...] = ()
    nonsense: Nonsense | None = None
    reads: Callable[[Any, Shape], Reads | None] | None = None
    directions: Callable[[Any, Any], Directions] | None = None
    quotes: Callable[[Any, Any], list[Quote]] | None = None
    said: Callable[[Any, Any], list[Said]] | None = None
