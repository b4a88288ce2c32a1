"""Fine-tuning from a cell: starts DeepSpeed's ranks and shows what they do. Chapter 6."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from limo_nb.core import memory
from limo_nb.core.files import if_free
from limo_nb.core.machine import ONE_THREAD, cores
from limo_nb.core.progress import LiveLine
from limo_nb.core.settings import SftSettings
from limo_nb.inference import ALLOCATOR, is_small
from limo_nb.sft.auto import check_ways, choices
from limo_nb.sft.fit import check_jobs, less_for, runs_alone
from limo_nb.sft.job import (
    CHECKPOINT_SECONDS,
    Task,
    TrainingJob,
    is_done,
    prepare,
    read_log,
    read_pace,
)
from limo_nb.sft.passes import rank_share
from limo_nb.sft.train import run_job

if TYPE_CHECKING:
    from datasets import Dataset

# What a full disk makes of writing: the system's words, and those of `torch.save`.
DISK_FULL = (
    "No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed writing",
    "inline_container.cc",
)  # fmt: skip
RANK_KILLED = "return code = -9"  # how DeepSpeed's launcher says that a rank was killed
ROOM = 2**20  # bytes: with less the ranks cannot even tell why they failed
END_SECONDS = 10.0  # for killed processes to be gone
GRACE_SECONDS = 20.0  # for the processes to end after the last artefact was written


def fine_tune(
    rows: Dataset,
    model: str,
    settings: SftSettings,
    seed: int,
    system_prompt: str,
    folder: Path,
) -> Path:
    """Fine-tune `model` on `rows` under DeepSpeed; the folder of the result.

    `folder` receives `model/`, `log.jsonl` (step, loss, learning_rate, tokens_per_second,
    seconds) and `done.json`. A run that was killed is continued; a finished one is not
    repeated. Raises RuntimeError with the last lines of the rank that failed.
    """
    return fine_tune_many([Task(rows, model, settings, seed, system_prompt, folder)])[0]


def fine_tune_many(
    tasks: Sequence[Task], checkpoint_seconds: float = CHECKPOINT_SECONDS
) -> list[Path]:
    """`fine_tune` for several tasks by one start of the ranks, one after the other.

    Raises ValueError where the tasks differ in their number of ranks.
    """
    counts = {task.settings.ranks for task in tasks}
    if len(counts) > 1:
        raise ValueError(f"one start has one number of ranks, and the tasks have {counts}")
    for task in tasks:
        rank_share(task.settings, task.settings.ranks)  # what ranks cannot share fails here
        check_ways(task.settings, not runs_alone(task.settings))
    jobs = [prepare(task, checkpoint_seconds, here=True) for task in tasks]
    waiting = []
    for task, job in zip(tasks, jobs, strict=True):
        if is_done(task.folder, job.key):
            print(f"{task.folder}: unchanged, {_summary(task.folder)}")
        else:
            waiting.append((task.folder.resolve(), job))
    if waiting:
        with held([folder for folder, _ in waiting]):
            _launch(waiting)
    return [task.folder / "model" for task in tasks]


def fine_tune_here(
    rows: Dataset,
    model: str,
    settings: SftSettings,
    seed: int,
    system_prompt: str,
    folder: Path,
) -> Path:
    """The same Trainer in this process, one rank, without DeepSpeed: for small models."""
    check_ways(settings, deepspeed=False)
    job = prepare(Task(rows, model, settings, seed, system_prompt, folder), here=True)
    if is_done(folder, job.key):
        print(f"{folder}: unchanged, {_summary(folder)}")
        return folder / "model"
    if (said := check_jobs([job], alone=True)) and not is_small(model):
        print(said, flush=True)
    line = LiveLine()
    with held([folder]):
        run_job(folder, show=lambda: line.write(_state(folder)))
    line.finish(f"{folder.name}: {_summary(folder)}")
    return folder / "model"


@contextmanager
def held(folders: Sequence[Path]) -> Iterator[None]:
    """Hold the locks of `folders`; raises RuntimeError where another process trains there."""
    with ExitStack() as stack:
        for folder in folders:
            if not stack.enter_context(if_free(folder / ".training.lock")):
                raise RuntimeError(
                    f"another process trains in {folder}: wait for it, or name another folder"
                )
        yield


def launch_command(folders: Sequence[Path], ranks: int) -> tuple[dict[str, str], list[str]]:
    """(environment, command) that trains `folders`; the command works in a terminal."""
    environment = {}
    if ranks == 1 and not torch.cuda.is_available():  # as `runs_alone`
        return {}, ["python", "-m", "limo_nb.sft", *map(str, folders)]
    if not torch.cuda.is_available():
        threads = max(1, cores() // ranks)
        environment = {
            "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": ONE_THREAD["OMP_WAIT_POLICY"],
        }  # fmt: skip
    command = ["deepspeed", "--num_gpus", str(ranks), "--master_port", str(_free_port())]
    return environment, [*command, "--module", "limo_nb.sft", *map(str, folders)]


def _typed(extra: dict[str, str], command: Sequence[str], folders: Sequence[Path]) -> str:
    """The command as a shell takes it; folders of one parent are written in braces."""
    words = [f"{name}={value}" for name, value in extra.items()]
    names, parents = [folder.name for folder in folders], {folder.parent for folder in folders}
    if len(folders) == 1 or len(parents) > 1 or any(shlex.quote(n) != n for n in names):
        return " ".join([*words, shlex.join(command)])
    together = f"{shlex.quote(str(parents.pop()))}/{{{','.join(names)}}}"
    return " ".join([*words, shlex.join(command[: -len(folders)]), together])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _launch(runs: Sequence[tuple[Path, TrainingJob]]) -> None:
    """Run the ranks in a process group of their own until all folders are done."""
    folders, jobs = [folder for folder, _ in runs], [job for _, job in runs]
    alone = runs_alone(jobs[0].settings)
    said = [choices(job.settings, job.why, job.model, not alone) for job in jobs]
    for words in filter(None, dict.fromkeys([*said, check_jobs(jobs, alone)])):
        print(words)
    extra, command = launch_command(folders, jobs[0].settings.ranks)
    print("In a terminal:", _typed(extra, command, folders), flush=True)
    home = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **extra, "PYTHONPATH": path, "LIMO_NB_WATCH": "1"}
    environment |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if is_small(jobs[0].model):  # else what is kept for the next pass is too much memory
        environment |= ALLOCATOR
    console = folders[0] / "console.log"
    started, line, seen = time.monotonic(), LiveLine(), Seen(memory.kills())
    # `python -m` and not the `deepspeed` script: the environment's folder of scripts
    # need not be on the PATH of a notebook's kernel.
    module = "limo_nb.sft" if alone else "deepspeed.launcher.runner"
    command = [sys.executable, "-m", module, *command[3 if alone else 1 :]]
    with console.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            _watch(process, folders, line, seen)
        finally:
            _end(process)
    _check(runs, process.returncode, console, seen)
    for folder in folders:
        print(f"{folder.name}: {_summary(folder)}")
    line.finish(f"{len(folders)} trained in {time.monotonic() - started:.1f} s with start-up")


@dataclass
class Seen:
    """What was seen of the memory of the ranks while they ran."""

    kills: int  # of the kernel, before they began
    most: int = 0  # bytes that all of them held together
    at: float = 0.0  # when it was looked at last

    def look(self, pid: int) -> None:
        """Look at the process `pid` and its children, once a second."""
        if time.monotonic() - self.at >= 1:
            self.most, self.at = max(self.most, memory.process_bytes(pid)), time.monotonic()


def _watch(
    process: subprocess.Popen, folders: Sequence[Path], line: LiveLine, seen: Seen
) -> None:
    """Show progress until the ranks end; those that outlive their work are not waited for."""
    started, done_at = time.monotonic(), 0.0
    while process.poll() is None:
        line.write(_progress(folders, started))
        seen.look(process.pid)
        time.sleep(0.25)
        if not done_at and all((folder / "done.json").exists() for folder in folders):
            done_at = time.monotonic()
        if done_at and time.monotonic() - done_at > GRACE_SECONDS:
            return


def _end(process: subprocess.Popen) -> None:
    """Kill what is left of the process group: an interrupt leaves no rank behind.

    Nor does a launcher that was killed: its ranks are in the group that bears its number.
    """
    deadline = time.monotonic() + END_SECONDS
    with suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)  # raises when the group is empty
            process.poll()
            time.sleep(0.05)
    process.wait()
    if process.stdin:
        process.stdin.close()


def _check(
    runs: Sequence[tuple[Path, TrainingJob]], status: int, console: Path, seen: Seen
) -> None:
    """Judge by what was left: a rank may abort after its work was done, or before."""
    failed = {
        folder: job
        for folder, job in runs
        if not (is_done(folder, job.key) and any((folder / "model").glob("*.safetensors")))
    }
    if not failed:
        return
    reports = [path for folder in failed for path in sorted(folder.glob("error-rank*.txt"))]
    if reports:
        first = min(reports, key=lambda path: path.stat().st_mtime)
        who, lines = first.stem.removeprefix("error-"), first.read_text().splitlines()
    else:
        who, lines = "the launcher", console.read_text().splitlines()
    tail = "\n".join(lines[-20:])
    first_folder, job = next(iter(failed.items()))
    full = any(phrase in tail for phrase in DISK_FULL)
    full = full or shutil.disk_usage(first_folder).free < ROOM
    cause = f"the disk that holds {first_folder} is full\n" if full else ""
    if status in memory.KILLED or RANK_KILLED in tail:
        cause += f"{memory.killed_words(seen.kills, seen.most, less_for(job))}\n"
    raise RuntimeError(
        f"{cause}fine-tuning in {first_folder} failed with status {status}; {who} said:\n"
        f"{tail}\n"
        f"All output is in {console}; run the same again to continue from the last checkpoint."
    )


def _progress(folders: Sequence[Path], started: float) -> str:
    """One line about the run that is being trained now."""
    for number, folder in enumerate(folders, 1):
        if (folder / "done.json").exists():
            continue
        which = f"{number} of {len(folders)}: " if len(folders) > 1 else ""
        if (folder / "plan.json").exists() and (state := _state(folder)):
            return which + state
        break
    else:
        return "saving"
    return f"{which}{folder.name}: starting, {time.monotonic() - started:.0f} s"


def _state(folder: Path) -> str:
    """Step, loss, rate, tokens and time left, from the log and the newest pass."""
    facts = json.loads((folder / "plan.json").read_text())
    log, now = read_log(folder / "log.jsonl"), read_pace(folder)
    if now is None:
        return ""
    step = f"step {now['step']} of {facts['steps']}"
    if now["pass_"]:
        step += f" and {now['pass_']} of {now['passes']} passes"
    learnt = ""
    if log:
        learnt = f", loss {log[-1]['loss']:.4f}, learning rate {log[-1]['learning_rate']:.2e}"
    rate = now["tokens"] / max(now["seconds"], 1e-9)
    left = (facts["tokens"] - now["earlier"] - now["tokens"]) / max(rate, 1e-9)
    return (
        f"{folder.name}: {step}{learnt}, {rate:,.0f} tokens/s, {now['memory_gib']:.2f} GiB, "
        f"{timedelta(seconds=round(max(0.0, left)))} left"
    )


def _summary(folder: Path) -> str:
    """What a finished run was, in one line."""
    done = json.loads((folder / "done.json").read_text())
    rate = done["tokens"] / max(done["seconds"], 1e-9)
    return (
        f"{done['steps']} steps, last loss {done['loss']:.4f}, {done['seconds']:.1f} s, "
        f"{rate:,.0f} tokens/s, {done['peak_memory_gib']:.2f} GiB a rank"
    )
