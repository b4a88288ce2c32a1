"""Cut answers beside an accuracy: how many, what they mean, and which limit would do."""

import numpy as np
import pytest
from datasets import Dataset

from limo_nb.evaluation import accuracy, limit_that_would_do
from limo_nb.evaluation.tables import RESULTS
from limo_nb.evaluation.truncation import limits_measured, truncation_of


def answers(lengths, limit: int) -> Dataset:
    """Answers of these lengths under a limit: the longer ones are cut off, and wrong."""
    rows = [
        {"benchmark": "b", "in_domain": True, "level": 1, "id": f"i{n}", "sample": 0,
         "correct": bool(length <= limit), "answer": "1", "reason": "", "text": "",
         "tokens": int(min(length, limit)), "finished": bool(length <= limit)}
        for n, length in enumerate(lengths)
    ]  # fmt: skip
    return Dataset.from_list(rows, features=RESULTS)


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.75])
def test_the_limit_that_would_do_is_found_from_a_censored_sample(cut):
    """Log-normal lengths of which a part is seen: the 95th percentile, within a third."""
    lengths = np.random.default_rng(1).lognormal(6.0, 0.6, 400)
    found = limit_that_would_do([answers(lengths, int(np.quantile(lengths, 1 - cut)))])
    assert found == pytest.approx(np.quantile(lengths, 0.95), rel=1 / 3)
    assert found % 100 == 0


@pytest.mark.parametrize(
    ("lengths", "limit"), [([500] * 50, 400), ([300] * 9, 400), ([399, *[500] * 40], 400)]
)
def test_nothing_is_said_of_what_cannot_be_told(lengths, limit):
    assert limit_that_would_do([answers(lengths, limit)]) is None


def test_above_a_fifth_the_limit_was_measured():
    lengths = np.random.default_rng(2).lognormal(6.0, 0.5, 100)
    rows, texts = [], []
    for limit in (10_000, int(np.quantile(lengths, 0.3))):
        results = [answers(lengths, limit)]
        found = accuracy(results)
        texts.append(str(found))
        rows.append({"model": f"m{limit}", "group": "b", **vars(found)})
        rows[-1] |= truncation_of(results, vars(found))
    assert rows[0]["truncation"] == 0 and rows[0]["limit_wanted"] is None
    (said,) = limits_measured(rows)
    assert said.startswith(f"m{limit}, b: 70% of the answers were cut off: the limit was")
    assert f"about {rows[1]['limit_wanted']:,} new tokens" in said
    assert "cut off" not in texts[0] and texts[1].endswith("], 70% cut off")
