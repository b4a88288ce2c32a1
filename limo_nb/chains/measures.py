"""What chains contain, measured beside the score and never weighted (chapter 5).

Steps, checks, thoughts taken back, repetition, mixed languages, a missing end, and how much
comes after the first right answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import NamedTuple

from limo_nb.chains.scoring import (
    WORD,
    ChainScore,
    Reading,
    Scale,
    Span,
    chain_rules,
    count_words,
    occurrences,
    without_overlap,
)
from limo_nb.core.machine import cores
from limo_nb.core.progress import progress_bar
from limo_nb.grading.extraction import final_answer
from limo_nb.grading.verifiers import BY_REFERENCE, SENTENCE, Verifier

LABEL = re.compile(r"(?<!\S)\d{1,3}\)(?=\s)|(?m:^\s*\d{1,3}\.)(?=\s)|\b[Ss]tep \d{1,3}\b")
EQUATION = re.compile(r"\S\s*=\s*\S|\bgives\b|\bequals\b")
FORMULA = re.compile(r"\$[^$\n]*\$|\\[a-zA-Z]+|\b[^\W\d_]\b")  # no language: $…$, \frac, x
FOREIGN = re.compile(r"[^\W\d_\x00-\x7f]")  # a letter that may be of another script
IN_PARTS_FROM, PART = 20_000, 2_000  # chains that are read by several processes, and a part
ENDS = (".", "!", "?", "。", "！", "？", "$", "]", ")", "`")  # of a text that was not cut


# ---------------------------------------------------------------- sentences
def sentences(text: str) -> list[str]:
    """The sentences of `text`; one never goes over the end of a line."""
    return SENTENCE.findall(text)


def role(sentence: str) -> str:
    """What a sentence does, judged by its words.

    One of "answer", "check", "exploration", "step", "conclusion", or "plain".
    """
    return _role(sentence, occurrences(sentence))


def _role(sentence: str, found: Sequence[Span]) -> str:
    """The same where the words that count are known."""
    if "\\boxed" in sentence:
        return "answer"
    seen = {name for _, _, name in without_overlap(found)}
    if "verification" in seen:
        return "check"
    if "exploration" in seen or any(name == "backtracks" for _, _, name in found):
        return "exploration"
    if LABEL.search(sentence):
        return "step"
    if "granularity" in seen:
        return "conclusion"
    return "step" if EQUATION.search(sentence) else "plain"


# ---------------------------------------------------------------- measures
@dataclass(frozen=True)
class Measures:
    """What a chain contains; shown beside its score, never weighted."""

    steps: int  # different labels, or different sentences with an equation
    checks: int  # sentences that test something
    backtracks: int  # thoughts that are taken back
    repetition: float  # share of the runs of four words that were there before (0 to 1)
    mixing: float  # share of the words outside the chain's main script (0 to 1)
    truncated: bool  # it stops before its end
    # Share of the tokens (of the words without a tokenizer) behind the first right answer.
    after_answer: float | None


def measure_chain(
    text: str,
    answered: int | None = None,
    finished: bool | None = None,
    count: Callable[[str], float] = count_words,
) -> Measures:
    """The measures of a chain.

    `answered` is where its first right answer ends (`first_right`), None if unknown;
    `finished` is what the engine said, None if nobody knows: then the text decides. `count`
    counts the tokens of a text (`inference.token_counter`); without it, words stand for
    them.
    """
    reading = Reading(text)
    after = _behind(text, answered, _length(reading, count), count)
    return replace(_measured(reading, finished), after_answer=after)


def _length(reading: Reading, count: Callable[[str], float]) -> float:
    return reading.length if count is count_words else count(reading.text)


def _behind(
    text: str, answered: int | None, length: float, count: Callable[[str], float]
) -> float | None:
    """The share of a chain behind the place `answered`."""
    return None if answered is None else count(text[answered:]) / max(length, 1)


def _measured(reading: Reading, finished: bool | None) -> Measures:
    """All but what comes after the answer."""
    text = reading.text
    steps, checks = _steps_and_checks(reading)
    return Measures(
        steps=steps,
        checks=checks,
        backtracks=sum(name == "backtracks" for _, _, name in reading.occurrences),
        repetition=_repetition(reading.words),
        mixing=mixing(text),
        truncated=looks_cut(text) if finished is None else not finished,
        after_answer=None,
    )


def _steps_and_checks(reading: Reading) -> tuple[int, int]:
    """Steps and checking sentences of a chain.

    Steps are its different labels (`3)`, `3.`, `Step 3`), so that a mended step counts
    once; a chain whose labels cover less than a third of its equations is counted by its
    different sentences with an equation.
    """
    text = reading.text
    places = [(match.start(), match.end()) for match in SENTENCE.finditer(text)]
    parts = [text[start:end] for start, end in places]
    words = _within(reading.occurrences, places)
    roles = [_role(part, own) for part, own in zip(parts, words, strict=True)]
    labels = {"".join(filter(str.isdigit, match[0])) for match in LABEL.finditer(text)}
    working = {
        part
        for part, does in zip(parts, roles, strict=True)
        if does in ("step", "conclusion") and EQUATION.search(part)
    }
    steps = len(labels) if 3 * len(labels) >= len(working) else len(working)
    return steps, roles.count("check")


def _within(found: Sequence[Span], places: Sequence[tuple[int, int]]) -> list[list[Span]]:
    """The spans that lie inside each of `places`; both are in order."""
    inside: list[list[Span]] = []
    at = 0
    for start, end in places:
        while at < len(found) and found[at][0] < start:
            at += 1
        own = at
        while own < len(found) and found[own][0] < end:
            own += 1
        inside.append([span for span in found[at:own] if span[1] <= end])
        at = own
    return inside


def repetition(text: str) -> float:
    """The share of the runs of four words that stood in the text before.

    seq-rep-4 of Welleck et al. 2020; near 1 where a chain goes round in a loop.
    """
    return _repetition(Reading(text).words)


def _repetition(words: list[str]) -> float:
    n = chain_rules()["repetition"]
    lower = [word.lower() for word in words]
    runs = len(lower) - n + 1
    different = len(set(zip(*(lower[i:] for i in range(n)), strict=False)))
    return 1 - different / runs if runs > 0 else 0.0


def mixing(text: str) -> float:
    """The share of the words that are not in the chain's main script, 0 for one script.

    Scripts are told by the Unicode names of letters; formulas and single letters are no
    language. A chain that begins in English and ends in Chinese shows here.
    """
    if not FOREIGN.search(text):
        return 0.0
    initials = Counter(word[0] for word in WORD.findall(FORMULA.sub(" ", text)))
    scripts: Counter[str] = Counter()
    for letter, times in initials.items():
        if letter.isalpha():
            script = unicodedata.name(letter, "OTHER").split()[0]
            size = 1 / chain_rules()["characters_per_word"] if script == "CJK" else 1
            scripts[script] += times * size
    return 1 - max(scripts.values()) / sum(scripts.values()) if scripts else 0.0


def looks_cut(text: str) -> bool:
    """Whether a text stops before its end, where no engine said so.

    True without an answer behind the thoughts (`<think>` that stays open counts), or if
    the last line neither ends as a sentence nor states the answer.
    """
    if final_answer(text) is None:
        return True
    last = (sentences(text) or [""])[-1].rstrip("*_ ")
    return not last.endswith(ENDS) and final_answer(last) is None


# ---------------------------------------------------------------- the first right answer
def first_right(
    texts: Sequence[str], references: Sequence[str], verifier: Verifier = BY_REFERENCE
) -> list[int | None]:
    """For each chain the place (characters) where its first right answer ends.

    Only statements count (in mathematics a box, "the answer is …"), since a number may also
    turn up on the way; they are judged as final answers are. None where no statement is
    right. The share of tokens behind it shows what a chain spends on doubting a right
    answer ("overthinking", Chen et al. 2024).
    """
    return _right_places(
        [list(verifier.statements(text)) for text in texts], references, verifier
    )


Statements = list[tuple[int, str]]  # where each ends, and what a verifier judges of it


def _right_places(
    stated: Sequence[Statements], references: Sequence[str], verifier: Verifier
) -> list[int | None]:
    """Where the first right one of each chain's statements ends."""
    pairs = [
        (reference, said)
        for found, reference in zip(stated, references, strict=True) if reference
        for _, said in found
    ]  # fmt: skip
    different = list(dict.fromkeys(pairs))
    verdicts = verifier.verify([r for r, _ in different], [said for _, said in different])
    right = {pair for pair, verdict in zip(different, verdicts, strict=True) if verdict.correct}
    return [
        next((end for end, said in found if (reference, said) in right), None)
        for found, reference in zip(stated, references, strict=True)
    ]


# ---------------------------------------------------------------- measures and score
@dataclass(frozen=True)
class Assessment:
    """All that is known of a chain: its score, its measures, its length (of `count`)."""

    score: ChainScore
    measures: Measures
    length: float


def assess(
    texts: Sequence[str],
    references: Sequence[str],
    finished: Sequence[bool | None],
    scale: Scale | None = None,
    verifier: Verifier = BY_REFERENCE,
    count: Callable[[str], float] = count_words,
) -> tuple[list[Assessment], Scale]:
    """(what is known of each of `texts`, the scale: theirs unless given); each is read once.

    `references` are the right answers, "" where there is none; the others are those of
    `measure_chain` and `first_right`.
    """
    rows = list(zip(texts, finished, strict=True))
    alone = verifier is not BY_REFERENCE or count is not count_words  # not handed on
    found = (
        [_read(*row, verifier, count) for row in rows]
        if alone or len(rows) < IN_PARTS_FROM
        else _read_in_parts(rows)
    )
    scale = scale or Scale.of_rates([own.rates for own in found])
    places = _right_places([own.stated for own in found], references, verifier)
    assessed = [
        Assessment(
            ChainScore.of_rates(own.rates, scale),
            replace(own.measures, after_answer=_behind(text, place, own.length, count)),
            own.length,
        )
        for text, place, own in zip(texts, places, found, strict=True)
    ]
    return assessed, scale


class _Read(NamedTuple):
    """A chain as it was read, before its statements are judged."""

    rates: dict[str, float]
    measures: Measures  # after_answer is not known yet
    length: float
    stated: Statements


def _read(
    text: str, finished: bool | None, verifier: Verifier = BY_REFERENCE,
    count: Callable[[str], float] = count_words,
) -> _Read:  # fmt: skip
    reading = Reading(text)
    measures = _measured(reading, finished)
    stated = list(verifier.statements(text))
    return _Read(reading.rates, measures, _length(reading, count), stated)


def _read_part(rows: Sequence[tuple[str, bool | None]]) -> list[_Read]:
    return [_read(*row) for row in rows]


def _read_in_parts(rows: Sequence[tuple[str, bool | None]]) -> list[_Read]:
    """The same by a process a core, in order, with progress."""
    parts = [rows[start : start + PART] for start in range(0, len(rows), PART)]
    found: list[_Read] = []
    with (
        ProcessPoolExecutor(cores(), get_context("spawn")) as pool,
        progress_bar(len(rows), "chains", "scoring") as bar,
    ):
        try:
            for part in pool.map(_read_part, parts):
                found += part
                bar.update(len(part))
        except BrokenProcessPool:  # a script without a main guard cannot be started twice
            found += _read_part(rows[len(found) :])
    return found
