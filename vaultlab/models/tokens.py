"""Text to tokens and back, with the white space made visible."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from vaultlab.errors import NoteError

Template = Annotated[
    Literal["none", "chat"], Field(description="The text as it is, or as the user's turn in the model's chat template.")
]
"""A field of every Spec that offers the choice; a docstring below it would not be read."""

_VISIBLE = str.maketrans({" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"})


@dataclass(frozen=True)
class Tokens:
    """A text as a model reads it. `spans` are where each token stands in `text`, in characters; (0, 0) if added."""

    ids: Int[Tensor, " pos"]
    strings: tuple[str, ...]
    text: str
    spans: tuple[tuple[int, int], ...]


def tokenize(
    tokenizer: Any, text: str, *, bos: bool | None = None, template: Template = "none", system: str | None = None
) -> Tokens:
    """`bos`: None adds what the tokenizer adds by itself; True exactly one BOS, False none. `template: chat` makes the
    text the user's turn and ends where the model would answer.

    Raises NoteError where the text is empty, or the tokenizer has no BOS or no template.
    """
    if not text:
        raise NoteError("The text is empty.", "Give it at least one word.", field="text")
    if template == "chat":
        text, bos = _chat(tokenizer, text, system), False if bos is None else bos
    elif system is not None:
        raise NoteError("A `system` text has no place without a template.", "Add `template: chat`.", field="system")
    own = _encode(tokenizer, text, bos is None)
    ids, spans = list(own["input_ids"]), [(int(a), int(b)) for a, b in own["offset_mapping"]]
    if bos and ids[:1] != [_bos(tokenizer)]:
        ids, spans = [_bos(tokenizer), *ids], [(0, 0), *spans]
    return Tokens(torch.tensor(ids), strings(tokenizer, ids), text, tuple(spans))


def one_token(tokenizer: Any, word: str) -> int:
    """The id of a word that is one token, tried with a leading space first. Raises NoteError for what is not."""
    if not word:
        raise NoteError("A word is asked for, and there is none.", "Write one that is a single token.")
    tries = [word] if word.startswith(" ") else [" " + word, word]
    for text in tries:
        ids = _encode(tokenizer, text, False)["input_ids"]
        if len(ids) == 1:
            return int(ids[0])
    pieces = " ".join(strings(tokenizer, _encode(tokenizer, tries[0], False)["input_ids"]))
    raise NoteError(
        f"`{word}` is not one token of this model but several: {pieces}", "Take a shorter or more common word."
    )


def strings(tokenizer: Any, ids: list[int]) -> tuple[str, ...]:
    """Each token as it reads in the middle of a text: ` Paris` is `·Paris`, a line's end `↵`."""
    # A SentencePiece decoder drops the first token's space: decode each one behind another, then take that away.
    [anchor] = _encode(tokenizer, "a", False)["input_ids"][:1]
    before = len(_decode(tokenizer, [anchor]))
    shown = {i: _decode(tokenizer, [anchor, i])[before:].translate(_VISIBLE) for i in set(ids)}
    return tuple(shown[i] for i in ids)


def _encode(tokenizer: Any, text: str, special: bool) -> Any:
    return tokenizer(text, add_special_tokens=special, return_offsets_mapping=True, verbose=False)


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _bos(tokenizer: Any) -> int:
    if tokenizer.bos_token_id is None:
        raise NoteError("This model has no token that begins a text.", "Leave `bos` out.", field="bos")
    return int(tokenizer.bos_token_id)


def _chat(tokenizer: Any, text: str, system: str | None) -> str:
    if not tokenizer.chat_template:
        raise NoteError("This model has no chat template.", "Leave `template` out.", field="template")
    turns = [{"role": "system", "content": system}] if system is not None else []
    turns.append({"role": "user", "content": text})
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
