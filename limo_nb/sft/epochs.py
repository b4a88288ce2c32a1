"""The model after every epoch, and the choice of one of them on held-out questions.

LIMO's released model is the best of fifteen epochs on the test sets (issue 22 there). With
`sft.keep_epochs` every epoch's model is kept, and `experiments.train` chooses among them by
questions that no model trains on and no benchmark holds. Chapter 6.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limo_nb.core.files import write_atomic, write_json

PARTS = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")


def keep(folder: Path, epoch: int, source: Path, tokenizer: Any) -> None:
    """Keep the weights that are in `source` as the model of `epoch` (from 1).

    They are linked where the file system can, so that a checkpoint's copy costs nothing.
    """
    target = folder / "epochs" / f"epoch-{epoch:02d}"
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _link_all(source, partial, PARTS)
    config = json.loads((partial / "config.json").read_text())
    write_json(partial / "config.json", {**config, "use_cache": True})
    tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _link_all(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for file in (file for pattern in patterns for file in source.glob(pattern)):
        try:
            os.link(file, target / file.name)
        except OSError:  # no links on this file system
            shutil.copy2(file, target / file.name)


def kept(folder: Path) -> dict[int, Path]:
    """The models of a run by epoch."""
    found = sorted((folder / "epochs").glob("epoch-[0-9]*[0-9]"))
    return {int(path.name.split("-")[1]): path for path in found}


def choose(folder: Path, right: Callable[[Path], int], asked: int) -> dict[str, Any]:
    """Make the epoch with the most right answers `folder/model`; what was found.

    `right` counts the right answers of a model to the `asked` held-out questions. Each
    count is written when it is known, so that a choice that was killed goes on. Of equals
    the earliest epoch is taken. `epochs.json` is written last.
    """
    record = folder / "epochs.json"
    if record.exists():
        return json.loads(record.read_text())
    models, counts = kept(folder), {}
    for epoch, model in models.items():
        place = folder / "epochs" / f"right-{epoch:02d}.json"
        if not place.exists():
            write_json(place, right(model))
        counts[epoch] = json.loads(place.read_text())
    best = best_of(counts)
    _use(folder, models[best], _sentence(best, counts, asked))
    write_json(record, {"chosen": best, "questions": asked, "right": counts})
    return json.loads(record.read_text())


def best_of(counts: Mapping[int, int]) -> int:
    """The epoch with the highest count, the earliest of equals."""
    return min(counts, key=lambda epoch: (-counts[epoch], epoch))


def _sentence(best: int, counts: Mapping[int, int], asked: int) -> str:
    return (
        f"- The model of epoch {best} of {len(counts)}: {counts[best]} of {asked} held-out "
        f"questions right (by epoch: {', '.join(map(str, counts.values()))}); chosen on them, "
        "so that this count flatters it\n"
    )


def _use(folder: Path, model: Path, sentence: str) -> None:
    """Put `model` into the place of the last epoch's, with its card and the `sentence`."""
    made, partial = folder / "model", folder / "model.partial"
    card = folder / "epochs" / "last-README.md"
    if not card.exists():
        write_atomic(card, (made / "README.md").read_text())
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _link_all(model, partial, ("*",))
    head, mark, rest = card.read_text().partition("\n- Rows:")
    write_atomic(partial / "README.md", f"{head}\n{sentence.rstrip()}{mark}{rest}")
    shutil.rmtree(made, ignore_errors=True)
    partial.rename(made)
