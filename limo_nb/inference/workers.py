"""Worker processes: each holds a model and answers batches, one JSON line each."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from typing import IO, Any, cast

import torch

from limo_nb.core import memory
from limo_nb.core.machine import ONE_THREAD, cores
from limo_nb.core.settings import EngineSettings, Sampling
from limo_nb.inference.base import Completion, EngineFailed
from limo_nb.inference.decoder import Decoded, Decoder
from limo_nb.inference.models import is_small
from limo_nb.inference.server import package_variables

# For the environment of processes that compute on a CPU. Without it, glibc gives every
# freed cache back to the kernel and faults it in again at the next token: half of the time.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


LESS = ("engine.batch_size=N: fewer rows at once", "engine.workers=1")


def worker_count(settings: EngineSettings, model: str) -> int:
    """The processes in which transformers decodes `model` here.

    For "auto" one for each GPU; on a CPU one for each core where the model is small, and
    else one that has all cores: its weights are there once, and its products are large
    enough to be shared.
    """
    if settings.workers != "auto":
        return settings.workers
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return cores() if is_small(model) else 1


def worker_variables() -> dict[str, str]:
    """Environment variables of a process that decodes: this package, one thread."""
    return {**package_variables(), **ONE_THREAD, **ALLOCATOR}


class Worker:
    """A process that holds a model and answers batches, one JSON line each.

    It is started by its own command and not by `multiprocessing`, which would import
    the caller's main module again: a notebook has none, a script may lack the guard.
    """

    def __init__(self, name: str, dtype: str, device: str) -> None:
        self._kills = memory.kills()
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()",
             name, dtype, device],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env={**os.environ, **worker_variables()}, start_new_session=True,
        )  # fmt: skip
        self._requests = cast(IO[str], self.process.stdin)
        self._replies = cast(IO[str], self.process.stdout)

    def ask(self, request: dict[str, Any]) -> Iterator[Decoded]:
        """The completions of one batch as they come.

        Raises EngineFailed with the worker's last lines.
        """
        try:
            self._requests.write(json.dumps(request) + "\n")
            self._requests.flush()
        except (BrokenPipeError, ValueError):
            raise EngineFailed(self._last_words()) from None
        rows = len(request["owners"])
        while rows:
            part = self._read()
            rows = part.left
            yield part

    def _read(self) -> Decoded:
        try:
            line = self._replies.readline()
        except ValueError:  # closed by another thread
            line = ""
        if not line:
            raise EngineFailed(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise EngineFailed(f"a generation worker failed:\n{reply['error']}")
        ended, *counts = reply["part"]
        return Decoded([(place, Completion(*row)) for place, row in ended], *counts)

    def _last_words(self) -> str:
        status = self.process.wait()
        self.errors.seek(0)
        tail = "".join(self.errors.readlines()[-15:])
        killed = (
            memory.killed_words(self._kills, levers=LESS) if status in memory.KILLED else ""
        )
        return f"a generation worker failed:\nit ended with status {status}\n{killed}\n{tail}"

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self._requests, self._replies, self.errors):
            pipe.close()


def serve() -> None:
    """The main function of a worker process: read batches until the parent is gone."""
    name, dtype, device = sys.argv[1:4]
    torch.set_num_threads(1)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    decoder: Decoder | None = None
    while True:
        request = json.loads(requests.get())
        try:
            decoder = decoder or Decoder(name, dtype, device)
            sampling = Sampling(**request["sampling"])
            parts = decoder.parts(
                request["prompts"], request["owners"], request["seeds"], sampling
            )
            for part in parts:
                _reply(replies, {"part": part})
        except Exception:
            _reply(replies, {"error": traceback.format_exc(limit=-8)})


def _reply(replies: IO[str], said: dict[str, Any]) -> None:
    replies.write(json.dumps(said) + "\n")
    replies.flush()


def _read_requests(requests: queue.Queue[str]) -> None:
    """Hand lines on; a closed pipe means that the parent died, at once and not later."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)
