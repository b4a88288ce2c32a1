"""Encoded rows to batches: in which order, padded or packed, and as which tensors.

Every row is read once an epoch, by batches of like length; all ranks have equally many
passes in a step. Chapter 6.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch
from transformers import DataCollatorWithFlattening

from limo_nb.sft.encoding import IGNORED, Encoded

EMPTY = -1  # place in a batch that no row fills
# Batches are cut from groups of this many batches sorted by length: little padding, and
# still another composition in every epoch.
GROUP = 4


def schedule_rows(
    lengths: Sequence[int], batch_size: int, epochs: int, seed: int
) -> list[list[int]]:
    """The rows of every optimiser step: each row once an epoch, batches of like length.

    The last batch of an epoch is filled up with EMPTY, so that every step has
    `batch_size` places however many ranks share them.
    """
    rng = random.Random(seed)
    steps: list[list[int]] = []
    for _ in range(epochs):
        order = rng.sample(range(len(lengths)), len(lengths))
        batches = []
        for start in range(0, len(order), GROUP * batch_size):
            group = sorted(order[start : start + GROUP * batch_size], key=lengths.__getitem__)
            batches += [group[i : i + batch_size] for i in range(0, len(group), batch_size)]
        rng.shuffle(batches)
        steps += [batch + [EMPTY] * (batch_size - len(batch)) for batch in batches]
    return steps


class PaddedRows(torch.utils.data.Dataset):
    """The rows in the order in which a sequential sampler must read them.

    A step of `micro` rows per rank is dealt out so that short and long rows meet in each
    rank: ranks wait for the slowest.
    """

    def __init__(
        self, rows: Sequence[Encoded], steps: Sequence[Sequence[int]], micro: int, pad: int
    ) -> None:
        self.rows, self.pad = rows, pad
        self.order = []
        for step in steps:
            parts = len(step) // micro
            self.order += [row for part in range(parts) for row in step[part::parts]]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> Encoded:
        row = self.order[place]
        return Encoded([self.pad], [IGNORED]) if row == EMPTY else self.rows[row]


class PackedRows(torch.utils.data.Dataset):
    """The rows of every step in packs, in the order in which ranks must read them.

    A pack is a list of rows that one forward pass of one rank takes as one sequence.
    Every step has `passes` packs for each of `ranks` ranks, however long its rows are:
    ZeRO-3 gathers weights in every pass, on all ranks or on none.
    """

    def __init__(
        self,
        rows: Sequence[Encoded],
        steps: Sequence[Sequence[int]],
        ranks: int,
        budget: int,
        pad: int,
    ) -> None:
        self.rows, self.pad = rows, pad
        lengths = [len(row.ids) for row in rows]
        self.passes, packs = pack(steps, lengths, ranks, budget)
        self.order = [pack for step in packs for pack in step]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, place: int) -> list[Encoded]:
        filled = [self.rows[row] for row in self.order[place]]
        return filled or [Encoded([self.pad], [IGNORED])]


def pack(
    steps: Sequence[Sequence[int]], lengths: Sequence[int], ranks: int, budget: int
) -> tuple[int, list[list[list[int]]]]:
    """(passes per rank and step, the packs of every step).

    The fewest passes with which no pack of any step exceeds `budget` tokens; a row longer
    than that has a pack of its own.
    """
    budget = max(budget, *lengths)
    most = max(len(step) for step in steps)
    for passes in range(1, most + 1):
        packs = [_dealt(step, lengths, ranks * passes) for step in steps]
        heaviest = max(_tokens(part, lengths) for step in packs for part in step)
        if heaviest <= budget:
            break
    return passes, packs


def _dealt(step: Sequence[int], lengths: Sequence[int], parts: int) -> list[list[int]]:
    """The rows of a step in `parts` packs of about equal tokens, the fullest first."""
    packs: list[list[int]] = [[] for _ in range(parts)]
    rows = sorted((row for row in step if row != EMPTY), key=lambda row: -lengths[row])
    for row in rows:
        min(packs, key=lambda part: _tokens(part, lengths)).append(row)
    return sorted(packs, key=lambda part: -_tokens(part, lengths))


def _tokens(rows: Iterable[int], lengths: Sequence[int]) -> int:
    return sum(lengths[row] for row in rows)


def collate(rows: Sequence[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Tensors (rows, longest row), padded on the right."""
    width = max(len(row.ids) for row in rows)
    padding = [width - len(row.ids) for row in rows]
    pairs = list(zip(rows, padding, strict=True))
    return {
        "input_ids": torch.tensor([row.ids + [pad] * more for row, more in pairs]),
        "labels": torch.tensor([row.labels + [IGNORED] * more for row, more in pairs]),
        "attention_mask": torch.tensor(
            [[1] * len(row.ids) + [0] * more for row, more in pairs]
        ),
    }


def collate_packed(packs: Sequence[Sequence[Encoded]]) -> dict[str, torch.Tensor]:
    """Tensors (1, tokens) of one pack, with `position_ids` that begin anew in each row.

    There is no attention mask: from the positions, transformers keeps the rows apart,
    by FlashAttention's variable-length kernel or a block-diagonal mask. Raises ValueError
    for more than one pack, which would make one sequence of several passes.
    """
    (rows,) = packs
    return DataCollatorWithFlattening()(
        [{"input_ids": row.ids, "labels": row.labels} for row in rows]
    )
