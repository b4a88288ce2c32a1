"""Reasoning chains: how good they are, what they contain, and which to keep.

LIMO v3 scores a chain by four dimensions (length 30 %, self-verification 20 %,
exploration 25 %, granularity 25 %) and counts keywords relative to the length of the
text. Words and weights stand in `scoring.yaml` with their reasons. Not published, so ours:
a dimension grows linearly up to a reference and is 1 beyond it; the reference of a batch
is its 95th percentile; of equal scores the shorter chain wins. Chapter 5.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from limo_nb.chains.scoring import WORD, _found, count_words, keywords, settings
from limo_nb.grading.extraction import final_answer
from limo_nb.grading.verifiers import (
    MATHEMATICS,
    SENTENCE,
    Verifier,
)

LABEL = re.compile(r"(?<!\S)\d{1,3}\)(?=\s)|(?m:^\s*\d{1,3}\.)(?=\s)|\b[Ss]tep \d{1,3}\b")
EQUATION = re.compile(r"\S\s*=\s*\S|\bgives\b|\bequals\b")


# ---------------------------------------------------------------- sentences
def sentences(text: str) -> list[str]:
    """The sentences of `text`; one never goes over the end of a line."""
    return SENTENCE.findall(text)


def role(sentence: str) -> str:
    """What a sentence does, judged by its words.

    One of "answer", "check", "exploration", "step", "conclusion", or "plain".
    """
    if "\\boxed" in sentence:
        return "answer"
    seen = {name for _, _, name in keywords(sentence)}
    if "verification" in seen:
        return "check"
    if "exploration" in seen or any(_found("backtracks", sentence)):
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


def measure(
    text: str,
    answered: int | None = None,
    finished: bool | None = None,
    count: Callable[[str], float] = count_words,
) -> Measures:
    """The measures of a chain.

    `answered` is where its first right answer ends (`first_right`), None if unknown;
    `finished` is what the engine said, None if nobody knows: then the text decides. `count`
    counts the tokens of a text (`generation.token_counter`); without it, words stand for
    them.
    """
    steps, checks = _steps_and_checks(text)
    after = None if answered is None else count(text[answered:]) / max(count(text), 1)
    return Measures(
        steps=steps,
        checks=checks,
        backtracks=sum(1 for _ in _found("backtracks", text)),
        repetition=repetition(text),
        mixing=mixing(text),
        truncated=looks_cut(text) if finished is None else not finished,
        after_answer=after,
    )


def _steps_and_checks(text: str) -> tuple[int, int]:
    """Steps and checking sentences of a chain.

    Steps are its different labels (`3)`, `3.`, `Step 3`), so that a mended step counts
    once; a chain whose labels cover less than a third of its equations is counted by its
    different sentences with an equation.
    """
    parts = sentences(text)
    roles = [role(part) for part in parts]
    labels = {"".join(re.findall(r"\d", match.group())) for match in LABEL.finditer(text)}
    working = {
        part
        for part, does in zip(parts, roles, strict=True)
        if does in ("step", "conclusion") and EQUATION.search(part)
    }
    steps = len(labels) if 3 * len(labels) >= len(working) else len(working)
    return steps, roles.count("check")


def repetition(text: str) -> float:
    """The share of the runs of four words that stood in the text before.

    seq-rep-4 of Welleck et al. 2020; near 1 where a chain goes round in a loop.
    """
    n = settings()["repetition"]
    found = [match.group().lower() for match in WORD.finditer(text)]
    runs = Counter(zip(*(found[i:] for i in range(n)), strict=False))
    return 1 - len(runs) / runs.total() if runs else 0.0


FORMULA = re.compile(r"\$[^$\n]*\$|\\[a-zA-Z]+|\b[^\W\d_]\b")  # no language: $…$, \frac, x


def mixing(text: str) -> float:
    """The share of the words that are not in the chain's main script, 0 for one script.

    Scripts are told by the Unicode names of letters; formulas and single letters are no
    language. A chain that begins in English and ends in Chinese shows here.
    """
    scripts: Counter[str] = Counter()
    for match in WORD.finditer(FORMULA.sub(" ", text)):
        letter = match.group()[0]
        if letter.isalpha():
            script = unicodedata.name(letter, "OTHER").split()[0]
            ideograph = script == "CJK"
            scripts[script] += 1 / settings()["characters_per_word"] if ideograph else 1
    return 1 - max(scripts.values()) / sum(scripts.values()) if scripts else 0.0


def looks_cut(text: str) -> bool:
    """Whether a text stops before its end, where no engine said so.

    True without an answer behind the thoughts (`<think>` that stays open counts), or if
    the last line neither ends as a sentence nor states the answer.
    """
    if final_answer(text) is None:
        return True
    last = (sentences(text) or [""])[-1].rstrip("*_ ")
    ended = last.endswith((".", "!", "?", "。", "！", "？", "$", "]", ")", "`"))
    return not ended and final_answer(last) is None


def first_right(
    texts: Sequence[str], references: Sequence[str], verifier: Verifier = MATHEMATICS
) -> list[int | None]:
    """For each chain the place (characters) where its first right answer ends.

    Only statements count (in mathematics a box, "the answer is …"), since a number may also
    turn up on the way; they are judged as final answers are. None where no statement is
    right. The share of tokens behind it shows what a chain spends on doubting a right
    answer ("overthinking", Chen et al. 2024).
    """
    stated = [list(verifier.statements(text)) for text in texts]
    pairs = [
        (reference, said)
        for found, reference in zip(stated, references, strict=True)
        for _, said in found
    ]
    different = list(dict.fromkeys(pairs))
    verdicts = verifier.verify([r for r, _ in different], [said for _, said in different])
    right = {pair for pair, verdict in zip(different, verdicts, strict=True) if verdict.correct}
    return [
        next((end for end, said in found if (reference, said) in right), None)
        for found, reference in zip(stated, references, strict=True)
    ]
