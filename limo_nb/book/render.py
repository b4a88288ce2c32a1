"""The site: executed chapters, the footer of their run, MathJax, all readable offline.

The build tree `_build/site-src/` holds the book with each chapter's prose from its source
and its outputs from `runs/<profile>/book/`; Jupyter Book renders it with warnings as
errors. The key of what was rendered is written last.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from rich.console import Console

from limo_nb.book import api
from limo_nb.book.contents import (
    Chapter,
    chapters,
    code_cells,
    executed_path,
    find_root,
    read_notebook,
    run_record,
    toc_files,
)
from limo_nb.book.mathjax import install_mathjax
from limo_nb.core.files import write_atomic
from limo_nb.core.progress import PROGRESS
from limo_nb.core.settings import load_profile
from limo_nb.core.syntax import PACKAGE

WIDGET = "application/vnd.jupyter.widget-view+json"
# Comments for formatters and linters, which tell a reader nothing.
FOR_TOOLS = re.compile(r"[ ]+# (?:fmt: skip|noqa\b.*)$", re.MULTILINE)
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"'](?:https?:)?//[^\"']+"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload|modulepreload|icon|prefetch)[\"'])"
    r"[^>]*?\bhref=[\"'](?:https?:)?//[^\"']+",
    re.IGNORECASE,
)


class RenderFailed(RuntimeError):
    """The site was not built; the message says why and which command mends it."""


def build_site(
    profile: str = "mini",
    overrides: Mapping[str, Any] | None = None,
    force: bool = False,
    *,
    pages: Mapping[str, str] | None = None,
    root: Path | None = None,
    console: Console | None = None,
) -> Path:
    """Build `_build/html/` from the chapters' last run in `profile`; its index.html.

    `pages` are more of them, see `assemble`. Nothing is built when nothing changed. Raises
    RenderFailed for a chapter without an up-to-date run, a warning of the build, a missing
    tool, or a page that is not offline.
    """
    root, console = find_root(root), console or Console()
    name = load_profile(profile, overrides).name
    tree, site = root / "_build" / "site-src", root / "_build" / "html"
    key = assemble(root, name, tree, pages)
    key_file = root / "_build" / "html.key"
    index = site / "index.html"
    if not force and index.exists() and key_file.exists() and key_file.read_text() == key:
        console.print(f"site: unchanged, {index}", highlight=False, soft_wrap=True)
        return index
    key_file.unlink(missing_ok=True)
    with console.status("jupyter-book build"):
        _jupyter_book(tree, root)
        install_mathjax(site / "_static" / "mathjax")
    outside = external_requests(site)
    if outside:
        raise RenderFailed("pages load from elsewhere:\n" + "\n".join(outside[:10]))
    write_atomic(key_file, key)
    console.print(f"site: rendered, {index}", highlight=False, soft_wrap=True)
    return index


# ---------------------------------------------------------------- the build tree
def assemble(
    root: Path, profile: str, tree: Path, pages: Mapping[str, str] | None = None
) -> str:
    """Write the build tree for `profile` to `tree`; a digest of all that it holds.

    `pages` are texts in Markdown that are made for it, by their names in `_toc.yml`.
    """
    shutil.rmtree(tree, ignore_errors=True)
    every = chapters(root)
    skipped = shutil.ignore_patterns("*.ipynb", "text", ".*")
    shutil.copytree(root / "book", tree / "book", ignore=skipped)
    shutil.copy(root / "_toc.yml", tree)
    notebooks = {
        chapter: merged(chapter, executed_path(root, profile, chapter), profile)
        for chapter in every
    }
    for name, text in (pages or {}).items():
        (tree / f"{name}.md").write_text(text)
    if f"{api.FOLDER}/index" in toc_files(root):
        _add_api(notebooks, tree / api.FOLDER)
    for chapter, notebook in notebooks.items():
        nbformat.write(notebook, tree / chapter.path.relative_to(root))
    config = yaml.safe_load((root / "_config.yml").read_text())
    config.setdefault("html", {})["extra_footer"] = footer(root, profile, every)
    config["execute"] = {"execute_notebooks": "off"}
    hub = os.environ.get("LIMO_NB_HUB")
    if hub:
        config.setdefault("launch_buttons", {})["jupyterhub_url"] = hub
    (tree / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=True))
    return _digest(tree)


def _add_api(notebooks: Mapping[Chapter, NotebookNode], folder: Path) -> None:
    """Write the pages on the package to `folder`, and links to them at the chapters' ends."""
    found = api.index(notebooks)
    folder.mkdir(exist_ok=True)
    for name, text in api.pages(found).items():
        (folder / name).write_text(text)
    for chapter, notebook in notebooks.items():
        text = api.link_back(chapter, found)
        if text:
            notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="in-the-package"))


def _digest(tree: Path) -> str:
    """Of the tree and of the package, whose docstrings are pages and whose modules render."""
    digest = hashlib.sha256()
    for package in ("jupyter-book", "sphinx-book-theme", "myst-nb", "Sphinx"):
        digest.update(f"{package} {metadata.version(package)}\n".encode())
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi"), *tree.rglob("*")]
    for path in sorted(own for own in files if own.is_file()):
        digest.update(f"{path.name}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def merged(chapter: Chapter, executed: Path, profile: str) -> NotebookNode:
    """The chapter's cells with the outputs of its run, where both have the same code.

    The injected parameters are shown only when they differ from the chapter's own.
    """
    command = f"limo-nb run --profile {profile} --until {chapter.number}"
    if not executed.exists():
        raise RenderFailed(f"{chapter.name} has not been run in {profile!r}: {command}")
    notebook, run = read_notebook(chapter.path), read_notebook(executed)
    ours, theirs = code_cells(notebook), code_cells(run)
    if [cell.source for cell in ours] != [cell.source for cell in theirs]:
        raise RenderFailed(f"{chapter.name} has changed since it was run: {command}")
    for cell, done in zip(ours, theirs, strict=True):
        cell.outputs = _joined(
            output
            for output in done.outputs
            if not {WIDGET, PROGRESS} & set(output.get("data", {}))
        )
        for output in cell.outputs:
            if output.output_type == "stream":  # the reader's clone lies elsewhere
                output.text = output.text.replace(f"{chapter.path.parents[1]}/", "")
        cell.source = FOR_TOOLS.sub("", cell.source)
        cell.execution_count = done.execution_count
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _as_run(cell.source, run)
    return notebook


def _joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Outputs with neighbouring streams of one name put together as they were written.

    MyST-NB would end each of them with a line break: a chain that a model streams word by
    word would stand on the page as one word a line.
    """
    joined: list[NotebookNode] = []
    for output in outputs:
        if (
            joined
            and output.output_type == joined[-1].output_type == "stream"
            and output.name == joined[-1].name
        ):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _as_run(source: str, run: NotebookNode) -> str:
    """The parameters cell as the run had it, so that the page does not misname its profile."""
    said = run.metadata.get("limo_nb", {})
    lines = []
    for line in source.splitlines():
        for name in ("profile", "overrides"):
            match = re.match(rf"{name}\s*=[^#]*?(\s*#.*)?$", line)
            if match and name in said:
                line = f"{name} = {json.dumps(said[name])}{match[1] or ''}"
        lines.append(line)
    return "\n".join(lines)


def footer(root: Path, profile: str, every: list[Chapter]) -> str:
    """What made the outputs of this site: profile, commit, date, hardware, versions."""
    records = [run_record(executed_path(root, profile, chapter)) or {} for chapter in every]
    facts: dict[str, list[str]] = {"commit": [], "hardware": [], "versions": []}
    for row in records:
        versions = {"Python": row.get("python", "unknown"), **row.get("versions", {})}
        said = {
            "commit": str(row.get("commit", "unknown")),
            "hardware": str(row.get("hardware", "unknown")),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        }
        for name, value in said.items():
            if value not in facts[name]:
                facts[name].append(value)
    dates = sorted(str(row["started"]) for row in records if "started" in row)
    when = dates[0] if dates[:1] == dates[-1:] else f"{dates[0]} to {dates[-1]}"
    minutes = sum(row.get("seconds", 0) for row in records) / 60
    parts = [
        f"Outputs of profile <b>{html.escape(profile)}</b>, executed {html.escape(when)}"
        f" in {minutes:.1f} minutes",
        "commit " + html.escape(", ".join(facts["commit"])),
        html.escape("; ".join(facts["hardware"])),
        html.escape("; ".join(facts["versions"])),
    ]
    return f'<p class="limo-run">{" · ".join(parts)}</p>'


# ---------------------------------------------------------------- the build
def _jupyter_book(tree: Path, root: Path) -> None:
    """Run the build afresh: a page that is taken from a cache does not warn again."""
    shutil.rmtree(root / "_build" / "html", ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")
    done = subprocess.run(
        [program, "build", tree, "--path-output", root, "--all", "-W", "--keep-going", "-n"],
        capture_output=True,
        text=True,
    )
    log = root / "_build" / "jupyter-book.log"
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
        warnings = [line for line in plain.splitlines() if "WARNING" in line or "ERROR" in line]
        lines = warnings[:20] or plain.splitlines()[-20:]
        raise RenderFailed("the build warned:\n" + "\n".join(lines) + f"\nAll of it: {log}")


def external_requests(site: Path) -> list[str]:
    """What a browser would fetch from elsewhere while it shows the pages of `site`."""
    found = []
    for page in sorted(site.rglob("*.html")):
        for match in LOADED.finditer(page.read_text()):
            found.append(f"{page.relative_to(site)}: {match[0]}")
    for sheet in sorted(site.rglob("*.css")):
        text = re.sub(r"/\*.*?\*/", "", sheet.read_text(), flags=re.DOTALL)
        for match in re.finditer(r"(?:@import\s+|url\()\s*[\"']?(?:https?:)?//[^\"')]+", text):
            found.append(f"{sheet.relative_to(site)}: {match[0]}")
    return found
