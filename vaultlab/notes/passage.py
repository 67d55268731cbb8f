"""What a text field refers to, and the passage of a note that a reference names."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["literal", "this note", "note", "block", "folder", "vault", "python-help", "file"]


@dataclass(frozen=True, slots=True)
class Reference:
    """A text value, understood. `path`: the note or folder (empty: this note); `fragment`: a heading or `^block`."""

    kind: Kind
    path: str = ""
    fragment: str = ""


def classify(value: str) -> Reference:
    """What a text value means: itself, or where a text stands."""
    raise NotImplementedError


def body(text: str) -> str:
    """A note's text without its frontmatter."""
    raise NotImplementedError


def passage(text: str, fragment: str) -> str:
    """The paragraphs and list items under a heading, or the block with `^id`. NoteError naming the nearest if none."""
    raise NotImplementedError


def nearest(name: str, names: list[str]) -> str | None:
    """The name of the list that is most like this one, for "did you mean"."""
    raise NotImplementedError
