"""Benchmarks, protocols, and estimates with intervals.

In: a model, items and a protocol. Out: graded answers, accuracies and paired differences
with intervals that say what they vary; the tables are described in `tables`. Chapter 8.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
