"""Profiles: what is valid, what is refused and in which words, what overrides do."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from limo_nb.core import settings


@pytest.mark.parametrize("name", settings.profile_names())
def test_every_shipped_profile_is_valid_and_says_its_purpose(name: str) -> None:
    profile = settings.load_profile(name)
    assert profile.name == name and profile.purpose
    assert profile.sft.bulk_factor >= 1 and profile.chains.rows <= profile.pool.size


def test_the_book_s_profiles_are_there() -> None:
    assert {"smoke", "mini"} <= set(settings.profile_names())


@pytest.mark.parametrize(
    ("overrides", "read", "want"),
    [
        ({"pool.size": 7}, lambda p: p.pool.size, 7),
        ({"pool": {"size": 7}}, lambda p: (p.pool.size, p.pool.source), (7, "lab")),
        ({"coarse.sampling.samples": 2}, lambda p: p.coarse.sampling.samples, 2),
        ({"sft.seeds": [4, 5]}, lambda p: p.sft.seeds, (4, 5)),
        ({"coarse.keep": [0, 1]}, lambda p: p.coarse.keep, (0, 1)),
        ({"models": {"base": "a/b@c"}}, lambda p: (p.models.base, p.models.weak),
         ("a/b@c", "lab:weak")),
    ],
)  # fmt: skip
def test_overrides_replace_one_field_and_keep_the_rest(overrides, read, want) -> None:
    assert read(settings.load_profile("smoke", overrides)) == want


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pool.size": 0}, "pool.size: Input should be greater than or equal to 1"),
        ({"pool.sizes": 5}, "pool.sizes: Extra inputs are not permitted"),
        ({"sft.zero_stage": 4}, "sft.zero_stage: Input should be 0, 1, 2 or 3"),
        ({"engine.kind": "magic"}, "engine.kind: Input should be"),
        ({"coarse.sampling.temperature": 0}, "several samples at temperature 0"),
        ({"coarse.sampling.top_p": 0}, "coarse.sampling.top_p: Input should be greater than 0"),
        ({"new.field": 1}, "new: Extra inputs are not permitted"),
    ],
)
def test_errors_name_profile_field_and_what_it_may_be(overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match="profile 'smoke' is not valid") as caught:
        settings.load_profile("smoke", overrides)
    assert message in str(caught.value)


def test_unknown_profile_lists_the_known() -> None:
    with pytest.raises(ValueError, match="no profile 'tiny'; there are .*mini.*smoke"):
        settings.load_profile("tiny")


def test_a_profile_may_be_a_file(tmp_path: Path) -> None:
    source = Path(settings.__file__).parent / "profiles" / "smoke.yaml"
    path = tmp_path / "mine.yaml"
    path.write_text(source.read_text().replace("name: smoke", "name: mine"))
    assert settings.load_profile(str(path)).name == "mine"


def test_profiles_do_not_change_and_loads_do_not_share() -> None:
    profile = settings.load_profile("smoke")
    with pytest.raises(ValidationError, match="frozen"):
        profile.pool.size = 3
    overrides = {"pool": {"size": 7}}
    settings.load_profile("smoke", overrides)
    assert overrides == {"pool": {"size": 7}} and settings.load_profile("smoke") == profile
