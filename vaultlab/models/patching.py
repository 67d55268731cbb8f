"""What another prompt's activations do in a run, place by place: many places as one batch, resumed from their layer.

A run reads one prompt, the base; another prompt's activations, the donor's, are put into it at some places. A patch of
a layer leaves everything under it as it was, so the layers under it are not run again, and a patch at each position, or
of each head, is a row of one batch. After Meng et al. 2022 and Wang et al. 2022.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models import parts
from vaultlab.models.family import Shape
from vaultlab.models.intervene import OF_HEADS, Edit, Since, intervene
from vaultlab.models.model import Model
from vaultlab.models.pairs import Pair
from vaultlab.models.trace import Site, SiteName, trace

Places = Bool[Tensor, " place"]


class Patch(NamedTuple):
    """One run: of the donor with this number these sites of one layer, at these positions, of these query heads."""

    names: tuple[SiteName, ...]
    positions: Places
    heads: Places
    donor: int = 0


class Question(NamedTuple):
    """The logit of one token less that of another, as what reads it from the last stream."""

    u: Float[Tensor, " d_model"]
    b: Float[Tensor, ""]

    def read(self, model: Model, final: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """The difference in nats; the final norm recomputed."""
        return parts.final_norm(model)(final).float() @ self.u + self.b


def question(model: Model, pair: Pair) -> Question:
    """What a pair asks about."""
    unembedding = parts.unembedding(model)
    u = unembedding.W_U[:, pair.answer].float() - unembedding.W_U[:, pair.foil].float()
    return Question(u, unembedding.b_U[pair.answer].float() - unembedding.b_U[pair.foil].float())


def columns(shape: Shape, name: SiteName) -> int:
    """How many heads a site has: keys and values that heads share are one."""
    return shape.kv_heads if name in ("k", "v") else shape.heads


def heads_of(shape: Shape, name: SiteName, column: int) -> Places:
    """The query heads of a column: of a shared key or value all that read it, h // (heads per group)."""
    group = shape.heads // columns(shape, name)
    return torch.arange(shape.heads) // group == column


@dataclass(frozen=True)
class Patching:
    """A base run and its donors. `streams` are the base's, where they enter each layer; `donated` what the donors have.

    `found` is the base's answer, `given` the donors': the question's nats.
    """

    model: Model
    base: Int[Tensor, " pos"]
    question: Question
    streams: Float[Tensor, "layer pos d_model"]
    donated: dict[Site, Tensor]
    found: Float[Tensor, ""]
    given: Float[Tensor, " donor"]
    batch: int

    @property
    def length(self) -> int:
        """How many tokens the prompts have."""
        return len(self.base)

    def everywhere(self) -> Places:
        """All positions."""
        return torch.ones(self.length, dtype=torch.bool)

    def all_heads(self) -> Places:
        """All query heads."""
        return torch.ones(self.model.shape.heads, dtype=torch.bool)

    def at_each(self, name: SiteName, donor: int = 0) -> list[Patch]:
        """A patch at each position by itself, of all heads where the site has any."""
        return [
            Patch((name,), place, self.all_heads(), donor)
            for place in torch.eye(self.length, dtype=torch.bool).unbind()
        ]

    def of_each(self, name: SiteName, donor: int = 0) -> list[Patch]:
        """A patch of each head by itself, or of each shared key or value, at all positions."""
        shape = self.model.shape
        return [
            Patch((name,), self.everywhere(), heads_of(shape, name, column), donor)
            for column in range(columns(shape, name))
        ]

    def moved(self, layer: int, patches: Sequence[Patch], resumed: bool = True) -> Float[Tensor, " patch"]:
        """How far each patch of this layer moves the answer, in nats; `resumed`: the layers under it not run again."""
        rows = [list(patches[start : start + self.batch]) for start in range(0, len(patches), self.batch)]
        return torch.cat([self._run(layer, some, resumed) for some in rows]) - self.found

    def _run(self, layer: int, patches: list[Patch], resumed: bool) -> Float[Tensor, " patch"]:
        since = Since(layer, self.streams[layer][None]) if resumed else None
        ids, final = self.base.repeat(len(patches), 1), Site("final")
        stream = intervene(self.model, ids, list(self._edits(layer, patches)), [final], since)[final]
        return self.question.read(self.model, stream[:, -1]).cpu()

    def _edits(self, layer: int, patches: list[Patch]) -> Iterator[Edit]:
        """One edit a site; rows that are not patched there have no position in it."""
        donors = torch.tensor([patch.donor for patch in patches])
        for name in dict.fromkeys(name for patch in patches for name in patch.names):
            positions = torch.stack([patch.positions & (name in patch.names) for patch in patches])
            heads = torch.stack([patch.heads for patch in patches]) if name in OF_HEADS else None
            given = self.donated[Site(name, layer)]
            yield Edit(Site(name, layer), partial(_instead, given[donors.to(given.device)]), positions, heads)


def _instead(put: Tensor, _: Tensor) -> Tensor:
    return put


def patching(
    model: Model,
    base: Int[Tensor, " pos"],
    donors: Int[Tensor, "donor pos"],
    asked: Question,
    names: Sequence[SiteName],
    batch: int,
) -> Patching:
    """Read the base and its donors once, at these sites of all layers."""
    layers = range(model.shape.layers)
    streams = [Site("resid_pre", layer) for layer in layers]
    sites = [Site(name, layer) for name in names for layer in layers]
    found = trace(model, torch.cat([base[None], donors]), [*streams, *sites, Site("final")])
    nats = asked.read(model, found[Site("final")][:, -1]).cpu()
    return Patching(
        model,
        base,
        asked,
        torch.stack([found[site][0] for site in streams]),
        {site: found[site][1:] for site in sites},
        nats[0],
        nats[1:],
        batch,
    )
