"""The command that grades a file of responses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limo_nb.cli.base import AsJson, app, emit, fact_lines, tell


@app.command()
def grade(
    file: Annotated[Path, typer.Argument(help="Rows of gold, response and, if known, label.")],
    out: Annotated[Path | None, typer.Option(help="Default: FILE.verdicts.jsonl.")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Relative; integers exact.")] = 0.0,
    boxed_only: Annotated[bool, typer.Option(help="Answers in a box only.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of a comparison.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Grade responses against references, and the grader against labels where there are any.

    Broken rows are named by their line, and the others graded.
    """
    from time import perf_counter

    from limo_nb.core import records as files
    from limo_nb.grading.gym import Gym
    from limo_nb.grading.verdicts import agreement
    from limo_nb.grading.verifiers import ByReference, Mathematics

    broken: list[str] = []
    found = [
        row for row in (_row(r, p, broken) for p, r in files.read_records(file, broken)) if row
    ]
    for message in broken:
        tell(message)
    if not found:
        raise ValueError(f"{file}: no row that can be graded ({len(broken)} broken)")
    started = perf_counter()
    verdicts = ByReference(
        Mathematics(workers, seconds, tolerance, boxed_only), Gym(workers, seconds, boxed_only)
    ).verify([row["gold"] for row in found], [row["response"] for row in found])
    rate = len(found) / (perf_counter() - started)
    out = out or file.with_name(f"{file.stem}.verdicts.jsonl")
    files.write_records((_graded(r, v) for r, v in zip(found, verdicts, strict=True)), out)
    summary: dict[str, Any] = {**agreement(verdicts, [row.get("label") for row in found])}
    summary |= {"items_per_second": round(rate, 1), "verdicts": str(out)}
    shown = fact_lines(summary | {"broken rows": len(broken)})
    emit(summary | {"broken": broken}, as_json, shown)


def _row(row: Any, place: str, broken: list[str]) -> dict[str, Any] | None:
    """`row` if it can be graded; else None, and the reason is put into `broken`."""
    from limo_nb.core.records import required

    try:
        row = dict(required(row, ("gold", "response"), place))
        if not isinstance(row["response"], str):
            raise ValueError(f"{place}: response is {type(row['response']).__name__}, not text")
        if row.get("label") not in (None, True, False):
            raise ValueError(f"{place}: label is {row['label']!r}, not true or false")
    except ValueError as error:
        broken.append(str(error))
        return None
    return row


def _graded(row: Mapping[str, Any], verdict: Any) -> dict[str, Any]:
    """What is written: the row without its response, and the verdict."""
    kept = {name: value for name, value in row.items() if name != "response"}
    if not isinstance(row["gold"], str):  # a column of one type, for Parquet
        kept["gold"] = json.dumps(row["gold"], ensure_ascii=False)
    return kept | {
        "correct": verdict.correct, "answer": verdict.answer, "reason": verdict.reason
    }  # fmt: skip
