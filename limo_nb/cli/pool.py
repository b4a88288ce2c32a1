"""A pool of problems in a file: clean it, let a model try it, choose from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from limo_nb.cli.base import (
    AsJson,
    Columns,
    Continued,
    File,
    Force,
    MaxNewTokens,
    Model,
    OverLong,
    Overrides,
    Profile,
    Replace,
    Rows,
    Samples,
    Seed,
    SkipBroken,
    Temperature,
    TopP,
    app,
    check_free,
    check_written,
    emit,
    fact_lines,
    name_broken,
    parse_overrides,
    rows_from,
    rows_to,
    tell,
)
from limo_nb.core.settings import Normalisation

Out = Annotated[
    Path | None, typer.Option(help="Where the rows go; else to the standard output.")
]


def _tell(facts: dict[str, Any], broken: list[str] | None, as_json: bool, out: Path) -> None:
    """Print what a command did; rows that it left out are named on stderr."""
    name_broken(broken or [])
    emit(facts | {"broken": broken or []}, as_json, fact_lines(facts), out)


@app.command(
    epilog="Example: limo-nb decontaminate questions.jsonl --against exam.jsonl --duplicates "
    "--out clean.jsonl"
)
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
        float,
        typer.Option(
            min=0,
            max=1,
            help="Least share of n-grams, of the row or of the item; 0: one is enough.",
        ),
    ] = 0.0,
    common: Annotated[
        int,
        typer.Option(min=0, help="Unlike items whose phrases are no evidence; 0: all are."),
    ] = 2,
    normalisation: Annotated[
        Normalisation,
        typer.Option(help="What does not count: spelling of formulas and case, case, nothing."),
    ] = "full",
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Drop exact and near duplicates too.")
    ] = False,
    near: Annotated[float, typer.Option(min=0, max=1, help="Jaccard of near ones.")] = 0.9,
    nearest: Annotated[
        str | None,
        typer.Option(help="List kept rows that resemble an item, by embeddings of this model."),
    ] = None,
    listed: Annotated[Path | None, typer.Option("--list", help="Where that list goes.")] = None,
    similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="Least cosine of a pair in that list.")
    ] = 0.7,
    top: Annotated[int, typer.Option(min=1, help="Items for each row in that list.")] = 3,
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Keep the rows of FILE that repeat no benchmark item; report the others.

    The report has the passage that a row shares with its counterpart, and its share of the
    n-grams of both: of the row (overlap) and of the item (quoted). It is in the order in
    which to read it: by the larger of the two shares, then by the smaller, lowest first. So
    the doubtful are at the top and the copies at the end.

    With --nearest MODEL the rows that stay are compared with the items by meaning, too. That
    finds paraphrases, and much that only resembles one: the file --list is for you to look at,
    most alike first. Nothing falls by it.
    """
    from limo_nb.core import records
    from limo_nb.problems import cleaning, nearest_items, reading, text
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.selection import embed

    started = time.monotonic()
    out = rows_to(file, out, records.parts(file), replace, as_json)
    written = (("--report", report, records.WRITTEN), ("--list", listed, records.WRITTEN))
    check_written(file, ("--out", out, ()), *written)
    for option, path, _ in written:
        check_free(option, path, replace)
    if bool(nearest) != bool(listed):
        raise ValueError("--nearest MODEL and --list FILE belong together: give both")
    broken: list[str] | None = [] if skip_broken else None
    with rows_from(file, most) as given:
        texts = reading.read_texts(given, parse_columns(columns), broken=broken, named=True)
        items = _benchmark_items(against)
        if nearest:
            embed(["a question"], nearest)  # that there is such a model is found out first
        result = cleaning.Filtered.without(texts)
        if duplicates:
            result = result.then(lambda left: cleaning.drop_duplicates(left, near))
        result = result.then(
            lambda left: cleaning.decontaminate(
                left, items, ngram, characters, threshold, text.FORMS[normalisation], common
            )
        )
        kept = set(result.kept["row"][:])
        records.write_part(given, out, kept.__contains__, [] if skip_broken else None)
    facts = {"rows": len(texts), "kept": len(result.kept), "dropped": result.reasons()}
    facts |= {"out": str(out), "benchmark items": len(items)}
    if report:
        records.write_records(result.doubtful_first(), report)
        facts["report"] = str(report)
    if nearest and listed:
        pairs = nearest_items(
            result.kept, items, partial(embed, model=nearest), top, similarity
        )
        records.write_records(pairs, listed)
        facts |= {"pairs to look at": len(pairs), "list": str(listed)}
    _tell(facts | {"seconds": round(time.monotonic() - started, 1)}, broken, as_json, out)


def _benchmark_items(against: Sequence[str] | None) -> Any:
    """The items of the benchmarks and files in `against`, with id and question.

    A file's items are called STEM-ID. Raises ValueError where two items have one name,
    since a report could not say which of them a problem repeats.
    """
    from datasets import concatenate_datasets

    from limo_nb.evaluation import benchmarks
    from limo_nb.problems import read_texts

    tables: list[Any] = []
    owners: dict[str, str] = {}
    for name in _sources(against or ["paper"]):
        known = name in benchmarks.benchmark_registry() or benchmarks.is_drawn(name)
        table = benchmarks.load_benchmark(name) if known else read_texts(Path(name), label=True)
        for item in table["id"][:]:
            if owners.setdefault(item, name) != name:
                raise ValueError(
                    f"{owners[item]} and {name} both have an item {item!r}: rename one file, "
                    f"or give its items other ids"
                )
        tables.append(table.select_columns(["id", "question"]))
    return concatenate_datasets(tables)


def _sources(against: Sequence[str]) -> list[str]:
    """Files and single benchmarks, each once, for which the names in `against` stand."""
    from limo_nb.evaluation import benchmarks

    names = [
        own
        for name in against
        for own in ([name] if Path(name).is_file() else benchmarks.known([name]))
    ]
    return list(dict.fromkeys(names))


@app.command(
    cls=Continued,
    epilog="Example: limo-nb sample clean.jsonl -m lab:reasoner --samples 4 --temperature 0.8 "
    "--out answers.jsonl",
)
def sample(
    file: File,
    model: Model,
    out: Out = None,
    store: Annotated[
        Path | None, typer.Option(help="Completions as they arrive; else beside --out.")
    ] = None,
    profile: Profile = "mini",
    samples: Samples = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = None,
    columns: Columns = None,
    most: Rows = None,
    override: Overrides = None,
    force: Force = False,
    over_long: OverLong = "skip",
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Let a model answer the questions of FILE; interrupted work is continued.

    Each answer is a row with `response` beside the columns that its question had.
    Engine, system prompt and what is not given here come from the profile (chains.sampling).
    """
    from limo_nb import inference
    from limo_nb.core import records
    from limo_nb.core import settings as profiles
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.problems.reading import read_asked

    started = time.monotonic()
    settings = profiles.load_profile(profile, parse_overrides(override))
    given = {"samples": samples, "temperature": temperature, "top_p": top_p}
    given |= {"max_new_tokens": max_new_tokens, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    given = settings.chains.sampling.model_dump() | given
    sampling = profiles.checked(profiles.Sampling, "the sampling", given)
    if store is None and out is not None and str(out) != "-":
        store = out.with_name(out.name.partition(".")[0] + ".sqlite")
    # What an earlier run of the same command has written, this one writes again.
    out = rows_to(
        file, out, records.WRITTEN, replace or bool(store and store.exists()), as_json
    )
    check_written(file, ("--out", out, ()), ("--store", store, ()))
    broken: list[str] | None = [] if skip_broken else None
    with rows_from(file, most) as asked:
        found = read_asked(asked, parse_columns(columns), broken)
    for line in found.told():
        tell(line)
    own = {"force": settings.engine.force or force, "over_long": over_long}
    engine = settings.engine.model_copy(update=own)
    answers = inference.sample(
        found.asked, model, sampling=sampling, system_prompt=settings.system_prompt,
        engine=engine, store=store,
    )  # fmt: skip
    records.write_records(map(found.joined, answers), out)
    facts = {"questions": len(found.asked), "completions": len(answers), "model": model}
    facts |= {"finished": sum(answers["finished"]), "tokens": sum(answers["tokens"])}
    facts |= {"sampling": sampling.model_dump(), "out": str(out), "store": str(store)}
    _tell(facts | {"seconds": round(time.monotonic() - started, 1)}, broken, as_json, out)


@app.command(epilog="Example: limo-nb select scored.jsonl -k 32 --out rows.jsonl")
def select(
    file: File,
    k: Annotated[int, typer.Option("-k", "--count", min=1, help="Questions to choose.")],
    out: Out = None,
    seed: Annotated[int, typer.Option(help="Of the order of turns.")] = 0,
    embed: Annotated[
        str | None,
        typer.Option(help="Compare by sentence embeddings of this model; none: by TF-IDF."),
    ] = None,
    columns: Columns = None,
    most: Rows = None,
    replace: Replace = False,
    skip_broken: SkipBroken = False,
    as_json: AsJson = False,
) -> None:
    """Choose K questions of FILE, balanced over subject and level, unlike each other.

    Rows stay as they are, with `reason` and `similarity` beside their columns. Of several
    rows with one question the one with the highest `score` stands for all, else the first;
    rows whose chains are marked wrong are left out.
    """
    from limo_nb.core import records
    from limo_nb.problems.dialects import parse_columns
    from limo_nb.problems.reading import read_choices
    from limo_nb.selection import choice

    out = rows_to(file, out, records.WRITTEN, replace, as_json)
    broken: list[str] | None = [] if skip_broken else None
    with rows_from(file, most) as given:
        pool = read_choices(given, parse_columns(columns), broken)
        vectors = choice.embed(pool["question"][:], embed) if embed else None
        chosen = choice.select(pool, k, seed, vectors)
        taken = dict(zip(chosen["row"], range(len(chosen)), strict=True))
        rows = [
            (taken[number], row)
            for number, (_, row) in enumerate(records.read_records(given, []))
            if number in taken
        ]
    why = [{name: own[name] for name in ("reason", "similarity")} for own in chosen]
    rows.sort(key=lambda pair: pair[0])
    records.write_records(({**row, **why[place]} for place, row in rows), out)
    facts: dict[str, Any] = {"questions": len(pool), "chosen": len(chosen), "seed": seed}
    if len(chosen) < k:
        tell(f"{k} were wanted, and there are {len(pool)} different questions")
    facts["compared by"] = f"embeddings of {embed}" if embed else "TF-IDF"
    facts["cells before"] = round(choice.cells_in_effect(pool), 2)
    facts["cells after"] = round(choice.cells_in_effect(chosen), 2)
    _tell(facts | {"out": str(out)}, broken, as_json, out)
