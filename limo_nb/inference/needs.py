"""What decoding with transformers takes of memory: asked before a model is loaded. Chapter 7.

Weights, keys and values of every row to its limit, logits. The most that a request can
come to: rows that end early leave room. The tests compare it with a running process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from limo_nb.core import memory, precision
from limo_nb.core.machine import cores
from limo_nb.core.memory import GB
from limo_nb.inference.models import decoding_precision
from limo_nb.inference.shapes import Shape, shape_if_known

PROCESS = int(0.6 * GB)  # an interpreter with torch and transformers
# Bytes of a row's logits for each token of the vocabulary while the next token is drawn: in 32
# bits as they come, without temperature, sorted, softmaxed; their sums and places in 64.
DRAWN = 40
GREEDY = 12
READ = 12  # the same of a token that is read
# Rows that a large model decodes at once on a CPU, so that the first have ended after about
# a minute on two cores: 32 of half a billion parameters, and 64 of 1.5 billion where the
# processor has bfloat16 units. Below that, reading the weights is most of a step, and half as
# many rows take nearly as long.
ROWS_TIMES_PARAMETERS = {"float32": 16 * 10**9, "bfloat16": 100 * 10**9}
FEWEST = 4
# The share of a short product's speed at which a large model decodes on a CPU, about
# (benchmarks/RESULTS.md): weights and caches are read for every token.
DECODING_SHARE = {"float32": 0.6, "bfloat16": 0.28}


def rows_at_once(shape: Shape | None, batch_size: int, small: bool, dtype: str) -> int:
    """`batch_size`, or fewer where a large model decodes on a CPU in `dtype`.

    It depends on the model and the precision, which are in a completion's key, and not on a
    clock: the same rows are decoded together wherever and however often a request is made.
    """
    if shape is None or small or torch.cuda.is_available():
        return batch_size
    rows = ROWS_TIMES_PARAMETERS[dtype] // shape.parameters
    return min(batch_size, max(FEWEST, rows))


def decoding_rate(shape: Shape, dtype: str) -> float:
    """Tokens a second that a large model decodes on this CPU, about, in many rows."""
    product = cores() * precision.flops_per_second(dtype)
    return DECODING_SHARE[dtype] * product / (2 * shape.parameters)


def decoding_parts(
    shape: Shape, dtype: str, rows: int, width: int, drawn: bool = False
) -> dict[str, int]:
    """Bytes of a process that decodes `rows` of up to `width` tokens, prompts included."""
    size = 2 if dtype == "bfloat16" else 4
    states = 2 * size * shape.keys * width * rows
    return {
        "process": PROCESS,
        "weights": size * shape.parameters,
        # A layer's are copied when rows leave, or when there is no room for more tokens.
        "keys and values": states * (shape.layers + 1),
        "logits": (DRAWN if drawn else GREEDY) * shape.vocabulary * rows,
    }


def check_decoding(
    what: str, needed: Callable[[int], Mapping[str, int]], rows: int, processes: int,
    force: bool,
) -> str:  # fmt: skip
    """That `processes`, each of which decodes `rows` at once, have the memory; one line.

    `needed` gives the bytes of one process by its rows. On a GPU each process has its own.
    Raises NotEnoughMemory with what would fit.
    """
    there = memory.free_memory()
    shared = 1 if torch.cuda.is_available() else processes

    def whole(rows: int, processes: int) -> dict[str, int]:
        return {name: size * processes for name, size in needed(rows).items()}

    def levers() -> list[str]:
        found = []
        for count in sorted({shared, 1}, reverse=True):
            for fewer in (rows >> step for step in range(rows.bit_length())):
                need = sum(whole(fewer, count).values())
                if need <= there.free:
                    workers = f"engine.workers={count}, " if count != shared else ""
                    found.append(f"{workers}engine.batch_size={fewer} ({need / GB:.1f} GB)")
                    break
        return found

    return memory.require(what, whole(rows, shared), there, levers(), force)


def check_reading(model: str, dtype: str, tokens: int) -> None:
    """That `model` can read a text of `tokens` tokens at once and give all of its logits.

    Raises NotEnoughMemory with the numbers; a model of whose shape nothing is known passes.
    """
    shape = shape_if_known(model)
    if shape is None:
        return
    settled = decoding_precision(model, dtype).dtype
    parts = decoding_parts(shape, settled, 1, tokens)
    # As they come, in 32 bits, and their logarithms after the softmax.
    parts["logits"] = READ * shape.vocabulary * tokens
    levers = [] if settled == "bfloat16" else ["a dtype of bfloat16"]
    what = f"reading {tokens:,} tokens with {model}"
    memory.require(what, parts, memory.free_memory(), levers, force=False)
