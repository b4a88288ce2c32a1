"""Supervised fine-tuning: rows to tokens, the training entry, the launcher (chapter 6)."""

from limo_nb.sft.launch import (
    Task,
    fine_tune,
    fine_tune_here,
    fine_tune_many,
)

__all__ = ["Task", "fine_tune", "fine_tune_here", "fine_tune_many"]
