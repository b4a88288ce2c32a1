"""Code as syntax trees: what functions and modules say, less comments and docstrings.

And which modules they reach: through imports, the faces of rooms, and names in strings.
Everything is read from the sources; nothing is imported here.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

PACKAGE = Path(__file__).parents[1]
ROOT_NAME = PACKAGE.name  # limo_nb
MODULE_NAME = re.compile(rf"{ROOT_NAME}(\.\w+)+")
DATA = (".yaml", ".json")  # of `name.py`, in a file of the same name beside it
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")
)

# How a name is used: the attributes that follow it, () where it stands alone.
Chain = tuple[str, ...]


# ---------------------------------------------------------------- trees and their text
@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree of `source` without docstrings; raises SyntaxError."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def tree_of(code: FunctionType | type) -> ast.AST | None:
    """The tree of a function or class, of a notebook's cell too; None if it is not found.

    Lambdas that start on one line are taken together.
    """
    for source in _sources_of(code):
        try:
            nodes = list(ast.walk(parsed(source)))
        except SyntaxError:
            continue
        if isinstance(code, FunctionType):
            found = [node for node in nodes if _starts(node, code)]
        else:  # the last counts, as it does in Python
            found = [node for node in nodes if _is_class(node, code.__name__)][-1:]
        if found:
            return ast.Module(body=[_statement(node) for node in found], type_ignores=[])
    return None


def _sources_of(code: FunctionType | type) -> Iterator[str]:
    """The text of the file or cell that defines `code`."""
    places: list[Any] = [code]
    if isinstance(code, type):  # of a cell, only its methods know where it is
        places += [own.__code__ for own in vars(code).values() if inspect.isfunction(own)]
    for place in places:
        try:
            yield "".join(inspect.findsource(place)[0])
        except (OSError, TypeError):
            continue


def _starts(node: ast.AST, function: FunctionType) -> bool:
    """Whether `node` defines `function`."""
    if isinstance(node, FUNCTIONS):
        first = min([node.lineno, *(own.lineno for own in node.decorator_list)])
        named = node.name == function.__code__.co_name
    elif isinstance(node, ast.Lambda):
        first, named = node.lineno, function.__code__.co_name == "<lambda>"
    else:
        return False
    return named and first == function.__code__.co_firstlineno


def _is_class(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def _statement(node: Any) -> ast.stmt:
    return ast.Expr(node) if isinstance(node, ast.expr) else node


def chains(tree: ast.AST) -> dict[str, set[Chain]]:
    """How `tree` uses each variable: {"run": {("profile", "sft")}} for `run.profile.sft`."""
    found: dict[str, set[Chain]] = defaultdict(set)
    inner: set[int] = set()
    for node in ast.walk(tree):  # from the outside in: the longest chain comes first
        if not isinstance(node, (ast.Attribute, ast.Name)) or id(node) in inner:
            continue
        links: list[str] = []
        end: ast.AST = node
        while isinstance(end, ast.Attribute):
            links.append(end.attr)
            end = end.value
            inner.add(id(end))
        if isinstance(end, ast.Name):
            found[end.id].add(tuple(reversed(links)))
    return found


# ---------------------------------------------------------------- modules
def file_of(module: str) -> Path | None:
    """The source of a module of this package or of the reader's own; None for a library's."""
    if module == ROOT_NAME or module.startswith(f"{ROOT_NAME}."):
        base = PACKAGE.parent.joinpath(*module.split("."))
        file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        return file if file.exists() else None
    place = getattr(sys.modules.get(module), "__file__", None)
    if module == "__main__" or not place or not place.endswith(".py") or is_library(module):
        return None
    return Path(place)


def is_library(module: str) -> bool:
    """Whether `module` came with Python or was installed: its version is in the manifest."""
    top = module.partition(".")[0]
    if top in (ROOT_NAME, "__main__"):
        return False
    place = getattr(sys.modules.get(module), "__file__", None)
    if top in sys.stdlib_module_names or not place:
        return True
    return any(library in Path(place).resolve().parents for library in LIBRARIES)


@cache
def module_text(module: str) -> str:
    """The code of a module, and its data: `name.yaml` or `name.json` beside `name.py`."""
    file = file_of(module)
    if file is None:
        raise ValueError(f"{module} has no source")
    data = (file.with_suffix(suffix) for suffix in DATA)
    beside = [own.read_text("utf-8") for own in data if own.exists()]
    return "\n".join([ast.unparse(parsed(file.read_text("utf-8"))), *beside])


def closure(modules: Iterable[str]) -> set[str]:
    """`modules`, and the package's and reader's own modules that they reach."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if module in seen or file is None:
            continue
        seen.add(module)
        waiting += _reached_by(module, file)
    return seen


@cache
def _reached_by(module: str, file: Path) -> frozenset[str]:
    return frozenset(reached_in(parsed(file.read_text("utf-8"))))


def reached_in(tree: ast.AST) -> set[str]:
    """The modules that `tree` imports or names in its strings."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    names = {text for text in texts if isinstance(text, str) and MODULE_NAME.fullmatch(text)}
    return imported_in(tree) | {name for name in names if file_of(name)}


def imported_in(tree: ast.AST) -> set[str]:
    """The modules behind all imports of `tree`, those in functions too, but not of types."""
    found: set[str] = set()
    hidden: set[int] = set()
    used = chains(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden |= {id(own) for own in node.body}
        elif id(node) in hidden:
            continue
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found |= provided(alias.name, used.get(alias.asname, ()))
                else:  # binds the first name of the path
                    top = alias.name.partition(".")[0]
                    found |= provided(top, used.get(top, ())) | ({alias.name} - {top})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                rest = used.get(alias.asname or alias.name) or {()}
                found |= provided(node.module, {(alias.name, *chain) for chain in rest})
    return found


def provided(module: str, used: Iterable[Chain]) -> set[str]:
    """The modules behind what is `used` of `module`, which may be a room with a face."""
    found: set[str] = set()
    names = face(module)
    for chain in used:
        if not chain:  # the whole: it may be used for anything
            found |= {module}.union(*(provided(at, [(name,)]) for at, name in names.values()))
        elif file_of(f"{module}.{chain[0]}"):
            found |= provided(f"{module}.{chain[0]}", [chain[1:]])
        elif chain[0] in names:
            at, name = names[chain[0]]
            found |= provided(at, [(name, *chain[1:])])
        else:
            found.add(module)
    return found


@cache
def face(module: str) -> dict[str, tuple[str, str]]:
    """What a room's `__init__.pyi` offers: name -> (module, its name there)."""
    file = file_of(module)
    stub = file.with_suffix(".pyi") if file and file.name == "__init__.py" else None
    if stub is None or not stub.exists():
        return {}
    return {
        alias.asname or alias.name: (".".join(filter(None, (module, node.module))), alias.name)
        for node in ast.walk(ast.parse(stub.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
