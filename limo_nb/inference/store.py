"""Kept completions: one SQLite file that several processes may fill at the same time.

A row is kept in the transaction in which it arrives (write-ahead log, so readers never
wait): a kill loses what is being computed and nothing else. Who computes a row claims it
first. A claim holds as long as its owner lives, which a lock of the operating system on a
file beside the store says; the system drops that lock at any death, kill -9 included. All
of this needs processes on one machine and a local disk: the write-ahead log shares memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock

from limo_nb.core.files import alone, if_free
from limo_nb.core.leftovers import STORES, note_use
from limo_nb.core.runs import runs_root
from limo_nb.inference.base import (
    Batch,
    Completion,
    Engine,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS completions (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL, tokens INTEGER NOT NULL, finished INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS requests (name TEXT PRIMARY KEY, mark INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TEMP TABLE wanted (place INTEGER PRIMARY KEY, key TEXT NOT NULL);
"""
THERE = "SELECT key FROM completions WHERE key IN (SELECT value FROM json_each(?))"
OWNERS = "SELECT key, owner FROM claims WHERE key IN (SELECT value FROM json_each(?))"


def shared_store(folder: Path, engine: Engine) -> Path:
    """The store of `engine`'s completions for the stage that is made in `folder`.

    Stages of one run share it (`runs/<profile>/completions/`), so that a stage that is
    made again, with another band or more problems, finds what was sampled before; the
    stage's folder notes the use. A folder outside of the runs keeps its own. The name is a
    digest of engine and model.
    """
    folder, root = Path(folder).resolve(), runs_root()
    facts = json.dumps(engine.identity, sort_keys=True)
    name = f"{hashlib.sha256(facts.encode()).hexdigest()[:16]}.sqlite"
    if root not in folder.parents:
        return folder / name
    store = root / folder.relative_to(root).parts[0] / STORES / name
    note_use(folder, store)
    return store


class Store:
    """The completions of the SQLite file at `path`; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        # A generator that uses a store may end in another thread.
        self._alive = FileLock(self._lock_file(self.owner), thread_local=False)

    def __enter__(self) -> Store:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._alive.acquire()
        try:
            self._open()
        except sqlite3.DatabaseError as error:
            self._alive.release()
            self._lock_file(self.owner).unlink(missing_ok=True)
            raise ValueError(
                f"{self.path} cannot be used as a store ({error}): name another file"
            ) from None
        return self

    def _open(self) -> None:
        self.database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        with alone(self.path.parent):  # two at once would find the file locked
            self.database.execute("PRAGMA journal_mode=WAL")
            # Without a sync per transaction, a power cut may lose the last rows; it
            # cannot break the file, and a killed process loses nothing.
            self.database.execute("PRAGMA synchronous=NORMAL")
            self.database.executescript(SCHEMA)

    def __exit__(self, *exception: object) -> None:
        self.database.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))
        self.database.close()
        self._alive.release()
        self._lock_file(self.owner).unlink(missing_ok=True)

    def want(self, keys: Sequence[str]) -> None:
        """Name the rows of the request; `made`, `count` and `rows` are about these."""
        with self._transaction("DEFERRED"):  # of this process alone: others may write
            self.database.execute("DELETE FROM wanted")
            self.database.executemany("INSERT INTO wanted VALUES (?, ?)", enumerate(keys))

    def made(self, mark: int | None = None) -> set[str]:
        """Keys of wanted rows that are there, or that were when the store was at `mark`."""
        query = "SELECT key FROM wanted JOIN completions USING (key)"
        if mark is not None:
            query += f" WHERE number <= {mark:d}"
        return {key for (key,) in self.database.execute(query)}

    def mark(self, request: str) -> int:
        """The number of the last row that the store had when `request` was first made.

        What the store had then is not planned again; what came since is part of the
        plan. So a killed request is cut into the same batches when it continues.
        """
        with self._writing():
            self.database.execute(
                "INSERT OR IGNORE INTO requests "
                "SELECT ?, coalesce(max(number), 0) FROM completions",
                (request,),
            )
        query = "SELECT mark FROM requests WHERE name = ?"
        return self.database.execute(query, (request,)).fetchone()[0]

    def claim(self, batch: Batch) -> Batch:
        """The rows of `batch` that are not there and that no living process is making.

        They are this process's from now on.
        """
        keys = json.dumps([ask.key for ask in batch])
        with self._writing():
            there = set(self.database.execute(THERE, (keys,)))
            owners = dict(self.database.execute(OWNERS, (keys,)).fetchall())
            alive = {owner for owner in set(owners.values()) if self._lives(owner)}
            free = [
                ask
                for ask in batch
                if (ask.key,) not in there and owners.get(ask.key) not in alive
            ]
            self.database.executemany(
                "INSERT OR REPLACE INTO claims VALUES (?, ?)",
                [(ask.key, self.owner) for ask in free],
            )
        return tuple(free)

    def keep(self, made: Sequence[tuple[str, Completion]]) -> None:
        """Store completions that have arrived, all or none; the first of a key stays."""
        with self._writing():
            self.database.executemany(
                "INSERT INTO completions (key, text, tokens, finished) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (key) DO NOTHING",
                [(key, *completion) for key, completion in made],
            )
            self._release(key for key, _ in made)

    def release(self, keys: Iterable[str]) -> None:
        """Give back claims on rows that this process cannot make."""
        with self._writing():
            self._release(keys)

    def _release(self, keys: Iterable[str]) -> None:
        self.database.executemany("DELETE FROM claims WHERE key = ?", ((key,) for key in keys))

    def rows(self) -> Iterator[Completion | None]:
        """The wanted completions, in the order in which they were named; None: not there."""
        query = (
            "SELECT text, tokens, finished FROM wanted LEFT JOIN completions USING (key) "
            "ORDER BY place"
        )
        for text, tokens, finished in self.database.execute(query):
            yield None if text is None else Completion(text, tokens, bool(finished))

    def _lock_file(self, owner: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{owner}.lock")

    def _lives(self, owner: str) -> bool:
        """Whether the process that made the claims of `owner` is still there."""
        if owner == self.owner:
            return False  # its own rows are not in the way
        file = self._lock_file(owner)
        if not file.exists():
            return False
        with if_free(file) as ended:
            pass
        if ended:
            file.unlink(missing_ok=True)
        return not ended

    def _writing(self) -> AbstractContextManager[None]:
        """A transaction that nobody else can write into."""
        return self._transaction("IMMEDIATE")

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self.database.execute(f"BEGIN {kind}")
        try:
            yield
        except BaseException:
            self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")
