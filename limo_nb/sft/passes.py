"""How a step is cut into forward passes: one rule, for the trainer and for the planner.

A step of `batch_size` rows is shared by the ranks; each takes its share in passes of equally
many rows, few enough for the tokens of a pass. Chapter 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limo_nb.core.settings import SftSettings

MICRO_TOKENS = 16_384  # padded tokens of one forward pass on one rank, at most
# The same for one process on a CPU, where a pass should leave little more than its caches
# hold: a quarter faster for the lab (benchmarks/RESULTS.md). Under DeepSpeed a pass costs a
# round of messages, and fewer are better.
CACHED_TOKENS = 2048
# What a pass may leave for its backward pass in the memory of a host: a model with a large
# vocabulary has megabytes of logits for every token. The lab's models never come to it.
PASS_BYTES = 2 * 2**30


def rank_share(settings: SftSettings, ranks: int) -> int:
    """Rows of a step for each rank; raises ValueError where the ranks cannot share them."""
    share, rest = divmod(settings.batch_size, ranks)
    if rest:
        raise ValueError(
            f"sft.batch_size={settings.batch_size} is not a multiple of sft.ranks={ranks}"
        )
    return share


def pass_limit(bytes_a_token: int | None, alone: bool) -> int:
    """Padded tokens of one pass of a rank, at most; a longer row is a pass of its own.

    `bytes_a_token` is what a pass takes for each on a CPU, None on a GPU; `alone` is one
    process without DeepSpeed.
    """
    if bytes_a_token is None:
        return MICRO_TOKENS
    tokens = CACHED_TOKENS if alone else MICRO_TOKENS
    return max(1, min(tokens, PASS_BYTES // bytes_a_token))


def rows_a_pass(share: int, longest: int, tokens: int = MICRO_TOKENS) -> int:
    """Rows of one forward pass, of a rank's `share` of a step.

    The most that divide the share and have at most `tokens`, all padded to `longest`; one,
    where a single row is longer than that.
    """
    fits = max(1, tokens // longest)
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= fits)


def micro_batch(
    settings: SftSettings, ranks: int, longest: int | None = None, tokens: int = MICRO_TOKENS
) -> int:
    """Rows of one forward pass on one rank, so that they have at most `tokens`, padded.

    `longest` is the longest row in tokens; without it rows are as long as they may be.
    Raises ValueError where the ranks cannot share a batch.
    """
    return rows_a_pass(rank_share(settings, ranks), longest or settings.max_tokens, tokens)
