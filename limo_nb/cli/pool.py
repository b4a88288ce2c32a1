"""A pool of problems in a file: clean it, let a model try it, choose from it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from limo_nb.cli.base import AsJson, Overrides, Profile, app, parse_overrides, plain

File = Annotated[Path, typer.Argument(help="JSONL, JSON, Parquet or Arrow.")]
Out = Annotated[Path | None, typer.Option(help="Where the result goes.")]


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    """Print what a command did: one JSON document, or a line for each fact."""
    if as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=1, default=str))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner:,} × {key}" for key, inner in value.items()) or "none"
        plain(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value}")


@app.command()
def decontaminate(
    file: File,
    against: Annotated[
        list[str] | None,
        typer.Option(help="A benchmark's name or a file of its items; none: the paper's ten."),
    ] = None,
    out: Out = None,
    report: Annotated[Path | None, typer.Option(help="Dropped rows and why.")] = None,
    ngram: Annotated[int, typer.Option(min=2, help="Words that match in a row.")] = 13,
    characters: Annotated[int, typer.Option(min=2, help="The same for Chinese.")] = 13,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of n-grams; 0: one is enough.")
    ] = 0.0,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Drop exact and near duplicates too.")
    ] = False,
    near: Annotated[float, typer.Option(min=0, max=1, help="Jaccard of near ones.")] = 0.9,
    question: Annotated[str | None, typer.Option(help="The field with the question.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the rows of FILE that repeat no benchmark item; report the others."""
    from limo_nb import problems, rows, sources

    started = time.monotonic()
    out = out or _beside(file, "clean", ".parquet" if file.suffix == ".parquet" else ".jsonl")
    report = report or _beside(file, "dropped", ".jsonl")
    if len({path.resolve() for path in (file, out, report)}) < 3:
        raise ValueError("FILE, --out and --report must be three files")
    texts, exam = sources.read_texts(file, question), _exam(against)
    sieved = problems.Sieved(texts, problems.nothing())
    if duplicates:
        sieved = sieved.then(lambda left: problems.drop_duplicates(left, near))
    sieved = sieved.then(
        lambda left: problems.decontaminate(left, exam, ngram, characters, threshold)
    )
    fallen, names = set(sieved.dropped["id"]), texts["id"][:]
    rows.write_part(file, out, lambda number: names[number] not in fallen)
    rows.write(sieved.dropped, report)
    facts = {"rows": len(texts), "kept": len(sieved.kept), "dropped": sieved.reasons()}
    facts |= {"out": str(out), "report": str(report), "benchmark items": len(exam)}
    _tell(facts | {"seconds": round(time.monotonic() - started, 1)}, as_json)


def _beside(file: Path, what: str, suffix: str) -> Path:
    return file.with_name(f"{file.stem}-{what}{suffix}")


def _fields(pairs: Sequence[str] | None) -> dict[str, str]:
    """`["level=difficulty"]` as a mapping."""
    found = {}
    for pair in pairs or []:
        column, equals, name = pair.partition("=")
        if not (column and equals and name):
            raise ValueError(f"--field {pair!r} is not COLUMN=NAME, e.g. level=difficulty")
        found[column] = name
    return found


def _exam(against: Sequence[str] | None) -> Any:
    """The items of the benchmarks and files in `against`, with id and question."""
    from datasets import concatenate_datasets

    from limo_nb import benchmarks, sources

    tables = []
    for name in against or benchmarks.of_paper():
        path = Path(name)
        known = name in benchmarks.registry() or not path.exists()
        tables.append(benchmarks.load(name) if known else sources.read_texts(path, label=True))
    return concatenate_datasets([table.select_columns(["id", "question"]) for table in tables])


@app.command()
def sample(
    file: File,
    model: Annotated[str, typer.Option(help="lab:NAME, a folder, or a Hub id.")],
    out: Out = None,
    store: Annotated[Path | None, typer.Option(help="Completions as they arrive.")] = None,
    profile: Profile = "mini",
    samples: Annotated[int | None, typer.Option(min=1, help="A question.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0: greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int | None, typer.Option(help="Of all samples.")] = None,
    question: Annotated[str | None, typer.Option(help="The field with the question.")] = None,
    override: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Let a model answer the questions of FILE; interrupted work is continued.

    Engine, system prompt and what is not given here come from the profile (chains.sampling).
    """
    from limo_nb import profiles, rows, sources
    from limo_nb.generation import chat_prompt, complete, open_engine

    started = time.monotonic()
    settings = profiles.load(profile, parse_overrides(override))
    given = {"samples": samples, "temperature": temperature, "top_p": top_p}
    given |= {"max_new_tokens": max_new_tokens, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    sampling = profiles.Sampling(**settings.chains.sampling.model_dump() | given)
    out = out or _beside(file, "answers", ".jsonl")
    texts = sources.read_texts(file, question)
    items = [(r["id"], chat_prompt(r["question"], settings.system_prompt)) for r in texts]
    with open_engine(settings.engine, model) as engine:
        store = store or out.with_suffix(".sqlite")
        answers = complete(engine, items, sampling, store, label=model)
    asked = {row["id"]: row for row in texts}
    rows.write(({**asked[row["id"]], **row, "model": model} for row in answers), out)
    facts = {"questions": len(texts), "completions": len(answers), "model": model}
    facts |= {"finished": sum(answers["finished"]), "tokens": sum(answers["tokens"])}
    facts |= {"sampling": sampling.model_dump(), "out": str(out), "store": str(store)}
    _tell(facts | {"seconds": round(time.monotonic() - started, 1)}, as_json)


@app.command()
def select(
    file: File,
    k: Annotated[int, typer.Option("-k", "--count", min=1, help="Questions to choose.")],
    out: Out = None,
    seed: Annotated[int, typer.Option(help="Of the order of the cells.")] = 0,
    embed: Annotated[
        str | None,
        typer.Option(help="Compare by sentence embeddings of this model; none: by TF-IDF."),
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN=NAME, what FILE calls a column, e.g. level=difficulty."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose K questions of FILE, balanced over subject and level, unlike each other."""
    from limo_nb import rows, selection, sources

    out = out or _beside(file, "selected", ".jsonl")
    if out.resolve() == file.resolve():
        raise ValueError("FILE and --out must be two files")
    pool = sources.read_problems(file, fields=_fields(field))
    vectors = selection.embed(pool["question"][:], embed) if embed else None
    chosen = selection.balanced(pool, k, seed, vectors)
    rows.write(chosen, out)
    facts: dict[str, Any] = {"rows": len(pool), "chosen": len(chosen), "seed": seed}
    facts["compared by"] = f"embeddings of {embed}" if embed else "TF-IDF"
    facts["cells before"] = round(selection.cells_in_effect(pool), 2)
    facts["cells after"] = round(selection.cells_in_effect(chosen), 2)
    _tell(facts | {"out": str(out)}, as_json)
