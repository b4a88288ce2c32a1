"""Ours beside plain math-verify on labelled sets, in one run.

    python benchmarks/grading.py SET.jsonl … [--references FOLDER] [--kinds] [--json]

A set has rows of gold, response and label (or want, where a verdict is meant), and may
have id and kind (or cat). `--references` adds the answers of the benchmarks in FOLDER,
each of which must grade itself. `--kinds` prints every kind of every set.

math-verify is used in its best plain way: `verify(parse("$gold$"), parse(response))` with
its own time limits, in this process, on rows that have a label. Items per second per core
are items divided by the processor seconds of this process and all that it started, so that
a busy machine matters less; for ours that includes the helper process with its imports, for
math-verify imports are left out. An unverifiable row counts as not correct; `decided right`
asks for the label itself. Corrected figures use benchmarks/grading_labels.yaml.
"""

import argparse
import json
import logging
import resource
from collections import defaultdict
from pathlib import Path

import yaml
from math_verify import parse, verify

from limo_nb.core.records import read_records
from limo_nb.evaluation.benchmarks import real_benchmarks
from limo_nb.grading.verdicts import Verdict, agreement, grade_many

Row = dict[str, object]


def plain(golds: list[str], responses: list[str]) -> list[Verdict]:
    """math-verify's verdicts."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return [
        Verdict(bool(verify(parse(f"${gold}$"), parse(response))), None, "")
        for gold, response in zip(golds, responses, strict=True)
    ]


def ours(golds: list[str], responses: list[str]) -> list[Verdict]:
    """The package's verdicts, with one worker."""
    return grade_many(golds, responses, workers=1)


GRADERS = (plain, ours)


def rows_of(file: Path) -> list[Row]:
    """The labelled rows of a set."""
    found = []
    for _, row in read_records(file):
        label = row.get("label", row.get("want"))
        if label is not None:
            kind = row.get("kind", row.get("cat", ""))
            found.append({**row, "label": bool(label), "kind": kind})
    return found


def references_of(folder: Path) -> list[Row]:
    """The references of the benchmarks, as answers to themselves."""
    items = real_benchmarks(folder)
    return [
        {"gold": a, "response": f"Therefore \\boxed{{{a}}}.", "label": True, "kind": name}
        for a, name in zip(items["answer"], items["benchmark"], strict=True)
    ]


def processor_seconds() -> float:
    """Of this process and of those that it started and that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def shares(verdicts: list[Verdict], labels: list[bool]) -> dict[str, float]:
    """Accuracy with unverifiable as not correct, and the counts behind it."""
    found = agreement(verdicts, labels)
    hits = [(v.correct is True) == x for v, x in zip(verdicts, labels, strict=True)]
    return {
        "rows": len(labels), "accuracy": round(sum(hits) / len(hits), 4),
        "decided_right": round(found["accuracy"], 4),
        "false_positives": round(found["false_positives"], 4),
        "false_negatives": round(found["false_negatives"], 4),
        "unverifiable": found["unverifiable"],
    }  # fmt: skip


def measure(grader, rows: list[Row], labels: dict) -> dict:
    """Figures as labelled and corrected, rate, and figures by kind."""
    started = processor_seconds()
    verdicts = grader([r["gold"] for r in rows], [r["response"] for r in rows])
    rate = len(rows) / (processor_seconds() - started)
    by_kind = defaultdict(list)
    for row, verdict in zip(rows, verdicts, strict=True):
        by_kind[row["kind"]].append((verdict, row["label"]))
    right = [labels.get(row.get("id"), row)["label"] for row in rows]
    return {
        **shares(verdicts, [row["label"] for row in rows]),
        "per_second_and_core": round(rate, 1),
        "corrected": shares(verdicts, right),
        "kinds": {
            kind: shares(*map(list, zip(*own, strict=True))) for kind, own in by_kind.items()
        },
    }


def show(name: str, found: dict[str, dict], kinds: bool) -> None:
    """One set, both graders side by side."""
    figures = ("rows", "accuracy", "decided_right", "false_positives", "false_negatives",
               "unverifiable", "per_second_and_core")  # fmt: skip
    print(f"\n{name}")
    for figure in figures:
        line = "  ".join(f"{g}: {found[g][figure]:<8}" for g in found)
        print(f"  {figure.replace('_', ' '):22}{line}")
    for grader, own in found.items():
        changed = {k: v for k, v in own["corrected"].items() if v != own[k]}
        if changed:
            print(f"  {grader}, labels corrected: {changed}")
    if kinds:
        print(f"  {'kind':50}{'rows':>5}" + "".join(f"{g:>7}    FP   none" for g in found))
        for kind in sorted(next(iter(found.values()))["kinds"]):
            cells = [found[g]["kinds"][kind] for g in found]
            figures_ = "".join(
                f"{c['accuracy']:7.3f}{c['false_positives']:6.2f}{c['unverifiable']:7}"
                for c in cells
            )
            print(f"  {kind[:50]:50}{cells[0]['rows']:5}{figures_}")


def main() -> None:
    """Print both graders' figures for every set."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("sets", nargs="*", type=Path)
    options.add_argument("--references", type=Path)
    options.add_argument("--kinds", action="store_true")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    labels = yaml.safe_load(Path(__file__).with_name("grading_labels.yaml").read_text("utf-8"))
    sets = {file.name: rows_of(file) for file in given.sets}
    if given.references:
        sets["references against themselves"] = references_of(given.references)
    made = {}
    for name, rows in sets.items():
        made[name] = {g.__name__: measure(g, rows, labels) for g in GRADERS}
        if not given.json:
            show(name, made[name], given.kinds)
    if given.json:
        print(json.dumps(made))


if __name__ == "__main__":
    main()
