"""The command that grades a file of responses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limo_nb.cli.base import (
    AsJson,
    Columns,
    File,
    Replace,
    Rows,
    app,
    emit,
    fact_lines,
    name_broken,
    rows_from,
    rows_to,
    tell,
)

if TYPE_CHECKING:
    from limo_nb.problems.reader import ReadRow


@app.command(epilog="Example: limo-nb grade answers.jsonl --out graded.jsonl")
def grade(
    file: File,
    out: Annotated[
        Path | None, typer.Option(help="Rows with verdicts; -: to the output.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Relative; integers exact.")] = 0.0,
    boxed_only: Annotated[bool, typer.Option(help="Answers in a box only.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of a comparison.")] = 5.0,
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Grade responses against references, and the grader against labels where there are any.

    Rows stay as they are, with `correct`, the `extracted` answer and the `reason`; one with
    several responses becomes several. A label is a column `label`, or what a row says of
    its responses' correctness. Broken rows are named by their line, and the others graded.
    """
    from time import perf_counter

    from limo_nb.core import records as files
    from limo_nb.grading.gym import Gym
    from limo_nb.grading.verdicts import agreement
    from limo_nb.grading.verifiers import ByReference, Mathematics
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.problems.reader import RowReader

    if out is not None:
        out = rows_to(file, out, files.WRITTEN, replace, as_json)
    reader = RowReader(parse_columns(columns))
    broken: list[str] = []
    ways: set[str] = set()
    found: list[dict[str, Any]] = []
    with rows_from(file, most) as given:
        for place, record in files.read_records(given, broken):
            try:
                read = reader.read(record, place)
                found += _responses(read, record, place)
                ways.add(read.told())
            except ValueError as error:
                broken.append(str(error))
    name_broken(broken)
    for way in sorted(ways):
        tell(way)
    if not found:
        raise ValueError(f"{file}: no row that can be graded ({len(broken)} broken)")
    started = perf_counter()
    verdicts = ByReference(
        Mathematics(workers, seconds, tolerance, boxed_only), Gym(workers, seconds, boxed_only)
    ).verify([row["gold"] for row in found], [row["response"] for row in found])
    rate = len(found) / (perf_counter() - started)
    summary: dict[str, Any] = {**agreement(verdicts, [row["label"] for row in found])}
    if "accuracy" in summary:  # of the grader, and not of who answered
        summary["agreement with labels"] = summary.pop("accuracy")
    summary["items_per_second"] = round(rate, 1)
    if out:
        files.write_records(
            (_graded(r, v, out) for r, v in zip(found, verdicts, strict=True)), out
        )
        summary["verdicts"] = str(out)
    shown = fact_lines(summary | {"broken rows": len(broken)})
    emit(summary | {"broken": broken}, as_json, shown, out)


def _responses(
    read: ReadRow, record: Mapping[str, Any], place: str
) -> Iterator[dict[str, Any]]:
    """A row for each response of a record; ValueError where there is nothing to grade."""
    from limo_nb.problems.reading import lacking

    if read.answer in (None, ""):
        raise lacking(record, "gold", place)
    if not read.chains:
        raise lacking(record, "response", place)
    label = record.get("label") if isinstance(record, Mapping) else None
    if label not in (None, True, False) and "label" not in read.took.values():
        raise ValueError(f"{place}: label is {label!r}, not true or false")
    for number, chain in enumerate(read.chains):
        own = {"gold": read.answer, "response": chain.text, "record": record}
        own["label"] = label if isinstance(label, bool) else chain.correct
        own["chain"] = number if len(read.chains) > 1 else None
        yield own


def _graded(row: Mapping[str, Any], verdict: Any, out: Path) -> dict[str, Any]:
    """What is written: the record with its verdict, and the response if it has several."""
    record = row["record"]
    kept = dict(record) if isinstance(record, Mapping) else {"conversations": record}
    if row["chain"] is not None:
        kept |= {"chain": row["chain"], "response": row["response"]}
    if row["label"] is not None:
        kept["label"] = row["label"]
    if out.suffix == ".parquet":  # a column of one type
        kept = {
            name: own if own is None or isinstance(own, str | bool)
            else json.dumps(own, ensure_ascii=False)
            for name, own in kept.items()
        }  # fmt: skip
    return kept | {
        "correct": verdict.correct, "extracted": verdict.answer, "reason": verdict.reason
    }  # fmt: skip
