"""A million problems through the pool's filters, beside two published ways (chapter 3).

    LIMO_NB_DATA=/path/to/folder python benchmarks/pool.py [--sizes 10000 100000 1000000]
        [--rivals 100000] [--folder /tmp/pool] [--base real] [--seed 1]

Builds pools from real problems: sentences of one problem are mixed with those of others,
numbers and names are drawn anew. Planted in them are exact copies, near duplicates (their
Jaccard index is at the threshold or above) and items of the ten benchmarks: whole and
respelled, inside other text, or a passage only. Then every size goes through
`problems.clean_pool` in a process of its own. Rivals, written here from their descriptions:
open-r1 builds the word n-grams of every row again for each benchmark; s1 keeps a lookup
of all n-grams of the whole pool. Prints Markdown tables; benchmarks/RESULTS.md has those
of the machine that it names.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, disable_progress_bars

from limo_nb.core.machine import hardware
from limo_nb.core.settings import PoolSettings
from limo_nb.evaluation.benchmarks import real_benchmarks
from limo_nb.problems import (
    COLUMNS,
    clean_pool,
    data_root,
    duplicates,
    jaccard,
    load_pool,
    ngrams,
    words,
)

NEAR, NGRAM = 0.8, 13  # the profiles gpu and paper
PASSAGE = NGRAM + 2  # words of an item that leak without the others
NAMES = "Ada Bela Chen Dora Emil Fay Gus Hana Igor June Kofi Lena Milo Nina Omar Pia".split()
NUMBER, SENTENCE = re.compile(r"\d+"), re.compile(r"(?<=[.?!])\s+")
NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")  # inside a sentence
TEXT = (str.upper, str.title, str.lower)
LATEX = (  # what changes no formula
    lambda text: text.replace("\\frac", "\\dfrac"),
    lambda text: text.replace("+", " + ").replace("=", "\\,=\\,"),
    lambda text: re.sub(r"\$([^$]+)\$", r"\\(\1\\)", text),
)
ANY = (lambda text: text.replace(" ", "  "), lambda text: text.replace(" ", "\n"))


# ---------------------------------------------------------------- the pool
class Maker:
    """Problems made of real ones, the same for a seed."""

    def __init__(self, questions: list[str], items: list[str], seed: int):
        self.rng = random.Random(seed)
        self.parts = [SENTENCE.split(question) for question in questions]
        self.items = items

    def varied(self) -> str:
        """One problem with some of its sentences exchanged, other numbers, other names."""
        own = list(self.rng.choice(self.parts))
        for _ in range(1 + len(own) // 3):
            place = self.rng.randrange(len(own))
            own[place] = self.rng.choice(self.rng.choice(self.parts))
        own.insert(
            self.rng.randrange(len(own) + 1), self.rng.choice(self.rng.choice(self.parts))
        )
        text = NUMBER.sub(
            lambda found: str(self.rng.randrange(10 ** len(found[0]))), " ".join(own)
        )
        return NAME.sub(lambda _: self.rng.choice(NAMES), text)

    def respelled(self, text: str) -> str:
        """`text` in another spelling that changes no problem."""
        spell = self.rng.choice(LATEX if "\\" in text or "$" in text else TEXT)
        return self.rng.choice(ANY)(spell(text))

    def near(self, text: str) -> str:
        """`text` with small edits, at NEAR or above; "" where none keeps to that."""
        parts = text.split(" ")
        for _ in range(5):
            edited = list(parts)
            for _ in range(1 + len(parts) // 60):
                edited[self.rng.randrange(len(edited))] = self.rng.choice(NAMES)
            made = " ".join(edited)
            sets = [ngrams(words(t), duplicates.SHINGLE) for t in (text, made)]
            if NEAR <= jaccard(*sets) < 1:
                return made
        return ""

    def leak(self, item: str) -> tuple[str, str]:
        """(kind, text) of a contamination; short items leak as wholes only."""
        kind = self.rng.choice(("whole", "inside", "passage"))
        parts = item.split()  # an item in Chinese is few of these, and leaks as a whole
        if kind == "whole" or len(parts) < PASSAGE:
            return "whole", self.respelled(item)
        if kind == "passage":
            start = self.rng.randrange(len(parts) - PASSAGE + 1)
            item = " ".join(parts[start : start + PASSAGE])
            if len(words(item)) < PASSAGE:  # signs alone are no words
                return self.leak(" ".join(parts))
        return kind, f"{self.varied()} {self.respelled(item)} {self.varied()}"

    def rows(self, size: int) -> Iterator[tuple[str, str, str]]:
        """`size` rows (id, question, answer) with what is planted among them."""
        items = self.rng.sample(self.items, min(len(self.items), size // 20))
        made = [("plain", "", 0)] * (size - len(items) - 2 * (size // 100))
        made += [("leak", item, 0) for item in items]
        made += [(kind, "", 0) for kind in ("exact", "near") for _ in range(size // 100)]
        self.rng.shuffle(made)
        earlier: list[tuple[str, str]] = []
        for number, (kind, item, _) in enumerate(made):
            answer = str(self.rng.randrange(1000))
            if kind == "leak":
                kind, text = self.leak(item)
            elif kind == "plain" or len(earlier) < 100:
                kind, text = "plain", self.varied()
                earlier.append((text, answer))
            else:
                text, answer = self.rng.choice(earlier)
                text = self.near(text) if kind == "near" else self.respelled(text)
            if not text:  # no edit was small enough
                kind, text = "plain", self.varied()
            yield f"{kind}-{number}", text, answer


def build(folder: Path, size: int, base: str, seed: int) -> Path:
    """The Arrow file of a pool of `size`, made unless it is there."""
    file = folder / f"pool-{size}-{seed}.arrow"
    if file.exists():
        return file
    clean = clean_pool(
        load_pool(PoolSettings(source=base, size=10**9)), benchmark_items(),
        PoolSettings(source=base, size=1, ngram=NGRAM, near_duplicate=NEAR),
    ).kept  # fmt: skip
    maker = Maker(list(clean["question"]), list(benchmark_items()["question"]), seed)
    partial, rows = file.with_suffix(".partial"), maker.rows(size)
    blank = {"solution": "", "source": "made", "subject": "", "level": 0}
    with pa.OSFile(str(partial), "wb") as sink:
        with pa.ipc.new_stream(sink, COLUMNS.arrow_schema) as writer:
            while batch := [
                {"id": name, "question": text, "answer": answer, **blank}
                for _, (name, text, answer) in zip(range(10_000), rows)  # noqa: B905
            ]:
                writer.write(pa.RecordBatch.from_pylist(batch, schema=COLUMNS.arrow_schema))
    partial.rename(file)
    return file


def benchmark_items() -> Dataset:
    """The items of the ten benchmarks."""
    return real_benchmarks(data_root())


# ---------------------------------------------------------------- the ways
def ours(pool: Dataset) -> tuple[set[str], dict]:
    """The ids that fall, and how many for which reason."""
    settings = PoolSettings(source="", size=1, ngram=NGRAM, near_duplicate=NEAR)
    cleaned = clean_pool(pool, benchmark_items(), settings)
    return set(cleaned.dropped["id"]), cleaned.reasons()


def plain_words(text: str) -> list[str]:
    """Lower-case words between white space, as both rivals take them."""
    return text.lower().split()


def runs(tokens: list[str]) -> Iterator[str]:
    """All n-grams; none where there are fewer words."""
    return (" ".join(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1))


def open_r1(pool: Dataset) -> tuple[set[str], dict]:
    """Per benchmark a set of n-grams, and those of every row built again for each."""
    items, fallen = benchmark_items(), set()
    for name in dict.fromkeys(items["benchmark"]):
        own = [row["question"] for row in items if row["benchmark"] == name]
        wanted = {gram for question in own for gram in runs(plain_words(question))}
        for row in pool.select_columns(["id", "question"]):
            if not wanted.isdisjoint(runs(plain_words(row["question"]))):
                fallen.add(row["id"])
    return fallen, {"shares 13 words": len(fallen)}


def s1(pool: Dataset) -> tuple[set[str], dict]:
    """A lookup n-gram → rows of the whole pool; the items ask it."""
    lookup: dict[str, set[str]] = {}
    for row in pool.select_columns(["id", "question"]):
        for gram in runs(plain_words(row["question"])):
            lookup.setdefault(gram, set()).add(row["id"])
    fallen: set[str] = set()
    for question in benchmark_items()["question"]:
        for gram in runs(plain_words(question)):
            fallen |= lookup.get(gram, set())
    return fallen, {"shares 13 words": len(fallen)}


WAYS = {"ours": ours, "open-r1": open_r1, "s1": s1}


# ---------------------------------------------------------------- measuring
def measure(way: str, file: Path) -> None:
    """Run one way in this process; print what it found as JSON."""
    disable_progress_bars()
    started = time.monotonic()
    pool = Dataset.from_file(str(file))
    fallen, reasons = WAYS[way](pool)
    seconds = time.monotonic() - started
    planted, found = Counter(), Counter()
    for name in pool["id"]:
        kind = name.split("-")[0]
        planted[kind] += 1
        found[kind] += name in fallen
    recall = {kind: found[kind] / planted[kind] for kind in sorted(planted)}
    facts = {"way": way, "size": len(pool), "seconds": seconds, "reasons": reasons}
    print(json.dumps(facts | {"recall": recall, "planted": planted}))


def watched(way: str, file: Path) -> dict:
    """`measure` in a process of its own, with the peak memory of it and its children."""
    command = [sys.executable, __file__, "--measure", way, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(resident, family(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{way} on {file} ended with status {process.returncode}")
    return json.loads(process.stdout.read().splitlines()[-1]) | {"gib": peak / 2**20}


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        try:
            tasks = Path(f"/proc/{parent}/task").iterdir()
            found += [int(p) for t in tasks for p in (t / "children").read_text().split()]
        except OSError:
            continue  # it has ended
    return found


def resident(pid: int) -> int:
    """Resident KiB of a process; 0 if it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) if found else 0


# ---------------------------------------------------------------- telling
def table(rows: list[dict]) -> str:
    """A Markdown table of measurements."""
    kinds = ("exact", "near", "whole", "inside", "passage")
    lines = [
        "| way | problems | seconds | s per 100,000 | GiB | plain that fall | "
        + " | ".join(f"recall {kind}" for kind in kinds) + " |",
        "|" + " --- |" * (6 + len(kinds)),
    ]  # fmt: skip
    for row in rows:
        found = [f"{row['recall'][kind]:.4f}" for kind in kinds]
        rate = 1e5 * row["seconds"] / row["size"]
        lines.append(
            f"| {row['way']} | {row['size']:,} | {row['seconds']:.1f} | {rate:.2f} | "
            f"{row['gib']:.2f} | {100 * row['recall']['plain']:.2f} % | {' | '.join(found)} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--rivals", type=int, default=10**5)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/pool"))
    parser.add_argument("--base", default="real")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measure", nargs=2)
    given = parser.parse_args()
    if given.measure:
        measure(given.measure[0], Path(given.measure[1]))
        return
    if data_root() is None:
        raise SystemExit("set LIMO_NB_DATA: the pool is made of the real problems there")
    given.folder.mkdir(parents=True, exist_ok=True)
    print(f"{hardware()}; near duplicates from {NEAR}, {NGRAM} words; seed {given.seed}\n")
    files = {n: build(given.folder, n, given.base, given.seed) for n in given.sizes}
    rows = [watched("ours", files[size]) for size in given.sizes]
    print(table(rows))
    small, large = rows[0], rows[-1]
    if large["size"] > small["size"]:
        slope = math.log(large["seconds"] / small["seconds"]) / math.log(
            large["size"] / small["size"]
        )
        print(f"\nCost grows with the number of problems to the power of {slope:.2f}.")
    distinct = 100 * (1 - large["recall"]["plain"])
    print(f"Of the rows without anything planted, {distinct:.2f} % are distinct and clean.")
    print(f"What falls of {large['size']:,}: {json.dumps(large['reasons'])}")
    print(f"Planted: {json.dumps(large['planted'])}\n")
    file = build(given.folder, given.rivals, given.base, given.seed)
    print(table([watched(way, file) for way in WAYS]), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
