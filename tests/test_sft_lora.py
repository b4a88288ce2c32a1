"""LoRA: what is trained, what falls, and that the merged model is the adapted one."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch
from datasets import Dataset
from tiny import problems, tiny_model
from transformers import AutoModelForCausalLM

from limo_nb.core.settings import LoraSettings, SftSettings
from limo_nb.inference import load_tokenizer
from limo_nb.sft import adapters, checkpoints, fine_tune, fine_tune_here, planner, prepare
from limo_nb.sft import train as room
from limo_nb.sft.fit import setup_here
from limo_nb.sft.job import Task, TrainingJob, read_log
from limo_nb.sft.trainer import make_trainer, release

pytest.importorskip("peft", reason="peft is not installed: pip install 'limo-nb[lora]'")
SETTINGS = SftSettings(
    epochs=3, batch_size=4, learning_rate=1e-2, max_tokens=384, ranks=1, dtype="float32",
    lora=LoraSettings(rank=4, alpha=8),
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def rows():
    return Dataset.from_list(problems(8))


@pytest.fixture(scope="module")
def trained(model, rows, tmp_path_factory):
    """A run, with the logits of the adapted model before its adapters were merged."""
    folder, seen = tmp_path_factory.mktemp("run"), {}
    ids = torch.tensor([load_tokenizer(model)("A dial of ten marks.")["input_ids"]])

    def merged(net):
        with torch.inference_mode():
            seen["adapted"] = net(ids).logits
            return own(net)

    own, room.adapters.merged_model = adapters.merged_model, merged
    try:
        made = fine_tune_here(rows, model, SETTINGS, 1, "S", folder)
    finally:
        room.adapters.merged_model = own
    return folder, made, ids, seen["adapted"]


def logits(folder, ids):
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits


def test_the_loss_falls_and_the_merged_model_is_the_adapted_one(model, trained):
    folder, made, ids, adapted = trained
    log = read_log(folder / "log.jsonl")
    assert log[-1]["loss"] < 0.95 * log[0]["loss"]
    assert torch.allclose(logits(made, ids), adapted, atol=1e-4)
    assert (adapted - logits(model, ids)).abs().max() > 1e-2


def test_it_is_an_ordinary_model_whose_papers_say_lora(model, trained):
    folder, made, *_ = trained
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (model, made))
    assert dict(before.named_parameters()).keys() == dict(after.named_parameters()).keys()
    assert not list(made.glob("adapter*"))
    done = json.loads((folder / "done.json").read_text())
    assert done["lora"] == {"rank": 4, "alpha": 8.0, "dropout": 0.0}
    assert done["parameters"] == before.num_parameters()
    assert "LoRA, rank 4, alpha 8" in (made / "README.md").read_text()
    assert "LoRA of rank 4" in done["choices"]


def job_of(model, rows, folder, **changes) -> TrainingJob:
    settings = SETTINGS.model_copy(update=changes)
    return prepare(Task(rows, model, settings, 1, "S", folder), here=True)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_adapters_alone_have_gradients(model, rows, tmp_path, checkpointing):
    job = job_of(model, rows, tmp_path, gradient_checkpointing=checkpointing)
    trainer = make_trainer(job, tmp_path)
    net = trainer.model.train()
    ids = torch.tensor([[5, 6, 7, 8]])
    net(input_ids=ids, labels=ids).loss.backward()
    wanted = {name for name, weight in net.named_parameters() if weight.requires_grad}
    assert wanted and all("lora_" in name for name in wanted)
    assert {
        name for name, weight in net.named_parameters() if weight.grad is not None
    } == wanted
    setup = setup_here(job, alone=True)
    trained = sum(w.numel() for w in net.parameters() if w.requires_grad)
    assert setup.trained == trained  # the planner counts what is trained
    assert planner.plan(setup).whole < planner.plan(planner.replace(setup, lora_rank=0)).whole
    release(trainer)


def test_a_run_that_was_killed_is_continued(model, rows, trained, tmp_path, monkeypatch):
    """Stopped behind a checkpoint at step 3 of 6: the rest gives the same model."""
    _, made, ids, _ = trained
    job = job_of(model, rows, tmp_path)

    class Killed(BaseException):
        pass

    def mark(folder, key, ranks):
        own(folder, key, ranks)
        raise Killed

    own = checkpoints.mark_complete
    monkeypatch.setattr(checkpoints, "mark_complete", mark)
    prepare(Task(rows, model, job.settings, 1, "S", tmp_path), 0.0, here=True)
    with pytest.raises(Killed):
        room.run_job(tmp_path)
    monkeypatch.undo()
    assert len(read_log(tmp_path / "log.jsonl")) == 1
    fine_tune_here(rows, model, job.settings, 1, "S", tmp_path)
    assert len(read_log(tmp_path / "log.jsonl")) == 6
    assert torch.allclose(logits(tmp_path / "model", ids), logits(made, ids), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"ranks": 2, "zero_stage": 3}, "sft.lora cannot be had under ZeRO stage 3"),
     ({"ranks": 2, "zero_stage": 1, "lora": None, "optimizer": "adafactor"},
      "adafactor needs whole matrices")],
)  # fmt: skip
def test_ways_that_are_not_there_are_refused_before_a_start(
    model, rows, tmp_path, changes, message
):
    settings = SETTINGS.model_copy(update=changes)
    with pytest.raises(ValueError, match=message):
        fine_tune(rows, model, settings, 1, "S", tmp_path)
    assert not (tmp_path / "job.json").exists()


def test_without_peft_the_extra_is_named(model, rows, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "peft" else found(name)
    )
    with pytest.raises(ValueError, match=r"pip install 'limo-nb\[lora\]'"):
        fine_tune_here(rows, model, SETTINGS, 1, "S", tmp_path)


def test_epochs_of_adapters_cannot_be_kept():
    with pytest.raises(ValueError, match="keep_epochs keeps whole models"):
        SftSettings(**SETTINGS.model_dump() | {"keep_epochs": True})
