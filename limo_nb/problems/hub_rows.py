"""A data set of the Hub where a file may stand: `OWNER/NAME[:CONFIG][:SPLIT][@REVISION]`.

`openai/gsm8k:main:test` is split test of configuration main; one part is the split, and none
is `train`. Rows are streamed, so that a limit is also one of what is fetched; the commit of
the first fetch is recorded (`sources.pinned`). Chapter 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from limo_nb.core.file_names import HUB_NAME
from limo_nb.problems.sources import pinned


def hub_rows(text: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """At most `limit` rows of the data set that `text` names.

    Raises ValueError that says what to do where it cannot be had.
    """
    from datasets import load_dataset

    parts = HUB_NAME.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text!r} is no OWNER/NAME[:CONFIG][:SPLIT][@REVISION]")
    both = parts["second"] is not None
    config, split = parts["first"] if both else None, parts["second"] or parts["first"]
    try:
        revision = pinned(parts["id"], parts["revision"] or "")
        rows = load_dataset(
            parts["id"], config, split=split or "train", revision=revision, streaming=True
        )
        yield from (dict(row) for row in islice(rows, limit))
    except (OSError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{text} is no file here, and as a data set of the Hub it cannot be read "
            f"({first}). Connect, set HF_ENDPOINT to a mirror, or put its rows (JSONL, "
            f"Parquet) into a folder {parts['id']}"
        ) from error
