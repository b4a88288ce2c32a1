"""Whether a run fits this machine, asked of the planner before anything starts. Chapter 6."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import torch

from limo_nb.core import memory, precision
from limo_nb.core.machine import cores
from limo_nb.core.memory import GB
from limo_nb.core.settings import SftSettings
from limo_nb.inference import shape_if_known
from limo_nb.inference.needs import decoding_parts
from limo_nb.inference.shapes import known_shapes
from limo_nb.sft.auto import attention_kernel, packs_rows
from limo_nb.sft.job import TrainingJob
from limo_nb.sft.planner import Offload, Plan, Setup, plan

LORA_RANK = 16  # of the adapters that are proposed
SHORTEST = 128  # tokens of a row, below which no limit is proposed
PROPOSED = 3
# The share of a product's speed that a step reaches on a CPU, about: attention, norms and the
# optimiser are no products. benchmarks/sft_memory.py prints it.
CPU_SHARE = 0.5


def runs_alone(settings: SftSettings) -> bool:
    """Whether a start has one process without DeepSpeed: one rank, on a CPU.

    ZeRO divides among ranks, and has nothing to divide there; its copies in 32 bits and its
    buffers would only be more. On a GPU one rank is under DeepSpeed, which may offload.
    """
    return settings.ranks == 1 and not torch.cuda.is_available()


def setup_here(job: TrainingJob, alone: bool) -> Setup | None:
    """The run of `job` as this machine would make it, in the memory that is free now.

    `alone` is one process without DeepSpeed. None for a model of whose shape nothing is
    known.
    """
    settings, shape = job.settings, shape_if_known(job.model)
    if shape is None:
        return None
    offload: Offload = "all" if settings.zero_stage == 3 else "optimizer"
    return Setup(
        model=job.model, shape=shape, gpus=1 if alone else settings.ranks,
        gpu_memory=memory.free_memory().free / GB, tokens=job.longest, zero=settings.zero_stage,
        offload=offload if settings.offload and settings.zero_stage and not alone else "none",
        dtype=_settled(settings.dtype),
        checkpointing=settings.gradient_checkpointing, liger=settings.liger,
        packing=packs_rows(settings), rows=job.rows, batch_size=settings.batch_size,
        epochs=settings.epochs, mean_tokens=round(job.tokens / job.rows),
        cpu=not torch.cuda.is_available(), deepspeed=not alone, optimizer=settings.optimizer,
        lora_rank=settings.lora.rank if settings.lora else 0,
        eager=attention_kernel(settings, job.model) == "eager",
    )  # fmt: skip


def check_jobs(jobs: Sequence[TrainingJob], alone: bool) -> str:
    """That the jobs, one after the other, fit this machine; a line on the largest.

    Raises NotEnoughMemory with the numbers and with settings that would fit; "" where
    nothing is known of a model.
    """
    setups = [setup for job in jobs if (setup := setup_here(job, alone))]
    if not setups:
        return ""
    force = all(job.settings.force for job in jobs)
    return check_fit(max(setups, key=lambda setup: plan(setup).whole), force)


def less_for(job: TrainingJob) -> list[str]:
    """Settings with which `job` takes half of its memory, or less."""
    setup = setup_here(job, runs_alone(job.settings))
    return [_said(*found) for found in halving_changes(setup)] if setup else []


def _settled(dtype: precision.Dtype) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if precision.settle(dtype).dtype == "bfloat16" else "float32"


def check_fit(setup: Setup, force: bool = False) -> str:
    """That the run fits, and how long it takes, in one line.

    Raises NotEnoughMemory with the numbers and with settings that would fit.
    """
    made, there = plan(setup), memory.free_memory()
    ranks = f" on {setup.gpus} ranks" if setup.gpus > 1 else ""
    what = f"fine-tuning {setup.model}{ranks} at {setup.tokens:,} tokens a row"
    levers = [] if made.fits else [_said(*found) for found in fitting_changes(setup)]
    said = memory.require(what, made.needs(), there, levers, force)
    return f"{said}; {_time(made)}"


def _said(words: str, other: Plan) -> str:
    return f"{words} ({other.whole / GB:.1f} GB)"


def _time(made: Plan) -> str:
    """About how long the run takes: on a CPU from the speed of a short product."""
    setup = made.setup
    if not setup.cpu:
        return f"about {made.gpu_hours / setup.gpus:.1f} h at {setup.mfu:.0%} of its peak"
    rate = CPU_SHARE * cores() * precision.flops_per_second(setup.dtype)
    length = setup.mean_tokens or setup.tokens
    tokens = setup.rows * setup.epochs * length
    flops = tokens * setup.shape.flops_a_token(length) * (4 / 3 if setup.checkpointing else 1)
    minutes = flops / rate / 60
    said = f"{minutes / 60:.1f} h" if minutes > 90 else f"{max(1, round(minutes))} min"
    return f"about {said} for {tokens:,} tokens at the speed of a short product here"


# ------------------------------------------------------------------------ what takes less
def fitting_changes(setup: Setup) -> list[tuple[str, Plan]]:
    """The least changes with which `setup` fits, in words, each with its plan."""
    return _found(setup, lambda made: made.fits)


def halving_changes(setup: Setup) -> list[tuple[str, Plan]]:
    """The least changes that take half of what `setup` takes, or less."""
    half = plan(setup).whole / 2
    return _found(setup, lambda made: made.whole <= half)


def _found(setup: Setup, enough: Callable[[Plan], bool]) -> list[tuple[str, Plan]]:
    """Changes that are `enough`, the fewest at a time; none that has another one in it."""
    found: list[tuple[str, Plan]] = []
    known: list[set[str]] = []
    levers = dict(_levers(setup))
    for count in (1, 2, 3, 4):
        for names in combinations(levers, count):
            if any(other <= set(names) for other in known):
                continue
            changed = setup
            for name in names:
                changed = replace(changed, **levers[name])
            made = plan(changed)
            if enough(made):
                found.append((", ".join(names), made))
                known.append(set(names))
        if len(found) >= PROPOSED:
            break
    return found[:PROPOSED]


def _levers(setup: Setup) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings that take less, those first that change least of what is computed."""
    if setup.cpu and setup.gpus > 1:
        yield "sft.ranks=1", {"gpus": 1, "deepspeed": False, "zero": 0, "offload": "none"}
    if not setup.checkpointing:
        yield "sft.gradient_checkpointing=true", {"checkpointing": True}
    if not setup.cpu:
        if not setup.liger:
            yield "sft.liger=true", {"liger": True}
        if setup.offload == "none":
            yield "sft.zero_stage=3, sft.offload=true", {"zero": 3, "offload": "all"}
    if setup.optimizer != "adafactor" and not setup.lora_rank and not setup.deepspeed:
        yield "sft.optimizer=adafactor", {"optimizer": "adafactor"}
    if not setup.lora_rank:
        adapters = {"lora_rank": LORA_RANK, "zero": min(setup.zero, 2)}
        yield f"sft.lora={{rank: {LORA_RANK}}}", adapters
    shorter = setup.tokens // 2
    if shorter >= SHORTEST:
        yield f"sft.max_tokens={shorter}", {"tokens": shorter}


# ----------------------------------------------------------------------------- at a glance
def largest_that_fit(tokens: int) -> tuple[str, str]:
    """The largest known models that decode here and that can be fine-tuned, in words.

    Rows have `tokens` tokens; one is decoded at once. "" where none fits.
    """
    known = sorted(known_shapes().items(), key=lambda pair: pair[1].parameters)
    decodes = trains = ""
    free, dtype = memory.free_memory().free, _settled("auto")
    for name, shape in known:
        need = sum(decoding_parts(shape, dtype, 1, tokens).values())
        if need <= free:
            decodes = f"{name} ({need / GB:.1f} GB in {dtype})"
        setup = Setup(
            model=name, shape=shape, gpus=1, gpu_memory=free / GB, tokens=tokens, dtype=dtype,
            cpu=not torch.cuda.is_available(), deepspeed=False, batch_size=1, zero=0,
        )  # fmt: skip
        ways = {"": setup, " with LoRA": replace(setup, lora_rank=LORA_RANK)}
        found = {way: plan(own) for way, own in ways.items()}
        way = next((way for way, made in found.items() if made.fits), None)
        if way is not None:
            trains = f"{name}{way} ({found[way].whole / GB:.1f} GB)"
    return decodes, trains
