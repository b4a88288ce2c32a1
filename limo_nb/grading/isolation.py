"""Work on text that nobody trusts, in processes that can be killed (chapter 8).

A helper process of its own hands the work out: it has neither the caller's memory (torch,
a kernel) nor its main module. The pool in it has threads, so it does not fork itself; its
fork server does, which has one thread and everything loaded: a worker that had to be killed
is replaced in milliseconds, and never inherits a lock that is held.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from limo_nb.core.progress import progress_bar

CHUNK = 8  # rows a worker is handed at once
MEMORY = 2 << 30  # bytes of address space of a worker
PATIENCE = 60  # the limit on the clock, as a multiple of that on processor time
PROGRESS_FROM = 500  # rows from which a progress bar is shown

Row = tuple[Hashable, ...]  # texts and numbers: the arguments of one call
Found = tuple[Any, str]  # what was found, as JSON has it, and why; (None, why) for a failure


def in_workers(
    work: Callable[..., Found], rows: Sequence[Row], workers: int, seconds: float,
    load: Sequence[str] = (), told: tuple[str, str] = ("answers", "grading"),
) -> list[Found]:  # fmt: skip
    """What `work`, a function of a module, returns for each of `rows`, in order.

    It takes the parts of a row as arguments, and returns a pair of what it found and why.
    A call that needs more than `seconds` of processor time or MEMORY, raises, or ends its
    process leaves (None, reason). Equal rows are done once. `load` names modules that the
    workers have imported from the start; `told` is unit and title of the progress bar.
    """
    different = list(dict.fromkeys(rows))
    found: dict[Row, Found] = {}
    shown = len(different) >= PROGRESS_FROM
    request = {
        "work": [work.__module__, work.__name__], "rows": different, "workers": workers,
        "seconds": seconds, "load": [work.__module__, *load],
    }  # fmt: skip
    bar = progress_bar(len(different), *told) if shown else None
    with bar if bar is not None else nullcontext(), _helper(request) as lines:
        for line in lines:
            for row, finding in json.loads(line):
                found[tuple(row)] = tuple(finding)
                if bar is not None:
                    bar.update()
    return [found[row] for row in rows]


@contextmanager
def _helper(request: dict[str, Any]) -> Iterator[Iterable[str]]:
    """Start `serve_rows` in a clean process; the lines that it answers to `request`.

    Raises RuntimeError with its last words if it fails. It and its workers are ended
    when the caller is interrupted.
    """
    # -P: a file of the current folder must not stand in for a module.
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve_rows; serve_rows()"]
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Sets of texts are walked in an order that the seed of their hashes decides.
    variables = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            encoding="utf-8", env=variables, start_new_session=True,
        )  # fmt: skip
        assert process.stdin and process.stdout  # noqa: S101 # pipes, as asked for above
        try:
            json.dump(request, process.stdin)
            process.stdin.close()
            yield process.stdout
            if process.wait():
                errors.seek(0)
                raise RuntimeError(f"the grading process failed:\n{errors.read()[-2000:]}")
        finally:
            if process.poll() is None:
                _kill(process)
                process.wait()
            process.stdout.close()


def _kill(process: subprocess.Popen) -> None:
    """End a process and all that it started, where the system knows of sessions."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


# ---------------------------------------------------------------- the helper process
def serve_rows() -> None:
    """The helper process: read a request from stdin, write findings as JSON lines."""
    request = json.load(sys.stdin)
    rows = [tuple(row) for row in request["rows"]]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    count = min(request["workers"], len(chunks))
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__, *request["load"]])
    pool = ProcessPool(max_workers=count, initializer=_start_worker, context=context)
    work, seconds = request["work"], request["seconds"]
    failed = _run(pool, work, chunks, seconds)
    # What shared a chunk with a row that hung is repeated one by one.
    singles = [[row] for chunk, _ in failed for row in chunk]
    for chunk, reason in _run(pool, work, singles, seconds):
        _answer(chunk, [(None, reason)])
    pool.stop()
    pool.join()
    if "forkserver" in methods:
        # Waited for, so that what it used counts as used by this process.
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined] # no other way


def _answer(chunk: list[Row], findings: list[Found]) -> None:
    print(json.dumps(list(zip(chunk, findings, strict=True))), flush=True)


def _run(
    pool: ProcessPool, work: list[str], chunks: list[list[Row]], seconds: float
) -> list[tuple[list[Row], str]]:
    """Do `chunks` and answer; the chunks that were not finished, with the reason."""
    patience = PATIENCE * seconds  # on the clock, for a worker that waits and does not work
    futures = [
        pool.schedule(_decide, (work, chunk, seconds), timeout=patience) for chunk in chunks
    ]
    failed = []
    for future, chunk in zip(futures, chunks, strict=True):
        try:
            _answer(chunk, future.result())
        except TimeoutError:
            failed.append((chunk, "out of time"))
        except ProcessExpired as end:
            slow = end.exitcode == -getattr(signal, "SIGPROF", 0)
            failed.append((chunk, "out of time" if slow else "worker died"))
    return failed


# ---------------------------------------------------------------- what runs in a worker
def _start_worker() -> None:
    """Limit this worker's memory, and silence what libraries log."""
    logging.disable(logging.CRITICAL)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not everywhere; the time limit holds regardless


def _decide(work: list[str], rows: list[Row], seconds: float) -> list[Found]:
    """What `work` finds for `rows`.

    The system ends the worker when one call takes more than `seconds` of processor time,
    also inside C code. Time on the clock would depend on what else is running.
    """
    call = getattr(import_module(work[0]), work[1])
    found: list[Found] = []
    for row in rows:
        _set_timer(seconds)
        try:
            finding = call(*row)
            json.dumps(finding)  # what cannot be sent back is this row's failure
            found.append(finding)
        except MemoryError:
            found.append((None, "out of memory"))
        except RecursionError:
            found.append((None, "too deeply nested"))
        except Exception as error:  # of a library, on text that nobody foresaw
            found.append((None, f"{type(error).__name__} in a worker"))
    _set_timer(0)
    return found


def _set_timer(seconds: float) -> None:
    """The processor time after which the system ends this process, where it can."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
