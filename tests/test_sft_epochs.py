"""A model an epoch, and the one that is chosen on held-out questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import problems, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from limo_nb.core import settings as profiles
from limo_nb.core.settings import (
    Sampling,
    SftSettings,
)
from limo_nb.evaluation import attempts
from limo_nb.experiments import headline
from limo_nb.sft import Task, epochs, fine_tune, fine_tune_here, prepare, read_log, run_job

SETTINGS = SftSettings(
    epochs=3,
    batch_size=4,
    learning_rate=3e-3,
    max_tokens=512,
    ranks=2,
    keep_epochs=True,
    dtype="float32",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return Dataset.from_list(problems(10))


@pytest.fixture(scope="module")
def whole(model, rows, tmp_path_factory) -> Path:
    """A finished run of three epochs of three steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    fine_tune_here(rows, model, SETTINGS, 1, "S", folder)
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_every_epoch_leaves_a_model_that_loads(whole, model, rows, tmp_path):
    kept = epochs.kept(whole)
    assert list(kept) == [1, 2, 3]
    assert same(kept[3], whole / "model") and not same(kept[1], kept[2])
    for folder in kept.values():
        assert AutoModelForCausalLM.from_pretrained(folder).config.use_cache
        assert AutoTokenizer.from_pretrained(folder).chat_template
    plain = SETTINGS.model_copy(update={"keep_epochs": False})
    fine_tune_here(rows, model, plain, 1, "S", tmp_path)
    assert not epochs.kept(tmp_path) and same(tmp_path / "model", whole / "model")


@pytest.mark.parametrize("last", [4, 7])
def test_a_run_that_was_stopped_has_the_same_epochs(whole, model, rows, tmp_path, last):
    """Stopped in the second and in the third of three epochs, and run again."""

    class Stop(RuntimeError):
        pass

    def stop():
        if read_log(tmp_path / "log.jsonl")[-1]["step"] == last:
            raise Stop

    prepare(Task(rows, model, SETTINGS, 1, "S", tmp_path))
    with pytest.raises(Stop):
        run_job(tmp_path, show=stop)
    assert list(epochs.kept(tmp_path)) == list(range(1, 1 + last // 3))
    fine_tune_here(rows, model, SETTINGS, 1, "S", tmp_path)
    log = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").open()]
    assert log == list(range(1, 10))
    for epoch, folder in epochs.kept(whole).items():
        assert same(epochs.kept(tmp_path)[epoch], folder)


@pytest.mark.slow
def test_ranks_under_zero_3_leave_the_same_epochs(whole, model, rows, tmp_path):
    fine_tune(rows, model, SETTINGS, 1, "S", tmp_path)
    for epoch, folder in epochs.kept(whole).items():
        many, one = weights(epochs.kept(tmp_path)[epoch]), weights(folder)
        assert max((many[name] - one[name]).abs().max() for name in one) < 1e-3


@pytest.mark.parametrize(
    ("counts", "best"), [((1, 3, 2), 2), ((2, 3, 3), 2), ((0, 0, 0), 1), ((1, 2, 4), 3)]
)
def test_the_most_right_answers_win_and_the_earliest_of_equals(counts, best):
    assert epochs.best_of(dict(enumerate(counts, 1))) == best


def test_a_choice_that_was_stopped_goes_on(model, rows, tmp_path):
    fine_tune_here(rows, model, SETTINGS, 1, "S", tmp_path)
    last = (tmp_path / "model" / "README.md").read_text()
    counts, asked = {"epoch-01": 2, "epoch-02": 5, "epoch-03": 4}, []

    def right(folder: Path) -> int:
        if len(asked) == 2:
            asked.append("stop")
            raise KeyboardInterrupt
        asked.append(folder.name)
        return counts[folder.name]

    with pytest.raises(KeyboardInterrupt):
        epochs.choose(tmp_path, right, 8)
    assert same(tmp_path / "model", epochs.kept(tmp_path)[3])
    found = epochs.choose(tmp_path, right, 8)
    assert asked == ["epoch-01", "epoch-02", "stop", "epoch-03"]
    assert found == {"chosen": 2, "questions": 8, "right": {"1": 2, "2": 5, "3": 4}}
    assert same(tmp_path / "model", epochs.kept(tmp_path)[2])
    card = (tmp_path / "model" / "README.md").read_text()
    assert "epoch 2 of 3: 5 of 8 held-out questions right (by epoch: 2, 5, 4)" in card
    assert [line for line in card.splitlines() if "epoch 2" not in line] == last.splitlines()
    assert epochs.choose(tmp_path, right, 8) == found and len(asked) == 4


def test_held_out_needs_epochs_to_choose_from():
    with pytest.raises(ValueError, match="set keep_epochs to true as well"):
        profiles.load_profile("mini", {"sft.held_out": 0.1})
    paper = profiles.load_profile("paper").sft
    assert paper.keep_epochs and paper.held_out == 0.05
    assert not any(profiles.load_profile(n).sft.keep_epochs for n in ("smoke", "mini", "gpu"))


@pytest.mark.slow
def test_the_lab_s_epochs_are_chosen_by_their_answers(tmp_path):
    """The foundation on a few chains: each epoch's count is what `evaluate` finds anew."""
    profile = profiles.load_profile("smoke", {"sft.keep_epochs": True, "sft.held_out": 0.5})
    settings = profile.sft.model_copy(update={"epochs": 3})
    rows = Dataset.from_list(problems(16, seed=7))
    fine_tune_here(rows, "lab:foundation", settings, 1, profile.system_prompt, tmp_path)
    asked = Dataset.from_list(
        [{"id": f"h{n}", "level": 1, **row} for n, row in enumerate(problems(8, seed=11))]
    )
    found = headline.choose_epoch(profile, tmp_path, asked)
    items = asked.add_column("benchmark", ["x"] * 8).add_column("in_domain", [True] * 8)
    greedy = Sampling(max_new_tokens=profile.evaluation.sampling.max_new_tokens)
    for epoch, folder in epochs.kept(tmp_path).items():
        results = attempts.evaluate(
            str(folder), items, greedy, profile.engine, profile.system_prompt, tmp_path / "anew"
        )
        assert found["right"][str(epoch)] == sum(v is True for v in results["correct"])
    counts = {int(epoch): count for epoch, count in found["right"].items()}
    assert found["chosen"] == epochs.best_of(counts)
    assert same(tmp_path / "model", epochs.kept(tmp_path)[found["chosen"]])
