"""Words in templates, read in batches: what stands at each prompt's last token, at every layer asked for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.errors import NoteError
from vaultlab.models.model import Model
from vaultlab.models.trace import Site, Trace, right_pad, sinks

SLOT = "{}"
"""Where a word goes in a template."""


class Read(NamedTuple):
    """`x` is the stream at each prompt's last token, in float64 on the CPU; `massive` where that token is a sink."""

    x: Float[Tensor, "prompt layer d_model"]
    massive: Bool[Tensor, "prompt layer"]


def filled(templates: Sequence[str], words: Sequence[str], field: str = "templates") -> list[list[str]]:
    """Every word in every template: a row a word. NoteError for a template that has no place for one, or several."""
    wrong = [one for one in templates if one.count(SLOT) != 1]
    if wrong:
        said = "has no place for a word" if SLOT not in wrong[0] else "has more than one place for a word"
        raise NoteError(f"The template `{wrong[0]}` {said}.", f"Write `{SLOT}` where it goes, once.", field=field)
    return [[template.replace(SLOT, word) for template in templates] for word in words]


def read_last(
    model: Model,
    prompts: Sequence[Int[Tensor, " pos"]],
    sites: Sequence[Site],
    trace: Trace,
    batch: int,
    progress: Callable[[int, int], None],
) -> Read:
    """One pass over all prompts, the short ones first, so that little is padded. `sites` are all of one name."""
    lengths = torch.tensor([len(ids) for ids in prompts])
    order = lengths.argsort(stable=True)
    x = torch.empty(len(prompts), len(sites), model.shape.d_model, dtype=torch.float64)
    massive = torch.empty(len(prompts), len(sites), dtype=torch.bool)
    for start in range(0, len(order), batch):
        progress(start, len(order))
        rows = order[start : start + batch]
        ids, real = right_pad([prompts[row] for row in rows.tolist()])
        found = trace(model, ids, sites)
        last, here = lengths[rows] - 1, torch.arange(len(rows))
        for layer, site in enumerate(sites):
            stream = found[site]
            x[rows, layer] = stream[here, last].double().cpu()
            massive[rows, layer] = sinks(stream, real.to(stream.device)).cpu()[here, last]
    return Read(x, massive)
