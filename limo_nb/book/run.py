"""Running the book: every chapter through papermill, in order, once per key.

A chapter's key is a digest of its code cells, of the package below this floor, of the
profile and of the chapters before it. Where the executed notebook with that key exists,
`runs/<profile>/book/NN-name.ipynb`, the chapter is not run again. Prose is not part of
the key: the rendered site takes prose from the chapter and outputs from the run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from limo_nb.core import settings as profiles
from limo_nb.core.files import write_atomic
from limo_nb.core.machine import provenance
from limo_nb.core.precision import ONE_THREAD

# What only this floor uses: no chapter's output depends on it.
SHELL = ("book/run.py", "book/render.py", "book/pairs.py", "cli/")
PACKAGE = Path(__file__).parents[1]
NUMBERED = re.compile(r"(\d\d)-[\w-]+")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the table of contents whose name starts with its number."""

    number: int
    name: str  # "04-questions"
    path: Path  # book/04-questions.ipynb


@dataclass(frozen=True)
class Outcome:
    """What happened to a chapter, and how long its execution took (now or then)."""

    chapter: Chapter
    executed: bool
    seconds: float


class ChapterFailed(RuntimeError):
    """A cell raised; the message says which, why and how to run again."""


# ---------------------------------------------------------------- what there is
def find_root(start: Path | None = None) -> Path:
    """The folder with `_toc.yml` at or above `start` (the current folder)."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").exists():
            return folder
    raise FileNotFoundError(
        f"no _toc.yml in {here} or above: run this inside the book's folder"
    )


def toc_files(root: Path) -> list[str]:
    """The documents that `_toc.yml` names, in order, without suffix."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, Mapping):
            if "file" in node or "root" in node:
                yield node.get("file") or node["root"]
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    return list(walk(yaml.safe_load((root / "_toc.yml").read_text())))


def chapters(root: Path) -> list[Chapter]:
    """The chapters that the book at `root` names, whether written or not."""
    found = []
    for file in toc_files(root):
        match = NUMBERED.fullmatch(Path(file).name)
        if match:
            path = root / f"{file}.ipynb"
            found.append(Chapter(int(match[1]), path.stem, path))
    return found


def runs_root(root: Path) -> Path:
    """Where the book at `root` keeps its runs: `LIMO_NB_RUNS` or `runs/`, absolute."""
    return Path(os.environ.get("LIMO_NB_RUNS") or root / "runs").resolve()


def executed_path(root: Path, profile: str, chapter: Chapter) -> Path:
    """Where the executed notebook of `chapter` lies."""
    return runs_root(root) / profile / "book" / f"{chapter.name}.ipynb"


def read_notebook(path: Path) -> NotebookNode:
    """The notebook at `path`, in format 4; raises FileNotFoundError with the remedy."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: `make sync` makes it from its text; where there is no "
            f"text, take the chapter out of _toc.yml"
        )
    return nbformat.read(path, as_version=4)


def record(path: Path) -> dict[str, Any] | None:
    """What `run_chapters` wrote about an executed notebook, or None if there is none."""
    if not path.exists():
        return None
    return json.loads(path.read_text())["metadata"].get("limo_nb")


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The chapter's code cells, without the one that papermill injected."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and "injected-parameters" not in cell.metadata.get("tags", [])
    ]


# ---------------------------------------------------------------- keys
def _sha(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def package_digest() -> str:
    """A digest of the package's code, data files and lab models, this floor left out."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        relative = path.relative_to(PACKAGE).as_posix()
        if not path.is_file() or "__pycache__" in relative or relative.startswith(SHELL):
            continue
        digest.update(f"{relative}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def data_digest() -> str:
    """Names and sizes under `LIMO_NB_DATA`, whose files chapters 3 and 8 read if it is set."""
    folder = os.environ.get("LIMO_NB_DATA")
    if not folder:
        return "none"
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return _sha(*(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files))


def keys(every: list[Chapter], profile: profiles.Profile) -> dict[str, str]:
    """The keys of `every` chapter from the first on; each includes those before it."""
    ledger = every[0].path.with_name("claims.yml")  # read by the chapters on claims
    rules = ledger.read_text() if ledger.exists() else ""
    key = _sha(package_digest(), data_digest(), profile.model_dump_json(), rules)
    found = {}
    for chapter in every:
        cells = code_cells(read_notebook(chapter.path))
        key = _sha(key, chapter.name, *(cell.source for cell in cells))
        found[chapter.name] = key
    return found


# ---------------------------------------------------------------- running
class Display:
    """One live line on a terminal; elsewhere one line per chapter."""

    def __init__(self, console: Console):
        self.console = console
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = None
        self._where = self._said = ""

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def begin(self, chapter: Chapter) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(chapter.name, total=None)
        self._where, self._said = chapter.name, ""

    def cell(self, chapter: Chapter, index: int, cells: int) -> None:
        self._where = f"{chapter.name}  cell {index + 1}/{cells}"
        self._said = ""
        self._show()

    def hear(self, text: str) -> None:
        """Show the last line of what a cell prints."""
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        if lines:
            self._said = lines[-1].strip()
            self._show()

    def _show(self) -> None:
        width = max(20, self.console.width - len(self._where) - 16)
        self._live.update(self._task, description=f"{self._where}  {self._said[:width]}")

    def line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


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
) -> list[Outcome]:
    """Execute the chapters `from_`…`until` (or `only` one) whose keys are not done yet.

    `force` executes the chosen chapters whatever their keys. Raises ChapterFailed,
    ValueError for a chapter number that does not exist, and BlockingIOError when another
    process is running the same profile.
    """
    root = find_root(root)
    settings = profiles.load(profile, overrides)
    if Path(profile).is_file():  # kernels start in another folder
        profile = str(Path(profile).resolve())
    every = chapters(root)
    chosen = _chosen(every, from_, until, only)
    wanted = keys(every[: every.index(chosen[-1]) + 1], settings)
    parameters = {"profile": profile, "overrides": dict(overrides or {})}
    home = runs_root(root) / settings.name / "book"
    home.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with _alone(home), _environment(root), Display(console or Console()) as display:
        for chapter in chosen:
            path = home / f"{chapter.name}.ipynb"
            known = record(path)
            if known and known["key"] == wanted[chapter.name] and not force:
                display.line(f"{chapter.name}: unchanged since its run of {known['started']}")
                outcomes.append(Outcome(chapter, False, known["seconds"]))
                continue
            facts = {"key": wanted[chapter.name], **parameters}
            seconds = _execute(chapter, path, facts, display)
            display.line(f"{chapter.name}: executed in {seconds:.1f} s")
            outcomes.append(Outcome(chapter, True, seconds))
    return outcomes


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


def _execute(chapter: Chapter, path: Path, facts: dict, display: Display) -> float:
    """Run `chapter` into `path`, which appears only when all cells are done; its seconds."""
    partial = path.with_name(f".{path.stem}.partial.ipynb")
    display.begin(chapter)
    started = time.time()
    try:
        run_notebook(
            chapter.path,
            partial,
            {"profile": facts["profile"], "overrides": facts["overrides"]},
            told=lambda index, cells: display.cell(chapter, index, cells),
            heard=display.hear,
        )
    except Exception as error:
        failed = path.with_name(f"{path.stem}.failed.ipynb")
        if partial.exists():
            partial.replace(failed)
        raise ChapterFailed(_failure(chapter, error, facts, failed)) from error
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


def run_notebook(
    source: Path,
    target: Path,
    parameters: Mapping[str, Any],
    told: Callable[[int, int], None] = lambda index, cells: None,
    heard: Callable[[str], None] = lambda text: None,
) -> None:
    """Execute `source` into `target` by papermill, with this environment's kernel.

    `told(index, cells)` is called for each cell that starts, `heard(text)` for what cells
    print and display. Raises what papermill raises.
    """
    import papermill

    _register_engine()
    papermill.execute_notebook(
        str(source),
        str(target),
        parameters=dict(parameters),
        engine_name="limo-nb",
        kernel_name="python3",
        cwd=str(source.parent),
        progress_bar=False,
        told=told,
        heard=heard,
    )


def _register_engine() -> None:
    """Papermill's own engine, which also tells of cells and output while they happen."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, papermill_engines

    class TellingClient(PapermillNotebookClient):
        def process_message(self, msg, cell, cell_index):
            content = msg["content"]
            self.nb_man.heard(
                content.get("text") or content.get("data", {}).get("text/plain", "")
            )
            return super().process_message(msg, cell, cell_index)

    class TellingEngine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, told, heard, **_):
            start = nb_man.cell_start

            def cell_start(cell, cell_index=None, **rest):
                told(cell_index, len(nb_man.nb.cells))
                start(cell, cell_index, **rest)

            nb_man.cell_start, nb_man.heard = cell_start, heard
            TellingClient(
                nb_man,
                kernel_name=kernel_name,
                timeout=None,
                startup_timeout=120,  # importing can be slow on a machine under load
                # Of the kernel itself: it calls the interrupt that ends it an error.
                extra_arguments=["--log-level=50"],
            ).execute()

    papermill_engines.register("limo-nb", TellingEngine)


def _failure(chapter: Chapter, error: Exception, facts: dict, failed: Path) -> str:
    """What a reader needs to go on: chapter, cell, end of the traceback, command."""
    place = f"chapter {chapter.number} ({chapter.name}) failed"
    detail = f"{type(error).__name__}: {error}"
    if hasattr(error, "cell_index"):  # PapermillExecutionError
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
    with (home / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another `limo-nb run` is working in {home}: wait for it or end it"
            ) from None
        yield


@contextmanager
def _environment(root: Path) -> Iterator[None]:
    """What kernels inherit: this environment's programs and kernel, and one runs folder.

    `JUPYTER_PATH` comes before a user's own kernels, one of which may be a `python3` of
    another environment.
    """
    names = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "JUPYTER_PATH": str(Path(sys.prefix, "share", "jupyter")),
        "LIMO_NB_RUNS": str(runs_root(root)),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Threads that wait must sleep: the workers of a chapter are processes beside it.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", ONE_THREAD["OMP_WAIT_POLICY"]),
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
