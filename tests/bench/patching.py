"""A full layer × position grid of smollm2-135m over 12 tokens, against one patched forward pass at a time.

The plain arm is what one would write first: transformers' own model, a hook on a layer that puts the other prompt's
stream in at one position, and the whole model run, for each of the 360 places. Ours reads both prompts and runs all
positions of a layer as one batch from that layer on. Both arms have their reading of the two prompts in them, run at
one thread, and are told by processor time, which a busy machine does not change; at least 5 times as fast is wanted,
and the same logit differences to 1e-5 of the largest.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM

from vaultlab.models import patching
from vaultlab.models.entry import SMOLLM2, folder_of
from vaultlab.models.load import load
from vaultlab.models.model import Model
from vaultlab.models.pairs import Pair, read_pairs

CLEAN = "The Eiffel Tower is a famous landmark in the city of"
CORRUPT = "The Colosseum is a famous landmark in the city of"
ROUNDS, WANTED, ALIKE, BATCH = 3, 5.0, 1e-5, 32


@torch.inference_mode()
def ours(model: Model, pair: Pair) -> Float[Tensor, "layer pos"]:
    """The logit difference of the run over the corrupt prompt with the clean one's stream, place by place."""
    asked = patching.question(model, pair)
    one = patching.patching(model, pair.corrupt, pair.clean[None], asked, ("resid_pre",), BATCH)
    cells = one.at_each("resid_pre")
    return torch.stack([one.moved(layer, cells) for layer in range(model.shape.layers)]) + one.found


@torch.inference_mode()
def plain(net: Any, pair: Pair) -> Float[Tensor, "layer pos"]:
    clean = net(pair.clean[None], output_hidden_states=True, use_cache=False).hidden_states
    found = torch.zeros(len(net.model.layers), len(pair.clean))
    for layer, block in enumerate(net.model.layers):
        for position in range(len(pair.clean)):

            def put(_module: Any, args: tuple[Any, ...], layer: int = layer, position: int = position) -> Any:
                stream = args[0].clone()
                stream[:, position] = clean[layer][:, position]
                return (stream, *args[1:])

            hook = block.register_forward_pre_hook(put)
            logits = net(pair.corrupt[None], use_cache=False).logits[0, -1]
            hook.remove()
            found[layer, position] = logits[pair.answer] - logits[pair.foil]
    return found


def timed(arm: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    found = arm()
    return time.process_time() - start, found


def main() -> None:
    torch.set_num_threads(1)
    model = load(SMOLLM2)
    net = AutoModelForCausalLM.from_pretrained(folder_of(SMOLLM2), dtype=model.dtype, local_files_only=True).eval()
    [pair] = read_pairs(model, (CLEAN, CORRUPT))
    rounds = [(timed(lambda: ours(model, pair)), timed(lambda: plain(net, pair))) for _ in range(ROUNDS)]
    mine, one_by_one = (median(took for took, _ in arm) for arm in zip(*rounds, strict=True))
    (_, grid), (_, other) = rounds[0]
    apart = float((grid - other).abs().max() / other.abs().max())
    print(
        f"patching  {grid.numel()} places, {len(pair.clean)} tokens: ours {mine:.1f} s, one by one {one_by_one:.1f} s"
    )
    print(f"patching  {one_by_one / mine:.1f} × faster (at least {WANTED:.0f})")
    print(f"patching  largest difference {apart:.1e} of the largest logit difference (at most {ALIKE:.0e})")


if __name__ == "__main__":
    main()
