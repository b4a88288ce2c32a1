"""The two representations of a chapter: MyST text, which leads, and its notebook.

`python -m limo_nb.book.pairs sync | check | format`
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from limo_nb.book.contents import find_root, read_notebook
from limo_nb.core.files import write_atomic

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def texts(root: Path) -> list[Path]:
    """The leading texts, in order."""
    return sorted((root / "book" / "text").glob("*.md"))


def notebook_of(text: Path) -> Path:
    """The notebook that is paired with `text`."""
    return text.parent.parent / f"{text.stem}.ipynb"


def from_text(text: Path) -> NotebookNode:
    """The notebook that `text` says, without outputs, the same at every call.

    jupytext draws random cell ids; ours depend on chapter and position, so that a sync
    changes nothing but what was edited.
    """
    notebook = jupytext.read(text, fmt="md:myst")
    for index, cell in enumerate(notebook.cells):
        cell.id = hashlib.sha256(f"{text.stem}/{index}".encode()).hexdigest()[:8]
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def sync(root: Path) -> list[Path]:
    """Write every notebook whose text says something else; return those written."""
    written = []
    for text in texts(root):
        wanted = nbformat.writes(from_text(text), indent=1) + "\n"
        path = notebook_of(text)
        if not path.exists() or path.read_text() != wanted:
            write_atomic(path, wanted)
            written.append(path)
    return written


def pair_differences(root: Path) -> list[str]:
    """What keeps the pairs from being equal and clean; empty when all is well."""
    found = []
    paired = {notebook_of(text) for text in texts(root)}
    for path in sorted((root / "book").glob("*.ipynb")):
        if path not in paired:
            found.append(f"{path.name} has no text/{path.stem}.md")
    for text in texts(root):
        path = notebook_of(text)
        if path.exists():
            found += _differences(text.stem, from_text(text), json.loads(path.read_text()))
        else:
            found.append(f"text/{text.name} has no notebook: run `make sync`")
    return found


def _differences(name: str, text: NotebookNode, notebook: dict) -> list[str]:
    found = []
    for index, cell in enumerate(notebook["cells"], 1):
        if cell.get("outputs") or cell.get("execution_count") is not None:
            found.append(f"{name}.ipynb, cell {index} carries outputs: run `make sync`")
    if len(text.cells) != len(notebook["cells"]):
        counts = (
            f"{len(text.cells)} cells in the text, {len(notebook['cells'])} in the notebook"
        )
        return [*found, f"{name}: {counts}: run `make sync` (the text leads)"]
    for index, (a, b) in enumerate(zip(text.cells, notebook["cells"], strict=True), 1):
        if _content(a) != _content(b):
            found.append(f"{name}, cell {index} differs: run `make sync` (the text leads)")
    return found


def _content(cell: dict) -> tuple:
    source = cell["source"]
    source = source if isinstance(source, str) else "".join(source)
    return cell["cell_type"], source, cell["metadata"].get("tags", []), cell.get("id")


def format_cells(root: Path) -> list[Path]:
    """Let ruff format the code cells, and carry what it changed back to the texts."""
    sync(root)
    paths = [str(notebook_of(text)) for text in texts(root)]
    if not paths:
        return []
    ruff = Path(sys.executable).with_name("ruff")
    subprocess.run([ruff, "check", "--fix", "--quiet", "--exit-zero", *paths], check=True)
    subprocess.run([ruff, "format", "--quiet", *paths], check=True)
    changed = []
    for text in texts(root):
        before, after = jupytext.read(text, fmt="md:myst"), read_notebook(notebook_of(text))
        body = _with_cells(text.read_text(), before, after)
        if body != text.read_text():
            write_atomic(text, body)
            changed.append(text)
    sync(root)
    return changed


def _with_cells(body: str, before: NotebookNode, after: NotebookNode) -> str:
    """`body` with each code cell of `before` replaced by that of `after`, nothing else."""
    cursor = 0
    for old, new in zip(before.cells, after.cells, strict=True):
        if old.cell_type == "code" and old.source.strip():
            place = body.index(f"\n{old.source}\n```", cursor) + 1
            body = body[:place] + new.source + body[place + len(old.source) :]
            cursor = place + len(new.source)
    return body


def main(argument: str) -> int:
    """The entry point of `make sync`, `make format` and the gate; the exit code."""
    root = find_root()
    if argument == "check":
        found = pair_differences(root)
        print("\n".join(found) or f"{len(texts(root))} pairs are equal")
        return 1 if found else 0
    done = {"sync": sync, "format": format_cells}[argument](root)
    print("\n".join(f"wrote {path.relative_to(root)}" for path in done) or "nothing to write")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else "check"))
