"""Near duplicates and contamination: hashed n-grams, proposals, verdicts, processes."""

import json
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limo_nb import lab
from limo_nb.problems import duplicates, jaccard, ngrams, words
from limo_nb.problems.contamination import Decontaminator
from limo_nb.problems.duplicates import Shingles
from limo_nb.problems.fingerprints import fingerprint
from limo_nb.problems.hashing import HashedWords

# ---------------------------------------------------------------- hashed n-grams
ROWS = st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=6)


@given(ROWS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_hashes_are_equal_where_ngrams_are(rows, n):
    hashes, starts = HashedWords.of(rows).ngrams(n)
    grams = [
        " ".join(row[i : i + n])
        for row in rows
        for i in range(max(len(row) - n + 1, min(len(row), 1)))
    ]
    assert len(hashes) == len(grams) == starts[-1]
    assert [len(ngrams(row, n)) for row in rows] == [
        len(set(own.tolist())) for own in np.split(hashes, starts[1:-1])
    ][: len(rows)]
    assert len(set(hashes.tolist())) == len(set(grams))
    assert len(set(zip(grams, hashes.tolist(), strict=True))) == len(set(grams))


def test_a_short_row_is_no_part_of_a_longer_one():
    hashes, _ = HashedWords.of([["a", "b"], ["a", "b", "c"]]).ngrams(3)
    assert hashes[0] != hashes[1]


# ---------------------------------------------------------------- near duplicates
QUESTIONS = list(dict.fromkeys(row["question"] for row in lab.pool(150, 5)))


@pytest.mark.parametrize("near", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("answers", ["same", "none", "mixed"])
def test_hashing_proposes_what_all_pairs_find(near, answers):
    given = {"same": ["1"], "none": [""], "mixed": ["1", "2", ""]}[answers]
    given = [given[n % len(given)] for n in range(len(QUESTIONS))]
    sets = [ngrams(words(q), duplicates.SHINGLE) for q in QUESTIONS]
    wanted = {
        (b, a)
        for a, b in combinations(range(len(QUESTIONS)), 2)
        if jaccard(sets[a], sets[b]) >= near
        and (given[a] == given[b] or not given[a] or not given[b])
    }
    found = fingerprint([QUESTIONS], len(QUESTIONS), near)
    pairs = duplicates.candidates(found.signatures, given, near)
    found = set(map(tuple, pairs.tolist()))
    assert len(wanted - found) <= 0.02 * len(wanted)
    assert all(given[a] == given[b] or not given[a] or not given[b] for a, b in found)
    assert pairs.tolist() == sorted(pairs.tolist()) and all(b > a for b, a in found)


def test_likeness_is_the_jaccard_index():
    rows = np.arange(20)
    shingles = Shingles(rows, [QUESTIONS[:7], QUESTIONS[7:20]])
    sets = [ngrams(words(q), duplicates.SHINGLE) for q in QUESTIONS]
    for one, other in combinations(rows.tolist(), 2):
        assert shingles.jaccard(one, other) == jaccard(sets[one], sets[other])


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_a_pair_at_the_threshold_once_in_two_hundred(threshold):
    count = duplicates.bands(threshold)
    rows = duplicates.PERMUTATIONS // count
    assert 1 - (1 - threshold**rows) ** count >= 0.995


def test_many_of_one_kind_cost_no_square():
    signed = duplicates.signatures([["one", "and", "all"]] * 1500, 0.9)
    pairs = duplicates.candidates(signed, ["1"] * 1500, 0.9)
    assert len(pairs) < 1500 * duplicates.MOST_MET
    assert set(pairs[:, 0]) == set(range(1, 1500))  # each has its leader
    gone = duplicates.repetitions(pairs, lambda *_: 1.0, 0.9)
    assert {earlier for earlier, _ in gone.values()} == {0} and len(gone) == 1499


# ---------------------------------------------------------------- contamination
def test_the_prefilter_suspects_whatever_matches():
    decontaminator = Decontaminator(tuple(QUESTIONS[::5]), ngram=8)
    rows = [words(question) for question in QUESTIONS]
    suspects = decontaminator.prefilter().suspects(rows)
    matches = [decontaminator.match(question) for question in QUESTIONS]
    assert [match is not None for match in matches] == suspects.tolist()
    for place in range(0, len(QUESTIONS), 5):
        found = matches[place]
        assert rows[5 * found.item] == rows[place] and found.overlap == 1.0


@pytest.mark.parametrize("items", [(), ("?",)])
def test_items_without_words_make_nothing_suspect(items):
    found = fingerprint([["?", "One two"]], 2, decontaminator=Decontaminator(items))
    assert not found.suspects.any()


def test_no_questions_at_all():
    found = fingerprint([], 0, 0.9, Decontaminator(("One two three",)))
    assert (len(found.exact), len(found.suspects)) == (0, 0)
    assert len(duplicates.candidates(found.signatures, [], 0.9)) == 0


# ---------------------------------------------------------------- processes
SCRIPT = """
import json
from limo_nb import lab
from limo_nb.problems.contamination import Decontaminator
from limo_nb.problems.fingerprints import fingerprint
rows = [row["question"] for row in lab.pool(150, 5)]
parts = [rows[:40], rows[40:90], rows[90:]]
for workers in (1, 2):
    found = fingerprint(parts, len(rows), 0.8, Decontaminator(tuple(rows[:9])), workers)
    print(json.dumps([[d.hex() for d in found.exact],
                      [signature.digest() for signature in found.signatures],
                      found.suspects.tolist()]))
"""


def test_workers_change_nothing_and_a_script_needs_no_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    alone, shared = map(json.loads, done.stdout.splitlines())
    assert alone == shared and len(alone[0]) == 150
