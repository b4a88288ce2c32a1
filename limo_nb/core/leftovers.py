"""What a run no longer needs: superseded and unfinished stages, stores that none uses.

A stage's folder is needed while a pointer names it (`runs`), and a store of completions
while such a folder notes that it used it. Nothing is removed but by `remove`, and nothing
that a process is working on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from limo_nb.core.files import alone, if_free
from limo_nb.core.runs import POINTER, Run, lock_of

KEY = re.compile(r"[0-9a-f]{16}")
USES = ".uses-"  # and the name of a store: an empty file in the folder of a stage
STORES, STORE = "completions", ".sqlite"  # the folder in a run that stages share

Why = Literal["superseded", "unfinished", "made with other settings", "used by no stage"]


@dataclass(frozen=True)
class Leftover:
    """A folder or store that is not needed; `size` in bytes; `busy` while it is worked on."""

    path: Path
    why: Why
    size: int
    busy: bool


def note_use(folder: Path, store: Path) -> None:
    """Note in `folder`, which belongs to a stage that is being made, that it uses `store`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{USES}{store.name}").touch()


def leftovers(run: Run, others: bool = False) -> list[Leftover]:
    """What could be removed of `run`'s folder, in the order of paths.

    With `others` also what was made with other settings than those of `run` alone.
    """
    found, needed = [], set()
    for folder in _stage_folders(run.root):
        why = _why(folder, run.pointer if others else None)
        busy = not _free(_locks(folder))
        if why:
            found.append(Leftover(folder, why, _size(folder), busy))
        if busy or not why:
            needed |= {mark.name.removeprefix(USES) for mark in folder.rglob(f"{USES}*")}
    for store in sorted((run.root / STORES).glob(f"*{STORE}")):
        if store.name not in needed:
            size = sum(_size(part) for part in _parts(store))
            busy = not _free(_locks(store))
            found.append(Leftover(store, "used by no stage", size, busy))
    return found


def remove(leftover: Leftover) -> bool:
    """Remove a folder or store; False where a process is working on it, which stays."""
    path = leftover.path
    with ExitStack() as held:
        if path.suffix == STORE:
            held.enter_context(alone(path.parent))  # as who opens a store does
        if not all(held.enter_context(if_free(lock)) for lock in _locks(path)):
            return False
        if path.is_dir():
            # First, so that a folder that is removed in part is not taken for a whole one.
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path)
            for pointer in _pointers(path):
                pointer.unlink()
        else:
            for part in _parts(path):
                part.unlink(missing_ok=True)
        for lock in _locks(path):
            lock.unlink(missing_ok=True)  # who waits for it sees that it is gone
    return True


def _stage_folders(folder: Path) -> Iterator[Path]:
    """The folders of stages below `folder`, which are named by their keys."""
    for inner in sorted(own for own in folder.iterdir() if own.is_dir()):
        if KEY.fullmatch(inner.name):
            yield inner
        elif inner.name != STORES:
            yield from _stage_folders(inner)


def _why(folder: Path, pointer: str | None) -> Why | None:
    """Why `folder` is not needed, where only `pointer` counts if it is named; or None."""
    pointers = {own.name for own in _pointers(folder)}
    if not (folder / "manifest.json").exists():
        return "unfinished"
    if not pointers:
        return "superseded"
    if pointer and pointer not in pointers:
        return "made with other settings"
    return None


def _pointers(folder: Path) -> list[Path]:
    """The pointer files that name `folder`."""
    every = folder.parent.glob(f"{POINTER}*")
    return [own for own in every if json.loads(own.read_text())["key"] == folder.name]


def _locks(path: Path) -> list[Path]:
    """The lock files of a stage's folder, or of a store: one for each process that has it."""
    if path.suffix == STORE:
        return sorted(path.parent.glob(f".{path.name}.*.lock"))
    return [lock_of(path)]


def _free(locks: list[Path]) -> bool:
    with ExitStack() as held:
        return all(held.enter_context(if_free(own)) for own in locks if own.exists())


def _parts(store: Path) -> list[Path]:
    """The files of a SQLite database."""
    return [own for end in ("", "-wal", "-shm") if (own := Path(f"{store}{end}")).exists()]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(own.stat().st_size for own in files if own.is_file())
