"""vLLM's OpenAI-compatible server, started beside the caller and ended with it."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import torch
from transformers import AutoConfig

from limo_nb.inference.base import EngineFailed
from limo_nb.inference.identity import source_of
from limo_nb.inference.models import decoding_precision, tensor_parallel_size

MODULE = "vllm.entrypoints.openai.api_server"  # `vllm serve` fails in some CPU builds
# Compiling takes longer on a CPU than what a CPU is asked for, and 0.9 of the memory, the
# default, is not free there.
ON_CPU = {"enforce_eager": True, "gpu_memory_utilization": 0.3}


def on_this_machine(source: str, commit: str | None = None) -> dict[str, Any]:
    """Arguments of vLLM for what is here: a CPU, or as many GPUs as the model divides over."""
    if not torch.cuda.is_available():
        return dict(ON_CPU)
    config = AutoConfig.from_pretrained(source, revision=commit)
    return {"tensor_parallel_size": tensor_parallel_size(config, torch.cuda.device_count())}


def vllm_python() -> str | None:
    """The interpreter whose environment has vLLM: this one, or LIMO_NB_VLLM; else None.

    vLLM pins its own torch and transformers, so it often lives in an environment of its
    own, such as the one that `make test-vllm` builds.
    """
    if importlib.util.find_spec("vllm"):
        return sys.executable
    return os.environ.get("LIMO_NB_VLLM") or None


@contextmanager
def serve_vllm(
    model: str, python: str, dtype: str = "auto", seconds: float = 900.0
) -> Iterator[str]:
    """Serve `model` under its own name with vLLM; the address, `http://…/v1`.

    The decoding defaults of the model are left out, as in the engines here. Raises
    EngineFailed with the server's last lines where it ends, or does not answer within
    `seconds`.
    """
    port = _free_port()
    command = [python, "-m", MODULE, "--host", "127.0.0.1", "--port", str(port)]
    command += server_options(model, dtype)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log, seconds)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _end(process)


def server_options(model: str, dtype: str = "auto") -> list[str]:
    """The options with which vLLM's server serves `model` on this machine."""
    source, commit = source_of(model)
    options = {
        "model": source, "served_model_name": model,
        "dtype": decoding_precision(model, dtype).dtype,
        "generation_config": "vllm", "revision": commit,
        **on_this_machine(source, commit),
    }  # fmt: skip
    flags: list[str] = []
    for name, value in options.items():
        if value is not None:
            flags += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return flags


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait_for(url: str, process: subprocess.Popen, log: Any, seconds: float) -> None:
    """Return when `url` answers 200."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.5)
    state = f"ended with status {process.poll()}"
    state = f"did not answer in {seconds:g} s" if process.poll() is None else state
    log.seek(0)
    raise EngineFailed(f"vLLM's server {state}:\n{''.join(log.readlines()[-20:])}")


def _end(process: subprocess.Popen) -> None:
    """Ask the server to end its engine's processes, and make sure that it does."""
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
