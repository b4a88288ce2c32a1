"""The key of a chapter: a digest of all that its outputs depend on.

That is its code cells, the package without what only runs and renders the book, the profile,
the data and the chapters before it. Prose is not part of it: the rendered site takes prose
from the chapter and outputs from the run.
"""

from __future__ import annotations

import ast
import hashlib
import os
from pathlib import Path

from limo_nb.book.contents import Chapter, code_cells, read_notebook
from limo_nb.core import syntax
from limo_nb.core.settings import Profile
from limo_nb.core.syntax import PACKAGE

# What runs and renders the book: no chapter's output depends on it.
SHELL = (
    "book/api.py", "book/autodoc.py", "book/contents.py", "book/display.py",
    "book/docstrings.py", "book/keys.py", "book/mathjax.py", "book/notebooks.py",
    "book/pairs.py", "book/render.py", "book/run.py", "cli/",
)  # fmt: skip


def _sha(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def package_digest() -> str:
    """A digest of the package's code, data files and lab models.

    Code counts without comments and docstrings, as in the keys of stages; what runs and
    renders the book, and texts for readers, do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*")):
        relative = path.relative_to(PACKAGE).as_posix()
        if path.suffix in (".pyc", ".md") or relative.startswith(SHELL) or path.is_dir():
            continue
        content = path.read_bytes()
        if path.suffix in (".py", ".pyi"):
            content = ast.unparse(syntax.parsed(content.decode())).encode()
        digest.update(f"{relative}\0".encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def data_digest() -> str:
    """Names and sizes under `LIMO_NB_DATA`, whose files chapters 3 and 8 read if it is set."""
    folder = os.environ.get("LIMO_NB_DATA")
    if not folder:
        return "none"
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return _sha(*(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files))


def chapter_keys(every: list[Chapter], profile: Profile) -> dict[str, str]:
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
