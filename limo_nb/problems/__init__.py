"""The pool of problems, without what must not be in it.

In: files, folders, Hub data sets, or the lab. Out: a table of problems in one form, with
duplicates and benchmark items taken out, and for each of these the reason. Chapter 3.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
