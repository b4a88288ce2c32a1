"""How hard the lab's test problems should be: what the foundations can do on textbook pages.

    python benchmarks/lab_room.py MODEL... [--items 12]

Puts held-out problems of every family and number of steps to each model (a recipe's name or
a folder) at the foot of a textbook page, greedily, and prints the share that comes out right.
No chat and no fine-tuned model is asked. The last columns are the rule by which
`limo_nb.lab.items.STEPS_TESTED` was chosen: of all ranges of seven numbers of steps from 2 up,
the one whose mean share is nearest to 65 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from limo_nb import lab
from limo_nb.core.settings import EngineSettings, Sampling
from limo_nb.evaluation import grade_answers
from limo_nb.inference import complete, open_engine

SEED = 71  # of the problems; chapter 2 has others
AIM, WIDTH = 65.0, 7  # percent, and how many numbers of steps a range holds


def shares(model: str, items: int) -> pd.DataFrame:
    """Percent right, by family and number of steps."""
    levels = range(1, lab.MAX_STEPS + 1)
    asked = Dataset.from_list(lab.ladder(items, SEED, levels))
    prompts = [(row["id"], lab.worked_prompt(row["question"])) for row in asked]
    with tempfile.TemporaryDirectory() as folder:
        with open_engine(EngineSettings(kind="transformers", batch_size=256), model) as engine:
            store = Path(folder) / "answers.sqlite"
            made = complete(engine, prompts, Sampling(max_new_tokens=768), store, model)
        table = grade_answers(asked, made).to_pandas()
    table["right"] = 100.0 * table["correct"].eq(True)
    return table.pivot_table(index="benchmark", columns="level", values="right", sort=False)


def chosen(found: pd.Series) -> tuple[int, int, float]:
    """The range of steps whose mean share is nearest to the aim: low, high, its mean."""
    ranges = [
        (low, low + WIDTH - 1, found.loc[low : low + WIDTH - 1].mean())
        for low in range(2, lab.MAX_STEPS - WIDTH + 2)
    ]
    return min(ranges, key=lambda own: abs(own[2] - AIM))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("models", nargs="+")
    words.add_argument("--items", type=int, default=12)
    asked = words.parse_args()
    for name in asked.models:
        model = name if Path(name).exists() else f"lab:{name}"
        found = shares(model, asked.items)
        picked = found.apply(chosen, axis=1, result_type="expand")
        found["from"], found["to"], found["mean"] = picked[0], picked[1], picked[2]
        print(f"\n{name}: {np.nanmean(found[list(range(5, 9))]):.0f} % of 5 to 8 steps, "
              f"{np.nanmean(found[list(range(9, 17))]):.0f} % of 9 to 16")  # fmt: skip
        print(found.round(0).astype(int).to_string())


if __name__ == "__main__":
    sys.exit(main())
