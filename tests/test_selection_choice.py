"""Choosing questions: balance over cells, farthest-first choice, what is compared."""

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
from limo_nb.problems import COLUMNS
from limo_nb.selection import choice


def problem(name, subject="dial", level=3, question=None):
    return {
        "id": name, "question": question or f"Question {name}?", "answer": "6", "solution": "",
        "source": "test", "subject": subject, "level": level,
    }  # fmt: skip


def problems(*names):
    return Dataset.from_list([problem(name) for name in names], features=COLUMNS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("model")))


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
