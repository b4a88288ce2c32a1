"""Shared by all tests: few threads, no network for the model hub, and a toy book."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from limo_nb.core.machine import ONE_THREAD

# Before torch is imported: unit tests and chapters run beside each other.
for name, value in ONE_THREAD.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# The suite's results must not depend on what the caller's shell points to.
for name in ("LIMO_NB_RUNS", "LIMO_NB_DATA", "LIMO_NB_HUB"):
    os.environ.pop(name, None)

# A job in the background is started with Ctrl-C ignored, and what it starts is too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

TOY_TOC = """\
format: jb-book
root: book/index
chapters:
  - file: book/01-first
  - file: book/02-second
  - file: book/bibliography
"""
HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
PARAMETERS = """\
```{code-cell} ipython3
:tags: [parameters]

profile = "mini"  # how large the run is
overrides = {}
```

"""
FIRST = """\
# The first chapter

Numbers come from the run: {glue:text}`first_total` squares, and $x^2$ is one {cite}`limo`.

```{code-cell} ipython3
from myst_nb import glue
from limo_nb import Run

run = Run(profile, overrides)
```

```{code-cell} ipython3
from limo_nb.core.runs import write_json


def squares(folder):
    write_json(folder / "squares.json", [n * n for n in range(5)])


pool = run.make("pool", squares, params={"size": run.profile.pool.size})
total = len(pool.json("squares.json"))
glue("first_total", total, display=False)
print("squares:", total, "in", pool.path)
```
"""
SECOND = """\
# The second chapter

```{code-cell} ipython3
import time
from limo_nb import Run
from limo_nb.core.runs import write_json

run = Run(profile, overrides)
pool = run.load("pool")
```

```{code-cell} ipython3
def slowly(folder):
    for n, square in enumerate(pool.json("squares.json")):
        step = folder / f"step-{n}.json"
        if not step.exists():
            time.sleep(PAUSE)
            write_json(step, square)
        print("step", n, flush=True)


sums = run.make("coarse", slowly, inputs=[pool])
sum(sums.json(f"step-{n}.json") for n in range(5))
```
"""


def make_toy(root: Path, pause: float = 0.0) -> Path:
    """A book of two chapters at `root` with the real configuration; its root."""
    from limo_nb.book import pairs

    text = root / "book" / "text"
    text.mkdir(parents=True)
    (root / "_toc.yml").write_text(TOY_TOC)
    (root / "book" / "index.md").write_text("# A toy book\n\nIt has [one](01-first.ipynb).\n")
    for name in ("bibliography.md", "references.bib", "ruff.toml"):
        shutil.copy(ROOT / "book" / name, root / "book")
    shutil.copytree(ROOT / "book" / "_static", root / "book" / "_static")
    for name in ("_config.yml", "jupytext.toml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for name, body in (("01-first", FIRST), ("02-second", SECOND)):
        title, _, rest = body.partition("\n\n")
        body = HEADER + title + "\n\n" + PARAMETERS + rest.replace("PAUSE", str(pause))
        (text / f"{name}.md").write_text(body)
    pairs.sync(root)
    return root


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A fresh toy book."""
    return make_toy(tmp_path / "toy")


@pytest.fixture
def repository() -> Path:
    """The root of this repository."""
    return ROOT
