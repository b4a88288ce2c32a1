"""What fine-tuning on a CPU takes, beside what the planner says, by ways to take less.

    python benchmarks/sft_memory.py MODEL [--tokens 512] [--steps 2] [WAY …]

Each way is a process of its own, without DeepSpeed, on rows of the lab's problems, repeated to
the length. Printed are the growth of its resident memory at the peak and the planner's
estimate, the rate, and the share of the speed of a short product that the rate is.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from limo_nb.core import precision
from limo_nb.core.machine import hardware
from limo_nb.core.memory import GB
from limo_nb.core.settings import LoraSettings, SftSettings
from limo_nb.lab import texts
from limo_nb.lab.world import draw
from limo_nb.sft import Task, fit, planner, prepare, read_log
from limo_nb.sft.train import run_job

WAYS = {
    "all weights": {},
    "checkpointing": {"gradient_checkpointing": True},
    "checkpointing, Adafactor": {"gradient_checkpointing": True, "optimizer": "adafactor"},
    "checkpointing, LoRA": {"gradient_checkpointing": True, "lora": LoraSettings()},
}


def kilobytes(name: str) -> int:
    """A line of /proc/self/status, as VmHWM, the peak of resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def rows(count: int, tokens: int) -> Dataset:
    """Problems with solutions of at least `tokens` characters, which is more than enough."""
    rng = random.Random(1)
    drawn = [draw(rng, "purse", 4, "train") for _ in range(count)]
    solved = [(problem.question, texts.worked_solution(rng, problem)) for problem in drawn]
    return Dataset.from_list(
        [{"question": q, "solution": s * (1 + 4 * tokens // len(s))} for q, s in solved]
    )


def measure(model: str, way: str, tokens: int, steps: int, dtype: str) -> dict[str, float]:
    """Train a few steps in this process."""
    settings = SftSettings(
        epochs=1, batch_size=2, learning_rate=1e-5, max_tokens=tokens, ranks=1, dtype=dtype,
        force=True, **WAYS[way],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        warm = Task(rows(2, 64), "lab:foundation", settings, 1, "S", Path(folder) / "warm")
        prepare(warm, here=True)
        run_job(warm.folder)  # loads what libraries load late
        task = Task(rows(2 * steps, tokens), model, settings, 1, "S", Path(folder) / "run")
        job = prepare(task, here=True)
        setup = fit.setup_here(job, alone=True)
        before = kilobytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        run_job(task.folder)
        grown = 1024 * (kilobytes("VmHWM") - before)
        seconds = read_log(task.folder / "log.jsonl")[-1]["seconds"]
    made = planner.plan(replace(setup, cpu=True))
    flops = job.tokens * setup.shape.flops_a_token(tokens)
    flops *= 4 / 3 if settings.gradient_checkpointing else 1
    product = precision.flops_per_second(settings.dtype)
    return {
        "grown": grown / GB, "said": made.peak / GB, "rate": job.tokens / seconds,
        "share": flops / seconds / product,
    }  # fmt: skip


def main() -> None:
    """Measure every way in a process, or one way here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("ways", nargs="*", default=list(WAYS))
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--here", action="store_true")
    given = parser.parse_args()
    if given.here:
        found = measure(given.model, given.ways[0], given.tokens, given.steps, given.dtype)
        print("\n" + json.dumps(found))
        return
    print(f"{given.model}, {given.tokens} tokens a row, {given.dtype}; {hardware()}")
    print("way | GB measured | GB estimated | ratio | tokens/s | share of a core's product")
    for way in given.ways:
        options = ["--tokens", str(given.tokens), "--steps", str(given.steps)]
        options += ["--dtype", given.dtype, "--here"]
        command = [sys.executable, __file__, given.model, way, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        ratio = row["said"] / row["grown"]
        print(
            f"{way} | {row['grown']:.2f} | {row['said']:.2f} | {ratio:.2f} | "
            f"{row['rate']:.1f} | {row['share']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
