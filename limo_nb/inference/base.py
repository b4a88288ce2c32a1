"""What engines, requests and stores have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from limo_nb.core.settings import Sampling
from limo_nb.inference.chat import Prompt

Work = TypeVar("Work")
Result = TypeVar("Result")


class EngineFailed(RuntimeError):
    """What an engine runs on does not answer, refuses or has ended; the message says why."""


class Completion(NamedTuple):
    """One answer: its text, its length in tokens without the end token, whether it ended."""

    text: str
    tokens: int
    finished: bool


class Ask(NamedTuple):
    """One completion that is wanted. `key` (hex) says all that it depends on."""

    key: str
    prompt: Prompt

    @property
    def seed(self) -> int:
        """Where the random numbers of this completion start; 48 bits of the key."""
        return int(self.key[:12], 16)


Batch = tuple[Ask, ...]  # rows that are computed together
Made = list[tuple[str, Completion]]  # completions that are ready, with their keys


class Engine(Protocol):
    """What makes completions; used as a context manager."""

    identity: dict[str, str]  # what a completion depends on besides prompt and sampling
    batch_size: int

    def __enter__(self) -> Engine: ...
    def __exit__(self, *exception: object) -> None: ...

    def length(self, prompt: Prompt) -> int:
        """The length of `prompt`, by which rows are grouped."""

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        """Completions as they are ready. `batches` is read when there is room for more."""


def in_flight(
    work: Iterable[Work], do: Callable[[Work], Result], slots: int
) -> Iterator[Result]:
    """`do` of every piece of `work`, `slots` at a time in threads, as they are ready.

    Work is taken, in the caller's thread, when a slot is free. Where a piece fails, no
    more is taken, those in flight are still handed out, and then the error is raised:
    what was paid for is kept.
    """
    work = iter(work)
    error: BaseException | None = None
    pool = ThreadPoolExecutor(slots)
    try:
        running = {pool.submit(do, piece) for piece in islice(work, slots)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            error = error or next(filter(None, (future.exception() for future in done)), None)
            if error is None:
                running |= {pool.submit(do, piece) for piece in islice(work, len(done))}
            yield from (future.result() for future in done if not future.exception())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if error is not None:
        raise error
