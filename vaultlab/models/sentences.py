"""A text as a model reads it in many short pieces: cut into sentences, packed into batches by length."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from vaultlab.models.model import Model
from vaultlab.models.trace import right_pad

LONGEST = 128
"""Tokens: a longer sentence (a table, a listing) is read in pieces."""

TYPICAL = 32
"""Tokens in a sentence, for the size of batches: a batch of long ones would take many times as long as the others."""

_END = re.compile(r"""[.!?]["'”’)\]*_]*\s+(?![a-z])|\n[ \t]*\n\s*""")
"""A sentence ends at its full stop, ? or !, unless a small letter follows (e.g. here), and at an empty line."""

_CHARACTERS = 20
"""A token seldom has more: of a long text no more than what is going to be read is tokenized."""


@dataclass(frozen=True)
class Sentences:
    """All that is read of a text. Tokens are counted through it; sentence i is `ids[start[i]:stop[i]]`.

    `next` is the token that follows each in its part of the text, −1 behind a part's last. `lead` stands before every
    sentence when the model reads it: the token that begins texts, or nothing.
    """

    ids: Int[Tensor, " token"]
    next: Int[Tensor, " token"]
    start: Int[Tensor, " sentence"]
    stop: Int[Tensor, " sentence"]
    lead: Int[Tensor, " lead"]
    part: Int[Tensor, " sentence"]

    def __len__(self) -> int:
        return len(self.start)

    def holding(self, at: Int[Tensor, "*tokens"]) -> Int[Tensor, "*tokens"]:
        """The sentences in which tokens stand."""
        return torch.searchsorted(self.stop, at.contiguous(), right=True)

    def up_to(self, at: Int[Tensor, " prefix"]) -> "Sentences":
        """The sentences in which tokens stand, each cut off behind its token."""
        home = self.holding(at)
        return replace(self, start=self.start[home], stop=at + 1, part=self.part[home])


class Batch(NamedTuple):
    """Sentences padded on the right. `real` are their own tokens; `at` is each token's number in the text, −1 if none.

    `following` is the token after each: in its own row, and behind the row's end in the text; −1 if there is none.
    """

    sentence: Int[Tensor, " batch"]
    ids: Int[Tensor, "batch pos"]
    following: Int[Tensor, "batch pos"]
    at: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]


def cut(model: Model, texts: Sequence[str], tokens: int, bos: bool | None = None) -> Sentences:
    """The first `tokens` tokens of a text's parts, sentence by sentence; one that comes again, token for token, is left
    out. A sentence never goes over from one part to the next. `bos` as for `Model.tokens`, for every sentence.
    """
    before = lead(model, bos)
    longest = min(LONGEST, model.shape.context) - len(before)
    ids, following, starts, stops, parts = [], [], [], [], []
    seen: set[bytes] = set()
    done = 0
    for number, text in enumerate(texts):
        if done >= tokens:
            break
        if not text.strip():
            continue
        part = model.tokens(text[: _CHARACTERS * (tokens - done)], bos=False)
        after = torch.cat([part.ids[1:], torch.tensor([-1])])
        for first, last in _bounds(part.text, part.spans, longest):
            last = min(last, first + tokens - done)
            content = part.ids[first:last].numpy().tobytes()
            if last <= first or content in seen:
                continue
            seen.add(content)
            ids.append(part.ids[first:last])
            following.append(after[first:last])
            starts.append(done)
            done += last - first
            stops.append(done)
            parts.append(number)
    none = torch.zeros(0, dtype=torch.long)
    return Sentences(
        torch.cat([none, *ids]),
        torch.cat([none, *following]),
        torch.tensor(starts, dtype=torch.long),
        torch.tensor(stops, dtype=torch.long),
        before,
        torch.tensor(parts, dtype=torch.long),
    )


def lead(model: Model, bos: bool | None) -> Int[Tensor, " lead"]:
    """What stands before every text: the token that begins texts, or nothing. `bos` as for `Model.tokens`."""
    whole, bare = model.tokens("a", bos=bos).ids, model.tokens("a", bos=False).ids
    return whole[: int((whole == bare[0]).nonzero()[0])]


def _bounds(text: str, spans: Sequence[tuple[int, int]], longest: int) -> Iterator[tuple[int, int]]:
    """Where sentences begin and end, in tokens. A token belongs to the sentence in which its last character stands."""
    ends = torch.tensor([end for _, end in spans])
    cuts = torch.searchsorted(ends, torch.tensor([match.end() for match in _END.finditer(text)]), right=True)
    edges = sorted({0, *cuts.tolist(), len(ends)})
    for first, last in pairwise(edges):
        for start in range(first, last, longest):
            yield start, min(start + longest, last)


def batches(sentences: Sentences, size: int, done: int = 0) -> Iterator[Batch]:
    """All sentences but the first `done`, at most `size` at once, and of long ones fewer: at most TYPICAL × `size`
    tokens. The longest come first: where memory is short, it shows at once."""
    length = sentences.stop - sentences.start
    order = length.argsort(descending=True, stable=True)
    while done < len(order):
        longest = int(length[order[done]]) + len(sentences.lead)
        members = order[done : done + max(1, min(size, TYPICAL * size // longest))]
        yield batch_of(sentences, members)
        done += len(members)


def batch_of(sentences: Sentences, members: Int[Tensor, " batch"]) -> Batch:
    """These sentences as one batch, in this order."""
    spans = list(zip(sentences.start[members].tolist(), sentences.stop[members].tolist(), strict=True))
    rows = [torch.cat([sentences.lead, sentences.ids[a:b], sentences.next[b - 1 : b]]) for a, b in spans]
    padded, there = right_pad(rows)
    ids, following = padded[:, :-1], padded[:, 1:]
    before = torch.full((len(sentences.lead),), -1)
    at, real = right_pad([torch.cat([before, torch.arange(a, b)]) for a, b in spans])
    return Batch(
        members, ids.masked_fill(~real, 0), following.masked_fill(~there[:, 1:], -1), at.masked_fill(~real, -1), real
    )
