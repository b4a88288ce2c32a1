"""Scores in the format of lm-evaluation-harness, so that they can be compared elsewhere.

The format is that of lm-eval 0.4 (`lm_eval/result_schema.py`), which is released more
often than lighteval and whose results leaderboards and plotting tools read:
`<folder>/<model>/results_<time>.json` and one `samples_<task>_<time>.jsonl` per task. Task
names begin with "limo_nb_": the prompts and the grader are ours, and figures of a task
with another name are not of the same measurement. Chapter 8.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from limo_nb.core import records
from limo_nb.core.files import write_json
from limo_nb.evaluation import benchmarks

PREFIX, FILTER = "limo_nb_", "none"
METRICS = {"exact_match": True, "truncated": False, "unverifiable": False}  # higher is better


def export(
    folder: Path,
    manifest: Mapping[str, Any],
    items: Mapping[str, Dataset],
    results: Mapping[str, Dataset],
) -> Path:
    """Write results and samples below `folder`; the file of the results.

    `manifest` is that of `scoring.score_model`; `items` and `results` are by benchmark.
    """
    home = folder / re.sub(r"[\"<>:/|\\?*\[\]]+", "__", manifest["model"])
    home.mkdir(parents=True, exist_ok=True)
    moment = manifest["started"].rstrip("Z").replace(":", "-")
    for name, table in results.items():
        for task, part in _tasks(name, table):
            records.write_records(
                _samples(part, items[name]), home / f"samples_{task}_{moment}.jsonl"
            )
    file = home / f"results_{moment}.json"
    write_json(file, aggregated(manifest, results))
    return file


def _tasks(name: str, results: Dataset) -> Iterator[tuple[str, Dataset]]:
    """(task, its results): one for each benchmark, ten for the lab's."""
    frame = results.to_pandas()
    for own, rows in frame.groupby("benchmark", sort=True):
        task = f"{PREFIX}{name}" if own == name else f"{PREFIX}{name}_{own}"
        yield task, results.select(list(rows.index))


def aggregated(manifest: Mapping[str, Any], results: Mapping[str, Dataset]) -> dict[str, Any]:
    """The document of `results_<time>.json`."""
    tasks = {t: (name, part) for name, r in results.items() for t, part in _tasks(name, r)}
    frames = {task: _frame(part) for task, (_, part) in tasks.items()}
    prompt = manifest["system_prompt"]
    return {
        "results": {task: _metrics(task, frame) for task, frame in frames.items()},
        "group_subtasks": {task: [] for task in tasks},
        "configs": {t: _config(t, name, manifest) for t, (name, _) in tasks.items()},
        "versions": dict.fromkeys(tasks, 1),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": dict.fromkeys(tasks, METRICS),
        "n-samples": {t: _sizes(name, frames[t]) for t, (name, _) in tasks.items()},
        "config": {
            "model": manifest["engine"]["kind"],
            "model_args": {"pretrained": manifest["model"]},
            "model_sha": manifest["model_digest"],
            "batch_size": str(manifest["engine"]["batch_size"]),
            "device": manifest["hardware"],
            "bootstrap_iters": 0,
        },
        "git_hash": manifest["commit"],
        "date": float(
            calendar.timegm(time.strptime(manifest["started"], "%Y-%m-%dT%H:%M:%SZ"))
        ),
        "transformers_version": manifest["versions"]["transformers"],
        "model_source": manifest["engine"]["kind"],
        "model_name": manifest["model"],
        "system_instruction": prompt,
        "system_instruction_sha": _sha(prompt),
        "total_evaluation_time_seconds": str(manifest["seconds"]),
    }


def _frame(results: Dataset) -> pd.DataFrame:
    """One row per item: its mean of each metric over the samples."""
    frame = results.to_pandas()
    values = pd.DataFrame(
        {
            "id": frame["id"],
            "exact_match": frame["correct"].eq(True),
            "truncated": ~frame["finished"].astype(bool),
            "unverifiable": frame["correct"].isna(),
        }
    )
    return values.groupby("id", sort=False).mean()


def _metrics(task: str, frame: pd.DataFrame) -> dict[str, Any]:
    """Means over items, with standard errors of these ("N/A" for one item)."""
    found: dict[str, Any] = {"alias": task, "name": task, "sample_len": len(frame)}
    for metric in METRICS:
        error = frame[metric].std(ddof=1) / sqrt(len(frame)) if len(frame) > 1 else "N/A"
        found[f"{metric},{FILTER}"] = float(frame[metric].mean())
        found[f"{metric}_stderr,{FILTER}"] = error if error == "N/A" else float(error)
    return found


def _config(task: str, name: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The task's configuration: the protocol's decoding for this benchmark."""
    part = "small" if benchmarks.benchmark_facts(name).get("small") else "other"
    sampling = manifest["protocol"][part]
    return {
        "task": task,
        "dataset_name": benchmarks.benchmark_facts(name)["title"],
        "output_type": "generate_until",
        "num_fewshot": 0,
        "repeats": sampling["samples"],
        "generation_kwargs": {
            "do_sample": sampling["temperature"] > 0,
            "temperature": sampling["temperature"],
            "top_p": sampling["top_p"],
            "max_gen_toks": sampling["max_new_tokens"],
            "seed": sampling["seed"],
        },
        "metadata": {
            "protocol": manifest["protocol"]["name"],
            "departures": list(manifest["protocol"]["departures"]),
            "grader": manifest["grader"],
        },
    }


def _sizes(name: str, frame: pd.DataFrame) -> dict[str, int]:
    return {
        "original": benchmarks.benchmark_facts(name).get("rows", len(frame)),
        "effective": len(frame),
    }


def _samples(results: Dataset, items: Dataset) -> Iterator[dict[str, Any]]:
    """One row per item, with all its samples: the schema's SampleResult."""
    facts = {row["id"]: row for row in items}
    means = _frame(results)
    for place, (identifier, rows) in enumerate(results.to_pandas().groupby("id", sort=False)):
        item = facts[identifier]
        doc = {"id": identifier, "question": item["question"], "answer": item["answer"]}
        answers = ["" if answer is None else answer for answer in rows["answer"]]
        yield {
            "doc_id": place,
            "doc": doc,
            "target": item["answer"],
            "arguments": {"gen_args_0": {"arg_0": item["question"]}},
            "resps": [list(rows["text"])],
            "filtered_resps": answers,
            "filter": FILTER,
            "metrics": list(METRICS),
            "doc_hash": _sha(json.dumps(doc, sort_keys=True)),
            "prompt_hash": _sha(item["question"]),
            "target_hash": _sha(item["answer"]),
            **{metric: float(means.loc[identifier, metric]) for metric in METRICS},
        }


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
