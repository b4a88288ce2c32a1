"""The miniature world in which LIMO's claims can be tested in minutes.

In: a seed. Out: a pool of problems, ten benchmarks, and the models that were pretrained on
the world's textbooks. Outside this room nothing knows the lab's tasks: others ask for a
pool, for benchmarks and for models by name, as they would ask a hub. Chapters 1 and 2.

`world` makes the problems and `items` lists them as rows; `texts` writes pages of them,
`reading` draws the pages of a training run; `recipe`, `tokenizer` and `pretrain` make the
models, `shipped` has them; `facts` asks what they know, `mistakes` where their chains go wrong.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
