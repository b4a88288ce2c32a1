"""Running the book: every chapter through papermill, in order, once per key.

Where the executed notebook with a chapter's key exists, `runs/<profile>/book/NN-name.ipynb`,
the chapter is not run again.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from limo_nb.book.contents import (
    Chapter,
    chapters,
    find_root,
    read_notebook,
    run_record,
)
from limo_nb.book.display import Display
from limo_nb.book.keys import chapter_keys
from limo_nb.book.notebooks import run_notebook
from limo_nb.core import memory
from limo_nb.core.files import if_free, write_atomic
from limo_nb.core.machine import ONE_THREAD, environment, provenance
from limo_nb.core.runs import runs_root
from limo_nb.core.settings import load_profile


@dataclass(frozen=True)
class ChapterRun:
    """What happened to a chapter, and how long its execution took (now or then)."""

    chapter: Chapter
    executed: bool
    seconds: float


class ChapterFailed(RuntimeError):
    """A cell raised; the message says which, why and how to run again."""


def run_chapters(
    profile: str = "mini",
    from_: int | None = None,
    until: int | None = None,
    only: int | None = None,
    force: bool = False,
    overrides: Mapping[str, Any] | None = None,
    *,
    root: Path | None = None,
    console: Console | None = None,
) -> list[ChapterRun]:
    """Execute the chapters `from_`…`until` (or `only` one) whose keys are not done yet.

    `force` executes the chosen chapters whatever their keys. Raises ChapterFailed,
    ValueError for a chapter number that does not exist, and BlockingIOError when another
    process is running the same profile.
    """
    root = find_root(root)
    settings = load_profile(profile, overrides)
    if Path(profile).is_file():  # kernels start in another folder
        profile = str(Path(profile).resolve())
    every = chapters(root)
    chosen = _chosen(every, from_, until, only)
    wanted = chapter_keys(every[: every.index(chosen[-1]) + 1], settings)
    parameters = {"profile": profile, "overrides": dict(overrides or {})}
    home = runs_root(root) / settings.name / "book"
    home.mkdir(parents=True, exist_ok=True)
    done = []
    with _alone(home), environment(_variables(root)), Display(console or Console()) as display:
        for chapter in chosen:
            path = home / f"{chapter.name}.ipynb"
            known = run_record(path)
            if known and known["key"] == wanted[chapter.name] and not force:
                display.line(f"{chapter.name}: unchanged since its run of {known['started']}")
                done.append(ChapterRun(chapter, False, known["seconds"]))
                continue
            facts = {"key": wanted[chapter.name], **parameters}
            seconds = _execute(chapter, path, facts, display)
            display.line(f"{chapter.name}: executed in {seconds:.1f} s")
            done.append(ChapterRun(chapter, True, seconds))
    return done


def _chosen(
    every: list[Chapter], from_: int | None, until: int | None, only: int | None
) -> list[Chapter]:
    numbers = [chapter.number for chapter in every]
    for number in (from_, until, only):
        if number is not None and number not in numbers:
            raise ValueError(f"no chapter {number}; there are {numbers}")
    if only is not None:
        return [chapter for chapter in every if chapter.number == only]
    low, high = from_ or numbers[0], until or numbers[-1]
    return [chapter for chapter in every if low <= chapter.number <= high]


def _execute(chapter: Chapter, path: Path, facts: Mapping[str, Any], display: Display) -> float:
    """Run `chapter` into `path`, which appears only when all cells are done; its seconds."""
    partial = path.with_name(f".{path.stem}.partial.ipynb")
    display.begin(chapter.name)
    started, kills = time.time(), memory.kills()
    try:
        run_notebook(
            chapter.path,
            partial,
            {"profile": facts["profile"], "overrides": facts["overrides"]},
            told=display.cell,
            heard=display.hear,
        )
    except Exception as error:
        failed = path.with_name(f"{path.stem}.failed.ipynb")
        if partial.exists():
            partial.replace(failed)
        told = _failure(chapter, error, facts, failed)
        if memory.kills() > kills:  # of the kernel, say, which then just is dead
            told = f"{told}\nThe system ended a process for want of memory meanwhile."
        raise ChapterFailed(told) from error
    seconds = time.time() - started
    notebook = read_notebook(partial)
    notebook.metadata["limo_nb"] = {
        **facts,
        "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
        "seconds": round(seconds, 1),
        **provenance(),
    }
    write_atomic(path, nbformat.writes(notebook) + "\n")
    partial.unlink()
    path.with_name(f"{path.stem}.failed.ipynb").unlink(missing_ok=True)
    return seconds


def _failure(chapter: Chapter, error: Exception, facts: Mapping[str, Any], failed: Path) -> str:
    """What a reader needs to go on: chapter, cell, end of the traceback, command."""
    place = f"chapter {chapter.number} ({chapter.name}) failed"
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, PapermillExecutionError):
        place += f" in cell {error.cell_index + 1}:\n    " + error.source.strip().split("\n")[0]
        plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        detail = "\n".join(plain.rstrip().splitlines()[-12:])
    options = "".join(f" --override '{k}={v}'" for k, v in facts["overrides"].items())
    return (
        f"{place}\n{detail}\n"
        + (f"All outputs up to there: {failed}\n" if failed.exists() else "")
        + f"After mending it, go on with\n"
        f"    limo-nb run --profile {facts['profile']} --from {chapter.number}{options}"
    )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold this profile's lock; the system releases it whatever ends this process."""
    with if_free(home / ".lock") as free:
        if not free:
            raise BlockingIOError(
                f"another `limo-nb run` is working in {home}: wait for it or end it"
            )
        yield


def _variables(root: Path) -> dict[str, str]:
    """What kernels inherit: this environment's programs and kernel, and one runs folder.

    `JUPYTER_PATH` comes before a user's own kernels, one of which may be a `python3` of
    another environment.
    """
    return {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
        "LIMO_NB_RUNS": str(runs_root(root)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Threads that wait must sleep: the workers of a chapter are processes beside it.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", ONE_THREAD["OMP_WAIT_POLICY"]),
    }
