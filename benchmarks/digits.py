"""What Qwen2's rule for digits costs: a digit alone, or with the space before it.

    python benchmarks/digits.py --tokens 6000000

Two foundations of the lab are pretrained for equally many tokens, at the same time, with the
same seeds and the shipped recipe on a shorter schedule; only the rule differs by which a
tokenizer cuts texts. Qwen2 makes every digit a token of its own, so that a space before it is
one more; the other rule lets a digit carry its space, as some older tokenizers do. Printed:
tokens of a page, pages read, loss, and the share of many-step problems (`lab.ladder`, in no
benchmark and on no page) that each solves on a textbook page, greedy, with the paired
difference and its 95 % interval over problems. One pretraining seed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

import torch
from datasets import Dataset

from limo_nb import lab
from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.evaluation.attempts import grade_answers
from limo_nb.evaluation.estimates import (
    accuracy,
    difference,
)
from limo_nb.experiments.elicitation import (
    MANY,
    pooled,
)
from limo_nb.inference import (
    complete,
    open_engine,
)
from limo_nb.lab import pretrain, reading, texts
from limo_nb.lab.tokenizer import SPLIT
from limo_nb.lab.world import FAMILIES, MAX_STEPS, draw

RULES = {
    "digit alone (Qwen2)": SPLIT,
    "digit with its space": SPLIT.replace(r"\p{N}|", r" ?\p{N}|", 1),
}
SEED = 21  # of the problems


def page_lengths(tokenizer, count: int = 500) -> float:
    """Mean tokens of a textbook page."""
    rng = random.Random(SEED)
    drawn = [
        draw(rng, rng.choice(tuple(FAMILIES)), rng.randint(1, MAX_STEPS), "train")
        for _ in range(count)
    ]
    pages = [texts.worked_page(rng, problem).text for problem in drawn]
    return mean(map(len, tokenizer(pages)["input_ids"]))


def pretrained(rule: str, tokens: int, folder: Path) -> dict:
    """Pretrain a foundation whose tokenizer cuts by `rule`; save it under `folder`."""
    torch.set_num_threads(1)
    recipe = lab.recipes()["foundation"]
    phase = replace(recipe.pretrain, tokens=tokens)
    tokenizer = lab.make_tokenizer(split=RULES[rule])
    model = pretrain.new_model(recipe, tokenizer)
    rows: list[dict] = []

    def note(row: dict) -> None:
        rows.append(row)
        if len(rows) % 20 == 0:
            print(f"{rule}: {row['tokens']:,} tokens, loss {row['loss']}", flush=True)

    folder.mkdir(parents=True)
    pretrain.Training(model, tokenizer, phase, recipe.seed).run(folder / "state.pt", note)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return {
        "tokens a page": page_lengths(tokenizer),
        "pages read": len(rows) * reading.DOCUMENTS_PER_CHUNK,
        "loss at the end": mean(row["loss"] for row in rows[-5:]),
    }


def solved(model: Path, items: Dataset) -> Dataset:
    """The model's graded continuations of textbook pages."""
    prompts = [(row["id"], lab.worked_prompt(row["question"])) for row in items]
    settings = EngineSettings(kind="transformers", workers=2, batch_size=256, dtype="float32")
    with open_engine(settings, str(model)) as engine:
        answers = complete(
            engine, prompts, Sampling(max_new_tokens=512), model.parent / "answers.sqlite"
        )
    return pooled(grade_answers(items, answers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=6_000_000)
    parser.add_argument("--items", type=int, default=10, help="problems a family and level")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folders = [Path(work) / str(number) for number in range(len(RULES))]
        with ProcessPoolExecutor(len(RULES), mp_context=get_context("spawn")) as processes:
            made = list(
                processes.map(pretrained, RULES, [options.tokens] * len(RULES), folders)
            )
        levels = range(MANY[0], MANY[1] + 1)
        items = Dataset.from_list(lab.ladder(options.items, SEED, levels))
        results = [solved(folder / "model", items) for folder in folders]
    print(f"\n{options.tokens:,} tokens each; {len(items)} problems of {MANY} steps")
    for rule, facts, graded in zip(RULES, made, results, strict=True):
        found = accuracy([graded])
        print(
            f"{rule:22}", *(f"{name} {value:,.3f}" for name, value in facts.items()), sep="  "
        )
        print(f"{'':22}  solved {found.value:.3f} ({found.low:.3f}-{found.high:.3f})")
    gap = difference(results[1:], results[:1])
    print(f"second less first: {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})")


if __name__ == "__main__":
    main()
