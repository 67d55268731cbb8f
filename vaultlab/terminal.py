"""What the terminal shows: calm lines when piped, a progress bar for long work, JSON for other programs."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vaultlab import catalogue
from vaultlab.catalogue import Entry
from vaultlab.errors import VaultlabError
from vaultlab.notes import digits
from vaultlab.notes.answer import Stress
from vaultlab.pipeline import QUIET_S, Outcome
from vaultlab.result import Check, Metric, Result
from vaultlab.result import Progress as Step
from vaultlab.survey import Item, Survey

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_MARKS = {"supported": ("✓", "green"), "refuted": ("✗", "red"), "undecided": ("?", "yellow")}


def say(text: str, style: str = "") -> None:
    """A line of the answer. Nothing in it is markup."""
    out.print(Text(text, style=style))


def warn(text: str, style: str = "yellow") -> None:
    """A line beside the answer, on stderr."""
    err.print(Text(text, style=style))


def fail(error: VaultlabError) -> None:
    """What went wrong, and the mend."""
    err.print(Text(error.message, style="bold red"))
    if error.hint:
        err.print(Text(error.hint))


def dump(what: Any) -> None:
    """JSON on stdout, for programs. Bytes are base64 already; numbers that are not finite are strings."""
    sys.stdout.write(json.dumps(what, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(what: Any) -> Any:
    return asdict(what) if is_dataclass(what) and not isinstance(what, type) else str(what)


def outcome_line(outcome: Outcome) -> None:
    """One line a block: what it is, how it went, how long it took; the sentence and its mend below where it failed."""
    item = outcome.item
    if outcome.problem:
        mark, style, word = "✗", "red", "failed"
    elif outcome.verdict:
        (mark, style), word = _MARKS[outcome.verdict], outcome.verdict
    else:
        mark, style, word = "·", "green", "done"
    cached = " (stored)" if isinstance(outcome.answer, Result) and outcome.answer.cached else ""
    line = Text.assemble((f"{mark} {item.name}", style), f"  {word}{cached}  {outcome.seconds:.1f} s  {item.path}")
    out.print(line)
    if outcome.problem:
        place = f"line {outcome.line}: " if outcome.line else ""
        out.print(Text(f"    {place}{outcome.problem}"))
        if outcome.hint:
            out.print(Text(f"    {outcome.hint}", style="dim"))
    for judgement in outcome.judgements:
        if judgement.verdict != "supported" or judgement.note:
            out.print(Text(f"    {_MARKS[judgement.verdict][0]} {judgement.claim}: {judgement.why}"))
            if judgement.note:
                out.print(Text(f"      {judgement.note}", style="dim"))


def stress(found: Stress) -> None:
    """How often each claim held in the variations, where it breaks, and which ones hold for nonsense too."""
    for one in found.claims:
        style = "green" if one.held == found.runs else "yellow"
        broken = f", breaks {one.where}" if one.where else ""
        broken += f" ({one.counts})" if one.counts else ""
        undecided = f", undecided in {one.undecided}" if one.undecided else ""
        out.print(Text(f"{one.claim}: holds in {one.held} of {found.runs}{undecided}{broken}", style=style))
    for one in found.empty:
        said = f"also holds for {found.nonsense} ({one.nonsense} of {found.controls}): it says nothing about"
        out.print(Text(f"✗ {one.claim} {said} {found.about}", style="red"))
    out.print(Text(f"{found.runs} variations: {found.varied}.", style="dim"))


def survey_problems(survey: Survey) -> None:
    """What no block's line says: the configuration, notes that cannot be read, notes that take no part."""
    for sentence in survey.config.problems:
        warn(sentence)
    for path, problems in survey.problems.items():
        for problem in problems:
            warn(f"{path}, line {problem.line}: {problem.message} {problem.hint}".rstrip())
    for path, count in survey.idle.items():
        blocks = "a vaultlab block" if count == 1 else f"{count} vaultlab blocks"
        warn(f"{path} has {blocks} but takes no part. Add to its properties: `tags: [experiment]`")


def waiting(path: Path) -> None:
    """The note has just been saved: what is written into it has to wait."""
    warn(f"Waiting until {path.name} has been quiet for {QUIET_S:.0f} s …", "dim")


class Bar:
    """The progress of one block after another; says nothing where nobody watches."""

    def __init__(self, bar: Progress | None) -> None:
        self.bar = bar
        self.task = bar.add_task("", total=None, visible=False) if bar else None

    def step(self, name: str, step: Step) -> None:
        if self.bar is not None and self.task is not None:
            words = f"{name}  {step.phase}"
            self.bar.update(self.task, description=words, completed=step.done, total=step.total or None, visible=True)

    def item(self, item: Item, step: Step) -> None:
        self.step(item.name, step)

    def rest(self) -> None:
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, visible=False)


@contextmanager
def progress() -> Iterator[Bar]:
    """A bar on a terminal, nothing elsewhere."""
    if not err.is_terminal:
        yield Bar(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        yield Bar(bar)


def interactive() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and out.is_terminal


@contextmanager
def live(lines: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Lines that stay below all others and always say what is now; nothing where nobody watches."""
    if not err.is_terminal:
        yield
        return

    def now() -> Text:
        return Text("\n".join(lines()), style="dim", no_wrap=True, overflow="ellipsis")

    with Live(console=err, get_renderable=now, refresh_per_second=4, transient=True):
        yield


def numbers(metrics: Sequence[Metric], checks: Sequence[Check]) -> None:
    """A result's numbers as two tables."""
    table = Table("metric", "value", "interval", "chance", "unit", box=None, header_style="bold")
    for metric in metrics:
        interval = digits.span(*metric.interval) if metric.interval else ""
        chance = "" if metric.null is None else digits.show(metric.null)
        table.add_row(metric.name, digits.value(metric.value), interval, chance, metric.unit)
    out.print(table)
    checked = Table("check", "residual", "limit", "", box=None, header_style="bold")
    for check in checks:
        checked.add_row(check.name, digits.show(check.residual), digits.show(check.limit), "✓" if check.ok else "✗")
    out.print(checked)


def manual(entry: Entry) -> None:
    """An experiment's manual page, with its fields, metrics, figures and examples."""
    say(entry.name, "bold")
    say(f"{entry.page.strip()}\n")
    for title, rows in (("Fields", _fields(entry)), ("Metrics", _metrics(entry)), ("Figures", entry.figures.items())):
        say(title, "bold")
        for head, help in rows:
            out.print(Text(f"  {head}"))
            out.print(Padding(Text(help, style="dim"), (0, 0, 0, 6)), soft_wrap=False)
        say("")
    _say_stress(entry)
    for example in entry.examples:
        say(f"Example: {example['title']}", "bold")
        out.print(Text(catalogue.example_block(entry, example["id"])))


def _fields(entry: Entry) -> Iterator[tuple[str, str]]:
    for name, schema in entry.fields.items():
        default = entry.defaults.get(name)
        said = "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
        yield f"{name}: {catalogue.wanted(schema)}; by default {said}", schema.get("description", "")


def _say_stress(entry: Entry) -> None:
    """What `vaultlab stress` tries a claim on."""
    varied = [f"{name} {catalogue.spread(entry, name)}" for name in entry.stress]
    varied += ["seed anew each time"] if "seed" in entry.fields else []
    control = entry.nonsense
    nonsense = f"{control['what']}, which says nothing about {control['about']}" if control else ""
    if varied or nonsense:
        say("Stress", "bold")
        for head, what in (("varied", "; ".join(varied)), ("nonsense", nonsense)):
            if what:
                out.print(Text(f"  {head}"))
                out.print(Padding(Text(what, style="dim"), (0, 0, 0, 6)), soft_wrap=False)
        say("")


def _metrics(entry: Entry) -> Iterator[tuple[str, str]]:
    for metric in entry.metrics:
        yield metric["name"] + (f" ({metric['unit']})" if metric["unit"] else ""), metric["help"]


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Plain rows under plain heads."""
    drawn = Table(*columns, box=None, header_style="bold")
    for row in rows:
        drawn.add_row(*(str(row.get(column, "")) for column in columns))
    out.print(drawn)
