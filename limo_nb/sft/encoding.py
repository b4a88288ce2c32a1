"""Rows to tokens: the chat template, and loss on the response and its end only.

The semantics are those of LLaMA-Factory 0.9.2, with which LIMO was trained: no packing,
loss on the response and the closing `<|im_end|>` with its line end, a response over the
limit is cut and loses its end token. Chapter 6.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from limo_nb.generation import chat_prompt, plain_ids, prompt_ids

IGNORED = -100  # label of a token without loss
EMPTY = -1  # place in a batch that no row fills
# Batches are cut from groups of this many batches sorted by length: little padding, and
# still another composition in every epoch.
GROUP = 4


@dataclass(frozen=True)
class Encoded:
    """One row: token ids, and labels that are IGNORED up to the response."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class EncodedRows:
    """All rows, and the numbers of those that were cut at the limit."""

    rows: list[Encoded]
    cut: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens per row."""
        return [len(row.ids) for row in self.rows]


def encode(
    rows: Iterable[Mapping], tokenizer: Any, system: str, max_tokens: int
) -> EncodedRows:
    """`rows` (question, solution) in the chat format, each at most `max_tokens` long.

    Raises ValueError that names the numbers of rows without a question or a solution, or
    whose question leaves no room for a response.
    """
    closing = closing_ids(tokenizer)
    made, cut, faults = [], [], []
    for number, row in enumerate(rows):
        fault = _fault(row)
        if not fault:
            prompt = prompt_ids(tokenizer, chat_prompt(row["question"], system))
            if len(prompt) >= max_tokens:
                fault = f"its prompt has {len(prompt)} tokens of max_tokens={max_tokens}"
        if fault:
            faults.append(f"row {number}: {fault}")
            continue
        # The response is encoded apart from the prompt, as it will be at inference, and
        # what looks like a control token in it stays text.
        response = plain_ids(tokenizer, row["solution"]) + closing
        if len(prompt) + len(response) > max_tokens:
            cut.append(number)
        ids = (prompt + response)[:max_tokens]
        made.append(Encoded(ids, [IGNORED] * len(prompt) + ids[len(prompt) :]))
    if faults or not made:
        raise ValueError(_complaint(faults))
    return EncodedRows(made, cut)


def _fault(row: Mapping) -> str:
    for name in ("question", "solution"):
        value = row.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"{name} is {'missing' if value is None else repr(value)[:40]}"
    return ""


def _complaint(faults: Sequence[str]) -> str:
    if not faults:
        return "there are no rows to train on"
    more = f"\n  and {len(faults) - 10} more" if len(faults) > 10 else ""
    return "rows that cannot be trained on:\n  " + "\n  ".join(faults[:10]) + more


def closing_ids(tokenizer: Any) -> list[int]:
    """What the template writes after a response: `<|im_end|>` and a line end for Qwen."""
    messages = [{"role": "user", "content": "question"}]
    reply = {"role": "assistant", "content": "\ue000"}
    asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*messages, reply], tokenize=False)
    if not whole.startswith(asked + "\ue000"):
        raise ValueError(
            "this chat template writes something between the prompt and the response, so "
            "training would not see what inference shows; use a template without it"
        )
    closing = whole.removeprefix(asked + "\ue000")
    return tokenizer(closing, add_special_tokens=False)["input_ids"]


def plan(lengths: Sequence[int], batch_size: int, epochs: int, seed: int) -> list[list[int]]:
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


class PlannedRows(torch.utils.data.Dataset):
    """The rows in the order in which a sequential sampler must read them.

    A step of `micro` rows per rank is dealt out so that short and long rows meet in each
    rank: ranks wait for the slowest.
    """

    def __init__(
        self, rows: Sequence[Encoded], steps: Sequence[Sequence[int]], micro: int, pad: int
    ):
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
