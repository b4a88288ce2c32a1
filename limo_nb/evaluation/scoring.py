"""Scoring a model by a named protocol: `limo-nb evaluate` (chapter 8; paper, section 4).

Completions and verdicts of all runs are kept in the root folder, so that a run that was
killed, or one with more benchmarks, makes only what is missing. A run's own folder has
the results of each benchmark, the table, the scores in the format of
lm-evaluation-harness, and, written last, a manifest: its existence says that all is there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias, cast

from datasets import Dataset, concatenate_datasets

from limo_nb.core.files import write_json
from limo_nb.core.machine import peak_memory_gib, provenance
from limo_nb.core.records import load_table, table_digest
from limo_nb.core.runs import Artifact, runs_root
from limo_nb.core.settings import SYSTEM_PROMPT, EngineSettings
from limo_nb.evaluation import benchmarks, comparisons, estimates, lm_eval_export, model_judge
from limo_nb.evaluation.attempts import (
    finished,
    graded_rows,
    grader_version,
    pairs_of,
    prompts_of,
    verdicts_of,
)
from limo_nb.evaluation.protocols import Protocol
from limo_nb.evaluation.separation import separates
from limo_nb.evaluation.tables import Bounds, ComparisonRow, ScoreRow, save_results
from limo_nb.evaluation.truncation import truncation_of
from limo_nb.grading.verdicts import Verdict
from limo_nb.inference import Engine, complete, model_digest, open_engine
from limo_nb.problems import gym_facts


@dataclass(frozen=True)
class ScoreRequest:
    """What is to be scored. `items` is the most of each benchmark, None for all."""

    model: str  # lab:NAME, a folder, a GGUF file, or a Hub id, optionally ID@REVISION
    benchmarks: tuple[str, ...]
    protocol: Protocol
    engine: EngineSettings = EngineSettings()
    system_prompt: str = SYSTEM_PROMPT
    items: int | None = None
    judge: str | None = None  # a model, for benchmarks that the paper has judged

    def facts(self, items: Mapping[str, Dataset]) -> dict[str, Any]:
        """All that the scores depend on."""
        return {
            "model": self.model,
            "model_digest": model_digest(self.model),
            "protocol": self.protocol.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json", exclude={"workers", "force"}),
            "system_prompt": self.system_prompt,
            "grader": grader_version(),
            "judge": self.judge,
            "judge_digest": model_digest(self.judge) if self.judge else None,
            "items": {name: table_digest(table) for name, table in items.items()},
        }


def score_model(request: ScoreRequest, root: Path | None = None) -> Artifact:
    """The scores of `request`: a folder below `root`, which is runs/evaluate by default.

    A finished folder is returned as it is. Raises ValueError for an unknown benchmark or
    a model that cannot be loaded, FileNotFoundError for a benchmark that is nowhere.
    """
    for model in filter(None, (request.model, request.judge)):
        if model.startswith((".", "/")) and not Path(model.partition("#")[0]).exists():
            raise ValueError(f"there is no model at {model}: name a folder or file that exists")
    root = root or runs_root() / "evaluate"
    items = {
        name: benchmarks.load_benchmark(name, request.items)
        for name in benchmarks.known(request.benchmarks)
    }
    if not items:
        raise ValueError(f"name a benchmark: {', '.join(benchmarks.benchmark_registry())}")
    facts = request.facts(items)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / f"{_slug(request.model)}-{request.protocol.name}-{key}"
    if not (folder / "manifest.json").exists():
        _make(request, items, facts, folder)
    return Artifact(folder, json.loads((folder / "manifest.json").read_text()))


def _slug(model: str) -> str:
    """A model's name as part of a folder's; the last two parts of a path."""
    parts = Path(model.replace(":", "-")).parts[-2:]
    return re.sub(r"[^\w.@-]+", "_", "--".join(part.strip("/") for part in parts)).strip("_")


def _make(
    request: ScoreRequest, items: Mapping[str, Dataset], facts: dict[str, Any], folder: Path
) -> None:
    resumed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with open_engine(request.engine, request.model) as engine:
        identity = dict(engine.identity)
        answers = {
            name: _answers(request, name, own, engine, folder) for name, own in items.items()
        }
    results = _results_of(request, items, answers, folder)
    apart = {
        name: len(json.loads(_disagreements(folder, name).read_text("utf-8")))
        for name in items
        if _judged_by(name, request.judge)
    }
    write_json(
        folder / "table.json", tabulated(results, request.protocol, request.judge, apart)
    )
    manifest = {
        "key": folder.name.rpartition("-")[2],
        **facts,
        "engine": {**facts["engine"], **identity},
        "benchmarks": {name: described(name, own) for name, own in items.items()},
        "resumed": resumed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "peak_memory_gib": round(peak_memory_gib(), 3),
        **provenance(),
    }
    # A run that was killed after this line left files of another time.
    shutil.rmtree(folder / "lm-eval", ignore_errors=True)
    lm_eval_export.export(folder / "lm-eval", manifest, items, results)
    write_json(folder / "manifest.json", manifest)


def _answers(
    request: ScoreRequest, name: str, items: Dataset, engine: Engine, folder: Path
) -> Dataset:
    # A request of its own for each benchmark: rows that are computed together depend on
    # each other, and a score must not depend on what else was asked.
    return complete(
        engine, prompts_of(items, request.system_prompt), request.protocol.sampling(name),
        folder.parent / "completions.sqlite", label=name,
    )  # fmt: skip


def _results_of(
    request: ScoreRequest,
    items: Mapping[str, Dataset],
    answers: Mapping[str, Dataset],
    folder: Path,
) -> dict[str, Dataset]:
    """The graded answers by benchmark; also in `folder`/results-<name>.parquet."""
    results = {}
    judged = {name for name in items if _judged_by(name, request.judge)}
    opened = open_engine(request.engine, request.judge) if judged and request.judge else None
    with opened or nullcontext():
        for name, own in items.items():
            tolerance = benchmarks.benchmark_facts(name).get("tolerance", 0.0)
            ended = finished(answers[name])
            store = folder.parent / "verdicts.sqlite"
            verdicts = verdicts_of(pairs_of(own, ended), tolerance, store)
            if opened and name in judged:
                verdicts = _judged(opened, name, own, ended, verdicts, folder)
            results[name] = graded_rows(own, answers[name], verdicts)
            save_results(results[name], folder / f"results-{name}.parquet")
    return results


def _judged_by(name: str, judge: str | None) -> str | None:
    """The model that judges benchmark `name`, None where rules grade it."""
    return judge if benchmarks.benchmark_facts(name)["judge"] else None


def _judged(
    engine: Engine, name: str, items: Dataset, answers: Dataset, verdicts: list[Verdict],
    folder: Path,
) -> list[Verdict]:  # fmt: skip
    """The judge's verdicts first, as in the paper, those of rules where it has none.

    Leaves judgements-<name>.parquet, with all its texts, and disagreements-<name>.json.
    """
    questions = {row["id"]: row for row in items}
    rows = [
        {"id": f"{answer['id']}/{answer['sample']}", "response": answer["text"],
         "question": questions[answer["id"]]["question"],
         "reference": questions[answer["id"]]["answer"]}
        for answer in answers
    ]  # fmt: skip
    judged = model_judge.judge_answers(engine, rows, folder.parent / "judgements.sqlite")
    save_results(judged, folder / f"judgements-{name}.parquet")
    apart = model_judge.rule_disagreements(verdicts, judged)
    write_json(_disagreements(folder, name), apart)
    return model_judge.with_judge(verdicts, judged, first=True)


def _disagreements(folder: Path, name: str) -> Path:
    return folder / f"disagreements-{name}.json"


def described(name: str, items: Dataset) -> dict[str, Any]:
    """What the registry and the file say of a benchmark that was run."""
    facts = benchmarks.benchmark_facts(name)
    told = ("title", "language", "terms", "defects")
    known: dict[str, Any] = {key: facts[key] for key in told if key in facts}
    known |= {"items": len(items), "duplicates": benchmarks.duplicates(items)}
    if "file" in facts:
        found = benchmarks.locate(name)
        known |= {"source": found.source, "revision": found.revision, "sha256": found.sha256}
    if name in benchmarks.OWN:
        known |= {"source": benchmarks.OWN[name].file, "sha256": table_digest(items)}
    if benchmarks.is_drawn(name):
        library = f"reasoning-gym {version('reasoning-gym')}"
        known |= {"source": library, "seed": gym_facts()["seed"]}
    return known


# ---------------------------------------------------------------- tables
def tabulated(
    results: Mapping[str, Dataset], protocol: Protocol, judge: str | None = None,
    apart: Mapping[str, int] | None = None,
) -> list[ScoreRow]:  # fmt: skip
    """A row per benchmark and group: accuracy with its interval, what varies, counts.

    `graded_by` says whether rules or `judge` decided; the paper has its two benchmarks of
    school problems judged, and without a judge they are graded by rule. `apart` is the
    number of answers by judged benchmark on which judge and rules disagree; rows that
    have such a benchmark give it as `disagreements`, and the files that list them.

    `truncation` is the share of answers that were cut off, `limit_wanted` the limit that would
    do where these are many. Where there are several
    samples k, `pass_at_k` and `cons_at_k` (the majority's answer) are given for all of
    them. `separates`: by how much another model would have to be better to show it
    (`separation.separates`); None where the items cannot tell.
    """
    whole = concatenate_datasets(list(results.values()))
    graders = {
        own: f"judge {judge}" if _judged_by(name, judge) else "rule"
        for name, table in results.items()
        for own in set(table["benchmark"])
    }
    rows: list[ScoreRow] = []
    for group, places in comparisons.groups(whole).items():
        part = whole.select(places)
        own = set(part["benchmark"])
        found = dict(vars(estimates.accuracy([part])))
        row: dict[str, Any] = {
            "group": group,
            "protocol": protocol.label,
            "graded_by": ", ".join(sorted({graders[name] for name in own})),
            "accuracy": found.pop("value"),
            **found,
            **truncation_of([part], found),
            **_of_samples(part),
            **_apart_in(own, apart or {}),
            "separates": separates([part]),
        }
        rows.append(cast(ScoreRow, row))
    return rows


def _apart_in(own: set[str], apart: Mapping[str, int]) -> dict[str, Any]:
    """`disagreements` and `disagreement_files` of the judged benchmarks among `own`."""
    judged = [name for name in apart if name in own]
    if not judged:
        return {}
    files = [_disagreements(Path(), name).name for name in judged]
    return {"disagreements": sum(apart[n] for n in judged), "disagreement_files": files}


def _of_samples(part: Dataset) -> dict[str, Any]:
    """pass@k and cons@k where each item of `part` has the same number k of samples > 1."""
    counts = set(part.to_pandas().groupby(["benchmark", "id"]).size())
    if len(counts) > 1 or counts == {1}:
        return {}
    k = int(counts.pop())
    passed, voted = estimates.accuracy([part], k=k), estimates.consensus([part], k)
    return {"k": k, "pass_at_k": _bare(passed), "cons_at_k": _bare(voted)}


def _bare(found: estimates.Estimate) -> Bounds:
    return {"value": found.value, "low": found.low, "high": found.high}


# ---------------------------------------------------------------- what was scored before
def load_scores(folder: Path) -> tuple[Artifact, Dataset]:
    """A finished run of `score_model` and its results; FileNotFoundError elsewhere."""
    if not (folder / "manifest.json").exists():
        raise FileNotFoundError(
            f"{folder} has no manifest.json: it is no finished run of `limo-nb evaluate`"
        )
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [load_table(folder, f"results-{name}") for name in manifest["benchmarks"]]
    return Artifact(folder, manifest), concatenate_datasets(tables)


Side: TypeAlias = Dataset | Path | str | Iterable[Dataset | Path | str]


def compare(
    one: Side, other: Side, names: tuple[str, str] | None = None
) -> list[ComparisonRow]:
    """Two models on the same items, paired: a row per benchmark and group.

    Each side is a table that `evaluate` returned or a folder that `limo-nb evaluate` left;
    or a list of these, one for each training seed, paired in order. `names` are those of
    the models; by default what the folders say, else "one" and "other". Raises ValueError
    where a side names a folder twice, where two folders did not follow the same protocol,
    where the two sides are not over the same items, or where their numbers of seeds cannot
    be paired.

    >>> import limo_nb
    >>> weak, strong = (limo_nb.evaluate(f"lab:{m}", "lab") for m in ("weak", "reasoner"))
    >>> rows = limo_nb.compare(strong, weak, ("reasoner", "weak"))
    >>> limo_nb.evaluation.compared(rows[-1])
    'reasoner is above weak: +93.8 points (+90.6 to +96.9)'
    """
    sides = [_results_by_seed(side) for side in (one, other)]
    protocols = {
        json.dumps(made.manifest["protocol"], sort_keys=True)
        for made, _ in [*sides[0], *sides[1]]
        if made
    }
    if len(protocols) > 1:
        raise ValueError(
            "these runs followed different protocols: evaluate both with the same one"
        )
    if names is None:
        names = _name_of(sides[0], "one"), _name_of(sides[1], "other")
    a, b = ([results for _, results in side] for side in sides)
    return comparisons.comparison(a, b, names)


Scored = tuple[Artifact | None, Dataset]  # a folder's run, where there is one, and results


def _results_by_seed(side: Side) -> list[Scored]:
    given = [side] if isinstance(side, Dataset | Path | str) else list(side)
    folders = [Path(own).resolve() for own in given if not isinstance(own, Dataset)]
    if len(set(folders)) < len(folders):
        raise ValueError("a folder is named twice on one side: it is one training seed")
    return [
        (None, own) if isinstance(own, Dataset) else load_scores(Path(own)) for own in given
    ]


def _name_of(side: Sequence[Scored], default: str) -> str:
    made = side[0][0]
    first = made.manifest["model"] if made else default
    return first if len(side) == 1 else f"{first} and {len(side) - 1} more"
