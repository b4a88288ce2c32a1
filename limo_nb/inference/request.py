"""A request: what is missing is cut into batches, made by an engine and kept.

In: items (id, prompt) and `Sampling`. Out: a table whose rows are `CompletionRow`s.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.progress import Bar, Pace, progress_bar
from limo_nb.core.settings import Sampling
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    CompletionRow,
    Engine,
    EngineFailed,
    Refused,
    Underway,
)
from limo_nb.inference.chat import Prompt
from limo_nb.inference.over_long import fitted
from limo_nb.inference.store import Store

TOLD_FROM = 120.0  # seconds from which the time of a request is told before it starts
PAUSE = 0.5  # seconds between two looks at what another process is making
NAMED = 5  # refused items that a warning names
# Rate and time left follow tokens and stand in the postfix.
BAR = "{desc}: {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{unit} [{elapsed}{postfix}]"


def complete(
    engine: Engine,
    items: Iterable[tuple[str, Prompt]],
    sampling: Sampling,
    store: Path,
    label: str = "",
    first: int = 0,
) -> Dataset:
    """Completions of `items`, `sampling.samples` each, as rows of `CompletionRow`.

    Samples are numbered from `first`: a later call with a higher one draws more.
    Completions are kept in the SQLite file `store` as they arrive; those that it has,
    whoever asked for them, are not made again, and those that another process is making
    are waited for. Rows are in the order of `items`. Two items with the same prompt get
    samples of their own. A prompt that the engine refuses, or that leaves no room in the
    model's context (`engine.over_long` may have it cut), gets empty, unfinished rows and a
    warning that names its item; nothing is kept of it, so that it is asked again the next
    time. Raises ValueError where two items share an id, and EngineFailed where the engine
    does, or where every row of the request is refused.
    """
    given = list(items)
    if len({identity for identity, _ in given}) != len(given):
        raise ValueError("two items have the same id")
    items, long = fitted(engine, given)
    asks = _asks(engine, items, sampling, first)
    names = [identity for identity, _ in items for _ in range(sampling.samples)]
    left_out = {
        ask.key: long[name] for ask, name in zip(asks, names, strict=True) if name in long
    }
    with Store(store) as kept:
        kept.want([ask.key for ask in asks])
        fitting = [ask for ask in asks if ask.key not in left_out]
        refused = left_out | _fill(engine, fitting, sampling, kept, label)
        rows = list(kept.rows())
    _tell_cut(given, items)
    gaps = [place for place, row in enumerate(rows) if row is None]
    if gaps:
        told = {names[place]: refused[asks[place].key].why for place in gaps}
        _tell_refused(told, len(gaps) == len(rows))
    numbers = list(range(first, first + sampling.samples)) * len(items)
    return _table(names, numbers, [row or Completion("", 0, False) for row in rows])


def _fill(
    engine: Engine, asks: Sequence[Ask], sampling: Sampling, kept: Store, label: str
) -> dict[str, Refused]:
    """Have `kept` hold all of `asks`; returns what the engine refused, by its keys."""
    made = kept.made() & {ask.key for ask in asks}
    with progress_bar(len(asks), "completions", label, len(made), BAR) as bar:
        if len(made) == len(asks):
            return {}
        before = kept.made(kept.mark(_request(engine, asks)))
        fresh = [ask for ask in asks if ask.key not in before]
        _tell_time(engine, len(fresh), sampling.max_new_tokens)
        return _make(engine, sampling, kept, plan_batches(engine, fresh), bar)


def _tell_time(engine: Engine, rows: int, tokens: int) -> None:
    """How long `rows` answers of up to `tokens` take at the most, where that is minutes."""
    rate = getattr(engine, "tokens_per_second", None)  # of engines that can tell
    seconds = rows * tokens / rate if rate else 0
    if seconds >= TOLD_FROM:
        long = seconds > 5400
        said = f"{seconds / 3600:.1f} h" if long else f"{seconds / 60:.0f} min"
        told = f"{rows:,} answers of up to {tokens:,} tokens at about {rate:.0f} tokens/s"
        print(f"{told}: at most about {said}", file=sys.stderr, flush=True)


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
) -> dict[str, Refused]:
    """Have everything in `batches` made, here or by whoever claimed it first.

    Returns what the engine refused, by its keys.
    """
    refused: dict[str, Refused] = {}
    pace = Pace(int(bar.total - bar.n), sampling.max_new_tokens)
    while batches := _unfinished(batches, kept.made() | refused.keys()):
        claimed: list[int] = []
        received = 0
        for ready in engine.run(_claimed(kept, batches, claimed), sampling):
            if isinstance(ready, Underway):
                pace.underway = ready
                bar.sign(str(pace))
                continue
            done = [(key, row) for key, row in ready if isinstance(row, Completion)]
            kept.keep(done)
            if not_done := {key: row for key, row in ready if isinstance(row, Refused)}:
                kept.release(not_done)  # another process must not wait for them for ever
                refused |= not_done
            received += len(ready)
            pace.end(len(ready), sum(completion.tokens for _, completion in done))
            bar.set_postfix_str(str(pace), refresh=False)
            bar.update(len(ready))
        if received != sum(claimed):
            raise RuntimeError(f"{received} completions came for {sum(claimed)} rows")
        if not claimed:
            time.sleep(PAUSE)
        bar.update(len(kept.made()) + len(refused) - bar.n)  # what another process made
    return refused


def _unfinished(batches: Sequence[Batch], done: set[str]) -> list[Batch]:
    """What is left of `batches`, without those of which nothing is."""
    left = (tuple(ask for ask in batch if ask.key not in done) for batch in batches)
    return [batch for batch in left if batch]


def _claimed(kept: Store, batches: Sequence[Batch], sizes: list[int]) -> Iterator[Batch]:
    """What is left of each batch for this process, claimed when it is taken."""
    for batch in batches:
        mine = kept.claim(batch)
        if mine:
            sizes.append(len(mine))
            yield mine


def _tell_cut(given: Sequence[tuple[str, Prompt]], items: Sequence[tuple[str, Prompt]]) -> None:
    """Warn of questions that were cut."""
    cut = [
        name for (name, prompt), (_, asked) in zip(given, items, strict=True) if prompt != asked
    ]
    if cut:
        more = f" and {len(cut) - NAMED} more" if len(cut) > NAMED else ""
        told = f"{', '.join(cut[:NAMED])}{more}"
        warnings.warn(f"cut in the middle, to fit the model's context: {told}", stacklevel=3)


def _tell_refused(refused: Mapping[str, str], all_of_them: bool) -> None:
    """Warn of refused items, with reasons; raises EngineFailed where nothing was answered."""
    if not refused:
        return
    first = "; ".join(f"{name}: {why}" for name, why in list(refused.items())[:NAMED])
    more = f"; and {len(refused) - NAMED} more" if len(refused) > NAMED else ""
    if all_of_them:
        raise EngineFailed(f"every prompt was refused. {first}{more}")
    warnings.warn(f"left empty, since the prompt was refused. {first}{more}", stacklevel=3)


def _table(names: list[str], numbers: list[int], made: Sequence[Completion]) -> Dataset:
    """The columns of `CompletionRow`, with their types also where there is no row."""
    texts, tokens, finished = map(list, zip(*made, strict=True)) if made else ([], [], [])
    columns = (names, numbers, texts, tokens, finished)
    return Dataset.from_dict(dict(zip(CompletionRow.__annotations__, columns, strict=True)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
