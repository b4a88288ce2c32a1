"""The claim ledger: what was claimed, what would count, and what was measured.

In: the ledger `claims.yml` and the tables of a run. Out: a verdict for each claim, by the
rule that is written beside it. Chapter 10.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
