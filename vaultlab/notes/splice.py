"""The one line that goes into an author's note: an embed under its block. Nothing else in the house writes there."""

from dataclasses import dataclass

from vaultlab.notes.note import Block


@dataclass(frozen=True, slots=True)
class Edit:
    """`insert` goes in at `offset`, counted in characters of the note's text."""

    offset: int
    insert: str


def splice(text: str, block: Block, id: str, folder: str = "vaultlab") -> Edit | None:
    """Where the embed of `id` goes; None where the note embeds it, or a figure of it, already."""
    raise NotImplementedError


def apply(text: str, edit: Edit) -> str:
    """The note with the edit made."""
    return text[: edit.offset] + edit.insert + text[edit.offset :]
