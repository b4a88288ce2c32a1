"""SHA-256 of large files: hashed in parallel, and not again while a file stays as it is.

What was hashed is remembered in an SQLite file of the user's cache folder, by the file's
path, inode, size and times. That only saves time: where it cannot be read or written, the
files are hashed again.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_cache_path

from limo_nb.core.machine import cores

# A file that changed a moment ago may change again within one tick of the file system's
# clock, and no time would tell.
SETTLED_SECONDS = 2.0
LOCK_SECONDS = 2.0  # for another process that writes down its hashes

SCHEMA = """
CREATE TABLE IF NOT EXISTS hashes
(path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL)
"""


class FileState(NamedTuple):
    """A file as it is now: where it really lies, and what changes when its content does."""

    path: bytes
    state: str
    settled: bool  # whether it last changed long enough ago


def file_hashes(files: Sequence[Path]) -> list[str]:
    """SHA-256 of the content of each of `files`, in hexadecimal, in their order."""
    states = [_state(file) for file in files]
    known = _recalled(states)
    missing = {s: file for s, file in zip(states, files, strict=True) if s not in known}
    with ThreadPoolExecutor(max(1, min(cores(), len(missing)))) as pool:
        fresh = dict(zip(missing, pool.map(_hash, missing.values()), strict=True))
    # One that was written while it was read has another state by now.
    _remember({s: found for s, found in fresh.items() if _state(missing[s]) == s})
    return [(known | fresh)[state] for state in states]


def _hash(file: Path) -> str:
    with file.open("rb") as content:  # hashing lets other threads run
        return hashlib.file_digest(content, "sha256").hexdigest()


def _state(file: Path) -> FileState:
    path = file.resolve()
    facts = path.stat()
    # A copying tool can give a file any time of modification, but not of the inode's change.
    state = f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"
    settled = time.time() - max(facts.st_mtime, facts.st_ctime) >= SETTLED_SECONDS
    return FileState(os.fsencode(path), state, settled)


def _recalled(states: Iterable[FileState]) -> dict[FileState, str]:
    """The remembered hashes of `states`."""
    found: dict[FileState, str] = {}
    query = "SELECT sha256 FROM hashes WHERE path = ? AND state = ?"
    with suppress(OSError, sqlite3.Error), _memory() as database:
        for state in states:
            if row := database.execute(query, (state.path, state.state)).fetchone():
                found[state] = row[0]
    return found


def _remember(hashes: dict[FileState, str]) -> None:
    rows = [(s.path, s.state, found) for s, found in hashes.items() if s.settled]
    if rows:
        with suppress(OSError, sqlite3.Error), _memory() as database, database:
            database.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", rows)


@contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    folder = user_cache_path("limo-nb", appauthor=False, ensure_exists=True)
    path = folder / "file-hashes.sqlite"
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        database.execute(SCHEMA)
        yield database
