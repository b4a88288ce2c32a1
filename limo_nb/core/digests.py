"""The digest of a function: of the code that it reaches and of the values that it captures.

Code counts by its syntax tree, so a comment, a docstring or another layout changes
nothing. What a function captures (globals, closures, defaults, arguments of a `partial`) is
either described here, by value, or an error that names it: a value that nobody can describe
could change unnoticed. `runs` describes its own classes in the same way.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import decimal
import dis
import fractions
import functools
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from pydantic import BaseModel

from limo_nb.core import syntax
from limo_nb.core.settings import Profile
from limo_nb.core.syntax import Chain

# Values that their own text describes.
PLAIN = (
    bool | int | float | complex | str | bytes | range | slice | Enum | None
    | decimal.Decimal | fractions.Fraction | datetime.date | datetime.time | datetime.timedelta
)  # fmt: skip
WHOLE: frozenset[Chain] = frozenset({()})
UNREAD = "the source of {} cannot be read: define it in a module"


class UnknownCapture(ValueError):
    """A function captures what no digest can describe; the message names it."""


@dataclasses.dataclass
class Reached:
    """What a function depends on, as it is found.

    `root` is left out of paths, so that a folder of runs can be moved; `inputs` are the
    folders of the stages that were declared (None: nothing is declared), and `declared`
    says that the sections of the profile are hashed elsewhere.
    """

    root: str = ""
    inputs: tuple[Path, ...] | None = None
    declared: bool = False
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    modules: set[str] = dataclasses.field(default_factory=set)
    where: str = "the function"
    _names: dict[int, str] = dataclasses.field(default_factory=dict)

    def digest(self) -> str:
        """16 hexadecimal digits for all that was found."""
        for module in syntax.closure(self.modules):
            self.facts[module] = syntax.module_text(module)
        text = json.dumps(self.facts, sort_keys=True)
        if self.root:
            text = text.replace(json.dumps(self.root)[1:-1], "")
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def code(self, function: FunctionType) -> str:
        """Note `function`: its text (its module's, in this package) and what it captures."""
        name = f"{function.__module__}:{function.__qualname__}"
        if _packaged(function):
            self.modules.add(function.__module__)
            if "<" not in function.__qualname__:  # no closure
                return name
        elif syntax.is_library(function.__module__):
            return name
        if id(function) not in self._names:  # a function may call itself
            self._names[id(function)] = f"{name} {len(self._names)}"
            self.facts[self._names[id(function)]] = self._captured(function, name)
        return self._names[id(function)]

    def _captured(self, function: FunctionType, name: str) -> dict[str, Any]:
        tree = syntax.tree_of(function)
        found: dict[str, Any] = {}
        values = dict(_variables(function))
        if not _packaged(function):
            if tree is None:
                raise UnknownCapture(UNREAD.format(name))
            found["text"] = ast.unparse(tree)
            self.modules |= syntax.reached_in(tree)
            values = dict(_globals(function)) | values
        used = syntax.chains(tree) if tree else {}
        for label, value in values.items():
            self.where = f"{label!r} of {function.__qualname__}"
            found[label] = description(value, self, frozenset(used.get(label) or WHOLE))
        return found


def _packaged(code: FunctionType | type) -> bool:
    return code.__module__.startswith(f"{syntax.ROOT_NAME}.")


def code_digest(function: Callable[..., Any], reached: Reached | None = None) -> str:
    """A digest of `function`: of its text, the code it reaches and the values it captures.

    A function of a notebook counts with its own text, the notebook's functions that it
    calls and the values that it names; the package's modules count whole, with those that
    they import. Raises UnknownCapture for a captured object that cannot be described.
    """
    reached = reached or Reached()
    reached.facts["function"] = description(function, reached, WHOLE)
    return reached.digest()


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The values of a function's closure and its defaults."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from (function.__kwdefaults__ or {}).items()
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(positional[len(positional) - len(defaults) :], defaults, strict=True)


def _globals(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The global variables that a function and those nested in it read, if they exist."""
    for name in sorted(_global_names(function.__code__)):
        if name in function.__globals__:
            yield name, function.__globals__[name]


def _global_names(code: CodeType) -> set[str]:
    names = {own.argval for own in dis.get_instructions(code) if own.opname in READS}
    inner = (own for own in code.co_consts if isinstance(own, CodeType))
    return names.union(*map(_global_names, inner))


READS = ("LOAD_GLOBAL", "LOAD_NAME")


# ---------------------------------------------------------------- values
@functools.singledispatch
def description(value: Any, reached: Reached, used: frozenset[Chain]) -> Any:
    """What of `value` belongs to a digest, as JSON; code that it brings is noted in `reached`.

    `used` are the attributes that the code reads of it. Raises UnknownCapture for an object
    of an unknown class: register a description beside that class.
    """
    kind = type(value)
    if dataclasses.is_dataclass(value):
        description(kind, reached, WHOLE)
        names = [own.name for own in dataclasses.fields(value)]
        return [_name(kind), {own: _inner(getattr(value, own), reached) for own in names}]
    if isinstance(getattr(value, "identity", None), Mapping):  # of engines
        description(kind, reached, WHOLE)
        return [_name(kind), _inner(value.identity, reached)]
    if kind.__module__ in ("typing", "types"):  # `list[int]`, `A | B`
        return repr(value)
    if hasattr(value, "__wrapped__"):  # a function that is cached
        return description(value.__wrapped__, reached, WHOLE)
    if callable(value) and hasattr(value, "__name__") and syntax.is_library(kind.__module__):
        return f"{_name(kind)}:{value.__name__}"  # numpy's and the like
    table = _table(value)
    if table is None:
        raise UnknownCapture(
            f"{reached.where} is a {_name(kind)}, and nothing says what it holds: a change "
            f"would go unnoticed. Use a plain value, a table, a dataclass or settings "
            f"instead, or make it inside the function"
        )
    return [_name(kind), table]


def _inner(value: Any, reached: Reached) -> Any:
    return description(value, reached, WHOLE)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _table(value: Any) -> str | None:
    """A digest of the content of a table or array; None for anything else."""

    def of(library: str, name: str) -> bool:
        module = sys.modules.get(library)
        return module is not None and isinstance(value, getattr(module, name))

    if of("datasets", "Dataset"):
        from limo_nb.core.records import table_digest

        return table_digest(value)
    if of("pandas", "DataFrame") or of("pandas", "Series"):
        content = value.to_json(orient="split", date_format="iso", double_precision=15)
        return hashlib.sha256(content.encode()).hexdigest()
    if of("numpy", "ndarray") or of("numpy", "generic"):
        plain = not value.dtype.hasobject
        content = value.tobytes() if plain else repr(value.tolist()).encode()
        return hashlib.sha256(f"{value.dtype} {value.shape}".encode() + content).hexdigest()
    return None


@description.register
def _plain(value: PLAIN, reached: Reached, used: frozenset[Chain]) -> Any:
    return repr(value)


@description.register
def _pattern(value: re.Pattern, reached: Reached, used: frozenset[Chain]) -> Any:
    return [repr(value.pattern), value.flags]  # its own text is cut off


@description.register
def _sequence(value: list | tuple, reached: Reached, used: frozenset[Chain]) -> Any:
    return [type(value).__name__, *(_inner(own, reached) for own in value)]


@description.register
def _set(value: Set, reached: Reached, used: frozenset[Chain]) -> Any:
    return ["set", *sorted(json.dumps(_inner(own, reached)) for own in value)]


@description.register
def _mapping(value: Mapping, reached: Reached, used: frozenset[Chain]) -> Any:
    pairs = ([_inner(key, reached), _inner(own, reached)] for key, own in value.items())
    return [type(value).__name__, *pairs]


@description.register
def _path(value: PurePath, reached: Reached, used: frozenset[Chain]) -> Any:
    """Its text, and what lies there: a file's content, of a folder the names and sizes.

    What lies in the folder of runs is only named: its stages are `inputs`.
    """
    path = Path(value)
    if reached.root and path.is_relative_to(reached.root):
        return str(path)
    if path.is_file():
        return [str(path), hashlib.sha256(path.read_bytes()).hexdigest()]
    files = (own for own in path.rglob("*") if own.is_file())
    return [str(path), *sorted([str(own), own.stat().st_size] for own in files)]


@description.register
def _model(value: BaseModel, reached: Reached, used: frozenset[Chain]) -> Any:
    description(type(value), reached, WHOLE)
    return [_name(type(value)), value.model_dump(mode="json")]


@description.register
def _profile(value: Profile, reached: Reached, used: frozenset[Chain]) -> Any:
    """The fields that are read of it; the whole where it is handed on, unless declared."""
    description(type(value), reached, WHOLE)
    found: dict[str, Any] = {}
    for chain in used:
        field, path = _followed(value, chain)
        if path:
            found[".".join(path)] = description(field, reached, WHOLE)
        elif not reached.declared:
            found[""] = value.model_dump(mode="json", exclude={"name", "purpose"})
    return found


def _followed(profile: Profile, chain: Chain) -> tuple[Any, Iterable[str]]:
    """What `profile.a.b` is, as far as `chain` names settings; and the names as far."""
    value: Any = profile
    for place, name in enumerate(chain):
        inner = getattr(value, name, None) if isinstance(value, BaseModel) else None
        if inner is None or callable(inner):
            return value, chain[:place]
        value = inner
    return value, chain


# ---------------------------------------------------------------- code
@description.register
def _function(value: FunctionType, reached: Reached, used: frozenset[Chain]) -> Any:
    return reached.code(inspect.unwrap(value))


@description.register
def _partial(value: functools.partial, reached: Reached, used: frozenset[Chain]) -> Any:
    found = [description(value.func, reached, WHOLE)]
    for label, own in [*enumerate(value.args), *value.keywords.items()]:
        reached.where = f"argument {label!r} of a partial {_named(value.func)}"
        found.append([label, _inner(own, reached)])
    return found


def _named(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


@description.register
def _method(value: MethodType, reached: Reached, used: frozenset[Chain]) -> Any:
    return [description(value.__func__, reached, WHOLE), _inner(value.__self__, reached)]


@description.register
def _builtin(value: BuiltinFunctionType, reached: Reached, used: frozenset[Chain]) -> Any:
    return f"{value.__module__}:{value.__qualname__}"


@description.register
def _class(value: type, reached: Reached, used: frozenset[Chain]) -> Any:
    name = _name(value)
    if _packaged(value):
        reached.modules.add(value.__module__)
    elif name not in reached.facts and not syntax.is_library(value.__module__):
        tree = syntax.tree_of(value)
        if tree is None:
            raise UnknownCapture(UNREAD.format(name))
        reached.facts[name] = ast.unparse(tree)
        reached.modules |= syntax.reached_in(tree)
        for own in vars(value).values():
            own = getattr(own, "fget", None) or getattr(own, "__func__", own)
            if inspect.isfunction(own) and syntax.tree_of(inspect.unwrap(own)):
                reached.code(inspect.unwrap(own))  # the others are a dataclass's
        for base in value.__bases__:
            description(base, reached, WHOLE)
    return name


@description.register
def _module(value: ModuleType, reached: Reached, used: frozenset[Chain]) -> Any:
    name = value.__name__
    if not syntax.is_library(name):
        reached.modules |= syntax.provided(name, used)
    return name
