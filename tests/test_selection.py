"""Choosing questions: counts, filters with three-valued verdicts, balance, exercises."""

import os
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer
from tiny import tiny_model

from limo_nb import lab
from limo_nb.book import exercises
from limo_nb.core.settings import (
    SYSTEM_PROMPT,
    EngineSettings,
    FilterSettings,
)
from limo_nb.problems import COLUMNS, DROPPED
from limo_nb.selection import (
    choice,
    rates,
    solving,
)

ENGINE = EngineSettings(kind="transformers", workers=1, batch_size=8, dtype="float32")


def problem(name, subject="dial", level=3, question=None):
    return {
        "id": name, "question": question or f"Question {name}?", "answer": "6", "solution": "",
        "source": "test", "subject": subject, "level": level,
    }  # fmt: skip


def problems(*names):
    return Dataset.from_list([problem(name) for name in names], features=COLUMNS)


def attempts(**verdicts):
    """Attempts from `name="++-?"`: right, right, wrong, unverifiable."""
    value = {"+": True, "-": False, "?": None}
    return Dataset.from_list(
        [
            {"id": name, "sample": place, "correct": value[mark]}
            for name, marks in verdicts.items()
            for place, mark in enumerate(marks)
        ]
    )


# ---------------------------------------------------------------- solving
@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("model")))


def test_solve_attempts_every_problem_and_resumes(model, tmp_path):
    pool = Dataset.from_list(lab.pool(3, seed=1), features=COLUMNS)
    sampling = {"samples": 2, "temperature": 1.0, "max_new_tokens": 6, "seed": 3}
    settings = FilterSettings(sampling=sampling, keep=(0, 0))
    first = solving.solve(pool, model, settings, ENGINE, "Answer.", tmp_path)
    assert first.column_names == ["id", "sample", "text", "tokens", "finished", "correct"]
    pairs = list(zip(first["id"], first["sample"], strict=True))
    assert pairs == [(name, sample) for name in pool["id"] for sample in (0, 1)]
    assert all(verdict is not True for verdict in first["correct"])  # it knows nothing
    (store,) = tmp_path.glob("*.sqlite")
    before = store.stat().st_mtime_ns
    again = solving.solve(pool, model, settings, ENGINE, "Answer.", tmp_path)
    assert again.to_list() == first.to_list()
    assert store.stat().st_mtime_ns == before  # nothing was made again


def rows_of(table):
    return {(row["id"], row["sample"]): (row["text"], row["correct"]) for row in table}


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Forty problems, eight attempts of the lab's weak solver at each, in one store."""
    folder = tmp_path_factory.mktemp("solved")
    pool = Dataset.from_list(lab.pool(40, seed=1), features=COLUMNS)
    sampling = {"samples": 8, "temperature": 1.0, "max_new_tokens": 64, "seed": 3}

    def solve(**settings):
        settings = FilterSettings(sampling=sampling, **{"keep": (1, 2), **settings})
        engine = EngineSettings(batch_size=64, dtype="float32")
        attempts = solving.solve(pool, "lab:weak", settings, engine, SYSTEM_PROMPT, folder)
        counts = rates.solve_counts(attempts)
        return settings, attempts, rates.keep_by_rate(pool, counts, settings.keep)

    solve.pool, solve.folder = pool, folder
    return solve


@pytest.mark.parametrize(
    ("stop_every", "keep"), [(1, (1, 2)), (3, (0, 0)), (8, (1, 2))], ids=str
)
def test_stopping_changes_no_verdict(solved, stop_every, keep):
    """What is drawn is what would have been drawn, and less of it."""
    _, everything, whole = solved(keep=keep)
    settings, part, stopped = solved(keep=keep, stop_every=stop_every, never_stopped=5)
    assert stopped.kept["id"] == whole.kept["id"]
    assert stopped.dropped["id"] == whole.dropped["id"]
    # Other batches add up logits in another order, and a near tie may then fall otherwise.
    other = rows_of(part).items() - rows_of(everything).items()
    assert len(other) <= 0.02 * len(part)
    saved = len(everything) - len(part)
    assert (saved > 0) == (stop_every < 8)
    full = Counter(part["id"])
    sample = solving.never_stopped(solved.pool, settings)
    assert len(sample) == 5 and all(full[name] == 8 for name in sample)
    counts = rates.solve_counts(part)
    fair = solving.fair_counts(counts, solved.pool, settings)
    assert sorted(fair["id"]) == sample and set(fair["n"]) == {8}
    order = [(solved.pool["id"].index(name), n) for name, n in zip(part["id"], part["sample"],
             strict=True)]  # fmt: skip
    assert order == sorted(order)


def test_another_band_samples_nothing_again(solved):
    solved()
    (store,) = solved.folder.glob("*.sqlite")
    before = store.read_bytes()
    for keep in ((0, 0), (2, 7)):
        solved(keep=keep, stop_every=4)
    assert store.read_bytes() == before


def test_without_stopping_all_are_a_fair_sample(solved):
    settings, _, _ = solved()
    assert solving.never_stopped(solved.pool, settings) == sorted(solved.pool["id"])


def test_solve_of_nothing_says_so(tmp_path):
    settings = FilterSettings(sampling={"max_new_tokens": 1}, keep=(0, 0))
    with pytest.raises(ValueError, match="left none"):
        solving.solve(problems("a").select([]), "none", settings, ENGINE, "", tmp_path)


def test_attempts_are_graded_against_their_own_question():
    rows = [problem("a"), {**problem("b"), "answer": "7"}]
    texts = [("a", 0, "\\boxed{6}"), ("a", 1, "\\boxed{7}"), ("b", 0, "\\boxed{7}"),
             ("b", 1, "no idea"), ("a", 2, "\\boxed{6}")]  # fmt: skip
    answers = Dataset.from_list(
        [
            {"id": name, "sample": sample, "text": text, "tokens": 3, "finished": True}
            for name, sample, text in texts
        ]
    )
    graded = solving.grade_attempts(Dataset.from_list(rows, features=COLUMNS), answers)
    assert graded["correct"] == [True, False, True, False, True]


# ---------------------------------------------------------------- counting
def test_counts_have_three_values():
    counts = rates.solve_counts(attempts(a="++-?", b="----"))
    assert counts.to_list()[0] | {"low": 0, "high": 0} == {
        "id": "a", "correct": 2, "wrong": 1, "unverifiable": 1, "n": 4, "rate": 0.5,
        "low": 0, "high": 0,
    }  # fmt: skip
    assert counts[1]["correct"] == 0 and counts[1]["wrong"] == 4


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Jeffreys intervals, as in Brown, Cai and DasGupta (2001), table 5, to three digits
        (0, 7, 0.0, 0.292),
        (1, 7, 0.016, 0.501),
        (2, 7, 0.065, 0.648),
        (3, 7, 0.139, 0.766),
        (7, 7, 0.708, 1.0),
    ],
)
def test_jeffreys_interval(correct, n, low, high):
    found = rates.jeffreys(np.array([correct]), np.array([n]))
    assert [float(bound[0]) for bound in found] == pytest.approx([low, high], abs=6e-4)


def test_intervals_narrow_with_attempts():
    few, many = (rates.solve_counts(attempts(a="+-" * n))[0] for n in (2, 16))
    assert few["rate"] == many["rate"] == 0.5
    assert many["high"] - many["low"] < few["high"] - few["low"]


def test_no_attempts_cannot_be_counted():
    with pytest.raises(ValueError, match="no attempts"):
        rates.solve_counts(attempts(a="+").select([]))


def test_outcomes_follow_the_order_of_sampling_and_unverifiable_is_not_right():
    shuffled = attempts(a="+-?+", b="--").select([3, 1, 5, 0, 4, 2])
    found = rates.outcomes(shuffled)
    assert {name: tries.tolist() for name, tries in found.items()} == {
        "a": [True, False, False, True], "b": [False, False],
    }  # fmt: skip


def test_mean_interval_holds_the_mean_and_narrows_with_questions():
    rng = np.random.default_rng(1)
    few, many = rng.random(20), rng.random(500)
    widths = []
    for values in (few, many):
        mean, low, high = rates.mean_interval(values)
        assert mean == pytest.approx(values.mean()) and low < mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
    assert rates.mean_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    mean, low, high = rates.mean_interval([0.3])
    assert mean == 0.3 and np.isnan([low, high]).all()
    with pytest.raises(ValueError, match="no values"):
        rates.mean_interval([])


# ---------------------------------------------------------------- filtering
@pytest.mark.parametrize(
    ("marks", "keep", "reason"),
    [
        ("----", (0, 0), ""),
        ("+---", (0, 0), "too easy"),
        ("?---", (0, 0), "undecided"),  # it might have been solved
        ("+---", (1, 3), ""),
        ("+++-", (1, 3), ""),
        ("++++", (1, 3), "too easy"),
        ("----", (1, 3), "too hard"),
        ("?---", (1, 3), "undecided"),
        ("?+--", (1, 3), ""),  # stays either way
        ("?+++", (1, 3), "undecided"),
        ("?---", (2, 3), "too hard"),  # falls either way
    ],
)
def test_keep_by_rate(marks, keep, reason):
    counts = rates.solve_counts(attempts(a=marks))
    sieved = rates.keep_by_rate(problems("a"), counts, keep)
    assert (len(sieved.kept), len(sieved.dropped)) == ((0, 1) if reason else (1, 0))
    assert sieved.dropped.features == DROPPED
    assert [row["reason"].startswith(reason) for row in sieved.dropped] == [True] * bool(reason)


def test_filter_keeps_order_and_accounts_for_all():
    counts = rates.solve_counts(attempts(a="+-", b="--", c="++", d="-+", e="++"))
    sieved = rates.keep_by_rate(problems(*"dcbae"), counts, (1, 1))
    assert sieved.kept["id"] == ["d", "a"]
    assert sieved.dropped["id"] == ["c", "b", "e"]
    assert sieved.reasons() == {
        "too easy: more than 1 correct": 2,
        "too hard: fewer than 1 correct": 1,
    }


@pytest.mark.parametrize(
    ("counts", "keep", "message"),
    [
        (attempts(a="+-"), (0, 1), "never attempted, e.g. 'b'"),
        (attempts(a="+-", b="+"), (0, 1), "finish the sampling"),
        (attempts(a="++-", b="+-"), (0, 1), "finish the sampling"),
        (attempts(a="+-", b="--"), (2, 1), "may not exceed"),
    ],
)
def test_filter_says_what_is_wrong(counts, keep, message):
    with pytest.raises(ValueError, match=message):
        rates.keep_by_rate(problems("a", "b"), rates.solve_counts(counts), keep)


def test_reasons_can_be_counted_where_sampling_stopped_early():
    counts = rates.solve_counts(attempts(a="+", b="-+", c="--+", d="----"))
    sieved = rates.keep_by_rate(problems(*"abcd"), counts, (0, 0))
    assert sieved.reasons() == {"too easy: more than 0 correct": 3}


def test_a_question_that_is_settled_needs_no_more_attempts():
    counts = rates.solve_counts(attempts(a="+---", b="++", c="++++"))
    sieved = rates.keep_by_rate(problems("a", "b", "c"), counts, (0, 1))
    assert sieved.kept["id"] == ["a"]


# ---------------------------------------------------------------- balancing
def uneven():
    """Thirty problems of dial 3, ten of purse 3, three of dial 5."""
    cells = [("dial", 3)] * 30 + [("purse", 3)] * 10 + [("dial", 5)] * 3
    return Dataset.from_list(
        [
            problem(f"p{i:02d}", s, n, f"{s} with {i * 37 % 100}")
            for i, (s, n) in enumerate(cells)
        ],
        features=COLUMNS,
    )


@pytest.mark.parametrize(
    ("k", "sizes"),
    [(3, {1}), (9, {3}), (13, {5, 3}), (43, {30, 10, 3}), (99, {30, 10, 3})],
)
def test_cells_get_equal_shares_until_they_are_empty(k, sizes):
    chosen = choice.select(uneven(), k, seed=0)
    found = Counter(zip(chosen["subject"], chosen["level"], strict=True))
    assert len(chosen) == min(k, 43) and len(set(chosen["id"])) == len(chosen)
    assert set(found.values()) == sizes


def test_balance_is_deterministic_and_independent_of_order():
    one = choice.select(uneven(), 12, seed=4).to_list()
    assert choice.select(uneven().shuffle(seed=9), 12, seed=4).to_list() == one
    assert choice.select(uneven(), 12, seed=5).to_list() != one


def test_farthest_first_leaves_repetitions_out():
    questions = [
        "the cat sat on the mat", "the cat sat on the mats", "the cats sat on a mat",
        "integrate the sine of x", "三角形的面积是多少", "三角形的面积是多大",
    ]  # fmt: skip
    pool = Dataset.from_list(
        [problem(str(i), question=q) for i, q in enumerate(questions)], features=COLUMNS
    )
    for seed in range(5):
        chosen = choice.select(pool, 3, seed)
        groups = {"cat": 0, "sine": 0, "三角": 0}
        for question in chosen["question"]:
            groups[next(word for word in groups if word in question)] += 1
        assert set(groups.values()) == {1}
        assert chosen["similarity"][0] == 0 and max(chosen["similarity"]) < 0.5


def test_every_choice_is_the_farthest_of_its_cell():
    pool = uneven()
    vectors = np.random.default_rng(1).normal(size=(len(pool), 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    place = {name: i for i, name in enumerate(pool["id"])}
    cosine = np.clip(vectors @ vectors.T, 0, 1)
    chosen = choice.select(pool, 14, 3, vectors).to_list()
    taken = [place[chosen[0]["id"]]]
    for row in chosen[1:]:
        cell = [
            place[other["id"]] for other in pool
            if (other["subject"], other["level"]) == (row["subject"], row["level"])
        ]  # fmt: skip
        near = {i: cosine[i, taken].max() for i in cell if i not in taken}
        assert row["similarity"] == pytest.approx(min(near.values()), abs=1e-6)
        assert near[place[row["id"]]] == pytest.approx(min(near.values()), abs=1e-6)
        taken.append(place[row["id"]])


def test_hashed_cosines_are_those_of_tfidf():
    texts = [row["question"] for row in lab.pool(400, 1)]
    texts += ["the cat sat", "the cats sat", "integrate x", "三角形的面积", "三角形的周长"]
    full = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4)).fit_transform(texts)
    found = choice.tfidf(texts).toarray()
    off = np.abs(found @ found.T - (full @ full.T).toarray())
    assert off.mean() < 0.02 and off.max() < 0.2
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)


def test_the_choice_depends_on_no_processor_and_no_threads():
    """Ties of real questions are many; what BLAS adds up in which order decides none."""
    script = (
        "from datasets import Dataset\n"
        "from limo_nb import lab, selection\n"
        "pool = Dataset.from_list(lab.pool(250, 1)[:240])\n"
        "print(*selection.select(pool, 90, 0)['id'])"
    )
    chosen = set()
    for core, threads in (("Haswell", "1"), ("Sandybridge", "2")):
        cores = {"OPENBLAS_CORETYPE": core, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], env=os.environ | cores,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        chosen.add(done.stdout)
    assert len(chosen) == 1 and len(chosen.pop().split()) == 90


@pytest.mark.parametrize(
    ("questions", "k"),
    [(["A purse."], 1), (["A purse."], 3), (["Same."] * 4, 2)],
)
def test_small_and_equal_sets(questions, k):
    rows = [problem(str(i), question=q) for i, q in enumerate(questions)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = choice.select(Dataset.from_list(rows, features=COLUMNS), k, 0)
    assert len(chosen) == min(k, len(questions)) and chosen["similarity"][0] == 0


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1.0, 0.0]], r"shape \(1, 2\): need 2 rows"),
        ([[1.0], [1.0]], r"shape \(2, 1\)"),
        ([[1.0, 0.0], [0.0, 0.0]], "blank, or its vector zero"),
        ([[1.0, 0.0], [0.0, float("nan")]], "blank, or its vector zero"),
    ],
)
def test_vectors_must_fit(vectors, message):
    with pytest.raises(ValueError, match=message):
        choice.select(problems("a", "b"), 2, 0, vectors)


def test_vectors_of_any_length_are_compared_by_direction():
    chosen = choice.select(problems("a", "b"), 2, 0, [[9.0, 0.0], [10.0, 0.0]])
    assert chosen["similarity"] == [0, pytest.approx(1)]


def test_embeddings_can_take_the_place_of_words(model):
    """Distances decide: the two directions of the plane are both chosen."""
    pool = problems(*"abcd")
    angles = np.array([0.0, 0.1, 1.5, 1.6])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for seed in range(4):
        chosen = choice.select(pool, 2, seed, vectors)["id"]
        assert len({name in "ab" for name in chosen}) == 2
    turned = choice.select(pool.select([3, 2, 1, 0]), 2, 0, vectors[::-1])
    assert turned["id"] == choice.select(pool, 2, 0, vectors)["id"]


def test_embeddings_need_a_model(tmp_path):
    with pytest.raises(ValueError, match="no model for embeddings at .*config.json"):
        choice.embed(["A purse."], str(tmp_path))


def test_embeddings_do_not_depend_on_padding(model):
    texts = ["A dial of ten marks is at 7.", "A purse.", "A dial of ten marks is at 8."]
    together = choice.embed(texts, model)
    assert together.shape[0] == 3
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    alone = np.concatenate([choice.embed([text], model) for text in texts])
    assert np.allclose(together, alone, atol=1e-5)
    assert together[0] @ together[2] > together[0] @ together[1]


@pytest.mark.parametrize(
    ("sizes", "cells"),
    [((4, 4), 2.0), ((5,), 1.0), ((1, 1, 1, 1), 4.0), ((9, 1), 1.384)],
)
def test_cells_in_effect(sizes, cells):
    rows = [
        problem(f"{subject}{n}", subject=str(subject))
        for subject, size in enumerate(sizes)
        for n in range(size)
    ]
    table = Dataset.from_list(rows, features=COLUMNS)
    assert choice.cells_in_effect(table) == pytest.approx(cells, abs=1e-3)


def test_every_choice_has_a_reason():
    chosen = choice.select(uneven(), 5, seed=0)
    assert all(reason.startswith("kept because ") for reason in chosen["reason"])
    rare = next(row for row in chosen if row["level"] == 5)
    assert "dial, level 5 (3 candidates)" in rare["reason"]


@pytest.mark.parametrize(
    ("pool", "k", "message"),
    [(problems("a").select([]), 1, "left none"), (problems("a"), 0, "k is 0")],
)
def test_balance_says_what_is_wrong(pool, k, message):
    with pytest.raises(ValueError, match=message):
        choice.select(pool, k, seed=0)


# ---------------------------------------------------------------- exercises
@pytest.mark.parametrize("condition", [True, np.bool_(True), 3, lambda: 1 < 2])
def test_a_right_answer_is_called_correct(condition, capsys):
    exercises.check("exercise 4.1", condition, "count again")
    assert capsys.readouterr().out == "exercise 4.1: correct\n"


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (False, "not right yet. Hint: count again"),
        (None, "not right yet"),
        (..., "not answered yet"),
        (lambda: ..., "not answered yet"),
        (lambda: ... + 1, "met TypeError"),
        (np.array([True, False]), "met ValueError"),
    ],
)
def test_a_wrong_answer_raises_with_the_hint(condition, message, capsys):
    with pytest.raises(exercises.NotYet, match=message):
        exercises.check("exercise 4.1", condition, "count again")
    assert "correct" not in capsys.readouterr().out
