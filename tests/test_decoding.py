"""Truncation, decoding variants and the reports of fine-tuning."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset

from limo_nb.book import sft_report
from limo_nb.core import settings as profiles
from limo_nb.core.runs import Artifact
from limo_nb.core.settings import Sampling
from limo_nb.evaluation import (
    attempts,
    estimates,
)
from limo_nb.experiments import decoding
from limo_nb.sft.encoding import (
    IGNORED,
    Encoded,
)


def results(lengths: list[int], correct: list[bool | None]) -> Dataset:
    rows = [
        {"benchmark": "b", "in_domain": True, "level": 1, "id": str(number), "sample": 0,
         "correct": right, "answer": "1", "reason": "same", "text": "", "tokens": tokens,
         "finished": True}
        for number, (tokens, right) in enumerate(zip(lengths, correct, strict=True))
    ]  # fmt: skip
    return Dataset.from_list(rows, features=attempts.RESULTS)


@pytest.mark.parametrize(
    ("limit", "right", "cut"),
    [
        (1, [False, False, False], 3),
        (4, [False, False, False], 3),  # four tokens and the end token need five places
        (5, [True, False, False], 2),
        (10, [True, False, None], 0),
        (99, [True, False, None], 0),
    ],
)
def test_cut_is_what_a_smaller_limit_would_leave(limit, right, cut) -> None:
    shorter = decoding.cut(results([4, 9, 9], [True, False, None]), limit)
    assert list(shorter["correct"]) == right
    assert list(shorter["finished"]).count(False) == cut
    assert max(shorter["tokens"]) <= limit
    assert shorter.features == attempts.RESULTS


def test_accuracy_never_falls_with_a_larger_limit() -> None:
    rng = np.random.default_rng(0)
    table = results(rng.integers(1, 60, 40).tolist(), (rng.random(40) < 0.6).tolist())
    values = [estimates.accuracy([decoding.cut(table, n)]).value for n in range(1, 64, 3)]
    assert values == sorted(values) and values[0] == 0 < values[-1]


@pytest.mark.parametrize("name", profiles.profile_names())
def test_ways_differ_and_keep_the_limit(name: str) -> None:
    settings = profiles.load_profile(name).evaluation
    ways = decoding.ways(settings)
    assert ways["greedy"].temperature == 0 and ways["greedy"].samples == 1
    assert ways["votes"] == settings.votes
    assert len({decoding.named(way) for way in ways.values()}) == len(ways) == 5
    hot, nucleus = ways["hot"], ways["hot-nucleus"]
    assert hot.top_p == 1 and nucleus == hot.model_copy(update={"top_p": decoding.NUCLEUS})
    assert {way.max_new_tokens for way in ways.values()} == {settings.votes.max_new_tokens}
    assert decoding.part_of(settings).items <= max(2, settings.items)


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
    right, wrong = results([3] * 30, [True] * 30), results([9] * 30, [False] * 30)
    said = decoding.beside_first({"greedy": right, "hot": wrong, "cold": wrong, "same": right})
    assert said == "Against greedy: hot and cold lower; same not clearly apart"
    rows = decoding.summary({"greedy": right, "hot": wrong})
    assert [(r["label"], r["value"], r["median tokens"]) for r in rows] == [
        ("greedy", 100.0, "3"), ("hot", 0.0, "9"),
    ]  # fmt: skip
    assert decoding.told(rows).startswith("greedy: 100.0 % (")
    mixed = results([2, 5, 9], [True, True, True])
    limits = [2, 4, 6, 10]
    curve = decoding.curve(mixed, limits)
    assert [round(value) for value, _, _ in curve] == [0, 33, 67, 100]
    assert decoding.steepest("limo", curve, limits) == (
        "limo has 33 % right under a limit of 4 tokens, 67 % right under a limit of 6 tokens"
    )


def test_pass_and_cons_start_at_one_sample() -> None:
    rows = samples("aabc", "1") + samples("cbba", "2") + samples("aaaa", "3")
    table = Dataset.from_list(rows, features=attempts.RESULTS)
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
def test_compared_speaks_of_the_whole_interval(mine, theirs, word) -> None:
    found, gap = decoding.compared(results([1] * 30, mine), results([1] * 30, theirs))
    assert found == word and gap.items == 30


def test_losses_by_part_take_mean_and_range_of_the_runs() -> None:
    logs = [[{"loss": loss} for loss in run] for run in ([4, 2, 1, 1], [2, 2, 3, 1])]
    assert sft_report.losses_by_part(logs, 2) == [(2.5, 2.0, 3.0), (1.5, 1.0, 2.0)]
    with pytest.raises(ValueError, match="4 steps cannot be cut into 5"):
        sft_report.losses_by_part(logs, 5)


def test_summary_reads_what_a_run_left(tmp_path) -> None:
    steps = [{"step": n, "loss": 3.0 / n, "tokens_per_second": 10.0 * n, "seconds": n}
             for n in (1, 2, 3)]  # fmt: skip
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    done = {"rows": 7, "steps": 3, "seconds": 3, "peak_memory_gib": 0.5}
    (tmp_path / "done.json").write_text(json.dumps(done))
    row = sft_report.run_summary(tmp_path)
    assert (row["first loss"], row["last loss"], row["tokens/s"]) == (3.0, 1.0, 30.0)
    assert (row["training (s)"], row["GiB a rank"]) == (3, 0.5)


class Letters:
    """The least of a tokenizer: a token is a character."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_token_picture_escapes_and_marks_what_carries_loss() -> None:
    row = Encoded(list(map(ord, "<a\n")), [IGNORED, ord("a"), ord("\n")])
    html = sft_report.tokens_html(Letters(), row)
    assert "&lt;" in html and "<a" not in html and "↵" in html
    assert html.count('class="limo-learnt"') == 2 and html.count('class="limo-context"') == 1


def samples(answers: str, item: str) -> list[dict]:
    """Rows of RESULTS: one sample a letter, "a" is right, "-" is no answer."""
    return [
        {"benchmark": "b", "in_domain": True, "level": 1, "id": item, "sample": place,
         "correct": letter == "a", "answer": None if letter == "-" else letter,
         "reason": "", "text": "", "tokens": 1, "finished": True}
        for place, letter in enumerate(answers)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "votes", "right"),
    [
        ("aab", 1, [True, True, False]),  # one voter: the sample itself
        ("aab", 3, [True, True, True]),
        ("abc", 2, [True, False, False]),  # ties go to the first voter
        ("a--", 2, [True, False, True]),  # samples without an answer do not vote
        ("bba", 3, [False, False, False]),
    ],
)
def test_votes_are_taken_from_every_run_of_neighbours(answers, votes, right) -> None:
    table = Dataset.from_list(samples(answers, "x y"), features=attempts.RESULTS)
    winners = decoding.voted(table, votes)
    assert list(winners["correct"]) == right
    assert list(winners["sample"]) == [0, 1, 2] and set(winners["id"]) == {"x y"}


def test_one_voter_has_the_accuracy_of_a_sample() -> None:
    rows = samples("aabc", "1") + samples("cbba", "2") + samples("aaaa", "3")
    table = Dataset.from_list(rows, features=attempts.RESULTS)
    one, single = (estimates.accuracy([t]) for t in (decoding.voted(table, 1), table))
    assert one == single


def test_loaded_tables_are_one_sample_of_items(tmp_path) -> None:
    rows = samples("a", "1") + [{**row, "benchmark": "c"} for row in samples("b", "2")]
    table = Dataset.from_list(rows, features=attempts.RESULTS)
    table.to_parquet(str(tmp_path / "greedy.parquet"))
    loaded = decoding.load(Artifact(tmp_path, {}))
    assert set(loaded) == {"greedy"} and set(loaded["greedy"]["benchmark"]) == {"all"}
    # Drawn within its benchmark, a single item would be certain.
    estimate = estimates.accuracy([loaded["greedy"]])
    assert estimate.value == 0.5 and estimate.low < 0.2 and estimate.high > 0.8
