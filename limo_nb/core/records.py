"""Files of rows, JSON, JSONL, Parquet or Arrow, read so that a broken row can be named.

And the tables of a stage: Parquet files in its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from limo_nb.core.files import write_atomic

if TYPE_CHECKING:
    from limo_nb.core.runs import Artifact

SUFFIXES = (".json", ".jsonl", ".parquet", ".arrow")
WRITTEN = (".jsonl", ".parquet")  # what `write_records` makes
BATCH = 10_000  # rows that are Python objects at a time
DIGESTED = 8192  # rows that a digest takes at a time; another number is another digest


def read_records(file: Path, broken: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Pairs (place for messages, row) of `file`, in order.

    A line of a JSONL file that is not JSON in UTF-8 is an error; with a list `broken`, the
    message is put there and the other lines are read. Raises ValueError that names the
    place.
    """
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    if file.suffix in (".parquet", ".arrow"):
        rows = (row for batch in _batches(file) for row in batch.to_pylist())
        for number, row in enumerate(rows, 1):
            yield f"{file}, row {number}", row
    elif file.suffix == ".jsonl":
        yield from _lines(file, broken)
    elif file.suffix == ".json":
        rows = _parsed(file.read_bytes(), str(file))
        if not isinstance(rows, list):
            raise ValueError(f"{file}: expected a list of rows")
        for number, row in enumerate(rows, 1):
            yield f"{file}, row {number}", row
    else:
        raise ValueError(f"{file}: expected a file that ends in {', '.join(SUFFIXES)}")


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file, some thousands at a time."""
    try:
        if file.suffix == ".parquet":
            yield from parquet.ParquetFile(file).iter_batches(BATCH)
            return
        with pa.memory_map(str(file)) as source:
            try:
                yield from pa.ipc.open_stream(source)  # what `datasets` writes
            except pa.ArrowInvalid:
                whole = pa.ipc.open_file(source)
                yield from (whole.get_batch(n) for n in range(whole.num_record_batches))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file}: not a valid {file.suffix[1:]} file ({error})") from None


def _lines(file: Path, broken: list[str] | None) -> Iterator[tuple[str, Any]]:
    # Bytes: a line that is not UTF-8 must not end the others, and JSON strings may hold
    # U+2028, which str.splitlines takes for an end.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                yield place, _parsed(line, place)
            except ValueError as error:
                if broken is None:
                    raise
                broken.append(str(error))


def _parsed(text: bytes, place: str) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # also integers of thousands of digits
        raise ValueError(f"{place}: not valid JSON ({error})") from None


def required(row: Any, fields: Iterable[str], place: str) -> Mapping[str, Any]:
    """`row`, which must be a mapping that has `fields`; ValueError names the place."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{place}: expected a mapping, found {type(row).__name__}")
    missing = [field for field in fields if row.get(field) is None]
    if missing:
        found = _escaped(", ".join(map(str, row))) or "nothing"
        raise ValueError(f"{place}: no {' or '.join(missing)} (found: {found})")
    return row


def parts(file: Path) -> tuple[str, ...]:
    """The suffixes of files that `write_part` can copy rows of `file` to."""
    return WRITTEN if file.suffix == ".parquet" else (".jsonl",)


def write_part(
    file: Path, out: Path, keep: Callable[[int], bool], broken: list[str] | None = None
) -> None:
    """Copy the rows of `file` whose number (from 0) `keep` wants, whole or not at all.

    They are numbered as `read_records` gives them, with this `broken`. Rows pass one by one, so
    that files of millions fit. A Parquet file keeps its types; anything else is written as
    JSONL. Raises ValueError for another kind of `out`.
    """
    partial = out.with_name(f".{out.name}.partial")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".jsonl":
        with partial.open("w", encoding="utf-8") as lines:
            for number, (_, row) in enumerate(read_records(file, broken)):
                if keep(number):
                    lines.write(_line(row, default=str))
    elif out.suffix == file.suffix == ".parquet":
        _filter(file, partial, keep)
    else:
        raise ValueError(f"{out}: the rows of {file} can be written to .jsonl files")
    partial.replace(out)


def _filter(file: Path, out: Path, keep: Callable[[int], bool]) -> None:
    number, schema = 0, parquet.read_schema(file)
    with parquet.ParquetWriter(out, schema) as writer:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH):
            mask = [keep(n) for n in range(number, number + len(batch))]
            number += len(batch)
            writer.write_batch(batch.filter(pa.array(mask, pa.bool_())))


def write_records(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    r"""Write `rows` to a JSONL or Parquet file, whole or not at all.

    Lone surrogates, which JSON can spell and UTF-8 cannot, are written as `\ud800`: in
    JSONL they are read again as they were, in Parquet as these six characters.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        partial = file.with_name(f".{file.name}.partial")
        stored = [_storable(row) for row in rows]
        # `from_list` has the columns of the first row only.
        names = dict.fromkeys(name for row in stored for name in row)
        Dataset.from_list([dict.fromkeys(names) | row for row in stored]).to_parquet(
            str(partial)
        )
        partial.replace(file)
    elif file.suffix == ".jsonl":
        write_atomic(file, "".join(_line(row) for row in rows))
    else:
        raise ValueError(f"{file}: rows are written to .jsonl or .parquet files")


def _line(row: Any, default: Callable[[Any], Any] | None = None) -> str:
    """`row` as a line of JSONL; an escaped surrogate is how JSON spells it."""
    return _escaped(json.dumps(row, ensure_ascii=False, default=default)) + "\n"


def _escaped(text: str) -> str:
    r"""`text` with its surrogates, and nothing else, as `\ud800`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _storable(value: Any) -> Any:
    """`value` with the surrogates of all its strings escaped."""
    if isinstance(value, str):
        return _escaped(value)
    if isinstance(value, Mapping):
        return {_storable(name): _storable(own) for name, own in value.items()}
    return [_storable(own) for own in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- tables of a stage
def save_tables(folder: Path, **tables: Dataset) -> None:
    """Every table as a Parquet file of its name in `folder`; `load_table` reads one again."""
    for name, table in tables.items():
        table.to_parquet(str(folder / f"{name}.parquet"))


def load_table(folder: Path | Artifact, name: str) -> Dataset:
    """Table `name` of a folder or a finished stage; it may have no rows."""
    file = folder / f"{name}.parquet"
    if parquet.read_metadata(file).num_rows == 0:  # for which `from_parquet` finds no data
        return Dataset(parquet.read_table(file))
    return Dataset.from_parquet(str(file))


def table_digest(table: Dataset) -> str:
    """A digest of all rows: what a stage depends on where a file or data set may change."""
    total = hashlib.sha256()
    for batch in table.iter(DIGESTED):
        total.update(json.dumps(batch, sort_keys=True, default=str).encode())
    return total.hexdigest()[:16]
