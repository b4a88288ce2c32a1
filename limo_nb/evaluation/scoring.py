"""Scoring anyone's model by a named protocol: `limo-nb evaluate` (chapter 8; paper, section 4).

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
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets

from limo_nb.core.files import write_json
from limo_nb.core.machine import (
    peak_memory_gib,
    provenance,
)
from limo_nb.core.records import table_digest
from limo_nb.core.runs import (
    Artifact,
    runs_root,
)
from limo_nb.core.settings import (
    SYSTEM_PROMPT,
    EngineSettings,
)
from limo_nb.evaluation import (
    benchmarks,
    estimates,
    lm_eval_export,
)
from limo_nb.evaluation import model_judge as judging
from limo_nb.evaluation.attempts import (
    asked,
    finished,
    graded_rows,
    grader_version,
    pairs_of,
    verdicts_of,
)
from limo_nb.evaluation.protocols import Protocol
from limo_nb.grading.verdicts import Verdict
from limo_nb.inference import (
    Engine,
    complete,
    model_digest,
    open_engine,
)


@dataclass(frozen=True)
class Job:
    """What is to be scored. `items` is the most of each benchmark, None for all."""

    model: str  # lab:NAME, a folder, or a Hub id, optionally ID@REVISION
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
            "engine": self.engine.model_dump(mode="json", exclude={"workers"}),
            "system_prompt": self.system_prompt,
            "grader": grader_version(),
            "judge": self.judge,
            "judge_digest": model_digest(self.judge) if self.judge else None,
            "items": {name: table_digest(table) for name, table in items.items()},
        }


def score(job: Job, root: Path | None = None) -> Artifact:
    """The scores of `job`: a folder below `root`, which is runs/evaluate by default.

    A finished folder is returned as it is. Raises ValueError for an unknown benchmark or
    a model that cannot be loaded, FileNotFoundError for a benchmark that is nowhere.
    """
    for model in filter(None, (job.model, job.judge)):
        if model.startswith((".", "/")) and not Path(model).exists():
            raise ValueError(f"there is no model at {model}: name a folder that exists")
    root = root or runs_root() / "evaluate"
    items = {
        name: benchmarks.load(name, job.items) for name in benchmarks.known(job.benchmarks)
    }
    if not items:
        raise ValueError(f"name a benchmark: {', '.join(benchmarks.registry())}")
    facts = job.facts(items)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / f"{_slug(job.model)}-{job.protocol.name}-{key}"
    if not (folder / "manifest.json").exists():
        _make(job, items, facts, folder)
    return Artifact(folder, json.loads((folder / "manifest.json").read_text()))


def _slug(model: str) -> str:
    """A model's name as part of a folder's; the last two parts of a path."""
    parts = Path(model.replace(":", "-")).parts[-2:]
    return re.sub(r"[^\w.@-]+", "_", "--".join(part.strip("/") for part in parts)).strip("_")


def _make(job: Job, items: Mapping[str, Dataset], facts: dict[str, Any], folder: Path) -> None:
    resumed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    with open_engine(job.engine, job.model) as engine:
        identity = dict(engine.identity)
        answers = {
            name: _answers(job, name, own, engine, folder) for name, own in items.items()
        }
    results = _results_of(job, items, answers, folder)
    apart = {
        name: len(json.loads(_disagreements(folder, name).read_text("utf-8")))
        for name in items
        if _judged_by(name, job.judge)
    }
    write_json(folder / "table.json", tabulated(results, job.protocol, job.judge, apart))
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
    lm_eval_export.write(folder / "lm-eval", manifest, items, results)
    write_json(folder / "manifest.json", manifest)


def _answers(job: Job, name: str, items: Dataset, engine: Engine, folder: Path) -> Dataset:
    # A request of its own for each benchmark: rows that are computed together depend on
    # each other, and a score must not depend on what else was asked.
    return complete(
        engine, asked(items, job.system_prompt), job.protocol.sampling(name),
        folder.parent / "completions.sqlite", label=name,
    )  # fmt: skip


def _results_of(
    job: Job, items: Mapping[str, Dataset], answers: Mapping[str, Dataset], folder: Path
) -> dict[str, Dataset]:
    """The graded answers by benchmark; also in `folder`/results-<name>.parquet."""
    results = {}
    needed = any(_judged_by(name, job.judge) for name in items)
    with open_engine(job.engine, job.judge) if needed else nullcontext() as judge:
        for name, own in items.items():
            tolerance = benchmarks.registry()[name].get("tolerance", 0.0)
            ended = finished(answers[name])
            store = folder.parent / "verdicts.sqlite"
            verdicts = verdicts_of(pairs_of(own, ended), tolerance, store)
            if _judged_by(name, job.judge):
                verdicts = _judged(judge, name, own, ended, verdicts, folder)
            results[name] = graded_rows(own, answers[name], verdicts)
            write_results(results[name], folder / f"results-{name}.parquet")
    return results


def _judged_by(name: str, judge: str | None) -> str | None:
    """The model that judges benchmark `name`, None where rules grade it."""
    return judge if benchmarks.registry()[name]["judge"] else None


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
    judged = judging.judge(engine, rows, folder.parent / "judgements.sqlite")
    write_results(judged, folder / f"judgements-{name}.parquet")
    apart = judging.disagreements(verdicts, judged)
    write_json(_disagreements(folder, name), apart)
    return judging.with_judge(verdicts, judged, first=True)


def _disagreements(folder: Path, name: str) -> Path:
    return folder / f"disagreements-{name}.json"


def write_results(results: Dataset, file: Path) -> None:
    """Write a table of results, whole or not at all."""
    partial = file.with_suffix(".partial")
    results.to_parquet(str(partial))
    partial.replace(file)


def described(name: str, items: Dataset) -> dict[str, Any]:
    """What the registry and the file say of a benchmark that was run."""
    facts = benchmarks.registry()[name]
    known = {
        key: facts[key] for key in ("title", "language", "terms", "defects") if key in facts
    }
    known |= {"items": len(items), "duplicates": benchmarks.duplicates(items)}
    if "file" in facts:
        found = benchmarks.locate(name)
        known |= {"source": found.source, "revision": found.revision, "sha256": found.sha256}
    return known


# ---------------------------------------------------------------- tables
def tabulated(
    results: Mapping[str, Dataset], protocol: Protocol, judge: str | None = None,
    apart: Mapping[str, int] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """A row per benchmark and group: accuracy with its interval, what varies, counts.

    `graded_by` says whether rules or `judge` decided; the paper has its two benchmarks of
    school problems judged, and without a judge they are graded by rule. `apart` is the
    number of answers by judged benchmark on which judge and rules disagree; rows that
    have such a benchmark give it as `disagreements`, and the files that list them.

    `truncation` is the share of answers that were cut off. Where there are several
    samples k, `pass_at_k` and `cons_at_k` (the majority's answer) are given for all of
    them. `separates`: by how much another model would have to be better to show it
    (`estimates.separates`); None where the items cannot tell.
    """
    whole = concatenate_datasets(list(results.values()))
    graders = {
        own: f"judge {judge}" if _judged_by(name, judge) else "rule"
        for name, table in results.items()
        for own in set(table["benchmark"])
    }
    rows = []
    for group, places in estimates.groups(whole).items():
        part = [whole.select(places)]
        found = dict(vars(estimates.accuracy(part)))
        by = sorted({graders[own] for own in part[0]["benchmark"]})
        row = {"group": group, "protocol": protocol.label, "graded_by": ", ".join(by)}
        row |= {"accuracy": found.pop("value"), **found}
        answers = row["right"] + row["wrong"] + row["unverifiable"]
        row |= {"truncation": row["truncated"] / answers, **_of_samples(part)}
        row |= _apart_in(set(part[0]["benchmark"]), apart or {})
        rows.append({**row, "separates": estimates.separates(part)})
    return rows


def _apart_in(own: set[str], apart: Mapping[str, int]) -> dict[str, Any]:
    """`disagreements` and `disagreement_files` of the judged benchmarks among `own`."""
    judged = [name for name in apart if name in own]
    if not judged:
        return {}
    files = [_disagreements(Path(), name).name for name in judged]
    return {"disagreements": sum(apart[n] for n in judged), "disagreement_files": files}


def _of_samples(part: list[Dataset]) -> dict[str, Any]:
    """pass@k and cons@k where each item of `part` has the same number k of samples > 1."""
    counts = set(part[0].to_pandas().groupby(["benchmark", "id"]).size())
    if len(counts) > 1 or counts == {1}:
        return {}
    k = int(counts.pop())
    passed, voted = estimates.accuracy(part, k=k), estimates.consensus(part, k)
    return {"k": k, "pass_at_k": _bare(passed), "cons_at_k": _bare(voted)}


def _bare(found: estimates.Estimate) -> dict[str, float]:
    return {name: getattr(found, name) for name in ("value", "low", "high")}


# ---------------------------------------------------------------- what was scored before
def load(folder: Path) -> tuple[Artifact, Dataset]:
    """A finished run of `score` and all its results; FileNotFoundError for another folder."""
    if not (folder / "manifest.json").exists():
        raise FileNotFoundError(
            f"{folder} has no manifest.json: it is no finished run of `limo-nb evaluate`"
        )
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [_results(folder, name) for name in manifest["benchmarks"]]
    return Artifact(folder, manifest), concatenate_datasets(tables)


def _results(folder: Path, name: str) -> Dataset:
    return Dataset.from_parquet(str(folder / f"results-{name}.parquet"))


def compare(one: Iterable[Path], other: Iterable[Path]) -> list[dict[str, Any]]:
    """Two models on the same items, paired; see `estimates.comparison`.

    Each side is a folder, or one for each training seed, paired in order. Raises
    ValueError where a side names a folder twice, where the two sides did not follow the
    same protocol or not the same items, or where their numbers of seeds cannot be paired.
    """
    sides = [[load(folder) for folder in side] for side in (one, other)]
    for side in sides:
        if len({found.path.resolve() for found, _ in side}) < len(side):
            raise ValueError("a folder is named twice on one side: it is one training seed")
    labels = {json.dumps(a.manifest["protocol"], sort_keys=True) for s in sides for a, _ in s}
    if len(labels) > 1:
        raise ValueError(
            "these runs followed different protocols: evaluate both with the same one"
        )
    names = tuple(_name_of([found for found, _ in side]) for side in sides)
    a, b = ([results for _, results in side] for side in sides)
    return estimates.comparison(a, b, names)


def _name_of(side: list[Artifact]) -> str:
    first = side[0].manifest["model"]
    return first if len(side) == 1 else f"{first} and {len(side) - 1} more"
