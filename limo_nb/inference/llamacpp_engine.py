"""llama.cpp's server over a GGUF file: quantised weights, continuous batching, any CPU."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from limo_nb.core.machine import cores
from limo_nb.core.settings import EngineSettings, Sampling
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    EngineFailed,
    Made,
    Refused,
    Underway,
)
from limo_nb.inference.chat import Prompt, answer_text, prompt_ids
from limo_nb.inference.identity import gguf_path, model_digest, quantisation_of
from limo_nb.inference.llamacpp_server import serve_llamacpp
from limo_nb.inference.models import context_length, load_tokenizer, stop_token_ids
from limo_nb.inference.openai_engine import SECONDS, OpenAIEngine
from limo_nb.inference.server import Server

if importlib.util.find_spec("xllamacpp") is None:  # only the server's process imports it
    raise ImportError("No module named 'xllamacpp'")

# Answers at once. Weights are read once for all of them; beyond, a CPU computes no faster
# Answers at once: weights are read once for all of them (benchmarks/RESULTS.md), and each
# holds a context in memory.
SLOTS = 8
STEP = 256  # tokens to which llama.cpp rounds contexts up
SEEDS = 2**32 - 1  # llama.cpp's are below; this one would be drawn anew


class LlamacppEngine(OpenAIEngine):
    """Starts the server when the first batch comes, and ends it on leaving.

    At most `SLOTS` or `batch_size` answers are made at the same time, on all cores or
    OMP_NUM_THREADS. Prompts go as the token ids that every engine here reads, and answers
    come as such, so neither the server's template nor its tokenizer takes part. Each answer
    has its seed; sums of floats still depend on which answers are computed together, so a
    second run may differ in a few.
    """

    def __init__(self, settings: EngineSettings, model: str) -> None:
        file = gguf_path(model)
        if file is None:
            raise ValueError(
                f"engine.kind is llamacpp, which reads GGUF files, and {model!r} is not one: "
                "take the engine transformers, or name a FILE.gguf of the model"
            )
        self.name, self.batch_size, self.file = model, settings.batch_size, file
        self.identity = {
            "kind": "llamacpp", "model": model_digest(model),
            "weights": quantisation_of(model), **settings.chat.identity,
        }  # fmt: skip
        self._chat = settings.chat
        self.tokenizer = load_tokenizer(model)
        self.window = context_length(model) or 0  # a GGUF file says it
        self.over_long = settings.over_long
        self._stops = frozenset(stop_token_ids(model, self.tokenizer))
        self._counting = threading.Lock()
        self._running = ExitStack()
        self._server: Server | None = None
        self._sizes = (0, 0)  # of the server that runs: slots, context

    def __exit__(self, *exception: object) -> None:
        self._running.close()
        self._server = None

    @property
    def slots(self) -> int:
        """Answers that are made at the same time."""
        return min(SLOTS, self.batch_size)

    def length(self, prompt: Prompt) -> int:
        """Tokens of `prompt`."""
        return len(self._ids(prompt))

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made | Underway]:
        """Rows as they end. A batch that needs longer contexts gets another server."""
        left = iter(batches)
        waiting = [batch for batch in (next(left, None),) if batch]
        while waiting:
            batch = waiting.pop()
            self._serve(self._needed(batch, sampling))
            yield from super().run(self._fitting(batch, left, waiting, sampling), sampling)

    def _fitting(
        self, batch: Batch, left: Iterator[Batch], waiting: list[Batch], sampling: Sampling
    ) -> Iterator[Batch]:
        """`batch` and those of `left` up to one for which contexts are too short."""
        yield batch
        for batch in left:
            if self._needed(batch, sampling) > self._sizes[1]:
                waiting.append(batch)
                return
            yield batch

    def _needed(self, batch: Batch, sampling: Sampling) -> int:
        """Tokens of a context that every row of `batch` fits in, as far as the model's does."""
        longest = max(self.length(ask.prompt) for ask in batch) + sampling.max_new_tokens
        longest = min(longest, self.window)
        return -(-longest // STEP) * STEP

    def _serve(self, context: int) -> None:
        slots, held = self._sizes
        if self._server and slots == self.slots and held >= context:
            return
        self._running.close()
        threads = int(os.environ.get("OMP_NUM_THREADS") or cores())
        serving = serve_llamacpp(self.file, self.slots, context, threads)
        self._server = self._running.enter_context(serving)
        self._sizes = (self.slots, context)
        self._connect(self._server.address, retries=2, seconds=SECONDS)
        self._running.callback(self._client.close)

    def _ask(self, ask: Ask, sampling: Sampling) -> Completion | Refused:
        ids = self._ids(ask.prompt)
        if len(ids) >= self.window:
            return Refused(
                f"the prompt has {len(ids)} tokens, and the model's context is {self.window}"
            )
        try:
            return super()._ask(ask, sampling)
        except EngineFailed as error:
            if self._server and not self._server.alive:
                raise self._server.ended() from error
            raise

    def _reply(self, ask: Ask, sampling: Sampling) -> tuple[Any, Any]:
        """llama.cpp's own reply, which has the token ids, and no usage."""
        ids = self._ids(ask.prompt)
        own = {
            "n_predict": min(sampling.max_new_tokens, self.window - len(ids)),
            "samplers": ["temperature", "top_p"],  # and no other, whatever its default
            "return_tokens": True,
            "cache_prompt": False,  # what a slot held before must not count
        }
        made = self._client.completions.create(
            model=self.name, prompt=ids, seed=ask.seed % SEEDS, top_p=sampling.top_p,
            temperature=sampling.temperature, extra_body=own,
        )  # fmt: skip
        return made.model_extra, None

    def _completion(self, choice: Any, usage: Any) -> Completion:
        ids, ended = choice["tokens"], choice["stop_type"] == "eos"
        count = next((n for n, token in enumerate(ids) if token in self._stops), None)
        if count is None:  # llama.cpp knows further tokens that end a reply
            count = len(ids) - ended
        with self._counting:
            text = answer_text(self.tokenizer, ids[:count])
        return Completion(text, count, ended or count < len(ids))

    def _ids(self, prompt: Prompt) -> list[int]:
        with self._counting:  # tokenizers are not made for several threads
            ids = prompt_ids(self.tokenizer, prompt, self._chat)
        if not ids:
            raise ValueError("an empty prompt cannot be continued")
        return ids
