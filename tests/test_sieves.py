"""Texts compared: normal forms, hashed n-grams, near duplicates, several processes."""

import json
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limo_nb import lab
from limo_nb.problems import (
    duplicates,
)
from limo_nb.problems import (
    text as problems_text,
)
from limo_nb.problems.contamination import (
    Exam,
    Tokens,
)
from limo_nb.problems.duplicates import Shingles

SAME = [
    ("Find  $x$\n", "find x"),
    (r"Is $\dfrac{1}{2}$ big?", r"is \(\frac{1}{2}\)  big?"),
    (r"$\tfrac12 + \frac 3 4$", r"$\frac{1}{2} + \frac{3}{4}$"),
    (r"$\left( a , b \right)$", "(a,b)"),
    (r"$\bigl( a \Bigr)$", "(a)"),
    (r"a\,b\!c \quad d", "a b c d"),
    (r"a \hspace{1em} b\\ c", r"a b\\c"),
    (r"costs \$5, 20\% of it", "costs $5, 20% of it"),
    ("Ｆｉｎｄ\u200b x", "find x"),
    ("$m_{}$", "m"),
]
DIFFERENT = [
    ("1 4/5", "14/5"),
    ("a b", "ab"),
    (r"\frac12", r"\leftarrow 12"),
    ("-1", "1"),
    (r"a \parallel b", "a allel b"),
    (r"\text{ if } x", "x"),
    (r"x \kern y", "x y"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_normalise_ignores(one, other):
    assert problems_text.normalise(one) == problems_text.normalise(other)


@pytest.mark.parametrize(
    "space",
    r"""\quad \enskip \space \thinspace \medspace \thickspace \negthinspace \negmedspace
    \negthickspace \hfill \hfil \hss \vfill \vfil \vss \noindent \indent \par \newline
    \linebreak \nobreak \allowbreak \smallskip \medskip \bigskip \hspace{1em} \hspace*{1em}
    \vspace{-2pt} \vspace*{1ex} \mspace{3mu} \hskip1mm \vskip-1.5em \mskip.5mu \kern+3pt
    \mkern3mu \hskip1em\relax \text{} \mbox{} \, \; \: \! \> ~""".split()
    + [r"\hskip 1 mm", r"\kern - 3. pt", r"\text{ }", "\\text {\n}", "\\ ", r"\HSKIP 1MM"],
)
def test_a_space_in_latex_is_a_space(space):
    assert problems_text.normalise(rf"2{space} x{space}+y") == "2 x+y"


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_normalise_keeps(one, other):
    assert problems_text.normalise(one) != problems_text.normalise(other)


ALPHABET = "ab C12$~_{}()+=,.\\\n frac\u200b已"


@given(st.text(ALPHABET, max_size=30))
@settings(max_examples=300, deadline=None)
def test_spaces_and_case_never_count(text):
    normal = problems_text.normalise(text)
    assert problems_text.normalise(f" {text}\n ") == normal
    assert problems_text.normalise(text.replace(" ", " \n ")) == normal
    assert problems_text.words(text.upper()) == problems_text.words(text)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("已知 x=2，求y", ["已", "知", "x", "2", "求", "y"]),
        ("2x and 2 x", ["2", "x", "and", "2", "x"]),
        (r"$\dfrac{1}{2}$", ["frac", "1", "2"]),
        ("?!", []),
    ],
)
def test_words(text, tokens):
    assert problems_text.words(text) == tokens


# ---------------------------------------------------------------- hashed n-grams
ROWS = st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=6)


@given(ROWS, st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_hashes_are_equal_where_ngrams_are(rows, n):
    hashes, starts = Tokens.of(rows).grams(n)
    grams = [
        " ".join(row[i : i + n])
        for row in rows
        for i in range(max(len(row) - n + 1, min(len(row), 1)))
    ]
    assert len(hashes) == len(grams) == starts[-1]
    assert [len(problems_text.ngrams(row, n)) for row in rows] == [
        len(set(own.tolist())) for own in np.split(hashes, starts[1:-1])
    ][: len(rows)]
    assert len(set(hashes.tolist())) == len(set(grams))
    assert len(set(zip(grams, hashes.tolist(), strict=True))) == len(set(grams))


def test_a_short_row_is_no_part_of_a_longer_one():
    hashes, _ = Tokens.of([["a", "b"], ["a", "b", "c"]]).grams(3)
    assert hashes[0] != hashes[1]


# ---------------------------------------------------------------- near duplicates
QUESTIONS = list(dict.fromkeys(row["question"] for row in lab.pool(150, 5)))


@pytest.mark.parametrize("near", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("answers", ["same", "none", "mixed"])
def test_hashing_proposes_what_all_pairs_find(near, answers):
    given = {"same": ["1"], "none": [""], "mixed": ["1", "2", ""]}[answers]
    given = [given[n % len(given)] for n in range(len(QUESTIONS))]
    sets = [problems_text.ngrams(problems_text.words(q), duplicates.SHINGLE) for q in QUESTIONS]
    wanted = {
        (b, a)
        for a, b in combinations(range(len(QUESTIONS)), 2)
        if problems_text.jaccard(sets[a], sets[b]) >= near
        and (given[a] == given[b] or not given[a] or not given[b])
    }
    marks = duplicates.mark([QUESTIONS], len(QUESTIONS), near)
    pairs = duplicates.candidates(marks.signatures, given, near)
    found = set(map(tuple, pairs.tolist()))
    assert len(wanted - found) <= 0.02 * len(wanted)
    assert all(given[a] == given[b] or not given[a] or not given[b] for a, b in found)
    assert pairs.tolist() == sorted(pairs.tolist()) and all(b > a for b, a in found)


def test_likeness_is_the_jaccard_index():
    rows = np.arange(20)
    shingles = Shingles(rows, [QUESTIONS[:7], QUESTIONS[7:20]])
    sets = [problems_text.ngrams(problems_text.words(q), duplicates.SHINGLE) for q in QUESTIONS]
    for one, other in combinations(rows.tolist(), 2):
        assert shingles.jaccard(one, other) == problems_text.jaccard(sets[one], sets[other])


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99, 1.0])
def test_bands_miss_a_pair_at_the_threshold_once_in_two_hundred(threshold):
    count = duplicates.bands(threshold)
    rows = duplicates.PERMUTATIONS // count
    assert 1 - (1 - threshold**rows) ** count >= 0.995


def test_a_crowd_costs_no_square():
    signatures = duplicates.sketches([["one", "and", "all"]] * 1500, 0.9)
    pairs = duplicates.candidates(signatures, ["1"] * 1500, 0.9)
    assert len(pairs) < 1500 * duplicates.CROWD
    assert set(pairs[:, 0]) == set(range(1, 1500))  # each has its leader
    gone = duplicates.repeated(pairs, lambda *_: 1.0, 0.9)
    assert {earlier for earlier, _ in gone.values()} == {0} and len(gone) == 1499


# ---------------------------------------------------------------- the exam
def test_the_net_holds_whatever_matches():
    exam = Exam(tuple(QUESTIONS[::5]), ngram=8)
    net = exam.net()
    rows = [problems_text.words(question) for question in QUESTIONS]
    held = net.holds(rows, Tokens.of(rows))
    matches = [exam.match(question) for question in QUESTIONS]
    assert [match is not None for match in matches] == held.tolist()
    for place in range(0, len(QUESTIONS), 5):
        found = matches[place]
        assert rows[5 * found.item] == rows[place] and found.overlap == 1.0


@pytest.mark.parametrize("items", [(), ("?",)])
def test_an_exam_without_words_holds_nothing(items):
    marks = duplicates.mark([["?", "One two"]], 2, exam=Exam(items))
    assert not marks.suspects.any()


def test_no_questions_at_all():
    marks = duplicates.mark([], 0, 0.9, Exam(("One two three",)))
    assert (len(marks.exact), len(marks.suspects)) == (0, 0)
    assert len(duplicates.candidates(marks.signatures, [], 0.9)) == 0


# ---------------------------------------------------------------- processes
SCRIPT = """
import json
from limo_nb import lab, sieves
rows = [row["question"] for row in lab.pool(150, 5)]
parts = [rows[:40], rows[40:90], rows[90:]]
for workers in (1, 2):
    marks = sieves.mark(parts, len(rows), 0.8, sieves.Exam(tuple(rows[:9])), workers)
    print(json.dumps([[d.hex() for d in marks.exact],
                      [signature.digest() for signature in marks.signatures],
                      marks.suspects.tolist()]))
"""


def test_workers_change_nothing_and_a_script_needs_no_guard(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    alone, shared = map(json.loads, done.stdout.splitlines())
    assert alone == shared and len(alone[0]) == 150
