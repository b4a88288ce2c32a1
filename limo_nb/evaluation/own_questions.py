"""A file of one's own questions as a benchmark: `limo-nb evaluate -b FILE` (chapter 8).

In: rows with a question and a reference, whatever their columns are called; perhaps
`benchmark`, `in_domain` and `tolerance`. Out: benchmarks that `load_benchmark` knows by name
for as long as the process lives.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from limo_nb.core.file_names import kind_of
from limo_nb.core.records import read_records
from limo_nb.evaluation.benchmarks import (
    BENCHMARK_COLUMNS,
    OWN,
    OwnBenchmark,
    benchmark_registry,
)
from limo_nb.problems import level_of, plain_answer
from limo_nb.problems.reader import RowReader
from limo_nb.problems.reading import lacking

NAME = re.compile(r"[^\w.-]+")  # what a file's name may not have


def is_own(name: str) -> bool:
    """Whether `name` is a file of questions, and no benchmark's name."""
    return Path(name).is_file() and bool(kind_of(Path(name)))


def enter_questions(path: Path, columns: Mapping[str, str] | None = None) -> list[str]:
    """Enter the questions of `path` as benchmarks, and return their names.

    Rows with a column `benchmark` are of that one, the others of one that has the file's
    name. Raises ValueError that names every row without question or reference, and where
    rows of one benchmark have several tolerances.
    """
    reader = RowReader(columns)
    faults: list[str] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    tolerances: dict[str, set[float]] = {}
    for number, (place, record) in enumerate(read_records(path, faults), 1):
        try:
            row, name, tolerance = _item(reader, record, place, path, number)
        except ValueError as error:
            faults.append(str(error))
            continue
        groups.setdefault(name, []).append(row)
        tolerances.setdefault(name, set()).add(tolerance)
    if faults:
        shown = "\n".join(f"  {fault}" for fault in faults[:5])
        raise ValueError(f"{len(faults)} broken rows in {path}:\n{shown}")
    if not groups:
        raise ValueError(f"{path}: no questions in it")
    for name, rows in groups.items():
        if len(tolerances[name]) > 1:
            told = ", ".join(map(str, sorted(tolerances[name])))
            raise ValueError(f"{path}: {name} has several tolerances ({told}): one is wanted")
        table = Dataset.from_list(rows, features=BENCHMARK_COLUMNS)
        OWN[name] = OwnBenchmark(str(path), table, tolerances[name].pop())
    return list(groups)


def _item(
    reader: RowReader, record: Any, place: str, path: Path, number: int
) -> tuple[dict[str, Any], str, float]:
    """(the item, its benchmark, the tolerance) of a row."""
    read = reader.read(record, place)
    for what in ("question", "answer"):
        if getattr(read, what) in (None, ""):
            raise lacking(record, what, place)
    rest = record if isinstance(record, Mapping) else {}
    name = NAME.sub("-", str(rest.get("benchmark") or path.name.partition(".")[0]))
    name = f"my-{name}" if name in benchmark_registry() else name
    tolerance = rest.get("tolerance") or 0.0
    if isinstance(tolerance, str):
        tolerance = float(tolerance)
    return (
        {
            "id": f"{name}-{number if read.id in (None, '') else read.id}",
            "question": read.question, "answer": plain_answer(read.answer),
            "solution": read.solution, "source": str(path.name),
            "subject": plain_answer(read.subject), "level": level_of(read.level, place),
            "benchmark": name, "in_domain": bool(rest.get("in_domain")),
        },
        name, float(tolerance),
    )  # fmt: skip
