"""Where problems come from: sources of many shapes, read into one table (chapter 3).

A source is the lab, an entry of `sources.yaml`, a local file or folder, or a data set on
the Hub. A row that cannot be read is an error that names its place, never left out.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import blake2b
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from datasets import Dataset, Features, Value, concatenate_datasets

from limo_nb import lab
from limo_nb.core.pins import (
    keep,
    lock_file,
    locked,
)
from limo_nb.core.records import (
    SUFFIXES,
    records,
)
from limo_nb.core.settings import PoolSettings
from limo_nb.grading.extraction import final_answer

COLUMNS = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "answer": Value("string"),  # "" where the source gives none
        "solution": Value("string"),
        "source": Value("string"),
        "subject": Value("string"),
        "level": Value("int64"),  # 0: unknown
    }
)
TEXTS = Features({name: COLUMNS[name] for name in ("id", "question", "answer")})
TEXTS["row"] = Value("int64")  # its number in the file, from 0
# What sources call the columns; the first name that a row has is taken.
NAMES = {
    "id": ("id", "unique_id", "idx"),
    "question": ("question", "problem", "prompt"),
    "answer": ("answer", "final_answer", "ground_truth"),
    "solution": ("solution",),
    "source": ("source",),
    "subject": ("subject", "type"),
    "level": ("level", "difficulty"),
}
REAL = ("aime", "math", "gsm8k")  # what the source "real" stands for
BATCH = 10_000  # rows that are Python objects at a time

Numbered = Iterable[tuple[int, tuple[str, Any]]]  # number in the source, place, row


@dataclass(frozen=True)
class Shape:
    """How the rows of a source are read; see the head of `sources.yaml`."""

    fields: Mapping[str, str] = field(default_factory=dict)
    boxed: str = ""
    mark: str = "\n#### "  # GSM8K's, which other sets have taken over
    below: Mapping[str, int] = field(default_factory=dict)
    answered: bool = True  # every row has an answer

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Shape:
        """The part of a registry entry that says how to read rows."""
        return cls(**{name: facts[name] for name in cls.__annotations__ if name in facts})

    @cached_property
    def _read(self) -> set[str]:
        """The fields that are looked at."""
        columns = [
            [self.fields[column]] if column in self.fields else usual
            for column, usual in NAMES.items()
        ]
        return {name for names in columns for name in names} | {self.boxed, *self.below}

    def part(self, record: Any) -> Any:
        """The row without the fields that are not read, which may be most of it."""
        if not isinstance(record, Mapping):
            return record
        return {name: record[name] for name in record if name in self._read}

    def wants(self, record: Any, place: str) -> bool:
        """Whether the row belongs to the pool; False where a benchmark begins."""
        for name, limit in self.below.items():
            if not isinstance(record, Mapping) or record.get(name) is None:
                raise ValueError(f"{place}: no {name}, which says where a benchmark begins")
            if int(record[name]) >= limit:
                return False
        return True


@cache
def registry() -> dict[str, dict[str, Any]]:
    """The entries of `sources.yaml`: name → title, file, hub."""
    return yaml.safe_load(
        resources.files("limo_nb.problems").joinpath("sources.yaml").read_text()
    )


# ---------------------------------------------------------------- pools
def load_pool(settings: PoolSettings) -> Dataset:
    """At most `settings.size` problems of `settings.source`, in the source's order.

    The source is "lab", a name in `registry()` or "real" (AIME, MATH and GSM8K), a JSON,
    JSONL, Parquet or Arrow file, a folder of them, or a Hub data set, `ID` or
    `ID@REVISION`. Which problems are taken depends on `settings.seed`. `settings.fields`
    says what a file or data set calls our columns, where not by a usual name. Raises
    ValueError that names file and row of a corrupt row.
    """
    if settings.source == "lab":
        rows = lab.pool(settings.size, settings.seed)
        return Dataset.from_list(rows, features=COLUMNS)
    return _load(settings.source, settings.size, settings.seed, settings.fields)


def _load(source: str, size: int, seed: int, fields: Mapping[str, str]) -> Dataset:
    entries = registry()
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
        known = ", ".join(["lab", "real", *entries])
        raise ValueError(
            f"no pool {source!r}: it is no file, no Hub data set (OWNER/NAME), and none "
            f"of {known}"
        )
    if name in _on_hub(entries):
        known = _on_hub(entries)[name]
        return _from_hub(entries[known]["hub"], revision, size, seed, known)
    facts = {"id": name, "split": "train", "fields": _checked(fields)}
    return _from_hub(facts, revision, size, seed)


def _on_hub(entries: Mapping[str, Any]) -> dict[str, str]:
    """Hub id → the entry of `sources.yaml` that knows it."""
    return {entry["hub"]["id"]: name for name, entry in entries.items() if "hub" in entry}


def _checked(fields: Mapping[str, str]) -> Mapping[str, str]:
    """`fields`; ValueError where one of them is for no column of ours."""
    unknown = [name for name in fields if name not in COLUMNS]
    if unknown:
        raise ValueError(f"no column {unknown[0]!r}: fields may name {', '.join(COLUMNS)}")
    return fields


def read_source(name: str, size: int | None = None, seed: int = 0) -> Dataset:
    """The problems of entry `name` of `sources.yaml`; a seeded choice of `size` if given.

    Its file under LIMO_NB_DATA/pool is read if there is one, else the Hub is asked.
    Raises ValueError where there is neither.
    """
    entry, root = registry()[name], data_root()
    file = entry.get("file")
    if file and root:
        return _at_most(_released(root / "pool" / file["name"], name, file), size, seed)
    if "hub" not in entry:
        raise ValueError(
            f"the pool {name!r} is read from LIMO_NB_DATA/pool/{file['name']}: set LIMO_NB_DATA"
        )
    return _from_hub(entry["hub"], "", size, seed, name)


def _released(path: Path, name: str, facts: Mapping[str, Any]) -> Dataset:
    """A released file, which must have as many rows as the registry says."""
    pool = _table(enumerate(records(path), 1), name, Shape.of(facts))
    if len(pool) != facts["rows"]:
        raise ValueError(f"{path}: {len(pool)} problems, the release has {facts['rows']}")
    return pool


def real_pool(root: Path) -> Dataset:
    """AIME before 2024, MATH train and GSM8K train from `root`/pool."""
    entries = registry()
    return concatenate_datasets(
        [
            _released(
                root / "pool" / entries[name]["file"]["name"], name, entries[name]["file"]
            )
            for name in REAL
        ]
    )


def read_problems(
    path: Path, source: str | None = None, fields: Mapping[str, str] | None = None,
    answered: bool = True, broken: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """The problems in a JSON, JSONL, Parquet or Arrow file, or in all such of a folder.

    `fields` maps a column of ours to what the file calls it, as in `sources.yaml`. Each row
    must have an answer if `answered`. A row that cannot be read is a ValueError that names
    it; with a list `broken`, the message is put there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files or any(file.suffix not in SUFFIXES for file in files):
        raise ValueError(f"{path}: expected files that end in {', '.join(SUFFIXES)}")
    shape = Shape(_checked(fields or {}), answered=answered)
    tables = [
        _table(enumerate(records(file, broken), 1), source or file.stem, shape, broken)
        for file in files
    ]
    return concatenate_datasets(tables)


def read_texts(
    path: Path, question: str | None = None, label: bool = False,
    broken: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """id, question, answer and row (its number from 0) of every row of a file.

    The question is in field `question`, or under one of its usual names; the answer is ""
    where there is none. The id is the row's own, or "row N" counted from 1, prefixed by
    the file's name with `label`. A row that cannot be read, or has the id of another, is a
    ValueError that names it; with a list `broken`, the message is put there.
    """
    shape = Shape({"question": question} if question else {})
    prefix = f"{path.stem}-" if label else ""

    def read(record: Any, place: str, number: int) -> dict[str, Any]:
        return _text(record, place, prefix, number, shape)

    rows = _sound(enumerate(records(path, broken), 1), read, broken)
    return _gathered(rows, TEXTS, str(path), broken)


def _text(record: Any, place: str, prefix: str, number: int, shape: Shape) -> dict[str, Any]:
    """A file's row as a row of TEXTS."""
    identifier = _field(_mapping(record, place), "id", shape)
    name = f"row {number}" if identifier in (None, "") else str(identifier)
    text = _field(record, "question", shape, place)
    if not isinstance(text, str):
        raise ValueError(f"{place}: the question is not text")
    answer = plain_answer(_field(record, "answer", shape)).rpartition(shape.mark)[2].strip()
    return {"id": prefix + name, "question": text, "answer": answer, "row": number - 1}


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
    shape, source = Shape.of(facts), name or facts["id"]
    rows = enumerate(_hub_records(facts, revision), 1)
    if size and facts.get("stream"):
        parts = ((number, (place, shape.part(row))) for number, (place, row) in rows)
        return _table(reservoir(parts, size, seed), source, shape)
    return _at_most(_table(rows, source, shape), size, seed)


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
    recorded = recorded or keep("pools", name, {"revision": commit})
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
        entries = registry()
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


# ---------------------------------------------------------------- rows
def _table(
    rows: Numbered, source: str, shape: Shape = Shape(),  # noqa: B008
    broken: list[str] | None = None,
) -> Dataset:  # fmt: skip
    """A table of COLUMNS."""

    def read(record: Any, place: str, number: int) -> dict[str, Any] | None:
        wanted = shape.wants(record, place)
        return _problem(record, place, source, number, shape) if wanted else None

    return _gathered(_sound(rows, read, broken), COLUMNS, source, broken)


def _sound(
    rows: Numbered,
    read: Callable[[Any, str, int], dict[str, Any] | None],
    broken: list[str] | None,
) -> Iterator[dict[str, Any]]:
    """What `read` makes of the rows, None left out; each id once, all texts storable.

    A fault is an error; with a list `broken`, it is put there and the row left out.
    """
    places: dict[str, str] = {}
    for number, (place, record) in rows:
        try:
            row = read(record, place, number)
            if row is None:
                continue
            _storable(row, place)
            if row["id"] in places:
                raise ValueError(
                    f"{place}: the id {row['id']!r} is taken by {places[row['id']]}"
                )
        except ValueError as error:
            if broken is None:
                raise
            broken.append(str(error))
            continue
        places[row["id"]] = place
        yield row


def _storable(row: Mapping[str, Any], place: str) -> None:
    """Raise ValueError for a lone surrogate, which JSON can spell and Arrow cannot store."""
    for name, value in row.items():
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            sign = ascii(value[error.start])[1:-1]
            raise ValueError(
                f"{place}: the {name} has half a character, {sign}: correct or remove it"
            ) from None


def _gathered(
    rows: Iterator[dict[str, Any]], columns: Features, source: str, broken: list[str] | None
) -> Dataset:
    """The table of `rows`; BATCH of them at a time become Arrow, so that millions fit."""
    tables = []
    while batch := list(islice(rows, BATCH)):
        tables.append(pa.Table.from_pylist(batch, schema=columns.arrow_schema))
    if not tables:
        rest = f" that can be read: {broken[0]}" if broken else ""
        raise ValueError(f"{source}: no problems in it{rest}")
    # Without a fingerprint `datasets` makes one of a copy of the whole table.
    digest = blake2b(digest_size=8)
    for table in tables:
        for batch in table.to_batches():
            digest.update(batch.serialize())
    return Dataset(pa.concat_tables(tables), fingerprint=digest.hexdigest())


def _mapping(record: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(record, Mapping):
        raise ValueError(f"{place}: expected a mapping, found {type(record).__name__}")
    return record


def _problem(record: Any, place: str, source: str, number: int, shape: Shape) -> dict[str, Any]:
    """A source's row as a row of COLUMNS."""
    question = _field(_mapping(record, place), "question", shape, place)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: the question is empty or not text")
    answer, solution = _answer(record, shape, place)
    identifier = _field(record, "id", shape)
    return {
        "id": f"{source}-{number if identifier in (None, '') else identifier}",
        "question": question,
        "answer": answer.strip(),
        "solution": str(solution),
        "source": str(_field(record, "source", shape) or source),
        "subject": str(_field(record, "subject", shape) or ""),
        "level": level_of(_field(record, "level", shape), place),
    }


def _answer(record: Mapping, shape: Shape, place: str) -> tuple[str, str]:
    """(answer, solution) of a row, where the two may share a field."""
    solution = _field(record, "solution", shape) or ""
    if shape.boxed:
        return final_answer(str(record.get(shape.boxed) or ""), True) or "", solution
    answer = plain_answer(_field(record, "answer", shape, place if shape.answered else ""))
    if shape.mark in answer:
        solution, _, answer = answer.rpartition(shape.mark)
    return answer, solution


def _field(record: Mapping, column: str, shape: Shape, place: str = "") -> Any:
    """The value of `column` under its name or names; required where `place` is given."""
    names = (shape.fields[column],) if column in shape.fields else NAMES[column]
    for name in names:
        if name in record:
            return record[name]
    if place:
        found = ", ".join(map(str, record))
        raise ValueError(f"{place}: no {' or '.join(names)} (found: {found})")
    return None


def level_of(value: Any, place: str) -> int:
    """A difficulty such as 4, 4.25 or "Level 5" as an integer, 0 where there is none.

    MATH says "Level ?" of a problem whose level nobody knows.
    """
    if value in (None, "", "Level ?"):
        return 0
    found = re.search(r"\d+(\.\d+)?", str(value))
    if not found:
        raise ValueError(f"{place}: the level {value!r} is no number")
    return int(float(found[0]) + 0.5)


def plain_answer(value: Any) -> str:
    """A reference as text: 27.0 is "27", lists and mappings are joined, None is ""."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {plain_answer(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain_answer(inner) for inner in value)
    return str(value)
