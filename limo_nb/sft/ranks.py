"""What each rank runs: train the folders named on the command line, one after the other.

    deepspeed --num_gpus 2 --module limo_nb.sft FOLDER [FOLDER …]
    python -m limo_nb.sft FOLDER [FOLDER …]

The second is one process without DeepSpeed, on a CPU. Each folder was written by
`job.prepare` and receives `log.jsonl`, `model/` and, last, `done.json`. Several folders in one
start save the start-up of the processes. Chapter 6.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from transformers import logging as transformers_logging

from limo_nb.core.files import write_atomic
from limo_nb.sft.train import run_job


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
    # One process without a GPU and without a launcher: nothing to join, nothing to divide.
    alone = "RANK" not in os.environ and not torch.cuda.is_available()
    try:
        if alone:
            quiet_libraries()
        else:
            join_ranks()
        for folder in folders:
            run_job(folder, ranks=1 if alone else torch.distributed.get_world_size())
    except Exception:
        text = traceback.format_exc()
        with suppress(OSError):  # where the disk is full there is no room to say so
            write_atomic(folder / f"error-rank{rank}.txt", text)
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)
        # The other ranks wait in a collective; the launcher ends them when this one ends.
        os._exit(1)
    if not alone:
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    # All is written. Taking the interpreter down beside gloo's threads now and then
    # aborts or hangs; there is nothing left in it to take down.
    os._exit(0)


def quiet_libraries() -> None:
    """Let transformers speak of errors alone, and show no bars."""
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def join_ranks() -> None:
    """Join the other ranks; gloo on a CPU."""
    quiet_libraries()
    # torch 2.13 renamed the collectives that DeepSpeed and transformers call: each of them
    # would say so in two lines, and nobody here can mend it.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
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
