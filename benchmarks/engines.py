"""transformers, vLLM and its server side by side on one lab model; records `throughput.json`.

    export PYTHONPATH=$PWD OMP_NUM_THREADS=1 VLLM_LOGGING_LEVEL=ERROR
    export VLLM_CPU_OMP_THREADS_BIND=nobind VLLM_CPU_KVCACHE_SPACE=1
    .venv/bin/python benchmarks/engines.py lab:reasoner transformers > a.json
    .venv-vllm/bin/python benchmarks/engines.py lab:reasoner vllm openai > b.json
    .venv/bin/python benchmarks/engines.py record a.json b.json

The second environment is the one that `make test-vllm` builds; `openai` starts vLLM's
server. Every engine answers greedily, at most 64 tokens, to lab problems, so many rows at
once. Beside tokens per second of the clock stand tokens per second of processor time, of
all processes together: that does not suffer from what else the machine does, and tells an
engine that is fast from one that takes more cores. Ray is not there: its actors hold one of
these engines, and every request waits first until the pool has started.
"""

import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from importlib import metadata
from pathlib import Path

import psutil

from limo_nb import lab
from limo_nb.core.machine import hardware
from limo_nb.core.settings import (
    SYSTEM_PROMPT,
    EngineSettings,
    Sampling,
)
from limo_nb.inference import (
    chat_prompt,
    complete,
    open_engine,
    throughput,
)

TARGET = Path(throughput.__file__).with_suffix(".json")
LIBRARIES = {"transformers": "transformers", "vllm": "vllm", "openai": "vllm"}
ASKED = Sampling(max_new_tokens=throughput.CLOCK_TOKENS)
TURNS = 3


def processor_seconds() -> float:
    """Of this process and all below it that live."""
    whole = psutil.Process()
    times = [process.cpu_times() for process in (whole, *whole.children(recursive=True))]
    return sum(t.user + t.system for t in times)


@contextmanager
def served(kind: str, model: str) -> Iterator[str | None]:
    """The address of a server where `kind` needs one."""
    with throughput.server(model, "float32") if kind == "openai" else nullcontext() as address:
        yield address


def measure(kind: str, model: str) -> dict:
    """Tokens per second of one engine by rows at once; the best of some turns."""
    problems = lab.pool(64, seed=9)
    asked = [(row["id"], chat_prompt(row["question"], SYSTEM_PROMPT)) for row in problems]
    settings = EngineSettings(kind=kind, dtype="float32")
    clock, processor = [], []
    with tempfile.TemporaryDirectory() as folder, served(kind, model) as address:
        with open_engine(settings, model, address) as engine:
            complete(engine, asked[:8], ASKED, Path(folder) / "first.sqlite")
            for size in throughput.BATCHES:
                engine.batch_size = size
                turns = [_turn(engine, asked[: max(4, size)], folder) for _ in range(TURNS)]
                clock.append(max(turn[0] for turn in turns))
                processor.append(max(turn[1] for turn in turns))
    version = f"{LIBRARIES[kind]} {metadata.version(_package(kind))}"
    return {
        "engine": kind, "version": version, "tokens_per_second": [round(r) for r in clock],
        "tokens_per_processor_second": [round(r) for r in processor],
    }  # fmt: skip


def _package(kind: str) -> str:
    """vLLM's CPU build is a distribution of its own."""
    names = metadata.packages_distributions()
    return names.get(LIBRARIES[kind], [LIBRARIES[kind]])[0]


def _turn(engine, asked: list, folder: str) -> tuple[float, float]:
    """Tokens per second of the clock, and of processor time."""
    before = processor_seconds()
    made = throughput.timed(engine, asked, Path(folder))
    spent = processor_seconds() - before
    rate = made["tokens_per_second"]
    return rate, rate * made["seconds"] / spent


def record(parts: list[str]) -> None:
    """Write what the runs printed into the package."""
    rows = [
        row for part in parts for row in json.loads(Path(part).read_text().splitlines()[-1])
    ]
    made = {
        "made": {
            "command": "benchmarks/engines.py", "model": "lab:reasoner", "dtype": "float32",
            "machine": hardware(), "python": platform.python_version(),
            "date": date.today().isoformat(), "load": round(os.getloadavg()[0], 1),
        },
        "batches": list(throughput.BATCHES),
        "engines": rows,
    }  # fmt: skip
    TARGET.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "record":
        record(sys.argv[2:])
    else:
        rows = [measure(kind, sys.argv[1]) for kind in sys.argv[2:]]
        print(json.dumps(rows))
