"""vLLM in this process: paged attention and continuous batching on a GPU."""

from __future__ import annotations

import os
import time
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
    TICK_SECONDS,
    Ask,
    Batch,
    Completion,
    EngineFailed,
    Made,
    Refused,
    Underway,
    too_long,
)
from limo_nb.inference.chat import (
    Prompt,
    prompt_ids,
)
from limo_nb.inference.identity import model_digest, source_of, weights_of
from limo_nb.inference.models import (
    context_length,
    decoding_precision,
    load_tokenizer,
    stop_token_ids,
)
from limo_nb.inference.templates import thought_tokens
from limo_nb.inference.vllm_server import on_this_machine


class VllmEngine:
    """An offline `LLM` over the visible GPUs, or over a CPU with vLLM's CPU build.

    It takes as many GPUs as the model divides evenly over (`tensor_parallel_size`).
    """

    def __init__(self, settings: EngineSettings, model: str) -> None:
        self.name, self.dtype = model, decoding_precision(model, settings.dtype).dtype
        self.batch_size, self.tokenizer = settings.batch_size, load_tokenizer(model)
        self.identity = {
            "kind": "vllm", "dtype": self.dtype, "model": model_digest(model),
            **weights_of(model),
            **settings.chat.identity,
        }  # fmt: skip
        self._chat = settings.chat
        self._stops = stop_token_ids(model, self.tokenizer)
        self.window, self.over_long = context_length(model), settings.over_long
        self._llm: LLM | None = None  # seconds to minutes: when the first batch comes

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        self._llm = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def length(self, prompt: Prompt) -> int:
        """Tokens of `prompt`."""
        return len(prompt_ids(self.tokenizer, prompt, self._chat))

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made | Underway]:
        """Rows join while others are on their way, and are kept when they end.

        `LLM.generate` would hand a batch on when its longest chain has ended, so the
        engine below it is driven here. That one is internal to vLLM, and the reason for
        the upper bound of its version in pyproject.toml.
        """
        asks = (ask for batch in batches for ask in batch)
        flying: set[str] = set()
        told = time.monotonic()
        try:
            while True:
                ready: list[tuple[str, Completion | Refused]] = []
                for ask in islice(asks, self.batch_size - len(flying)):
                    if refused := self._add(ask, sampling):
                        ready.append((ask.key, refused))
                    else:
                        flying.add(ask.key)
                if not flying and not ready:
                    return
                outputs = [o for o in self._engine.step() if o.finished] if flying else []
                flying -= {output.request_id for output in outputs}
                ready += [(o.request_id, _completion(o.outputs[0])) for o in outputs]
                if ready:
                    yield ready
                if time.monotonic() - told >= TICK_SECONDS:
                    told = time.monotonic()
                    yield Underway(len(flying), 0)
        finally:
            if flying:  # nobody waits for them any more
                self._engine.abort_request(list(flying))

    @property
    def _engine(self) -> Any:
        self._llm = self._llm or self._loaded()
        return self._llm.llm_engine

    def _add(self, ask: Ask, sampling: Sampling) -> Refused | None:
        """Hand a row to the engine below, unless its prompt is too long for the model."""
        engine = self._engine
        prompt = {"prompt_token_ids": prompt_ids(self.tokenizer, ask.prompt, self._chat)}
        parameters = SamplingParams(
            temperature=sampling.temperature, top_p=sampling.top_p, seed=ask.seed,
            max_tokens=sampling.max_new_tokens, stop_token_ids=self._stops,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_special_tokens=not thought_tokens(self.tokenizer),  # else marks are lost
        )  # fmt: skip
        try:
            engine.add_request(ask.key, prompt, parameters)
        except ValueError as error:
            if not too_long(str(error)):
                raise
            return Refused(str(error))
        return None

    def _loaded(self) -> LLM:
        source, commit = source_of(self.name, weights=True)
        try:
            return LLM(
                model=source, revision=commit, dtype=self.dtype, seed=0,
                generation_config="vllm",  # not the decoding defaults of the model
                **on_this_machine(source, commit),
            )  # fmt: skip
        except RuntimeError as error:  # vLLM has logged the cause
            raise EngineFailed(f"vLLM could not load {source}: {error}") from error


def _completion(output: Any) -> Completion:
    finished = output.finish_reason == "stop"
    return Completion(output.text, len(output.token_ids) - finished, finished)
