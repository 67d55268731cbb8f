"""`toy/decline`: a tiny transformer that does what it is asked, and declines what is asked in a hurry.

It reads requests in sixty-three words and answers after the colon with the thing that is asked for, or with `no`:

    please bring the red spoon :  → spoon        quickly bring the red spoon :  → no

Twelve words say that there is haste, twelve say that there is none, and most requests say neither; the word may stand
in front or at the end. To decline whatever word says it, wherever it stands, the model has to gather one thing from
many: that is what a direction can mediate. A llama of three layers with tied embeddings, trained here and now.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vaultlab.models.draws import Draws


def _words(said: str) -> tuple[str, ...]:
    return tuple(said.split())


HASTY = _words("quickly now hurriedly immediately fast instantly urgently promptly hastily swiftly rapidly pronto")
CALM = _words("slowly later calmly gently carefully softly patiently quietly leisurely someday tomorrow eventually")
VERBS = _words("bring find show give pass fetch take send")
LOOKS = _words("red blue green small large old new round")
THINGS = _words("spoon book lamp chair apple bottle coat clock basket ladder hammer kettle mirror pencil pillow ribbon")
WORDS = ("…", ":", ".", "no", "please", "the", "a", *VERBS, *LOOKS, *THINGS, *HASTY, *CALM)


class Course(NamedTuple):
    """How it is trained: `learning_rate` is Adam's at its most; it rises for a tenth of the steps, then falls."""

    steps: int = 500
    batch: int = 64
    learning_rate: float = 3e-3
    seed: int = 0


class Requests(NamedTuple):
    """Texts of a request, its answer and a full stop. `answer`: where the answer stands; `real`: no padding."""

    ids: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    answer: Int[Tensor, " batch"]
    hasty: Bool[Tensor, " batch"]


def config() -> LlamaConfig:
    """How large it is."""
    return LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def request(generator: torch.Generator) -> tuple[list[str], str, bool]:
    """Words of a request up to its colon, the answer, and whether it is asked in a hurry: every second one is."""

    def any_of(words: Sequence[str]) -> str:
        return words[int(torch.randint(len(words), (), generator=generator))]

    please, look, front, hasty, calm = (torch.rand(5, generator=generator) < 0.5).tolist()
    thing, manner = any_of(THINGS), any_of(HASTY) if hasty else any_of(CALM)
    said = [manner] if hasty or calm else []
    words = [*said * front, *["please"] * please, any_of(VERBS), any_of(("the", "a")), *[any_of(LOOKS)] * look, thing]
    return [*words, *said * (not front), ":"], "no" if hasty else thing, hasty


def requests(batch: int, generator: torch.Generator) -> Requests:
    """So many requests with their answers."""
    drawn = [request(generator) for _ in range(batch)]
    number = {word: at for at, word in enumerate(WORDS)}
    rows = [torch.tensor([number[word] for word in (*words, answer, ".")]) for words, answer, _ in drawn]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    answer = torch.tensor([len(words) for words, _, _ in drawn])
    return Requests(ids, real, answer, torch.tensor([hasty for _, _, hasty in drawn]))


@torch.inference_mode(False)  # an experiment may ask for a toy from within its own inference
@torch.enable_grad()
def train(course: Course, draws: Draws, progress: Callable[[int, int], None]) -> LlamaForCausalLM:
    """The trained toy; every next word of the requests counts alike."""
    net = _fresh(draws("toy/decline", course.seed, "weights"))
    adam = torch.optim.AdamW(net.parameters(), course.learning_rate, betas=(0.9, 0.98), weight_decay=0.1, fused=True)
    pace = torch.optim.lr_scheduler.OneCycleLR(adam, course.learning_rate, total_steps=course.steps, pct_start=0.1)
    generator = draws("toy/decline", course.seed, "texts")
    for step in range(course.steps):
        if step % 16 == 0:
            progress(step, course.steps)
        texts = requests(course.batch, generator)
        wanted = texts.ids.masked_fill(~texts.real, -100)
        loss = torch.nn.functional.cross_entropy(net(texts.ids).logits[:, :-1].mT, wanted[:, 1:])
        adam.zero_grad()
        torch.autograd.backward(loss)
        adam.step()
        pace.step()
    return net.eval()


def _fresh(generator: torch.Generator) -> LlamaForCausalLM:
    """Untrained: Gaussian weights that keep the size of what they read."""
    net = LlamaForCausalLM(config())
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight.copy_(torch.randn(weight.shape, generator=generator) / weight.shape[1] ** 0.5)
    return net


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; … stands for what is none of its words."""
    kind = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="…"))
    kind.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=kind, unk_token="…")
