"""Problems of our own, each in other words, and with other numbers, for tests and figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

from datasets import Dataset

from limo_nb.problems import Resemblance

FILE = Path(__file__).with_name("data") / "paraphrases.jsonl"
PAIRS = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
NUMBER = re.compile(r"\d+")


def other_numbers(text: str) -> str:
    """Another problem in the same words."""
    return NUMBER.sub(lambda found: str(int(found[0]) + 1 + 3 * len(found[0])), text)


def table(kind: str, texts: list[str]) -> Dataset:
    """Rows with ids KIND-0, KIND-1, …"""
    rows = [{"id": f"{kind}-{n}", "question": text} for n, text in enumerate(texts)]
    return Dataset.from_list(rows)


ITEMS = table("item", [pair["original"] for pair in PAIRS])
PARAPHRASES = table("paraphrase", [pair["paraphrase"] for pair in PAIRS])
CHANGED = table("changed", [other_numbers(pair["original"]) for pair in PAIRS])


def is_own(pair: Resemblance) -> bool:
    """Whether a problem is listed for the item that it was made of."""
    return pair["id"].partition("-")[2] == pair["counterpart"].partition("-")[2]


def figures(listed: list[Resemblance], least: float) -> dict[str, float]:
    """What a list of paraphrases and changed problems holds from the similarity `least` on.

    Recall: paraphrases that are listed for their item. Precision: the share of these in the
    list, without the changed problems and with them; and how many of these are in it.
    """
    pairs = [pair for pair in listed if pair["similarity"] >= least]
    changed = [pair for pair in pairs if pair["id"].startswith("changed")]
    right = sum(is_own(pair) for pair in pairs if pair["id"].startswith("paraphrase"))
    return {
        "recall": right / len(PAIRS),
        "precision": right / max(1, len(pairs) - len(changed)),
        "with changed": right / max(1, len(pairs)),
        "changed": sum(map(is_own, changed)) / len(PAIRS),
    }
