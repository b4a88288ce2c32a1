"""Protocols by name: what they say, what may be changed, and that the seed arrives."""

import pytest
from tiny import tiny_model

from limo_nb.core.settings import EngineSettings
from limo_nb.evaluation import protocols
from limo_nb.inference import (
    complete,
    open_engine,
)

SAID = [  # protocol, benchmark, samples, temperature (../shared/LIMO.md has the sources)
    ("paper-v1", "aime", 16, 0.7), ("paper-v1", "amc", 16, 0.7), ("paper-v1", "math", 1, 0.0),
    ("paper-v3", "cn_math_2024", 4, 0.6), ("paper-v3", "gpqa", 1, 0.0),
    ("paper-v3", "aime25_1", 4, 0.6), ("greedy", "aime", 1, 0.0), ("paper-v1", "lab", 1, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "benchmark", "samples", "temperature"), SAID)
def test_what_a_protocol_says(name, benchmark, samples, temperature):
    found = protocols.protocol(name).sampling(benchmark)
    assert (found.samples, found.temperature) == (samples, temperature)
    assert found.max_new_tokens == 32768


def test_every_field_is_explicit():
    for found in protocols.protocols().values():
        for part in (found.small, found.other):
            assert part.model_fields_set == set(type(part).model_fields)
        assert found.title and found.source and not found.departures


CHANGES = [  # changes, label, the small sets' samples, the others'
    ({}, "paper-v3", 4, 1),
    ({"max_new_tokens": 64}, "paper-v3 (max_new_tokens=64)", 4, 1),
    ({"samples": 8}, "paper-v3 (samples=8)", 8, 1),
    ({"samples": 8, "temperature": 1}, "paper-v3 (samples=8, temperature=1)", 8, 8),
    ({"samples": 4, "seed": None}, "paper-v3", 4, 1),
    ({"seed": 7}, "paper-v3 (seed=7)", 4, 1),
]


@pytest.mark.parametrize(("changes", "label", "small", "other"), CHANGES)
def test_what_differs_is_named(changes, label, small, other):
    found = protocols.protocol("paper-v3", **changes)
    assert found.label == label
    assert (found.small.samples, found.other.samples) == (small, other)
    assert protocols.protocol("paper-v3").label == "paper-v3"


WRONG = [
    ("paper-v2", {}, "no protocol 'paper-v2'; there are paper-v1, paper-v3, greedy"),
    ("greedy", {"top_p": 0}, "greater than 0"),
    ("paper-v1", {"temperature": 0}, "several samples at temperature 0"),
]


@pytest.mark.parametrize(("name", "changes", "said"), WRONG)
def test_what_is_not_valid(name, changes, said):
    with pytest.raises(ValueError, match=said):
        protocols.protocol(name, **changes)
    with pytest.raises(ValueError, match="unknown benchmark 'aime24'"):
        protocols.protocol("greedy").sampling("aime24")


def test_the_seed_reaches_the_sampler(tmp_path):
    model = str(tiny_model(tmp_path / "model"))
    asked = [(str(n), f"Problem {n}") for n in range(3)]

    def texts(seed: int, store: str) -> list[str]:
        sampling = protocols.protocol("paper-v3", seed=seed, max_new_tokens=12).sampling("aime")
        with open_engine(EngineSettings(dtype="float32"), model) as engine:
            return list(complete(engine, asked, sampling, tmp_path / store)["text"])

    first = texts(0, "a")
    assert len(first) == 12 and len(set(first)) > 6  # samples of an item differ too
    assert texts(0, "b") == first
    other = texts(1, "a")
    assert sum(one == two for one, two in zip(first, other, strict=True)) < 4
