"""Tiny random models for tests: every bias non-zero, every gain away from 1, and a tokenizer that reads real text."""

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from vaultlab.models.load import assemble
from vaultlab.models.model import Model

TEXT = (
    "The cat sat on the mat, and the dog saw the cat. Paris is the capital of France; Rome is the capital of Italy. "
    "One, two, three.\nA second line: the first was shorter. She said that he said it, and it was so.\n"
)

_ROTARY = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GROUPED = {**_ROTARY, "num_key_value_heads": 2, "head_dim": 16}
_WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
_GPT2 = {
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "n_inner": 80,
    "bos_token_id": 0,
    "eos_token_id": 0,
}

FAMILIES: dict[str, tuple[type, dict[str, Any]]] = {
    "llama": (LlamaConfig, {**_GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mistral": (MistralConfig, {**_GROUPED, "sliding_window": 5}),
    "qwen2": (Qwen2Config, {**_ROTARY, **_WINDOW, "num_key_value_heads": 2}),
    "qwen3": (Qwen3Config, {**_GROUPED, "attention_bias": True}),
    "gpt2": (GPT2Config, _GPT2),
    "gpt_neox": (GPTNeoXConfig, _ROTARY),
}
"""transformers' model types and the config of each one's tiny model."""


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **config: Any) -> Model:
    """A random model of a `model_type` in `FAMILIES`, 3 layers of width 48; `config` are fields of its config."""
    kind, fields = FAMILIES[family]
    tokenizer = tiny_tokenizer()
    net = AutoModelForCausalLM.from_config(kind(**{**fields, "vocab_size": len(tokenizer), **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "norm" in name or "ln_" in name:
                weight.copy_(noise * 0.3 + (0 if name.endswith("bias") else 1))
            else:
                weight.copy_(noise * (0.3 if weight.ndim == 1 else 0.15))
    return assemble(f"tiny-{family}", f"{family}{seed}".encode().hex(), net.to(dtype), tokenizer)


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE learned on `TEXT`; it can write any text, and knows where each token stands in it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<bos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>")
