"""The training entry: HF `Trainer`, under DeepSpeed in many processes or plain in one.

    deepspeed --num_gpus 2 --module limo_nb.sft FOLDER [FOLDER …]

Each folder holds `job.json` and `rows.jsonl` (see `launch.py`) and receives `log.jsonl`,
`model/` and, last, `done.json`. A folder that was left half way continues from its last
complete checkpoint. Several folders are trained one after the other, which saves the
start-up of the processes. Chapter 6.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers import logging as transformers_logging

from limo_nb.artifacts import peak_memory_gib, provenance, write_atomic, write_json
from limo_nb.generation import load_model, load_tokenizer, quiet_bars
from limo_nb.profiles import SftSettings
from limo_nb.sft.encoding import EMPTY, PlannedRows, collate, encode, plan

MICRO_TOKENS = 16_384  # padded tokens of one forward pass on one rank, at most
CHECKPOINT_SECONDS = 60.0  # what a kill may cost
MARKER = "COMPLETE"  # in a checkpoint: the run's key, written when all else is there


@dataclass(frozen=True)
class Job:
    """What one run depends on; `key` is a digest of all of it and of the rows."""

    model: str
    settings: SftSettings
    seed: int
    system_prompt: str
    key: str
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def save(self, folder: Path) -> None:
        """Write `job.json`."""
        write_json(
            folder / "job.json", {**asdict(self), "settings": self.settings.model_dump()}
        )

    @staticmethod
    def load(folder: Path) -> Job:
        """Read `job.json`."""
        values = json.loads((folder / "job.json").read_text())
        return Job(**{**values, "settings": SftSettings(**values["settings"])})


def micro_batch(settings: SftSettings, ranks: int) -> int:
    """Rows of one forward pass on one rank; raises ValueError where ranks do not fit."""
    share, rest = divmod(settings.batch_size, ranks)
    if rest:
        raise ValueError(
            f"sft.batch_size={settings.batch_size} is not a multiple of sft.ranks={ranks}"
        )
    fits = max(1, MICRO_TOKENS // settings.max_tokens)
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= fits)


def deepspeed_config(settings: SftSettings, micro: int, accumulation: int) -> dict[str, Any]:
    """The DeepSpeed configuration that `settings` describe."""
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.zero_stage == 3:
        # Without this `save_model` writes a folder that has no weights.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
        if settings.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 1.0,
        "zero_optimization": zero,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
        # DeepSpeed's own CPU Adam would be compiled at the first step.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }


def attention_kernel(settings: SftSettings) -> str:
    """The attention that "auto" stands for: FlashAttention 2, SDPA, or plain on a CPU."""
    if settings.attention != "auto" or not torch.cuda.is_available():
        return settings.attention
    return "flash_attention_2" if importlib.util.find_spec("flash_attn") else "sdpa"


def make_trainer(
    job: Job, folder: Path, ranks: int = 1, show: Callable[[dict], None] | None = None
) -> Trainer:
    """The Trainer of `job`; with several ranks, or started by deepspeed, under DeepSpeed.

    `show` receives every row of the log. The loss of a step is the mean over the
    response tokens of its whole batch, on any number of ranks.
    """
    settings = job.settings
    micro = micro_batch(settings, ranks)
    accumulation = settings.batch_size // ranks // micro
    tokenizer = load_tokenizer(job.model)
    lines = (folder / "rows.jsonl").read_text().splitlines()
    encoded = encode(map(json.loads, lines), tokenizer, job.system_prompt, settings.max_tokens)
    steps = plan(encoded.lengths, settings.batch_size, settings.epochs, job.seed)
    under_deepspeed = torch.distributed.is_initialized()
    # The arguments come first: they make `from_pretrained` load the weights in parts.
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        deepspeed=deepspeed_config(settings, micro, accumulation) if under_deepspeed else None,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        max_steps=len(steps),
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=round(settings.warmup_ratio * len(steps)),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        optim="adamw_torch",  # the fused ones of DeepSpeed are compiled for 100 s first
        bf16=settings.dtype == "bfloat16",
        seed=job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Recorder decides
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )
    # DeepSpeed keeps fp32 master weights of a bf16 model; without it the model itself is
    # the fp32 copy, and bf16 is autocast.
    dtype = settings.dtype if under_deepspeed else "float32"
    model, _ = load_model(job.model, dtype, attention_kernel(settings))
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # The name of transformers 5.23 and later, or the one before.
        named = getattr(model, "activation_checkpointing_enable", None)
        (named or model.gradient_checkpointing_enable)()
    pad = tokenizer.pad_token_id
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=PlannedRows(encoded.rows, steps, micro, pad),
        data_collator=partial(collate, pad=pad),
        callbacks=[Recorder(job, folder, encoded.lengths, steps, encoded.cut, show)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


class Recorder(TrainerCallback):
    """Writes `plan.json` and `log.jsonl`, and decides when a checkpoint is due."""

    def __init__(self, job, folder, lengths, steps, cut, show):
        self.job, self.folder, self.show = job, folder, show
        self.tokens = [sum(lengths[row] for row in step if row != EMPTY) for step in steps]
        self.cut, self.rows = cut, len(lengths)

    def on_train_begin(self, args, state, control, **_):
        self.began = self.saved = time.monotonic()
        self.first, self.earlier = state.global_step, 0.0
        if state.is_world_process_zero:
            log = self.folder / "log.jsonl"
            kept = [row for row in read_log(log) if row["step"] <= state.global_step]
            self.earlier = kept[-1]["seconds"] if kept else 0.0
            write_atomic(log, "".join(json.dumps(row) + "\n" for row in kept))
            facts = {"steps": len(self.tokens), "tokens": sum(self.tokens), "rows": self.rows}
            write_json(self.folder / "plan.json", {**facts, "cut": self.cut})

    def on_log(self, args, state, control, logs=None, **_):
        if not state.is_world_process_zero or "loss" not in (logs or {}):
            return
        seconds = time.monotonic() - self.began
        tokens = sum(self.tokens[self.first : state.global_step])
        row = {
            "step": state.global_step,
            "loss": round(logs["loss"], 6),
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(tokens / seconds, 1),
            "seconds": round(self.earlier + seconds, 3),
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.show:
            self.show(row)

    def on_step_end(self, args, state, control, **_):
        due = time.monotonic() - self.saved >= self.job.checkpoint_seconds
        control.should_save = _agreed(due) and state.global_step < state.max_steps

    def on_save(self, args, state, control, **_):
        """All ranks have written their parts: the marker makes the checkpoint count."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_atomic(folder / MARKER, self.job.key)
        self.saved = time.monotonic()


def _agreed(value: bool) -> bool:
    """What rank 0 says: clocks differ, and a checkpoint needs all ranks."""
    if not torch.distributed.is_initialized():
        return value
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flag = torch.tensor([int(value)], device=device)
    torch.distributed.broadcast(flag, 0)
    return bool(flag.item())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of `log.jsonl`; a last line that is being written is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def resume_point(folder: Path, key: str) -> str | None:
    """The newest checkpoint of the run `key` that is complete, if there is one.

    `Trainer` itself would take the one with the highest number, half written or not.
    """
    found = []
    for marker in (folder / "checkpoints").glob(f"checkpoint-*/{MARKER}"):
        if marker.read_text() == key:
            found.append((int(marker.parent.name.split("-")[1]), str(marker.parent)))
    return max(found)[1] if found else None


def run_job(folder: Path, ranks: int = 1, show: Callable[[dict], None] | None = None) -> None:
    """Train what `folder/job.json` says, unless `done.json` says that it has been done."""
    job = Job.load(folder)
    if is_done(folder, job.key):
        return
    trainer = make_trainer(job, folder, ranks, show)
    partial_folder = folder / "model.partial"
    with quiet_bars():
        trainer.train(resume_from_checkpoint=resume_point(folder, job.key))
        trainer.model.config.use_cache = True
        trainer.save_model(str(partial_folder))  # every rank: ZeRO-3 gathers the weights
    if trainer.is_world_process_zero():
        load_tokenizer(job.model).save_pretrained(partial_folder)
        _finish(job, folder, partial_folder, ranks)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    release(trainer)


def is_done(folder: Path, key: str) -> bool:
    """Whether `folder` holds the finished result of the run `key`."""
    done = folder / "done.json"
    return done.exists() and json.loads(done.read_text())["key"] == key


def _finish(job: Job, folder: Path, partial_folder: Path, ranks: int) -> None:
    """The model card, the model under its name, `done.json`; then no checkpoints."""
    log, facts = read_log(folder / "log.jsonl"), json.loads((folder / "plan.json").read_text())
    done = {
        "key": job.key,
        **facts,
        "ranks": ranks,
        "seconds": log[-1]["seconds"],
        "loss": log[-1]["loss"],
        "peak_memory_gib": round(peak_memory_gib(), 3),  # of one rank
        **provenance(),
    }
    write_atomic(partial_folder / "README.md", model_card(job, done))
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial_folder.rename(folder / "model")
    write_json(folder / "done.json", done)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def model_card(job: Job, done: dict[str, Any]) -> str:
    """The README of a trained model, from the run that made it."""
    settings = "\n".join(f"| {name} | {value} |" for name, value in job.settings)
    versions = ", ".join(f"{name} {value}" for name, value in done["versions"].items())
    return f"""---
base_model: {job.model}
library_name: transformers
---
Fine-tuned from `{job.model}` on {done["rows"]} rows by limo_nb, seed {job.seed}.

- Steps: {done["steps"]}, tokens read: {done["tokens"]}, last loss: {done["loss"]:.4f}
- {done["ranks"]} rank(s), {done["seconds"]:.1f} s, at most {done["peak_memory_gib"]} GiB a rank
- Hardware: {done["hardware"]}; commit {done["commit"]}; {versions}
- Run key: `{job.key}`
- System prompt in training, to be used in inference: `{job.system_prompt}`

| setting | value |
|---|---|
{settings}
"""


def release(trainer: Trainer) -> None:
    """Undo what one Trainer leaves in the process, so that the next starts afresh."""
    from accelerate.state import AcceleratorState, GradientState

    under_deepspeed = trainer.is_deepspeed_enabled
    if under_deepspeed:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        trainer.deepspeed.destroy()
        unset_hf_deepspeed_config()
    trainer.accelerator.free_memory()
    AcceleratorState._reset_state(reset_partial_state=not under_deepspeed)
    GradientState._reset_state()
    gc.collect()


# ------------------------------------------------------------------------- the process
def main() -> None:
    """Train the folders named on the command line; one process per rank."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--local_rank", type=int, default=0)  # the launcher prepends it
    folders = parser.parse_args().folders
    if os.environ.get("LIMO_NB_WATCH"):
        threading.Thread(target=_die_with_parent, daemon=True).start()
    rank = int(os.environ.get("RANK", "0"))
    folder = folders[0]
    try:
        _join()
        for folder in folders:
            run_job(folder, ranks=torch.distributed.get_world_size())
    except Exception:
        text = traceback.format_exc()
        write_atomic(folder / f"error-rank{rank}.txt", text)
        print(text, file=sys.stderr, flush=True)
        # The other ranks wait in a collective; the launcher ends them when this one ends.
        os._exit(1)
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # All is written. Taking the interpreter down beside gloo's threads now and then
    # aborts or hangs; there is nothing left in it to take down.
    os._exit(0)


def _join() -> None:
    """Join the other ranks; gloo on a CPU."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    if on_cpu:
        # The shared-memory collective would be compiled at the first start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Before TrainingArguments(use_cpu=True), which otherwise reads a world of one.
    deepspeed.init_distributed(dist_backend="gloo" if on_cpu else "nccl", verbose=False)


def _die_with_parent() -> None:
    """End at once when the pipe to whoever started the launcher closes."""
    while os.read(0, 4096):
        pass
    os._exit(1)
