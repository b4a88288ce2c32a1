"""The pages on the package: what each room offers, and which chapters use it.

Sphinx takes signatures and docstrings from the code (`autodoc.py`). This module says which
names stand on which page, and links names and chapters in both directions. It reads faces
and chapters as syntax trees; no room is imported for it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Literal

from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from limo_nb.book.contents import Chapter, code_cells
from limo_nb.book.docstrings import restructured
from limo_nb.core import syntax

# From the ground up: a room imports only from those before it. The command line has no face.
ROOMS = (
    "core", "lab", "grading", "inference", "problems", "selection", "chains", "sft",
    "evaluation", "book", "experiments", "evidence", "cli",
)  # fmt: skip
FOLDER = "book/api"  # of the pages, in the build tree
Kind = Literal["function", "class", "exception", "data"]
Home = tuple[str, str]  # the module that defines a name, and the name


@dataclass(frozen=True)
class Entry:
    """A documented name."""

    address: str  # where readers import it from: "limo_nb.chains.best_rows"
    home: Home  # ("limo_nb.chains.choice", "best_rows")
    kind: Kind

    @property
    def room(self) -> str:
        """The room that offers it."""
        return self.address.split(".")[1]

    @property
    def label(self) -> str:
        """Its address without the package's name: "chains.best_rows"."""
        return self.address.partition(".")[2]


# ---------------------------------------------------------------- what there is
@cache
def _tree(module: str) -> ast.Module:
    file = syntax.file_of(module)
    return ast.parse(file.read_text("utf-8") if file else "")


@cache
def definitions(module: str) -> dict[str, Kind]:
    """The public names that `module` defines at its top, in order, with their kinds."""
    found: dict[str, Kind] = {}
    for node in _tree(module).body:
        if isinstance(node, syntax.FUNCTIONS):
            found[node.name] = "function"
        elif isinstance(node, ast.ClassDef):
            failure = any(ast.unparse(base).endswith("Error") for base in node.bases)
            found[node.name] = "exception" if failure else "class"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            found |= dict.fromkeys(assigned(node), "data")
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """The names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    inner = (own for target in targets for own in ast.walk(target))
    return [own.id for own in inner if isinstance(own, ast.Name)]


def home_of(module: str, chain: syntax.Chain) -> Home | None:
    """Where the name is defined that `module.chain` says; None if that is no public name."""
    if not chain:
        return None
    first, *rest = chain
    if syntax.file_of(f"{module}.{first}"):
        return home_of(f"{module}.{first}", tuple(rest))
    if first in definitions(module):
        return module, first
    below = syntax.face(module) | _imported(module)
    if first in below:
        at, name = below[first]
        return home_of(at, (name, *rest))
    return None


@cache
def _imported(module: str) -> dict[str, Home]:
    """The names that `module` has from others of this package."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in _tree(module).body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
        if node.module.startswith(syntax.ROOT_NAME)
    }


def offered(room: str) -> list[Entry]:
    """The names of a room's face, in its order; of a module that it offers, all public ones.

    Raises ValueError for a name that is defined nowhere.
    """
    package = f"{syntax.ROOT_NAME}.{room}"
    found = []
    for name, (at, original) in syntax.face(package).items():
        if syntax.file_of(f"{at}.{original}"):
            module = f"{at}.{original}"
            kinds = definitions(module).items()
            found += [
                Entry(f"{module}.{own}", (module, own), kind)
                for own, kind in kinds
                if kind != "data"
            ]
            continue
        home = home_of(at, (original,))
        if home is None:
            raise ValueError(f"{package}/__init__.pyi offers {name}, which {at} does not have")
        found.append(Entry(f"{package}.{name}", home, definitions(home[0])[home[1]]))
    return found


def used(cells: Iterable[NotebookNode]) -> set[Home]:
    """The names of the package that code cells use, by the modules that define them."""
    plain = TransformerManager().transform_cell  # IPython's own commands become Python
    tree = ast.parse("\n".join(plain(cell.source) for cell in cells))
    chains = syntax.chains(tree)
    found: set[Home | None] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names if node.module.startswith(syntax.ROOT_NAME) else ():
                for chain in chains.get(alias.asname or alias.name) or {()}:
                    found.add(home_of(node.module, (alias.name, *chain)))
    return {home for home in found if home}


# ---------------------------------------------------------------- names and chapters
@dataclass(frozen=True)
class Index:
    """Every documented name, and the chapters that use it."""

    entries: Mapping[Home, Entry]
    chapters: Mapping[Home, list[Chapter]]

    def of_room(self, room: str) -> list[Entry]:
        """The entries of a room, those of one module together."""
        own = [entry for entry in self.entries.values() if entry.room == room]
        modules = list(dict.fromkeys(entry.home[0] for entry in own))
        return sorted(own, key=lambda entry: modules.index(entry.home[0]))

    def of_chapter(self, chapter: Chapter) -> list[Entry]:
        """The entries that `chapter` uses."""
        return [self.entries[home] for home, by in self.chapters.items() if chapter in by]


def index(notebooks: Mapping[Chapter, NotebookNode]) -> Index:
    """What faces offer, and what chapters use beyond them, with the chapters that use it."""
    entries = {entry.home: entry for room in ROOMS for entry in offered(room)}
    chapters: dict[Home, list[Chapter]] = {}
    for chapter, notebook in notebooks.items():
        for module, name in sorted(used(code_cells(notebook))):
            chapters.setdefault((module, name), []).append(chapter)
            if (module, name) not in entries:
                entry = Entry(f"{module}.{name}", (module, name), definitions(module)[name])
                entries[module, name] = entry
    return Index(entries, chapters)


def pages(found: Index) -> dict[str, str]:
    """The pages on the package, by their file names."""
    rooms = {f"{room}.rst": _room_page(room, found) for room in ROOMS if room != "cli"}
    return {"index.rst": _index_page(found), "cli.md": _commands_page(), **rooms}


def _heading(title: str, line: str) -> list[str]:
    return [title, line * len(title), ""]


def _links(chapters: Iterable[Chapter]) -> str:
    """Chapters by number, as links."""
    unique = sorted(set(chapters), key=lambda chapter: chapter.number)
    return ", ".join(f":doc:`{own.number} </book/{own.name}>`" for own in unique)


def _room_page(room: str, found: Index) -> str:
    lines = [*_heading(room, "="), f".. automodule:: {syntax.ROOT_NAME}.{room}", ""]
    module = ""
    for entry in found.of_room(room):
        if entry.home[0] != module:
            module = entry.home[0]
            lines += [*_heading(module.split(".")[-1], "-"), _purpose(module), ""]
        lines += [f".. auto{entry.kind}:: {entry.address}", *_options(entry), ""]
        users = found.chapters.get(entry.home)
        if users:
            lines += [f"   Used in chapter {_links(users)}.", ""]
    return "\n".join(lines)


def _options(entry: Entry) -> list[str]:
    """All fields and methods; of a constant, its value where that is short."""
    if entry.kind in ("class", "exception"):
        return ["   :members:", "   :undoc-members:"]
    return ["   :no-value:"] if entry.kind == "data" and not _short(*entry.home) else []


def _short(module: str, name: str) -> bool:
    """Whether the value of a constant fits a line."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in assigned(node):
            return node.value is not None and len(ast.unparse(node.value)) <= 76
    return False


def _index_page(found: Index) -> str:
    lines = [
        *_heading("The rooms", "="),
        "The chapters hold the ideas, the package ``limo_nb`` holds the machinery. Its folders",
        "are the stages of the work. Each has a page here with what it offers, taken from the",
        "docstrings; a folder imports only from those below it in this table.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 18 58 24",
        "",
        "   * - room",
        "     - what it is for",
        "     - chapters that use it",
    ]
    for room in reversed(ROOMS):
        users = [found.chapters.get(entry.home, []) for entry in found.of_room(room)]
        lines += [
            f"   * - :doc:`{room} </{FOLDER}/{room}>`",
            f"     - {_purpose(f'{syntax.ROOT_NAME}.{room}')}",
            f"     - {_links(chain.from_iterable(users)) or '–'}",
        ]
    homes = {name: home_of(syntax.ROOT_NAME, (name,)) for name in syntax.face(syntax.ROOT_NAME)}
    names = [
        f":py:obj:`{name} <{found.entries[home].address}>`"
        for name, home in sorted(homes.items())
        if home is not None and home in found.entries
    ]
    if names:
        lines += ["", f"From ``import {syntax.ROOT_NAME}``: {', '.join(names)}."]
    return "\n".join([*lines, ""])


def _purpose(module: str) -> str:
    """The first sentence of a module's docstring."""
    said = ast.get_docstring(_tree(module)) or ""
    sentence = re.split(r"(?<=[.?!])\s", " ".join(said.split("\n\n")[0].split()), maxsplit=1)[0]
    return restructured(sentence, {}, {})


def _commands_page() -> str:
    """What the program says of itself, as typer writes it."""
    command = [sys.executable, "-m", "typer", f"{syntax.ROOT_NAME}.cli", "utils", "docs"]
    done = subprocess.run(
        [*command, "--name", "limo-nb"], capture_output=True, text=True, check=True
    )
    commands = done.stdout[done.stdout.index("\n## ") :]
    without_help = re.sub(r"(?m)^\* `--help`.*\n", "", commands)
    return f"# cli\n\n{_purpose(f'{syntax.ROOT_NAME}.cli')}\n{without_help}"


def link_back(chapter: Chapter, found: Index) -> str:
    """The end of a chapter's page: the names of the package that it uses, by room."""
    groups: dict[str, list[str]] = {}
    for entry in sorted(found.of_chapter(chapter), key=lambda own: ROOMS.index(own.room)):
        place, _, name = entry.label.rpartition(".")
        page = f"{{doc}}`{place} </{FOLDER}/{entry.room}>`"
        groups.setdefault(page, []).append(f"{{py:obj}}`{name} <{entry.address}>`")
    lines = [f"- {page}: {', '.join(names)}" for page, names in groups.items()]
    head = ["```{admonition} In the package: what this chapter uses", ":class: dropdown"]
    return "\n".join([*head, "", *lines, "```"]) if lines else ""
