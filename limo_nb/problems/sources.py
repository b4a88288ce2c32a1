"""Where problems come from: the lab, reasoning-gym, files, `sources.yaml`, the Hub (chapter 3).

What the Hub has may change: the commit of the first fetch is recorded, and asked for from
then on.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, concatenate_datasets

from limo_nb import lab
from limo_nb.core.pins import lock_file, locked, pin
from limo_nb.core.records import read_records
from limo_nb.core.settings import PoolSettings
from limo_nb.problems.gym import gym_pool
from limo_nb.problems.reading import Layout, read_problems, table_of
from limo_nb.problems.schema import COLUMNS

REAL = ("aime", "math", "gsm8k")  # what the source "real" stands for
# What the chapters on real data say where there is none.
WITHOUT_DATA = """\
LIMO_NB_DATA is not set, so no real problems are read here. It wants a folder with
  pool/aime_train.json, pool/math_train.json  (agentica-project/rllm on GitHub)
  pool/gsm8k_train.jsonl                      (openai/grade-school-math)
  pool/gsm8k_model_solutions.jsonl            (its example_model_solutions.jsonl)
  benchmarks/*.jsonl                          (GAIR-NLP/LIMO, eval/data)"""


@cache
def source_registry() -> dict[str, dict[str, Any]]:
    """The entries of `sources.yaml`: name → title, file, hub."""
    return yaml.safe_load(
        resources.files("limo_nb.problems").joinpath("sources.yaml").read_text()
    )


# ---------------------------------------------------------------- pools
def load_pool(settings: PoolSettings) -> Dataset:
    """At most `settings.size` problems of `settings.source`, in the source's order.

    The source is "lab", "gym" (`gym.gym_pool`), a name in `source_registry()` or "real"
    (AIME, MATH and GSM8K), a JSON, JSONL, Parquet or Arrow file, a folder of them, or a Hub
    data set, `ID` or `ID@REVISION`. Which problems are taken depends on `settings.seed`.
    `settings.fields` says what a file or data set calls our columns, where not by a usual
    name. Raises ValueError that names file and row of a corrupt row.
    """
    if settings.source == "lab":
        rows = lab.pool(settings.size, settings.seed)
        return Dataset.from_list(rows, features=COLUMNS)
    if settings.source == "gym":
        return gym_pool(settings.families, settings.size, settings.seed)
    return _load(settings.source, settings.size, settings.seed, settings.fields)


def _load(source: str, size: int, seed: int, fields: Mapping[str, str]) -> Dataset:
    entries = source_registry()
    known = source.partition("@")[0]
    if fields and (known in (*entries, "real") or known in _on_hub(entries)):
        raise ValueError(f"the fields of {source!r} are those of sources.yaml: leave out yours")
    if source == "real":
        return _at_most(concatenate_datasets([read_source(name) for name in REAL]), size, seed)
    if source in entries:
        return read_source(source, size, seed)
    if Path(source).exists():
        return _at_most(read_problems(Path(source), fields=fields), size, seed)
    name, _, revision = source.partition("@")
    if "/" not in name:
        known = ", ".join(["lab", "gym", "real", *entries])
        raise ValueError(
            f"no pool {source!r}: it is no file, no Hub data set (OWNER/NAME), and none "
            f"of {known}"
        )
    if name in _on_hub(entries):
        known = _on_hub(entries)[name]
        return _from_hub(entries[known]["hub"], revision, size, seed, known)
    facts = {"id": name, "split": "train", "fields": fields}
    return _from_hub(facts, revision, size, seed)


def _on_hub(entries: Mapping[str, Any]) -> dict[str, str]:
    """Hub id → the entry of `sources.yaml` that knows it."""
    return {entry["hub"]["id"]: name for name, entry in entries.items() if "hub" in entry}


def read_source(name: str, size: int | None = None, seed: int = 0) -> Dataset:
    """The problems of entry `name` of `sources.yaml`; a seeded choice of `size` if given.

    Its file under LIMO_NB_DATA/pool is read if there is one, else the Hub is asked.
    Raises ValueError where there is neither.
    """
    entry, root = source_registry()[name], data_root()
    if "file" in entry and root:
        return _at_most(_released(root, name), size, seed)
    if "hub" in entry:
        return _from_hub(entry["hub"], "", size, seed, name)
    place = f"LIMO_NB_DATA/pool/{entry['file']['name']}"
    raise ValueError(f"the pool {name!r} is read from {place}: set LIMO_NB_DATA")


def real_pool(root: Path) -> Dataset:
    """AIME before 2024, MATH train and GSM8K train from `root`/pool."""
    return concatenate_datasets([_released(root, name) for name in REAL])


def _released(root: Path, name: str) -> Dataset:
    """The released file of `name`, which must have as many rows as the registry says."""
    facts = source_registry()[name]["file"]
    path = root / "pool" / facts["name"]
    pool = table_of(enumerate(read_records(path), 1), name, Layout.of(facts))
    if len(pool) != facts["rows"]:
        raise ValueError(f"{path}: {len(pool)} problems, the release has {facts['rows']}")
    return pool


def data_root() -> Path | None:
    """The folder of real data that `LIMO_NB_DATA` names, None where it is not set.

    Raises FileNotFoundError where it is set and is not a folder.
    """
    value = os.environ.get("LIMO_NB_DATA")
    if not value:
        return None
    root = Path(value)
    if not root.is_dir():
        raise FileNotFoundError(f"LIMO_NB_DATA={value} is not a folder: correct or unset it")
    return root


# ---------------------------------------------------------------- the Hub
def _from_hub(
    facts: Mapping[str, Any], revision: str, size: int | None, seed: int, name: str = ""
) -> Dataset:
    layout, source = Layout.of(facts), name or facts["id"]
    rows = enumerate(_hub_records(facts, revision), 1)
    if size and facts.get("stream"):
        parts = ((number, (place, layout.part(row))) for number, (place, row) in rows)
        return table_of(reservoir(parts, size, seed), source, layout)
    return _at_most(table_of(rows, source, layout), size, seed)


def _hub_records(facts: Mapping[str, Any], revision: str) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset

    revision = pinned(facts["id"], revision)
    for config in facts.get("configs", [None]):
        table = load_dataset(
            facts["id"], config, split=facts["split"], revision=revision,
            streaming=facts.get("stream", False),
        )  # fmt: skip
        place = " ".join(filter(None, (facts["id"], config)))
        for number, row in enumerate(table, 1):
            yield f"{place}, row {number}", row


def pinned(name: str, revision: str = "") -> str:
    """The commit of Hub data set `name`: the one of the first fetch, from the lock file.

    Where the lock file has none, the Hub is asked for `revision` (the newest without) and
    the answer recorded. Raises ValueError where the Hub cannot be reached, or where
    `revision` is another commit than the recorded one.
    """
    recorded = locked("pools").get(name)
    if recorded and revision in ("", recorded["revision"]):
        return recorded["revision"]
    commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else _commit(name, revision)
    recorded = recorded or pin("pools", name, {"revision": commit})
    if revision and recorded["revision"] != commit:
        raise ValueError(
            f"{name}@{revision} is {commit}, but {lock_file()} has {recorded['revision']} of "
            f"{recorded['fetched']}: delete that entry to accept the other revision"
        )
    return recorded["revision"]


def _commit(name: str, revision: str) -> str:
    from huggingface_hub import dataset_info

    try:
        return str(dataset_info(name, revision=revision or None).sha)
    except Exception as error:  # each way of being offline has a class of its own
        entries = source_registry()
        file = entries.get(_on_hub(entries).get(name, ""), {}).get("file")
        way = f", or set LIMO_NB_DATA to a folder with pool/{file['name']}" if file else ""
        raise ValueError(
            f"the Hub does not say which commit {name} is at ({type(error).__name__}): "
            f"connect{way}"
        ) from error


def reservoir(rows: Iterable[Any], size: int, seed: int) -> Iterator[Any]:
    """`size` of `rows`, each choice equally likely, in their order; one pass (Vitter's R).

    What has been given out is not held any longer.
    """
    rng, rows = random.Random(seed), iter(rows)
    chosen = list(enumerate(islice(rows, size)))
    for number, row in enumerate(rows, size):
        place = rng.randrange(number + 1)
        if place < size:
            chosen[place] = (number, row)
    chosen.sort(key=lambda pair: pair[0], reverse=True)
    while chosen:
        yield chosen.pop()[1]


def _at_most(pool: Dataset, size: int | None, seed: int) -> Dataset:
    """`pool`, or `size` of it in its order."""
    if size is None or len(pool) <= size:
        return pool
    return pool.select(sorted(random.Random(seed).sample(range(len(pool)), size)))
