"""Reasoning chains: collected, measured, scored and chosen.

In: attempts of teachers, or rows of any common format. Out: chains with their scores, the
best (question, chain) pairs, and training rows in the formats of other tools. Chapter 5.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
