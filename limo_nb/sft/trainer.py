"""HF `Trainer` over the rows of a job: under DeepSpeed in many processes, or plain in one.

The loss of a step is the mean over the response tokens of its whole batch, on any number of
ranks, packed or not. Chapter 6.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from limo_nb.core.files import write_atomic, write_json
from limo_nb.core.machine import peak_memory_gib
from limo_nb.core.precision import settle
from limo_nb.core.settings import SftSettings
from limo_nb.inference import load_model, load_tokenizer, shape_if_known
from limo_nb.sft import adapters, checkpoints, epochs
from limo_nb.sft.auto import attention_kernel, check_ways, packs_rows
from limo_nb.sft.batches import (
    EMPTY,
    PackedRows,
    PaddedRows,
    collate,
    collate_packed,
    schedule_rows,
)
from limo_nb.sft.encoding import EncodedRows, encode
from limo_nb.sft.job import (
    HELD_OUT_LOG,
    HELD_OUT_ROWS,
    HeldOutRow,
    LogRow,
    PaceRow,
    TrainingJob,
    read_log,
)
from limo_nb.sft.passes import micro_batch, pass_limit, rank_share
from limo_nb.sft.planner import CPU_BUCKET, bytes_a_token


def make_trainer(
    job: TrainingJob, folder: Path, ranks: int = 1, show: Callable[[], None] | None = None
) -> Trainer:
    """The Trainer of `job`; with several ranks, or started by deepspeed, under DeepSpeed.

    `show` is called after steps and, once a second, after passes: see the log and `pace.json`.
    """
    tokenizer = load_tokenizer(job.model)
    encoded = encode_job(job, folder, tokenizer)
    settings = job.settings
    steps = schedule_rows(encoded.lengths, settings.batch_size, settings.epochs, job.seed)
    held_out = None
    if (folder / HELD_OUT_ROWS).exists() and (folder / HELD_OUT_ROWS).stat().st_size:
        held_out = encode_job(job, folder, tokenizer, HELD_OUT_ROWS)
    feed = _feed(job, encoded, held_out, steps, ranks, tokenizer.pad_token_id)
    # The arguments come first: they make `from_pretrained` load the weights in parts.
    arguments = _arguments(job, folder, len(steps), feed)
    # DeepSpeed keeps fp32 master weights of a bf16 model; without it the model itself is
    # the fp32 copy, and bf16 is autocast.
    # Frozen weights beside adapters are no copy of anything.
    lean = torch.distributed.is_initialized() or settings.lora
    dtype = settings.dtype if lean else "float32"
    model, _ = load_model(job.model, dtype, attention_kernel(settings, job.model))
    # Without a cache and a mask, positions that begin anew tell that rows are packed.
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # The name of transformers 5.23 and later, or the one before.
        named = getattr(model, "activation_checkpointing_enable", None)
        (named or model.gradient_checkpointing_enable)()
    model = adapters.added(model, settings, job.seed)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=feed.rows,
        eval_dataset=feed.held_out,
        data_collator=feed.collate,
        callbacks=[Recorder(job, folder, encoded, steps, feed.accumulation, show)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def encode_job(
    job: TrainingJob, folder: Path, tokenizer: Any, name: str = "rows.jsonl"
) -> EncodedRows:
    """The rows of `folder` as `job` wants them encoded."""
    lines = (folder / name).read_text().splitlines()
    settings = job.settings
    return encode(
        map(json.loads, lines), tokenizer, job.system_prompt, settings.max_tokens,
        settings.over_length, chat=settings.chat,
    )  # fmt: skip


@dataclass(frozen=True)
class Feed:
    """What a rank reads: `micro` items of `rows` a pass, `accumulation` passes a step."""

    rows: torch.utils.data.Dataset
    collate: Callable[[list], dict[str, torch.Tensor]]
    micro: int
    accumulation: int
    held_out: Any = None  # of the same kind of items as `rows`, None for none


def _feed(
    job: TrainingJob, encoded: EncodedRows, held_out: EncodedRows | None,
    steps: list[list[int]], ranks: int, pad: int,
) -> Feed:  # fmt: skip
    settings, each = job.settings, None
    if not torch.cuda.is_available():
        shape = shape_if_known(job.model)
        checkpointing = settings.gradient_checkpointing
        each = bytes_a_token(shape, settings.dtype, checkpointing) if shape else 1
    tokens = pass_limit(each, alone=not torch.distributed.is_initialized())
    micro = micro_batch(settings, ranks, max(encoded.lengths), tokens)
    if packs_rows(settings):
        packed = PackedRows(encoded.rows, steps, ranks, tokens, pad)
        packs = held_out and [[row] for row in held_out.rows]
        return Feed(packed, collate_packed, 1, packed.passes, packs)
    padded = PaddedRows(encoded.rows, steps, micro, pad)
    passes = rank_share(settings, ranks) // micro
    alone = held_out.rows if held_out else None
    return Feed(padded, partial(collate, pad=pad), micro, passes, alone)


def _arguments(job: TrainingJob, folder: Path, steps: int, feed: Feed) -> TrainingArguments:
    settings, config = job.settings, None
    if torch.distributed.is_initialized():
        config = deepspeed_config(settings, feed.micro, feed.accumulation)
    check_ways(settings, deepspeed=config is not None)
    return TrainingArguments(
        output_dir=str(folder / checkpoints.FOLDER),
        deepspeed=config,
        use_cpu=not torch.cuda.is_available(),
        per_device_train_batch_size=feed.micro,
        gradient_accumulation_steps=feed.accumulation,
        max_steps=steps,
        train_sampling_strategy="sequential",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=round(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        optim=settings.optimizer,  # the fused ones of DeepSpeed are compiled for 100 s first
        bf16=settings.dtype == "bfloat16",
        use_liger_kernel=settings.liger,
        seed=job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Recorder decides
        save_total_limit=2,
        eval_strategy="steps" if feed.held_out else "no",
        eval_steps=steps // settings.epochs if feed.held_out else None,
        eval_on_start=feed.held_out is not None,
        per_device_eval_batch_size=1,  # so that every row weighs the same
        prediction_loss_only=True,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=settings.report_to,
    )


def deepspeed_config(settings: SftSettings, micro: int, accumulation: int) -> dict[str, Any]:
    """The DeepSpeed configuration that `settings` describe."""
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.zero_stage == 3:
        # Without this `save_model` writes a folder that has no weights.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    if not torch.cuda.is_available():
        # The buffer would otherwise be as large as a model, in the memory of all ranks.
        zero["reduce_bucket_size"] = CPU_BUCKET
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


class Recorder(TrainerCallback):
    """Writes `plan.json` and `log.jsonl`, and decides when a checkpoint is due."""

    def __init__(
        self,
        job: TrainingJob,
        folder: Path,
        encoded: EncodedRows,
        steps: list[list[int]],
        passes: int,
        show: Callable[[], None] | None,
    ) -> None:
        self.job, self.folder, self.show, self.passes = job, folder, show, passes
        lengths = encoded.lengths
        self.tokens = [sum(lengths[row] for row in step if row != EMPTY) for step in steps]
        self.epoch = len(steps) // job.settings.epochs  # steps of one
        self.facts = {
            "steps": len(steps), "tokens": sum(self.tokens), "rows": len(lengths),
            "cut": encoded.cut, "dropped": encoded.dropped,
        }  # fmt: skip
        self.began = self.saved = self.earlier = 0.0
        self.first = 0  # steps that were done before this process
        self.paced, self.pass_ = 0.0, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Cut the log to the steps that the checkpoint knows."""
        self.began = self.saved = time.monotonic()
        self.first = state.global_step
        if state.is_world_process_zero:
            kept = self._cut("log.jsonl", state.global_step)
            self._cut(HELD_OUT_LOG, state.global_step)
            self.earlier = kept[-1]["seconds"] if kept else 0.0
            write_json(self.folder / "plan.json", self.facts)

    def _cut(self, name: str, step: int) -> list[Any]:
        """Leave in a log what was known at `step`."""
        log = self.folder / name
        kept = [row for row in read_log(log) if row["step"] <= step]
        if log.exists() or name == "log.jsonl":
            write_atomic(log, "".join(json.dumps(row) + "\n" for row in kept))
        return kept

    def _held_out(self, step: int, loss: float) -> None:
        """Keep what the held-out rows lose now; again after a kill it is the same line."""
        if step % self.epoch:  # a run that continues is evaluated where it starts, too
            return
        known = [row for row in read_log(self.folder / HELD_OUT_LOG) if row["step"] < step]
        row: HeldOutRow = {"step": step, "epoch": step // self.epoch, "loss": round(loss, 6)}
        lines = "".join(json.dumps(own) + "\n" for own in (*known, row))
        write_atomic(self.folder / HELD_OUT_LOG, lines)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Add the step's row to the log, and show it."""
        if state.is_world_process_zero and logs and "eval_loss" in logs:
            self._held_out(state.global_step, logs["eval_loss"])
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        seconds = time.monotonic() - self.began
        tokens = sum(self.tokens[self.first : state.global_step])
        row: LogRow = {
            "step": state.global_step,
            "loss": round(logs["loss"], 6),
            "learning_rate": logs["learning_rate"],
            "tokens_per_second": round(tokens / seconds, 1),
            "seconds": round(self.earlier + seconds, 3),
            "memory_gib": round(memory_gib(), 3),
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        self._pace(state, 0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The passes of a step are counted from here."""
        self.pass_ = 0

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A pass that is not the last of its step: a large model takes minutes for a step."""
        self.pass_ += 1
        if state.is_world_process_zero and time.monotonic() - self.paced >= 1:
            self._pace(state, self.pass_)

    def _pace(self, state: TrainerState, pass_: int) -> None:
        """Write `pace.json`; a step's tokens are divided evenly among its passes."""
        step, self.paced = state.global_step, time.monotonic()
        tokens = sum(self.tokens[self.first : step])
        tokens += self.tokens[step] * pass_ // self.passes if pass_ else 0
        row: PaceRow = {
            "step": step, "pass_": pass_, "passes": self.passes, "tokens": tokens,
            "earlier": sum(self.tokens[: self.first]),
            "seconds": round(self.paced - self.began, 3), "memory_gib": round(memory_gib(), 3),
        }  # fmt: skip
        write_json(self.folder / "pace.json", row)
        if self.show:
            self.show()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint where one is due, on all ranks or on none."""
        due = time.monotonic() - self.saved >= self.job.checkpoint_seconds
        due = _agreed(due) or self._ended(state) > 0
        control.should_save = due and state.global_step < state.max_steps

    def _ended(self, state: TrainerState) -> int:
        """The epoch whose model is kept, where this step is its last; else 0."""
        epoch, rest = divmod(state.global_step, self.epoch)
        return 0 if rest or not self.job.settings.keep_epochs else epoch

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """All ranks have written their parts: the marker makes the checkpoint count."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = self.folder / checkpoints.FOLDER / f"checkpoint-{state.global_step}"
            if self._ended(state):
                tokenizer = load_tokenizer(self.job.model)
                epochs.keep(self.folder, self._ended(state), folder, tokenizer)
            checkpoints.mark_complete(folder, self.job.key, args.world_size)
        self.saved = time.monotonic()


def settled_by_all(job: TrainingJob) -> TrainingJob:
    """`job` in the precision that rank 0 finds: clocks differ, and all must compute alike.

    What was prepared for other machines may say "auto".
    """
    if job.settings.dtype != "auto":
        return job
    found = settle("auto")
    dtype = "bfloat16" if _agreed(found.dtype == "bfloat16") else "float32"
    return replace(
        job, settings=job.settings.model_copy(update={"dtype": dtype}), why=found.why
    )


def _agreed(value: bool) -> bool:
    """What rank 0 says: clocks differ, and a checkpoint needs all ranks."""
    if not torch.distributed.is_initialized():
        return value
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flag = torch.tensor([int(value)], device=device)
    torch.distributed.broadcast(flag, 0)
    return bool(flag.item())


def memory_gib() -> float:
    """Peak memory of this process in GiB: of its GPU where it has one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_memory_gib()


def release(trainer: Trainer) -> None:
    """Undo what one Trainer leaves in the process, so that the next starts afresh."""
    from accelerate.state import AcceleratorState, GradientState

    engine: Any = trainer.deepspeed
    under_deepspeed = trainer.is_deepspeed_enabled
    if under_deepspeed:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        engine.destroy()
        unset_hf_deepspeed_config()
    trainer.accelerator.free_memory()
    AcceleratorState._reset_state(reset_partial_state=not under_deepspeed)
    GradientState._reset_state()
    gc.collect()
