"""What the commands share: the application, its options, and how they speak."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
console = Console()

Profile = Annotated[str, typer.Option("--profile", "-p", help="A profile or a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--override", help="KEY=VALUE of a profile's field, e.g. pool.size=100."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
SkipBroken = Annotated[bool, typer.Option(help="Leave broken rows out, and name them.")]


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


def name_broken(broken: Sequence[str]) -> None:
    """Say on stderr which rows were left out."""
    for fault in broken:
        print(f"left out: {fault}", file=sys.stderr)


def plain(text: object) -> None:
    """Print `text` as it is: no markup, no wrapping."""
    console.print(str(text), markup=False, highlight=False, soft_wrap=True)
