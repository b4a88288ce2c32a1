"""llama.cpp's server in a process of its own, over one GGUF file.

`xllamacpp` has the server as a library and no command, so this module is the command: a
crash of llama.cpp takes down that process and not the caller's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limo_nb.inference.server import Server

SAID = 2  # llama.cpp's verbosity: warnings and errors, not a line for every request


@contextmanager
def serve_llamacpp(file: Path, slots: int, context: int, threads: int) -> Iterator[Server]:
    """Serve `file` with `slots` answers at once of `context` tokens each, prompt and all.

    Raises EngineFailed with the last lines where it cannot be loaded.
    """
    from limo_nb.inference.server import free_port, package_variables, started

    port = free_port()
    asked = {
        "file": str(file), "slots": slots, "context": context, "threads": threads, "port": port
    }  # fmt: skip
    command = [sys.executable, "-m", __name__, json.dumps(asked)]
    with started("llama.cpp's server", command, port, variables=package_variables()) as server:
        yield server


def parameters(asked: dict[str, Any]) -> Any:
    """`xllamacpp.CommonParams` for what is `asked`: file, slots, context, threads, port."""
    import xllamacpp

    made = xllamacpp.CommonParams()
    made.model.path, made.hostnames, made.port = asked["file"], ["127.0.0.1"], asked["port"]
    made.n_parallel, made.n_ctx = asked["slots"], asked["slots"] * asked["context"]
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = asked["threads"]
    made.cache_ram_mib = 0  # prompts of questions differ, and this may take 8 GiB
    made.fit_params = False  # the sizes are those that were asked for
    made.ui, made.verbosity = False, SAID
    return made


def main() -> None:
    """Serve what the first argument says in JSON, until the standard input is closed."""
    import xllamacpp

    server = xllamacpp.Server(parameters(json.loads(sys.argv[1])))
    sys.stdin.read()  # ends with the parent, however that ends
    del server
    os._exit(0)


if __name__ == "__main__":
    main()
