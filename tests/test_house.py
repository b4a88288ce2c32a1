"""The house: rooms on floors, faces that are true, one name for one thing, a light door."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

import limo_nb
from limo_nb.book import pairs
from limo_nb.core import syntax

PACKAGE = Path(limo_nb.__file__).parent
# Imports go down: a room uses those on the floors before its own.
FLOORS = (
    ("core",),
    ("lab", "grading"),
    ("inference", "problems"),
    ("selection", "chains", "sft", "evaluation"),
    ("book", "experiments"),
    ("evidence",),
    ("cli",),
)
ROOMS = [room for floor in FLOORS for room in floor]
# Public names that stand twice in the package, each with its reason; short, and shrinking.
EXCEPTIONS: dict[str, str] = {
    "main": "what a script or a command starts with",
}


def modules() -> dict[str, Path]:
    """Every module of the package and its file."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == PACKAGE / "__main__.py":  # `python -m limo_nb`, the door to cli
            continue
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports() -> dict[str, set[str]]:
    """Module -> the package's modules behind its imports, those in functions too."""
    return {
        name: {
            other
            for other in syntax.imported_in(ast.parse(file.read_text("utf-8")))
            if other.startswith("limo_nb.") and other != name
        }
        for name, file in MODULES.items()
    }


def room_of(module: str) -> str:
    return f"{module}.".split(".")[1]


# ---------------------------------------------------------------- floors
def test_every_module_belongs_to_a_room_and_every_room_to_a_floor() -> None:
    rooms = {room_of(name) for name in MODULES if name != "limo_nb"}
    assert rooms == set(ROOMS) and len(ROOMS) == len(set(ROOMS))
    assert len(FLOORS) <= 8
    assert {file.name for file in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_imports_go_down_only() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    upwards = [
        f"{name} imports {other}"
        for name, others in imports().items()
        for other in sorted(others)
        if name != "limo_nb" and room_of(name) != room_of(other)
        and floor[room_of(name)] <= floor[room_of(other)]
    ]  # fmt: skip
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = {name: others for name, others in imports().items() if name != "limo_nb"}
    TopologicalSorter(known).prepare()  # raises CycleError, which names the circle


# ---------------------------------------------------------------- faces
@pytest.mark.parametrize("name", ["limo_nb", *(f"limo_nb.{room}" for room in ROOMS)])
def test_every_room_says_what_it_is_for_and_keeps_what_its_face_promises(name: str) -> None:
    room = importlib.import_module(name)
    assert len((room.__doc__ or "").split()) > 15
    offered = syntax.face(name)
    if name == "limo_nb.cli":  # its face is the command
        assert not offered
        return
    assert set(room.__all__) == set(offered) != set()
    inside = {other.rpartition(".")[2] for other in MODULES if other.rpartition(".")[0] == name}
    for own in offered:
        value = getattr(room, own)
        assert inspect.ismodule(value) is (own in inside), f"{own} is a module too"


def test_the_door_offers_the_functions_that_most_people_want() -> None:
    functions = set(limo_nb.__all__) - set(ROOMS)
    assert {
        "Run", "Sampling", "Verdict", "compare", "convert", "decontaminate", "evaluate",
        "fine_tune", "grade", "grade_many", "load_profile", "plan", "sample", "score", "select",
    } <= functions  # fmt: skip
    assert len(functions) <= 20
    for name in functions:
        assert (getattr(limo_nb, name).__doc__ or "").strip(), name


LIGHT = """
import sys, time
started = time.process_time()
import limo_nb
limo_nb.Run, limo_nb.__version__, dir(limo_nb)
print(time.process_time() - started)
heavy = {"torch", "transformers", "datasets", "pandas", "sympy", "matplotlib", "IPython"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_the_door_is_light() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "" and float(seconds) < 0.3


def test_types_are_for_users_too() -> None:
    assert (PACKAGE / "py.typed").exists()


# ---------------------------------------------------------------- names
def public(file: Path) -> Iterator[str]:
    """The classes and functions that `file` defines for others, commands left out."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            command = any(".command" in ast.unparse(own) for own in node.decorator_list)
            if not node.name.startswith("_") and not command:
                yield node.name


def test_no_two_public_classes_or_functions_have_one_name() -> None:
    places = defaultdict(list)
    for module, file in MODULES.items():
        for name in public(file):
            places[name].append(module)
    twice = {name: own for name, own in places.items() if len(own) > 1}
    assert {name: own for name, own in twice.items() if name not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(twice), "exceptions that are none any more"


def chapter_code(file: Path) -> ast.Module:
    """The code cells of a chapter's text as one syntax tree."""
    notebook = pairs.from_text(file)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return ast.parse("\n".join(cells))


CHAPTERS = sorted((ROOT / "book" / "text").glob("*.md"))


@pytest.mark.parametrize("file", CHAPTERS, ids=lambda file: file.stem)
def test_chapters_use_only_names_that_exist(file: Path) -> None:
    """What a cell takes of the package is there, before an hour of chapters shows it."""
    tree, known, missing = chapter_code(file), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("limo_nb"):
            home = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    found = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    found = getattr(home, alias.name, None)
                    if found is None:
                        missing.append(f"{node.module}.{alias.name}")
                if inspect.ismodule(found):
                    known[alias.asname or alias.name] = found
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = known.get(node.value.id)
            if module is not None and not hasattr(module, node.attr):
                missing.append(f"{module.__name__}.{node.attr}")
    assert missing == []
