"""Commands that score models: evaluate, compare, benchmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    Columns,
    Continued,
    Force,
    MaxNewTokens,
    Model,
    OverLong,
    Replace,
    Samples,
    Seed,
    Temperature,
    TopP,
    app,
    check_free,
    check_written,
    emit,
)
from limo_nb.core.precision import Dtype
from limo_nb.core.settings import EngineKind

Names = Annotated[
    list[str],
    typer.Option(
        "--benchmark",
        "-b",
        help="A benchmark, `paper`, `aime25`, `gym`, `gym:FAMILY`, or a file of questions with "
        "references; repeatable.",
    ),
]
ProtocolName = Literal["paper-v1", "paper-v3", "greedy"]  # of evaluation/protocols.yaml
Out = Annotated[Path | None, typer.Option(help="Folder for runs; default runs/evaluate.")]


@app.command(
    cls=Continued, epilog="Example: limo-nb evaluate -m tuned/model -b exam.jsonl --out after"
)
def evaluate(
    model: Model,
    benchmark: Names,
    protocol: Annotated[ProtocolName, typer.Option(help="How it is sampled.")] = "greedy",
    items: Annotated[int | None, typer.Option(min=1, help="At most so many each.")] = None,
    samples: Samples = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = None,
    system_prompt: Annotated[str | None, typer.Option(help="Default: LIMO's.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that judges where the paper has a judge.")
    ] = None,
    engine: Annotated[EngineKind, typer.Option(help="Makes completions.")] = "transformers",
    batch_size: Annotated[int, typer.Option(min=1, help="The resumable unit.")] = 128,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes (transformers); none: what suits.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Precision; auto: the faster.")] = "auto",
    columns: Columns = None,
    force: Force = False,
    over_long: OverLong = "skip",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on benchmarks by a named protocol; a killed run continues.

    Options that differ from the protocol are named in the results.
    """
    from datasets import disable_progress_bars

    from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings
    from limo_nb.evaluation import own_questions, scoring
    from limo_nb.evaluation.protocols import protocol as named
    from limo_nb.problems.dialects import parse_columns

    disable_progress_bars()  # of files; the work has a line of its own
    settings = EngineSettings(
        kind=engine, batch_size=batch_size, workers=workers or "auto", dtype=dtype, force=force,
        over_long=over_long,
    )  # fmt: skip
    chosen = named(
        protocol, samples=samples, temperature=temperature, top_p=top_p,
        max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
    prompt = SYSTEM_PROMPT if system_prompt is None else system_prompt
    given = parse_columns(columns)
    names = [
        own
        for name in benchmark
        for own in (
            own_questions.enter_questions(Path(name), given)
            if own_questions.is_own(name) else [name]
        )
    ]  # fmt: skip
    request = scoring.ScoreRequest(model, tuple(names), chosen, settings, prompt, items, judge)
    with redirect_stdout(stderr):  # what libraries print must not be in the document
        found = scoring.score_model(request, out)
    rows = found.json("table.json")
    document = {**found.manifest, "folder": str(found.path), "table": rows}
    title = f"{model}, {chosen.label}"
    emit(document, as_json, _evaluated_shown(rows, title, found.manifest, found.path))


def _evaluated_shown(
    rows: list[dict[str, Any]], title: str, facts: Mapping[str, Any], folder: Path
) -> Iterator[Table | str]:
    from limo_nb.evaluation.truncation import limits_measured

    yield _scores(rows, title)
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    kind, hardware = facts["engine"]["kind"], facts["hardware"]
    yield f"engine {kind}; {versions}; {hardware}; {facts['seconds']:.0f} s"
    yield from limits_measured(rows)
    yield from _disagreements(rows, folder)
    yield f"results: {folder}"


def _scores(rows: Iterable[Mapping[str, Any]], title: str) -> Table:
    """Percent with intervals, what varies, and the three counts; pass@k and cons@k if any."""
    from limo_nb.evaluation import told

    rows = list(rows)
    several = [head for head in SEVERAL if any(head in row for row in rows)]
    heads = (
        "benchmark", "pass@1 (%), 95 % interval", *(SEVERAL[head] for head in several),
        "varies", "items × samples", "right / wrong / unverifiable", "cut off (%)",
        "separates (points)", "graded by",
    )  # fmt: skip
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        counts = _three_counts(row)
        table.add_row(
            row["group"], told(row), *(_of_k(row, head) for head in several), row["varies"],
            _size(row), counts, f"{100 * row['truncation']:.1f}",
            _points(row["separates"]), row["graded_by"],
        )  # fmt: skip
    return table


def _three_counts(row: Mapping[str, Any]) -> str:
    return " / ".join(str(row[name]) for name in ("right", "wrong", "unverifiable"))


SEVERAL = {"pass_at_k": "pass@k (%)", "cons_at_k": "cons@k (%)"}  # of several samples


def _of_k(row: Mapping[str, Any], name: str) -> str:
    """As in "k = 4: 63.4 (58.1 to 68.0)"; nothing where numbers of samples differ."""
    from limo_nb.evaluation import told

    return f"k = {row['k']}: {told(row[name])}" if name in row else ""


def _size(row: Mapping[str, Any]) -> str:
    """As in "30 × 16"; "70 × ≤ 16" where benchmarks had different numbers of samples."""
    answers = row["right"] + row["wrong"] + row["unverifiable"]
    least = "" if answers == row["items"] * row["samples"] * row["seeds"] else "≤ "
    return f"{row['items']} × {least}{row['samples']}"


def _points(gap: float | None) -> str:
    """A difference that would show, in points; accuracies differ by 1 at most."""
    return "nothing" if gap is None or gap > 1 else f"{100 * gap:.0f}"


def _disagreements(rows: Iterable[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    """Where the answers are on which judge and rules disagree, a line per benchmark."""
    for row in rows:
        if len(row.get("disagreement_files", ())) == 1 and row["group"] not in BROAD:
            file = folder / row["disagreement_files"][0]
            yield f"{row['group']}: judge and rules disagree on {row['disagreements']}: {file}"


BROAD = ("in domain", "out of domain", "all")  # groups of several benchmarks


@app.command(epilog="Example: limo-nb compare --a after/*-greedy-* --b before/*-greedy-*")
def compare(
    a: Annotated[
        list[Path], typer.Option("--a", help="A folder that `evaluate` made; repeatable.")
    ],
    b: Annotated[
        list[Path], typer.Option("--b", help="Another, of the same items and protocol.")
    ],
    figure: Annotated[
        Path | None, typer.Option(help="The differences as a picture: .svg, .pdf or .png.")
    ] = None,
    replace: Replace = False,
    as_json: AsJson = False,
) -> None:
    """Two models on the same items, paired: differences with intervals.

    A model of several training seeds: name the folder of each, `--a RUN-0 --a RUN-1`.
    Equally many are paired in order; a single folder is compared with all of the other.
    """
    from datasets import disable_progress_bars

    from limo_nb import evaluation

    disable_progress_bars()
    check_written(a[0], ("--figure", figure, (".svg", ".pdf", ".png")))
    check_free("--figure", figure, replace)
    rows = evaluation.compare(a, b)
    if figure:
        _draw(rows, figure)
    emit(rows, as_json, _comparison_shown(rows))


def _draw(rows: list[Any], figure: Path) -> None:
    """The differences with their intervals, a line a benchmark or group."""
    from limo_nb.book import plots

    drawn = [plots.point(own["group"], {**own, "accuracy": own["value"]}) for own in rows]
    title = f"{rows[0]['model']} against {rows[0]['against']}"
    plots.points(drawn, title, plots.DIFFERENCE).savefig(figure, bbox_inches="tight")


def _comparison_shown(rows: list[Any]) -> Iterator[Table | str]:
    """A row for each benchmark or group: the first model against the second."""
    from limo_nb import evaluation
    from limo_nb.evaluation.truncation import MANY

    heads = (
        "benchmark", "both (%)", "difference (points)", "better / worse on", "items",
        "right / wrong / unverifiable of both", "cut off (%)", "p", "would show (points)",
    )  # fmt: skip
    title = f"{rows[0]['model']} against {rows[0]['against']}; varies: {rows[0]['varies']}"
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(
            row["group"], " / ".join(f"{100 * own:.1f}" for own in row["accuracies"]),
            evaluation.told(row, signed=True),
            f"{row['better']} / {row['worse']}", str(row["items"]),
            _three_counts(row), " / ".join(f"{100 * cut:.1f}" for cut in row["truncations"]),
            "<0.001" if row["p"] < 0.001 else f"{row['p']:.3f}", _points(row["detectable"]),
        )  # fmt: skip
    yield table
    if any(max(row["truncations"]) > MANY for row in rows):
        yield (
            f"more than {MANY:.0%} of a side's answers were cut off: there the limit is "
            "compared, and not the models. `limo-nb evaluate` says which limit would do"
        )


@app.command(epilog="Example: limo-nb benchmarks")
def benchmarks(as_json: AsJson = False) -> None:
    """The benchmarks, where they come from, and what is known to be wrong with them."""
    from limo_nb.core.pins import locked
    from limo_nb.evaluation import benchmarks as known

    facts, lock = known.benchmark_registry(), locked("benchmarks")
    rows = known.overview()
    document = [
        row
        | {key: facts[row["name"]].get(key) for key in ("defects", "sha256", "tolerance")}
        | {"locked": lock.get(row["name"])}
        for row in rows
    ]
    emit(document, as_json, _benchmarks_shown(rows, facts))


def _benchmarks_shown(
    rows: list[dict[str, Any]], facts: Mapping[str, Mapping[str, Any]]
) -> Iterator[Table | str]:
    table = Table(*rows[0], title="Benchmarks", title_justify="left")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    yield table
    for name, entry in facts.items():
        for defect in entry.get("defects", []):
            yield f"{name}: {defect['found']}; {defect['done']}"
