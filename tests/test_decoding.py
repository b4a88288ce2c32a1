"""Decodings that are compared, and what is said of their tables."""

import pytest
from datasets import Dataset
from graded import answers, samples

from limo_nb.core.settings import Sampling, load_profile, profile_names
from limo_nb.evaluation import RESULTS, tenth_of
from limo_nb.experiments import decoding


@pytest.mark.parametrize("name", profile_names())
def test_samplings_differ_and_keep_the_limit(name: str) -> None:
    settings = load_profile(name).evaluation
    ways = decoding.samplings(settings)
    assert ways["greedy"].temperature == 0 and ways["greedy"].samples == 1
    assert ways["votes"] == settings.votes
    assert len({decoding.named(way) for way in ways.values()}) == len(ways) == 5
    hot, nucleus = ways["hot"], ways["hot-nucleus"]
    assert hot.top_p == 1 and nucleus == hot.model_copy(update={"top_p": decoding.NUCLEUS})
    assert {way.max_new_tokens for way in ways.values()} == {settings.votes.max_new_tokens}
    assert tenth_of(settings).items <= max(2, settings.items)


@pytest.mark.parametrize(
    ("sampling", "name"),
    [
        ({"temperature": 0.0}, "greedy"),
        ({"temperature": 0.6}, "T = 0.6"),
        ({"temperature": 0.6, "top_p": 0.95}, "T = 0.6, top-p 0.95"),
    ],
)
def test_named(sampling: dict, name: str) -> None:
    assert decoding.named(Sampling(**sampling)) == name


def test_what_the_chapter_says_of_its_tables() -> None:
    """Groups by verdict, the place where a curve reaches half, rows with intervals."""
    right, wrong = answers([3] * 30, [True] * 30), answers([9] * 30, [False] * 30)
    said = decoding.beside_first({"greedy": right, "hot": wrong, "cold": wrong, "same": right})
    assert said == "Against greedy: hot and cold lower; same not clearly apart"
    rows = decoding.accuracy_rows({"greedy": right, "hot": wrong})
    assert [(r["label"], r["value"], r["median tokens"]) for r in rows] == [
        ("greedy", 100.0, "3"), ("hot", 0.0, "9"),
    ]  # fmt: skip
    assert decoding.rows_told(rows).startswith("greedy: 100.0 % (")
    mixed = answers([2, 5, 9], [True, True, True])
    limits = [2, 4, 6, 10]
    curve = decoding.curve(mixed, limits)
    assert [round(value) for value, _, _ in curve] == [0, 33, 67, 100]
    assert decoding.steepest("limo", curve, limits) == (
        "limo has 33 % right under a limit of 4 tokens, 67 % right under a limit of 6 tokens"
    )


def test_pass_and_cons_start_at_one_sample() -> None:
    rows = samples("aabc", "1") + samples("cbba", "2") + samples("aaaa", "3")
    table = Dataset.from_list(rows, features=RESULTS)
    series = decoding.by_votes(table, [1, 2, 4])
    several, majority, one = series.values()
    assert several[0] == majority[0] == one[0] == one[2]
    assert [value for value, _, _ in several] == sorted(value for value, _, _ in several)
    assert several[-1][0] == 100 and all(low <= v <= high for v, low, high in majority)


@pytest.mark.parametrize(
    ("mine", "theirs", "word"),
    [
        ([True] * 30, [False] * 30, "higher"),
        ([False] * 30, [True] * 30, "lower"),
        ([True, False] * 15, [False, True] * 15, "not clearly apart"),
    ],
)
def test_direction_speaks_of_the_whole_interval(mine, theirs, word) -> None:
    found, gap = decoding.direction(answers([1] * 30, mine), answers([1] * 30, theirs))
    assert found == word and gap.items == 30
