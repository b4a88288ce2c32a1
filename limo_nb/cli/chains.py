"""Chains: score a file of them, and write training rows in other tools' formats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    Columns,
    File,
    Replace,
    Rows,
    SkipBroken,
    app,
    check_free,
    check_written,
    emit,
    name_broken,
    rows_from,
    rows_to,
    tell,
)
from limo_nb.core.settings import SYSTEM_PROMPT

FormatName = Literal[
    "limo", "alpaca", "sharegpt", "messages", "trl", "verl", "open-r1"
]  # of chains.formats


@app.command(epilog="Example: limo-nb score graded.jsonl --out scored.jsonl")
def score(
    file: File,
    out: Annotated[Path | None, typer.Option(help="Rows with scores, level as band.")] = None,
    bands: Annotated[int, typer.Option(min=2, help="Levels of quality.")] = 5,
    within: Annotated[
        Literal["pool", "question"], typer.Option(help="Levels among all, or of a question.")
    ] = "pool",
    scale: Annotated[
        Literal["batch", "limo"], typer.Option(help="Of this file, or of long chains.")
    ] = "batch",
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Model whose tokens give lengths and after_answer; none: words."),
    ] = None,
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Score reasoning chains: four dimensions, score and level of every row."""
    from limo_nb.chains import choice, scoring
    from limo_nb.core import records

    if out is not None:
        out = rows_to(file, out, records.WRITTEN, replace, as_json)
    broken: list[str] = []
    read = _read(file, columns, most, broken if skip_broken else None)
    given = scoring.Scale.default() if scale == "limo" else None
    scored, ruler = choice.score_rows(read, bands, within, given, _counter(tokenizer))
    name_broken(broken)
    if out:
        records.write_records(map(_joined, read, scored), out)
    counted = f"tokens of {tokenizer}" if tokenizer else "words"
    report = {"chains": len(scored), "broken": broken, "scale": asdict(ruler)}
    report |= {"after_answer in": counted, "rows": scored}
    emit(report, as_json, _scores_shown(scored, bands, counted, out), out)


def _read(
    file: Path, columns: list[str] | None, most: int | None, broken: list[str] | None,
    wrong: bool = True, by_reward: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """The chains of `file`; how its rows were read is told on standard error."""
    from limo_nb.chains import formats
    from limo_nb.problems.dialects import parse_columns

    with rows_from(file, most) as given:
        found = formats.read_rows(given, broken, parse_columns(columns), wrong, by_reward)
    for line in found.told():
        tell(line)
    return found.rows


def _scores_shown(
    scored: list[dict[str, Any]], bands: int, counted: str, out: Path | None
) -> Iterator[Table | str]:
    yield _levels(scored, bands)
    yield f"after_answer: share of the {counted} behind the first right answer"
    yield f"{len(scored)} chains" + (f", written to {out}" if out else "; --out keeps the rows")


def _counter(tokenizer: str | None) -> Callable[[str], float]:
    """What counts tokens: the words of a text without a tokenizer, which is quick to load."""
    if tokenizer is None:
        from limo_nb.chains.scoring import count_words

        return count_words
    from limo_nb.inference import token_counter

    return token_counter(tokenizer)


def _joined(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """A row with what was found; the level as `band`, since `level` is the problem's."""
    rest = {name: value for name, value in found.items() if name != "level"}
    return {**row, **rest, "band": found["level"]}


SHOWN = ("score", "length", "verification", "exploration", "granularity", "steps", "checks",
         "backtracks", "repetition", "mixing", "truncated", "after_answer")  # fmt: skip


def _levels(scored: list[dict[str, Any]], bands: int) -> Table:
    """The means of every level, and of all chains."""
    groups = {
        f"L{n}": [row for row in scored if row["level"] == n] for n in range(1, bands + 1)
    }
    groups["all"] = scored
    table = Table("mean of", *groups)
    table.add_row("chains", *(str(len(group)) for group in groups.values()))
    for name in SHOWN:
        table.add_row(name, *(_mean(row[name] for row in group) for group in groups.values()))
    return table


def _mean(values: Iterable[float | None]) -> str:
    """The mean of what is known; nothing where nothing is."""
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else ""


@app.command(epilog="Example: limo-nb convert rows.jsonl messages.jsonl --to messages")
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(help="The file to write: .json, .jsonl, .parquet.")],
    to: Annotated[FormatName, typer.Option(help="What is written.")],
    register: Annotated[
        str | None, typer.Option(help="Name of the entry in LLaMA-Factory's dataset_info.json.")
    ] = None,
    system: Annotated[str, typer.Option(help="For rows without a prompt.")] = SYSTEM_PROMPT,
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Write training rows for other trainers.

    LLaMA-Factory reads alpaca, sharegpt and messages; TRL messages and trl; Axolotl messages
    (type: chat_template); verl its own Parquet, with the reference for a reward. Chains that
    their rows mark as wrong are left out.
    """
    from limo_nb.chains import formats
    from limo_nb.core import records

    check_written(file, ("OUT", out, (".json", *records.WRITTEN)))
    check_free("OUT", out, replace)
    broken: list[str] = []
    by_reward = formats.FORMATS[to].by_reward
    read = _read(file, columns, most, broken if skip_broken else None, False, by_reward)
    if register:
        formats.llama_factory_entry(to, out)  # fails before a file is written
    formats.write_rows(formats.convert(read, to, system), out)
    info = formats.dataset_info(out, to, register) if register else None
    name_broken(broken)
    report = {"file": str(out), "format": to, "rows": len(read), "broken": broken,
              "dataset_info": str(info) if info else None}  # fmt: skip
    lines = [f"{len(read)} rows written to {out} ({to})"]
    lines += [f"entered as {register!r} in {info}"] * bool(info)
    emit(report, as_json, lines, out)
