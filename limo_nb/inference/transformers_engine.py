"""The default engine: `generate` of transformers, in this process or in workers."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import torch

from limo_nb.core.settings import (
    ChatSettings,
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import (
    Batch,
    Completion,
    Made,
    in_flight,
)
from limo_nb.inference.chat import (
    Prompt,
    prompt_ids,
)
from limo_nb.inference.decoder import Decoder
from limo_nb.inference.identity import exact_name, model_digest, weights_of
from limo_nb.inference.models import decoding_precision, load_tokenizer
from limo_nb.inference.templates import DEFAULT_CHAT
from limo_nb.inference.workers import Worker

FEW_ROWS = 64  # not worth the seconds that worker processes need to start
# To be raised when the decoder's draws change: stored completions would be other ones.
DRAWS = "2"


class TransformersEngine:
    """`generate` in this process (one worker, or few rows) or in resident workers."""

    def __init__(self, settings: EngineSettings, model: str) -> None:
        self.name, self.batch_size = exact_name(model), settings.batch_size
        dtype = decoding_precision(model, settings.dtype).dtype
        self.settings = settings.model_copy(update={"dtype": dtype})
        self.identity = {
            "kind": "transformers", "draws": DRAWS, "dtype": dtype,
            "model": model_digest(model), **weights_of(model), **settings.chat.identity,
        }  # fmt: skip
        self.tokenizer = load_tokenizer(model)
        self._workers: list[Worker] = []
        self._decoder: Decoder | None = None

    def __enter__(self) -> TransformersEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()
        self._workers, self._decoder = [], None

    def length(self, prompt: Prompt) -> int:
        """Tokens of `prompt`."""
        return len(prompt_ids(self.tokenizer, prompt, self.settings.chat))

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        """Batch after batch, those of several workers as they are ready."""
        batches = iter(batches)
        head: list[Batch] = []
        while self.settings.workers > 1 and sum(map(len, head)) <= FEW_ROWS:
            more = next(batches, None)
            if more is None:
                break
            head.append(more)
        few = not self._workers and sum(map(len, head)) <= FEW_ROWS
        batches = chain(head, batches)
        if self.settings.workers == 1 or few:
            for batch in batches:
                yield _named(batch, self._here(self._request(batch, sampling)))
        else:
            yield from self._spread(batches, sampling)

    def _request(self, batch: Batch, sampling: Sampling) -> dict[str, Any]:
        return request(self.tokenizer, batch, sampling, self.settings.chat)

    def _here(self, asked: dict[str, Any]) -> list[Completion]:
        if self._decoder is None:
            self._decoder = Decoder(self.name, self.settings.dtype, _device(0))
        sampling = Sampling(**asked["sampling"])
        return self._decoder.decode(asked["prompts"], asked["owners"], asked["seeds"], sampling)

    def _spread(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        """Hand each batch to a worker that is free."""
        while len(self._workers) < self.settings.workers:
            device = _device(len(self._workers))
            self._workers.append(Worker(self.name, self.settings.dtype, device))
        idle: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            idle.put(worker)

        def ask(batch: Batch) -> Made:
            worker = idle.get()
            try:
                return _named(batch, worker.ask(self._request(batch, sampling)))
            finally:
                idle.put(worker)

        try:
            yield from in_flight(batches, ask, len(self._workers))
        except BaseException:
            # Workers that are busy would answer a question that nobody asks any more.
            self.__exit__()
            raise


def request(
    tokenizer: Any, batch: Batch, sampling: Sampling, chat: ChatSettings = DEFAULT_CHAT
) -> dict[str, Any]:
    """The batch in tokens; the samples of one prompt share its ids."""
    prompts: dict[str, int] = {}
    owners = [prompts.setdefault(json.dumps(ask.prompt), len(prompts)) for ask in batch]
    ids = [prompt_ids(tokenizer, json.loads(prompt), chat) for prompt in prompts]
    if any(not row for row in ids):
        raise ValueError("an empty prompt cannot be continued")
    values = {"temperature", "top_p", "max_new_tokens"}
    return {
        "prompts": ids,
        "owners": owners,
        "seeds": [ask.seed for ask in batch],
        "sampling": sampling.model_dump(include=values),
    }


def _named(batch: Batch, completions: list[Completion]) -> Made:
    return [(ask.key, made) for ask, made in zip(batch, completions, strict=True)]


def _device(index: int) -> str:
    """The device of worker `index`: GPUs in turn, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{index % count}" if count else "cpu"
