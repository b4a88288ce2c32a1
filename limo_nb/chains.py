"""Reasoning chains: how good they are, which to keep, how to show them.

LIMO v3 scores a chain by four dimensions (length 30 %, self-verification 20 %,
exploration 25 %, granularity 25 %) and counts keywords relative to the length of the
text. Words and weights stand in `chains.yaml` with their reasons. Not published, so ours:
a dimension grows linearly up to a reference and is 1 beyond it; the reference of a batch
is its 95th percentile; of equal scores the shorter chain wins. Chapter 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from importlib import resources
from typing import Any

import numpy as np
import yaml
from datasets import Dataset

DIMENSIONS = ("length", "verification", "exploration", "granularity")
CJK = "\u3400-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]+(?:['’][^\W\d_]+)?|\d+(?:\.\d+)?")
# A sentence of one line; "2. " at its start is a label and does not end it.
SENTENCE = re.compile(r"(?:\d{1,3}\.[ \t]+)?\S.*?(?:[.!?](?=\s|$)|[。！？]|$)", re.MULTILINE)
LABEL = re.compile(r"(?<!\S)\d{1,3}\)(?=\s)|(?m:^\s*\d{1,3}\.)(?=\s)|\b[Ss]tep \d{1,3}\b")
EQUATION = re.compile(r"\S\s*=\s*\S|\bgives\b|\bequals\b")


# ---------------------------------------------------------------- words
@cache
def settings() -> dict[str, Any]:
    """The content of `chains.yaml`."""
    text = resources.files("limo_nb").joinpath("chains.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def weights() -> dict[str, float]:
    """The published weight of each dimension; they add up to 1."""
    return {name: settings()["dimensions"][name]["weight"] for name in DIMENSIONS}


@cache
def _pattern(group: str) -> re.Pattern[str]:
    """Matches the words of a dimension, or of `backtracks`; the longest comes first."""
    rules = settings()
    words = rules[group] if group in rules else rules["dimensions"][group]["words"]
    parts = [_word(word) for word in sorted(words, key=len, reverse=True)]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE)


def _word(word: str) -> str:
    if re.search(rf"[{CJK}]", word):
        return re.escape(word)
    ending = r"[a-z]*" if word.endswith("*") else ""
    body = re.escape(word.rstrip("*")).replace(r"\ ", r"\s+").replace("'", "['’]")
    return rf"(?<![a-z]){body}{ending}(?![a-z])"


def keywords(text: str) -> list[tuple[int, int, str]]:
    """Where the scorer sees a word: (start, end, dimension), in order, not overlapping.

    Where words of two dimensions overlap, the earlier and then the longer one counts.
    """
    found = [
        (match.start(), match.end(), name)
        for name in DIMENSIONS
        for match in _pattern(name).finditer(text)
    ]
    kept: list[tuple[int, int, str]] = []
    for start, end, name in sorted(found, key=lambda hit: (hit[0], -hit[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, name))
    return kept


def count_words(text: str) -> int:
    """Words and numbers; every Chinese character counts as a word."""
    return sum(1 for _ in WORD.finditer(text))


# ---------------------------------------------------------------- score
@dataclass(frozen=True)
class Scale:
    """Where each dimension reaches 1: `length` in words, the others per 100 words."""

    length: float
    verification: float
    exploration: float
    granularity: float

    @staticmethod
    def default() -> Scale:
        """The scale of LIMO-sized chains, thousands of words long."""
        return Scale(**settings()["reference"])

    @staticmethod
    def of(texts: Iterable[str]) -> Scale:
        """The scale of a batch: the 95th percentile of what its chains show.

        A dimension that fewer than one chain in twenty shows is measured by the batch's
        largest value, and one that none shows by the default, so that it scores 0.
        """
        raw = [_raw(text) for text in texts]
        if not raw:
            raise ValueError("no chains: a scale needs at least one")
        values = {name: [row[name] for row in raw] for name in DIMENSIONS}
        reference = settings()["reference"]
        return Scale(
            **{
                name: float(np.quantile(column, settings()["quantile"]))
                or float(max(column))
                or float(reference[name])
                for name, column in values.items()
            }
        )


@dataclass(frozen=True)
class ChainScore:
    """The four dimensions of a chain, each between 0 and 1."""

    length: float
    verification: float
    exploration: float
    granularity: float

    @property
    def total(self) -> float:
        """The weighted sum, between 0 and 1; rounded so that equal chains tie."""
        parts = weights()
        return round(sum(parts[name] * getattr(self, name) for name in DIMENSIONS), 9)


def _raw(text: str) -> dict[str, float]:
    """Length in words and keyword occurrences per 100 words."""
    words = count_words(text)
    if not words:
        raise ValueError("an empty chain has no score; drop it before scoring")
    counts = dict.fromkeys(DIMENSIONS, 0.0)
    for _, _, name in keywords(text):
        counts[name] += 100 / words
    return {**counts, "length": float(words)}


def score(text: str, scale: Scale | None = None) -> ChainScore:
    """The quality of a chain on `scale` (LIMO-sized chains if None); section 3.2 of v3.

    Raises ValueError for a text without words.
    """
    scale = scale or Scale.default()
    raw = _raw(text)
    return ChainScore(**{n: min(1.0, raw[n] / getattr(scale, n)) for n in DIMENSIONS})


# ---------------------------------------------------------------- sentences
@dataclass(frozen=True)
class Features:
    """What a chain contains; measured beside its score, never weighted."""

    steps: int
    checks: int
    backtracks: int


def role(sentence: str) -> str:
    """What a sentence does, judged by its words: one of `ROLES`, or "plain"."""
    if "\\boxed" in sentence:
        return "answer"
    if _pattern("verification").search(sentence):
        return "check"
    if _pattern("exploration").search(sentence) or _pattern("backtracks").search(sentence):
        return "exploration"
    if LABEL.search(sentence):
        return "step"
    if _pattern("granularity").search(sentence):
        return "conclusion"
    return "step" if EQUATION.search(sentence) else "plain"


def features(text: str) -> Features:
    """Steps, checks and retreats of a chain.

    Steps are its different labels (`3)`, `3.`, `Step 3`), so that a mended step counts
    once; a chain whose labels cover less than a third of its equations is counted by its
    different sentences with an equation.
    """
    sentences = [match.group() for match in SENTENCE.finditer(text)]
    roles = [role(sentence) for sentence in sentences]
    labels = {"".join(re.findall(r"\d", match.group())) for match in LABEL.finditer(text)}
    working = {
        sentence
        for sentence, does in zip(sentences, roles, strict=True)
        if does in ("step", "conclusion") and EQUATION.search(sentence)
    }
    steps = len(labels) if 3 * len(labels) >= len(working) else len(working)
    backtracks = sum(1 for _ in _pattern("backtracks").finditer(text))
    return Features(steps, roles.count("check"), backtracks)


def sees_right(attempts: Dataset, scale: Scale) -> dict[str, float]:
    """How often a right chain outscores a wrong one of the same question, per question.

    Over all such pairs of finished attempts; a tie counts half. A score that knows
    nothing of the truth gives one half on average. Questions without a pair are left out.
    """
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for row in attempts:
        if row["finished"] and count_words(row["text"]):
            right_and_wrong = scores.setdefault(row["id"], ([], []))
            right_and_wrong[not row["correct"]].append(score(row["text"], scale).total)
    return {
        name: float(np.mean([(a > b) + 0.5 * (a == b) for a in right for b in wrong]))
        for name, (right, wrong) in scores.items()
        if right and wrong
    }


# ---------------------------------------------------------------- collecting and choosing
def collect(problems: Dataset, attempts: Dataset, scale: Scale | None = None) -> Dataset:
    """The different correct, finished chains of `attempts`, with scores.

    Columns: question_id, sample, question, answer, solution (the chain), subject, level,
    score, the four dimensions, steps, checks, backtracks, tokens. The scale is that of
    these chains unless given. Raises ValueError if no attempt is correct.
    """
    by_id = {row["id"]: row for row in problems}
    correct = list(_different(row for row in attempts if row["correct"] and row["finished"]))
    if not correct:
        raise ValueError(
            "no attempt is correct and finished: raise `samples` or `max_new_tokens`, "
            "or choose a stronger model"
        )
    unknown = {row["id"] for row in correct} - by_id.keys()
    if unknown:
        raise ValueError(f"attempts at questions not among the problems: {sorted(unknown)[:3]}")
    scale = scale or Scale.of(row["text"] for row in correct)
    return Dataset.from_list([_chain(by_id[row["id"]], row, scale) for row in correct])


def _different(attempts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Attempts in order of question and sample, without repeated texts of a question."""
    seen = set()
    for row in sorted(attempts, key=lambda row: (row["id"], row["sample"])):
        key = (row["id"], " ".join(row["text"].split()))
        if key not in seen:
            seen.add(key)
            yield row


def _chain(problem: Mapping[str, Any], attempt: Mapping[str, Any], scale: Scale) -> dict:
    parts = score(attempt["text"], scale)
    return {
        "question_id": problem["id"],
        "sample": attempt["sample"],
        **{name: problem[name] for name in ("question", "answer")},
        "solution": attempt["text"].strip(),
        **{name: problem[name] for name in ("subject", "level")},
        "score": parts.total,
        **asdict(parts),
        **asdict(features(attempt["text"])),
        "tokens": attempt["tokens"],
    }


def _order(row: Mapping[str, Any]) -> tuple:
    """Best first; of equal scores the shorter chain, then the earlier sample."""
    return (-row["score"], row["tokens"], row["question_id"], row["sample"])


def _some(chains: Dataset) -> list[dict]:
    if not len(chains):
        raise ValueError("no chains to choose from")
    return sorted(chains.to_list(), key=_order)


def best_per_question(chains: Dataset) -> Dataset:
    """The best-scored chain of every question, best first."""
    best: dict[str, dict] = {}
    for row in _some(chains):
        best.setdefault(row["question_id"], row)
    return Dataset.from_list(list(best.values()))


def best_rows(chains: Dataset, n: int) -> Dataset:
    """The `n` best (question, chain) pairs, one per question; fewer if there are fewer."""
    if n < 1:
        raise ValueError(f"n is {n}, but a training set has at least one row")
    best = best_per_question(chains)
    return best.select(range(min(n, len(best))))


def levels(chains: Dataset, bands: int = 5, within: str = "question") -> Dataset:
    """Chains in `bands` bands of quality: column `band`, 1 (worst) to `bands` (best).

    Within "question" (our reading of L1 to L5): every question with at least `bands`
    different chains gives one chain to every band, evenly spaced in its own ranking, so
    that the bands differ in chains only. Within "pool": the scores of all questions
    together are cut into bands of equal size, so that the bands differ in questions too.
    Ordered by band, then question. Raises ValueError if no question qualifies.
    """
    if bands < 2:
        raise ValueError(f"bands is {bands}: quality needs at least two bands to differ")
    if within == "pool":
        rows = _pool_bands(_some(chains), bands)
    elif within == "question":
        rows = _question_bands(_some(chains), bands)
    else:
        raise ValueError(f'within is {within!r}: it may be "question" or "pool"')
    return Dataset.from_list(
        sorted(rows, key=lambda r: (r["band"], r["question_id"], _order(r)))
    )


def _question_bands(ranked: list[dict], bands: int) -> list[dict]:
    groups: dict[str, list[dict]] = {}
    for row in reversed(ranked):  # worst first
        groups.setdefault(row["question_id"], []).append(row)
    groups = {key: rows for key, rows in groups.items() if len(rows) >= bands}
    if not groups:
        raise ValueError(
            f"no question has {bands} different correct chains: sample more chains per question"
        )
    return [
        {**rows[round(band * (len(rows) - 1) / (bands - 1))], "band": band + 1}
        for rows in groups.values()
        for band in range(bands)
    ]


def _pool_bands(ranked: list[dict], bands: int) -> list[dict]:
    if len(ranked) < bands:
        raise ValueError(f"{len(ranked)} chains cannot fill {bands} bands")
    worst_first = ranked[::-1]
    return [
        {**row, "band": 1 + place * bands // len(worst_first)}
        for place, row in enumerate(worst_first)
    ]


# ---------------------------------------------------------------- showing
# role -> (what the legend says, light background, dark background)
ROLES = {
    "step": ("step", "#dcebf7", "#173a55"),
    "check": ("check", "#d5efe5", "#0d4435"),
    "exploration": ("exploration or retreat", "#fbe9c6", "#57400a"),
    "conclusion": ("reason or conclusion", "#f3deeb", "#552b45"),
    "answer": ("answer", "#f9d9c7", "#66300f"),
}
# Sites and notebooks say in different ways that they are dark; where nothing is said the
# card is light. It paints its own opaque ground, so it is readable in either case.
DARK = (
    "html[data-theme=dark]", "html[theme=dark]", "[data-jp-theme-light=false]", ".vscode-dark",
)  # fmt: skip


@cache
def _style() -> str:
    light = "".join(f".limo-{name}{{background:{a}}}" for name, (_, a, _) in ROLES.items())
    dark = "".join(
        f"{','.join(f'{where} .limo-{name}' for where in DARK)}{{background:{b}}}"
        for name, (_, _, b) in ROLES.items()
    )
    card = ",".join(f"{where} .limo-chain" for where in DARK)
    return (
        "<style>.limo-pair{display:flex;flex-wrap:wrap;gap:.8rem;align-items:flex-start}"
        ".limo-pair>*{flex:1 1 18rem;min-width:0}.limo-title{font-weight:bold}"
        ".limo-chain{background:#fff;color:#1a1a1a;border:1px solid #bbb;border-radius:6px;"
        "padding:.6rem .8rem;margin:.3rem 0;line-height:1.6;font-size:.92em;text-align:left}"
        ".limo-text{white-space:pre-wrap;overflow-wrap:anywhere}"
        ".limo-chain span[class]{border-radius:3px;padding:0 .15em}"
        ".limo-chain u{text-decoration-style:dotted;text-underline-offset:3px}"
        ".limo-exploration{font-style:italic}.limo-answer{font-weight:bold}"
        ".limo-legend{font-size:.85em;margin-top:.5rem;display:flex;flex-wrap:wrap;gap:.5rem}"
        f"{light}{card}{{background:#1b1e23;color:#eceff3;border-color:#555}}{dark}"
        # The theme puts a light frame around HTML outputs in the dark; not around ours.
        "html[data-theme=dark] .cell_output .text_html:has(>.limo-chain,>.limo-pair)"
        "{background:none!important;padding:0!important}</style>"
    )


def to_html(text: str, title: str = "", legend: bool = True) -> str:
    """A chain as coloured HTML that needs nothing else, for notebooks and the site.

    Sentences are coloured by `role`; words that the scorer counts are underlined. All
    text is escaped. Wrap it in `IPython.display.HTML`.
    """
    return _style() + _card(text, title, legend)


def side_by_side(a: str, b: str, titles: tuple[str, str] = ("", "")) -> str:
    """Two chains beside each other, or below each other on a narrow page."""
    cards = "".join(
        _card(text, title, True) for text, title in zip((a, b), titles, strict=True)
    )
    return f'{_style()}<div class="limo-pair">{cards}</div>'


def _card(text: str, title: str, legend: bool) -> str:
    if not text.strip():
        raise ValueError("an empty chain cannot be shown")
    parts, done = [], 0
    for match in SENTENCE.finditer(text):
        parts.append(escape(text[done : match.start()]))
        parts.append(_sentence(match.group()))
        done = match.end()
    parts.append(escape(text[done:]))
    head = f'<div class="limo-title">{escape(title)}</div>' if title else ""
    # mathjax_ignore: a chain is shown as it was written, dollar signs included
    body = f'<div class="limo-text mathjax_ignore tex2jax_ignore">{"".join(parts)}</div>'
    return f'<div class="limo-chain">{head}{body}{_legend() if legend else ""}</div>'


def _sentence(sentence: str) -> str:
    does, pieces, done = role(sentence), [], 0
    for start, end, name in keywords(sentence):
        pieces.append(escape(sentence[done:start]))
        pieces.append(f'<u title="{name}">{escape(sentence[start:end])}</u>')
        done = end
    inner = "".join(pieces) + escape(sentence[done:])
    return inner if does == "plain" else f'<span class="limo-{does}">{inner}</span>'


def _legend() -> str:
    items = "".join(
        f'<span class="limo-{name}">{escape(says)}</span>'
        for name, (says, _, _) in ROLES.items()
    )
    return f'<div class="limo-legend">{items}<span><u>counted word</u></span></div>'
