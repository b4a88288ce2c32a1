"""Files that are written whole or not at all, and locks that one process holds at a time."""

from __future__ import annotations

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
def alone(lock: Path, waiting: str = "") -> Iterator[None]:
    """Hold the lock file `lock`, or `.lock` in a folder, which one process does at a time.

    The others wait, and print `waiting` if it is a text. The system ends the hold with the
    process, however it ends. Where a disk knows no locks, the file's existence is the lock.
    """
    from filelock import FileLock

    lock = lock / ".lock" if lock.is_dir() else lock
    with if_free(lock) as free:
        if free:
            yield
            return
    if waiting:
        print(waiting, flush=True)
    with FileLock(lock):
        yield


@contextmanager
def if_free(lock: Path) -> Iterator[bool]:
    """Hold the lock file `lock` unless somebody does; whether it is held here."""
    from filelock import FileLock, Timeout

    holder = FileLock(lock)
    try:
        holder.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        holder.release()
