"""Files of rows – JSON, JSONL, CSV, Parquet, Arrow – read so that a broken row can be named.

And the tables of a stage: Parquet files in its folder.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import pyarrow as pa
from datasets import Dataset
from pyarrow import parquet

from limo_nb.core.file_names import KINDS, STREAM, kind_of

if TYPE_CHECKING:
    from limo_nb.core.runs import Artifact

WRITTEN = (".jsonl", ".jsonl.gz", ".csv", ".parquet")  # what `write_records` makes
BATCH = 10_000  # rows that are Python objects at a time
DIGESTED = 8192  # rows that a digest takes at a time; another number is another digest


def read_records(file: Path, broken: list[str] | None = None) -> Iterator[tuple[str, Any]]:
    """Pairs (place for messages, row) of `file`, in order.

    A line of a JSONL file that is not JSON in UTF-8, or one of a CSV file with more cells
    than columns, is an error; with a list `broken`, the message is put there and the other
    lines are read. A `.json` file may hold lines, too. Raises ValueError that names the place.
    """
    if file != STREAM and not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    kind = kind_of(file)
    if kind in (".parquet", ".arrow"):
        rows = (row for batch in _batches(file) for row in batch.to_pylist())
        yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))
    elif kind == ".jsonl":
        yield from _lines(file, broken)
    elif kind == ".csv":
        yield from _cells(file, broken)
    elif kind == ".json":
        yield from _document(file, broken)
    else:
        raise ValueError(
            f"{file}: expected a file that ends in {', '.join(KINDS)}, perhaps with .gz"
        )


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The bytes of `file`, unpacked; a packed file that ends early is a ValueError."""
    if file == STREAM:
        yield sys.stdin.buffer
        return
    packed = file.name.lower().endswith(".gz")
    with cast(IO[bytes], gzip.open(file)) if packed else file.open("rb") as opened:
        try:
            yield opened
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{file}: not a whole gzip file ({error})") from None


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file, some thousands at a time."""
    try:
        if kind_of(file) == ".parquet":
            yield from parquet.ParquetFile(file).iter_batches(BATCH)
            return
        with pa.memory_map(str(file)) as source:
            try:
                yield from pa.ipc.open_stream(source)  # what `datasets` writes
            except pa.ArrowInvalid:
                whole = pa.ipc.open_file(source)
                yield from (whole.get_batch(n) for n in range(whole.num_record_batches))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file}: not a valid {kind_of(file)[1:]} file ({error})") from None


def _lines(file: Path, broken: list[str] | None) -> Iterator[tuple[str, Any]]:
    # Bytes: a line that is not UTF-8 must not end the others, and JSON strings may hold
    # U+2028, which str.splitlines takes for an end.
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            line = _unmarked(line) if number == 1 else line
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                yield place, _parsed(line, place)
            except ValueError as error:
                if broken is None:
                    raise
                broken.append(str(error))


def _document(file: Path, broken: list[str] | None) -> Iterator[tuple[str, Any]]:
    """A list of rows; also lines of rows, as some tools write them into `.json` files."""
    with _opened(file) as opened:
        text = _unmarked(opened.read())
    try:
        rows = _parsed(text, str(file))
    except ValueError:
        first, _, rest = text.strip().partition(b"\n")
        if not (rest and first.startswith(b"{") and first.rstrip().endswith(b"}")):
            raise
        yield from _lines(file, broken)
        return
    if not isinstance(rows, list):
        raise ValueError(f"{file}: expected a list of rows")
    yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))


def _cells(file: Path, broken: list[str] | None) -> Iterator[tuple[str, Any]]:
    """The rows of a CSV file with a head; every value is a text."""
    csv.field_size_limit(2**31 - 1)  # a chain may be longer than the default allows
    with _opened(file) as opened:
        text = io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")
        try:
            rows = csv.DictReader(text, restkey="", strict=True)
            for row in rows:
                place = f"{file}, line {rows.line_num}"
                if "" not in row:
                    yield place, row
                    continue
                fault = f"{place}: more cells than the {len(rows.fieldnames or ())} columns"
                if broken is None:
                    raise ValueError(fault)
                broken.append(fault)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not valid CSV ({error})") from None


def _unmarked(text: bytes) -> bytes:
    """`text` without the mark of byte order that Windows' programs put before it."""
    return text.removeprefix(b"\xef\xbb\xbf")


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
    packed = (".jsonl", ".jsonl.gz")
    return (*packed, ".parquet") if kind_of(file) == ".parquet" else packed


def write_part(
    file: Path, out: Path, keep: Callable[[int], bool], broken: list[str] | None = None
) -> None:
    """Copy the rows of `file` whose number (from 0) `keep` wants, whole or not at all.

    They are numbered as `read_records` gives them, with this `broken`. Rows pass one by one, so
    that files of millions fit. A Parquet file keeps its types; anything else is written as
    JSONL. Raises ValueError for another kind of `out`.
    """
    if kind_of(out) == ".jsonl":
        rows = (
            row for number, (_, row) in enumerate(read_records(file, broken)) if keep(number)
        )
        write_lines(rows, out)
    elif kind_of(out) == kind_of(file) == ".parquet":
        with _whole(out) as partial:
            _filter(file, partial, keep)
    else:
        raise ValueError(f"{out}: the rows of {file} can be written to .jsonl files")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A file beside `out` that takes its place at the end, and is gone where that fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(out)
    except OSError as error:  # a full disk, no permission: its own text names no file of ours
        raise OSError(f"{out} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _filter(file: Path, out: Path, keep: Callable[[int], bool]) -> None:
    number, schema = 0, parquet.read_schema(file)
    with parquet.ParquetWriter(out, schema) as writer:
        for batch in parquet.ParquetFile(file).iter_batches(BATCH):
            mask = [keep(n) for n in range(number, number + len(batch))]
            number += len(batch)
            writer.write_batch(batch.filter(pa.array(mask, pa.bool_())))


def write_records(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    r"""Write `rows` to a JSONL, CSV or Parquet file, whole or not at all; `-` is the output.

    Lone surrogates, which JSON can spell and UTF-8 cannot, are written as `\ud800`: in
    JSONL they are read again as they were, elsewhere as these six characters. What is no
    text is JSON in a CSV file.
    """
    kind = kind_of(file)
    if kind == ".jsonl":
        write_lines(rows, file)
    elif kind == ".parquet":
        with _whole(file) as partial:
            # By Arrow itself: where a disk is full, `datasets` would end the process.
            table = pa.Table.from_pylist(_even([_storable(row) for row in rows]))
            parquet.write_table(table, partial)
    elif kind == ".csv":
        _write_cells(_even([_storable(row) for row in rows]), file)
    else:
        raise ValueError(f"{file}: rows are written to {', '.join(WRITTEN)} files")


def write_lines(rows: Iterable[Any], file: Path) -> None:
    """Write `rows` as JSONL, one by one, packed where the name ends in `.gz`."""
    if file == STREAM:
        for row in rows:
            sys.stdout.write(_line(row, default=str))
        sys.stdout.flush()
        return
    with _whole(file) as partial:
        opened = gzip.open if file.name.lower().endswith(".gz") else open
        with opened(partial, "wt", encoding="utf-8", newline="") as lines:
            for row in rows:
                lines.write(_line(row, default=str))


def _write_cells(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    with _whole(file) as partial:
        opened = gzip.open if file.name.lower().endswith(".gz") else open
        with opened(partial, "wt", encoding="utf-8", newline="") as cells:
            writer = csv.DictWriter(cells, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows({name: _cell(own) for name, own in row.items()} for row in rows)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)


def _even(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`rows` with all columns that any has, since a table has those of its first row only."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [dict.fromkeys(names) | dict(row) for row in rows]


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
