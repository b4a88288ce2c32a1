"""The sets of the ablations: bands of chains."""

import pytest
from datasets import Dataset

from limo_nb.chains import levels
from limo_nb.experiments import ablations


def chain_rows(per_question: int) -> Dataset:
    rows = [
        {"question_id": f"q{q}", "sample": s, "question": "?", "answer": "1",
         "solution": f"{'Check. ' * s}It is {s}.", "subject": "dial", "level": 3,
         "score": s / 10, "tokens": 10 + s}
        for q in range(3) for s in range(per_question)
    ]  # fmt: skip
    ranked = sorted(rows, key=lambda row: -row["score"])
    return Dataset.from_list(ranked)


def test_bands_keep_the_questions_where_there_are_five_chains():
    banded, within = ablations.quality_bands(chain_rows(6))
    assert within == "question"
    for band in range(1, 6):
        chosen = ablations.one_band(banded, band, limit=2)
        assert [row["question_id"] for row in chosen] == ["q0", "q1"]
    scores = [ablations.one_band(banded, band, 3)[0]["score"] for band in range(1, 6)]
    assert scores == sorted(scores) and scores[0] < scores[-1]


def test_bands_over_the_pool_where_there_are_fewer():
    banded, within = ablations.quality_bands(chain_rows(4))
    assert within == "pool" and set(banded["band"]) == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="no question has 5"):
        levels(chain_rows(4))
