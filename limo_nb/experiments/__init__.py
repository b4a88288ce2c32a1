"""The book's experiments: what is trained, on which rows, and what came of it.

In: a `Run` whose earlier stages are done. Out: stages with trained models, results and
differences. Chapters 2, 6, 7, 9, 11 and 12.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
