"""What the papers report: the figures of `paper.yaml`, each with its source."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml


@cache
def reported() -> dict[str, Any]:
    """The figures of `paper.yaml`, by topic; sizes of benchmarks, prompts and accuracies."""
    return yaml.safe_load(resources.files("limo_nb.core").joinpath("paper.yaml").read_text())
