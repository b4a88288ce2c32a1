"""Batched decoding with `generate`, each row with random numbers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer

from limo_nb.core.settings import Sampling
from limo_nb.inference.base import Completion
from limo_nb.inference.chat import answer_text
from limo_nb.inference.models import load_model, stop_token_ids

# Tokens between two sweeps of finished rows: `generate` runs a batch until its longest
# row ends; sweeping every 32 tokens and sharing the prefill of a prompt's samples gave
# about three times the rate (benchmarks/generation.py).
SEGMENT = 32
# Padded tokens of one pass over prompts. What a pass of 250 prompts leaves between layers
# fits no cache of a CPU; in parts of this size it took less than half of the time.
PREFILL_TOKENS = 4096


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
        with torch.inference_mode(), _one_thread():
            rows = self._generate(prompts, torch.tensor(owners), seeds, sampling)
        return [self._completion(ids, sampling.max_new_tokens) for ids in rows]

    def _completion(self, ids: torch.Tensor, limit: int) -> Completion:
        """Cut `ids` (made tokens, padded after the end) at the first stop token."""
        ends = torch.isin(ids, self.stops).nonzero()
        count = int(ends[0]) if len(ends) else min(len(ids), limit)
        text = answer_text(self.tokenizer, ids[:count].tolist())
        return Completion(text, count, bool(len(ends)))

    def _generate(
        self, prompts: list[list[int]], owners: torch.Tensor, seeds: Sequence[int],
        sampling: Sampling,
    ) -> list[torch.Tensor]:  # fmt: skip
        """New token ids per row. Finished rows leave the batch every SEGMENT tokens."""
        device = self.model.device
        ids, mask = left_padded(prompts, self.tokenizer.pad_token_id)
        ids, mask, owners = ids.to(device), mask.to(device), owners.to(device)
        width, limit = ids.shape[1], sampling.max_new_tokens
        cache = self._prefilled(ids, mask, owners)
        segment = SEGMENT if cache is not None else limit
        ids, mask, places = ids[owners], mask[owners], torch.arange(len(owners))
        made: list[torch.Tensor] = [ids.new_empty(0)] * len(owners)
        streams = [np.random.default_rng(seed) for seed in seeds]
        while len(ids):
            done = ids.shape[1] - width
            tokens = min(segment, limit - done)
            full = self.model.generate(
                ids, attention_mask=mask, past_key_values=cache,
                generation_config=GenerationConfig(do_sample=False, max_new_tokens=tokens),
                logits_processor=_drawing(sampling, streams, tokens, ids),
            )  # fmt: skip
            new = full[:, width:]
            going = ~torch.isin(new, self.stops).any(1) & (new.shape[1] < limit)
            for place, row in zip(places[~going.cpu()].tolist(), new[~going], strict=True):
                made[place] = row.cpu()
            ids, places = full[going], places[going.cpu()]
            streams = [streams[place] for place in going.nonzero().flatten().tolist()]
            mask = torch.cat([mask[going], mask.new_ones(len(ids), new.shape[1] - done)], 1)
            if cache is not None and len(ids):
                cache.batch_select_indices(going.nonzero().flatten())
        return made

    def _prefilled(
        self, ids: torch.Tensor, mask: torch.Tensor, owners: torch.Tensor
    ) -> DynamicCache | None:
        """Keys and values of all prompts but their last tokens, one row per owner.

        None where the model's cache is not a plain one (sliding windows, recurrent
        states): such models take the ordinary way through `generate`.
        """
        cache = DynamicCache(config=self.model.config)
        if ids.shape[1] < 2 or any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        ids, mask = ids[:, :-1], mask[:, :-1]
        rows = max(1, PREFILL_TOKENS // ids.shape[1])
        pairs = zip(ids.split(rows), mask.split(rows), strict=True)
        parts = [self._states(*pair) for pair in pairs]
        layers = [empty_layer(self.model.dtype) for _ in cache.layers]
        for layer, held in zip(layers, zip(*parts, strict=True), strict=True):
            keys, values = (torch.cat(tensors) for tensors in zip(*held, strict=True))
            layer.update(keys, values)
        cache.layers = list(layers)
        cache.batch_select_indices(owners)
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
        self.numbers, self.width = numbers, width
        self.warpers: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
        if sampling.top_p < 1:
            self.warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor
    ) -> torch.FloatTensor:
        """Logits (rows, vocabulary) that leave one token a row: 0 there, −inf elsewhere."""
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        # In double precision: 150,000 small terms would move the ends of a float's sum.
        reached = scores.softmax(-1).cumsum(-1, dtype=torch.float64)
        wanted = self.numbers[:, input_ids.shape[1] - self.width, None] * reached[:, -1:]
        chosen = torch.searchsorted(reached, wanted, right=True)
        chosen = chosen.clamp_(max=scores.shape[-1] - 1)
        left = torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)
        return cast(torch.FloatTensor, left)  # how torch types results, and not as its own


def _drawing(
    sampling: Sampling, streams: list[np.random.Generator], tokens: int, ids: torch.Tensor
) -> list[LogitsProcessor]:
    """What chooses the next `tokens` tokens of the rows `ids`; nothing if greedy."""
    if sampling.temperature == 0:
        return []
    numbers = torch.from_numpy(np.stack([stream.random(tokens) for stream in streams]))
    return [InverseTransform(numbers.to(ids.device), ids.shape[1], sampling)]


@contextmanager
def _one_thread() -> Iterator[None]:
    """One CPU thread: sums, and so samples, must not depend on who else computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
