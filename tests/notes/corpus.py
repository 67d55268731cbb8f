"""Reads the cases of tests/notes/cases/: see the README there."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"
_VISIBLE = {"␉": "\t", "␍\n": "\r\n", "␡": "\ufeff", "␇": "\a", "␤": "\u2028", "␄\n": ""}


@dataclass(frozen=True)
class Case:
    title: str
    note: str
    expected: dict[str, Any]
    after: str | None


def cases() -> Iterator[Case]:
    for path in sorted(CASES.glob("*.md")):
        if path.name != "README.md":
            yield from _read(path)


def _read(path: Path) -> Iterator[Case]:
    lines = iter(path.read_bytes().decode().split("\n"))
    for line in lines:
        if not line.startswith("## "):
            continue
        assert next(lines) == ".", line
        note, expected, after = _part(lines), _part(lines), None
        first = next(lines, "")
        if first:
            after = _part(iter([first, *_until_dot(lines), "."]))
        yield Case(f"{path.stem}: {line[3:]}", _plain(note), json.loads(expected), after and _plain(after))


def _until_dot(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line == ".":
            return
        yield line
    raise AssertionError("a case that does not end")


def _part(lines: Iterator[str]) -> str:
    return "".join(f"{line}\n" for line in _until_dot(lines))


def _plain(text: str) -> str:
    for mark, meant in _VISIBLE.items():
        text = text.replace(mark, meant)
    return text
