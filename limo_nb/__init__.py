"""limo_nb: the helper package of *Less Is More for Reasoning*, an executable book."""

from limo_nb.core.runs import Run

__all__ = ["Run"]
__version__ = "0.1.0"
