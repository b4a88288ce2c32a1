"""What "auto" stands for on this machine, and why: precision, attention, packing. Chapter 6."""

from __future__ import annotations

import importlib.util

import torch

from limo_nb.core.precision import settle
from limo_nb.core.settings import SftSettings
from limo_nb.inference import is_small


def attention_kernel(settings: SftSettings, model: str = "") -> str:
    """The attention that "auto" stands for: FlashAttention 2, SDPA, or plain on a CPU.

    On a CPU it is SDPA for a `model` that is not small (`inference.is_small`).
    """
    return _attention(settings, model)[0]


def _attention(settings: SftSettings, model: str) -> tuple[str, str]:
    """(kernel, why); "auto" is plain attention for a small model on a CPU: it is faster.

    It keeps the scores of all tokens with all, which in a larger model are gigabytes.
    """
    if settings.attention != "auto":
        return settings.attention, "as the profile says"
    if not torch.cuda.is_available():
        if model and not is_small(model):
            return "sdpa", "no GPU, and scores of so large a model are not kept"
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


def choices(
    settings: SftSettings, why: str = "", model: str = "", deepspeed: bool = True
) -> str:
    """One line: what "auto" stands for on this machine, and why.

    `why` is the reason for a precision that was settled before; `model` is what is trained,
    by its name, and `deepspeed` whether it is in charge.
    """
    kernel, reason = _attention(settings, model)
    packed = "packed" if packs_rows(settings) else "padded, sorted by length"
    said = "as the profile says" if settings.packing != "auto" else f"attention is {kernel}"
    precision = settle(settings.dtype)
    zero = f"ZeRO stage {settings.zero_stage}" + (", offload to CPU" * settings.offload)
    zero = zero if deepspeed else "one process, without DeepSpeed: ZeRO divides among several"
    adapters = f"; LoRA of rank {settings.lora.rank}" if settings.lora else ""
    optimizer = f"; optimiser: {settings.optimizer}" * (settings.optimizer != "adamw_torch")
    return (
        f"{zero}; precision: {precision.dtype} ({why or precision.why}); "
        f"attention: {kernel} ({reason}); "
        f"rows: {packed} ({said}); "
        f"gradient checkpointing: {'on' if settings.gradient_checkpointing else 'off'}; "
        f"Liger kernels: {'on' if settings.liger else 'off'}{optimizer}{adapters}"
    )


def check_liger(settings: SftSettings) -> None:
    """Raise ValueError where Liger kernels are wanted and cannot run on this machine."""
    if not settings.liger:
        return
    if not importlib.util.find_spec("liger_kernel"):
        raise ValueError("sft.liger=true needs Liger kernels: pip install liger-kernel")
    if not torch.cuda.is_available():
        raise ValueError("sft.liger=true needs a GPU: Liger's kernels are written in Triton")


def check_ways(settings: SftSettings, deepspeed: bool) -> None:
    """Raise ValueError for settings that are not there together, or not installed."""
    check_liger(settings)
    if settings.lora and not importlib.util.find_spec("peft"):
        raise ValueError(
            "sft.lora needs PEFT, which is not installed: pip install 'limo-nb[lora]'"
        )
    if settings.lora and deepspeed and settings.zero_stage == 3:
        raise ValueError(
            "sft.lora cannot be had under ZeRO stage 3, where no rank has the weights to which "
            "adapters are added: set sft.zero_stage to 2 or less, or sft.ranks=1 on a CPU"
        )
    if settings.optimizer == "adafactor" and deepspeed and settings.zero_stage:
        raise ValueError(
            "sft.optimizer=adafactor needs whole matrices, and ZeRO makes one long row of "
            "them: set sft.zero_stage=0, or sft.ranks=1 on a CPU"
        )
