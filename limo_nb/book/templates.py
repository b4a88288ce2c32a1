"""HTML for outputs from Jinja templates, which escape what they are given.

A room keeps its templates and style sheets beside its modules: `evidence/show.jinja` is that
of `evidence/show.py`. An output brings its style with it, so that it looks the same in a
notebook and on the page.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


@cache
def macros(template: str) -> Any:
    """The macros of `template`, a path in the package, as functions that return HTML.

    Values are escaped unless they are HTML from a macro. A style sheet is brought in by
    `{% include "room/name.css" %}`. Raises jinja2.TemplateNotFound.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parents[1]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).module
