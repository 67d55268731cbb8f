"""One forward pass in which something else stands at some sites: the means of ablation, patching and steering."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vaultlab.models.model import Model
from vaultlab.models.trace import Site, Touch, trace

OF_HEADS = ("q", "k", "v", "z", "pattern")
"""Sites at which every head has its own."""


class Edit(NamedTuple):
    """`change(value)` in the place of what stands at `site`.

    `change` is given all of it ([batch pos width], [batch pos head d_head] of q, k, v and z, [batch head query key] of
    a pattern) and gives back what broadcasts to that. It counts at these `positions` (of a pattern: queries) of these
    `heads`, None being all. Both may differ from row to row: one batch holds as many interventions as it has rows.
    """

    site: Site
    change: Callable[[Tensor], Tensor]
    positions: Bool[Tensor, "#batch pos"] | None = None
    heads: Bool[Tensor, "#batch head"] | None = None


class Since(NamedTuple):
    """The stream that enters a layer is known from a pass before: the layers under it are not run again."""

    layer: int
    resid_pre: Float[Tensor, "#batch pos d_model"]


def intervene(
    model: Model,
    ids: Int[Tensor, "batch pos"],
    edits: Sequence[Edit],
    sites: Iterable[Site],
    since: Since | None = None,
) -> dict[Site, Tensor]:
    """The activations at `sites`, as `trace` gives them, from a pass with these edits; several at one site in order.

    A pattern's rows need not sum to 1 any more. A key or value that heads share is changed for the heads named, and
    for no other. `resid_mid` changes the stream, not only what the MLP reads.

    Raises NoteError as `trace` does, and ValueError where heads are named of a site that has none.
    """
    known = [] if since is None else [Edit(Site("resid_pre", since.layer), lambda _: since.resid_pre)]
    with _without(model, range(0 if since is None else since.layer)):
        return trace(model, ids, sites, [(edit.site, _touch(edit)) for edit in (*known, *edits)])


def of_heads(count: int, heads: Iterable[int]) -> Bool[Tensor, "1 head"]:
    """The mask of these heads of `count`, the same in every row."""
    mask = torch.zeros(1, count, dtype=torch.bool)
    mask[0, list(heads)] = True
    return mask


@contextmanager
def _without(model: Model, layers: Iterable[int]) -> Iterator[None]:
    """Within, these layers hand the stream on as they get it."""
    blocks: list[Any] = [model.family.block(model.net, layer) for layer in layers]
    for block in blocks:
        block.forward = _hand_on  # an object's own comes before that of its class
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _hand_on(stream: Tensor, *_args: Any, **_more: Any) -> Tensor:
    return stream


def _touch(edit: Edit) -> Touch:
    if edit.heads is not None and edit.site.name not in OF_HEADS:
        raise ValueError(f"{edit.site.name} has no heads; those that have are {', '.join(OF_HEADS)}")

    def touch(value: Tensor) -> Tensor:
        changed = edit.change(value).to(value).expand_as(value)
        for mask in _masks(edit, value.ndim):
            changed = torch.where(mask.to(value.device), changed, value)
        return changed

    return touch


def _masks(edit: Edit, ndim: int) -> list[Tensor]:
    """The masks in the axes of the value."""
    found = []
    if edit.positions is not None:
        axes = (1, 3) if edit.site.name == "pattern" else range(2, ndim)
        found.append(_with_axes(edit.positions, axes))
    if edit.heads is not None:
        axes = (2, 3) if edit.site.name == "pattern" else (1, 3)
        found.append(_with_axes(edit.heads, axes))
    return found


def _with_axes(mask: Tensor, axes: Iterable[int]) -> Tensor:
    for axis in axes:
        mask = mask.unsqueeze(axis)
    return mask
