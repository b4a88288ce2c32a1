"""A server of our own: started beside the caller, waited for, and ended with it."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from limo_nb.inference.base import EngineFailed

PAUSE = 0.2  # seconds between two questions whether it is ready
LAST_LINES = 20  # of its log, that an error shows


class Server:
    """A process that answers at `http://127.0.0.1:PORT`; `name` is for messages."""

    def __init__(self, name: str, process: subprocess.Popen, log: IO[str], port: int) -> None:
        self.name, self.process, self.log = name, process, log
        self.address = f"http://127.0.0.1:{port}"

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def ended(self) -> EngineFailed:
        """What to raise where the process has ended by itself: its status and last lines."""
        status = self.process.wait()
        hint = ""
        if status == -9:
            hint = " (killed, as for lack of memory: a smaller engine.batch_size needs less)"
        return EngineFailed(f"{self.name} ended with status {status}{hint}:\n{self._tail()}")

    def wait_for(self, path: str, seconds: float) -> None:
        """Return when `path` answers 200; raises EngineFailed with the server's last lines."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() >= end:
                said = f"did not answer in {seconds:g} s"
                raise EngineFailed(f"{self.name} {said}:\n{self._tail()}")
            try:
                if httpx.get(f"{self.address}{path}", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(PAUSE)
        raise self.ended()

    def end(self) -> None:
        """Ask it to end what it started, and make sure that it does."""
        self.process.terminate()
        if self.process.stdin:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            self.process.wait()

    def _tail(self) -> str:
        self.log.seek(0)
        return "".join(self.log.readlines()[-LAST_LINES:])


@contextmanager
def started(
    name: str, command: Sequence[str], port: int, health: str = "/health",
    seconds: float = 900.0, variables: Mapping[str, str] | None = None,
) -> Iterator[Server]:  # fmt: skip
    """The server that `command` starts at `port`, when it is ready; it ends with the block.

    Its input is a pipe that closes when this process is gone, however that ends. Raises
    EngineFailed with its last lines where it ends, or does not answer within `seconds`.
    `variables` are added to the environment.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, **(variables or {})},
        )  # fmt: skip
        server = Server(name, process, log, port)
        try:
            server.wait_for(health, seconds)
            yield server
        finally:
            server.end()


def free_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def package_variables() -> dict[str, str]:
    """The environment variables with which a process finds this package."""
    home = str(Path(__file__).parent.parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))}
