"""Ray Data over any engine: one pool of actors, on one machine or on a cluster."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import ray
import ray.data
from ray.exceptions import RayError

from limo_nb.core.settings import (
    EngineSettings,
    Sampling,
)
from limo_nb.inference.base import (
    Ask,
    Batch,
    Completion,
    EngineFailed,
    Made,
    Refused,
    Underway,
)
from limo_nb.inference.chat import Prompt
from limo_nb.inference.engines import open_engine
from limo_nb.inference.identity import exact_name
from limo_nb.inference.workers import worker_variables


class RayEngine:
    """`settings.workers` actors, each with an engine of the kind `settings.over`.

    For "auto" there is one for each GPU, or just one. The cluster is the one that
    `RAY_ADDRESS` names, or a local one. Its GPUs are divided among the actors; with vLLM an
    actor spreads the model over its share. Rows are those that the engine below would make,
    so both find each other's in a store. All batches of a request are claimed at once: Ray
    Data wants to know its input.
    """

    def __init__(
        self, settings: EngineSettings, model: str, base_url: str | None = None
    ) -> None:
        self._wanted = settings.workers
        below = settings.model_copy(update={"kind": settings.over, "workers": 1})
        self._below = open_engine(below, model, base_url)
        known = model if below.kind == "openai" else exact_name(model)  # a server's own name
        self._actor = {"settings": below.model_dump(), "model": known, "base_url": base_url}
        self.identity, self.batch_size = self._below.identity, self._below.batch_size
        self.window = getattr(self._below, "window", None)
        self.over_long = settings.over_long
        self.actors: set[str] = set()  # node and process of those that have answered

    def __enter__(self) -> RayEngine:
        self._started = not ray.is_initialized()
        if self._started:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._started:
            ray.shutdown()

    def length(self, prompt: Prompt) -> int:
        """As the engine below measures it."""
        return self._below.length(prompt)

    def run(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[Made]:
        """Batches as the actors finish them."""
        asked = [{"batch": json.dumps(batch)} for batch in batches]
        if not asked:
            return
        gpus = int(ray.cluster_resources().get("GPU", 0))
        actors = (gpus or 1) if self._wanted == "auto" else self._wanted
        # One block for each batch, so that each is handed on when it is ready.
        made = ray.data.from_items(asked, override_num_blocks=len(asked)).map_batches(
            Actor,
            fn_constructor_kwargs={**self._actor, "sampling": sampling.model_dump()},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=gpus // actors,
            runtime_env={"env_vars": worker_variables()},
        )
        for row in _told(made.iter_rows()):
            self.actors.add(row["actor"])
            yield [(key, _row(values)) for key, values in json.loads(row["made"])]


def _row(values: list[Any]) -> Completion | Refused:
    """What an actor made of a prompt; JSON has lists for tuples."""
    return Refused(*values) if len(values) == len(Refused._fields) else Completion(*values)


def _told(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`rows`; a failure of an actor, or of the cluster, as the engine's own."""
    try:
        yield from rows
    except RayError as error:
        raise EngineFailed(f"Ray could not finish the batches: {error}") from error


class Actor:
    """What each actor of the pool holds: an opened engine. Batches and rows are JSON."""

    def __init__(
        self, settings: dict[str, Any], model: str, base_url: str | None,
        sampling: dict[str, Any],
    ) -> None:  # fmt: skip
        self.sampling = Sampling(**sampling)
        self.engine = open_engine(EngineSettings(**settings), model, base_url).__enter__()
        self.name = f"{platform.node()}:{os.getpid()}"

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[str]]:
        """The rows of one batch, and which actor made them."""
        batch = tuple(Ask(*values) for values in json.loads(rows["batch"][0]))
        made = [row for ready in self._ready(batch) for row in ready]
        return {"made": [json.dumps(made)], "actor": [self.name]}

    def _ready(self, batch: Batch) -> Iterator[Made]:
        """What the engine hands out; Ray Data passes whole batches on, and no signs of work."""
        ready = self.engine.run([batch], self.sampling)
        return (made for made in ready if not isinstance(made, Underway))
