"""What decontamination finds of planted items, and what it costs innocents (chapter 3).

    LIMO_NB_DATA=/path/to/folder python benchmarks/contamination.py [--seed 1]
        [--nearest MODEL [--rows 1000]] [--record FILE] [--reference FILE]

Planted are items of the ten benchmarks: the short ones with words around them, the others
inside other text or as a passage, and those with formulas as somebody writes them in
Unicode. Innocent are the problems of the real pools, as far as one can know, and problems
that end with a request which AIME's have in common. `--nearest` tells what a list by
sentence embeddings holds of a hundred paraphrases of our own (tests/data), and with `--rows`
how long it is on so many real problems. Two files of the package are made here: `--record`
writes the figures that chapter 3 shows to readers without the data (recorded.json),
`--reference` counts the common words and phrases of the real pools (common.json). Prints
Markdown tables, no text.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections import Counter
from datetime import date
from functools import partial
from pathlib import Path

from datasets import Dataset, concatenate_datasets, disable_progress_bars
from matplotlib._mathtext_data import tex2uni  # another table than the package's own

from limo_nb.core.machine import hardware
from limo_nb.evaluation.benchmarks import real_benchmarks
from limo_nb.problems import (
    count_catches,
    data_root,
    decontaminate,
    nearest_items,
    real_pool,
    words,
)
from limo_nb.problems.contamination import COMMON, Decontaminator
from limo_nb.problems.information import reference_of

LEAST = 50  # occurrences from which a word or pair is common
SIZES = (8, 13)
COMMAND = "python benchmarks/contamination.py --nearest MODEL --record FILE"
MARKS, TOP = (0.5, 0.6, 0.7, 0.8, 0.9), 3
AROUND = (
    "{} Justify.", "Explain how you know: {}", "First read this. {} Then give a reason.",
    "{} State all the rules that you use, one after the other, in the order of their use.",
)  # fmt: skip
SENTENCE = re.compile(r"(?<=[.?!])\s+")
PASSAGE = 20  # words of an item that leak without the others
UNPARSED = re.compile(r"\\begin|\[asy\]|!\[")  # nobody writes these on one line
GROUP = r"\s*(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\w|\\[A-Za-z]+))"
RAISED = str.maketrans("0123456789+-=()nixabckmtj", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣᵃᵇᶜᵏᵐᵗʲ")
LOWERED = str.maketrans("0123456789+-=()nixakmtj", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙᵢₓₐₖₘₜⱼ")
HALVES = {("1", "2"): "½", ("1", "3"): "⅓", ("2", "3"): "⅔", ("1", "4"): "¼", ("3", "4"): "¾"}
NAMED = """sin cos tan cot sec csc arcsin arccos arctan log ln lim max min gcd lcm det deg
mod""".split()
DOUBLE = {"R": "ℝ", "N": "ℕ", "Z": "ℤ", "Q": "ℚ", "C": "ℂ"}
PLAIN = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")


# ---------------------------------------------------------------- LaTeX as Unicode
def in_unicode(text: str) -> str:
    """`text` with its formulas as somebody types them without LaTeX."""
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ])|\\?\$|\\[()\[\]]", " ", text)
    text = re.sub(r"\\mathbb\s*\{?([A-Z])\}?", lambda m: DOUBLE.get(m[1], m[1]), text)
    text = re.sub(r"\\sqrt\s*\[3\]", "∛", text)
    text = re.sub(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", "°", PLAIN.sub(r"\1", text))
    for _ in range(3):  # groups in groups
        text = re.sub(rf"\\[dt]?frac{GROUP}{GROUP}", fraction, text)
        text = re.sub(rf"\\sqrt{GROUP}", lambda m: f"√{bracketed(m[1] or m[2])}", text)
    text = re.sub(rf"\^{GROUP}", partial(script, RAISED, "^"), text)
    text = re.sub(rf"_{GROUP}", partial(script, LOWERED, "_"), text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: tex_sign(m[1], m[1]), text)
    text = re.sub(r"[{}\\]", "", text)
    return " ".join(text.replace("-", "−").split())


def tex_sign(name: str, otherwise: str) -> str:
    """The character of a command, or its name if it is a function's; others are left out."""
    code = tex2uni.get(name)
    return chr(code) if code else f"{otherwise} " if name in NAMED else " "


def bracketed(text: str) -> str:
    return text if len(text) == 1 or text.isdigit() else f"({text})"


def fraction(found: re.Match) -> str:
    up, down = found[1] or found[2], found[3] or found[4]
    return HALVES.get((up, down)) or f" {bracketed(up)}/{bracketed(down)}"


def script(table: dict, sign: str, found: re.Match) -> str:
    """A raised or lowered group; as `^(…)` where Unicode lacks one of its characters."""
    text = (found[1] or found[2]).strip()
    if all(ord(letter) in table for letter in text):
        return text.translate(table)
    return f"{sign}{bracketed(text)}"


# ---------------------------------------------------------------- the sets
def planted(items: list[str], carriers: list[str], seed: int) -> dict[str, list[str]]:
    """Texts by kind, each of which repeats an item."""
    rng = random.Random(seed)
    short = [item for item in items if len(words(item)) < 13]
    long = rng.sample([item for item in items if len(words(item)) >= 25], 600)
    formulas = [
        item for item in items
        if re.search(r"\\[a-z]|[\^_]", item) and not UNPARSED.search(item)
    ]  # fmt: skip
    formulas = rng.sample(formulas, 600)
    cut = []
    for item in long:
        found = item.split(" ")
        start = rng.randrange(max(1, len(found) - PASSAGE + 1))
        cut.append(" ".join(found[start : start + PASSAGE]))
    return {
        "short items, words around": [way.format(item) for item in short for way in AROUND],
        "longer ones inside other text": [
            f"{rng.choice(carriers)} {item} {rng.choice(carriers)}" for item in long
        ],
        f"{PASSAGE} words of one inside other text": [
            f"{rng.choice(carriers)} {item} {rng.choice(carriers)}" for item in cut
        ],
        "LaTeX written as Unicode": [in_unicode(item) for item in formulas],
        "the same inside other text": [
            f"{rng.choice(carriers)} {in_unicode(item)} {rng.choice(carriers)}"
            for item in formulas
        ],
    }


def requests(pool: list[dict], carriers: list[str], seed: int) -> list[str]:
    """600 problems of other sources that end as AIME's older problems end."""
    rng = random.Random(seed)
    ends = [SENTENCE.split(row["question"].strip())[-2:] for row in pool]
    ends = [" ".join(end) for end in ends if "relatively prime" in " ".join(end)]
    return [f"{rng.choice(carriers)} {rng.choice(ends)}" for _ in range(600)]


def rate(decontaminator: Decontaminator, texts: list[str]) -> str:
    """How many fall."""
    found = sum(decontaminator.match(text) is not None for text in texts)
    return f"{found} of {len(texts)}"


# ---------------------------------------------------------------- embeddings
def nearest_figures(model: str, pool: Dataset, items: Dataset) -> list[dict]:
    """What the list by `model` holds for each of MARKS, of our paraphrases and of `pool`."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    from paraphrases import CHANGED, ITEMS, PARAPHRASES, figures

    from limo_nb.selection import embed

    found = {n: len(decontaminate(PARAPHRASES, ITEMS, n).dropped) for n in SIZES}
    ngrams = {f"recall of {n}-grams": count / len(ITEMS) for n, count in found.items()}
    both = concatenate_datasets([PARAPHRASES, CHANGED])
    by_model = partial(embed, model=model)
    planted = nearest_items(both, ITEMS, by_model, TOP, min(MARKS))
    rows = [{"similarity from": mark} | figures(planted, mark) | ngrams for mark in MARKS]
    real = nearest_items(pool, items, by_model, TOP, min(MARKS)) if len(pool) else []
    for row in rows if real else []:
        near = {pair["id"] for pair in real if pair["similarity"] >= row["similarity from"]}
        row[f"real problems listed, of {len(pool):,}"] = len(near)
    return rows


# ---------------------------------------------------------------- telling
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--nearest", metavar="MODEL")
    parser.add_argument("--rows", type=int, default=0, help="real problems for --nearest")
    given = parser.parse_args()
    root = data_root()
    if root is None:
        raise SystemExit("set LIMO_NB_DATA: everything here is made of the real problems there")
    disable_progress_bars()
    pool, items = real_pool(root), real_benchmarks(root)
    if given.reference:
        made = reference_of(map(words, pool["question"]), LEAST)
        given.reference.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n")
        return
    print(f"{hardware()}; {len(pool):,} problems, {len(items):,} items; seed {given.seed}\n")
    rows = list(pool)
    carriers = [row["question"] for row in rows if row["source"] == "gsm8k"]
    texts = planted(items["question"][:], carriers, given.seed)
    texts["innocent: ends as AIME's problems do"] = requests(
        [row for row in rows if row["source"] == "aime"], carriers, given.seed
    )
    ways = {
        (size, common): Decontaminator(tuple(items["question"]), size, common=common)
        for size in SIZES for common in (0, COMMON)
    }  # fmt: skip
    names = [f"n = {n}" + (", common phrases left out" if c else "") for n, c in ways]
    print(f"| set | {' | '.join(names)} |\n|{' --- |' * (1 + len(ways))}")
    for kind, own in texts.items():
        print(f"| {kind} | {' | '.join(rate(way, own) for way in ways.values())} |")
    made = {
        "date": f"{date.today()}",
        "command": COMMAND,
        "problems": len(pool),
        "items": len(items),
    }
    made["catches"] = count_catches(pool, items, SIZES)
    tell([_wide(made["catches"], n, way) for n in SIZES for way in ("counted", "left out")])
    if given.nearest:
        some = pool.shuffle(given.seed).select(range(given.rows))
        made["paraphrases"] = nearest_figures(given.nearest, some, items)
        tell(made["paraphrases"])
    if given.record:
        given.record.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


def _wide(catches: list[dict], n: int, phrases: str) -> dict:
    """A line of the table: those that fall, by source and by share."""
    own = [row for row in catches if (row["n"], row["phrases"]) == (n, phrases)]
    line: Counter[str] = Counter()
    for row in own:
        for column in ("fall", f"of {row['source']}", f"share {row['share']}"):
            line[column] += row["problems"]
    return {"n": n, "common phrases": phrases} | line


def tell(rows: list[dict]) -> None:
    """`rows` as a Markdown table."""
    print(f"\n| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
        cells = (f"{v:.2f}" if isinstance(v, float) else f"{v}" for v in row.values())
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
