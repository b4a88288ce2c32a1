"""The conditions under which a score is taken."""

import pytest

from limo_nb.core.settings import load_profile, profile_names
from limo_nb.experiments import sensitivity


@pytest.mark.parametrize("name", profile_names())
def test_one_thing_at_a_time(name: str) -> None:
    profile = load_profile(name)
    asked = sensitivity.conditions(profile.evaluation, profile.system_prompt)
    assert len(asked) == len(sensitivity.TEMPERATURES) + len(sensitivity.PROMPTS)
    for prompt in sensitivity.PROMPTS:
        assert asked[prompt][0] != profile.system_prompt
        assert asked[prompt][1] == asked["greedy"][1]
    warm, reference = asked["T 0.6"][1], asked["T 0.7"][1]
    assert reference.samples == profile.evaluation.votes.samples
    assert warm == reference.model_copy(update={"temperature": 0.6})
    limits = {sampling.max_new_tokens for _, sampling in asked.values()}
    assert limits == {profile.evaluation.sampling.max_new_tokens}
