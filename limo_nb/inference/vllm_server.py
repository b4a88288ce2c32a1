"""vLLM's OpenAI-compatible server, started beside the caller and ended with it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig

from limo_nb.inference.identity import source_of
from limo_nb.inference.models import decoding_precision, tensor_parallel_size
from limo_nb.inference.server import free_port, started

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
    port = free_port()
    command = [python, "-m", MODULE, "--host", "127.0.0.1", "--port", str(port)]
    command += server_options(model, dtype)
    with started("vLLM's server", command, port, seconds=seconds) as server:
        yield f"{server.address}/v1"


def server_options(model: str, dtype: str = "auto") -> list[str]:
    """The options with which vLLM's server serves `model` on this machine."""
    source, commit = source_of(model, weights=True)
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
