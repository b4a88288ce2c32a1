"""Supervised fine-tuning by HF `Trainer` and DeepSpeed, launched from a cell or a shell.

In: rows (question, solution), a base model and settings. Out: a folder with the trained
model, its log and what it took. The planner says beforehand whether a run fits. Chapter 6.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
