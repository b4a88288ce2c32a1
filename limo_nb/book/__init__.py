"""The book itself: running its chapters, rendering the site, figures and exercises.

In: the chapters in `book/` and what their stages left. Out: executed notebooks, pictures
and the rendered site. Only commands and chapters are above this room.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
