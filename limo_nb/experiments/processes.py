"""The arms of the experiment: which rows train which model, and what came of it.

The headline arms (chapter 6) are trained by DeepSpeed, all of them by one start; the
small arms of the ablations (chapter 9) by the same `Trainer` in a few resident
processes. Every arm keeps the learning rate, schedule and seeds of its profile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

from limo_nb.core.machine import ONE_THREAD
from limo_nb.core.progress import progress
from limo_nb.inference import (
    ALLOCATOR,
)


def spread(
    function: Callable[[Any], Any], jobs: Sequence[Any], processes: int, label: str
) -> list[Any]:
    """What `function` returns for every job; run in resident processes.

    A failing job raises after the ones that run have ended; finished jobs keep what
    they wrote.
    """
    context = get_context("spawn")
    count = max(1, min(processes, len(jobs)))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    with _variables(ONE_THREAD | ALLOCATOR), pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            with progress(len(jobs), "jobs", label) as bar:
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
    parent_process().join()
    os._exit(1)
