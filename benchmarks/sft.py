"""Tokens per second and peak memory of four ways to fine-tune, in one run.

    OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 \\
    MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/sft.py

On a CPU: the lab's foundation on rows with chains of all lengths (or `--rows FILE`, a
training set of a run), by ours packed, ours padded, a plain HF `Trainer` with padding, and
a bare PyTorch loop over the batches of ours. With a GPU also Qwen2.5's 0.5B, 1.5B and 7B
shapes with random weights on rows of 16,384 tokens, with the share of the card's measured
bf16 matrix rate that they reach (MFU). Every way runs in a process of its own. Tokens are
those of rows, without padding; both rates leave out the first two steps. "tokens/CPU s"
counts the processor's seconds of that process, so that a busy machine matters less.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainerCallback
from transformers import TrainingArguments as Arguments

from limo_nb.core.settings import SYSTEM_PROMPT, SftSettings
from limo_nb.inference import load_model
from limo_nb.lab import texts
from limo_nb.lab.world import FAMILIES, draw
from limo_nb.sft import (
    Task,
    attention_kernel,
    batches,
    encoding,
    make_trainer,
    planner,
    prepare,
)

WAYS = ("ours packed", "ours padded", "plain Trainer", "bare loop")
SHAPES = ("Qwen2.5-0.5B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-7B-Instruct")
WARM_UP = 2  # steps
LONG = 16_384


def chains(count: int) -> Dataset:
    """`count` worked solutions of the lab's problems, of all families and levels."""
    rng = random.Random(1)
    drawn = [
        draw(rng, rng.choice(tuple(FAMILIES)), rng.randint(1, 8), "train") for _ in range(count)
    ]
    return Dataset.from_list(
        [{"question": p.question, "solution": texts.worked_solution(rng, p)} for p in drawn]
    )


class Clock(TrainerCallback):
    """Wall and processor seconds at the end of every step."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append((time.perf_counter(), time.process_time()))

    def on_step_end(self, *_, **__) -> None:
        self.tick()


def ours(settings: SftSettings, rows: Dataset, clock: Clock, folder: Path) -> list[int]:
    """The package's trainer in this process; tokens of every step."""
    job = prepare(Task(rows, "lab:foundation", settings, 1, SYSTEM_PROMPT, folder), 1e9)
    trainer = make_trainer(job, folder)
    trainer.add_callback(clock)
    recorder = next(c for c in trainer.callback_handler.callbacks if hasattr(c, "facts"))
    trainer.train()
    return recorder.tokens


def encoded_rows(settings: SftSettings, rows: Dataset, tokenizer) -> list[encoding.Encoded]:
    return encoding.encode(rows, tokenizer, SYSTEM_PROMPT, settings.max_tokens).rows


def plain(settings: SftSettings, rows: Dataset, clock: Clock, folder: Path) -> list[int]:
    """HF `Trainer` as its documentation starts it: batches by lot, padded."""
    model, tokenizer = load_model("lab:foundation", "float32")
    encoded = encoded_rows(settings, rows, tokenizer)
    tokens: list[int] = []

    def padded(batch: list[encoding.Encoded]) -> dict[str, torch.Tensor]:
        tokens.append(sum(len(row.ids) for row in batch))
        return batches.collate(batch, tokenizer.pad_token_id)

    arguments = Arguments(
        output_dir=str(folder), use_cpu=not torch.cuda.is_available(), optim="adamw_torch",
        per_device_train_batch_size=settings.batch_size, num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate, save_strategy="no", report_to="none",
        remove_unused_columns=False, disable_tqdm=True, logging_steps=10**6,
    )  # fmt: skip
    trainer = Trainer(model, arguments, padded, encoded, callbacks=[clock])
    trainer.train()
    # The loader reads a batch ahead, in order.
    return tokens


def bare(settings: SftSettings, rows: Dataset, clock: Clock, folder: Path) -> list[int]:
    """Twenty lines of PyTorch over the batches of ours: what the Trainer costs."""
    model, tokenizer = load_model("lab:foundation", "float32")
    encoded = encoded_rows(settings, rows, tokenizer)
    lengths = [len(row.ids) for row in encoded]
    steps = batches.schedule_rows(lengths, settings.batch_size, settings.epochs, 1)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=0.0)
    model.train()
    collate = partial(batches.collate, pad=tokenizer.pad_token_id)
    tokens = []
    for step in steps:
        batch = [encoded[row] for row in step if row != batches.EMPTY]
        model(**collate(batch), use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens.append(sum(len(row.ids) for row in batch))
        clock.tick()
    return tokens


def measure(way: str, file: Path | None, count: int) -> dict:
    """One way in this process: tokens a second and GiB."""
    settings = SftSettings(
        epochs=3, batch_size=8, learning_rate=3e-4, max_tokens=768, ranks=1,
        packing=way == "ours packed", dtype="float32",
    )  # fmt: skip
    rows = Dataset.from_parquet(str(file)) if file else chains(count)
    clock, function = Clock(), {"plain Trainer": plain, "bare loop": bare}.get(way, ours)
    with tempfile.TemporaryDirectory() as folder:
        tokens = function(settings, rows, clock, Path(folder))
    wall, cpu = (
        clock.times[-1][i] - clock.times[WARM_UP - 1][i] for i in range(2)
    )  # of the steps after the warm-up
    done = sum(tokens[WARM_UP : len(clock.times)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {"tokens/s": done / wall, "tokens/CPU s": done / cpu, "GiB": peak}


# ------------------------------------------------------------------------------ a GPU
def matrix_rate(size: int = 8192, repeats: int = 50) -> float:
    """Operations a second of a bf16 matrix product on this card."""
    a = torch.randn(size, size, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        a @ a
    torch.cuda.synchronize()
    return 2 * size**3 * repeats / (time.perf_counter() - started)


def shape_on_gpu(name: str, rate: float, kernel: str) -> dict:
    """Tokens a second, MFU and GiB of one shape; plain Adam in bf16, rows of 16,384."""
    shape = planner.shape_of(name)
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden,
        intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=LONG,
    )  # fmt: skip
    config._attn_implementation = kernel
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen2ForCausalLM(config).train()
        torch.set_default_dtype(torch.float32)
    model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-6, fused=True)
    row = torch.randint(0, shape.vocabulary, (1, LONG), device="cuda")
    clock = Clock()
    for _ in range(WARM_UP + 5):
        model(input_ids=row, labels=row, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.tick()
    seconds = (clock.times[-1][0] - clock.times[WARM_UP - 1][0]) / 5
    mfu = shape.flops_a_token(LONG) * LONG / seconds / rate
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"tokens/s": LONG / seconds, "MFU": mfu, "GiB": peak}


def on_gpu(name: str) -> dict:
    """`shape_on_gpu` with the fastest attention that is importable."""
    settings = SftSettings(epochs=1, batch_size=1, learning_rate=1e-6, max_tokens=LONG)
    return shape_on_gpu(name, matrix_rate(), attention_kernel(settings))


def apart(*words: str) -> dict:
    """This file with `words`, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print a line for each way, and for each shape where there is a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, help="a parquet file of question and solution")
    parser.add_argument("--count", type=int, default=96, help="rows that are drawn")
    parser.add_argument("--way", choices=(*WAYS, *SHAPES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        made = on_gpu(asked.way) if asked.way in SHAPES else None
        print(json.dumps(made or measure(asked.way, asked.rows, asked.count)))
        return
    words = ["--count", str(asked.count)] + (["--rows", str(asked.rows)] if asked.rows else [])
    shapes = SHAPES if torch.cuda.is_available() else ()
    for way in (*WAYS, *shapes):
        found = apart("--way", way, *words)
        figures = "  ".join(f"{name} {value:10,.2f}" for name, value in found.items())
        print(f"{way:24}{figures}", flush=True)
    if shapes:
        print(torch.cuda.get_device_name(), f"{matrix_rate() / 1e12:.0f} TFLOP/s in bf16")


if __name__ == "__main__":
    main()
