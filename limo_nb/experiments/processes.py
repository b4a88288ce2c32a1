"""One job a process: what fills a machine with many small trainings or evaluations."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

from limo_nb.core.machine import ONE_THREAD
from limo_nb.core.progress import progress_bar
from limo_nb.inference import ALLOCATOR

Given = TypeVar("Given")
Returned = TypeVar("Returned")


def in_processes(
    function: Callable[[Given], Returned], jobs: Sequence[Given], processes: int, label: str
) -> list[Returned]:
    """What `function` returns for every job, in order; run in resident processes.

    A failing job raises after the ones that run have ended; finished jobs keep what
    they wrote.
    """
    context = get_context("spawn")
    count = max(1, min(processes, len(jobs)))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    with _variables(ONE_THREAD | ALLOCATOR), pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            with progress_bar(len(jobs), "jobs", label) as bar:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _start_worker() -> None:
    """Make this process one of several: one core, no output, no life without its parent."""
    import torch

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
