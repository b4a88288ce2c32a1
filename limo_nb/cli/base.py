"""What the commands share: the application, its options, and how they speak."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
console = Console()

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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SkipBroken = Annotated[bool, typer.Option(help="Leave broken rows out, and name them.")]


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
            tell(f"{behind}limo-nb: interrupted; the same command continues: {typed()}")
            raise typer.Exit(130) from None


def typed() -> str:
    """The command that runs, as it is typed; make says what its own is."""
    if "LIMO_NB_COMMAND" in os.environ:
        return os.environ["LIMO_NB_COMMAND"]
    program = sys.argv[0]
    if Path(program).name == "__main__.py":
        program = "python -m limo_nb.cli"
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
        if path is None:
            continue
        if suffixes and path.suffix not in suffixes:
            known = " or ".join(suffixes)
            raise ValueError(f"{option} {path}: expected a file that ends in {known}")
        if path.resolve() in taken:
            raise ValueError(
                f"{option} {path} is {taken[path.resolve()]} too: name another file"
            )
        taken[path.resolve()] = option


# ------------------------------------------------------------------------------- speaking
def emit(document: Any, as_json: bool, shown: Iterable[Table | str]) -> None:
    """Print a command's result: `document` as one line of JSON, or what is `shown` of it."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False, default=str))
        return
    for part in shown:
        console.print(part) if isinstance(part, Table) else say(part)


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


def tell(text: str) -> None:
    """The same on standard error: what is not the result."""
    print(text, file=sys.stderr, flush=True)
