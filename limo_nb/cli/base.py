"""What the commands share: the application, its options, and how they speak."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from limo_nb.core.file_names import kind_of, on_hub


class Interruptible(TyperGroup):
    """The commands; one that is interrupted says so in a line, and the exit code is 130.

    What they write they write whole or not at all, so nothing is left half done.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            behind = "\n" if sys.stderr.isatty() else ""  # a line of progress, and ^C
            again = f"the same command begins again: {typed()}"
            tell(f"{behind}limo-nb: interrupted; {again}", True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Interruptible, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
console, errors = Console(), Console(stderr=True)

Profile = Annotated[str, typer.Option("--profile", "-p", help="A profile or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--override", help="KEY=VALUE of a profile's field, e.g. pool.size=100."),
]
Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="lab:NAME, folder, FILE.gguf, Hub id (ID@REVISION, ID#FILE.gguf)."
    ),
]
# Of how a model is sampled; what is not given comes from a profile or a protocol.
Samples = Annotated[int | None, typer.Option(min=1, help="Answers to each question.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0: greedy.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="1: nothing is cut off.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Of an answer.")]
Seed = Annotated[int | None, typer.Option(help="Root of all random numbers.")]
Force = Annotated[
    bool, typer.Option("--force", help="Start although memory seems not to be enough.")
]
OverLong = Annotated[
    Literal["skip", "cut"],
    typer.Option(help="Of questions that leave the model no room for an answer."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        help="What FILE calls its columns, e.g. question=problem_text,answer=meta.key; "
        "of usual names none is needed: `limo-nb show FILE`."
    ),
]
Rows = Annotated[
    int | None,
    typer.Option("--rows", min=1, help="At most so many rows, and no more is fetched."),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite what is there.")]
SkipBroken = Annotated[bool, typer.Option(help="Leave broken rows out, and name them.")]


def there(file: Path) -> Path:
    """FILE, if it is there; told before any room is imported, which takes seconds."""
    if str(file) != "-" and not file.exists() and not on_hub(file):
        raise FileNotFoundError(f"{file} does not exist")
    return file


File = Annotated[
    Path,
    typer.Argument(
        callback=there,
        help="JSONL, JSON, CSV (also .gz), Parquet, Arrow; -: lines of JSON; a folder of "
        "these, or OWNER/NAME of the Hub.",
    ),
]


def if_there(file: Path | None) -> Path | None:
    """The same for a file that need not be named."""
    return file and there(file)


def _told_version(asked: bool) -> None:
    if asked:
        from limo_nb import __version__

        print(f"limo-nb {__version__}")
        raise typer.Exit


@app.callback()
def limo_nb(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_told_version, is_eager=True)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no remarks; errors only.")
    ] = False,
) -> None:
    """Less Is More for Reasoning: the book's run, and its tools for files of your own.

    `LIMO_NB_DEBUG=1` shows where an error arose. Progress and remarks go to standard error.
    """
    if quiet:
        os.environ["LIMO_NB_PROGRESS"] = "none"


class Continued(TyperCommand):
    """A command that goes on where it was interrupted, and says so after Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run it; an interrupt is told in one line, and the exit code is 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # A cell whose kernel was ended would tell so as the interpreter goes down.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            behind = "\n" if sys.stderr.isatty() else ""  # a line of progress, and ^C
            tell(f"{behind}limo-nb: interrupted; the same command continues: {typed()}", True)
            raise typer.Exit(130) from None


def typed() -> str:
    """The command that runs, as it is typed; make says what its own is."""
    if "LIMO_NB_COMMAND" in os.environ:
        return os.environ["LIMO_NB_COMMAND"]
    program = sys.argv[0]
    if Path(program).name == "__main__.py":
        program = "python -m limo_nb"
    elif shutil.which("limo-nb") == program:
        program = "limo-nb"
    return f"{program} {shlex.join(sys.argv[1:])}"


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """`["pool.size=100"]` as a mapping; values are read as YAML."""
    found = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--override {pair!r} is not KEY=VALUE, e.g. pool.size=100")
        found[key.strip()] = yaml.safe_load(value)
    return found


def check_written(file: Path, *written: tuple[str, Path | None, Sequence[str]]) -> None:
    """Find before any work what a command with the input `file` could not write after it.

    `written` are options with their paths and the suffixes that these may have, () for any.
    Raises ValueError for another suffix, and where a path is `file` or that of another option.
    """
    taken = {file.resolve(): "FILE"}
    for option, path, suffixes in written:
        if path is None or str(path) == "-":
            continue
        if suffixes and not path.name.lower().endswith(tuple(suffixes)):
            known = " or ".join(suffixes)
            raise ValueError(f"{option} {path}: expected a file that ends in {known}")
        if path.resolve() in taken:
            raise ValueError(
                f"{option} {path} is {taken[path.resolve()]} too: name another file"
            )
        if path.is_dir():
            raise ValueError(f"{option} {path} is a folder: name a file in it")
        taken[path.resolve()] = option


def check_free(option: str, path: Path | None, replace: bool) -> None:
    """Raise ValueError where `path` is there already: no file is replaced unasked."""
    if path is not None and str(path) != "-" and path.exists() and not replace:
        raise ValueError(f"{option} {path} is there already: name another, or give --replace")


@contextmanager
def rows_from(file: Path, most: int | None = None) -> Iterator[Path]:
    """A file with the rows of FILE, or the first `most` of them.

    Itself; a copy of the standard input for `-`, of the files in a folder, of a data set of
    the Hub. What is said of a copy names FILE.
    """
    if file.is_file() and most is None:
        yield file
        return
    there(file)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "rows.jsonl"
        copied[str(copy)] = str(file)
        if str(file) == "-" and most is None:
            with copy.open("wb") as spooled:
                shutil.copyfileobj(sys.stdin.buffer, spooled)
        else:
            _spool(file, most, copy)
        yield copy


copied: dict[str, str] = {}  # a copy of this process → whose copy it is


def _spool(file: Path, most: int | None, copy: Path) -> None:
    from limo_nb.core.records import read_records, write_lines

    if file.exists() or str(file) == "-":
        files = (
            sorted(own for own in file.iterdir() if kind_of(own)) if file.is_dir() else [file]
        )
        if not files:
            raise ValueError(f"{file} is a folder without a file of rows")
        rows = (row for own in files for _, row in read_records(own))
        write_lines(islice(rows, most), copy)
        return
    from limo_nb.problems.hub_rows import hub_rows

    write_lines(hub_rows(str(file), most), copy)


def with_names_of_files(text: str) -> str:
    """`text` with FILE's name in the place of its copy's."""
    for path, name in copied.items():
        text = text.replace(path, name)
    return text


def rows_to(
    file: Path, out: Path | None, suffixes: Sequence[str], free: bool, as_json: bool
) -> Path:
    """Where the rows of a command go: `--out`, or the standard output.

    Raises ValueError where the path is FILE's, of another kind, or (but for `free`) taken,
    and where --json would print facts among the rows.
    """
    if out is None or str(out) == "-":
        if as_json:
            raise ValueError("--json prints facts where rows would go: name a file by --out")
        return Path("-")
    check_written(file, ("--out", out, suffixes))
    check_free("--out", out, free)
    return out


# ------------------------------------------------------------------------------- speaking
def emit(
    document: Any, as_json: bool, shown: Iterable[Table | str], rows: Path | None = None
) -> None:
    """Print a command's result: `document` as one line of JSON, or what is `shown` of it.

    On standard error where the standard output has the `rows`.
    """
    if as_json:
        print(with_names_of_files(json.dumps(document, ensure_ascii=False, default=str)))
        return
    where = errors if str(rows) == "-" else console
    for part in shown:
        if isinstance(part, Table) and _fits(part, where):
            part.columns[0].no_wrap = True
            where.print(part)
            continue
        for line in _lines(part) if isinstance(part, Table) else [part]:
            where.print(
                with_names_of_files(str(line)), markup=False, highlight=False, soft_wrap=True
            )


def _fits(table: Table, where: Console) -> bool:
    """Whether every word of a table, and every name in its first column, stays whole."""
    widest: list[int] = []
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        words = texts if not widest else [word for text in texts for word in text.split()]
        widest.append(max(map(len, words), default=0))
    return sum(widest) + 3 * len(widest) + 1 <= where.width


def _lines(table: Table) -> Iterator[str]:
    """A table that is too wide: a line for each row, with the heads before its values."""
    heads = [str(column.header) for column in table.columns]
    if table.title:
        yield f"{table.title}:"
    for name, *cells in zip(*(column.cells for column in table.columns), strict=True):
        told = (f"{head} {cell}" for head, cell in zip(heads[1:], cells, strict=True) if cell)
        yield f"{name}: {'; '.join(told)}"


def fact_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """A line for each fact: its name and value; counts by name in one line."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{inner:,} × {key}" for key, inner in value.items()) or "none"
        told = f"{value:,}" if isinstance(value, int) else value
        yield f"{name.replace('_', ' ')}: {told}"


def name_broken(broken: Sequence[str]) -> None:
    """Say on stderr which rows were left out."""
    for fault in broken:
        tell(f"left out: {fault}")


def say(text: object) -> None:
    """Print `text` as it is: no markup, no wrapping."""
    console.print(str(text), markup=False, highlight=False, soft_wrap=True)


def tell(text: str, always: bool = False) -> None:
    """The same on standard error: what is not the result; with --quiet, errors alone."""
    if always or os.environ.get("LIMO_NB_PROGRESS") != "none":
        print(with_names_of_files(text), file=sys.stderr, flush=True)
