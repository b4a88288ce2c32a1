"""The problem pool: without what must not be in it (chapter 3; paper, section 3).

A problem is a row of `COLUMNS`, whatever its source called them (`limo_nb.problems.sources`).
Nothing leaves the pool silently: each sieve returns what it kept and, for what it dropped,
why and because of which counterpart. How texts are compared is in `limo_nb.problems`.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


# ---------------------------------------------------------------- facts and digests
@cache
def reported() -> dict[str, Any]:
    """The figures of `paper.yaml`: what the papers report, with sources."""
    return yaml.safe_load(resources.files("limo_nb.core").joinpath("paper.yaml").read_text())
