"""Digests of code: what changes them, what does not, and what is refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from limo_nb.core import digests
from limo_nb.core.digests import UnknownCapture, code_digest
from limo_nb.core.settings import Sampling, load_profile

PACKAGE = Path(digests.__file__).parents[1]
REACHED = """\
\"\"\"A module.\"\"\"

from limo_nb.inner import value


def used(x):
    \"\"\"Returns x.\"\"\"
    return x  # as it is
"""
MODULES = {
    "reached.py": REACHED,
    "inner.py": "value = 1\n",
    "inner.yaml": "word: 1\n",
    "other.py": "value = 2\n",
    "named.py": "value = 3\n",
    "room/__init__.py": "import lazy_loader\n\n__getattr__, __dir__, __all__ = "
    "lazy_loader.attach_stub(__name__, __file__)\n",
    "room/__init__.pyi": "from .one import first as first\nfrom .two import second as second\n",
    "room/one.py": "def first():\n    return 'limo_nb.named'\n",
    "room/two.py": "def second():\n    return 2\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The floor of the package and some small modules and a room more; its folder."""
    home = tmp_path / "limo_nb"
    (home / "core").mkdir(parents=True)
    (home / "room").mkdir()
    (home / "__init__.py").touch()
    for file in (PACKAGE / "core").iterdir():
        if file.is_file():
            (home / "core" / file.name).write_text(file.read_text())
    for name, text in MODULES.items():
        (home / name).write_text(text)
    return home


def digest(package: Path, code: str) -> str:
    """The digest of function `f` of a script with `code`, in a fresh process."""
    script = package.parent / "script.py"
    script.write_text(
        textwrap.dedent(code)
        + "\nfrom limo_nb.core.digests import code_digest\nprint(code_digest(f))\n"
    )
    command = [sys.executable, script]
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NOTEBOOK = """
    from limo_nb import reached, room

    FACTOR = 2

    def helper(x):
        return FACTOR * reached.used(x)

    def f(folder):
        '''Writes it.'''
        return helper(room.first())
"""


@pytest.mark.parametrize(
    ("edited", "old", "new", "changes"),
    [
        ("reached.py", "return x", "return -x", True),
        ("reached.py", "x  # as it is", "x", False),  # comments,
        ("reached.py", "A module.", "Another text.", False),  # docstrings
        ("reached.py", "Returns x.", "The same.", False),
        ("reached.py", "(x):", "( x ):\n", False),  # and layout are not code
        ("inner.py", "1", "2", True),  # imported by what is reached
        ("inner.yaml", "1", "2", True),  # the data beside it
        ("room/one.py", "return", "return 'and' +", True),  # behind a name of the room's face
        ("named.py", "3", "4", True),  # named by a string of what is reached
        ("room/two.py", "2", "3", False),  # behind another name of the face
        ("other.py", "2", "3", False),
    ],
)
def test_digest_follows_edits_of_reached_code_only(
    package: Path, edited: str, old: str, new: str, changes: bool
) -> None:
    before = digest(package, NOTEBOOK)
    path = package / edited
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (digest(package, NOTEBOOK) != before) is changes


def test_a_room_that_is_handed_on_is_reached_whole(package: Path) -> None:
    code = "from limo_nb import room\n\ndef f(folder):\n    return vars(room)\n"
    before = digest(package, code)
    (package / "room" / "two.py").write_text("def second():\n    return 3\n")
    assert digest(package, code) != before


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("return helper(room.first())", "return -helper(room.first())", True),
        ("return FACTOR * reached.used(x)", "return reached.used(x) * FACTOR", True),
        ("FACTOR = 2", "FACTOR = 3", True),
        ("FACTOR = 2", "FACTOR = 2\n    UNUSED = object()", False),
        ("'''Writes it.'''", "'''Does it.'''  # now", False),
    ],
)
def test_digest_follows_edits_in_the_notebook(
    package: Path, old: str, new: str, changes: bool
) -> None:
    assert old in NOTEBOOK
    before = digest(package, NOTEBOOK)
    assert (digest(package, NOTEBOOK.replace(old, new)) != before) is changes


def test_a_cell_of_a_notebook_is_read_as_a_script_is(tmp_path: Path) -> None:
    """As chapters define stages: cells of a shell of IPython, a class and a lambda too."""
    cells = [
        "class Step:\n    def size(self):\n        return LIMIT\n",
        "LIMIT = 3",
        "def f(folder):\n    return Step().size(), (lambda x: x)(1)",
        "from limo_nb.core.digests import code_digest\nprint(code_digest(f))",
    ]

    def told(*edited: str) -> str:
        code = (
            "from IPython.core.interactiveshell import InteractiveShell\n"
            "shell = InteractiveShell.instance()\n"
            f"for cell in {list(edited)!r}:\n"
            "    assert shell.run_cell(cell, store_history=True).success\n"
        )
        environment = {**os.environ, "IPYTHONDIR": str(tmp_path)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    first, limit, last, ask = cells
    before = told(*cells)
    assert before == told("# A comment.\n" + first, "\n" + limit, last + "  # another", ask)
    assert before != told(first, "LIMIT = 4", last, ask)
    assert before != told(first.replace("return", "return 1 +"), limit, last, ask)
    assert before != told(first, limit, last.replace("lambda x: x", "lambda x: 2"), ask)


# ---------------------------------------------------------------- what is captured
@dataclass(frozen=True)
class Pair:
    left: Any
    right: Any


class Colour(Enum):
    RED = 1
    BLUE = 2


class Engine:
    def __init__(self, model: str) -> None:
        self.identity = {"model": model}

    def run(self, folder: Path) -> None:
        pass


def capturing(value: Any):
    return lambda folder: value


RED = [{"name": "red"}]
TABLES = {
    "data set": Dataset.from_list,
    "frame": pd.DataFrame,
    "column": lambda rows: pd.DataFrame(rows)["name"],
    "array": lambda rows: np.array([row["name"] for row in rows]),
    "objects": lambda rows: np.array([row["name"] for row in rows], dtype=object),
}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2), (1, 1.0), (1, True), ("a", "b"), (None, "None"), (b"a", "a"),
        (range(3), range(4)), (np.float32(1), np.float64(1)), (max, min), (np.exp, np.log),
        ([1, 2], [2, 1]), ([1, 2], (1, 2)), ({1, 2}, {1, 3}), ({"a": 1}, {"a": 2}),
        (Colour.RED, Colour.BLUE), (Pair(1, [2]), Pair(1, [3])),
        (Sampling(seed=1), Sampling(seed=2)), (Path("a"), Path("b")), (Path("a"), "a"),
        (int, str),
        (Engine("a"), Engine("b")), (list[int], list[str]),
        (partial(capturing, 1), partial(capturing, 2)),
        *((make(RED), make([{"name": "blue"}])) for make in TABLES.values()),
    ],
)  # fmt: skip
def test_captured_values_count_by_value(one: Any, other: Any) -> None:
    assert code_digest(capturing(one)) != code_digest(capturing(other))
    assert code_digest(capturing(one)) == code_digest(capturing(one))


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_tables_count_by_their_rows(make: Any) -> None:
    assert code_digest(capturing(make(RED))) == code_digest(capturing(make(list(RED))))


def test_long_patterns_differ_at_their_ends() -> None:
    import re

    one, other = (re.compile("a" * 300 + end) for end in "bc")
    assert code_digest(capturing(one)) != code_digest(capturing(other))


def test_a_path_counts_with_what_lies_there(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "rows.jsonl"
    file.parent.mkdir()
    file.write_text("{}")
    before = [code_digest(capturing(path)) for path in (file, file.parent)]
    file.write_text("{}{}")
    after = [code_digest(capturing(path)) for path in (file, file.parent)]
    assert before[0] != after[0] and before[1] != after[1]


def limit(folder: Path, size: int = 3) -> int:
    return size


def test_digest_sees_through_partials_defaults_methods_and_caches() -> None:
    assert code_digest(partial(limit)) != code_digest(partial(limit, size=4))
    assert code_digest(partial(limit, size=4)) != code_digest(partial(limit, size=5))
    assert code_digest(lambda folder, size=1: size) != code_digest(lambda folder, size=2: size)
    assert code_digest(Engine("a").run) != code_digest(Engine("b").run)
    assert code_digest(cache(limit)) == code_digest(limit)


@pytest.mark.parametrize(
    "value",
    [
        random.Random(1), np.random.default_rng(1), object(), open(os.devnull),
        (n for n in "a"), [object()], {"a": object()}, Pair(1, object()),
        partial(limit, size=object()),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_nobody_can_describe_is_an_error_that_names_it(value: Any) -> None:
    if isinstance(value, partial):
        name = "argument 'size' of a partial limit is a "
    else:
        name = "'value' of capturing.<locals>.<lambda> is a "
    with pytest.raises(UnknownCapture, match=name):
        code_digest(capturing(value))


def test_of_a_profile_counts_what_is_read_of_it() -> None:
    plain, larger = load_profile("smoke"), load_profile("smoke", {"pool.size": 9})

    def size(profile):
        return lambda folder: profile.pool.size

    def sft(profile):
        return lambda folder: profile.sft.epochs

    def whole(profile):
        return lambda folder: print(profile)

    for make, changes in ((size, True), (sft, False), (whole, True)):
        assert (code_digest(make(plain)) != code_digest(make(larger))) is changes
