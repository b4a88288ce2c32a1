"""Commands that score models: evaluate, compare, benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from sys import stderr
from typing import Annotated, Any

import typer
from rich.table import Table

from limo_nb.cli.base import (
    AsJson,
    app,
    console,
    plain,
)

Model = Annotated[
    str, typer.Option("--model", "-m", help="lab:NAME, a folder, or a Hub id (ID@REVISION).")
]
Names = Annotated[
    list[str],
    typer.Option(
        "--benchmark", "-b", help="A benchmark, `paper` for its ten, or `aime25`; repeatable."
    ),
]
Named = Annotated[str, typer.Option("--protocol", help="paper-v1, paper-v3 or greedy.")]
Out = Annotated[Path | None, typer.Option(help="Folder for runs; default runs/evaluate.")]


@app.command()
def evaluate(
    model: Model,
    benchmark: Names,
    protocol: Named = "greedy",
    items: Annotated[int | None, typer.Option(min=1, help="At most so many each.")] = None,
    samples: Annotated[int | None, typer.Option(min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0)] = None,
    top_p: Annotated[float | None, typer.Option()] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all random numbers.")] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Default: LIMO's.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="A model that judges where the paper has a judge.")
    ] = None,
    engine: Annotated[str, typer.Option(help="What makes completions.")] = "transformers",
    batch_size: Annotated[int, typer.Option(min=1, help="The resumable unit.")] = 128,
    workers: Annotated[int, typer.Option(min=1, help="Processes (transformers).")] = 1,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on benchmarks by a named protocol; a killed run continues.

    Options that differ from the protocol are named in the results.
    """
    from datasets import disable_progress_bars

    from limo_nb.core.settings import SYSTEM_PROMPT
    from limo_nb.evaluation import scoring
    from limo_nb.evaluation.protocols import protocol as named

    disable_progress_bars()  # of files; the work has a line of its own
    settings = _engine(kind=engine, batch_size=batch_size, workers=workers, dtype=dtype)
    chosen = named(
        protocol, samples=samples, temperature=temperature, top_p=top_p,
        max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
    prompt = SYSTEM_PROMPT if system_prompt is None else system_prompt
    request = scoring.ScoreRequest(
        model, tuple(benchmark), chosen, settings, prompt, items, judge
    )
    with redirect_stdout(stderr):  # what libraries print must not be in the document
        found = scoring.score_model(request, out)
    rows = found.json("table.json")
    if as_json:
        document = {**found.manifest, "folder": str(found.path), "table": rows}
        print(json.dumps(document, ensure_ascii=False, indent=1))
        return
    console.print(_scores(rows, f"{model}, {chosen.label}"))
    _print_made(found.manifest)
    _print_disagreements(rows, found.path)
    plain(f"results: {found.path}")


def _engine(**fields: Any) -> Any:
    from pydantic import ValidationError

    from limo_nb.core.settings import EngineSettings

    try:
        return EngineSettings(**fields)
    except ValidationError as error:
        lines = [f"--{e['loc'][0]}: {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(lines).replace("--kind", "--engine")) from None


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
    """ "k = 4: 63.4 (58.1 to 68.0)", or nothing where numbers of samples differ."""
    from limo_nb.evaluation import told

    return f"k = {row['k']}: {told(row[name])}" if name in row else ""


def _size(row: Mapping[str, Any]) -> str:
    """ "30 × 16", or "70 × ≤ 16" where benchmarks had different numbers of samples."""
    answers = row["right"] + row["wrong"] + row["unverifiable"]
    least = "" if answers == row["items"] * row["samples"] * row["seeds"] else "≤ "
    return f"{row['items']} × {least}{row['samples']}"


def _points(gap: float | None) -> str:
    """A difference that would show, in points; accuracies differ by 1 at most."""
    return "nothing" if gap is None or gap > 1 else f"{100 * gap:.0f}"


def _print_made(manifest: Mapping[str, Any]) -> None:
    versions = ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
    kind, hardware = manifest["engine"]["kind"], manifest["hardware"]
    plain(f"engine {kind}; {versions}; {hardware}; {manifest['seconds']:.0f} s")


def _print_disagreements(rows: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Where the answers are on which judge and rules disagree, a line per benchmark."""
    for row in rows:
        if len(row.get("disagreement_files", ())) == 1 and row["group"] not in BROAD:
            file = folder / row["disagreement_files"][0]
            plain(f"{row['group']}: judge and rules disagree on {row['disagreements']}: {file}")


BROAD = ("in domain", "out of domain", "all")  # groups of several benchmarks


@app.command()
def compare(
    a: Annotated[
        list[Path], typer.Option("--a", help="A folder that `evaluate` made; repeatable.")
    ],
    b: Annotated[
        list[Path], typer.Option("--b", help="Another, of the same items and protocol.")
    ],
    as_json: AsJson = False,
) -> None:
    """Two models on the same items, paired: differences with intervals.

    A model of several training seeds: name the folder of each, `--a RUN-0 --a RUN-1`.
    Equally many are paired in order; a single folder is compared with all of the other.
    """
    from datasets import disable_progress_bars

    from limo_nb import evaluation

    disable_progress_bars()
    rows = evaluation.compare(a, b)
    if as_json:
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    heads = (
        "benchmark", "difference (points)", "better / worse on", "items",
        "right / wrong / unverifiable", "p", "would show (points)",
    )  # fmt: skip
    title = f"{rows[0]['model']} against {rows[0]['against']}; varies: {rows[0]['varies']}"
    table = Table(*heads, title=title, title_justify="left")
    for row in rows:
        table.add_row(
            row["group"], evaluation.told(row, signed=True),
            f"{row['better']} / {row['worse']}", str(row["items"]),
            _three_counts(row),
            f"{row['p']:.3f}", _points(row["detectable"]),
        )  # fmt: skip
    console.print(table)


@app.command()
def benchmarks(as_json: AsJson = False) -> None:
    """The benchmarks, where they come from, and what is known to be wrong with them."""
    from limo_nb.core.pins import locked
    from limo_nb.evaluation import benchmarks as known

    rows = known.overview()
    if as_json:
        facts, lock = known.registry(), locked("benchmarks")
        extra = ("defects", "sha256", "tolerance")
        for row in rows:
            row |= {key: facts[row["name"]].get(key) for key in extra}
            row["locked"] = lock.get(row["name"])
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table(*rows[0], title="Benchmarks", title_justify="left")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    console.print(table)
    for name, entry in known.registry().items():
        for defect in entry.get("defects", []):
            plain(f"{name}: {defect['found']}; {defect['done']}")
