"""An Ask's fields → its Spec, its key and its line of parameters; or the Refusal that says what to write instead."""

import hashlib
import importlib
import inspect
import json
import math
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vaultlab import experiments, models
from vaultlab.catalogue import Entry, canonical, nearest, wanted
from vaultlab.errors import NoteError, RunError
from vaultlab.experiment import Experiment, Quantity, Spec
from vaultlab.models.family import Shape
from vaultlab.result import Ask, Refusal, Text

IMPORTING = threading.RLock()
"""Held where something is imported late. transformers is, for that takes longer than most runs without a model; and two
threads that import it at once each meet a half of it."""


class Folder(Mapping[str, Experiment]):
    """The folder of experiments as the registry: a module's name → its EXPERIMENT, imported when it is asked for."""

    def __init__(self, package: ModuleType = experiments) -> None:
        self._package = package
        self._imported: dict[str, Experiment] = {}
        self._names = [module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_"]

    def __getitem__(self, name: str) -> Experiment:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._imported:  # what is here does not wait for what another thread imports
            with IMPORTING:
                self._imported[name] = importlib.import_module(f"{self._package.__name__}.{name}").EXPERIMENT
        return self._imported[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


def entry(name: str, experiment: Experiment) -> Entry:
    """What the catalogue keeps of an experiment; plain data throughout."""
    page = inspect.getdoc(inspect.getmodule(experiment.compute)) or ""
    metrics = tuple(_quantity(quantity) for quantity in experiment.metrics)
    examples = tuple(json.loads(json.dumps(asdict(example))) for example in experiment.examples)
    schema = _schema(experiment.Spec)
    figures, nonsense = dict(experiment.figures), experiment.nonsense
    control = json.loads(json.dumps(asdict(nonsense))) if nonsense else None
    known = Entry(
        name, experiment.version, page, schema, metrics, figures, examples, control, experiment.data is not None
    )
    return replace(known, version=known.version + models.VERSION) if known.of_kind("model") else known


@cache  # it takes milliseconds, and each Ask has all those read that wait beside it
def _schema(spec: type[Spec]) -> dict[str, Any]:
    return spec.model_json_schema()


def _quantity(quantity: Quantity) -> dict[str, Any]:
    low, high = (bound if math.isfinite(bound) else None for bound in quantity.range)
    return {**asdict(quantity), "range": [low, high], "forced": dict(quantity.forced)}


@dataclass(frozen=True)
class Run:
    """One run that an Ask wants: the block's own, or a point of its sweep with the swept values in `point`."""

    spec: Any
    key: str
    texts: Mapping[str, Text]
    models: Mapping[str, str]
    point: Mapping[str, Any]
    given: Mapping[str, "Asked"]


@dataclass(frozen=True)
class Asked:
    """An Ask that can be run as it is written."""

    entry: Entry
    experiment: Experiment
    runs: tuple[Run, ...]
    key: str
    summary: str


def shapes(run: Run) -> list[Shape]:
    """The measures of the models that a run reads, without their weights. RunError as `read_shape` raises it."""
    return [_shape(getattr(run.spec, field), sha256) for field, sha256 in run.models.items()]


@cache  # a sweep asks for each of its points, and transformers takes a while to read a config
def _shape(name: str, sha256: str) -> Shape:
    with IMPORTING:
        from vaultlab.models.load import read_shape  # noqa: PLC0415

    return read_shape(name)


class Refused(Exception):
    """Carries the Refusals of an Ask, the first one first."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__(refusals[0].message)
        self.refusals = refusals


ModelHash = Callable[[str], str]
"""A model's name → the hash of its content; raises a VaultlabError for a model that is not there."""


def asked(ask: Ask, registry: Mapping[str, Experiment], model_hash: ModelHash) -> Asked:
    """Check all that an Ask says, every point of its sweep too. Refused, or what `model_hash` raises.

    RunError where the experiment is another one here than the asker knows.
    """
    _must_be_the_same(ask, registry)
    if ask.experiment not in registry:
        near = nearest(ask.experiment, registry)
        hint = (f"Did you mean `{near}`? " if near else "") + f"There are: {', '.join(registry)}."
        raise Refused(Refusal(ask.id, f"There is no experiment called `{ask.experiment}`.", hint))
    experiment = registry[ask.experiment]
    known = entry(ask.experiment, experiment)
    given = {name: _given(ask, name, one, registry, model_hash) for name, one in ask.given.items()}
    runs = tuple(_run(ask, known, experiment, point, given, model_hash) for point in ask.points or ({},))
    key = runs[0].key if not ask.points else hashed({"sweep": sorted({run.key for run in runs})})
    return Asked(known, experiment, runs, key, _summary(known, runs))


def _must_be_the_same(ask: Ask, registry: Mapping[str, Experiment]) -> None:
    if not ask.version:
        return
    there = entry(ask.experiment, registry[ask.experiment]).version if ask.experiment in registry else 0
    if ask.version != there:
        which = f"has version {there} of `{ask.experiment}`" if there else f"has no experiment `{ask.experiment}`"
        raise RunError(
            f"The worker {which}, and it was asked for version {ask.version}: its numbers would not be comparable.",
            "Install the same version of vaultlab where the worker runs; where it was updated, start `watch` again.",
        )


def _given(ask: Ask, name: str, one: Ask, registry: Mapping[str, Experiment], model_hash: ModelHash) -> Asked:
    """The Ask whose result the field `name` stands for. Refused where it gives nothing to build on."""
    if one.points:
        said = f"`{one.id}` is a sweep: it has many results, and one is to be built on."
        raise Refused(Refusal(ask.id, said, "Write a block for the point that is meant.", name))
    try:
        it = asked(one, registry, model_hash)
    except Refused as refused:
        first = refused.refusals[0]
        raise Refused(replace(first, id=ask.id, message=f"`{one.id}`: {first.message}", field=name)) from None
    if it.experiment.directions is None:
        can = [other for other in registry if registry[other].directions]
        said = f"`{one.id}` is a result of `{one.experiment}`, which gives no direction."
        raise Refused(Refusal(ask.id, said, f"These do: {', '.join(can)}.", name))
    return it


def _run(
    ask: Ask,
    known: Entry,
    experiment: Experiment,
    point: Mapping[str, Any],
    given: Mapping[str, Asked],
    model_hash: ModelHash,
) -> Run:
    written = {**ask.fields, **point}
    values = {d.name: d.value for d in ask.defaults if d.name in known.fields} | written
    try:
        # JSON is the mode in which strict takes a list for a tuple, and still no string for a number.
        spec = experiment.Spec.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise Refused(*(_refusal(ask, known, problem) for problem in error.errors())) from None
    fields = {name: getattr(spec, name) for name in known.fields}
    read = [name for name in _read(known) if fields[name] is not None]
    texts = {name: _text(ask, name, fields[name], point) for name in read}
    hashes = {}
    for name in known.of_kind("model"):
        if fields[name] is None:
            continue
        try:
            hashes[name] = model_hash(fields[name])
        except NoteError as error:
            raise Refused(Refusal(ask.id, error.message, error.hint, name, origin_of(ask, name))) from error
    named = [name for name in known.of_kind("result") if fields[name] is not None]
    for name in named:
        if name not in given or name in point:
            said, mend = f"`{name}` takes the result of another block.", 'Name it: "[[vaultlab/its-id]]".'
            raise Refused(Refusal(ask.id, said, mend, name, origin_of(ask, name)))
    built_on = {name: given[name] for name in named}
    return Run(spec, _key(known, spec, hashes, texts, built_on), texts, hashes, point, built_on)


def _read(known: Entry) -> tuple[str, ...]:
    """The fields that come with what they stand for."""
    return (*known.of_kind("text"), *known.of_kind("list"))


def _text(ask: Ask, name: str, value: str | tuple[str, ...], point: Mapping[str, Any]) -> Text:
    """The snapshot that the scribe took; a text that came without one, or is swept over, stands for itself."""
    snapshot = None if name in point else ask.texts.get(name)
    parts = (value,) if isinstance(value, str) else value
    written = value if isinstance(value, str) else canonical(value)
    return snapshot or Text(name, hashlib.sha256(written.encode()).hexdigest(), tuple(("", part) for part in parts))


def _key(
    known: Entry, spec: Any, hashes: Mapping[str, str], texts: Mapping[str, Text], given: Mapping[str, Asked]
) -> str:
    """Order-free: what differs from its default, and the content of the models, texts and results instead of their
    names."""
    values = json.loads(spec.model_dump_json(exclude_defaults=True))
    by_content = {*hashes, *texts, *given}
    return hashed(
        {
            "experiment": known.name,
            "version": known.version,
            "values": {name: value for name, value in values.items() if name not in by_content},
            "models": hashes,
            "texts": {name: text.sha256 for name, text in texts.items()},
            **({"given": {name: one.key for name, one in given.items()}} if given else {}),
        }
    )


def hashed(what: Any) -> str:
    """The hash of plain data, in whatever order its keys came."""
    return hashlib.sha256(canonical(what).encode()).hexdigest()


# -- the line of parameters


def _summary(known: Entry, runs: Sequence[Run]) -> str:
    """Fields with a symbol, then models, then whatever else is not as it would be by itself; swept ones as a span."""
    lettered = {name: schema["symbol"] for name, schema in known.fields.items() if "symbol" in schema}
    models = known.of_kind("model")
    rest = [name for name in known.fields if name not in lettered and name not in models]
    said = [name for name in known.fields if any(getattr(run.spec, name) is not None for run in runs)]
    letters = [f"{symbol}={_span(runs, name)}" for name, symbol in lettered.items() if name in said]
    names = [_span(runs, name) for name in models if name in said]
    default = known.defaults
    others = [
        f"{name}={_span(runs, name)}"
        for name in rest
        if any(_plain(getattr(run.spec, name)) != default[name] for run in runs) and name not in _read(known)
    ]
    return " ".join(letters + names + others)


def _span(runs: Sequence[Run], name: str) -> str:
    values = list(dict.fromkeys(number(getattr(run.spec, name)) for run in runs))
    return ",".join(values) if len(values) <= 4 else f"{values[0]}…{values[-1]}"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def number(value: Any) -> str:
    """A value as the card shows it: four significant digits, no zero before the point."""
    if isinstance(value, tuple):
        return "[" + ",".join(map(number, value)) + "]"
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


# -- refusals


_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "multiple_of")
_BROKEN_NUMBERS = ("NaN", "Infinity", "-Infinity")


def origin_of(ask: Ask, name: str | None) -> str | None:
    """Where a field's value comes from if the block itself has not written it."""
    if name in ask.fields or any(name in point for point in ask.points):
        return None
    return next((default.origin for default in ask.defaults if default.name == name), None)


def _refusal(ask: Ask, known: Entry, problem: ErrorDetails) -> Refusal:
    if not problem["loc"]:
        return Refusal(ask.id, _sentence(problem["msg"]), "Change one of the fields that it names.")
    name = str(problem["loc"][0])
    message, hint = _words(known, name, problem)
    return Refusal(ask.id, message, hint, name, origin_of(ask, name))


def _words(known: Entry, name: str, problem: ErrorDetails) -> tuple[str, str]:
    """What was there, and what would be right."""
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        near = nearest(name, known.fields)
        hint = (f"Did you mean `{near}`? " if near else "") + f"It has: {', '.join(known.fields)}."
        return f"`{known.name}` has no field `{name}`.", hint
    schema = known.fields[name]
    takes = f"It takes {wanted(schema)}."
    shown = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else f"`{value}`"
    if value in _BROKEN_NUMBERS or kind == "finite_number":
        return f"`{name}` is {shown}, which is not a number.", takes
    if isinstance(value, list) and len(problem["loc"]) == 1 and kind.endswith("_type") and "list" not in takes:
        return f"`{name}` takes one value; here it is a list, {shown}.", f"A grid is a `sweep: {{{name}: {shown}}}`."
    if kind in _OUT_OF_RANGE:
        return f"`{name}` is {shown}, which is out of range.", takes
    if kind == "literal_error":
        near = nearest(str(value), [str(choice) for choice in schema.get("enum", ())])
        return f"`{name}` cannot be {shown}.", (f"Did you mean `{near}`? " if near else "") + takes
    if kind == "value_error":
        return f"`{name}` is {shown}. {_sentence(problem['msg'])}", takes
    if name in known.of_kind("head") and isinstance(value, int | float):
        return f"`{name}` is {shown}, which is a number.", "A head is written L17H10: layer 17, head 10."
    return f"`{name}` cannot be {shown}.", takes


def _sentence(message: str) -> str:
    text = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
