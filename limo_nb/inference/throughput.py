"""Engines side by side: tokens per second and texts, here and as recorded. Chapter 7.

`throughput.json` holds what `benchmarks/engines.py` measured, with machine and versions; the
chapter draws it, since not every reader has all four engines.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import Engine, public_address
from limo_nb.inference.chat import Message, Prompt
from limo_nb.inference.engines import open_engine
from limo_nb.inference.request import complete
from limo_nb.inference.store import shared_store
from limo_nb.inference.vllm_server import serve_vllm, vllm_python

BATCHES = (1, 4, 16, 64)  # rows that are asked for at the same time
CLOCK_TOKENS = 64  # tokens of every clocked answer, at most


def found() -> dict[str, str]:
    """What each engine would run on here; "" for those that are not here."""
    ray = "a local Ray, or RAY_ADDRESS" if importlib.util.find_spec("ray") else ""
    vllm = "this environment" if importlib.util.find_spec("vllm") else ""
    server = public_address(os.environ.get("OPENAI_BASE_URL", "")) or vllm_python() or ""
    llamacpp = "GGUF files, here" if importlib.util.find_spec("xllamacpp") else ""
    return {
        "transformers": "this environment", "vllm": vllm, "openai": server,
        "llamacpp": llamacpp, "ray": ray,
    }  # fmt: skip


def clock(
    settings: EngineSettings, model: str, prompts: Sequence[Prompt], folder: Path
) -> list[dict[str, float]]:
    """Tokens per second by rows at once, greedy and at most 64 tokens each.

    The first row is done twice and counted once: loading must not be on the clock.
    """
    rows = []
    with open_engine(settings, model) as engine:
        for size in (BATCHES[0], *BATCHES):
            engine.batch_size = size
            asked = [(str(i), prompts[i % len(prompts)]) for i in range(max(4, size))]
            rows.append({"batch": size, **timed(engine, asked, folder)})
    return rows[1:]


def timed(engine: Engine, asked: list[tuple[str, Prompt]], folder: Path) -> dict[str, float]:
    """Tokens per second and seconds of `asked`, with nothing taken from a store."""
    store = folder / f"clock-{os.getpid()}-{time.time_ns()}.sqlite"
    started = time.perf_counter()
    label = f"{engine.batch_size} at once"
    answers = complete(engine, asked, Sampling(max_new_tokens=CLOCK_TOKENS), store, label)
    seconds = time.perf_counter() - started
    store.unlink()
    return {"tokens_per_second": sum(answers["tokens"]) / seconds, "seconds": seconds}


class Answered(NamedTuple):
    """What one engine made of some prompts."""

    tokens_per_second: float
    texts: list[str]


def answered(
    settings: EngineSettings, kind: str, model: str, prompts: list[tuple[str, Prompt]],
    folder: Path, base_url: str | None = None,
) -> Answered:  # fmt: skip
    """Greedy answers of at most 64 tokens from the engine `kind`, and its rate.

    `base_url` is the server that the engine `openai` asks (see `server`).
    """
    own = settings.model_copy(update={"kind": kind, "workers": 1})
    with open_engine(own, model, base_url) as engine:
        timed(engine, prompts[:1], folder)  # what is slow only once
        rate = timed(engine, prompts, folder)["tokens_per_second"]
        limit = Sampling(max_new_tokens=CLOCK_TOKENS)
        made = complete(engine, prompts, limit, shared_store(folder, engine), kind)
    return Answered(rate, list(made["text"]))


def side_by_side(answers: Mapping[str, Answered]) -> list[dict[str, str]]:
    """engine, tokens/s, and how many texts are those of the first engine."""
    first = next(iter(answers.values())).texts
    return [
        {
            "engine": kind,
            "tokens/s": f"{made.tokens_per_second:,.0f}",
            "same texts": f"{sum(map(str.__eq__, made.texts, first))} of {len(first)}",
        }
        for kind, made in answers.items()
    ]


@contextmanager
def server(model: str, dtype: str = "auto") -> Iterator[str]:
    """The address of the server that OPENAI_BASE_URL names, or of one that is started.

    Raises ValueError where there is neither a server nor vLLM.
    """
    given, python = os.environ.get("OPENAI_BASE_URL"), vllm_python()
    if given:
        yield given
        return
    if not python:
        raise ValueError("no server: set OPENAI_BASE_URL, or LIMO_NB_VLLM (`make test-vllm`)")
    with serve_vllm(model, python, dtype) as address:
        yield address


def stream(base_url: str, model: str, prompt: list[Message], limit: int) -> None:
    """Print the greedy answer of the server at `base_url` to `prompt` as it arrives."""
    from limo_nb.inference.openai_engine import client_of

    asked: Any = {"model": model, "messages": prompt, "temperature": 0.0, "max_tokens": limit}
    for part in client_of(base_url).chat.completions.create(**asked, stream=True):
        if part.choices:
            print(part.choices[0].delta.content or "", end="", flush=True)
    print()


def recorded() -> dict[str, Any]:
    """What was measured once: made (command, machine, date, load), batches, engines.

    `engines` are rows of engine, version, tokens_per_second and
    tokens_per_processor_second, one number for each of `batches`. The clock suffers from
    other work, of which `load`, the mean of a minute, tells; processor time does not.
    """
    return json.loads(
        resources.files("limo_nb.inference").joinpath("throughput.json").read_text()
    )


def curves(known: dict[str, Any]) -> dict[str, list[float]]:
    """Engine with its library's version -> tokens per second of processor time."""
    return {
        f"{row['engine']} ({row['version']})": row["tokens_per_processor_second"]
        for row in known["engines"]
    }
