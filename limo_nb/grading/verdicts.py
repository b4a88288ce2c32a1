"""Verdicts: whether the final answer of a response is the reference.

Chapter 8; paper, section 4.

`extraction` finds the span, `canonical` writes it one way, `equivalence` compares; here is
what stands around them: three-valued verdicts, batches, and isolation. Most answers are
settled by text and exact numbers in the caller's process. Formulas are valued only in
worker processes with a hard time and memory limit, and no text reaches `eval` or sympy's
`parse_expr`.

Nothing here imports torch, so that a worker starts in a fraction of a second.
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from limo_nb.core.progress import progress_bar
from limo_nb.grading.answers import literal
from limo_nb.grading.canonical import clean
from limo_nb.grading.equivalence import (
    counterparts,
    equivalent,
    quick_match,
)
from limo_nb.grading.extraction import final_answer
from limo_nb.grading.formulas import Finding
from limo_nb.grading.units import registry

__all__ = ["Verdict", "agreement", "clean", "final_answer", "grade", "grade_many"]

CHUNK = 8  # comparisons a worker is handed at once
MEMORY = 2 << 30  # bytes of address space of a worker
PATIENCE = 60  # the limit on the clock, as a multiple of that on processor time
LONGEST = 2000  # characters of an answer that is compared
PROGRESS_FROM = 500  # comparisons from which a progress bar is shown
WARM, WARM_UNITS = "limo_nb.grading.warm", "limo_nb.grading.warm_units"

Reference = str | float | list | tuple | dict  # text, or what a reader of JSON gives
Comparison = tuple[str, str, float]  # a cleaned reference, a cleaned answer, the tolerance


@dataclass(frozen=True)
class Verdict:
    """True, False, or None where it could not be decided; with the answer that was read."""

    correct: bool | None
    answer: str | None  # cleaned; None where the response has no answer
    reason: str


# ---------------------------------------------------------------- the interface
def grade(
    reference: Reference, response: str, tolerance: float = 0.0, boxed_only: bool = False
) -> Verdict:
    """The verdict on one response; see `grade_many`."""
    return grade_many([reference], [response], 1, tolerance=tolerance, boxed_only=boxed_only)[0]


def grade_many(
    references: Sequence[Reference],
    responses: Sequence[str],
    workers: int = 2,
    seconds: float = 5.0,
    tolerance: float | Sequence[float] = 0.0,
    boxed_only: bool = False,
) -> list[Verdict]:
    """The verdicts on `responses`, in order; none takes more than `seconds` to compare.

    A reference is text, or what a reader of JSON made of it: a number, a list, whose order
    does not count, a list of lists, which is a matrix, or a mapping. The text "[1, 2]" is
    an interval; the list [1, 2] is two answers.

    `tolerance` is relative, one for all or one for each, and belongs to the benchmark; a
    reference written as an integer is exact whatever it is. `boxed_only` switches off the
    reading of answers without a box. What rules cannot settle goes to `workers` processes;
    a comparison that needs more than `seconds` of processor time is ended, and its verdict
    is None. Works from scripts, notebook cells, threads and event loops (which it blocks:
    use `asyncio.to_thread`). Raises ValueError where the lengths differ.
    """
    if len(references) != len(responses):
        raise ValueError(f"{len(references)} references for {len(responses)} responses")
    if isinstance(tolerance, int | float):
        tolerance = [tolerance] * len(references)
    verdicts: list[Verdict] = []
    waiting: dict[int, Comparison] = {}
    rows = zip(references, responses, tolerance, strict=True)
    for index, (reference, response, allowed) in enumerate(rows):
        verdict, comparison = _first_look(reference, response, allowed, boxed_only)
        verdicts.append(verdict or Verdict(None, None, "waiting"))
        if comparison:
            waiting[index] = comparison
    if waiting:
        comparisons = list(dict.fromkeys(waiting.values()))  # each is made once
        made = _compare(comparisons, workers, seconds)
        found = dict(zip(comparisons, made, strict=True))
        for index, comparison in waiting.items():
            correct, reason = found[comparison]
            verdicts[index] = Verdict(correct, comparison[1], reason)
    return verdicts


def _as_text(reference: Reference) -> str:
    """A reference as text, also where a reader of JSON made it a number, list or mapping."""
    if isinstance(reference, str):
        return reference
    if isinstance(reference, dict):
        return json.dumps(reference, ensure_ascii=False, default=str)
    if isinstance(reference, list | tuple):
        inner = [
            f"[{_as_text(part)}]" if isinstance(part, list | tuple) else _as_text(part)
            for part in reference
        ]
        nested = any(isinstance(part, list | tuple) for part in reference)
        return f"[{', '.join(inner)}]" if nested else ", ".join(inner)
    return "" if reference is None else str(reference)


def _first_look(
    reference: Reference, response: str, tolerance: float, boxed_only: bool
) -> tuple[Verdict | None, Comparison | None]:
    """A verdict, or the comparison that a worker must make."""
    reference = _as_text(reference)
    if not reference.strip():
        return Verdict(None, None, "no reference"), None
    span = final_answer(response, boxed_only)
    if span is None:
        return Verdict(False, None, "no answer"), None
    if len(span) > LONGEST and len(span) > 2 * len(reference):
        return Verdict(None, span[:LONGEST], f"answer of {len(span)} characters"), None
    answer = clean(span)
    wanted, said = counterparts(literal(reference) or clean(reference), answer)
    settled = quick_match(wanted, said, tolerance)
    if settled is None:
        return None, (wanted, said, float(tolerance))
    return Verdict(settled, answer, "same" if settled else "different"), None


def agreement(
    verdicts: Sequence[Verdict], labels: Sequence[bool | None]
) -> dict[str, int | float]:
    """The counts of verdicts and, where any row has a label, how they agree with it.

    `accuracy` is the share of labelled rows whose verdict is the label, so an unverifiable
    one counts against it. `false_positives` is the share of the rows labelled wrong that
    are taken for correct, `false_negatives` of those labelled correct taken for wrong.
    """
    decided = [verdict.correct for verdict in verdicts]
    found: dict[str, int | float] = {"items": len(decided), "correct": decided.count(True)}
    found |= {"wrong": decided.count(False), "unverifiable": decided.count(None)}
    known = [(v, bool(x)) for v, x in zip(decided, labels, strict=True) if x is not None]
    if known:
        found |= {
            "labelled": len(known),
            "accuracy": _share([v is x for v, x in known]),
            "false_positives": _share([v is True for v, x in known if not x]),
            "false_negatives": _share([v is False for v, x in known if x]),
        }
    return found


def _share(hits: list[bool]) -> float:
    return round(sum(hits) / len(hits), 6) if hits else 0.0


# ---------------------------------------------------------------- what runs in a worker
def _start_worker() -> None:
    """Limit this worker's memory."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not everywhere; the time limit holds regardless


def _decide(comparisons: list[Comparison], seconds: float) -> list[Finding]:
    """The verdicts on cleaned (reference, answer, tolerance); runs in a worker.

    The system ends the worker when one comparison takes more than `seconds` of processor
    time, also inside C code. Time on the clock would depend on what else is running.
    """
    found: list[Finding] = []
    for comparison in comparisons:
        _set_timer(seconds)
        try:
            found.append(equivalent(*comparison))
        except MemoryError:
            found.append((None, "out of memory"))
        except RecursionError:
            found.append((None, "too deeply nested"))
        except Exception as error:  # of a library, on text that nobody foresaw
            found.append((None, f"{type(error).__name__} while comparing"))
    _set_timer(0)
    return found


def _set_timer(seconds: float) -> None:
    """The processor time after which the system ends this process, where it can."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


# ---------------------------------------------------------------- isolation
def _compare(comparisons: list[Comparison], workers: int, seconds: float) -> list[Finding]:
    """The findings on `comparisons`, in order; see `grade_many`.

    A helper process of its own hands the work out: it has neither this process's memory
    (torch, a kernel) nor its main module. The pool in it has threads, so it does not fork
    itself; its fork server does, which has one thread and everything loaded: a worker that
    had to be killed is replaced in milliseconds, and never inherits a lock that is held.
    """
    found: dict[Comparison, Finding] = {}
    shown = len(comparisons) >= PROGRESS_FROM
    request = {"comparisons": comparisons, "workers": workers, "seconds": seconds,
               "units": registry.cache_info().currsize}  # fmt: skip
    bar = progress_bar(len(comparisons), "answers", "grading") if shown else None
    with bar if bar is not None else nullcontext(), _helper(request) as lines:
        for line in lines:
            for comparison, finding in json.loads(line):
                found[tuple(comparison)] = tuple(finding)
                if bar is not None:
                    bar.update()
    return [found[comparison] for comparison in comparisons]


@contextmanager
def _helper(request: dict[str, Any]) -> Iterator[Iterable[str]]:
    """Start `serve_verdicts` in a clean process; the lines that it answers to `request`.

    Raises RuntimeError with its last words if it fails. It and its workers are ended
    when the caller is interrupted.
    """
    # -P: a file of the current folder must not stand in for a module.
    command = [
        sys.executable,
        "-P",
        "-c",
        "from limo_nb.grading.verdicts import serve_verdicts; serve_verdicts()",
    ]
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            encoding="utf-8", env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
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


def serve_verdicts() -> None:
    """The helper process: read a request from stdin, write findings as JSON lines."""
    request = json.load(sys.stdin)
    rows = [tuple(row) for row in request["comparisons"]]
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    count = min(request["workers"], len(chunks))
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([WARM, *([WARM_UNITS] if request["units"] else [])])
    pool = ProcessPool(max_workers=count, initializer=_start_worker, context=context)
    failed = _run(pool, chunks, request["seconds"])
    # What shared a chunk with a comparison that hung is repeated one by one.
    singles = [[row] for chunk, _ in failed for row in chunk]
    for chunk, reason in _run(pool, singles, request["seconds"]):
        _answer(chunk, [(None, reason)])
    pool.stop()
    pool.join()
    if "forkserver" in methods:
        # Waited for, so that what it used counts as used by this process.
        multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined] # no other way


def _answer(chunk: list[Comparison], findings: list[Finding]) -> None:
    print(json.dumps(list(zip(chunk, findings, strict=True))), flush=True)


def _run(
    pool: ProcessPool, chunks: list[list[Comparison]], seconds: float
) -> list[tuple[list[Comparison], str]]:
    """Decide `chunks` and answer; the chunks that were not finished, with the reason."""
    patience = PATIENCE * seconds  # on the clock, for a worker that waits and does not work
    futures = [pool.schedule(_decide, (chunk, seconds), timeout=patience) for chunk in chunks]
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
