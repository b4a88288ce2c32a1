"""The lab's models: make them, check them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from limo_nb.cli.base import Continued, app, console, say

lab_app = typer.Typer(no_args_is_help=True, help="The lab's models: make them, check them.")
app.add_typer(lab_app, name="lab")


@lab_app.command(cls=Continued)
def pretrain(
    names: Annotated[list[str] | None, typer.Argument(help="Models; none: all.")] = None,
    work: Annotated[Path, typer.Option(help="Checkpoints and results.")] = Path("runs/lab"),
    ship: Annotated[
        bool, typer.Option("--ship", help="Put them into the package, over those shipped.")
    ] = False,
) -> None:
    """Make lab models again by their recipes; interrupted work is continued."""
    from limo_nb.lab import pretrain as training
    from limo_nb.lab import recipes, shipped

    known = recipes()
    for name in names or list(known):
        if name not in known:
            raise ValueError(f"no lab model {name!r}; there are {', '.join(known)}")
        console.rule(f"{name}: stands for {known[name].stands_for}", align="left")
        made = training.build(name, work, _log_row)
        say(f"{name}: {shipped.ship(name, work) if ship else made}")


def _log_row(row: dict) -> None:
    say("  ".join(f"{name} {value}" for name, value in row.items()))


@lab_app.command()
def verify() -> None:
    """Check the digests of the shipped lab models."""
    from limo_nb.cli import checks

    findings = checks.lab_models()
    for row in findings:
        remedy = "" if row.ok else f", not as recorded → {row.remedy}"
        say(f"{row.what}: {row.found}{remedy}")
    if not all(row.ok for row in findings):
        raise typer.Exit(1)
