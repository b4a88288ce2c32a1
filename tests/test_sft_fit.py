"""Whether a run fits this machine: asked before anything starts, and right about a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tiny import problems, tiny_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from limo_nb.core import memory
from limo_nb.core.memory import GB, Memory, NotEnoughMemory
from limo_nb.core.settings import LoraSettings, SftSettings
from limo_nb.inference import load_tokenizer
from limo_nb.sft import Task, fine_tune, fine_tune_here, fit, launch, planner, prepare
from limo_nb.sft.job import TrainingJob

SETTINGS = SftSettings(
    epochs=1, batch_size=2, learning_rate=1e-4, max_tokens=512, ranks=1, dtype="float32"
)
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def rows():
    return Dataset.from_list(problems(8))


def job(model: str = QWEN, tokens: int = 512, **changes) -> TrainingJob:
    settings = SETTINGS.model_copy(update=changes)
    return TrainingJob(model, settings, 1, "S", "key", rows=100, longest=tokens, tokens=40_000)


def on_cpu(free: float, **changes) -> planner.Setup:
    setup = fit.setup_here(job(**changes), fit.runs_alone(job(**changes).settings))
    return replace(setup, cpu=True, gpu_memory=free)


def machine(monkeypatch, free: float) -> None:
    there = Memory(int(free * GB), 64 * GB)
    monkeypatch.setattr(memory, "host_memory", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


# --------------------------------------------------------------------------- asked, refused
def test_it_is_refused_with_numbers_before_anything_starts(model, rows, tmp_path, monkeypatch):
    machine(monkeypatch, 0.1)
    monkeypatch.setattr(launch, "run_job", lambda *_, **__: pytest.fail("it was started"))
    for start in (fine_tune, fine_tune_here):
        told = "needs about 0.[78] GB .*; 0.1 of 64.0 GB free: not started. What would fit"
        with pytest.raises(NotEnoughMemory, match=told):
            start(rows, model, SETTINGS, 1, "S", tmp_path / start.__name__)
        assert not (tmp_path / start.__name__ / "log.jsonl").exists()


def test_force_starts_it_all_the_same(model, rows, tmp_path, monkeypatch, capsys):
    machine(monkeypatch, 0.1)
    forced = SETTINGS.model_copy(update={"force": True})
    made = fine_tune_here(rows, model, forced, 1, "S", tmp_path)
    assert any(made.glob("*.safetensors"))
    machine(monkeypatch, 60)
    fine_tune_here(rows, model, SETTINGS, 1, "S", tmp_path)  # the same run: force is no input
    assert "unchanged" in capsys.readouterr().out


def test_settings_that_would_fit_do(monkeypatch):
    machine(monkeypatch, 8.5)
    setup = on_cpu(8.5, batch_size=8)
    assert not planner.plan(setup).fits
    found = fit.fitting_changes(setup)
    assert found and all(made.whole <= 8.5 * GB for _, made in found)
    assert "sft.lora={rank: 16}" in [words for words, _ in found]
    with pytest.raises(NotEnoughMemory) as refused:
        fit.check_fit(setup)
    assert all(f"{words} (" in str(refused.value) for words, _ in found)
    plenty = fit.check_fit(replace(setup, gpu_memory=60.0), force=True)
    assert "40,000 tokens" in plenty or "min" in plenty


def test_what_halves_it_halves_it(monkeypatch):
    machine(monkeypatch, 60)
    setup = on_cpu(60, batch_size=8, tokens=2048)
    whole = planner.plan(setup).whole
    assert all(2 * made.whole <= whole for _, made in fit.halving_changes(setup))
    assert fit.less_for(job(tokens=2048, batch_size=8))


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"ranks": 2}), ({"gradient_checkpointing": True}, {}),
        ({"optimizer": "adafactor"}, {}), ({"lora": LoraSettings()}, {}),
        ({"tokens": 256}, {}), ({"ranks": 2}, {"ranks": 2, "zero_stage": 0}),
    ],
)  # fmt: skip
def test_what_takes_less_on_a_cpu(less, more):
    assert planner.plan(on_cpu(60, **less)).whole < planner.plan(on_cpu(60, **more)).whole


def test_a_pass_of_a_large_vocabulary_is_short_and_the_lab_s_is_as_long_as_ever():
    large, small = planner.shape_of(QWEN), planner.shape_of("lab:foundation")
    each = planner.bytes_a_token(large, "float32", checkpointing=True)
    assert each > 16 * large.vocabulary
    assert 500 < planner.pass_limit(each, alone=True) < 1500
    each = planner.bytes_a_token(small, "float32", checkpointing=False)
    limits = [planner.pass_limit(each, alone) for alone in (True, False)]
    assert limits == [2048, 16_384]


def test_one_rank_on_a_cpu_is_one_process_without_deepspeed(tmp_path, monkeypatch):
    machine(monkeypatch, 60)
    _, command = launch.launch_command([tmp_path], 1)
    assert command == ["python", "-m", "limo_nb.sft", str(tmp_path)]
    assert launch.launch_command([tmp_path], 2)[1][0] == "deepspeed"


def test_a_run_that_was_killed_for_memory_says_so(tmp_path, monkeypatch):
    machine(monkeypatch, 60)
    console = tmp_path / "console.log"
    console.write_text("pid 7 exits with return code = -9\n")
    seen = launch.Seen(memory.kills(), most=13 * GB)
    with pytest.raises(RuntimeError) as told:
        launch._check([(tmp_path, job())], 247, console, seen)
    said = str(told.value)
    assert said.startswith("it was killed by signal 9") and "hold 13.0 GB" in said
    assert "What takes less: " in said and "sft." in said


def test_a_killed_start_is_told_by_the_launcher_itself(model, rows, tmp_path, monkeypatch):
    """The ranks are killed as the kernel would: the process that trains gets signal 9."""
    machine(monkeypatch, 60)
    look = launch.Seen.look

    def kill(self, pid):
        look(self, pid)
        os.kill(pid, 9)

    monkeypatch.setattr(launch.Seen, "look", kill)
    with pytest.raises(RuntimeError, match="^it was killed by signal 9"):
        fine_tune(rows, model, SETTINGS, 1, "S", tmp_path)


# ------------------------------------------------------------------ as a process came to it
PEAK = """
import ctypes, gc, json, os, sys
from pathlib import Path
import limo_nb.sft.train as train

def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))

# The first run, of a tiny model, loads what libraries load late.
for folder in map(Path, sys.argv[1:]):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = kilobytes("VmRSS")
    train.run_job(folder)
    (folder / "grown.json").write_text(json.dumps(1024 * (kilobytes("VmHWM") - before)))
"""
CHANGES = {
    "plain": {}, "checkpointing": {"gradient_checkpointing": True},
    "adafactor": {"optimizer": "adafactor"}, "eager": {"attention": "eager"},
    "lora": {"lora": LoraSettings(), "gradient_checkpointing": True},
}  # fmt: skip


def medium(folder: Path) -> str:
    """A random model of 23 million parameters, a third of them its vocabulary's."""
    tokenizer = load_tokenizer("lab:foundation")
    config = Qwen2Config(
        vocab_size=32_768, hidden_size=256, intermediate_size=1024, num_hidden_layers=14,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def grown(tmp_path_factory, model):
    """By name of the change: the run as planned, and bytes by which its process grew."""
    home = tmp_path_factory.mktemp("peaks")
    rows = Dataset.from_list([{**r, "solution": r["solution"] * 4} for r in problems(2)])
    common = {"attention": "sdpa", "epochs": 2, "max_tokens": 640}
    jobs, large = {}, medium(home / "model")
    for name, changes in {"tiny": CHANGES["lora"], **CHANGES}.items():
        settings = SETTINGS.model_copy(update=common | changes)
        task = Task(rows, model if name == "tiny" else large, settings, 1, "S", home / name)
        jobs[name] = prepare(task, here=True)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *(str(home / name) for name in jobs)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {
        name: (
            fit.setup_here(jobs[name], alone=True),
            json.loads((home / name / "grown.json").read_text()),
        )
        for name in CHANGES
    }


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux resets peaks")
@pytest.mark.parametrize("name", CHANGES)
def test_the_estimate_is_what_a_process_came_to(grown, name):
    """The growth of its resident memory while it loads and trains, within a quarter.

    With LoRA within 35 %: there the estimate is too low by what wrapping the model takes,
    which is little for models that are larger than this one of 23 million parameters.
    The estimate's allowance for a process, its libraries, is not compared.
    """
    setup, measured = grown[name]
    plan = planner.plan(replace(setup, cpu=True))
    print(f"{measured / GB:.3f} GB measured, {plan.peak / GB:.3f} estimated: {plan.stacked()}")
    assert plan.peak == pytest.approx(measured, rel=0.35 if name == "lora" else 0.25)
