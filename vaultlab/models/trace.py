"""One forward pass → the activations asked for."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial, reduce
from typing import Any, Literal, NamedTuple, get_args

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vaultlab.errors import NoteError
from vaultlab.models.family import sub
from vaultlab.models.model import Model

SiteName = Literal[
    "resid_pre",
    "attn_in",
    "q",
    "k",
    "v",
    "pattern",
    "z",
    "attn",
    "resid_mid",
    "mlp_in",
    "m",
    "mlp",
    "resid_post",
    "final",
    "logits",
]

SITES: tuple[SiteName, ...] = get_args(SiteName)
"""In the order of the computation.

Of a layer: `resid_pre` the stream before it · `attn_in` what its attention reads, normed · `q`, `k`, `v` [batch pos
head d_head], queries, keys and values as they meet, normed and turned to their positions, every head with its own ·
`pattern` [batch head query key] · `z` [batch pos head d_head], what its heads gather · `attn` its attention's output ·
`resid_mid` the stream between · `mlp_in` what its MLP reads, normed · `m` [batch pos d_mlp], its memories'
coefficients · `mlp` its MLP's output · `resid_post` the stream after it. Of the model: `final` the last stream *before*
the final norm · `logits`.
"""

WITHIN = ("q", "k", "v", "pattern")
"""Sites within an attention, where no module begins or ends: `pattern.attend` comes by there."""


class Site(NamedTuple):
    """A place in the model. `layer` counts from 0 and is None for `final` and `logits`."""

    name: SiteName
    layer: int | None = None


Trace = Callable[[Model, Int[Tensor, "batch pos"], Iterable[Site]], dict[Site, Tensor]]
"""`trace`, or what stands in its place where passes are shared."""

Touch = Callable[[Tensor], Tensor]
"""Is given what stands at a site, and gives back what is to stand there: the very same tensor where it only looks."""


class _Enough(Exception):
    """Raised within the forward pass when everything asked for is there."""


@torch.inference_mode()
def trace(
    model: Model, ids: Int[Tensor, "batch pos"], sites: Iterable[Site], touches: Sequence[tuple[Site, Touch]] = ()
) -> dict[Site, Tensor]:
    """The activations at `sites`, in the model's dtype and on its device, from one forward pass.

    It stops after the last site asked for. Texts of several lengths are padded on the right (`right_pad`): no token
    looks ahead, so what is before the padding is what it would be alone, and what is on it means nothing.

    `touches` look at what comes by, or put something else there (`intervene`); several at one site in this order.
    Sites show what stands there after them.

    Raises NoteError for more tokens than the model reads, a layer or a site that it has not.
    """
    return passed(model, ids, sites, touches)


def passed(
    model: Model, ids: Int[Tensor, "batch pos"], sites: Iterable[Site], touches: Sequence[tuple[Site, Touch]] = ()
) -> dict[Site, Tensor]:
    """`trace` in whatever mode torch is in: where gradients are on, they can be taken."""
    wanted = set(sites)
    _check(model, ids, wanted | {site for site, _ in touches})
    found: dict[Site, Tensor] = {}

    def keep(site: Site, value: Tensor) -> Tensor:
        found[site] = value
        if len(found) == len(wanted):
            raise _Enough
        return value

    steps: dict[Site, list[Touch]] = {site: [] for site in (*(site for site, _ in touches), *wanted)}
    for site, touch in touches:
        steps[site].append(touch)
    for site in wanted:
        steps[site].append(partial(keep, site))
    within: dict[int, dict[str, Touch]] = {}
    with ExitStack() as hooks:
        for site, each in steps.items():
            if site.layer is not None and site.name in WITHIN:
                within.setdefault(site.layer, {})[site.name] = partial(_in_turn, each)
            elif site.name != "logits":
                hooks.enter_context(_hook(model, site, each))
        with suppress(_Enough):
            net: Any = model.net
            logits = net(ids.to(model.device), use_cache=False, **({"touches": within} if within else {})).logits
            _in_turn(steps.get(Site("logits"), []), logits)
    return found


def _in_turn(touches: Sequence[Touch], value: Tensor) -> Tensor:
    return reduce(lambda standing, touch: touch(standing), touches, value)


def right_pad(texts: Sequence[Int[Tensor, " _"]]) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Texts of several lengths as one batch, and which of its tokens are real."""
    lengths = torch.tensor([len(ids) for ids in texts])
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def sinks(
    resid: Float[Tensor, "*batch pos d_model"], among: Bool[Tensor, "*batch pos"] | None = None
) -> Bool[Tensor, "*batch pos"]:
    """Tokens with massive activations: over 5 × the median norm of all that is given, or of those `among` it.

    Leave them out of norms, kurtosis, PCA, triggers and steering statistics, and list them.
    Source: Sun et al. 2024, Massive Activations in Large Language Models.
    """
    norms = resid.float().norm(dim=-1)
    massive: Tensor = norms > 5 * (norms if among is None else norms[among]).median()
    return massive


def has(model: Model, site: Site) -> bool:
    """Whether there is such a place in the model."""
    try:
        _check_site(model, site)
    except NoteError:
        return False
    return True


def _hook(model: Model, site: Site, touches: Sequence[Touch]) -> RemovableHandle:
    module, side = _place(model, site)

    def touched(value: Tensor) -> Tensor:
        if site.name == "z":
            apart = rearrange(value, "batch pos (head d_head) -> batch pos head d_head", head=model.shape.heads)
            standing = _in_turn(touches, apart)
            return (
                value if standing is apart else rearrange(standing, "batch pos head d_head -> batch pos (head d_head)")
            )
        standing = _in_turn(touches, value)
        if site.name == "resid_mid" and standing is not value:
            # The stream goes on beside the norm that is hooked here: only written in place does it change for both.
            return value.copy_(standing)
        return standing

    def before(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        standing = touched(args[0])
        return None if standing is args[0] else (standing, *args[1:])

    def after(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        value, *more = output if isinstance(output, tuple) else (output,)
        standing = touched(value)
        if standing is value:
            return None
        return (standing, *more) if isinstance(output, tuple) else standing

    return module.register_forward_pre_hook(before) if side == "before" else module.register_forward_hook(after)


def _place(model: Model, site: Site) -> tuple[nn.Module, Literal["before", "after"]]:
    family = model.family
    if site.layer is None:
        return sub(model.net, family.final_norm), "before"
    inside = partial(sub, family.block(model.net, site.layer))
    match site.name:
        case "resid_pre":
            return inside(""), "before"
        case "attn_in":
            return inside(family.norm1), "after"
        case "z":
            return inside(family.attn_out), "before"
        case "attn":
            return inside(family.attn), "after"
        case "resid_mid":
            return inside(family.norm2), "before"
        case "mlp_in":
            return inside(family.norm2), "after"
        case "m":
            return inside(family.mlp_out), "before"
        case "mlp":
            return inside(family.mlp), "after"
        case _:
            return inside(""), "after"


def _check(model: Model, ids: Tensor, sites: set[Site]) -> None:
    shape = model.shape
    if ids.shape[-1] > shape.context:
        raise NoteError(
            f"The text has {ids.shape[-1]} tokens, and {model.name} reads at most {shape.context}.", "Shorten the text."
        )
    for site in sites:
        _check_site(model, site)


def _check_site(model: Model, site: Site) -> None:
    (name, layer), shape = site, model.shape
    if name in ("final", "logits"):
        return
    if name not in SITES:
        raise NoteError(f"There is no site `{name}`.", f"The sites are {', '.join(SITES)}.", field="site")
    if layer is None or not 0 <= layer < shape.layers:
        raise NoteError(
            f"{model.name} has no layer {layer}.", f"Its layers are 0 to {shape.layers - 1}.", field="layer"
        )
    if name == "resid_mid" and "parallel" in shape.flags:
        raise NoteError(
            f"{model.name} has no `resid_mid`: its attention and MLP read the same stream.",
            "Take `resid_pre` or `resid_post`.",
            field="site",
        )
