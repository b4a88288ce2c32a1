"""The helper package of *Less Is More for Reasoning*, an executable book.

One room (folder) for each stage of the work; each says what enters, what leaves, and which
chapter tells the story. What most people want is here as well: `limo_nb.grade`,
`limo_nb.evaluate`, `limo_nb.fine_tune` and so on. Names are loaded when they are asked for.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
