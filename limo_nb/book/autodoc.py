"""A Sphinx extension: the docstrings of this package, which are plain text, for autodoc.

Backticks become code, or a link where they hold a documented name; chapters that are named
become links. Fields and constants are described by the comments beside them in the code.
What is documented is what the pages of `api.py` name.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

from limo_nb.book.api import FOLDER, assigned, home_of
from limo_nb.book.contents import NUMBERED
from limo_nb.book.docstrings import restructured
from limo_nb.core import syntax

DOCUMENTED = re.compile(rf"^\.\. auto\w+:: {syntax.ROOT_NAME}\.(\S+\.\w+)$", re.MULTILINE)
FOR_TOOLS = re.compile(r"fmt:|noqa|type:|---")  # comments that tell a reader nothing


def setup(app: Sphinx) -> dict[str, Any]:
    """The entry point that Sphinx calls."""
    app.setup_extension("sphinx.ext.autodoc")
    package = Package()
    app.connect("builder-inited", package.read_pages)
    app.connect("autodoc-process-docstring", package.rewrite)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", package.resolve_type)
    return {"parallel_read_safe": True}


class Package:
    """What the pages of a build document, and what there is to link to."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}  # where a name is defined -> where it is documented
        self.chapters: dict[int, str] = {}  # number -> name
        top = (home_of(syntax.ROOT_NAME, (name,)) for name in syntax.face(syntax.ROOT_NAME))
        self.everywhere = {".".join(home) for home in top if home}  # what the package offers
        self._links: dict[str, dict[str, str]] = {}

    def read_pages(self, app: Sphinx) -> None:
        """Find what is documented, and tell autodoc the comments of fields and constants."""
        for page in Path(app.srcdir, FOLDER).glob("*.rst"):
            for label in DOCUMENTED.findall(page.read_text("utf-8")):
                home = home_of(syntax.ROOT_NAME, tuple(label.split(".")))
                if home:
                    address = f"{syntax.ROOT_NAME}.{label}"
                    self.addresses[".".join(home)] = address
                    describe(address, *home)
        for notebook in Path(app.srcdir, "book").glob("*.ipynb"):
            if NUMBERED.fullmatch(notebook.stem):
                self.chapters[int(notebook.stem[:2])] = notebook.stem

    def links(self, room: str) -> dict[str, str]:
        """What may stand in the backticks of a docstring in `room` -> its address."""
        if room not in self._links:
            found: dict[str, str] = {}
            for home, address in self.addresses.items():
                _, own, *rest = address.split(".")
                tails = [home.split(".")[-2:], [own, *rest], address.split(".")]
                if own == room or home in self.everywhere:
                    tails.append(rest)
                found |= dict.fromkeys(map(".".join, tails), address)
            self._links[room] = found
        return self._links[room]

    def rewrite(
        self, app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
    ) -> None:
        """Turn a docstring into reStructuredText, in place."""
        text = "\n".join(lines).strip()
        if text.startswith("Alias for field number"):  # what Python says of a named tuple's
            text = ""
        room, own = name.split(".")[1], _parameters(obj)
        links = {code: to for code, to in self.links(room).items() if code not in own}
        chapters = {number: f"/book/{own}" for number, own in self.chapters.items()}
        lines[:] = [*restructured(text, links, chapters).splitlines(), ""]

    def resolve_type(
        self, app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element
    ) -> nodes.Element | None:
        """A type of an annotation: a link to where it is documented, or its bare name.

        Types of other libraries have no page here, since a build fetches nothing. Other
        references that lead nowhere are left to Sphinx, which warns.
        """
        target = str(node.get("reftarget", ""))
        if node.get("refdomain") != "py":
            return None
        if target in self.addresses:
            python, address = env.get_domain("py"), self.addresses[target]
            return python.resolve_xref(
                env, node["refdoc"], app.builder, "obj", address, node, contnode
            )
        inside = target.startswith(f"{syntax.ROOT_NAME}.")
        return contnode if node["reftype"] == "class" or not inside else None


def _parameters(obj: Any) -> list[str]:
    try:
        return list(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return []


def shorten_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str, returned: str
) -> tuple[str, str | None] | None:
    """Leave out what the fields say again, and what says nothing."""
    if not isinstance(obj, type):
        return None
    plain = typing.is_typeddict(obj) or issubclass(obj, BaseModel | BaseException)
    return ("", None) if plain or getattr(obj, "_is_protocol", False) else None


def skip_member(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave pydantic's `model_config` out, which says how fields are checked."""
    return True if name == "model_config" else None


# ---------------------------------------------------------------- fields and constants
def describe(address: str, module: str, name: str) -> None:
    """Tell autodoc the comments of `module`, as it reads those that begin with `#:` only.

    A constant that is documented at another address has its comment there too.
    """
    origin = _analyzer(module)
    room, _, label = address.rpartition(".")
    if ("", name) in origin.attr_docs:
        _analyzer(room).attr_docs["", label] = origin.attr_docs["", name]


def _analyzer(module: str) -> ModuleAnalyzer:
    """Sphinx's reading of `module`, with the comments."""
    key = ("module", module)
    if key not in ModuleAnalyzer.cache:
        file = syntax.file_of(module)
        if file is None:
            raise ValueError(f"{module} has no source")
        analyzer = ModuleAnalyzer.for_file(str(file), module)
        analyzer.analyze()
        for place, comment in comments(file.read_text("utf-8")).items():
            analyzer.attr_docs[place] = [comment, ""]
        ModuleAnalyzer.cache[key] = analyzer
    return ModuleAnalyzer.cache[key]


def comments(source: str) -> dict[tuple[str, str], str]:
    """(class or "", name) -> the comment at the end of its line, or else right above it."""
    beside: dict[int, str] = {}
    above: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not FOR_TOOLS.search(token.string):
            alone = not token.line[: token.start[1]].strip()
            (above if alone else beside)[token.start[0]] = token.string.lstrip("# ")
    found = {}
    for place, node in _assigned(ast.parse(source)):
        first = node.lineno
        while first - 1 in above:
            first -= 1
        block = " ".join(above[line] for line in range(first, node.lineno))
        comment = beside.get(node.end_lineno or 0) or block
        if comment:
            found[place] = comment
    return found


def _assigned(tree: ast.Module) -> Iterator[tuple[tuple[str, str], ast.stmt]]:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for name, body in [("", tree.body), *((node.name, node.body) for node in classes)]:
        for node in body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                yield from (((name, own), node) for own in assigned(node))
