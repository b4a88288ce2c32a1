"""What is held equal between training runs: optimiser steps, or tokens (chapters 6, 9)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from limo_nb.core.settings import ChatSettings, SftSettings
from limo_nb.inference import load_tokenizer, resolve
from limo_nb.inference.templates import DEFAULT_CHAT
from limo_nb.sft import row_parts


def steps_of(settings: SftSettings, rows: int) -> int:
    """Optimiser steps that `settings` takes over `rows` rows."""
    return settings.epochs * math.ceil(rows / settings.batch_size)


def at_equal_steps(settings: SftSettings, rows: int, steps: int) -> SftSettings:
    """Settings that see `rows` rows once in about `steps` steps (a larger batch).

    The batch is a multiple of the ranks, which share it out, so steps may be a few less.
    """
    size = settings.ranks * math.ceil(rows / steps / settings.ranks)
    return settings.model_copy(update={"epochs": 1, "batch_size": size})


def with_more_epochs(settings: SftSettings, rows: int, steps: int) -> SftSettings:
    """Settings that see `rows` rows as often as takes about `steps` steps, once at least.

    Then variants of few rows differ from others in what they see and not in how long they
    train. Steps differ by half an epoch at the most.
    """
    size = min(settings.batch_size, rows)
    epochs = max(1, round(steps / math.ceil(rows / size)))
    return settings.model_copy(update={"epochs": epochs, "batch_size": size})


def row_tokens(
    model: str, system_prompt: str, rows: Iterable[Mapping[str, Any]],
    chat: ChatSettings = DEFAULT_CHAT,
) -> list[int]:  # fmt: skip
    """Tokens of each training row for `model`: prompt, solution and its end."""
    tokenizer = load_tokenizer(resolve(model))
    parts = (row_parts(row, tokenizer, system_prompt, chat) for row in rows)
    return [len(prompt) + len(response) for prompt, response, _ in parts]


def loss_tokens(
    model: str, system_prompt: str, rows: Iterable[Mapping[str, Any]],
    chat: ChatSettings = DEFAULT_CHAT, most: int | None = None,
) -> list[int]:  # fmt: skip
    """Tokens of each training row that carry loss: those of the solution and its end.

    A row is cut to `most` tokens, prompt and solution together.
    """
    tokenizer = load_tokenizer(resolve(model))
    found = []
    for row in rows:
        prompt, response, _ = row_parts(row, tokenizer, system_prompt, chat)
        left = len(response) if most is None else min(len(response), most - len(prompt))
        found.append(max(0, left))
    return found


def at_equal_tokens(
    settings: SftSettings, lengths: Sequence[int], budget: int
) -> tuple[SftSettings, int]:
    """Settings, and how many of the rows, that read about `budget` of their tokens.

    The nearest number of whole epochs, over as many first rows as fit in: at most a row an
    epoch more than the budget, and up to a third less where it holds between one epoch and
    two. The batch is that of `settings`, or all rows where they are fewer.
    """
    once = sum(lengths)
    epochs = max(1, round(budget / once))
    count = rows_within(lengths, max(1, budget // epochs))
    size = min(settings.batch_size, count)
    return settings.model_copy(update={"epochs": epochs, "batch_size": size}), count


def rows_within(tokens: Iterable[int], budget: int) -> int:
    """How many rows of these lengths fill `budget` tokens, one at least; all if none do."""
    count = 0
    for length in tokens:
        if budget <= 0 and count:
            break
        budget -= length
        count += 1
    return count
