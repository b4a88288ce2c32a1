"""The command line, in processes of its own, on a toy book; and what the environment says."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path
from typing import get_args

import lock
import psutil
import pytest
import yaml
from conftest import make_toy
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from limo_nb import Run
from limo_nb import __version__ as package_version
from limo_nb.chains import formats
from limo_nb.cli import base, book, chains, checks, evaluate
from limo_nb.core import settings
from limo_nb.core.files import write_json
from limo_nb.evaluation import protocols

ROWS = [
    {"model": "base", "group": "in domain", "accuracy": 0.25, "low": 0.2, "high": 0.31,
     "items": 160, "seeds": 1, "right": 40, "wrong": 118, "unverifiable": 2, "truncated": 80},
    {"model": "limo", "group": "in domain", "accuracy": 0.75, "low": 0.7, "high": 0.8,
     "items": 160, "seeds": 3, "right": 360, "wrong": 120, "unverifiable": 0, "truncated": 24},
]  # fmt: skip


def limo_nb(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "limo_nb", *arguments],
        cwd=root,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


def write_rows(folder: Path) -> None:
    write_json(folder / "table.json", ROWS)


# ---------------------------------------------------------------- commands
def test_run_then_status(toy: Path) -> None:
    done = limo_nb(toy, "run", "--profile", "smoke", "--until", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith("01-first: executed in")
    assert lines[1].startswith("1 of 1 chapters executed")
    status = limo_nb(toy, "status", "--profile", "smoke").stdout
    assert re.search(r"01-first\s+│ current", status)
    assert re.search(r"02-second\s+│ not run", status)
    assert re.search(r"3\s+│ pool\s+│ \d+ s", status)
    assert re.search(r"coarse\s+│ absent", status)


def test_override_changes_the_run_and_outdates_the_status(toy: Path) -> None:
    done = limo_nb(toy, "run", "--profile", "smoke", "--only", "1", "--override", "pool.size=7")
    assert done.returncode == 0, done.stderr
    manifest = next((toy / "runs" / "smoke" / "pool").glob("*/manifest.json"))
    assert json.loads(manifest.read_text())["params"] == {"size": 7}
    assert re.search(r"01-first\s+│ out of date", limo_nb(toy, "status", "-p", "smoke").stdout)


def test_claims_are_judged_by_what_there_is(toy: Path, repository: Path) -> None:
    """Without any run: the papers' own numbers decide theirs, and no other is decided."""
    (toy / "book" / "claims.yml").write_text((repository / "book" / "claims.yml").read_text())
    rows = json.loads(limo_nb(toy, "claims", "--profile", "smoke", "--json").stdout)
    verdicts = {row["id"]: row["verdict"] for row in rows}
    assert verdicts["in-domain"] == verdicts["real-benchmarks"] == "not tested here"
    assert verdicts["over-o1-aime"] == "undecided" and verdicts["over-o1"] == "shown"
    table = limo_nb(toy, "claims", "--profile", "smoke").stdout
    assert "817 rows on AIME24" in table and "not tested here," not in table.splitlines()[0]


def test_results_as_table_and_json(toy: Path, monkeypatch) -> None:
    missing = limo_nb(toy, "results", "--profile", "smoke")
    assert missing.returncode == 1
    assert "limo-nb run --profile smoke --until 8" in missing.stderr
    monkeypatch.chdir(toy)
    Run("smoke").make("evaluation", write_rows)
    table = limo_nb(toy, "results", "--profile", "smoke").stdout
    cells = ("limo", "in domain", "75.0", "70.0–80.0", "160×3", "360/120/0", "5.0")
    assert re.search(r"\s+".join(map(re.escape, cells)), table)
    assert "base, in domain: 50% of the answers were cut off: the limit was" in table
    assert "profile smoke, commit" in table
    assert json.loads(limo_nb(toy, "results", "-p", "smoke", "--json").stdout) == ROWS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--profile", "smoke", "--only", "2"), "limo-nb run --profile smoke --until 3"),
        (("run", "--profile", "smoke", "--only", "7"), "no chapter 7; there are [1, 2]"),
        (("run", "--profile", "huge"), "no profile 'huge'; there are"),
        (("run", "--override", "pool.size"), "is not KEY=VALUE"),
        (("run", "--override", "pool.size=many"), "pool.size: Input should be a valid integer"),
        (("render", "--profile", "smoke"), "limo-nb run --profile smoke --until 1"),
        (("lab", "pretrain", "giant"), "no lab model 'giant'; there are foundation"),
    ],
)
def test_expected_failures_are_told_without_a_traceback(
    toy: Path, arguments: tuple, message: str
) -> None:
    done = limo_nb(toy, *arguments)
    assert done.returncode == 1
    assert message in done.stderr and 'File "' not in done.stderr


def test_outside_a_book(tmp_path: Path) -> None:
    done = limo_nb(tmp_path, "status")
    assert done.returncode == 1 and "no _toc.yml" in done.stderr


@pytest.mark.parametrize("command", [None, "make book PROFILE=smoke"])
def test_interrupted_it_says_how_to_continue_and_does(
    tmp_path: Path, command: str | None
) -> None:
    """One line, exit code 130, no process left; the same command goes on to the end."""
    root = make_toy(tmp_path / "toy", pause=1.0)
    arguments = ["run", "--profile", "smoke", "--override", "pool.size=7"]
    process = subprocess.Popen(
        [sys.executable, "-m", "limo_nb", *arguments], cwd=root, text=True,
        env={**os.environ, **({"LIMO_NB_COMMAND": command} if command else {})},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(root.glob("runs/smoke/coarse/*/step-0.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    kernels = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of the foreground
    _, said = process.communicate(timeout=60)
    typed = command or f"python -m limo_nb {' '.join(arguments)}"
    assert process.returncode == 130
    assert said == f"limo-nb: interrupted; the same command continues: {typed}\n"
    assert kernels and not psutil.wait_procs(kernels, timeout=10)[1]

    steps = {path: path.stat().st_mtime_ns for path in root.glob("runs/smoke/*/*/step-*.json")}
    done = limo_nb(root, *arguments)
    assert done.returncode == 0, done.stderr
    assert "01-first: unchanged" in done.stdout and "02-second: executed" in done.stdout
    assert 0 < len(steps) < 5 and steps == {path: path.stat().st_mtime_ns for path in steps}


def test_a_command_is_quick_to_ask_for_help() -> None:
    """No room is imported before a command of it runs."""
    heavy = ("torch", "transformers", "datasets", "pandas", "papermill", "matplotlib")
    code = f"import sys, limo_nb.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(("width", "framed"), [("80", False), ("200", True)])
def test_names_in_tables_are_whole_at_any_width(
    tmp_path: Path, width: str, framed: bool
) -> None:
    for words, name in (
        (["benchmarks"], "gym:"),
        (["plan", "--model", "Qwen2.5-7B"], "offloaded"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "limo_nb", *words], cwd=tmp_path, capture_output=True,
            text=True, env={**os.environ, "COLUMNS": width},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "…" not in done.stdout and name in done.stdout.replace("gym ", "gym: ")
        assert ("┃" in done.stdout) is framed


def test_the_version_and_where_an_error_arose(tmp_path: Path) -> None:
    assert limo_nb(tmp_path, "--version").stdout == f"limo-nb {package_version}\n"
    assert "Commands:" in limo_nb(tmp_path, "-h").stdout
    for debug in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "limo_nb", "status"], cwd=tmp_path, capture_output=True,
            text=True, env={**os.environ, "LIMO_NB_DEBUG": debug},
        )  # fmt: skip
        assert done.returncode == 1 and ("Traceback" in done.stderr) is bool(debug)


def test_choices_of_options_are_those_of_the_rooms() -> None:
    """The options are typed without the rooms, which would take seconds to import."""
    assert get_args(chains.FormatName) == tuple(formats.FORMATS)
    assert set(get_args(evaluate.ProtocolName)) == set(protocols.protocols())


@pytest.mark.parametrize(
    ("pairs", "want"),
    [
        (None, {}),
        (["pool.size=10"], {"pool.size": 10}),
        (["models.base=lab:poor", "sft.seeds=[1, 2]"],
         {"models.base": "lab:poor", "sft.seeds": [1, 2]}),
        (["system_prompt=a = b"], {"system_prompt": "a = b"}),
    ],
)  # fmt: skip
def test_overrides_are_yaml(pairs: list[str] | None, want: dict) -> None:
    assert base.parse_overrides(pairs) == want


@pytest.mark.parametrize(
    ("seconds", "want"), [(3, "3 s"), (90, "1.5 min"), (7200, "2.0 h"), (2.5 * 86400, "2.5 d")]
)
def test_age(seconds: float, want: str) -> None:
    assert book._age(seconds) == want


def test_doctor_says_what_is_there_and_what_each_profile_lacks(tmp_path: Path) -> None:
    done = limo_nb(tmp_path, "doctor")
    assert done.returncode == 0, done.stderr
    for part in (
        "Python: 3.",
        "machine: ",
        "deepspeed: ",
        "lab:foundation: ",
        "profile mini: ",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("overrides", "lacks"),
    [
        ({}, ""),
        ({"models.weak": "lab:giant"}, "weak model lab:giant has no weights"),
        ({"models.base": "/nonexistent/model"}, "base model /nonexistent/model does not exist"),
    ],
)
def test_what_a_profile_lacks(overrides: dict, lacks: str) -> None:
    assert checks.missing(settings.load_profile("smoke", overrides))[0] == lacks


# ---------------------------------------------------------------- dependencies agree
def test_lock_is_what_pyproject_needs(repository: Path) -> None:
    assert (repository / "requirements.lock").read_text() == lock.text(), "run `make lock`"


def test_lock_satisfies_every_declared_bound(repository: Path) -> None:
    pinned = dict(
        line.split("==")
        for line in (repository / "requirements.lock").read_text().splitlines()
        if not line.startswith("#")
    )
    for requirement in lock.declared():
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(Version(version)), requirement
    assert not [version for version in pinned.values() if "+" in version or "/" in version]


def test_each_dependency_has_its_reason(repository: Path) -> None:
    text = (repository / "pyproject.toml").read_text()
    block = re.search(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)[1]
    extras = re.search(r"optional-dependencies\]\n(.*?)\n\[", text, re.DOTALL)[1]
    lines = [line.strip() for line in f"{block}\n{extras}".splitlines()]
    wanted = [n for n, line in enumerate(lines) if line.startswith('"')]
    # Behind the bound, or in the lines above.
    told = [lines[n - 1].startswith("#") or '", # ' in lines[n] for n in wanted]
    without = [lines[n] for n, is_told in zip(wanted, told, strict=True) if not is_told]
    assert len(wanted) > 20 and without == []
    assert all(">=" in lines[n] for n in wanted)


def imported(path: Path) -> set[str]:
    """Top-level names that a Python file, or a notebook's code, imports."""
    if path.suffix == ".ipynb":
        cells = json.loads(path.read_text())["cells"]
        lines = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        text = "\n".join(re.sub(r"(?m)^(%%?|!)\w.*$", "", source) for source in lines)
    else:
        text = path.read_text()
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - {"limo_nb"}


def test_what_package_and_chapters_import_is_declared(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    files = [*(repository / "limo_nb").rglob("*.py"), *(repository / "book").glob("*.ipynb")]
    homes = metadata.packages_distributions()
    optional = {"flash_attn", "google"}  # asked for, never needed: see environment-gpu.yml
    missing = {}
    for path in files:
        for name in imported(path) - optional:
            owners = {canonicalize_name(owner) for owner in homes.get(name, [name])}
            if not owners & declared:
                missing[name] = f"{path.name} needs one of {sorted(owners)}"
    assert missing == {}, "declare it in pyproject.toml, with its reason"


def test_conda_environments_agree(repository: Path) -> None:
    cpu, gpu = (
        yaml.safe_load((repository / name).read_text())
        for name in ("environment.yml", "environment-gpu.yml")
    )
    assert cpu["dependencies"][-1]["pip"] == ["-r requirements.lock", "-e ."]
    assert gpu["dependencies"][-1]["pip"] == ["-e .[vllm,openai,ray]"]
    assert cpu["dependencies"][:-1] == gpu["dependencies"][:-1]
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lowest = project["requires-python"].split(",")[0].removeprefix(">=")
    assert f"python={lowest}" in cpu["dependencies"]
