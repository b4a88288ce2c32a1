"""Completions: one interface over transformers, vLLM, OpenAI-compatible servers and Ray.

In: prompts and decoding parameters. Out: completions, each kept in a store as it arrives.
`sample` does it in one call; `open_engine` and `complete` are what it is made of.
A completion is a function of its key: model, prompt, decoding parameters, seed and sample
number. Its random numbers come from the key, so neither a kill nor the number of workers
nor what else is asked changes them. Sums of floats do depend on which rows are computed
together; rows are therefore cut into fixed batches, the resumable unit, and a killed
request ends as an uninterrupted one would. Chapters 2, 4, 5, 7 and 8.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
