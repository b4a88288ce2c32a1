"""The grader beside verdicts that others recorded with real outputs (chapter 8)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from limo_nb.grading.verdicts import grade_many

RECORDED_MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


class Disagreement(TypedDict):
    """An output whose recorded verdict is not ours; no problem text."""

    id: str
    model: str
    recorded: bool
    ours: bool | None
    reference: str
    answer: str | None


@dataclass(frozen=True)
class RecordedAgreement:
    """Our verdicts beside those that were recorded."""

    outputs: int
    agreeing: int
    unverifiable: int
    disagreements: tuple[Disagreement, ...]

    @property
    def share(self) -> float:
        """The share of outputs on which both verdicts are the same."""
        return self.agreeing / self.outputs


def recorded_agreement(root: Path) -> RecordedAgreement:
    """Grade the recorded GSM8K outputs of four models under `root`/pool and compare.

    The file is openai/grade-school-math's: 1,319 problems, each with the output of four
    models and whether it was found correct. Raises FileNotFoundError without it.
    """
    path = root / "pool" / "gsm8k_model_solutions.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: it is part of LIMO_NB_DATA/pool")
    outputs = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if line.strip():
            record = json.loads(line)
            reference = record["ground_truth"].rpartition("A: ")[2].strip()
            outputs += [
                (f"gsm8k-test-{number}", model, reference, record[model])
                for model in RECORDED_MODELS
            ]
    verdicts = grade_many([o[2] for o in outputs], [o[3]["solution"] for o in outputs])
    differing = tuple(
        Disagreement(
            id=name, model=model, recorded=output["is_correct"], ours=verdict.correct,
            reference=reference, answer=verdict.answer,
        )
        for (name, model, reference, output), verdict in zip(outputs, verdicts, strict=True)
        if verdict.correct != output["is_correct"]
    )  # fmt: skip
    unverifiable = sum(verdict.correct is None for verdict in verdicts)
    return RecordedAgreement(
        len(outputs), len(outputs) - len(differing), unverifiable, differing
    )
