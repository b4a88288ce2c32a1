"""Verdicts: is this response right? Yes, no, or not to be verified, with the reason.

In: a reference and a response, or a program and its tests. Out: a `Verdict`. Model text is
parsed and compared, never evaluated, in processes with hard limits. Chapter 8.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
