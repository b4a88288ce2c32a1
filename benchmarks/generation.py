"""What the decoder's two measures are worth: shared prefill and swept rows.

    MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=17179869184 \\
    OMP_NUM_THREADS=1 python benchmarks/generation.py lab:reasoner

Prints processor seconds (this process alone, so a busy machine matters less), tokens and
tokens a second for batch sizes, types, and segments; segment 10**6 never sweeps, and
"apart" prefills every sample of a prompt for itself, as one `generate` does.
"""

import random
import sys
import time

from limo_nb import generation
from limo_nb.generation import Decoder, chat_prompt, prompt_ids
from limo_nb.lab.world import FAMILIES, draw
from limo_nb.profiles import SYSTEM_PROMPT, Sampling

SAMPLES, QUESTIONS = 32, 16


def measure(model: str, dtype: str, batch: int, segment: int, shared: bool) -> str:
    """One line: 512 chains of hard questions with these settings."""
    generation.SEGMENT = segment
    decoder, rng = Decoder(model, dtype), random.Random(1)
    asked = [
        draw(rng, rng.choice(tuple(FAMILIES)), rng.randint(4, 8), "train").question
        for _ in range(QUESTIONS)
    ]
    prompts = [prompt_ids(decoder.tokenizer, chat_prompt(q, SYSTEM_PROMPT)) for q in asked]
    rows = sorted((p for p in prompts for _ in range(SAMPLES)), key=len)
    sampling = Sampling(temperature=1.0, max_new_tokens=512)
    tokens, started = 0, time.process_time()
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        unique = [list(p) for p in dict.fromkeys(map(tuple, part))] if shared else part
        owners = [unique.index(p) for p in part] if shared else list(range(len(part)))
        made = decoder.decode(unique, owners, start, sampling)
        tokens += sum(completion.tokens for completion in made)
    seconds = time.process_time() - started
    how = f"{dtype:8} batch {batch:3} segment {segment:7} {'shared' if shared else 'apart '}"
    return f"{how} {seconds:6.1f} s {tokens:7} tokens {tokens / seconds:7.0f} tokens/s"


if __name__ == "__main__":
    for dtype in ("float32", "bfloat16"):
        print(measure(sys.argv[1], dtype, 256, 10**6, False), flush=True)
        print(measure(sys.argv[1], dtype, 256, 10**6, True), flush=True)
        for batch in (64, 128, 256):
            print(measure(sys.argv[1], dtype, batch, 32, True), flush=True)
