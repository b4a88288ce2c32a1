"""Free the space of what a run no longer needs."""

from __future__ import annotations

from typing import Annotated

import typer

from limo_nb.cli.base import Overrides, Profile, app, parse_overrides, say


@app.command()
def clean(
    profile: Profile = "mini",
    override: Overrides = None,
    others: Annotated[
        bool, typer.Option(help="Also what was made with other overrides than these.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would go.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove superseded and unfinished stages, and stores that no stage uses; asks first."""
    from limo_nb.core.leftovers import leftovers, remove
    from limo_nb.core.runs import Run

    run = Run(profile, parse_overrides(override))
    found = leftovers(run, others)
    idle = [own for own in found if not own.busy]
    for own in found:
        why = f"{own.why}, in use: stays" if own.busy else own.why
        say(f"{_size(own.size)}  {own.path.relative_to(run.root)}  ({why})")
    total = _size(sum(own.size for own in idle)).strip()
    if not idle:
        say(f"nothing to remove in {run.root}")
    elif dry_run:
        say(f"{total} in {len(idle)} places of {run.root} would be removed")
    elif yes or typer.confirm(f"Remove these {total}?"):
        gone = [own for own in idle if remove(own)]
        say(f"removed {_size(sum(own.size for own in gone)).strip()} from {run.root}")


def _size(count: float) -> str:
    """`count` bytes as "   1.5 GB", in nine places."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:6.4g} {unit:2}"
        count /= 1000
    return f"{count:6.4g} GB"
