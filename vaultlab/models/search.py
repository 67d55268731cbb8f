"""The strongest triggers of every memory of a model over a text: all layers in one pass, streamed, shared, resumable.

Memory grows with the model's memories and hardly with the text: of each token its number, what comes next and the final
norm's scale are kept. What is found is stored once per model and text; a run that was killed goes on where it was.

Source: Geva et al. (2021), "Transformer Feed-Forward Layers Are Key-Value Memories", section 3,
https://aclanthology.org/2021.emnlp-main.446
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab import models
from vaultlab.errors import NoteError
from vaultlab.models import parts
from vaultlab.models.family import Shape
from vaultlab.models.memories import Promoted, Strongest, Triggers, promoted
from vaultlab.models.model import Model
from vaultlab.models.sentences import TYPICAL, Batch, Sentences, batch_of, batches, cut
from vaultlab.models.shared import Keep, Shared
from vaultlab.models.trace import Site, SiteName, Touch, sinks, trace
from vaultlab.result import Text

KEPT = 32
"""Triggers kept for every memory: whoever asks for fewer finds them among these."""


SHUFFLES = 4
"""Other memories whose next token each value is asked about, for what chance would give."""


class Desk(Protocol):
    """What of a Bench a search works with."""

    @property
    def batch(self) -> int: ...
    @property
    def shared(self) -> Shared: ...
    def generator(self, *entropy: int | str) -> torch.Generator: ...
    def progress(self, done: int, total: int, phase: str = ...) -> None: ...


@dataclass(frozen=True)
class Corpus:
    """A text as a model reads it: at most `tokens` of it, every sentence begun as `Model.tokens` does with `bos`."""

    model: Model
    text: Text
    tokens: int
    bos: bool | None = None

    def what(self, of: str, **more: int) -> dict[str, int | str | None]:
        """What is asked for of it, as `Shared` wants to know it."""
        content = {"model": self.model.sha256, "text": self.text.sha256}
        return {"of": of, "version": models.VERSION, **content, "tokens": self.tokens, "bos": self.bos, **more}


class Search(NamedTuple):
    """Of every memory its strongest tokens by |m|, at most one a sentence, in no order; once `read` is all sentences.

    `ids` to `part` are the text's (`Sentences`), `at` a token's number there, −1 with a coefficient of 0 where a memory
    has fewer. `total` is Σ |m| over all tokens looked at; `sinks` are (layer, token) of those left out as sinks;
    `scale` is the final norm's at every token. `residual`: how far the strengths of each layer move when one batch is
    looked at directly, sentence by sentence, as a share of a memory's strongest.
    """

    read: int
    ids: Int[Tensor, " token"]
    next: Int[Tensor, " token"]
    start: Int[Tensor, " sentence"]
    stop: Int[Tensor, " sentence"]
    lead: Int[Tensor, " lead"]
    part: Int[Tensor, " sentence"]
    coefficient: Float[Tensor, "layer key top"]
    at: Int[Tensor, "layer key top"]
    total: Float[Tensor, "layer key"]
    scale: Float[Tensor, " token"]
    sinks: Int[Tensor, "sink 2"]
    residual: Float[Tensor, " layer"]

    @property
    def sentences(self) -> Sentences:
        """The text that was read."""
        return Sentences(self.ids, self.next, self.start, self.stop, self.lead, self.part)

    def triggers(self, model: Model, layer: int, keys: slice, top: int) -> Triggers:
        """Some memories of a layer, strongest first; of two that are as strong the one that comes first in the text."""
        coefficient, at = self.coefficient[layer, keys], self.at[layer, keys].long()
        order = at.argsort(dim=1, stable=True)
        order = order.gather(1, coefficient.gather(1, order).abs().argsort(dim=1, descending=True, stable=True))
        coefficient, at = (values.gather(1, order)[:, :top].contiguous() for values in (coefficient, at))
        sentences, size = self.sentences, model.shape.d_vocab
        may = askable(model, sentences)
        massive = self.sinks[self.sinks[:, 0] == layer, 1]
        may[massive] = False
        return Triggers(
            coefficient,
            at,
            self.next[at.clamp(min=0)].masked_fill(at < 0, -1),
            self.total[layer, keys],
            int(may.sum()),
            torch.bincount(self.ids[massive], minlength=size),
            torch.bincount(self.next[may], minlength=size),
        )


def askable(model: Model, sentences: Sentences) -> Bool[Tensor, " token"]:
    """No trigger is: position 0, a special token, a token with none or a special one behind it; nor, to be found layer
    by layer, a sink."""
    none = torch.tensor([-1, *model.tokenizer.all_special_ids])
    may = ~torch.isin(sentences.ids, none) & ~torch.isin(sentences.next, none)
    if not len(sentences.lead):
        may[sentences.start] = False
    return may


def searched(desk: Desk, corpus: Corpus) -> Search:
    """The whole search: from where it is shared, else one pass over the text. NoteError where there is no text."""
    return desk.shared(corpus.what("triggers"), Search, partial(_search, desk, corpus))


@torch.inference_mode()
def _search(desk: Desk, corpus: Corpus, begun: Search | None, keep: Keep[Search]) -> Search:
    model = corpus.model
    if begun is None:
        sentences = cut(model, [part for _, part in corpus.text.parts], corpus.tokens, corpus.bos)
        if not len(sentences):
            raise NoteError("There is nothing to read in this text.", "Give it some sentences.", field="text")
        begun = _nothing(model, sentences)
    stream = Stream(model, begun)
    for batch in batches(begun.sentences, desk.batch, begun.read):
        desk.progress(stream.done, len(begun.ids), "reading the text")
        stream.add(batch)
        keep(stream.found)
    desk.progress(stream.done, len(begun.ids), "reading a batch again")
    found = stream.found()
    return found._replace(residual=_residual(model, found, desk.batch))


def _nothing(model: Model, text: Sentences) -> Search:
    layers, keys = model.shape.layers, model.shape.d_mlp
    wide = torch.promote_types(model.dtype, torch.float32)
    return Search(
        0,
        text.ids,
        text.next,
        text.start,
        text.stop,
        text.lead,
        text.part,
        torch.zeros(layers, keys, KEPT, dtype=wide),
        torch.full((layers, keys, KEPT), -1, dtype=torch.int32),
        torch.zeros(layers, keys, dtype=wide),
        torch.zeros(len(text.ids), dtype=wide),
        torch.zeros(0, 2, dtype=torch.long),
        torch.full((layers,), torch.nan),
    )


class Stream:
    """A search under way, on the model's device."""

    def __init__(self, model: Model, begun: Search) -> None:
        self.model = model
        self._begun = begun
        self._read = begun.read
        rows = zip(begun.coefficient, begun.at, begun.total, strict=True)
        self._strongest = [Strongest(*(one.to(model.device, copy=True) for one in row)) for row in rows]
        self._scale = begun.scale.to(model.device, copy=True)
        self._sinks = [begun.sinks]
        self._may = askable(model, begun.sentences)

    @property
    def done(self) -> int:
        """Tokens read so far."""
        length = (self._begun.stop - self._begun.start).sort(descending=True).values
        return int(length[: self._read].sum())

    def add(self, batch: Batch) -> None:
        """Take in a batch."""
        at, norm = batch.at.to(self.model.device), parts.final_norm(self.model)

        def see(layer: int, m: Tensor, ask: Tensor, massive: Tensor) -> None:
            self._strongest[layer].add(m, ask, at)
            if massive.any():
                tokens = at[massive].cpu()
                self._sinks.append(torch.stack([torch.full_like(tokens, layer), tokens], dim=1))

        own = at >= 0
        final = look(self.model, batch, self._may, see)
        self._scale[at[own]] = norm.scale(final)[..., 0][own].to(self._scale)
        self._read += len(batch.sentence)

    def found(self) -> Search:
        """What there is so far, on the CPU."""
        best, at, total = (
            torch.stack(values).cpu()
            for values in zip(*((one.coefficient, one.at, one.total) for one in self._strongest), strict=True)
        )
        return self._begun._replace(
            read=self._read,
            coefficient=best,
            at=at,
            total=total,
            scale=self._scale.cpu().clone(),
            sinks=torch.cat(self._sinks),
        )


def look(
    model: Model, batch: Batch, may: Bool[Tensor, " token"], see: Callable[[int, Tensor, Tensor, Tensor], None]
) -> Float[Tensor, "batch pos d_model"]:
    """One pass over a batch → the last stream. `see` is shown every layer's coefficients, which tokens may be triggers,
    and which of the others are sinks: massive among the batch's tokens, in the stream that the MLP reads. One layer's
    are held at a time.
    """
    own = ((batch.at >= 0) & may[batch.at.clamp(min=0)]).to(model.device)
    real, massive = batch.real.to(model.device), torch.zeros_like(own)
    stream: SiteName = "resid_pre" if "parallel" in model.shape.flags else "resid_mid"

    def norms(value: Tensor) -> Tensor:
        massive.copy_(sinks(value, real) & real)
        return value

    def coefficients(layer: int, value: Tensor) -> Tensor:
        see(layer, value, own & ~massive, own & massive)
        return value

    touches: list[tuple[Site, Touch]] = []
    for layer in range(model.shape.layers):
        touches += [(Site(stream, layer), norms), (Site("m", layer), partial(coefficients, layer))]
    return trace(model, batch.ids, [Site("final")], touches)[Site("final")]


@torch.inference_mode()
def _residual(model: Model, found: Search, size: int) -> Float[Tensor, " layer"]:
    """One batch is taken out of what the stream found, and put in again from a plain look at each of its sentences."""
    sentences = found.sentences
    every = list(batches(sentences, size))
    batch = every[len(every) // 2]
    residual = torch.zeros_like(found.residual)

    def see(layer: int, m: Tensor, ask: Tensor, massive: Tensor) -> None:
        wide = m.to(found.coefficient)
        direct = torch.stack(
            [
                one[asked].abs().amax(0) if asked.any() else torch.zeros_like(one[0])
                for one, asked in zip(wide, ask.cpu(), strict=True)
            ]
        )
        strength, at = found.coefficient[layer].abs(), found.at[layer].long()
        inside = torch.isin(sentences.holding(at.clamp(min=0)), batch.sentence) & (at >= 0)
        again = torch.cat([strength.masked_fill(inside, 0), direct.T], dim=1).topk(KEPT, dim=1).values
        apart = (again - strength.sort(dim=1, descending=True).values).abs().amax(1)
        residual[layer] = (apart / strength.amax(1).clamp(min=1e-30)).max()

    look(model, batch_of(sentences, batch.sentence), askable(model, sentences), see)
    return residual


class SearchNeeds(NamedTuple):
    """What a search takes: bytes, and seconds at 20 GFLOP/s, as on two cores."""

    bytes: int
    seconds: float


def search_needs(shape: Shape, tokens: int, copies: int = 1) -> SearchNeeds:
    """The weights, `copies` of them; what is kept of every memory, three times while it is written; one batch at one
    layer, and its stream."""
    kept = 3 * shape.layers * shape.d_mlp * KEPT * 8
    batch = 32 * TYPICAL * (5 * shape.d_mlp + 8 * shape.d_model) * 4
    blocks = shape.parameters - (1 if shape.tied else 2) * shape.d_vocab * shape.d_model
    return SearchNeeds(copies * shape.bytes + kept + batch + 40 * tokens, 2.4 * (tokens + 32 * TYPICAL) * blocks / 20e9)


def asked(found: Triggers, generator: torch.Generator) -> Int[Tensor, "key asked"]:
    """What came next after each memory's strongest trigger, then what came next after those of others."""
    came = found.next[:, 0]
    others = came[came >= 0]
    others = others[torch.randint(len(others), (len(came), SHUFFLES), generator=generator)]
    return torch.cat([came[:, None].clamp(min=0), others], dim=1)


def values(desk: Desk, corpus: Corpus, found: Triggers, layer: int, seed: int) -> Promoted:
    """A whole layer's values as tokens, `asked` about with draws by the seed: shared by all that ask with the same."""

    def work(begun: Promoted | None, keep: Keep[Promoted]) -> Promoted:
        came = asked(found, desk.generator("chance", seed))
        progress = partial(desk.progress, phase=f"reading the values of layer {layer} as tokens")
        return promoted(corpus.model, layer, slice(None), found.coefficient[:, 0].sign(), came, progress)

    return desk.shared(corpus.what("values", layer=layer, seed=seed), Promoted, work)
