"""Which questions are worth learning from.

In: a clean pool and solvers. Out: attempts, solve rates, and a balanced choice of the
questions that are hard but not hopeless. Chapter 4; paper, section 3.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
