"""The book: run its chapters, render the site, see what is there."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    Overrides,
    Profile,
    app,
    console,
    parse_overrides,
    plain,
)


@app.command()
def run(
    profile: Profile = "mini",
    from_: Annotated[int | None, typer.Option("--from", help="First chapter.")] = None,
    until: Annotated[int | None, typer.Option(help="Last chapter.")] = None,
    only: Annotated[int | None, typer.Option(help="This chapter alone.")] = None,
    force: Annotated[bool, typer.Option(help="Also where nothing changed.")] = False,
    override: Overrides = None,
) -> None:
    """Execute the chapters whose code, profile or predecessors changed."""
    from limo_nb.book.run import run_chapters

    started = time.monotonic()
    done = run_chapters(
        profile, from_, until, only, force, parse_overrides(override), console=console
    )
    ran = sum(chapter.executed for chapter in done)
    seconds = time.monotonic() - started
    plain(f"{ran} of {len(done)} chapters executed, the others unchanged, in {seconds:.0f} s")


@app.command()
def render(
    profile: Profile = "mini",
    force: Annotated[bool, typer.Option(help="Also when nothing changed.")] = False,
    override: Overrides = None,
) -> None:
    """Build _build/html/index.html from the executed chapters."""
    from limo_nb.book.render import build_site

    build_site(profile, parse_overrides(override), force, console=console)


@app.command()
def status(profile: Profile = "mini", override: Overrides = None) -> None:
    """Chapters and stages: present or not, how old, how long they took, what made them."""
    from limo_nb.book import contents
    from limo_nb.core import settings as profiles

    root = contents.find_root()
    settings = profiles.load_profile(profile, parse_overrides(override))
    plain(f"{contents.runs_of(root) / settings.name}")
    console.print(_chapter_table(root, settings))
    console.print(_stage_table(contents.runs_of(root) / settings.name))


def _chapter_table(root: Path, settings: Any) -> Table:
    from limo_nb.book import contents
    from limo_nb.book.keys import chapter_keys

    every = contents.chapters(root)
    wanted = chapter_keys([chapter for chapter in every if chapter.path.exists()], settings)
    table = Table("chapter", "state", "run", "seconds", title="Chapters", title_justify="left")
    for chapter in every:
        known = contents.run_record(contents.executed_path(root, settings.name, chapter))
        if known is None or chapter.name not in wanted:
            table.add_row(chapter.name, "not run" if chapter.name in wanted else "not written")
            continue
        state = "current" if known["key"] == wanted[chapter.name] else "out of date"
        table.add_row(chapter.name, state, known["started"], f"{known['seconds']:.1f}")
    return table


def stage_rows(home: Path) -> list[dict[str, Any]]:
    """One row for each known stage under `home`, present or not, in the book's order."""
    from limo_nb.core.runs import CHAPTER_OF

    rows = []
    for name, chapter in CHAPTER_OF.items():
        pattern = f"{name}**/current" if name.endswith("/") else f"{name}/current"
        found = [_stage_row(pointer) for pointer in sorted(home.glob(pattern))]
        absent = {"stage": name, "present": False}
        rows += [{"chapter": chapter, **row} for row in found or [absent]]
    return rows


def _stage_row(pointer: Path) -> dict[str, Any]:
    file = pointer.parent / pointer.read_text().strip() / "manifest.json"
    age = time.time() - file.stat().st_mtime
    return {"present": True, "age_seconds": age, **json.loads(file.read_text())}


def _stage_table(home: Path) -> Table:
    heads = ("ch.", "stage", "age", "seconds", "memory", "commit", "resumed")
    table = Table(*heads, title="Stages", title_justify="left")
    for row in stage_rows(home):
        chapter = str(row["chapter"])
        if not row["present"]:
            table.add_row(chapter, row["stage"], "absent")
            continue
        memory, resumed = f"{row['peak_memory_gib']:.1f} GiB", "yes" if row["resumed"] else ""
        age, seconds = _age(row["age_seconds"]), f"{row['seconds']:.1f}"
        table.add_row(chapter, row["stage"], age, seconds, memory, row["commit"], resumed)
    return table


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


@app.command()
def results(
    profile: Profile = "mini",
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The accuracy table of the last evaluation."""
    from limo_nb.core.runs import Run

    evaluation = Run(profile, parse_overrides(override)).load("evaluation")
    rows = evaluation.json("table.json")
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("model", "benchmark or group", "accuracy", "95 % interval"):
        table.add_column(head, no_wrap=True)
    for head in ("n", "seeds", "right/wrong/not verifiable"):
        table.add_column(head, justify="right")
    for row in rows:
        value, low, high = (f"{100 * row[name]:.1f}" for name in ("accuracy", "low", "high"))
        counts = (str(row[name]) for name in ("items", "seeds"))
        answers = "/".join(str(row[name]) for name in ("right", "wrong", "unverifiable"))
        table.add_row(row["model"], row["group"], value, f"{low} to {high}", *counts, answers)
    console.print(table)
    facts = evaluation.manifest
    plain(f"profile {facts['profile']}, commit {facts['commit']}, {facts['started']}")


@app.command()
def doctor() -> None:
    """What this machine has, and which profiles it can run."""
    from limo_nb.cli import checks as examination

    for part in ("machine", "software", "lab_models", "profile_findings"):
        for row in getattr(examination, part)():
            mark = "ok     " if row.ok else "MISSING"
            plain(
                f"{mark} {row.what}: {row.found}" + (f" → {row.remedy}" if row.remedy else "")
            )
