"""Run in a Python that has transformer-lens, not in ours: the search as one would write it first. MODEL IDS THREADS."""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

TOP = 32


def main() -> None:
    folder, ids, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.set_grad_enabled(False)
    net = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = TransformerBridge.boot_transformers(folder, hf_model=net, tokenizer=tokenizer, device="cpu")
    batches = json.loads(Path(ids).read_text())
    start = time.perf_counter()
    cached: dict[str, list[torch.Tensor]] = {}
    for rows, _ in batches:
        _, cache = model.run_with_cache(torch.tensor(rows), names_filter=lambda name: name.endswith("mlp.out.hook_in"))
        for name in cache:
            cached.setdefault(name, []).append(cache[name])
    for every in cached.values():
        strongest = [
            (m.abs() * torch.tensor(real)[..., None]).amax(1) for m, (_, real) in zip(every, batches, strict=True)
        ]
        sentences = torch.cat(strongest)
        sentences.topk(min(TOP, len(sentences)), dim=0)
    assert len(cached) == net.config.num_hidden_layers, sorted(cached)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(f"{time.perf_counter() - start:.1f} s, {peak:.0f} MB with the model")


if __name__ == "__main__":
    main()
