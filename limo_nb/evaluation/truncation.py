"""Answers that were cut off at the token limit: how many, and which limit would do.

A cut answer counts as wrong, so that an accuracy with many of them is one of the limit. The
lengths of the answers that ended tell of the others: all are taken for draws from a
log-normal distribution, of which the cut ones are known to be longer than the limit (a
censored sample). It is a guess at a tail that nobody has seen, and said to be about so much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from scipy import stats

from limo_nb.evaluation.tables import Counts

MANY = 0.2  # of answers cut off: above it the limit was measured, and not the model
ENOUGH = 0.95  # of answers that the proposed limit would let end
FEWEST = 8  # answers that ended, to say anything of the others
FURTHEST = 16  # times the limit; a guess beyond it is none


def cut_share(counts: Counts | Mapping[str, Any]) -> float:
    """The share of answers that were cut off, of all that are counted."""
    answers = counts["right"] + counts["wrong"] + counts["unverifiable"]
    return counts["truncated"] / answers if answers else 0.0


def limit_that_would_do(results: Sequence[Dataset]) -> int | None:
    """The tokens at which about 95 % of such answers would have ended.

    None where too few ended to tell, or where nothing was cut off.
    """
    tokens = np.concatenate([np.asarray(table["tokens"], float) for table in results])
    ended = np.concatenate([np.asarray(table["finished"], bool) for table in results])
    whole, cut = np.maximum(tokens[ended], 1), tokens[~ended]
    if len(whole) < FEWEST or not len(cut) or np.ptp(whole) == 0:
        return None
    sample = stats.CensoredData(uncensored=whole, right=np.maximum(cut, 1))
    spread, _, scale = stats.lognorm.fit(sample, floc=0)
    found = stats.lognorm.ppf(ENOUGH, spread, scale=scale)
    if not np.isfinite(found) or found > FURTHEST * cut.max():
        return None
    return int(np.ceil(max(found, cut.max()) / 100) * 100)


def truncation_of(results: Sequence[Dataset], counts: Counts | Mapping[str, Any]) -> dict:
    """Columns for a row: `truncation`, the share, and `limit_wanted` where it is large."""
    share = cut_share(counts)
    wanted = limit_that_would_do(results) if share > MANY else None
    return {"truncation": share, "limit_wanted": wanted}


def limit_measured(row: Mapping[str, Any]) -> str:
    """What the cut answers of a row make of its accuracy; "" where they are few."""
    share = cut_share(row)
    if share <= MANY:
        return ""
    wanted = row.get("limit_wanted")
    more = (
        f"about {wanted:,} new tokens would let {ENOUGH:.0%} of them end"
        if wanted
        else "how many more tokens would do cannot be told from the few that ended"
    )
    return (
        f"{share:.0%} of the answers were cut off: the limit was measured, not the "
        f"model; {more}"
    )


def limits_measured(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The same for a table's rows, each with its model, if it has one, and its group."""
    for row in rows:
        if said := limit_measured(row):
            yield f"{', '.join(row[key] for key in ('model', 'group') if key in row)}: {said}"
