"""Which chains are kept: the best, levels of quality with their control, rows of a file."""

import numpy as np
import pytest
from datasets import Dataset
from test_chain_scoring import BARE, LAB

from limo_nb.chains import choice, scoring
from limo_nb.chains.scoring import DIMENSIONS


# ---------------------------------------------------------------- choosing
def table(*rows):
    """Chains from (question, sample, score, tokens)."""
    names = ("question_id", "sample", "score", "tokens")
    return Dataset.from_list([dict(zip(names, row, strict=True)) for row in rows])


def keys(chosen):
    return list(zip(chosen["question_id"], chosen["sample"], strict=True))


def test_best_per_question_and_its_ties():
    found = table(
        ("a", 0, 0.5, 90), ("a", 1, 0.9, 90), ("a", 2, 0.9, 80),  # the shorter of equals
        ("b", 1, 0.7, 50), ("b", 0, 0.7, 50),  # then the earlier sample
        ("c", 0, 0.95, 10),
    )  # fmt: skip
    assert keys(choice.best_per_question(found)) == [("c", 0), ("a", 2), ("b", 0)]
    assert keys(choice.best_rows(found, 2)) == [("c", 0), ("a", 2)]
    assert len(choice.best_rows(found, 10)) == 3
    shuffled = found.shuffle(seed=1)
    assert choice.best_rows(shuffled, 3).to_list() == choice.best_rows(found, 3).to_list()


def test_levels_take_one_chain_of_every_question_for_every_band():
    rows = [("a", s, s / 10, 50) for s in range(9)] + [("b", s, s / 20, 50) for s in range(5)]
    found = choice.levels(table(*rows, ("few", 0, 0.9, 50)), bands=5)
    assert keys(found) == [(q, s) for i in range(5) for q, s in (("a", 2 * i), ("b", i))]
    assert found["band"] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_levels_of_the_pool_have_equal_sizes_and_rising_scores():
    found = choice.levels(
        table(*[(f"q{i}", 0, (i * 7 % 20) / 20, 5) for i in range(20)]), 4, "pool"
    )
    by_band = [[r["score"] for r in found if r["band"] == band] for band in (1, 2, 3, 4)]
    assert [len(scores) for scores in by_band] == [5, 5, 5, 5]
    assert all(max(a) < min(b) for a, b in zip(by_band, by_band[1:], strict=False))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: choice.best_rows(t, 0), "n is 0"),
        (lambda t: choice.best_rows(t.select([]), 1), "no chains"),
        (lambda t: choice.levels(t, 5), "no question has 5"),
        (lambda t: choice.levels(t, 1), "at least two bands"),
        (lambda t: choice.levels(t, 5, "pool"), "cannot fill"),
        (lambda t: choice.levels(t, 5, "world"), "may be"),
    ],
)
def test_choosing_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call(table(("a", 0, 0.5, 9), ("a", 1, 0.6, 9)))


# ---------------------------------------------------------------- the control of length
def habitual(question, sample, tokens, rate, length=0.5):
    """A chain whose three habits all score `rate`."""
    parts = dict.fromkeys(DIMENSIONS, rate) | {"length": length}
    total = sum(scoring.weights()[name] * parts[name] for name in DIMENSIONS)
    return {"question_id": question, "sample": sample, "tokens": tokens, "score": total} | parts


def test_matched_levels_differ_in_habits_and_not_in_length():
    rows = [
        habitual("a", 0, 100, 0.1), habitual("a", 1, 108, 0.7), habitual("a", 2, 300, 1.0),
        habitual("b", 0, 200, 0.5), habitual("b", 1, 210, 0.6), habitual("b", 2, 205, 0.2),
        habitual("none", 0, 50, 0.1), habitual("none", 1, 90, 0.9),  # too far apart
    ]  # fmt: skip
    found = choice.matched_levels(Dataset.from_list(rows), 2, 0.1)
    assert keys(found) == [("a", 0), ("b", 2), ("a", 1), ("b", 1)]
    assert found["band"] == [1, 1, 2, 2]
    assert choice.habits(rows[0]) == pytest.approx(0.1)


def test_matched_levels_of_random_chains_stay_within_the_tolerance():
    rng = np.random.default_rng(1)
    rows = [
        habitual(f"q{i % 12}", i, int(rng.integers(60, 260)), rng.random(), rng.random())
        for i in range(240)
    ]
    found = choice.matched_levels(Dataset.from_list(rows), 3, 0.15).to_list()
    for question in {row["question_id"] for row in found}:
        group = [row for row in found if row["question_id"] == question]
        lengths = [row["tokens"] for row in group]
        assert len(group) == 3 and max(lengths) <= 1.15 * min(lengths)
        assert [r["band"] for r in sorted(group, key=lambda r: r["habits"])] == [1, 2, 3]
    shuffled = Dataset.from_list(rows).shuffle(seed=3)
    assert choice.matched_levels(shuffled, 3, 0.15).to_list() == found


@pytest.mark.parametrize(
    ("bands", "tolerance", "message"),
    [
        (2, 0.1, "within 10% of the same length"),
        (3, 0.1, "no question has 3"),
        (1, 0.1, "bands 1"),
    ],
)
def test_matched_levels_say_what_is_missing(bands, tolerance, message):
    rows = [habitual("a", 0, 100, 0.1), habitual("a", 1, 200, 0.2)]
    with pytest.raises(ValueError, match=message):
        choice.matched_levels(Dataset.from_list(rows), bands, tolerance)


# ---------------------------------------------------------------- rows of a file
def test_scored_rows_keep_their_order_and_get_levels():
    texts = [LAB, BARE, f"{LAB} Perhaps check it.", BARE, "so"]
    rows = [
        {"question": "ab"[i % 2], "solution": t, "answer": "6"} for i, t in enumerate(texts)
    ]
    found, scale = choice.score_rows(rows, bands=5)
    assert scale == scoring.Scale.of(texts)
    assert sorted(row["level"] for row in found) == [1, 2, 3, 4, 5]
    # better means a higher level; of the two equal texts the earlier one
    assert found[1]["level"] == found[3]["level"] + 1
    ranked = sorted(found, key=lambda row: row["level"])
    assert [r["score"] for r in ranked] == sorted(r["score"] for r in found)
    assert found[0]["after_answer"] == 0 and found[4]["after_answer"] is None
    inside, _ = choice.score_rows(rows, bands=3, within="question")
    assert [row["level"] is None for row in inside] == [False, True, False, True, False]
    with pytest.raises(ValueError, match="may be"):
        choice.score_rows(rows, within="world")


def test_levels_and_control_as_far_as_the_chains_allow():
    def sets(samples):
        rows = [habitual(f"q{q}", s, 100 + s, s / 9) for q in range(12) for s in range(samples)]
        return choice.levels_and_control(Dataset.from_list(rows))

    assert {name: max(found["band"]) for name, found in sets(6).items()} == {
        "levels": 5, "matched": 2,
    }  # fmt: skip
    assert max(sets(3)["levels"]["band"]) == 3
    assert sets(1) == {}
    apart = [habitual("a", 0, 100, 0.1), habitual("a", 1, 200, 0.2)]
    assert list(choice.levels_and_control(Dataset.from_list(apart))) == ["levels"]
