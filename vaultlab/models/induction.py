"""Random tokens that come twice, and what heads do with them.

A text is what begins texts, or one random token, then a stretch of random tokens, then the same stretch again. With
`start` tokens before it and a stretch of `period`, token i ≥ start + period stood at i − period before.

    previous token     A[i, i − 1]
    duplicate token    A[i, i − period]            the same token, where it stood before
    induction          A[i, i − period + 1]        the token that followed it there

The tokens of a stretch are all different, so that each has one place where it stood. After Olsson et al. 2022,
In-context Learning and Induction Heads.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models.model import Model
from vaultlab.models.sentences import lead

KINDS = ("previous_token", "duplicate_token", "induction")


class Repeated(NamedTuple):
    """Texts that repeat, or as a control do not, laid out alike."""

    ids: Int[Tensor, "text pos"]
    start: int
    period: int


def repeated(
    model: Model, texts: int, period: int, generator: torch.Generator, *, bos: bool | None = None, again: bool = True
) -> Repeated:
    """Texts of random tokens, position 0 before the stretch. `again`: whether the second stretch is the first, or drawn
    anew. Tokens that are special, or that nothing can be seen of, are not drawn.

    Raises NoteError where the model reads no text so long, or has too few tokens.
    """
    before = lead(model, bos)
    start = max(1, len(before))
    length = start + 2 * period
    if length > model.shape.context:
        most = (model.shape.context - start) // 2
        raise NoteError(
            f"A stretch of {period} tokens and the same again are {length}, and {model.name} reads at most "
            f"{model.shape.context}.",
            f"Write `period: {most}` or less.",
            field="period",
        )
    drawn = start - len(before) + (period if again else 2 * period)
    rows = []
    for _ in range(texts):
        tokens = different(model, drawn, generator)
        stretch = tokens[-period:] if again else tokens[:0]
        rows.append(torch.cat([before, tokens, stretch]))
    return Repeated(torch.stack(rows), start, period)


def different(model: Model, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Random tokens, none twice, none special, and each one to be seen. NoteError where there are not so many."""
    order = torch.randperm(min(model.shape.d_vocab, len(model.tokenizer)), generator=generator)
    hidden = {*model.tokenizer.all_special_ids, *model.tokenizer.added_tokens_decoder}
    kept: list[int] = []
    for id in order.tolist():
        if len(kept) == count:
            return torch.tensor(kept)
        if id not in hidden and _seen(model.tokenizer, id):
            kept.append(id)
    raise NoteError(
        f"{model.name} has {len(kept)} tokens that can be seen, and {count} different ones are asked for.",
        "Take a smaller `period`.",
        field="period",
    )


def _seen(tokenizer: Any, id: int) -> bool:
    """Whether a token alone is something to be seen: no white space, no control character, no piece of a character."""
    word = tokenizer.decode([id])
    return bool(word.strip()) and word.isprintable() and "\ufffd" not in word


def scores(A: Float[Tensor, "text head query key"], start: int, period: int) -> Float[Tensor, "kind text head"]:
    """The three of `KINDS`, mean over positions; of the previous token over the whole text, of the others over the
    second stretch. What stands before the stretch is neither asked nor found."""
    previous, duplicate, induction = (A.diagonal(-back, 2, 3) for back in (1, period, period - 1))
    kept = previous[..., start:], duplicate[..., start:], induction[..., start + 1 :]
    return torch.stack([each.float().mean(-1) for each in kept])


def by_content(
    A: Float[Tensor, "head query key"], ids: Int[Tensor, " pos"], start: int, period: int
) -> Float[Tensor, "kind head"]:
    """Duplicate-token and induction scores found by what the tokens are, and not by where they stand."""
    visible = torch.ones(len(ids), len(ids), dtype=torch.bool, device=ids.device).tril(-1)
    visible[:, :start] = False
    same = (ids[:, None] == ids) & visible
    behind = torch.zeros_like(same)
    behind[:, 1:] = same[:, :-1]
    rows = slice(start + period, None)
    return torch.stack([(A * mask.to(A))[:, rows].sum((1, 2)).float() / period for mask in (same, behind)])


def uniform(length: int, start: int, period: int) -> Float[Tensor, " kind"]:
    """What uniform attention over all that is visible would score."""
    A = torch.ones(length, length, dtype=torch.float64).tril() / torch.arange(1, length + 1)[:, None]
    return scores(A[None, None], start, period)[:, 0, 0]


def halves(text: Repeated) -> tuple[Bool[Tensor, " before"], Bool[Tensor, " before"]]:
    """Which tokens, of all but a text's first, count in the first stretch and which in the second.

    Not the first of each: nothing foretells it, nor that the stretch begins again.
    """
    place = torch.arange(1, text.ids.shape[1]) - text.start
    return (place > 0) & (place < text.period), place > text.period


def interval(values: Float[Tensor, " text"], generator: torch.Generator, times: int = 2000) -> tuple[float, float]:
    """95 % of the mean, from a bootstrap over texts."""
    picked = torch.randint(len(values), (times, len(values)), generator=generator)
    low, high = values.double()[picked].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
