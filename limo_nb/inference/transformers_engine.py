"""The default engine: `generate` of transformers, in this process or in workers."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch

from limo_nb.core.settings import (
    ChatSettings,
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import (
    Batch,
    Made,
    Underway,
    in_flight,
)
from limo_nb.inference.chat import (
    Prompt,
    prompt_ids,
)
from limo_nb.inference.decoder import Decoded, Decoder
from limo_nb.inference.identity import exact_name, model_digest, weights_of
from limo_nb.inference.models import (
    context_length,
    decoding_precision,
    is_small,
    load_tokenizer,
)
from limo_nb.inference.needs import (
    check_decoding,
    decoding_parts,
    decoding_rate,
    rows_at_once,
)
from limo_nb.inference.shapes import shape_if_known
from limo_nb.inference.templates import DEFAULT_CHAT
from limo_nb.inference.workers import Worker, worker_count

QUEUED = 8  # batches of a large model whose rows take turns
FEW_ROWS = 64  # not worth the seconds that worker processes need to start
# To be raised when the decoder's draws change: stored completions would be other ones.
DRAWS = "2"


class TransformersEngine:
    """`generate` in this process (one worker, or few rows) or in resident workers."""

    def __init__(self, settings: EngineSettings, model: str) -> None:
        self.name = exact_name(model)
        self.shape = shape_if_known(self.name)
        self.small, self.count = is_small(model), worker_count(settings, model)
        dtype = decoding_precision(model, settings.dtype).dtype
        self.batch_size = rows_at_once(self.shape, settings.batch_size, self.small, dtype)
        self.settings = settings.model_copy(update={"dtype": dtype})
        self.identity = {
            "kind": "transformers", "draws": DRAWS, "dtype": dtype,
            "model": model_digest(model), **weights_of(model), **settings.chat.identity,
        }  # fmt: skip
        self.tokenizer = load_tokenizer(model)
        self.window, self.over_long = context_length(model), settings.over_long
        self._workers: list[Worker] = []
        self._decoder: Decoder | None = None
        self._told = False

    def __enter__(self) -> TransformersEngine:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.close()
        self._workers, self._decoder = [], None

    def length(self, prompt: Prompt) -> int:
        """Tokens of `prompt`."""
        return len(prompt_ids(self.tokenizer, prompt, self.settings.chat))

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made | Underway]:
        """Batch after batch, those of several workers as they are ready.

        Raises NotEnoughMemory before a model is loaded where the first batch, which has the
        longest prompts, would not fit.
        """
        batches = iter(batches)
        head = list(islice(batches, 1))
        while head and self.count > 1 and sum(map(len, head)) <= FEW_ROWS:
            more = next(batches, None)
            if more is None:
                break
            head.append(more)
        if not head:
            return
        few = not self._workers and sum(map(len, head)) <= FEW_ROWS
        here = self.count == 1 or few
        self._check_memory(head[0], sampling, 1 if here else self.count)
        batches = chain(head, batches)
        if here:
            for batch in self._queued(batches):
                asked = self._request(batch, sampling)
                yield from _handed_out(batch, self._here(asked))
        else:
            yield from self._spread(batches, sampling)

    @property
    def _large(self) -> bool:
        """Whether this is a large model on a CPU, of known sizes."""
        return not (self.small or self.shape is None or torch.cuda.is_available())

    @property
    def tokens_per_second(self) -> float | None:
        """About how fast a large model decodes on this CPU; None for others."""
        if self.shape is None or not self._large:
            return None
        return decoding_rate(self.shape, self.settings.dtype)

    def _queued(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches as they are; of a large model on a CPU several as one, a queue.

        There the last rows of a batch take nearly as long alone as in company.
        """
        while group := list(islice(batches, QUEUED if self._large else 1)):
            yield tuple(ask for batch in group for ask in batch)

    def _request(self, batch: Batch, sampling: Sampling) -> dict[str, Any]:
        return request(self.tokenizer, batch, sampling, self.settings.chat)

    def _check_memory(self, batch: Batch, sampling: Sampling, processes: int) -> None:
        """Ask for memory while nothing is loaded; a large model's need is told."""
        if self.shape is None or self._decoder or self._workers:
            return
        shape, dtype = self.shape, self.settings.dtype
        width = self.length(batch[0].prompt) + sampling.max_new_tokens
        said = check_decoding(
            f"{self.name} with {len(batch)} rows of up to {width:,} tokens at once",
            lambda rows: decoding_parts(shape, dtype, rows, width, sampling.temperature > 0),
            len(batch), processes, self.settings.force,
        )  # fmt: skip
        if not (self.small or self._told):
            print(said, file=sys.stderr, flush=True)
        self._told = True

    def _here(self, asked: dict[str, Any]) -> Iterator[Decoded]:
        if self._decoder is None:
            self._decoder = Decoder(self.name, self.settings.dtype, _device(0))
        sampling = Sampling(**asked["sampling"])
        return self._decoder.parts(
            asked["prompts"], asked["owners"], asked["seeds"], sampling, self.batch_size
        )

    def _spread(
        self, batches: Iterable[Batch], sampling: Sampling
    ) -> Iterator[Made | Underway]:
        """Hand each batch to a worker that is free."""
        while len(self._workers) < self.count:
            device = _device(len(self._workers))
            self._workers.append(Worker(self.name, self.settings.dtype, device))
        idle: queue.Queue[Worker] = queue.Queue()
        for worker in self._workers:
            idle.put(worker)

        underway: dict[str, Underway] = {}

        def ask(batch: Batch) -> Iterator[Made | Underway]:
            worker = idle.get()
            try:
                asked = self._request(batch, sampling)
                for ready in _handed_out(batch, worker.ask(asked)):
                    if isinstance(ready, Underway):
                        underway[batch[0].key] = ready
                        ready = Underway(*map(sum, zip(*[*underway.values()], strict=True)))
                    yield ready
            finally:
                underway.pop(batch[0].key, None)
                idle.put(worker)

        try:
            yield from in_flight(batches, ask, len(self._workers))
        except BaseException:
            # Workers that are busy would answer a question that nobody asks any more.
            self.__exit__()
            raise


def _handed_out(batch: Batch, parts: Iterable[Decoded]) -> Iterator[Made | Underway]:
    """What a decoder makes of `batch`, under the names of its rows."""
    for part in parts:
        if part.ended:
            yield [(batch[place].key, made) for place, made in part.ended]
        yield Underway(part.rows, part.tokens)


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


def _device(index: int) -> str:
    """The device of worker `index`: GPUs in turn, or the CPU."""
    count = torch.cuda.device_count()
    return f"cuda:{index % count}" if count else "cpu"
