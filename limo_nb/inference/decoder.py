"""Batched decoding with `generate`, each row with random numbers of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    TemperatureLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from limo_nb.core.settings import Sampling
from limo_nb.inference.base import Completion
from limo_nb.inference.chat import answer_text
from limo_nb.inference.models import SMALL_BYTES, load_model, stop_token_ids

# Tokens between two sweeps of finished rows: `generate` runs a batch until its longest
# row ends; sweeping every 32 tokens and sharing the prefill of a prompt's samples gave
# about three times the rate (benchmarks/generation.py).
SEGMENT = 32
# Operations between two sweeps on a CPU, at most: a large model takes seconds a token there,
# and what it does must be seen. It depends on sizes alone, so that runs can be repeated.
SEGMENT_FLOPS = 5e11
# A batch that lasts longer hands out the rows that have ended: a kill costs no more. What is
# decoded anew then has fewer batch-mates, and sums of floats are rounded otherwise; a shorter
# batch is handed out as a whole, and can be repeated to the bit.
KEEP_SECONDS = 30.0
# Padded tokens of one pass over prompts. What a pass of 250 prompts leaves between layers
# fits no cache of a CPU; in parts of this size it took less than half of the time.
PREFILL_TOKENS = 4096
# Tokens among which those of a nucleus are looked for first; a flat distribution takes more.
CANDIDATES = 256


class PreallocatedLayer(DynamicLayer):
    """Keys and values of a layer, with memory for the tokens to come.

    `DynamicLayer` copies all that it holds for every token. On a CPU in float32 that took a
    third of the time of a small model (benchmarks/generation.py). Here a token is written
    in place, and the buffers grow by SEGMENT tokens at a time.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states (rows, heads, tokens, size); return all of them, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers: dict[str, torch.Tensor] = {}
        self.keys = self._appended("keys", self.keys, key_states)
        self.values = self._appended("values", self.values, value_states)
        return self.keys, self.values

    def _appended(
        self, name: str, held: torch.Tensor | None, new: torch.Tensor
    ) -> torch.Tensor:
        held = new[..., :0, :] if held is None or not held.numel() else held
        length, buffer = held.shape[-2], self.buffers.get(name)
        end = length + new.shape[-2]
        # Another owner (beam search, say) may have put its own tensor in place of ours.
        ours = buffer is not None and buffer.data_ptr() == held.data_ptr()
        if buffer is None or not ours or buffer.shape[-2] < end:
            buffer = new.new_empty(*new.shape[:-2], end + SEGMENT, new.shape[-1])
            buffer[..., :length, :] = held
            self.buffers[name] = buffer
        buffer[..., length:end, :] = new
        return buffer[..., :end, :]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`; the memory of the others is given back at once."""
        super().batch_select_indices(indices)
        self.buffers.clear()


def empty_layer(dtype: torch.dtype) -> DynamicLayer:
    """A layer for keys and values of `dtype`: in bfloat16, copying them is the faster way."""
    return PreallocatedLayer() if dtype == torch.float32 else DynamicLayer()


class Decoded(NamedTuple):
    """What a batch has come to: rows that have ended, by place, and those on their way."""

    ended: list[tuple[int, Completion]]
    rows: int  # that are on their way
    tokens: int  # which these have so far


class Decoder:
    """Batched sampling with `generate`: the part that runs in each worker process."""

    def __init__(self, name: str, dtype: str, device: str = "cpu") -> None:
        self.model, self.tokenizer = load_model(name, dtype)
        self.model.to(device)
        stops = stop_token_ids(name, self.tokenizer)
        self.stops = torch.tensor(stops, device=device)
        # Hub models bring decoding defaults (top_k, repetition_penalty) of their own;
        # what the profile says must be all that shapes the distribution.
        self.model.generation_config = GenerationConfig(
            eos_token_id=stops, pad_token_id=self.tokenizer.pad_token_id
        )
        self.flops = 2 * self.model.num_parameters()  # of one token
        weights = (p.numel() * p.element_size() for p in self.model.parameters())
        self.small = sum(weights) < SMALL_BYTES

    def decode(
        self,
        prompts: list[list[int]],
        owners: Sequence[int],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[Completion]:
        """One completion per entry of `owners`, which are indices into `prompts`.

        Row i draws from random numbers that start at `seeds[i]`; greedy rows draw none.
        """
        parts = self.parts(prompts, owners, seeds, sampling)
        made = dict(row for part in parts for row in part.ended)
        return [made[place] for place in range(len(owners))]

    def parts(
        self,
        prompts: list[list[int]],
        owners: Sequence[int],
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> Iterator[Decoded]:
        """The same as it comes: rows that have ended, twice a minute and at the end."""
        held: list[tuple[int, Completion]] = []
        handed, limit = time.monotonic(), sampling.max_new_tokens
        steps = self._generate(prompts, torch.tensor(owners), seeds, sampling)
        while True:
            # Only while this works: whoever takes the parts computes in between.
            with torch.inference_mode(), _threads(self.small):
                step = next(steps, None)
            if step is None:
                break
            ended, rows, tokens = step
            held += [(place, self._completion(ids, limit)) for place, ids in ended]
            due = not rows or time.monotonic() - handed >= KEEP_SECONDS
            yield Decoded(held if due else [], rows, tokens)
            if due:
                held, handed = [], time.monotonic()

    def _completion(self, ids: torch.Tensor, limit: int) -> Completion:
        """Cut `ids` (made tokens, padded after the end) at the first stop token."""
        ends = torch.isin(ids, self.stops).nonzero()
        count = int(ends[0]) if len(ends) else min(len(ids), limit)
        text = answer_text(self.tokenizer, ids[:count].tolist())
        return Completion(text, count, bool(len(ends)))

    def _generate(
        self, prompts: list[list[int]], owners: torch.Tensor, seeds: Sequence[int],
        sampling: Sampling,
    ) -> Iterator[tuple[list[tuple[int, torch.Tensor]], int, int]]:  # fmt: skip
        """(ended rows with their new ids, rows left, tokens that these have), by segments.

        Finished rows leave the batch after every segment.
        """
        device = self.model.device
        ids, mask = left_padded(prompts, self.tokenizer.pad_token_id)
        ids, mask, owners = ids.to(device), mask.to(device), owners.to(device)
        width, limit = ids.shape[1], sampling.max_new_tokens
        parts: list[Any] | None = [] if self._plain_cache(width) else None
        if parts is not None:
            for part in self._prefills(ids[:, :-1], mask[:, :-1]):
                parts.append(part)
                yield [], len(owners), 0
        cache = self._joined(parts, owners) if parts is not None else None
        del parts
        ids, mask, places = ids[owners], mask[owners], torch.arange(len(owners))
        streams = [np.random.default_rng(seed) for seed in seeds]
        while len(ids):
            done = ids.shape[1] - width
            segment = self._segment(len(ids)) if cache is not None else limit
            tokens = min(segment, limit - done)
            full = self.model.generate(
                ids, attention_mask=mask, past_key_values=cache,
                generation_config=GenerationConfig(do_sample=False, max_new_tokens=tokens),
                logits_processor=_drawing(sampling, streams, tokens, ids),
            )  # fmt: skip
            new = full[:, width:]
            going = ~torch.isin(new, self.stops).any(1) & (new.shape[1] < limit)
            gone = zip(places[~going.cpu()].tolist(), new[~going].cpu(), strict=True)
            ids, places = full[going], places[going.cpu()]
            streams = [streams[place] for place in going.nonzero().flatten().tolist()]
            mask = torch.cat([mask[going], mask.new_ones(len(ids), new.shape[1] - done)], 1)
            if cache is not None and len(ids):
                cache.batch_select_indices(going.nonzero().flatten())
            yield list(gone), len(ids), len(ids) * new.shape[1]

    def _segment(self, rows: int) -> int:
        """Tokens until the next sweep of a batch of `rows`."""
        if self.model.device.type != "cpu":
            return SEGMENT
        return max(1, min(SEGMENT, int(SEGMENT_FLOPS / (self.flops * rows))))

    def _plain_cache(self, width: int) -> bool:
        """Whether prompts of `width` tokens are read ahead, once for all of their samples.

        Not where the model's cache is no plain one (sliding windows, recurrent states): such
        models take the ordinary way through `generate`.
        """
        layers = DynamicCache(config=self.model.config).layers
        return width > 1 and all(type(layer) is DynamicLayer for layer in layers)

    def _prefills(
        self, ids: torch.Tensor, mask: torch.Tensor
    ) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
        """Keys and values of all prompts but their last tokens, some prompts at a time."""
        rows = max(1, PREFILL_TOKENS // ids.shape[1])
        for pair in zip(ids.split(rows), mask.split(rows), strict=True):
            yield self._states(*pair)

    def _joined(self, parts: Sequence[list[Any]], owners: torch.Tensor) -> DynamicCache:
        """What `_prefills` made as a cache that has one row per owner; `parts` is used up.

        Layer after layer, each of which is let go at once: all together are gigabytes.
        """
        cache = DynamicCache(config=self.model.config)
        layers = [empty_layer(self.model.dtype) for _ in cache.layers]
        for layer in layers:
            held = [part.pop(0) for part in parts]
            keys, values = (torch.cat(tensors) for tensors in zip(*held, strict=True))
            del held
            layer.update(keys, values)
            layer.batch_select_indices(owners)
        cache.layers = list(layers)
        return cache

    def _states(
        self, ids: torch.Tensor, mask: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values (rows, heads, tokens, size) of every layer for these prompts."""
        cache = DynamicCache(config=self.model.config)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True,
            past_key_values=cache, logits_to_keep=1,
        )  # fmt: skip
        layers: Any = cache.layers  # all of them are DynamicLayers here
        return [(layer.keys, layer.values) for layer in layers]


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), both (rows, longest row), padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


class InverseTransform(LogitsProcessor):
    """Inverse transform sampling: leaves the token that the row's own random number falls on.

    `generate` draws all rows of a batch from one random state, so that a row depends on
    its batch-mates. Here each row has its numbers (rows, tokens), uniform in [0, 1), and
    takes the first token at which the cumulative distribution exceeds its number.
    """

    def __init__(self, numbers: torch.Tensor, width: int, sampling: Sampling) -> None:
        self.numbers, self.width, self.top_p = numbers, width, sampling.top_p
        self.temperature = TemperatureLogitsWarper(sampling.temperature)

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor
    ) -> torch.FloatTensor:
        """Logits (rows, vocabulary) that leave one token a row: 0 there, −inf elsewhere."""
        left = torch.full_like(scores, -torch.inf)
        weighed: torch.Tensor = self.temperature(input_ids, scores)
        tokens = None
        if self.top_p < 1:
            weighed, tokens = likeliest(weighed, self.top_p)
        # In double precision: 150,000 small terms would move the ends of a float's sum.
        reached = weighed.softmax(-1).cumsum(-1, dtype=torch.float64)
        wanted = self.numbers[:, input_ids.shape[1] - self.width, None] * reached[:, -1:]
        place = torch.searchsorted(reached, wanted, right=True)
        place = place.clamp_(max=reached.shape[-1] - 1)
        chosen = place if tokens is None else tokens.gather(-1, place)
        # A cast: how torch types results, and not as its own.
        return cast(torch.FloatTensor, left.scatter_(1, chosen, 0.0))


def likeliest(scores: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits, tokens), each (rows, candidates), in the order of the vocabulary.

    A row's candidates are the likeliest tokens that hold `top_p` of its distribution, and
    others, whose logits are −inf. The library's way sorts whole vocabularies, which took
    three quarters of the time of a model of half a billion parameters on a CPU
    (benchmarks/generation.py).
    """
    total, count = scores.logsumexp(-1, keepdim=True), min(CANDIDATES, scores.shape[-1])
    while True:
        values, tokens = scores.topk(count, -1)
        shares = (values - total).double().exp()
        reached = shares.cumsum(-1)
        if count == scores.shape[-1] or bool((reached[:, -1] >= top_p).all()):
            break
        count = min(8 * count, scores.shape[-1])
    values = values.masked_fill(reached - shares >= top_p, -torch.inf)
    tokens, order = tokens.sort(-1)
    return values.gather(-1, order), tokens


def _drawing(
    sampling: Sampling, streams: list[np.random.Generator], tokens: int, ids: torch.Tensor
) -> list[LogitsProcessor]:
    """What chooses the next `tokens` tokens of the rows `ids`; nothing if greedy."""
    if sampling.temperature == 0:
        return []
    numbers = torch.from_numpy(np.stack([stream.random(tokens) for stream in streams]))
    return [InverseTransform(numbers.to(ids.device), ids.shape[1], sampling)]


@contextmanager
def _threads(one: bool) -> Iterator[None]:
    """One CPU thread, or as many as torch was given.

    Of a small model's sums, and so of its samples, none must depend on who else computes,
    and its steps are too short to be shared.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if one else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
