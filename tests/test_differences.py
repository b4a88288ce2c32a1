"""Paired differences between variants, by group."""

from datasets import Dataset

from limo_nb.evaluation import RESULTS, accuracy
from limo_nb.experiments import differences
from limo_nb.experiments.variants import HEADLINE


def results(right: dict[str, int], items: int = 8) -> Dataset:
    """Made-up results: of `items` items a benchmark the first `right` are correct."""
    rows = [
        {"benchmark": name, "in_domain": name == "near", "level": 1, "id": f"{name}-{i}",
         "sample": 0, "correct": i < count, "answer": "1", "reason": "same", "text": "1",
         "tokens": 1, "finished": True}
        for name, count in right.items() for i in range(items)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


def test_paired_differences_by_group():
    found = differences.paired(
        {"a": [results({"near": 8, "far": 4})], "b": [results({"near": 2, "far": 4})]},
        [("a", "b"), ("b", "a")],
    )
    values = {(row["model"], row["group"]): row["value"] for row in found}
    assert values == {
        ("a", "in domain"): 0.75, ("a", "out of domain"): 0.0, ("a", "all"): 0.375,
        ("b", "in domain"): -0.75, ("b", "out of domain"): 0.0, ("b", "all"): -0.375,
    }  # fmt: skip
    for row in found:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["items"] == (16 if row["group"] == "all" else 8)


def test_pairing_takes_out_what_makes_items_hard_for_both():
    """The same difference, but on items that only one side solves by chance of the draw."""
    hard = results({"near": 4, "far": 4})
    better = results({"near": 5, "far": 5})
    (row,) = [r for r in differences.paired({"a": [better], "b": [hard]}, [("a", "b")])
              if r["group"] == "all"]  # fmt: skip
    alone = [accuracy([side]) for side in (better, hard)]
    unpaired = sum((side.high - side.low) ** 2 for side in alone) ** 0.5
    assert row["value"] == 0.125 and row["high"] - row["low"] < unpaired


def test_paired_differences_by_groups_of_one_s_own():
    tables = {name: [results(marks)] for name, marks in
              (("a", {"near": 4, "far": 2}), ("b", {"near": 2, "far": 2}))}  # fmt: skip
    groups = {"without far": lambda row: row["benchmark"] != "far"}
    (row,) = differences.paired(tables, [("a", "b")], groups)
    (near,) = [r for r in differences.paired(tables, [("a", "b")]) if r["group"] == "all"]
    assert row["group"] == "without far" and row["value"] == 2 * near["value"] > 0


def test_headline_differences_name_every_comparison_of_chapter_8():
    names = ["base", "poor", *HEADLINE]
    found = differences.headline_differences(
        {name: [results({"near": 4, "far": 4})] for name in names}
    )
    pairs = {(row["model"], row["against"]) for row in found}
    assert pairs == {
        ("limo", "base"), ("limo", "bulk"), ("limo", "random"), ("limo", "poor-limo"),
        ("poor-limo", "poor"), ("bulk", "base"), ("random", "base"),
    }  # fmt: skip
    assert all(row["value"] == 0 for row in found)
