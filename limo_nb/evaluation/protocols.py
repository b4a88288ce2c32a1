"""Sampling protocols by name: how often, how hot and how long a benchmark is asked.

The three that circulate for LIMO's figures are in `protocols.yaml` with their sources
(chapter 8; the papers, section 4; GAIR-NLP/LIMO issue 17).
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import ValidationError

from limo_nb.core.settings import (
    Frozen,
    Sampling,
)
from limo_nb.evaluation.benchmarks import benchmark_facts


class Protocol(Frozen):
    """Decoding for the small benchmarks and for the others; everything explicit."""

    name: str
    title: str
    source: str
    small: Sampling
    other: Sampling
    departures: tuple[str, ...] = ()  # what was changed, "field=value"

    @property
    def label(self) -> str:
        """The name, with what was changed: "greedy (max_new_tokens=64)"."""
        return f"{self.name} ({', '.join(self.departures)})" if self.departures else self.name

    def sampling(self, benchmark: str) -> Sampling:
        """The decoding parameters for `benchmark`; ValueError for an unknown one."""
        return self.small if benchmark_facts(benchmark).get("small") else self.other

    def changed(self, **fields: Any) -> Protocol:
        """The protocol with `fields` of its sampling changed; None leaves a field as it is.

        `samples` alone changes the sets that are sampled; with a `temperature` it changes
        all. Raises ValueError for a value that is not valid.
        """
        wanted = {name: value for name, value in fields.items() if value is not None}
        new: dict[str, Sampling] = {}
        for part in ("small", "other"):
            own: Sampling = getattr(self, part)
            greedy = own.temperature == 0 and "temperature" not in wanted
            kept = {n: v for n, v in wanted.items() if not (greedy and n == "samples")}
            new[part] = _valid({**own.model_dump(), **kept})
        changes = [f"{n}={v:g}" for n, v in wanted.items() if self._differs(new, n)]
        return self.model_copy(update={**new, "departures": (*self.departures, *changes)})

    def _differs(self, new: dict[str, Sampling], field: str) -> bool:
        return any(getattr(new[p], field) != getattr(getattr(self, p), field) for p in new)


def _valid(fields: dict[str, Any]) -> Sampling:
    try:
        return Sampling(**fields)
    except ValidationError as error:
        raise ValueError("; ".join(found["msg"] for found in error.errors())) from None


@cache
def protocols() -> dict[str, Protocol]:
    """The protocols of `protocols.yaml` by name."""
    text = resources.files("limo_nb.evaluation").joinpath("protocols.yaml").read_text()
    entries = yaml.safe_load(text).items()
    return {name: Protocol(name=name, **facts) for name, facts in entries}


def protocol(name: str, **changes: Any) -> Protocol:
    """The protocol `name` with `changes` of its sampling (see `Protocol.changed`).

    Raises ValueError that says which protocols there are.
    """
    if name not in protocols():
        raise ValueError(f"no protocol {name!r}; there are {', '.join(protocols())}")
    return protocols()[name].changed(**changes)
