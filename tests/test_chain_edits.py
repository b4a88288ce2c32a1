"""Edits of chains: one thing changes, the answer never does."""

import random
import re

import pytest

from limo_nb import lab
from limo_nb.chains import edits
from limo_nb.lab import texts

PLAIN = "1) plus 4: 7+4=1.\n2) minus 2: 1-2=9.\n3) times 3: 9*3=7.\n4) plus 1: 7+1=8."
CHAIN = (
    "1) plus 4: 7+4=1. Check: 7+4=1, right.\n"
    "Perhaps minus 3: 1-3=8? That is not this step. 2) minus 2: 1-2=9.\n"
    "3) times 3: 9*3=2. Check: 9*3=7, so not 2. 3) times 3: 9*3=7.\n"
    "4) plus 1: 7+1=8.\nSo the answer is \\boxed{8}"
)
END = "\nSo the answer is \\boxed{8}"


def test_checks_go_with_what_they_mended():
    without = edits.without_roles(CHAIN, {"check"})
    assert "Check" not in without and "9*3=2" not in without
    assert "Perhaps minus 3" in without and without.endswith("\\boxed{8}")


def test_without_detours_a_plain_chain_is_left():
    assert edits.without_roles(CHAIN, {"check", "exploration"}) == PLAIN + END
    assert edits.without_roles(PLAIN + END, {"check", "exploration"}) == PLAIN + END


def test_keywords_go_and_the_steps_stay():
    without = edits.without_keywords(CHAIN)
    assert "Perhaps" not in without and "Check" not in without and "So " not in without
    assert all(line.split(": ")[1] in without for line in PLAIN.split("\n"))


@pytest.mark.parametrize(("share", "steps"), [(0.0, 4), (0.34, 3), (0.67, 2), (1.0, 1)])
def test_a_share_of_the_steps_is_skipped_and_never_the_last(share, steps):
    short = edits.skipping(PLAIN + END, share, random.Random(1))
    assert len(re.findall(r"\d\) ", short)) == steps
    assert "4) plus 1" in short and short.endswith(END)


def test_a_short_solution_has_every_second_step():
    assert edits.shortened(CHAIN) == "2) minus 2: 1-2=9.\n4) plus 1: 7+1=8." + END


def test_shuffled_steps_are_the_same_in_another_order():
    other = edits.shuffled(PLAIN + END, random.Random(2))
    assert other != PLAIN + END and other.endswith(END)
    assert sorted(other.split("\n")) == sorted((PLAIN + END).split("\n"))


def test_corrupted_digits_are_others_and_the_answer_is_not_touched():
    other = edits.corrupted(PLAIN + END, 1.0, random.Random(3))
    assert len(other) == len(PLAIN + END) and other.endswith(END)
    pairs = zip(PLAIN, other, strict=False)
    assert all((a != b) == a.isdigit() for a, b in pairs)
    assert edits.corrupted(CHAIN, 0.0, random.Random(3)) == CHAIN


def test_texts_without_steps_are_left_alone():
    rng = random.Random(4)
    for text in ("", "\\boxed{3}", "No idea.\n\nNone at all."):
        same = [
            edits.skipping(text, 0.5, rng),
            edits.shuffled(text, rng),
            edits.shortened(text),
        ]
        assert same == [text] * 3 and edits.corrupted(text, 1.0, rng) == text


@pytest.mark.parametrize("family", lab.FAMILIES)
def test_the_lab_s_chains_are_read_step_by_step(family):
    """Of every family and manner: the steps are found, and nothing else is one."""
    rng = random.Random(family)
    problem = lab.FAMILIES[family](rng, 6)
    for _ in range(10):
        manner = texts.Manner(check=0.5, slip=0.3, explore=0.4, reason=0.3)
        text = texts.worked_solution(rng, problem, manner)
        plain = edits.without_roles(text, {"check", "exploration"})
        assert len(plain.split("\n")) == 7 and "Check" not in plain and "?" not in plain
        said = [
            step.equation() in line
            for step, line in zip(problem.steps, plain.split("\n"), strict=False)
        ]
        assert all(said), plain
        assert len(edits.shortened(text).split("\n")) == 4
        halved = edits.skipping(text, 0.6, rng).split("\n")
        assert len(halved) == 4 and problem.steps[-1].line() in halved[-2] + halved[-1]
