"""A quantised model through transformers and through llama.cpp's server: rates, side by side.

    python benchmarks/quantised.py FILE.gguf

Greedy answers of at most 48 tokens to lab problems, so many at once; transformers computes
with the dequantised weights in float32 on one thread, or in two processes of one thread, and
llama.cpp with the weights as they are on all cores. Tokens per second of the clock and of
processor time, of all processes together, and the ratios to the first line.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from engines import processor_seconds

from limo_nb import lab
from limo_nb.core.machine import hardware
from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings, Sampling
from limo_nb.inference import chat_prompt, complete, llamacpp_engine, open_engine
from limo_nb.inference import transformers_engine as ours

TOKENS = 48
# kind, rows at once, processes of transformers
WAYS = (
    ("transformers", 1, 1), ("transformers", 8, 1), ("transformers", 16, 2),
    ("llamacpp", 1, 1), ("llamacpp", 4, 1), ("llamacpp", 8, 1), ("llamacpp", 16, 1),
)  # fmt: skip


def measure(model: str, kind: str, rows: int, workers: int) -> tuple[float, float]:
    """Tokens per second of the clock, and of processor time; loading is not counted."""
    problems = lab.pool(2 * rows, seed=9)
    asked = [(row["id"], chat_prompt(row["question"], SYSTEM_PROMPT)) for row in problems]
    each = EngineSettings(
        kind=kind, dtype="float32", batch_size=max(1, rows // workers), workers=workers
    )
    with tempfile.TemporaryDirectory() as folder, open_engine(each, model) as engine:
        # As long as all, so that no server is started anew with longer contexts.
        complete(engine, asked[:workers], Sampling(max_new_tokens=TOKENS), Path(folder) / "a")
        before, started = processor_seconds(), time.perf_counter()
        made = complete(engine, asked, Sampling(max_new_tokens=TOKENS), Path(folder) / "b")
        seconds, spent = time.perf_counter() - started, processor_seconds() - before
    return sum(made["tokens"]) / seconds, sum(made["tokens"]) / spent


def main(model: str) -> None:
    """Print a row for each of `WAYS`."""
    ours.FEW_ROWS = 0  # also few rows go to the worker processes
    llamacpp_engine.SLOTS = max(rows for _, rows, _ in WAYS)
    print(f"{Path(model).name}, {TOKENS} tokens an answer, {hardware()}\n")
    print("| engine | at once | tokens/s | ratio | tokens per CPU second | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    first = None
    for kind, rows, workers in WAYS:
        rates = measure(model, kind, rows, workers)
        first = first or rates
        cells = (
            f"{rate:.1f} | {rate / one:.2f}" for rate, one in zip(rates, first, strict=True)
        )
        name = f"{kind}, {workers} processes" if workers > 1 else kind
        print(f"| {name} | {rows} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
