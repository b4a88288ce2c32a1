"""What "auto" stands for: bfloat16 where this machine computes in it, else 32 bits.

A processor without bfloat16 units emulates them, up to a hundred times slower than 32
bits, and one that has them may still be slower than in 32 bits. So a short product says
which it is, once a process and device, and not the processor's name. Chapter 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal

from limo_nb.core.machine import cores

Dtype = Literal["auto", "float32", "bfloat16"]

SHAPE = (256, 512, 512)  # rows, inputs, outputs of the product: a small layer's
GAIN = 0.9  # bfloat16 must take at most this share of the time in 32 bits
REPEATS = 5  # the shortest counts: other work makes a product longer, never shorter


@dataclass(frozen=True)
class Precision:
    """A choice: `dtype` is float32 or bfloat16, `why` a phrase."""

    dtype: str
    why: str

    def __str__(self) -> str:
        return f"{self.dtype} ({self.why})"


def settle(dtype: str, device: str | None = None) -> Precision:
    """What `dtype` ("auto", "float32", "bfloat16") means on `device` ("cpu" or "cuda").

    Without a device: the GPU where there is one. What "auto" became is kept for `chosen`.
    """
    import torch

    if dtype != "auto":
        return Precision(dtype, "as asked for")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return _of_gpu() if device.startswith("cuda") else _of_processor()


def chosen() -> dict[str, dict[str, str]]:
    """Device -> the choice that this process made for "auto" there; for manifests."""
    made = {"cuda": _of_gpu, "cpu": _of_processor}
    return {name: asdict(do()) for name, do in made.items() if do.cache_info().currsize}


@cache
def flops_per_second(dtype: str) -> float:
    """Operations of one core in a second, by a short product in `dtype`; timed once."""
    import torch

    rows, inputs, outputs = SHAPE
    return 2 * rows * inputs * outputs / _seconds(_product(getattr(torch, dtype)))


def machine_flops() -> float:
    """Operations in a second of all cores, in what "auto" is here; by short products."""
    return cores() * flops_per_second(settle("auto", "cpu").dtype)


@cache
def _of_gpu() -> Precision:
    import torch

    name = torch.cuda.get_device_name()
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision("bfloat16", f"{name} computes in it")
    return Precision("float32", f"{name} has no bfloat16 units")


@cache
def _of_processor() -> Precision:
    import torch

    plain = _seconds(_product(torch.float32))
    half = _seconds(_product(torch.bfloat16), enough=4 * plain)
    times = f"a product in bfloat16 takes {half / plain:.2g} times as long as in float32"
    where = " on this processor"
    dtype = "bfloat16" if half <= GAIN * plain else "float32"
    return Precision(dtype, times + where)


def _product(dtype: Any) -> Callable[[], Any]:
    """A matrix product of SHAPE in `dtype`, to be timed."""
    import torch

    rows, inputs, outputs = SHAPE
    left, right = (
        torch.ones(rows, inputs, dtype=dtype),
        torch.ones(inputs, outputs, dtype=dtype),
    )
    return lambda: left @ right


def _seconds(work: Callable[[], Any], enough: float = float("inf")) -> float:
    """The shortest time of `work` on one thread; one more than `enough` ends the search."""
    import torch

    before, best = torch.get_num_threads(), float("inf")
    torch.set_num_threads(1)
    try:
        work()  # the first call compiles the kernel
        for _ in range(REPEATS):
            started = time.perf_counter()
            work()
            best = min(best, time.perf_counter() - started)
            if best > enough:
                break
    finally:
        torch.set_num_threads(before)
    return best
