"""Batched decoding with `generate`, each row with random numbers of its own."""

from __future__ import annotations

import time
from collections import deque
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
from limo_nb.inference.rows import SEGMENT, Rows, empty_layer, left_padded

# Operations between two sweeps on a CPU, at most: a large model takes seconds a token there,
# and what it does must be seen. It depends on sizes alone, so that runs can be repeated.
SEGMENT_FLOPS = 2e12
# A batch that lasts longer hands out the rows that have ended: a kill costs no more. What is
# decoded anew then has fewer batch-mates, and sums of floats are rounded otherwise; a shorter
# batch is handed out as a whole, and can be repeated to the bit.
KEEP_SECONDS = 30.0
# The share of the rows at once to which they fall before waiting ones join them.
REFILLED_FROM = 0.75
# Padded tokens of one pass over prompts. What a pass of 250 prompts leaves between layers
# fits no cache of a CPU; in parts of this size it took less than half of the time.
PREFILL_TOKENS = 4096
# Tokens among which those of a nucleus are looked for first; a flat distribution takes more.
CANDIDATES = 256


class Decoded(NamedTuple):
    """What a batch has come to: rows that have ended, by place, and those on their way."""

    ended: list[tuple[int, Completion]]
    left: int  # rows that have not ended, those that wait among them
    rows: int  # that are on their way
    tokens: int  # which these have so far


# Ended rows by place with their new ids, and the three numbers of `Decoded`.
Step = tuple[list[tuple[int, torch.Tensor]], int, int, int]


class Decoder:
    """Batched sampling with `generate`: the part that runs in each worker process."""

    def __init__(self, name: str, dtype: str, device: str = "cpu") -> None:
        self.model, self.tokenizer = load_model(name, dtype)
        self.model.to(device)
        self._pad = self.tokenizer.pad_token_id
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
        at_once: int | None = None,
    ) -> list[Completion]:
        """One completion per entry of `owners`, which are indices into `prompts`.

        Row i draws from random numbers that start at `seeds[i]`; greedy rows draw none.
        `at_once` rows are computed together (none: all), and waiting ones take the places
        of those that have ended.
        """
        parts = self.parts(prompts, owners, seeds, sampling, at_once)
        made = dict(row for part in parts for row in part.ended)
        return [made[place] for place in range(len(owners))]

    def parts(
        self,
        prompts: list[list[int]],
        owners: Sequence[int],
        seeds: Sequence[int],
        sampling: Sampling,
        at_once: int | None = None,
    ) -> Iterator[Decoded]:
        """The same as it comes: rows that have ended, twice a minute and at the end."""
        held: list[tuple[int, Completion]] = []
        handed, limit = time.monotonic(), sampling.max_new_tokens
        asked = [(prompts[owner], seed) for owner, seed in zip(owners, seeds, strict=True)]
        steps = self._generate(asked, sampling, at_once or max(1, len(asked)))
        while True:
            # Only while this works: whoever takes the parts computes in between.
            with torch.inference_mode(), _threads(self.small):
                step = next(steps, None)
            if step is None:
                break
            ended, left, rows, tokens = step
            held += [(place, self._completion(ids, limit)) for place, ids in ended]
            due = not left or time.monotonic() - handed >= KEEP_SECONDS
            yield Decoded(held if due else [], left, rows, tokens)
            if due:
                held, handed = [], time.monotonic()

    def _completion(self, ids: torch.Tensor, limit: int) -> Completion:
        """Cut `ids` (made tokens, padded after the end) at the first stop token."""
        ends = torch.isin(ids, self.stops).nonzero()
        count = int(ends[0]) if len(ends) else min(len(ids), limit)
        text = answer_text(self.tokenizer, ids[:count].tolist())
        return Completion(text, count, bool(len(ends)))

    def _generate(
        self, asked: Sequence[tuple[list[int], int]], sampling: Sampling, at_once: int
    ) -> Iterator[Step]:
        """Make a row of each (prompt, seed) in `asked`, by segments.

        Finished rows leave after every segment. Waiting ones join when there is room for
        several: reading prompts one by one would take longer.
        """
        waiting = deque(range(len(asked)))
        rows: Rows | None = None
        while waiting or rows:
            held = len(rows) if rows else 0
            refills = rows is not None and rows.cache is not None
            if waiting and held <= (REFILLED_FROM * at_once if refills else 0):
                places = [waiting.popleft() for _ in range(min(at_once - held, len(waiting)))]
                reading = self._reading(places, asked)
                while (new := next(reading)) is None:
                    made = rows.made if rows else 0
                    yield [], held + len(places) + len(waiting), held + len(places), made
                rows = rows.joined(new) if rows else new
            elif rows:
                gone, rows = self._moved_on(rows, sampling)
                yield gone, len(rows) + len(waiting), len(rows), rows.made
                rows = rows if len(rows) else None

    def _reading(
        self, places: list[int], asked: Sequence[tuple[list[int], int]]
    ) -> Iterator[Rows | None]:
        """None for every part of their prompts, then the rows `places` of `asked`.

        Each prompt is read once.
        """
        device = self.model.device
        numbers: dict[tuple[int, ...], int] = {}
        owners = [numbers.setdefault(tuple(asked[place][0]), len(numbers)) for place in places]
        ids, mask = (part.to(device) for part in left_padded(list(numbers), self._pad))
        cache = None
        if self._plain_cache(ids.shape[1]):
            parts = []
            for part in self._prefills(ids[:, :-1], mask[:, :-1]):
                parts.append(part)
                yield None
            cache = self._joined(parts, torch.tensor(owners))
        starts = torch.full((len(places),), ids.shape[1], device=device)
        streams = [np.random.default_rng(asked[place][1]) for place in places]
        yield Rows(ids[owners], mask[owners], cache, starts, places, streams)

    def _moved_on(
        self, rows: Rows, sampling: Sampling
    ) -> tuple[list[tuple[int, torch.Tensor]], Rows]:
        """Let `rows` make a segment: (those that have ended with their new ids, the rest)."""
        limit, length = sampling.max_new_tokens, rows.ids.shape[1]
        segment = self._segment(len(rows)) if rows.cache is not None else limit
        tokens = min(segment, limit - length + int(rows.starts.min()))
        full = self.model.generate(
            rows.ids, attention_mask=rows.mask, past_key_values=rows.cache,
            generation_config=GenerationConfig(do_sample=False, max_new_tokens=tokens),
            logits_processor=_drawing(sampling, rows.streams, tokens, rows.ids),
        )  # fmt: skip
        made = torch.arange(full.shape[1], device=full.device) >= rows.starts[:, None]
        stopped = (torch.isin(full, self.stops) & made).any(1)
        going = ~stopped & (full.shape[1] - rows.starts < limit)
        gone = [
            (rows.places[n], full[n, int(rows.starts[n]) :].cpu())
            for n in (~going).nonzero().flatten().tolist()
        ]
        mask = torch.cat([rows.mask, rows.mask.new_ones(len(rows), full.shape[1] - length)], 1)
        return gone, rows.kept(full, mask, going.nonzero().flatten())

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
