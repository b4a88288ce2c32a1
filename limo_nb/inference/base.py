"""What engines, requests and stores have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypedDict, TypeVar
from urllib.parse import urlsplit, urlunsplit

from limo_nb.core.settings import Sampling
from limo_nb.inference.chat import Prompt

# The words of OpenAI, vLLM, SGLang, llama.cpp; xAI and vLLM's own process; TensorRT-LLM; TGI,
# Anthropic and Gemini. Few give a code, and they differ.
TOO_LONG = re.compile(
    r"context.?(length|size|window|limit)|maximum (prompt|model) length|max_(seq|input)_len"
    r"|(prompt|inputs?)\b.*\b(too (long|large)|longer than|exceeds?|must (be|have) (<=|less))",
    re.IGNORECASE | re.DOTALL,
)

TICK_SECONDS = 5.0  # without a sign of work before one is given

Work = TypeVar("Work")
Result = TypeVar("Result")


class EngineFailed(RuntimeError):
    """What an engine runs on does not answer, refuses or has ended; the message says why."""


class NotInstalled(ImportError):
    """A library is absent; the message says which command installs it."""


class Completion(NamedTuple):
    """One answer: its text, its length in tokens without the end token, whether it ended."""

    text: str
    tokens: int
    finished: bool


class Refused(NamedTuple):
    """No answer, because of the prompt itself: it is too long for the model, say."""

    why: str


class CompletionRow(TypedDict):
    """A row of the tables that `complete` returns."""

    id: str  # of the item that was asked
    sample: int  # which of the item's samples
    text: str  # the completion without the prompt; "" where the prompt was refused
    tokens: int  # its length, without the end token
    finished: bool  # whether it ended by itself, and not at the limit


class Ask(NamedTuple):
    """One completion that is wanted. `key` (hex) says all that it depends on."""

    key: str
    prompt: Prompt

    @property
    def seed(self) -> int:
        """Where the random numbers of this completion start; 48 bits of the key."""
        return int(self.key[:12], 16)


Batch = tuple[Ask, ...]  # rows that are computed together
# What is ready, with its keys: rows that an engine has answered, or that it cannot answer.
Made = Sequence[tuple[str, Completion | Refused]]


class Underway(NamedTuple):
    """A sign of work: rows that are being made now, and the tokens that these have so far."""

    rows: int
    tokens: int  # 0 where the engine does not know


class Engine(Protocol):
    """What makes completions; used as a context manager."""

    identity: dict[str, str]  # what a completion depends on besides prompt and sampling
    batch_size: int

    def __enter__(self) -> Engine: ...
    def __exit__(self, *exception: object) -> None: ...

    def length(self, prompt: Prompt) -> int:
        """The length of `prompt`, by which rows are grouped."""

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made | Underway]:
        """Completions as they are ready, and signs of work in between.

        `batches` is read when there is room for more.

        Raises EngineFailed where no more can be made.
        """


def public_address(url: str) -> str:
    """`url` without user, password and query: what may be shown and recorded of it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host, query="", fragment=""))


def too_long(said: str) -> bool:
    """Whether an error says that a prompt, or its answer's limit too, exceeds the model."""
    return bool(TOO_LONG.search(said))


def in_flight(
    work: Iterable[Work], do: Callable[[Work], Iterable[Result]], slots: int,
    tick: Callable[[int], Result] | None = None,
) -> Iterator[Result]:  # fmt: skip
    """What `do` yields of every piece of `work`, `slots` at a time in threads, as it comes.

    Work is taken, in the caller's thread, when a slot is free. Where a piece fails, no
    more is taken, those in flight are still handed out, and then the error is raised:
    what was paid for is kept. After TICK_SECONDS in which nothing came, `tick` of the
    number of pieces in flight is handed out.
    """
    work = iter(work)
    ready: SimpleQueue[Any] = SimpleQueue()

    def drain(piece: Work) -> None:
        error: BaseException | None = None
        try:
            for result in do(piece):
                ready.put(result)
        except BaseException as raised:
            error = raised
        ready.put(_Ended(error))

    error: BaseException | None = None
    pool = ThreadPoolExecutor(slots)
    try:
        running = len([pool.submit(drain, piece) for piece in islice(work, slots)])
        while running:
            try:
                found = ready.get(timeout=TICK_SECONDS)
            except Empty:
                if tick:
                    yield tick(running)
                continue
            if not isinstance(found, _Ended):
                yield found
                continue
            error = error or found.error
            more = [] if error else list(islice(work, 1))
            running += len([pool.submit(drain, piece) for piece in more]) - 1
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    if error is not None:
        raise error


class _Ended(NamedTuple):
    """A piece of work in flight has ended, perhaps by `error`."""

    error: BaseException | None
