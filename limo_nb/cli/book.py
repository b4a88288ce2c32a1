"""The book: run its chapters, render the site, see what is there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    Continued,
    Overrides,
    Profile,
    app,
    console,
    emit,
    parse_overrides,
    say,
)

if TYPE_CHECKING:
    from limo_nb.core.runs import Run


@app.command(cls=Continued)
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
    say(f"{ran} of {len(done)} chapters executed, the others unchanged, in {seconds:.0f} s")


@app.command(cls=Continued)
def render(
    profile: Profile = "mini",
    force: Annotated[bool, typer.Option(help="Also when nothing changed.")] = False,
    override: Overrides = None,
) -> None:
    """Build _build/html/index.html from the executed chapters."""
    from limo_nb.book.contents import find_root, toc_files
    from limo_nb.book.render import build_site
    from limo_nb.evidence.summary import PAGE, summary_page

    overrides, root = parse_overrides(override), find_root()
    pages = {}
    if PAGE in toc_files(root):  # a book may be without it
        pages[PAGE] = summary_page(root, profile, overrides)
    build_site(profile, overrides, force, pages=pages, console=console)


@app.command()
def status(profile: Profile = "mini", override: Overrides = None) -> None:
    """Chapters and stages: present or not, how old, how long they took, what made them."""
    from limo_nb.book import contents
    from limo_nb.core.runs import Run

    root = contents.find_root()
    made = Run(profile, parse_overrides(override))
    say(made.root)
    console.print(_chapter_table(root, made.profile))
    console.print(_stage_table(made))


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


def _stage_table(made: Run) -> Table:
    heads = ("ch.", "stage", "age", "seconds", "memory", "commit", "resumed")
    table = Table(*heads, title="Stages", title_justify="left")
    for chapter, stage, artefact in made.stages():
        if artefact is None:
            table.add_row(str(chapter), stage, "absent")
            continue
        facts = artefact.manifest
        memory, resumed = f"{facts['peak_memory_gib']:.1f} GiB", "yes" * facts["resumed"]
        age = _age(time.time() - (artefact / "manifest.json").stat().st_mtime)
        seconds = f"{facts['seconds']:.1f}"
        table.add_row(str(chapter), stage, age, seconds, memory, facts["commit"], resumed)
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
    emit(rows, as_json, _results_shown(rows, evaluation.manifest))


def _results_shown(
    rows: list[dict[str, Any]], facts: Mapping[str, Any]
) -> Iterator[Table | str]:
    from limo_nb.evaluation.truncation import cut_share, limits_measured

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for head in ("model", "group", "accuracy", "95 % CI"):  # all fits in 80 columns
        table.add_column(head, no_wrap=True)
    for head in ("n×seeds", "right/wrong/?", "cut %"):
        table.add_column(head, no_wrap=True, justify="right")
    for row in rows:
        value, low, high = (f"{100 * row[name]:.1f}" for name in ("accuracy", "low", "high"))
        rests = f"{row['items']}×{row['seeds']}"
        answers = "/".join(str(row[name]) for name in ("right", "wrong", "unverifiable"))
        cut = f"{100 * cut_share(row):.1f}"
        table.add_row(row["model"], row["group"], value, f"{low}–{high}", rests, answers, cut)
    yield table
    yield from limits_measured(rows)
    yield "?: answers that cannot be verified; cut %: answers that ended at the limit"
    yield f"profile {facts['profile']}, commit {facts['commit']}, {facts['started']}"


@app.command()
def claims(
    profile: Profile = "mini",
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """The claim ledger, judged by what the run, the records and the papers have."""
    from limo_nb import evidence
    from limo_nb.core.runs import Run

    run, ledger = Run(profile, parse_overrides(override)), evidence.load_ledger()
    rows = evidence.judge(
        ledger, evidence.tables(run), evidence.miniature(run.profile),
        evidence.tables_of_records(),
    )  # fmt: skip
    emit(rows, as_json, _claims_shown(rows))


def _claims_shown(rows: Sequence[Mapping[str, Any]]) -> Iterator[Table | str]:
    from limo_nb import evidence

    table = Table("claim", "verdict", "by", "why", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        table.add_row(row["title"], row["verdict"], row["by"], row["reason"])
    yield table
    yield ", ".join(f"{count} {word}" for word, count in evidence.tally(rows).items())


@app.command(cls=Continued)
def study(
    groups: Annotated[
        list[str] | None, typer.Argument(help="Groups of the study; none: all of the profile.")
    ] = None,
    profile: Profile = "study",
    override: Overrides = None,
) -> None:
    """Make groups of the wide study (chapter 9) without the chapter; what is there is kept."""
    from limo_nb import experiments
    from limo_nb.core.runs import Run

    made = Run(profile, parse_overrides(override))
    known = experiments.groups_of(made.profile)
    unknown = [name for name in groups or known if name not in known]
    if unknown or not known:
        wanted, there = (unknown or ["of the study"])[0], ", ".join(known) or "none"
        raise ValueError(f"profile {profile} has no group {wanted!r}; it has {there}")
    experiments.ablation_sets(made)
    for name in groups or known:
        say(f"{experiments.run_group(made, name).path}")


@app.command()
def record(
    name: Annotated[str, typer.Argument(help="The record: records/NAME/.")],
    profile: Profile = "mini",
    override: Overrides = None,
    hours: Annotated[
        float | None,
        typer.Option(min=0, help="All that it took, where it was interrupted on the way."),
    ] = None,
    add: Annotated[
        bool,
        typer.Option("--add", help="Keep the stages that the record has and the run has not."),
    ] = False,
) -> None:
    """Keep what a run has made, without texts, for the book to show beside its own."""
    from limo_nb.core.recorded_runs import record_run
    from limo_nb.core.runs import Run

    run = Run(profile, parse_overrides(override))
    made = record_run(run, name, override or [], hours=hours, add=add)
    say(f"{made.home}: {', '.join(made.facts['stages'])}")
    say(made.told)


@app.command()
def doctor(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Look at this model instead.")
    ] = None,
    profile: Profile = "mini",
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """What this machine has, and which profiles it can run; or how a model is asked.

    For a model: the prompt that it gets, where a system prompt and thoughts go, what ends
    an answer, its context, and its decoding defaults that are not applied. The profile
    gives system prompt and `chat`.
    """
    from limo_nb.cli import asking, checks

    parts = (checks.machine, checks.software, checks.lab_models, checks.profile_findings)
    rows: Iterator[checks.Finding] = (row for part in parts for row in part())
    if model:
        from limo_nb.core import settings

        whole = settings.load_profile(profile, parse_overrides(override))
        rows = asking.findings(model, whole.system_prompt, whole.engine.chat)
    if as_json:
        emit([vars(row) for row in rows], True, [])
        return
    for row in rows:
        mark, remedy = "ok     " if row.ok else "MISSING", row.remedy and f" → {row.remedy}"
        say(f"{mark} {row.what}: {row.found}{remedy}")
