"""A model in memory, ready to run. How it comes there is `load`'s, which alone knows transformers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vaultlab.models.family import Family, Shape
from vaultlab.models.tokens import Template, Tokens, one_token, strings, tokenize


@dataclass(frozen=True, eq=False)
class Model:
    """A transformers model, ready to run: in evaluation mode, without gradients. `sha256` is its content's."""

    name: str
    sha256: str
    dtype: torch.dtype
    shape: Shape
    net: nn.Module
    tokenizer: Any
    family: Family

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.net.parameters()).device

    def tokens(
        self, text: str, *, bos: bool | None = None, template: Template = "none", system: str | None = None
    ) -> Tokens:
        """The text as this model reads it; see `tokens.tokenize`. Ids are on the CPU."""
        return tokenize(self.tokenizer, text, bos=bos, template=template, system=system)

    def token_id(self, word: str) -> int:
        """The id of a word that is one token, tried with a leading space first. Raises NoteError for what is not."""
        return one_token(self.tokenizer, word)

    def token_strings(self, ids: list[int]) -> tuple[str, ...]:
        """Tokens with their white space visible: `·Paris`, `↵`."""
        return strings(self.tokenizer, ids)
