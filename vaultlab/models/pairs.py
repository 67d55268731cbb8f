"""Pairs of prompts that differ in what a question is about and in nothing else, token by token.

One prompt says what the answer needs (clean), the other one says something else in its place (corrupt): “The capital of
France is”, “The capital of Italy is”. What one run has at a place is put into the other at the same place, so they have
to have as many tokens.
"""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models.induction import different
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, trace

LONGEST = 64
"""Tokens of a prompt: a grid grows with the square of them."""

MOST = 32
"""Pairs of one block."""


class Pair(NamedTuple):
    """Two prompts of as many tokens, and what is asked about: the logit of `answer` less that of `foil`."""

    clean: Int[Tensor, " pos"]
    corrupt: Int[Tensor, " pos"]
    answer: int
    foil: int

    @property
    def changed(self) -> Bool[Tensor, " pos"]:
        """Where the two differ."""
        return self.clean != self.corrupt


def read_pairs(
    model: Model,
    prompts: tuple[str, str],
    words: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
    bos: bool | None = None,
) -> list[Pair]:
    """`prompts`: clean and corrupt ones, one a line. `words`: answer and foil, one for all pairs or one for each; None
    is what the model answers to the clean prompt, and to the corrupt one.

    Raises NoteError where prompts do not lie token on token, in one pair or between pairs, and shows both; where they
    are the same; where answer and foil are.
    """
    clean, corrupt = ([line.strip() for line in text.splitlines() if line.strip()] for text in prompts)
    if not clean or len(clean) != len(corrupt):
        raise NoteError(
            f"`clean` has {_prompts(len(clean))}, `corrupt` has {_prompts(len(corrupt))}.",
            "Write one a line, each pair in the same line.",
            field="corrupt",
        )
    if len(clean) > MOST:
        raise NoteError(f"There are {len(clean)} pairs, and {MOST} are read at most.", "Take fewer.", field="clean")
    ids = [
        _laid_over(model, *(model.tokens(text, bos=bos).ids for text in both))
        for both in zip(clean, corrupt, strict=True)
    ]
    for one, _ in ids[1:]:
        if len(one) != len(ids[0][0]):
            raise NoteError(
                f"The pairs differ in length: {_shown(model, ids[0][0])} has {len(ids[0][0])} tokens, "
                f"{_shown(model, one)} has {len(one)}.",
                "Positions are compared across pairs: take prompts of one form, or a block each.",
                field="clean",
            )
    tokens = [
        _asked(model, "answer", words[0], [one for one, _ in ids]),
        _asked(model, "foil", words[1], [other for _, other in ids]),
    ]
    pairs = [
        Pair(clean_ids, corrupt_ids, answer, foil)
        for (clean_ids, corrupt_ids), answer, foil in zip(ids, *tokens, strict=True)
    ]
    for pair in pairs:
        if pair.answer == pair.foil:
            [word] = model.token_strings([pair.answer])
            raise NoteError(
                f"Answer and foil are the same token, {word}, to {_shown(model, pair.clean)}.",
                "Name an answer and a foil that the two prompts tell apart.",
                field="foil",
            )
    return pairs


def unrelated(model: Model, pair: Pair, draws: int, generator: torch.Generator) -> Int[Tensor, "draw pos"]:
    """The prompt with random tokens where the two differ: what a patch does that knows nothing of the answer."""
    rows = pair.clean.repeat(draws, 1)
    where = int(pair.changed.sum())
    rows[:, pair.changed] = different(model, draws * where, generator).view(draws, where)
    return rows


def _laid_over(model: Model, clean: Tensor, corrupt: Tensor) -> tuple[Tensor, Tensor]:
    if len(clean) != len(corrupt):
        raise NoteError(
            f"The two prompts have {len(clean)} and {len(corrupt)} tokens, and do not lie token on token. "
            f"Clean: {_marked(model, clean, corrupt)}. Corrupt: {_marked(model, corrupt, clean)}.",
            "Change words within the brackets until there are as many tokens in them.",
            field="corrupt",
        )
    if bool((clean == corrupt).all()):
        raise NoteError(
            f"The two prompts are the same: {_shown(model, clean)}.", "Change a word in one of them.", field="corrupt"
        )
    if len(clean) > LONGEST:
        raise NoteError(
            f"A prompt has {len(clean)} tokens, and {LONGEST} are read at most.", "Shorten it.", field="clean"
        )
    return clean, corrupt


def _marked(model: Model, ids: Tensor, other: Tensor) -> str:
    """The tokens apart, those in brackets that are not the other's."""
    said, names = "", model.token_strings(ids.tolist())
    for kind, start, end, _, _ in SequenceMatcher(None, ids.tolist(), other.tolist(), False).get_opcodes():
        piece = " ".join(names[start:end])
        said += f" {piece}" if kind == "equal" else f" [{piece}]"
    return said.strip()


def _shown(model: Model, ids: Tensor) -> str:
    return "“" + "".join(model.token_strings(ids.tolist())) + "”"


def _prompts(count: int) -> str:
    return "one prompt" if count == 1 else f"{count} prompts"


def _asked(model: Model, field: str, words: Sequence[str] | None, prompts: Sequence[Tensor]) -> list[int]:
    if words is None:
        logits = trace(model, torch.stack(list(prompts)), [Site("logits")])[Site("logits")]
        answers: list[int] = logits[:, -1].argmax(-1).tolist()
        return answers
    if len(words) not in (1, len(prompts)):
        raise NoteError(
            f"There are {len(words)} words for {len(prompts)} pairs.",
            "Name one for all of them, or one for each.",
            field=field,
        )
    try:
        tokens = [model.token_id(word) for word in words]
    except NoteError as error:
        raise NoteError(error.message, error.hint, field=field) from error
    return tokens * (len(prompts) if len(words) == 1 else 1)
