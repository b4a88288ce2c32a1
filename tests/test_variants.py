"""The rows of the headline variants."""

import pytest
from datasets import Dataset
from tiny import problems

from limo_nb.core.settings import load_profile
from limo_nb.experiments import variants


def test_held_out_questions_are_in_no_training_set():
    profile = load_profile("smoke")
    drawn = [{"id": str(n), "level": 1, **row} for n, row in enumerate(problems(40, seed=5))]
    questions = Dataset.from_list(drawn)
    limo = Dataset.from_list([{"question_id": row["id"]} for row in drawn[:24]])
    kept = variants.held_out(0.2, questions, limo, profile.pool.seed)
    assert len(kept) == 8
    assert kept == variants.held_out(0.2, questions, limo, profile.pool.seed)
    assert not {row["id"] for row in kept} & set(limo["question_id"])
    texts = {row["question"] for row in kept}
    assert not texts & set(variants._without(questions, kept)["question"])
    more = Dataset.from_list([{"question_id": row["id"]} for row in drawn[:36]])
    with pytest.raises(ValueError, match="takes 8 of 40 selected questions, and 4 are in no"):
        variants.held_out(0.2, questions, more, profile.pool.seed)


def test_bulk_rows_leave_out_what_is_unwanted():
    profile = load_profile("smoke")
    bulk = variants.bulk_rows(profile, 60)
    assert bulk.column_names == list(variants.ROW_COLUMNS) and len(bulk) == 60
    some = bulk.select(range(5)).to_list()
    left = variants.bulk_rows(profile, 60, some)["question"]
    assert not {row["question"] for row in some} & set(left)
