"""Checkpoints of a run that count: complete, of this run, and of as many ranks. Chapter 6.

A checkpoint is written by all ranks, and its marker last: what a killed run left without
one is taken for nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TypedDict

from limo_nb.core.files import write_json

FOLDER = "checkpoints"  # within the folder of a run
MARKER = "COMPLETE"  # within a checkpoint


class Mark(TypedDict):
    """What the marker says: the run's key, and its number of ranks."""

    key: str
    ranks: int


class CheckpointRefused(ValueError):
    """A folder holds the checkpoints or the model of another run."""


def mark_complete(checkpoint: Path, key: str, ranks: int) -> None:
    """Make `checkpoint` count, when all else of it is written."""
    write_json(checkpoint / MARKER, {"key": key, "ranks": ranks})


def complete_checkpoints(folder: Path) -> dict[Path, Mark]:
    """The complete checkpoints of the run in `folder`, oldest first, with their marks."""
    found = (folder / FOLDER).glob(f"checkpoint-*/{MARKER}")
    ordered = sorted(found, key=lambda marker: int(marker.parent.name.split("-")[1]))
    return {marker.parent: json.loads(marker.read_text()) for marker in ordered}


def resume_point(folder: Path, key: str, ranks: int) -> str | None:
    """The newest checkpoint of the run `key` that is complete, if there is one.

    `Trainer` itself would take the one with the highest number, half written or not.
    Raises CheckpointRefused for checkpoints of another run or number of ranks.
    """
    last = None
    for checkpoint, said in complete_checkpoints(folder).items():
        if said["key"] != key:
            raise CheckpointRefused(
                f"{checkpoint} is of another run ({said['key']}, this one is {key}): name "
                f"another folder, or delete {folder / FOLDER}"
            )
        if said["ranks"] != ranks:
            raise CheckpointRefused(
                f"{checkpoint} was written by {said['ranks']} ranks and this run has {ranks}: "
                "each rank kept its own part of the optimiser, and the parts fit no other "
                f"number. Start {said['ranks']} ranks, or delete {folder / FOLDER} "
                "to begin anew"
            )
        last = str(checkpoint)
    return last


def remove_incomplete(folder: Path) -> None:
    """Delete the checkpoints that a killed run left without a marker."""
    kept = complete_checkpoints(folder)
    for checkpoint in (folder / FOLDER).glob("checkpoint-*"):
        if checkpoint not in kept:
            shutil.rmtree(checkpoint)
