"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not run again. A pointer file names the current key and is
replaced atomically, so that a killed run leaves either the old artefact or the new one.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any


# ---------------------------------------------------------------- digests of code
def code_digest(function: Callable) -> str:
    """A digest of `function`'s source and of every `limo_nb` module that it can reach.

    A function of a notebook counts with its own text, the notebook functions that it
    calls, the plain constants that it names, and the modules that its global names come
    from.
    """
    sources: dict[str, str] = {}
    modules: set[str] = set()
    _reach(function, sources, modules)
    for name in sorted(_closure(modules)):
        sources[name] = _source_of(name)
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()[:16]


def _reach(function: Any, sources: dict[str, str], modules: set[str]) -> None:
    function = inspect.unwrap(getattr(function, "func", function))  # functools.partial
    module = getattr(function, "__module__", "") or ""
    if module.startswith("limo_nb"):
        modules.add(module)
        return
    name = f"{module}:{getattr(function, '__qualname__', repr(function))}"
    if not isinstance(function, FunctionType) or name in sources:
        return
    sources[name] = inspect.getsource(function)
    used = _names(function.__code__)
    captured = inspect.getclosurevars(function).nonlocals
    values = {n: function.__globals__[n] for n in sorted(used) if n in function.__globals__}
    for label, value in (values | captured).items():
        if _is_constant(value):
            sources[f"{name}.{label}"] = repr(value)
        elif isinstance(value, ModuleType):
            if value.__name__.startswith("limo_nb"):
                modules.add(value.__name__)
        elif isinstance(value, FunctionType | type):
            origin = value.__module__ or ""
            if origin.startswith("limo_nb"):
                modules.add(origin)
            elif origin == module and isinstance(value, FunctionType):
                _reach(value, sources, modules)


def _is_constant(value: Any) -> bool:
    """Whether `value` is a plain number, text or collection of these: it counts as code."""
    if isinstance(value, Mapping):
        return all(_is_constant(inner) for pair in value.items() for inner in pair)
    if isinstance(value, list | tuple):
        return all(_is_constant(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str)


def _names(code: Any) -> set[str]:
    """Global names used by a code object and the functions nested in it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= _names(constant)
    return names


@cache
def _source_of(module: str) -> str:
    """The text of a module and of its data: `name.yaml` beside `name.py`, and with a
    package's `__init__.py` every YAML file of its folder (profiles are parameters)."""
    spec = sys.modules.get(module)
    path = Path(spec.__file__) if spec and spec.__file__ else _file_of(module)
    data = (
        path.parent.glob("*.yaml") if path.stem == "__init__" else [path.with_suffix(".yaml")]
    )
    return "\n".join(file.read_text() for file in [path, *sorted(data)] if file.exists())


def _file_of(module: str) -> Path:
    base = Path(__file__).parents[2].joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _closure(modules: set[str]) -> set[str]:
    """`modules` and all `limo_nb` modules that they import, directly or not."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module in seen or not _file_of(module).exists():
            continue
        seen.add(module)
        waiting += _imports(module)
    return seen


@cache
def _imports(module: str) -> tuple[str, ...]:
    """The `limo_nb` modules that `module` names in its import statements."""
    found = []
    for node in ast.walk(ast.parse(_file_of(module).read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(name for name in found if name.startswith("limo_nb"))
