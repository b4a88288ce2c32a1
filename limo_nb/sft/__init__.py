"""Supervised fine-tuning by HF `Trainer` and DeepSpeed, launched from a cell or a shell.

In: rows (question, solution), a base model and settings. Out: a folder with the trained
model, its log and what it took. The planner says beforehand whether a run fits. Chapter 6.

A `Task` becomes a folder with a `job`; `launch` starts the `ranks`, each of which runs
`train`, by a `trainer` that reads `batches` of rows in their `encoding`, cut into `passes`.
`checkpoints` and `epochs` are what it leaves on the way, `auto` what it chose by itself;
`cluster` writes the scripts for several machines, `planner` says what a run takes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
