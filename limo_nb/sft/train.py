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
import hashlib
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
from transformers.trainer import TRAINING_ARGS_NAME

from limo_nb.core.files import (
    write_atomic,
    write_json,
)
from limo_nb.core.machine import (
    peak_memory_gib,
    provenance,
)
from limo_nb.core.precision import settle
from limo_nb.core.settings import SftSettings
from limo_nb.inference import (
    load_model,
    load_tokenizer,
    quiet_bars,
)
from limo_nb.sft import epochs
from limo_nb.sft.encoding import (
    EMPTY,
    EncodedRows,
    PackedRows,
    PlannedRows,
    collate,
    collate_packed,
    encode,
    plan,
)

MICRO_TOKENS = 16_384  # padded tokens of one forward pass on one rank, at most
# The same for one process on a CPU, where a pass should leave little more than its caches
# hold: a quarter faster for the lab (benchmarks/RESULTS.md). Under DeepSpeed a pass costs a
# round of messages, and fewer are better.
CACHED_TOKENS = 2048
CHECKPOINT_SECONDS = 60.0  # what a kill may cost
# In a checkpoint: the run's key and its number of ranks, written when all else is there.
MARKER = "COMPLETE"
# Fields of the settings that do not change what a run computes.
ELSEWHERE = {"seeds", "bulk_factor", "versions", "held_out"}


class CheckpointRefused(ValueError):
    """A folder holds the checkpoints or the model of another run."""


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


def micro_batch(
    settings: SftSettings, ranks: int, longest: int | None = None, tokens: int = MICRO_TOKENS
) -> int:
    """Rows of one forward pass on one rank, so that they have at most `tokens`, padded.

    `longest` is the longest row in tokens; without it rows are as long as they may be.
    Raises ValueError where the ranks cannot share a batch.
    """
    share, rest = divmod(settings.batch_size, ranks)
    if rest:
        raise ValueError(
            f"sft.batch_size={settings.batch_size} is not a multiple of sft.ranks={ranks}"
        )
    fits = max(1, tokens // (longest or settings.max_tokens))
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


def settled(settings: SftSettings) -> SftSettings:
    """`settings` with the precision that "auto" stands for on this machine."""
    return settings.model_copy(update={"dtype": settle(settings.dtype).dtype})


def _settled_by_all(settings: SftSettings) -> SftSettings:
    """`settled` by rank 0: clocks differ, and all ranks must compute alike."""
    if settings.dtype != "auto":
        return settings
    half = _agreed(settled(settings).dtype == "bfloat16")
    return settings.model_copy(update={"dtype": "bfloat16" if half else "float32"})


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


def choices(settings: SftSettings) -> str:
    """One line: what "auto" stands for on this machine, and why."""
    kernel, why = _attention(settings)
    packed = "packed" if packs_rows(settings) else "padded, sorted by length"
    said = "as the profile says" if settings.packing != "auto" else f"attention is {kernel}"
    zero = f"ZeRO stage {settings.zero_stage}" + (", offload to CPU" * settings.offload)
    precision = settle(settings.dtype)
    return (
        f"{zero}; precision: {precision}; attention: {kernel} ({why}); rows: {packed} ({said}); "
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


def make_trainer(
    job: Job, folder: Path, ranks: int = 1, show: Callable[[dict], None] | None = None
) -> Trainer:
    """The Trainer of `job`; with several ranks, or started by deepspeed, under DeepSpeed.

    `show` receives every row of the log. The loss of a step is the mean over the
    response tokens of its whole batch, on any number of ranks, packed or not.
    """
    tokenizer = load_tokenizer(job.model)
    encoded = encode_job(job, folder, tokenizer)
    settings = job.settings
    steps = plan(encoded.lengths, settings.batch_size, settings.epochs, job.seed)
    feed = _feed(settings, encoded, steps, ranks, tokenizer.pad_token_id)
    # The arguments come first: they make `from_pretrained` load the weights in parts.
    arguments = _arguments(job, folder, len(steps), feed)
    # DeepSpeed keeps fp32 master weights of a bf16 model; without it the model itself is
    # the fp32 copy, and bf16 is autocast.
    dtype = settings.dtype if torch.distributed.is_initialized() else "float32"
    model, _ = load_model(job.model, dtype, attention_kernel(settings))
    # Without a cache and a mask, positions that begin anew tell that rows are packed.
    model.config.use_cache = False
    if settings.gradient_checkpointing:
        # The name of transformers 5.23 and later, or the one before.
        named = getattr(model, "activation_checkpointing_enable", None)
        (named or model.gradient_checkpointing_enable)()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=feed.rows,
        data_collator=feed.collate,
        callbacks=[Recorder(job, folder, encoded, steps, show)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def encode_job(job: Job, folder: Path, tokenizer: Any) -> EncodedRows:
    """The rows of `folder` as `job` wants them encoded."""
    lines = (folder / "rows.jsonl").read_text().splitlines()
    settings = job.settings
    return encode(
        map(json.loads, lines), tokenizer, job.system_prompt, settings.max_tokens,
        settings.over_length,
    )  # fmt: skip


@dataclass(frozen=True)
class Feed:
    """What a rank reads: `micro` items of `rows` a pass, `accumulation` passes a step."""

    rows: torch.utils.data.Dataset
    collate: Callable[[list], dict[str, torch.Tensor]]
    micro: int
    accumulation: int


def _feed(
    settings: SftSettings, encoded: EncodedRows, steps: list[list[int]], ranks: int, pad: int
) -> Feed:
    alone = not (torch.distributed.is_initialized() or torch.cuda.is_available())
    tokens = CACHED_TOKENS if alone else MICRO_TOKENS
    micro = micro_batch(settings, ranks, max(encoded.lengths), tokens)
    if packs_rows(settings):
        packed = PackedRows(encoded.rows, steps, ranks, tokens, pad)
        return Feed(packed, collate_packed, 1, packed.passes)
    planned = PlannedRows(encoded.rows, steps, micro, pad)
    return Feed(
        planned, partial(collate, pad=pad), micro, settings.batch_size // ranks // micro
    )


def _arguments(job: Job, folder: Path, steps: int, feed: Feed) -> TrainingArguments:
    settings, config = job.settings, None
    if torch.distributed.is_initialized():
        config = deepspeed_config(settings, feed.micro, feed.accumulation)
    check_liger(settings)
    return TrainingArguments(
        output_dir=str(folder / "checkpoints"),
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
        optim="adamw_torch",  # the fused ones of DeepSpeed are compiled for 100 s first
        bf16=settings.dtype == "bfloat16",
        use_liger_kernel=settings.liger,
        seed=job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # Recorder decides
        save_total_limit=2,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
    )


class Recorder(TrainerCallback):
    """Writes `plan.json` and `log.jsonl`, and decides when a checkpoint is due."""

    def __init__(self, job, folder, encoded, steps, show):
        self.job, self.folder, self.show = job, folder, show
        lengths = encoded.lengths
        self.tokens = [sum(lengths[row] for row in step if row != EMPTY) for step in steps]
        self.epoch = len(steps) // job.settings.epochs  # steps of one
        self.facts = {
            "steps": len(steps), "tokens": sum(self.tokens), "rows": len(lengths),
            "cut": encoded.cut, "dropped": encoded.dropped,
        }  # fmt: skip

    def on_train_begin(self, args, state, control, **_):
        self.began = self.saved = time.monotonic()
        self.first, self.earlier = state.global_step, 0.0
        if state.is_world_process_zero:
            log = self.folder / "log.jsonl"
            kept = [row for row in read_log(log) if row["step"] <= state.global_step]
            self.earlier = kept[-1]["seconds"] if kept else 0.0
            write_atomic(log, "".join(json.dumps(row) + "\n" for row in kept))
            write_json(self.folder / "plan.json", self.facts)

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
            "memory_gib": round(memory_gib(), 3),  # the peak of this rank
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        if self.show:
            self.show(row)

    def on_step_end(self, args, state, control, **_):
        due = time.monotonic() - self.saved >= self.job.checkpoint_seconds
        due = _agreed(due) or self._ended(state) > 0
        control.should_save = due and state.global_step < state.max_steps

    def _ended(self, state) -> int:
        """The epoch whose model is kept, where this step is its last; else 0."""
        epoch, rest = divmod(state.global_step, self.epoch)
        return 0 if rest or not self.job.settings.keep_epochs else epoch

    def on_save(self, args, state, control, **_):
        """All ranks have written their parts: the marker makes the checkpoint count."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if self._ended(state):
                tokenizer = load_tokenizer(self.job.model)
                epochs.keep(self.folder, self._ended(state), folder, tokenizer)
            write_json(folder / MARKER, {"key": self.job.key, "ranks": args.world_size})
        self.saved = time.monotonic()


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


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of `log.jsonl`; a last line that is being written is left out."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def markers(folder: Path) -> dict[Path, dict[str, Any]]:
    """The complete checkpoints of `folder`, oldest first, with what their markers say."""
    found = (folder / "checkpoints").glob(f"checkpoint-*/{MARKER}")
    ordered = sorted(found, key=lambda marker: int(marker.parent.name.split("-")[1]))
    return {marker.parent: json.loads(marker.read_text()) for marker in ordered}


def resume_point(folder: Path, key: str, ranks: int) -> str | None:
    """The newest checkpoint of the run `key` that is complete, if there is one.

    `Trainer` itself would take the one with the highest number, half written or not.
    Raises CheckpointRefused for checkpoints of another run or number of ranks.
    """
    last = None
    for checkpoint, said in markers(folder).items():
        if said["key"] != key:
            raise CheckpointRefused(
                f"{checkpoint} is of another run ({said['key']}, this one is {key}): name "
                f"another folder, or delete {folder / 'checkpoints'}"
            )
        if said["ranks"] != ranks:
            raise CheckpointRefused(
                f"{checkpoint} was written by {said['ranks']} ranks and this run has {ranks}: "
                "each rank kept its own part of the optimiser, and the parts fit no other "
                f"number. Start {said['ranks']} ranks, or delete {folder / 'checkpoints'} "
                "to begin anew"
            )
        last = str(checkpoint)
    return last


def remove_incomplete(folder: Path) -> None:
    """Delete the checkpoints that a killed run left without a marker."""
    complete = markers(folder)
    for checkpoint in (folder / "checkpoints").glob("checkpoint-*"):
        if checkpoint not in complete:
            shutil.rmtree(checkpoint)


def run_job(folder: Path, ranks: int = 1, show: Callable[[dict], None] | None = None) -> None:
    """Train what `folder/job.json` says, unless `done.json` says that it has been done."""
    job = Job.load(folder)
    if is_done(folder, job.key):
        return
    point = resume_point(folder, job.key, ranks)  # refused before a model is loaded
    # What was prepared for other machines may say "auto".
    job = replace(job, settings=_settled_by_all(job.settings))
    trainer = make_trainer(job, folder, ranks, show)
    if trainer.is_world_process_zero():
        remove_incomplete(folder)
    partial_folder = folder / "model.partial"
    with quiet_bars():
        trainer.train(resume_from_checkpoint=point)
        trainer.model.config.use_cache = True
        trainer.save_model(str(partial_folder))  # every rank: ZeRO-3 gathers the weights
    if trainer.is_world_process_zero():
        # It names the folder, so the same model made elsewhere would have another digest,
        # and another digest draws other samples.
        (partial_folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
        load_tokenizer(job.model).save_pretrained(partial_folder)
        _finish(job, folder, partial_folder, trainer, ranks)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    release(trainer)


def is_done(folder: Path, key: str) -> bool:
    """Whether `folder` holds the finished result of the run `key`."""
    done = folder / "done.json"
    return done.exists() and json.loads(done.read_text())["key"] == key


def _finish(job: Job, folder: Path, partial_folder: Path, trainer: Trainer, ranks: int) -> None:
    """The model card, the model under its name, `done.json`; then no checkpoints."""
    log, facts = read_log(folder / "log.jsonl"), json.loads((folder / "plan.json").read_text())
    weights = trainer.model.parameters()
    done = {
        "key": job.key,
        **facts,
        "data_sha256": hashlib.sha256((folder / "rows.jsonl").read_bytes()).hexdigest(),
        # Under ZeRO-3 a rank holds a part of each weight and knows the size of the whole.
        "parameters": sum(getattr(p, "ds_numel", p.numel()) for p in weights),
        "ranks": ranks,
        "seconds": log[-1]["seconds"],
        "first_loss": log[0]["loss"],
        "loss": log[-1]["loss"],
        "peak_memory_gib": round(memory_gib(), 3),  # of one rank
        "choices": choices(job.settings),
        **provenance(),
    }
    if job.settings.keep_epochs:
        tokenizer = load_tokenizer(job.model)
        epochs.keep(folder, job.settings.epochs, partial_folder, tokenizer)
    write_atomic(partial_folder / "README.md", model_card(job, done))
    shutil.rmtree(folder / "model", ignore_errors=True)
    partial_folder.rename(folder / "model")
    write_json(folder / "done.json", done)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def model_card(job: Job, done: dict[str, Any]) -> str:
    """The README of a trained model, from the run that made it."""
    values = [(name, value) for name, value in job.settings if name not in ELSEWHERE]
    settings = "\n".join(f"| {name} | {value} |" for name, value in values)
    versions = ", ".join(f"{name} {value}" for name, value in done["versions"].items())
    lost = f"{len(done['cut'])} rows cut, {len(done['dropped'])} dropped for their length"
    return f"""---
base_model: {job.model}
library_name: transformers
---
Fine-tuned from `{job.model}` on {done["rows"]} rows by limo_nb, seed {job.seed}.

- Rows: SHA-256 of `rows.jsonl` {done["data_sha256"]}; {lost}
- {done["parameters"]:,} parameters
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
        with suppress(OSError):  # where the disk is full there is no room to say so
            write_atomic(folder / f"error-rank{rank}.txt", text)
        with suppress(OSError):
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
