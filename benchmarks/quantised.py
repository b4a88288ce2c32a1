"""A quantised model through transformers and through llama.cpp's server: rates, side by side.

    OMP_NUM_THREADS=1 python benchmarks/quantised.py FILE.gguf

Greedy answers of at most 48 tokens to lab problems, so many at once; transformers computes
with the dequantised weights in float32, llama.cpp with the weights as they are. Tokens per
second of the clock and of processor time, of all processes together, and the ratios to the
first line.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from engines import processor_seconds

from limo_nb import lab
from limo_nb.core.machine import hardware
from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, Sampling
from limo_nb.inference import chat_prompt, complete, llamacpp_engine, open_engine

TOKENS = 48
# kind, rows at once
WAYS = (
    ("transformers", 1), ("transformers", 8), ("transformers", 16),
    ("llamacpp", 1), ("llamacpp", 4), ("llamacpp", 8), ("llamacpp", 16),
)  # fmt: skip


def measure(model: str, kind: str, rows: int) -> tuple[float, float]:
    """Tokens per second of the clock, and of processor time; loading is not counted."""
    problems = lab.pool(max(2, rows), seed=9)
    asked = [(row["id"], chat_prompt(row["question"], SYSTEM_PROMPT)) for row in problems]
    each = EngineSettings(kind=kind, dtype="float32", batch_size=rows)
    with tempfile.TemporaryDirectory() as folder, open_engine(each, model) as engine:
        # The limit of the server's contexts, so that it is not started anew.
        complete(engine, asked[:1], Sampling(max_new_tokens=TOKENS + 64), Path(folder) / "a")
        before, started = processor_seconds(), time.perf_counter()
        made = complete(engine, asked, Sampling(max_new_tokens=TOKENS), Path(folder) / "b")
        seconds, spent = time.perf_counter() - started, processor_seconds() - before
    return sum(made["tokens"]) / seconds, sum(made["tokens"]) / spent


def main(model: str) -> None:
    """Print a row for each of `WAYS`."""
    llamacpp_engine.SLOTS = max(rows for _, rows in WAYS)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(f"{Path(model).name}, {TOKENS} tokens an answer, {threads} thread(s), {hardware()}\n")
    print("| engine | at once | tokens/s | ratio | tokens per CPU second | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    first = None
    for kind, rows in WAYS:
        rates = measure(model, kind, rows)
        first = first or rates
        pairs = zip(rates, first, strict=True)
        cells = (f"{rate:.1f} | {rate / one:.2f}" for rate, one in pairs)
        print(f"| {kind} | {rows} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
