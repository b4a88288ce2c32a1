"""The lock file: what the first fetches found, so that later ones can be held to it.

`limo-nb.lock.json` lies beside `runs/` and belongs to the project, as other lock files do.
Its parts are "pools" (Hub data sets, chapter 3) and "benchmarks" (files, chapter 8).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

from limo_nb.core.files import (
    alone,
    write_json,
)
from limo_nb.core.runs import runs_root

NAME = "limo-nb.lock.json"

Entry = dict[str, str]


def lock_file() -> Path:
    """Where the lock file is, or will be after the first fetch."""
    return runs_root().parent / NAME


def locked(part: str) -> dict[str, Entry]:
    """Name → what was recorded of it in `part`. Empty where nothing was.

    Raises ValueError that names the file where it is damaged.
    """
    return _whole().get(part, {})


def pin(part: str, name: str, entry: Mapping[str, str]) -> Entry:
    """What is recorded of `name`: `entry` and today's date, unless another was first.

    Several processes may record at once: none loses what another wrote.
    """
    file = lock_file()
    runs_root().mkdir(parents=True, exist_ok=True)
    with alone(runs_root() / ".pins.lock"):
        whole = _whole()
        entries = whole.setdefault(part, {})
        if name not in entries:
            entries[name] = dict(entry) | {"fetched": time.strftime("%Y-%m-%d", time.gmtime())}
            write_json(file, whole)
    return entries[name]


def _whole() -> dict[str, dict[str, Entry]]:
    file = lock_file()
    if not file.exists():
        return {}
    try:
        whole = json.loads(file.read_text("utf-8"))
    except ValueError as error:  # also bytes that are no UTF-8
        raise ValueError(f"{file} is not valid JSON ({error}): mend or delete it") from None
    parts = list(whole.values()) if isinstance(whole, dict) else [None]
    entries = [entry for part in parts if isinstance(part, dict) for entry in part.values()]
    if not all(isinstance(own, dict) for own in parts + entries):
        raise ValueError(f"{file} is no lock file, which maps part → name → facts: delete it")
    return whole
