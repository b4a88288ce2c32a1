"""Reasoning chains: how good they are, what they contain, and which to keep.

LIMO v3 scores a chain by four dimensions (length 30 %, self-verification 20 %,
exploration 25 %, granularity 25 %) and counts keywords relative to the length of the
text. Words and weights stand in `chains.yaml` with their reasons. Not published, so ours:
a dimension grows linearly up to a reference and is 1 beyond it; the reference of a batch
is its 95th percentile; of equal scores the shorter chain wins. Chapter 5.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset, concatenate_datasets

from limo_nb.grading import final_answer
from limo_nb.verifiers import MATHEMATICS, SENTENCE, Verifier

DIMENSIONS = ("length", "verification", "exploration", "granularity")
CJK = "\u3400-\u9fff"
WORD = re.compile(rf"[{CJK}]|[^\W\d_{CJK}]+(?:['’][^\W\d_{CJK}]+)?|\d+(?:\.\d+)?")
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


def words(name: str, languages: Sequence[str] = ("en", "zh")) -> list[str]:
    """The words of a dimension, or of "backtracks", in the order of `chains.yaml`."""
    groups = _rules(name)["words"]
    return [word for group in groups for language in languages for word in group[language]]


def _rules(name: str) -> dict[str, Any]:
    rules = settings()
    return rules[name] if name in rules else rules["dimensions"][name]


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Matches the words of `name`, the longest first; what only looks like one, as group.

    English words are tried at the start of a word that has the right first letter, so
    that most places of a text are left at once.
    """
    exceptions = set(_rules(name)["not"])
    found = sorted({*words(name), *exceptions}, key=lambda word: (-len(word), word))
    chinese = [word for word in found if re.search(rf"[{CJK}]", word)]
    english = [word for word in found if word not in chinese]
    parts = [
        rf"(?<![a-z])(?=[{_initials(english)}])(?:{_either(english, exceptions)})(?![a-z])",
        rf"(?=[{_initials(chinese)}])(?:{_either(chinese, exceptions)})",
    ]
    kept = [part for part, some in zip(parts, (english, chinese), strict=True) if some]
    return re.compile("|".join(kept) or "(?!)", re.IGNORECASE)


def _initials(found: list[str]) -> str:
    return "".join(sorted({re.escape(word[0]) for word in found}))


def _either(found: list[str], exceptions: set[str]) -> str:
    return "|".join(f"({_word(w)})" if w in exceptions else _word(w) for w in found)


def _word(word: str) -> str:
    ending = r"[a-z]*" if word.endswith("*") else ""
    return re.escape(word.rstrip("*")).replace(r"\ ", r"\s+").replace("'", "['’]") + ending


def _found(name: str, text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of the words of `name`, without those that only look like one."""
    for match in _pattern(name).finditer(text):
        if match.lastindex is None:
            yield match.span()


def keywords(text: str) -> list[tuple[int, int, str]]:
    """Where the scorer sees a word: (start, end, dimension), in order, not overlapping.

    Where words of two dimensions overlap, the earlier and then the longer one counts.
    """
    found = [(*span, name) for name in DIMENSIONS for span in _found(name, text)]
    kept: list[tuple[int, int, str]] = []
    for start, end, name in sorted(found, key=lambda hit: (hit[0], -hit[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, name))
    return kept


def count_words(text: str) -> float:
    """Words and numbers; `characters_per_word` Chinese characters count as one word."""
    characters = len(re.findall(f"[{CJK}]", text))
    others = sum(1 for _ in WORD.finditer(text)) - characters
    return others + characters / settings()["characters_per_word"] if characters else others


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
    length = count_words(text)
    if not length:
        raise ValueError("an empty chain has no score; drop it before scoring")
    counts = Counter(name for _, _, name in keywords(text))
    rates = {name: 100 * counts[name] / length for name in DIMENSIONS}
    return {**rates, "length": float(length)}


def score(text: str, scale: Scale | None = None) -> ChainScore:
    """The quality of a chain on `scale` (LIMO-sized chains if None); section 3.2 of v3.

    Raises ValueError for a text without words.
    """
    scale = scale or Scale.default()
    raw = _raw(text)
    return ChainScore(**{n: min(1.0, raw[n] / getattr(scale, n)) for n in DIMENSIONS})


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


# ---------------------------------------------------------------- collecting
def from_teachers(
    teachers: Sequence[str], solve: Callable[[str, Path], Dataset], folder: Path
) -> Dataset:
    """The attempts of several teachers in one table, with the column `teacher`.

    `solve(teacher, folder)` returns the attempts of one (`selection.solve`), and keeps
    its work in a folder of its own. Raises ValueError for no teacher, or one named twice.
    """
    if not teachers or len(set(teachers)) < len(teachers):
        raise ValueError(f"teachers are {list(teachers)}: name one or more, each once")
    tables = []
    for number, teacher in enumerate(teachers):
        attempts = solve(teacher, folder / f"teacher-{number}")
        tables.append(attempts.add_column("teacher", [teacher] * len(attempts)))
    return concatenate_datasets(tables)


def collect(
    problems: Dataset,
    attempts: Dataset,
    scale: Scale | None = None,
    verifier: Verifier = MATHEMATICS,
    count: Callable[[str], float] = count_words,
) -> Dataset:
    """The different correct, finished chains of `attempts`, with scores.

    `verifier` is that of the attempts (`selection.solve`); it finds where a chain is done.
    `count` is that of `measure`.

    Columns: question_id, teacher, sample, question, answer, solution (the chain),
    subject, level, score, the four dimensions, the fields of `Measures`, tokens. The
    scale is that of these chains unless given. Raises ValueError if no attempt is correct.
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
    texts = [row["text"].strip() for row in correct]
    scale = scale or Scale.of(texts)
    references = [by_id[row["id"]]["answer"] for row in correct]
    answered = first_right(texts, references, verifier)
    return Dataset.from_list(
        [
            _chain(by_id[row["id"]], row, score(text, scale), measure(text, place, True, count))
            for row, text, place in zip(correct, texts, answered, strict=True)
        ]
    )


def _different(attempts: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Attempts by question, teacher and sample, without repeated texts of a question."""
    seen = set()
    for row in sorted(attempts, key=lambda r: (r["id"], r.get("teacher", ""), r["sample"])):
        key = (row["id"], " ".join(row["text"].split()))
        if key not in seen:
            seen.add(key)
            yield row


def _chain(
    problem: Mapping[str, Any],
    attempt: Mapping[str, Any],
    parts: ChainScore,
    measures: Measures,
) -> dict:
    return {
        "question_id": problem["id"],
        "teacher": attempt.get("teacher", ""),
        "sample": attempt["sample"],
        **{name: problem[name] for name in ("question", "answer")},
        "solution": attempt["text"].strip(),
        **{name: problem[name] for name in ("subject", "level")},
        "score": parts.total,
        **asdict(parts),
        **asdict(measures),
        "tokens": attempt["tokens"],
    }


def teachers_table(attempts: Dataset, chains: Dataset, chosen: Dataset) -> list[dict]:
    """What each teacher gave: its samples, right ones, different chains, and chosen rows.

    Also the mean score of its chains, None without any.
    """
    tally = {name: Counter(table["teacher"]) for name, table in
             (("samples", attempts), ("chains", chains), ("chosen", chosen))}  # fmt: skip
    right = Counter(row["teacher"] for row in attempts if row["correct"])
    scores: dict[str, list[float]] = {}
    for row in chains:
        scores.setdefault(row["teacher"], []).append(row["score"])
    return [
        {
            "teacher": name,
            "samples": tally["samples"][name],
            "right": right[name],
            "chains": tally["chains"][name],
            "score": float(np.mean(scores[name])) if name in scores else None,
            "chosen": tally["chosen"][name],
        }
        for name in dict.fromkeys(attempts["teacher"])
    ]


# ---------------------------------------------------------------- choosing
def _order(row: Mapping[str, Any]) -> tuple:
    """Best first; of equal scores the shorter chain, then the earlier teacher and sample."""
    length = _tie(row["tokens"])
    return (-row["score"], length, row["question_id"], row.get("teacher", ""), row["sample"])


def _tie(length: float) -> float:
    """What is smaller for the better of two chains with the same score."""
    return {"shorter": length, "longer": -length}[settings()["ties"]]


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
    return [
        {**row, "band": band + 1}
        for rows in _worst_first(ranked, bands).values()
        for band, row in enumerate(_evenly(rows, bands))
    ]


def _worst_first(ranked: list[dict], least: int) -> dict[str, list[dict]]:
    """The chains of every question that has at least `least`, worst first."""
    groups: dict[str, list[dict]] = {}
    for row in reversed(ranked):
        groups.setdefault(row["question_id"], []).append(row)
    groups = {key: rows for key, rows in groups.items() if len(rows) >= least}
    if not groups:
        raise ValueError(
            f"no question has {least} different correct chains: sample more chains per question"
        )
    return groups


def _evenly(rows: Sequence[dict], n: int) -> list[dict]:
    """`n` of `rows`, evenly spaced, the first and the last among them."""
    return [rows[round(place * (len(rows) - 1) / (n - 1))] for place in range(n)]


def _pool_bands(ranked: list[dict], bands: int) -> list[dict]:
    if len(ranked) < bands:
        raise ValueError(f"{len(ranked)} chains cannot fill {bands} bands")
    worst_first = ranked[::-1]
    return [
        {**row, "band": 1 + place * bands // len(worst_first)}
        for place, row in enumerate(worst_first)
    ]


def graded(
    rows: Sequence[Mapping[str, Any]],
    bands: int = 5,
    within: str = "pool",
    scale: Scale | None = None,
    count: Callable[[str], float] = count_words,
) -> list[dict[str, Any]]:
    """Score, level, dimensions and measures of every row (question, solution), in order.

    `level` is the band of equal size, 1 (worst) to `bands`, in the ranking of all rows
    ("pool") or of those with the same question ("question"); None in a group of fewer
    than `bands`. Of equal scores the shorter chain is better, then the earlier. An
    `answer` lets `after_answer` be measured. `count`, which is that of `measure`, tells
    lengths too. The scale is that of the rows unless given.
    """
    if within not in ("pool", "question"):
        raise ValueError(f'within is {within!r}: it may be "question" or "pool"')
    texts = [row["solution"] for row in rows]
    scale = scale or Scale.of(texts)
    answered = first_right(texts, [row.get("answer") or "" for row in rows])
    scores = [score(text, scale) for text in texts]
    groups: dict[Any, list[tuple]] = {}
    for place, (row, parts) in enumerate(zip(rows, scores, strict=True)):
        key = row["question"] if within == "question" else None
        rank = (parts.total, -_tie(count(row["solution"])), -place)
        groups.setdefault(key, []).append((rank, place))
    level = {
        place: 1 + rank * bands // len(group)
        for group in groups.values()
        if len(group) >= bands
        for rank, (_, place) in enumerate(sorted(group))
    }
    return [
        {"score": parts.total, "level": level.get(place), **asdict(parts),
         **asdict(measure(text, answered[place], rows[place].get("finished"), count))}
        for place, (text, parts) in enumerate(zip(texts, scores, strict=True))
    ]  # fmt: skip


def habits(row: Mapping[str, Any]) -> float:
    """The score of a chain without its length, scaled to lie between 0 and 1."""
    parts = {name: weight for name, weight in weights().items() if name != "length"}
    return sum(parts[name] * row[name] for name in parts) / sum(parts.values())


def matched_levels(chains: Dataset, bands: int = 2, tolerance: float = 0.1) -> Dataset:
    """The control beside `levels`: bands that differ in habits and not in length.

    Length is 30 % of the score, so L5 is longer than L1. Here every question gives the
    `bands` chains whose `habits` differ most among those whose token counts lie within
    `tolerance` of each other (ours; 0.1: the longest has at most 1.1 times the tokens of
    the shortest). Columns `habits` and `band`, 1 (poorest) to `bands`. Ordered by band,
    then question. Raises ValueError if no question has such chains.
    """
    if bands < 2 or tolerance < 0:
        raise ValueError(f"bands {bands}, tolerance {tolerance}: need at least 2, and 0")
    rows = [
        {**row, "band": band + 1}
        for group in _worst_first(_some(chains), bands).values()
        for band, row in enumerate(_widest(group, bands, tolerance))
    ]
    if not rows:
        raise ValueError(
            f"no question has {bands} chains within {tolerance:.0%} of the same length: "
            "sample more chains per question, or raise `tolerance`"
        )
    return Dataset.from_list(sorted(rows, key=lambda row: (row["band"], row["question_id"])))


def _widest(group: list[dict], bands: int, tolerance: float) -> list[dict]:
    """`bands` chains of equal length and the widest range of habits, poorest first."""
    rows = [{**row, "habits": round(habits(row), 9)} for row in group]
    best: list[dict] = []
    for shortest in rows:
        limit = shortest["tokens"] * (1 + tolerance)
        window = [row for row in rows if shortest["tokens"] <= row["tokens"] <= limit]
        window.sort(key=lambda row: (row["habits"], _order(row)))
        if len(window) >= bands and (not best or _range(window) > _range(best)):
            best = _evenly(window, bands)
    return best


def _range(rows: list[dict]) -> float:
    return rows[-1]["habits"] - rows[0]["habits"]


def levels_and_control(chains: Dataset, most: int = 5) -> dict[str, Dataset]:
    """`levels` and, as "matched", its control of equal length, as far as the chains allow.

    As many bands as ten questions, or half of them, can fill, at most `most`; a set that
    no question can fill is left out.
    """
    counts = np.array(list(Counter(chains["question_id"]).values()))
    enough = min(10, len(counts) / 2)
    bands = next((n for n in range(most, 1, -1) if (counts >= n).sum() >= enough), 0)
    if not bands:
        return {}
    found = {"levels": levels(chains, bands)}
    try:
        found["matched"] = matched_levels(chains)
    except ValueError:  # no two chains of a question are equally long
        pass
    return found
