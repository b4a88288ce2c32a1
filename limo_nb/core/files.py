"""What a run left: `runs/<profile>/<stage>/`, each with a manifest written last.

A stage is made by one function in a folder of its own. Its key is a digest of what it
depends on (parameters, code, the keys of its inputs); where a finished folder with that
key exists, the stage is not run again. A pointer file names the current key and is
replaced atomically, so that a killed run leaves either the old artefact or the new one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str) -> None:
    """Write `text` so that a reader sees the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A lock on `folder` that one process holds at a time; the others wait."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
