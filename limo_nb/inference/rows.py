"""Rows on their way through a model: their tokens, their cache, and how rows join and leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Tokens between two sweeps of finished rows, by which buffers grow as well: `generate` runs a
# batch until its longest row ends; sweeping every 32 tokens and sharing the prefill of a
# prompt's samples gave about three times the rate (benchmarks/generation.py).
SEGMENT = 32


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


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), both (rows, longest row), padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@dataclass
class Rows:
    """Rows on their way, padded on the left.

    `ids` and `mask` are (rows, length); `cache` holds all but the last token, or is None
    where the model's cache is no plain one. What a row has made begins in column `starts`.
    `places` say which rows of the request these are.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache | None
    starts: torch.Tensor
    places: list[int]
    streams: list[np.random.Generator]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def made(self) -> int:
        """Tokens that all rows have made so far."""
        return int((self.ids.shape[1] - self.starts).sum())

    def kept(self, ids: torch.Tensor, mask: torch.Tensor, chosen: torch.Tensor) -> Rows:
        """The rows `chosen` of these, which have come to `ids` and `mask`."""
        if self.cache is not None and 0 < len(chosen) < len(self):  # it is copied
            self.cache.batch_select_indices(chosen)
        numbers = chosen.tolist()
        return Rows(
            ids[chosen], mask[chosen], self.cache, self.starts[chosen],
            [self.places[n] for n in numbers], [self.streams[n] for n in numbers],
        )  # fmt: skip

    def joined(self, others: Rows) -> Rows:
        """These rows and `others`, without the columns that are padding in all of these."""
        blank = int(self.mask.argmax(1).min())
        length = max(self.ids.shape[1] - blank, others.ids.shape[1])
        # Of each: the rows, the columns that go, and those that are put before the rest.
        sides = [
            (self, blank, length - (self.ids.shape[1] - blank)),
            (others, 0, length - others.ids.shape[1]),
        ]
        ids, mask = (
            torch.cat([pad(getattr(own, name)[:, cut:], (by, 0)) for own, cut, by in sides])
            for name in ("ids", "mask")
        )
        starts = torch.cat([own.starts - cut + by for own, cut, by in sides])
        return Rows(
            ids, mask, _joined_cache(sides), starts,
            self.places + others.places, self.streams + others.streams,
        )  # fmt: skip


def _joined_cache(sides: Sequence[tuple[Rows, int, int]]) -> DynamicCache | None:
    """The caches of both sides as one, in that of the first; layer by layer.

    Of one layer both are there at once, and all together are gigabytes.
    """
    caches = [own.cache for own, _, _ in sides if own.cache is not None]
    if len(caches) < len(sides):
        return None
    for number in range(len(caches[0].layers)):
        held: list[Any] = [cache.layers[number] for cache in caches]
        states = [
            torch.cat(
                [
                    pad(getattr(layer, name)[:, :, cut:], (0, 0, by, 0))
                    for layer, (_, cut, by) in zip(held, sides, strict=True)
                ]
            )
            for name in ("keys", "values")
        ]
        joined = empty_layer(states[0].dtype)
        joined.update(*states)
        for cache in caches:
            cache.layers[number] = joined
    return caches[0]
