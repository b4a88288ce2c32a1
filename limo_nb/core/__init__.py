"""What every room needs and no stage owns.

Settings and runs with their manifests, files and locks, records, progress, the machine and
its precision, and the papers' figures. In: a profile's name. Out: a `Run`, from which
stages take their settings and artefacts. Chapter 1 uses the first of them; the appendix on
the package describes all.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
