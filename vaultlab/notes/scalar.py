"""YAML 1.2's values: a node with its line and what the author typed, and what a plain scalar means. No time stamps."""

import re
from dataclasses import dataclass, field
from typing import Any

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(?:nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its 1-based line, its text as typed (scalars, wikilinks), and whether it was typed without quotes.

    `value` is a plain JSON value; `items` are a list's or a mapping's own nodes; `after` is a comment that cut a text.
    """

    value: Any
    line: int
    raw: str = ""
    plain: bool = False
    after: str = ""
    items: tuple["Node", ...] = ()
    entries: dict[str, tuple["Node", "Node"]] = field(default_factory=dict)


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema: `012` is 12, `on` and `22:30` are texts.

    >>> scalar("012"), scalar("1e-4"), scalar("on"), scalar("2024-01-01")
    (12, 0.0001, 'on', '2024-01-01')
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        # Beyond this Python refuses to convert at all, and no field counts that high.
        return int(text) if len(text) <= 300 else float(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float(special[1] + "inf") if special[2] else float("nan")
    return text
