"""Tokens per second of the lab's pretraining, with torch.compile and without, in turns.

    OMP_NUM_THREADS=1 python benchmarks/pretraining.py --dtype float32
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 \\
        python benchmarks/pretraining.py --dtype float32

The foundation's pages at full difficulty. Both ways read the same chunks one after the
other, so that what else the machine does slows both alike; the first chunks, in which the
compiler works, are counted apart. "tokens/CPU s" counts the seconds of the processor.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace

import torch

from limo_nb import lab
from limo_nb.core.machine import hardware
from limo_nb.lab.pretrain import Compute, Training, new_model

WARM_UP = 2  # chunks


@dataclass
class Spent:
    """What was read, and the seconds of the clock and of the processor that it took."""

    tokens: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    def read(self, training: Training) -> None:
        """Read one chunk more."""
        before, wall, cpu = training.tokens, time.perf_counter(), time.process_time()
        training.read_chunk(lab.MAX_STEPS)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.tokens += training.tokens - before


def prepared(compiled: bool, dtype: str) -> tuple[Training, Spent]:
    """A training whose first chunks are read, and what they took."""
    recipe, tokenizer = lab.recipes()["foundation"], lab.make_tokenizer()
    model = new_model(recipe, tokenizer).train()
    phase = replace(recipe.pretrain, curriculum=0.0)
    training = Training(model, tokenizer, phase, recipe.seed, Compute(dtype, compiled))
    spent = Spent()
    for _ in range(WARM_UP):
        spent.read(training)
    return training, spent


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=float, default=25.0, help="of each way")
    options = parser.parse_args()
    masked = os.environ.get("ONEDNN_MAX_CPU_ISA", "all instruction sets")
    print(f"{hardware()}; {masked}; {torch.get_num_threads()} thread(s); {options.dtype}")
    ways = {name: prepared(name == "compiled", options.dtype) for name in ("plain", "compiled")}
    spent = {name: Spent() for name in ways}
    while min(each.wall for each in spent.values()) < options.seconds:
        for name, (training, _) in ways.items():
            spent[name].read(training)
    for name, each in spent.items():
        print(
            f"{name:10} {each.tokens / each.wall:8,.0f} tokens/s  "
            f"{each.tokens / each.cpu:8,.0f} tokens/CPU s  "
            f"first {WARM_UP} chunks {ways[name][1].wall:6.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
