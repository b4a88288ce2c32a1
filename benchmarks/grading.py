"""Ours beside plain math-verify on labelled pairs, in one run.

    python benchmarks/grading.py PAIRS.jsonl [--json]

PAIRS.jsonl has rows of gold, response and label, and may have id and cat. math-verify is
used in its best plain way: `verify(parse("$gold$"), parse(response))` with its own time
limits, in this process. Items per second per core are items divided by the processor
seconds of this process and all that it started, so that a busy machine matters less; for
ours that includes the helper process with its imports, for math-verify imports are left
out. Corrected figures use benchmarks/grading_labels.yaml.
"""

import json
import logging
import resource
import sys
from collections import Counter
from pathlib import Path

import yaml
from math_verify import parse, verify

from limo_nb.core.records import (
    read_records,
    required,
)
from limo_nb.grading.verdicts import (
    Verdict,
    agreement,
    grade_many,
)


def plain(golds: list[str], responses: list[str]) -> list[Verdict]:
    """math-verify's verdicts."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return [
        Verdict(verify(parse(f"${gold}$"), parse(response)), None, "")
        for gold, response in zip(golds, responses, strict=True)
    ]


def ours(golds: list[str], responses: list[str]) -> list[Verdict]:
    """The package's verdicts, with one worker."""
    return grade_many(golds, responses, workers=1)


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def measure(grader, pairs: list[dict], labels: dict) -> dict:
    """Agreement with the labels as they are and corrected, rate, and misses by category."""
    started = processor_seconds()
    verdicts = grader([p["gold"] for p in pairs], [p["response"] for p in pairs])
    rate = len(pairs) / (processor_seconds() - started)
    right = [labels.get(p.get("id"), p)["label"] for p in pairs]
    missed = Counter(
        p.get("cat", "")
        for p, v in zip(pairs, verdicts, strict=True)
        if v.correct != p["label"]
    )
    corrected = agreement(verdicts, right)
    names = ("accuracy", "false_positives", "false_negatives")
    return {
        **agreement(verdicts, [p["label"] for p in pairs]),
        "items_per_second_per_core": round(rate, 1),
        "corrected": {name: corrected[name] for name in names},
        "missed": dict(missed.most_common()),
    }


def main(file: Path, as_json: bool) -> None:
    """Print both graders' figures."""
    fields = ("gold", "response", "label")
    pairs = [dict(required(row, fields, place)) for place, row in read_records(file)]
    labels = yaml.safe_load(Path(__file__).with_name("grading_labels.yaml").read_text("utf-8"))
    found = {g.__name__: measure(g, pairs, labels) for g in (plain, ours)}
    if as_json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name)
        for what, value in figures.items():
            print(f"  {what.replace('_', ' ')}: {value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--json" in sys.argv)
