"""Trains what a folder asks for (`job.json`, `rows.jsonl`) and leaves the model there.

A folder that was left half way continues from its last complete checkpoint; `done.json` is
written last. Chapter 6.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel, Trainer
from transformers.trainer import TRAINING_ARGS_NAME

from limo_nb.core.files import write_atomic, write_json
from limo_nb.core.machine import provenance
from limo_nb.inference import load_tokenizer, quiet_bars, weights_of
from limo_nb.sft import adapters, checkpoints, epochs
from limo_nb.sft.auto import choices
from limo_nb.sft.job import ELSEWHERE, HELD_OUT_LOG, TrainingJob, is_done, read_log
from limo_nb.sft.trainer import make_trainer, memory_gib, release, settled_by_all


def run_job(folder: Path, ranks: int = 1, show: Callable[[], None] | None = None) -> None:
    """Train what `folder/job.json` says, unless `done.json` says that it has been done.

    `show` is called when there is something new in the log or in `pace.json`. Raises
    CheckpointRefused where the folder holds checkpoints of another run or of another number
    of ranks.
    """
    job = TrainingJob.load(folder)
    if is_done(folder, job.key):
        return
    point = checkpoints.resume_point(folder, job.key, ranks)  # before a model is loaded
    job = settled_by_all(job)
    trainer = make_trainer(job, folder, ranks, show)
    model = cast(PreTrainedModel, trainer.model)
    if trainer.is_world_process_zero():
        checkpoints.remove_incomplete(folder)
    partial = folder / "model.partial"
    with quiet_bars():
        trainer.train(resume_from_checkpoint=point)
        model.config.use_cache = True
        sizes = _sizes(model)
        if job.settings.lora:
            _save_merged(model, partial, trainer)
        else:
            trainer.save_model(str(partial))  # every rank: ZeRO-3 gathers the weights
    if trainer.is_world_process_zero():
        # It names the folder, so the same model made elsewhere would have another digest,
        # and another digest draws other samples.
        (partial / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        load_tokenizer(job.model).save_pretrained(partial)
        _finish(job, folder, partial, sizes, ranks)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    release(trainer)


def _sizes(model: PreTrainedModel) -> dict[str, int]:
    """Parameters of all of the model, and those that were trained, where these are fewer."""
    # Under ZeRO-3 a rank holds a part of each weight and knows the size of the whole.
    weights = {True: 0, False: 0}
    for weight in model.parameters():
        weights[weight.requires_grad] += getattr(weight, "ds_numel", weight.numel())
    if not weights[False]:
        return {"parameters": weights[True]}
    return {"parameters": weights[False], "adapter_parameters": weights[True]}


def _save_merged(model: PreTrainedModel, partial: Path, trainer: Trainer) -> None:
    """Write the model with its adapters added to its weights, as any model is written."""
    whole = adapters.merged_model(model)
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
        whole.save_pretrained(partial)


def _finish(
    job: TrainingJob, folder: Path, partial: Path, sizes: dict[str, int], ranks: int
) -> None:
    """The model card, the model under its name, `done.json`; then no checkpoints."""
    log, facts = read_log(folder / "log.jsonl"), json.loads((folder / "plan.json").read_text())
    lora, held_out = job.settings.lora, read_log(folder / HELD_OUT_LOG)
    done = {
        "key": job.key,
        **facts,
        "data_sha256": hashlib.sha256((folder / "rows.jsonl").read_bytes()).hexdigest(),
        **sizes,
        "lora": lora.model_dump() if lora else None,
        "ranks": ranks,
        "seconds": log[-1]["seconds"],
        "first_loss": log[0]["loss"],
        "loss": log[-1]["loss"],
        **({"held_out": held_out} if held_out else {}),
        "peak_memory_gib": round(memory_gib(), 3),  # of one rank
        "choices": choices(
            job.settings, job.why, job.model, torch.distributed.is_initialized()
        ),
        **weights_of(job.model),
        **provenance(),
    }
    if job.settings.keep_epochs:
        epochs.keep(folder, job.settings.epochs, partial, load_tokenizer(job.model))
    write_atomic(partial / "README.md", model_card(job, done))
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial.rename(folder / "model")
    write_json(folder / "done.json", done)
    (folder / "pace.json").unlink(missing_ok=True)
    shutil.rmtree(folder / checkpoints.FOLDER, ignore_errors=True)


def model_card(job: TrainingJob, done: dict[str, Any]) -> str:
    """The README of a trained model, from the run that made it."""
    values = [(name, value) for name, value in job.settings if name not in ELSEWHERE]
    settings = "\n".join(f"| {name} | {value} |" for name, value in values)
    versions = ", ".join(f"{name} {value}" for name, value in done["versions"].items())
    base = f" (weights {done['weights']})" if "weights" in done else ""
    lost = f"{len(done['cut'])} rows cut, {len(done['dropped'])} dropped for their length"
    adapted = ""
    if done["lora"]:
        adapted = (
            f"; trained were {done['adapter_parameters']:,} of adapters (LoRA, rank "
            f"{done['lora']['rank']}, alpha {done['lora']['alpha']:g}), now added to them"
        )
    return f"""---
base_model: {re.split("[@#]", job.model)[0]}
library_name: transformers
---
Fine-tuned from `{job.model}`{base} on {done["rows"]} rows by limo_nb, seed {job.seed}.

- Rows: SHA-256 of `rows.jsonl` {done["data_sha256"]}; {lost}
- {done["parameters"]:,} parameters{adapted}
- Steps: {done["steps"]}, tokens read: {done["tokens"]}
- Loss in nats a token: first step {done["first_loss"]:.4f}, last step {done["loss"]:.4f}
- {done["ranks"]} rank(s), {done["seconds"]:.1f} s, at most {done["peak_memory_gib"]} GiB a rank
- {done["choices"]}
- Hardware: {done["hardware"]}; commit {done["commit"]}; Python {done["python"]}; {versions}
- Run key: `{job.key}`
- System prompt in training, to be used in inference: `{job.system_prompt}`

| setting | value |
|---|---|
{settings}
"""
