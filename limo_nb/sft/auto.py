"""What "auto" stands for on this machine, and why: precision, attention, packing. Chapter 6."""

from __future__ import annotations

import importlib.util

import torch

from limo_nb.core.precision import settle
from limo_nb.core.settings import SftSettings


def attention_kernel(settings: SftSettings) -> str:
    """The attention that "auto" stands for: FlashAttention 2, SDPA, or plain on a CPU."""
    return _attention(settings)[0]


def _attention(settings: SftSettings) -> tuple[str, str]:
    """(kernel, why); "auto" is plain attention on a CPU, where it is faster."""
    if settings.attention != "auto":
        return settings.attention, "as the profile says"
    if not torch.cuda.is_available():
        return "eager", "no GPU"
    if not importlib.util.find_spec("flash_attn"):
        return "sdpa", "flash_attn is not installed"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return "sdpa", f"FlashAttention 2 wants compute capability 8.0, not {major}.{minor}"
    return "flash_attention_2", "flash_attn is installed and the GPU has it"


def packs_rows(settings: SftSettings) -> bool:
    """Whether rows are packed: by default where attention has variable lengths.

    Elsewhere the rows of a pack are kept apart by a dense mask, which costs more than
    padding rows of like length does.
    """
    if settings.packing == "auto":
        return attention_kernel(settings) == "flash_attention_2"
    return settings.packing


def choices(settings: SftSettings, why: str = "") -> str:
    """One line: what "auto" stands for on this machine, and why.

    `why` is the reason for a precision that was settled before.
    """
    kernel, reason = _attention(settings)
    packed = "packed" if packs_rows(settings) else "padded, sorted by length"
    said = "as the profile says" if settings.packing != "auto" else f"attention is {kernel}"
    precision = settle(settings.dtype)
    zero = f"ZeRO stage {settings.zero_stage}" + (", offload to CPU" * settings.offload)
    return (
        f"{zero}; precision: {precision.dtype} ({why or precision.why}); "
        f"attention: {kernel} ({reason}); "
        f"rows: {packed} ({said}); "
        f"gradient checkpointing: {'on' if settings.gradient_checkpointing else 'off'}; "
        f"Liger kernels: {'on' if settings.liger else 'off'}"
    )


def check_liger(settings: SftSettings) -> None:
    """Raise ValueError where Liger kernels are wanted and cannot run on this machine."""
    if not settings.liger:
        return
    if not importlib.util.find_spec("liger_kernel"):
        raise ValueError("sft.liger=true needs Liger kernels: pip install liger-kernel")
    if not torch.cuda.is_available():
        raise ValueError("sft.liger=true needs a GPU: Liger's kernels are written in Triton")
