"""The YAML of one fence → Block, with every mistake of its author as a problem on its own line."""

import math
import re
from dataclasses import dataclass, field, replace
from typing import Any

from vaultlab.errors import NoteError
from vaultlab.notes.note import Block, Problem
from vaultlab.notes.scalar import Node
from vaultlab.notes.sweep import MAX_POINTS, span
from vaultlab.notes.yaml12 import read

RUNS = ("auto", "manual", "frozen")
SHOWN = ("result", "figure", "none")
COMMON = ("experiment", "id", "title", "expect", "sweep", "tests", "embed", "run")
MAX_BYTES = 64 * 1024
# Texts even where they look like a number: a model may be called 007.
_TEXTS = ("title", "tests", "model", "text")
_EXAMPLE = "Begin with the experiment and an id, as in `superposition: pentagon`."
_QUOTE = "Put quotes around the text, or write it under a `|`."


def read_block(text: str, at: Block) -> Block:
    """The block that stands at `at` (its lines and container), read from the fence's text."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return replace(at, problems=(_too_long(at),))
    try:
        root = read(text, at.start + 1, strict=True)
    except NoteError as error:
        problem = Problem(error.line or at.start, error.message, error.hint)
        return replace(at, **_names(text), problems=(problem,))
    if root.value is None:
        return replace(at, problems=(Problem(at.start, "The block is empty.", _EXAMPLE),))
    if not isinstance(root.value, dict):
        return replace(at, problems=(Problem(root.line, "The block is not made of `name: value` lines.", _EXAMPLE),))
    if not root.entries:
        return replace(at, problems=(Problem(root.line, "The block is empty.", _EXAMPLE),))
    return _Draft(at, root.entries).block()


def _names(text: str) -> dict[str, Any]:
    """Experiment and id of a block whose YAML is broken, so that its result note can show the mistake."""
    lines = dict(re.findall(r"^(\w+):[ \t]*([a-z0-9][a-z0-9-]*)?[ \t]*$", text, re.MULTILINE))
    first = next(iter(lines), None)
    if first is None or not text.lstrip().startswith(first):
        return {}
    named = {"experiment": lines.get("experiment", first), "id": lines.get("id", lines[first])}
    if "experiment" in lines:
        named["id"] = lines.get("id", "")
    elif first in COMMON:
        return {}
    return {name: value for name, value in named.items() if value}


def _too_long(at: Block) -> Problem:
    return Problem(at.start, "The block is longer than 64 KiB.", "Put a long text into a note and name it: `[[Note]]`.")


@dataclass
class _Draft:
    """A block while it is being read."""

    at: Block
    entries: dict[str, tuple[Node, Node]]
    problems: list[Problem] = field(default_factory=list)
    lines_of: dict[str, int] = field(default_factory=dict)

    def block(self) -> Block:
        self.lines_of = {name: key.line for name, (key, _) in self.entries.items()}
        named = None if "experiment" in self.entries else next(iter(self.entries))
        experiment, id_ = self.naming(named)
        fields = {
            name: self.value(name, node)
            for name, (_, node) in self.entries.items()
            if name not in COMMON and name != named and self.is_field(name, node)
        }
        return replace(
            self.at,
            id=id_,
            experiment=experiment,
            fields=fields,
            expect=self.expect(),
            sweep=self.sweep(fields),
            title=self.text("title") or "",
            tests=self.tests(),
            embed=self.choice("embed", SHOWN) or "result",
            run=self.choice("run", RUNS),
            lines_of=self.lines_of,
            problems=tuple(sorted(self.problems, key=lambda problem: problem.line)),
        )

    def problem(self, name: str, message: str, hint: str = "", line: int | None = None) -> None:
        self.problems.append(Problem(line or self.lines_of.get(name, self.at.start), message, hint, name))

    def naming(self, named: str | None) -> tuple[str | None, str | None]:
        if named is None:
            return self.text("experiment"), self.text("id")
        if named in COMMON:
            self.problem(
                named, f"The block begins with `{named}`, so it does not say which experiment to run.", _EXAMPLE
            )
            return None, self.text("id")
        first = self.text(named)
        if first is not None and "id" in self.entries:
            self.problem("id", f"The block has two ids, `{first}` and `{self.text('id')}`.", "Keep one of the two.")
            return named, first
        return named, first if first is not None else self.text("id")

    def text(self, name: str) -> str | None:
        """The text of a common key, as typed: `007` is a text here."""
        if name not in self.entries:
            return None
        node = self.entries[name][1]
        if isinstance(node.value, dict | list):
            self.problem(name, f"`{name}` has to be one text.", f"Write `{name}: …` on one line.")
            return None
        self.uncut(name, node)
        return (node.raw if node.plain else node.value) if node.value is not None else None

    def tests(self) -> str:
        link = self.text("tests") or ""
        if link and not re.fullmatch(r"\[\[[^\[\]]+\]\]", link):
            self.problem(
                "tests", f"`tests` is `{link}`, which is no link.", 'Write a link to the claim: "[[Note#Heading]]".'
            )
        return link

    def choice(self, name: str, options: tuple[str, ...]) -> Any:
        chosen = self.text(name)
        if chosen is None or chosen in options:
            return chosen
        self.problem(name, f"`{name}` is `{chosen}`.", f"It is {', '.join(options[:-1])} or {options[-1]}.")
        return None

    def uncut(self, name: str, node: Node) -> None:
        """Refuse a text that YAML has cut at ` #`; a comment behind a number or a single word is a comment."""
        cut = node.after and isinstance(node.value, str) and (" " in node.raw or not node.after.startswith("# "))
        if cut:
            self.problem(
                name, f"YAML ends this text before `{node.after}`, taking the rest for a comment.", _QUOTE, node.line
            )

    def is_field(self, name: str, node: Node) -> bool:
        if node.value is None:
            self.problem(name, f"`{name}` has no value.", "Give it one, or take the line out.")
        elif isinstance(node.value, dict):
            self.problem(name, f"`{name}` is a mapping.", "A grid is a `sweep:`, as in `sweep: {sparsity: [0, 0.9]}`.")
        else:
            return True
        return False

    def value(self, name: str, node: Node) -> Any:
        """A field's value: a scalar, a text, or a list of such."""
        if isinstance(node.value, list):
            return [self.value(name, item) for item in node.items]
        if isinstance(node.value, dict) or node.value is None:
            kind = "a mapping" if node.value is not None else "nothing"
            self.problem(name, f"`{name}` has {kind} in its list.", "Lists hold numbers and texts.", node.line)
            return None
        if isinstance(node.value, float) and not math.isfinite(node.value):
            self.problem(name, f"`{name}` is `{node.raw}`, which is no number to compute with.", "", node.line)
            return None
        if name in ("head", "heads") and isinstance(node.value, int | float):
            self.problem(
                name,
                f"YAML reads the head `{node.raw}` as the number {node.value}.",
                "Write layer 17, head 10 as L17H10.",
                node.line,
            )
            return None
        self.uncut(name, node)
        return node.raw if name in _TEXTS and node.plain else node.value

    def expect(self) -> tuple[str, ...]:
        if "expect" not in self.entries:
            return ()
        node = self.entries["expect"][1]
        if not isinstance(node.value, list):
            self.problem(
                "expect", "`expect` has to be a list of claims.", "Write each on its own line: `  - loss < 0.01`."
            )
            return ()
        for number, item in enumerate(node.items):
            self.lines_of[f"expect.{number}"] = item.line
            if not isinstance(item.value, str):
                hint = "Write a sentence such as `- loss < 0.01`."
                self.problem("expect", "This claim is no sentence.", hint, item.line)
        return tuple(str(item.value) for item in node.items if isinstance(item.value, str))

    def sweep(self, fields: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
        if "sweep" not in self.entries:
            return {}
        node = self.entries["sweep"][1]
        if not isinstance(node.value, dict):
            self.problem(
                "sweep", "`sweep` has to name fields and their values.", "Write `sweep: {sparsity: [0, 0.9]}`."
            )
            return {}
        swept = {}
        for name, (key, values) in node.entries.items():
            self.lines_of[f"sweep.{name}"] = key.line
            if name in COMMON or name in fields:
                why = "is no field" if name in COMMON else "has a value of its own in this block"
                self.problem("sweep", f"`{name}` cannot be swept: it {why}.", "Take one of the two out.", key.line)
                continue
            swept[name] = self.swept(name, values)
        if math.prod(map(len, swept.values())) > MAX_POINTS:
            self.problem("sweep", f"This sweep has more than {MAX_POINTS} points.", "Sweep fewer values.")
            return {}
        return swept

    def swept(self, name: str, node: Node) -> tuple[Any, ...]:
        if isinstance(node.value, list) and node.items:
            return tuple(self.value(name, item) for item in node.items)
        try:
            return span(str(node.value))
        except ValueError as error:
            self.problem("sweep", f"`{name}`: {error}", 'Write a list, [0, 0.9], or a range, "0..9".', node.line)
            return ()
