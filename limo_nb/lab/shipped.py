"""The lab's models, shipped with the package, and the digests that they must have."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limo_nb.core import files, machine
from limo_nb.lab.recipe import Recipe, recipes

MODELS = Path(__file__).parent / "models"


def model_path(name: str) -> Path:
    """The folder of shipped model `name`.

    Raises ValueError for an unknown name, FileNotFoundError with the command that
    makes the model where its weights are absent.
    """
    folder = MODELS / name
    if not (folder / "model.safetensors").exists():
        if name not in recipes():
            raise ValueError(f"no lab model {name!r}; there are {', '.join(recipes())}")
        found = sorted(path.parent.name for path in MODELS.glob("*/model.safetensors"))
        raise FileNotFoundError(
            f"the weights of lab:{name} are not in {folder} "
            f"(found: {', '.join(found) or 'none'}); `limo-nb lab pretrain {name}` makes them"
        )
    return folder


def digest(folder: Path) -> str:
    """SHA-256 of the weights in `folder`."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def verify() -> dict[str, bool]:
    """Whether each shipped model's weights have the digest recorded beside them."""
    found = {}
    for record in sorted(MODELS.glob("*/record.json")):
        recorded = json.loads(record.read_text())["sha256"]
        found[record.parent.name] = digest(record.parent) == recorded
    return found


def ship(name: str, work: Path) -> Path:
    """Put what `pretrain.build` left in `work` into the package, with log, record and card."""
    source, target = work / name, MODELS / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source / "model", target)
    shutil.copy(source / "log.jsonl", target / "log.jsonl")
    rows = [json.loads(line) for line in (source / "log.jsonl").read_text().splitlines()]
    recipe = recipes()[name]
    record = {
        "command": f"limo-nb lab pretrain {name}",
        "sha256": digest(target),
        "recipe": asdict(recipe),
        "final": {row["phase"]: row for row in rows},
        "precision": json.loads((source / "precision.json").read_text()),
        "hardware": machine.hardware(),
        "versions": machine.provenance()["versions"],
    }
    files.write_json(target / "record.json", record)
    files.write_atomic(target / "README.md", _card(recipe, record))
    return target


def _card(recipe: Recipe, record: dict[str, Any]) -> str:
    """The model card, made from the recipe and the record."""
    phases = "\n".join(
        f"- {phase}: {row['tokens']:,} tokens in {row['step']:,} steps, "
        f"loss at the end {row['loss']}"
        for phase, row in record["final"].items()
    )
    start = f" It starts from the pretrained {recipe.start_from}." if recipe.start_from else ""
    return (
        "---\nlicense: mit\nlibrary_name: transformers\n---\n\n"
        f"# lab:{recipe.name}\n\n"
        f"A miniature of the Qwen2 architecture that plays the part of {recipe.stands_for} "
        f"in the book *Less Is More for Reasoning*. It knows the lab's ten families of "
        f"synthetic problems and nothing else.{start}\n\n"
        f"Made by `{record['command']}` (seed {recipe.seed}) on {record['hardware']}:\n\n"
        f"{phases}\n\nWeights are bfloat16, SHA-256 `{record['sha256']}`. The log is "
        "`log.jsonl`; chapter 2 describes pages and phases.\n"
    )
