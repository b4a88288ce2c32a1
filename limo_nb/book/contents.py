"""What the book consists of: its root, its table of contents, its chapters, their notebooks.

A chapter is a notebook of `_toc.yml` whose name starts with its number. Its executed copy is
`runs/<profile>/book/NN-name.ipynb`, which says in its metadata what made it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from limo_nb.core.runs import book_root, runs_root

NUMBERED = re.compile(r"(\d\d)-[\w-]+")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the table of contents whose name starts with its number."""

    number: int
    name: str  # "04-questions"
    path: Path  # book/04-questions.ipynb


def find_root(start: Path | None = None) -> Path:
    """The folder with `_toc.yml` at or above `start` (the current folder).

    Raises FileNotFoundError where there is none.
    """
    root = book_root(start)
    if root is None:
        here = start or Path.cwd()
        raise FileNotFoundError(f"no _toc.yml in {here} or above: work in the book's folder")
    return root


def toc_files(root: Path) -> list[str]:
    """The documents that `_toc.yml` names, in order, without suffix."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (node[name] for name in ("root", "file") if name in node)
            node = list(node.values())
        for inner in node if isinstance(node, list) else ():
            yield from walk(inner)

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


def run_record(path: Path) -> dict[str, Any] | None:
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
