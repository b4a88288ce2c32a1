"""vLLM in this process: paged attention and continuous batching on a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

# Read when vLLM is imported, and by the processes that it starts: its log, which goes to
# stdout otherwise, must not mix with what a command prints there for programs.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

from vllm import LLM, SamplingParams
from vllm.sampling_params import RequestOutputKind

from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    EngineFailed,
    Made,
)
from limo_nb.inference.chat import (
    Prompt,
    prompt_ids,
)
from limo_nb.inference.models import (
    decoding_precision,
    load_tokenizer,
    model_digest,
    source_of,
    stop_ids,
)
from limo_nb.inference.vllm_server import on_this_machine


class VllmEngine:
    """An offline `LLM` over the visible GPUs, or over a CPU with vLLM's CPU build.

    It takes as many GPUs as the model divides evenly over (`shards`).
    """

    def __init__(self, settings: EngineSettings, model: str):
        self.name, self.dtype = model, decoding_precision(model, settings.dtype).dtype
        self.batch_size, self.tokenizer = settings.batch_size, load_tokenizer(model)
        self.identity = {
            "kind": "vllm", "dtype": self.dtype, "model": model_digest(model),
        }  # fmt: skip
        self._stops = stop_ids(model, self.tokenizer)
        self._llm: LLM | None = None  # seconds to minutes: when the first batch comes

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._llm = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def length(self, prompt: Prompt) -> int:
        return len(prompt_ids(self.tokenizer, prompt))

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        """Rows join while others are on their way, and are kept when they end.

        `LLM.generate` would hand a batch on when its longest chain has ended, so the
        engine below it is driven here.
        """
        asks = (ask for batch in batches for ask in batch)
        flying: set[str] = set()
        try:
            while True:
                for ask in islice(asks, self.batch_size - len(flying)):
                    self._add(ask, sampling)
                    flying.add(ask.key)
                if not flying:
                    return
                outputs = [out for out in self._llm.llm_engine.step() if out.finished]
                flying -= {output.request_id for output in outputs}
                if outputs:
                    yield [(out.request_id, _completion(out.outputs[0])) for out in outputs]
        finally:
            if flying:  # nobody waits for them any more
                self._llm.llm_engine.abort_request(list(flying))

    def _add(self, ask: Ask, sampling: Sampling) -> None:
        self._llm = self._llm or self._loaded()
        prompt = {"prompt_token_ids": prompt_ids(self.tokenizer, ask.prompt)}
        parameters = SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, seed=ask.seed,
            max_tokens=sampling.max_new_tokens, stop_token_ids=self._stops,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )  # fmt: skip
        self._llm.llm_engine.add_request(ask.key, prompt, parameters)

    def _loaded(self) -> LLM:
        source, revision = source_of(self.name)
        try:
            return LLM(
                model=source, revision=revision, dtype=self.dtype, seed=0,
                generation_config="vllm",  # not the decoding defaults of the model
                **on_this_machine(source, revision),
            )  # fmt: skip
        except RuntimeError as error:  # vLLM has logged the cause
            raise EngineFailed(f"vLLM could not load {source}: {error}") from error


def _completion(output: Any) -> Completion:
    finished = output.finish_reason == "stop"
    return Completion(output.text, len(output.token_ids) - finished, finished)
