"""What a step of decoding takes with each attention, of a model with shared keys and values.

    python benchmarks/attention.py MODEL [ROWS [TOKENS]]

The model reads ROWS prompts of TOKENS tokens (64 of 300), then makes 12 tokens a row with plain
attention and with SDPA, in the precision that "auto" is. Prints tokens a second and their
ratio. Plain attention repeats the keys and values that heads share, SDPA does not.
"""

import sys
import time

import torch
from transformers import AutoModelForCausalLM

from limo_nb.inference import load_model

STEPS = 12


def rate(name: str, attention: str, rows: int, tokens: int) -> float:
    """Tokens a second in one batch, every other row with padding at its left."""
    model: AutoModelForCausalLM = load_model(name, attention=attention)[0]
    ids = torch.randint(0, 1000, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::2, : tokens // 4] = 0
    with torch.inference_mode():
        out = model(ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
        cache, last = out.past_key_values, ids[:, -1:]
        started = time.perf_counter()
        for _ in range(STEPS):
            mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
            model(last, attention_mask=mask, past_key_values=cache, use_cache=True)
    return rows * STEPS / (time.perf_counter() - started)


if __name__ == "__main__":
    name, rows, tokens = sys.argv[1], *map(int, [*sys.argv[2:], "64", "300"][:2])
    first = None
    for attention in ("eager", "sdpa"):
        found = rate(name, attention, rows, tokens)
        first = first or found
        print(f"{attention:5} {found:7.0f} tokens/s, {found / first:.2f} of plain", flush=True)
