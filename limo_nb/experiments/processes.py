"""One job a process: what fills a machine with many small trainings or evaluations."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from limo_nb.core import memory
from limo_nb.core.machine import ONE_THREAD, environment
from limo_nb.core.progress import progress_bar
from limo_nb.core.settings import EngineSettings
from limo_nb.inference import ALLOCATOR, EngineFailed, worker_count

Given = TypeVar("Given")
Returned = TypeVar("Returned")


def in_processes(
    function: Callable[[Given], Returned], jobs: Sequence[Given], processes: int, label: str
) -> list[Returned]:
    """What `function` returns for every job, in order; run in resident processes.

    Several processes have one thread each, a single one all cores. A failing job raises after
    the ones that run have ended; finished jobs keep what they wrote. Raises EngineFailed where
    a process ended without a word, and says whether memory was short.
    """
    context = get_context("spawn")
    count = max(1, min(processes, len(jobs)))
    pool = ProcessPoolExecutor(count, context, _start_worker, (count > 1,))
    variables, before = ALLOCATOR | (ONE_THREAD if count > 1 else {}), memory.kills()
    with environment(variables), pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            with progress_bar(len(jobs), "jobs", label) as bar:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
        except BrokenProcessPool as error:
            less = ["engine.workers=1: one job at a time"] if count > 1 else []
            raise EngineFailed(
                f"a process of {label!r} ended before its job; perhaps "
                f"{memory.killed_words(before, levers=less)}. Finished jobs are kept"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def job_processes(engine: EngineSettings, model: str) -> int:
    """How many jobs that load `model` run at once: `engine.workers`, or what "auto" is.

    A GPU is one job's, and an engine that is no process of ours has one asker.
    """
    import torch

    alone = engine.kind != "transformers" or torch.cuda.is_available()
    return 1 if engine.workers == "auto" and alone else worker_count(engine, model)


def _start_worker(several: bool) -> None:
    """Make this process one of several: one core, no output, no life without its parent."""
    import torch

    if several:
        torch.set_num_threads(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # bars of several processes would mix; errors are raised
        os.dup2(nowhere, stream)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A kernel that was killed would leave workers that wait for jobs for ever."""
    if parent := parent_process():
        parent.join()
    os._exit(1)
