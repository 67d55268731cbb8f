"""Models that the project trains itself, on first use: small enough to take apart, and every path in them is exact.

`toy/attn-only-1l` and `toy/attn-only-2l` read 64 characters (letters, digits, space, `?` for all others) and learn one
thing: a stretch of random characters comes again and again, how long it is changes from text to text. What follows can
be told from what followed the last time: two layers learn to (a head that looks at the previous token, and one that
looks for where that matches: induction), one layer cannot. After Elhage et al. 2021, A Mathematical Framework for
Transformer Circuits, and Olsson et al. 2022, In-context Learning and Induction Heads.

`toy/decline` answers requests and declines some: `decline.py` has its words and its recipe.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from vaultlab.models import decline
from vaultlab.models.attn_only import AttnOnly, AttnOnlyConfig
from vaultlab.models.draws import Draws, draws
from vaultlab.models.recipes import NAMES

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ?"
TOYS: dict[str, PretrainedConfig] = dict(
    zip(NAMES, (AttnOnlyConfig(layers=1), AttnOnlyConfig(layers=2), decline.config()), strict=True)
)
"""Name → what it is."""

PERIODS = (8, 24)
"""How long a stretch is before it comes again, least and most: with one length alone, counting back would do."""
STARTS = 16
"""At most so many characters come before the first stretch."""


class Course(NamedTuple):
    """How a toy is trained: `learning_rate` is Adam's at its most; it rises for 100 steps, then falls to 5 %.

    `periods` are the lengths that a stretch may have, least and most.
    """

    steps: int = 3000
    batch: int = 32
    learning_rate: float = 0.01
    seed: int = 0
    periods: tuple[int, int] = PERIODS


class Repeats(NamedTuple):
    """Random texts in which a stretch comes again and again; `known` where the next token can be told from before."""

    ids: Int[Tensor, "batch pos"]
    known: Bool[Tensor, "batch pos"]


def repeats(
    batch: int, length: int, d_vocab: int, generator: torch.Generator, periods: tuple[int, int] = PERIODS
) -> Repeats:
    """Texts of `length` tokens, each with a start and a period of its own."""
    base = torch.randint(d_vocab, (batch, length), generator=generator)
    start = torch.randint(STARTS + 1, (batch, 1), generator=generator)
    period = torch.randint(periods[0], periods[1] + 1, (batch, 1), generator=generator)
    at = torch.arange(length)[None]
    from_base = torch.where(at < start, at, start + (at - start) % period)
    return Repeats(base.gather(1, from_base), at >= start + period)


def losses(logits: Tensor, texts: Repeats) -> tuple[Tensor, Tensor]:
    """The mean loss in nats of all next tokens, and of those that can be told from before."""
    each = torch.nn.functional.cross_entropy(logits[:, :-1].mT, texts.ids[:, 1:].to(logits.device), reduction="none")
    return each.mean(), each[texts.known[:, :-1].to(logits.device)].mean()


@torch.inference_mode(False)  # an experiment may ask for a toy from within its own inference
@torch.enable_grad()
def train(
    config: AttnOnlyConfig,
    course: Course,
    draws: Draws,
    device: torch.device,
    progress: Callable[[int, int], None],
    look: Callable[[int, AttnOnly], None] = lambda step, net: None,
) -> AttnOnly:
    """A trained toy. `look` sees it before the steps that it picks for itself, and once more at the end."""
    net: AttnOnly = fresh(config, draws("toy", course.seed, "weights")).to(device)
    adam = torch.optim.AdamW(net.parameters(), course.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = draws("toy", course.seed, "texts")
    for step in range(course.steps):
        if step % 16 == 0:
            progress(step, course.steps)
        look(step, net)
        texts = repeats(course.batch, config.context, config.vocab_size, generator, course.periods)
        for group in adam.param_groups:
            group["lr"] = course.learning_rate * _pace(step, course.steps)
        loss, _ = losses(net(texts.ids.to(device)).logits, texts)
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
    look(course.steps, net)
    return net


def _pace(step: int, steps: int) -> float:
    return min(1, (step + 1) / 100) * (0.525 + 0.475 * math.cos(math.pi * step / steps))


def fresh(config: AttnOnlyConfig, generator: torch.Generator) -> AttnOnly:
    """Untrained: Gaussian weights, as large as keeps the stream's size, what is written to it less with every layer."""
    net = AttnOnly(config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.ndim == 2:
                writers = 2 * config.layers if name.endswith("attn.out.weight") else 1
                scale = 1 / math.sqrt(config.d_model * writers)
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return net


def parameters(config: PretrainedConfig) -> int:
    """How many weights it has."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; line ends are spaces, and `?` stands for what is none of the 64."""
    kind = Tokenizer(models.WordLevel({letter: at for at, letter in enumerate(LETTERS)}, unk_token="?"))
    kind.normalizer = normalizers.Replace(Regex(r"\s"), " ")
    kind.decoder = decoders.Fuse()
    kind.pre_tokenizer = pre_tokenizers.Split(Regex(r"."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=kind, unk_token="?")


def make(name: str, folder: Path, say: Callable[[str], None]) -> None:
    """Train the toy and write it to `folder`, as transformers would."""

    def progress(done: int, total: int) -> None:
        say(f"training {name}, step {done} of {total}")

    net: PreTrainedModel
    config = TOYS[name]
    if isinstance(config, AttnOnlyConfig):
        net, words = train(config, Course(), draws, torch.device("cpu"), progress), tokenizer()
    else:
        net, words = decline.train(decline.Course(), draws, progress), decline.tokenizer()
    net.save_pretrained(folder)
    words.save_pretrained(folder)
