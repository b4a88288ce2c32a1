"""Commands to begin with: how a file's rows are read, and files to try the others on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
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
    check_free,
    check_written,
    emit,
    if_there,
    name_broken,
    rows_from,
)
from limo_nb.core.file_names import on_hub

if TYPE_CHECKING:
    from limo_nb.problems.reader import ReadRow

WIDE = 400  # characters of a text that are shown
QUESTIONS = 60  # that `examples` writes


@app.command(epilog="Example: limo-nb show questions.jsonl")
def show(
    file: File,
    columns: Columns = None,
    most: Annotated[int, typer.Option("--rows", min=1, help="Rows that are read.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """The first row of FILE as every command understands it, and how the others are read."""
    from limo_nb.core.records import read_records
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.problems.reader import RowReader

    reader = RowReader(parse_columns(columns))
    broken: list[str] = []
    ways: Counter[str] = Counter()
    first: tuple[Any, ReadRow] | None = None
    with rows_from(file, most if on_hub(file) else None) as given:
        for place, record in islice(read_records(given, broken), most):
            try:
                read = reader.read(record, place)
            except ValueError as error:
                broken.append(str(error))
                continue
            ways[read.told()] += 1
            first = first or (record, read)
    name_broken(broken)
    if first is None:
        raise ValueError(f"{file}: no row that can be read ({len(broken)} broken)")
    reader.check_seen(str(file))
    told = _document(*first)
    document = {"file": str(file), "read": dict(ways), "broken": broken, "first": told}
    emit(document, as_json, _shown(told, ways, len(broken)))


def _document(record: Any, read: ReadRow) -> dict[str, Any]:
    """The first row, as it is read."""
    rest = record if isinstance(record, Mapping) else {}
    chains = [
        {"text": own.text, "thought": own.thought, "correct": own.correct}
        for own in read.chains
    ]
    return {
        "id": read.id, "question": read.question, "answer": read.answer, "chains": chains,
        "system": read.system, "subject": read.subject, "level": read.level,
        "source": read.source, "took": dict(read.took),
        "kept as they are": [name for name in rest if name not in read.used],
    }  # fmt: skip


def _shown(first: Mapping[str, Any], ways: Counter[str], broken: int) -> Iterator[str]:
    for way, count in ways.most_common():
        yield f"{count:,} row{'s' * (count != 1)}: {way}"
    if broken:
        yield f"{broken:,} broken"
    yield "\nthe first:"
    for name in ("id", "question", "answer", "system", "subject", "level", "source"):
        if first[name] not in (None, ""):
            yield f"  {name}: {_cut(first[name])}"
    for number, chain in enumerate(first["chains"], 1):
        marked = {True: ", marked right", False: ", marked wrong", None: ""}[chain["correct"]]
        thought = ", with a thought in marks" if chain["thought"] is not None else ""
        yield f"  chain {number}{thought}{marked}: {_cut(chain['text'])}"
    others = ", ".join(map(str, first["kept as they are"]))
    yield f"  kept as they are: {others or 'none'}"


def _cut(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= WIDE else f"{text[: WIDE - 1]}…"


@app.command(epilog="Example: limo-nb examples walk")
def examples(
    folder: Annotated[Path, typer.Argument(help="A new folder for them.")] = Path("examples"),
    as_json: AsJson = False,
) -> None:
    """Files of the lab's problems to try the commands on: questions.jsonl and exam.jsonl.

    The questions have their columns' names from elsewhere, some repeat one of the exam's,
    and some are there twice, as in files that people have.
    """
    from limo_nb import lab
    from limo_nb.core.records import write_records

    if folder.exists():
        raise ValueError(f"{folder} is there already: name a new folder")
    exam = [row for row in lab.benchmarks(2) if row["in_domain"]]
    asked = [
        {"uuid": f"q{n}", "Problem": row["question"], "Final Answer": row["answer"],
         "topic": row["subject"], "difficulty": row["level"]}
        for n, row in enumerate(lab.pool(QUESTIONS, 7))
    ]  # fmt: skip
    copied = [{**asked[0], "uuid": "copied", "Problem": exam[0]["question"]}]
    files = {
        "questions.jsonl": [*asked, *copied, {**asked[1], "uuid": "twice"}],
        "exam.jsonl": [{"prompt": row["question"], "answer": row["answer"]} for row in exam],
    }
    for name, rows in files.items():
        write_records(rows, folder / name)
    told = {str(folder / name): len(rows) for name, rows in files.items()}
    emit(told, as_json, [f"{path}: {count} rows" for path, count in told.items()])


@app.command(epilog="Example: limo-nb view scored.jsonl --out chains.html")
def view(
    file: File,
    other: Annotated[
        Path | None, typer.Argument(callback=if_there, help="Another, side by side.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("view.html"),
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """One page of FILE's questions and chains, to be opened from the disk.

    Search, filters and order; thought and reply apart; verdict and why. Of two files each
    question has both answers side by side, those first on which they differ.
    """
    from limo_nb.book.row_viewer import ViewRows
    from limo_nb.core.files import write_atomic
    from limo_nb.core.records import read_records
    from limo_nb.problems.dialects import parse_columns

    check_written(file, ("--out", out, (".html",)))
    check_free("--out", out, replace)
    page = ViewRows()
    for own in filter(None, (file, other)):
        with rows_from(own, most) as given:
            page.add(own.name, read_records(given, page.broken), parse_columns(columns))
    text = page.html()
    name_broken(page.broken)
    write_atomic(out, text)
    facts = {"page": str(out), "questions": len(page.entries), "broken": page.broken}
    emit(facts, as_json, [f"{out}: {len(page.entries):,} questions; open it in a browser"])
