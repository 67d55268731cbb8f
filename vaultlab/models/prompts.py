"""Prompts, and what a model answers to them: its distribution over the next token behind each one's last."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models import parts
from vaultlab.models.intervene import Edit, intervene
from vaultlab.models.model import Model
from vaultlab.models.tokens import Template
from vaultlab.models.trace import Site, right_pad, trace


class Prompts(NamedTuple):
    """Texts of several lengths, padded on the right; `last` is where each one's last token stands."""

    texts: tuple[str, ...]
    ids: Int[Tensor, "prompt pos"]
    last: Int[Tensor, " prompt"]

    def some(self, which: Int[Tensor, " some"]) -> "Prompts":
        """These prompts, in this order."""
        last = self.last[which]
        texts = tuple(self.texts[at] for at in which.tolist())
        return Prompts(texts, self.ids[which, : max(last.tolist(), default=0) + 1], last)


def prompts(model: Model, texts: Sequence[str], *, bos: bool | None = None, template: Template = "none") -> Prompts:
    """The texts as the model reads them. NoteError as `Model.tokens`, and for one that is too long."""
    rows = [model.tokens(text, bos=bos, template=template).ids for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) > model.shape.context:
            raise NoteError(
                f"“{text[:40]}…” has {len(row)} tokens, and {model.name} reads at most {model.shape.context}.",
                "Shorten it.",
            )
    return Prompts(tuple(texts), right_pad(rows)[0], torch.tensor([len(row) - 1 for row in rows]))


def at_last(values: Float[Tensor, "prompt pos *of"], asked: Prompts) -> Float[Tensor, "prompt *of"]:
    """What stands at each prompt's last token."""
    rows: Tensor = values[torch.arange(len(values)), asked.last.to(values.device)]
    return rows


def contrast(
    model: Model, positive: Prompts, negative: Prompts, sites: Sequence[Site], batch: int = 32
) -> Float[Tensor, "site d_model"]:
    """The difference of the two sides' means at the last token, in float32 on the CPU.

    NoteError for a prompt of one token: the first is where attention rests, and its stream says nothing of what it is.
    """
    means = []
    for asked in (positive, negative):
        short = [text for text, last in zip(asked.texts, asked.last.tolist(), strict=True) if last == 0]
        if short:
            raise NoteError(
                f"`{short[0]}` is one token, the first, whose stream is a place to rest on and no direction's.",
                "Put words into a sentence: “The food was wonderful”.",
            )
        total = torch.zeros(len(sites), model.shape.d_model, dtype=torch.float64)
        for which in torch.split(torch.arange(len(asked.ids)), batch):
            some = asked.some(which)
            found = trace(model, some.ids, sites)
            total += torch.stack([at_last(found[site], some).double().cpu().sum(0) for site in sites])
        means.append(total / len(asked.ids))
    return (means[0] - means[1]).float()


def answers(
    model: Model, asked: Prompts, edits: Sequence[Edit] = (), batch: int = 32
) -> Float[Tensor, "prompt d_vocab"]:
    """log p of every token behind each prompt, in float32 on the CPU, from passes with these edits."""
    norm, unembedding = parts.final_norm(model), parts.unembedding(model)
    found = []
    for which in torch.split(torch.arange(len(asked.ids)), batch):
        some = asked.some(which)
        final = intervene(model, some.ids, edits, [Site("final")])[Site("final")]
        found.append(unembedding(norm(at_last(final, some))).float().log_softmax(-1).cpu())
    return torch.cat(found)


def rate(
    answer: Float[Tensor, "*of d_vocab"], words: Int[Tensor, " word"], foils: Int[Tensor, " foil"]
) -> Float[Tensor, "*of"]:
    """The probability of these words; with foils, its share of that of words and foils together."""
    own = answer[..., words].logsumexp(-1)
    if not len(foils):
        return own.exp()
    return (own - answer[..., foils].logsumexp(-1)).sigmoid()


def divergence(before: Float[Tensor, "*of d_vocab"], after: Float[Tensor, "*of d_vocab"]) -> Float[Tensor, "*of"]:
    """Kullback–Leibler divergence of one answer from another, in nats."""
    return (before.exp() * (before - after)).sum(-1)
