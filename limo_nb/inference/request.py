"""A request: what is missing is cut into batches, made by an engine and kept."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.progress import (
    Bar,
    progress,
)
from limo_nb.core.settings import Sampling
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    Engine,
)
from limo_nb.inference.chat import Prompt
from limo_nb.inference.store import Store

PAUSE = 0.5  # seconds between two looks at what another process is making


def complete(
    engine: Engine,
    items: Iterable[tuple[str, Prompt]],
    sampling: Sampling,
    store: Path,
    label: str = "",
    first: int = 0,
) -> Dataset:
    """Completions of `items`, `sampling.samples` each: id, sample, text, tokens, finished.

    Samples are numbered from `first`: a later call with a higher one draws more.
    `tokens` leaves the end token out; `finished` says that there was one. Completions
    are kept in the SQLite file `store` as they arrive; those that it has, whoever asked
    for them, are not made again, and those that another process is making are waited
    for. Rows are in the order of `items`. Two items with the same prompt get samples of
    their own. Raises ValueError where two items share an id.
    """
    items = list(items)
    if len({identity for identity, _ in items}) != len(items):
        raise ValueError("two items have the same id")
    asks = _asks(engine, items, sampling, first)
    with Store(store) as kept:
        kept.want([ask.key for ask in asks])
        made = kept.made()
        with progress(len(asks), "completions", label, len(made)) as bar:
            if len(made) < len(asks):
                before = kept.made(kept.mark(_request(engine, asks)))
                fresh = [ask for ask in asks if ask.key not in before]
                _make(engine, sampling, kept, plan_batches(engine, fresh), bar)
        return _table(items, sampling.samples, first, list(kept.rows()))


def _asks(
    engine: Engine, items: Sequence[tuple[str, Prompt]], sampling: Sampling, first: int
) -> list[Ask]:
    """One row per item and sample, item by item."""
    facts = [engine.identity, _parameters(sampling)]
    seen: Counter[str] = Counter()
    asks = []
    for _, prompt in items:
        place = _digest([facts, prompt])
        for sample in range(first, first + sampling.samples):
            asks.append(Ask(_digest([place, seen[place], sample]), prompt))
        seen[place] += 1
    return asks


def _parameters(sampling: Sampling) -> dict[str, Any]:
    """What decoding depends on: a greedy row needs no seed."""
    if sampling.temperature == 0:
        return {"max_new_tokens": sampling.max_new_tokens}
    return sampling.model_dump(exclude={"samples"})


def _request(engine: Engine, asks: Sequence[Ask]) -> str:
    total = hashlib.sha256(f"{engine.batch_size}".encode())
    for ask in asks:
        total.update(ask.key.encode())
    return total.hexdigest()[:32]


def plan_batches(engine: Engine, asks: Sequence[Ask]) -> list[Batch]:
    """`asks` in batches of the engine's size: long prompts first, samples side by side.

    A function of the rows alone: their order and the ids of their items do not matter.
    """
    lengths: dict[str, tuple[int, str]] = {}  # of each prompt, with a digest for the order
    texts = [json.dumps(ask.prompt) for ask in asks]
    for text, ask in zip(texts, asks, strict=True):
        if text not in lengths:
            lengths[text] = (-engine.length(ask.prompt), text)
    pairs = sorted(zip(texts, asks, strict=True), key=lambda p: (lengths[p[0]], p[1].key))
    rows = [ask for _, ask in pairs]
    size = engine.batch_size
    return [tuple(rows[start : start + size]) for start in range(0, len(rows), size)]


def _make(
    engine: Engine, sampling: Sampling, kept: Store, batches: list[Batch], bar: Bar
) -> None:
    """Have everything in `batches` made, here or by whoever claimed it first."""
    tokens = 0
    while batches := _unfinished(batches, kept.made()):
        claimed: list[int] = []
        received = 0
        for ready in engine.run(_claimed(kept, batches, claimed), sampling):
            kept.keep(ready)
            received += len(ready)
            tokens += sum(completion.tokens for _, completion in ready)
            seconds = bar.format_dict["elapsed"] or 1e-9
            bar.set_postfix_str(f"{tokens / seconds:,.0f} tokens/s", refresh=False)
            bar.update(len(ready))
        if received != sum(claimed):
            raise RuntimeError(f"{received} completions came for {sum(claimed)} rows")
        if not claimed:
            time.sleep(PAUSE)
        bar.update(len(kept.made()) - bar.n)  # what another process made


def _unfinished(batches: Sequence[Batch], made: set[str]) -> list[Batch]:
    return [batch for batch in batches if any(ask.key not in made for ask in batch)]


def _claimed(kept: Store, batches: Sequence[Batch], sizes: list[int]) -> Iterator[Batch]:
    """What is left of each batch for this process, claimed when it is taken."""
    for batch in batches:
        mine = kept.claim(batch)
        if mine:
            sizes.append(len(mine))
            yield mine


def _table(
    items: Sequence[tuple[str, Prompt]], samples: int, first: int, rows: list[Completion]
) -> Dataset:
    """All rows of the request, in the order of its items."""
    if len(rows) != len(items) * samples:
        raise RuntimeError(f"the store has {len(rows)} of {len(items) * samples} rows")
    texts, tokens, finished = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
    return Dataset.from_dict(
        {
            "id": [identity for identity, _ in items for _ in range(samples)],
            "sample": list(range(first, first + samples)) * len(items),
            "text": texts,
            "tokens": tokens,
            "finished": finished,
        }
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
